// The way of one order, step by step, with the time between the steps.

import { html, useEffect, useState } from '../shared/preact.js';
import { count, timeOfDay } from '../shared/format.js';
import { ask } from '../shared/session.js';
import { orderId } from './model.js';

const MEANINGS = {
  accepted: 'The gate admitted it and the queue made it durable: from here on it is kept.',
  settled: 'The ledger decided.',
  confirmed: 'The hold became a sale.',
  lapsed: 'Time gave the units back.',
  cancelled: 'Its holder gave the units back.',
  refused: 'The ledger had no units for it.',
};

export function OrderTimeline() {
  const [found, setFound] = useState(null);
  const [trouble, setTrouble] = useState('');
  const id = orderId.value;
  useEffect(() => {
    let wanted = true;
    setTrouble('');
    setFound(null);
    if (!id) return;
    ask('GET', `/v1/orders/${encodeURIComponent(id)}/timeline`)
      .then((data) => wanted && setFound(data))
      .catch((error) => wanted && setTrouble(error.status === 404 ? 'There is no such order.' : error.message));
    return () => {
      wanted = false;
    };
  }, [id]);
  const search = (event) => {
    event.preventDefault();
    orderId.value = new FormData(event.target).get('order').trim();
  };
  return html`
    <section class="card timeline" id="timeline" tabindex="-1" aria-labelledby="order-title">
      <header><h2 id="order-title">One order</h2></header>
      <form onSubmit=${search}>
        <input name="order" aria-label="Order" placeholder="ord_…" value=${id} spellcheck="false" autocomplete="off" />
        <button>Show</button>
      </form>
      <div class="body" tabindex="0" role="region" aria-label="Its steps">
        ${trouble && html`<p class="fault">${trouble}</p>`}
        ${found ? html`<${Steps} found=${found} />` : !trouble && html`<p class="empty">${id ? 'Reading …' : 'Choose an order in the log, or enter its id.'}</p>`}
      </div>
    </section>
  `;
}

function Steps({ found: { order, steps } }) {
  const lines = (order.lines ?? []).map((line) => `${count(line.quantity)} × ${line.sku}`).join(', ');
  return html`
    <p><b>${order.customer}</b> · ${lines} · <span class="pill">${order.state}</span></p>
    <ol class="steps">
      ${steps.map((step, i) => html`
        <li key=${i}>
          <b>${step.what}</b> <span class="num soft">${timeOfDay(step.at, true)}</span> ${step.seq ? html`<span class="mono soft">#${count(step.seq)}</span>` : ''}
          ${gap(step.gap_ms) && html` <b class="num">+${gap(step.gap_ms)}</b>`}
          <span class="gap">${MEANINGS[step.what] ?? ''}</span>
        </li>`)}
    </ol>
  `;
}

function gap(ms) {
  if (!Number.isFinite(ms)) return '';
  return ms < 1000 ? `${ms.toFixed(ms < 10 ? 2 : 1)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}
