// The way of one order, step by step, with the time between the steps; or one move of the journal, by its number.

import { html, useEffect, useState } from '../shared/preact.js';
import { count, timeOfDay } from '../shared/format.js';
import { ask } from '../shared/session.js';
import { orderId, saleId } from './model.js';

const MEANINGS = {
  asked: 'Its customer asked for it.',
  admitted: 'The gate set its units aside.',
  sealed: 'Its batch was closed and left for the queue.',
  pushed: 'The queue made it durable: from here on it is kept.',
  pulled: 'A worker had it.',
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
    read(id)
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
      <header><h2 id="order-title">One order, one move</h2></header>
      <form onSubmit=${search}>
        <input name="order" aria-label="Order or move" placeholder="ord_… or #48213" value=${id} spellcheck="false" autocomplete="off" />
        <button>Show</button>
      </form>
      <div class="body" tabindex="0" role="region" aria-label="Its steps">
        ${trouble && html`<p class="fault">${trouble}</p>`}
        ${found ? (found.move ? html`<${Move} move=${found.move} />` : html`<${Steps} found=${found} />`) : !trouble && html`<p class="empty">${id ? 'Reading …' : 'Choose an order or a number in the log, or enter one.'}</p>`}
      </div>
    </section>
  `;
}

/** An order by its id, or a move of the journal by `#` and its number. */
async function read(id) {
  if (!id.startsWith('#')) return ask('GET', `/v1/orders/${encodeURIComponent(id)}/timeline`);
  const seq = Number(id.slice(1).replaceAll(',', ''));
  if (!Number.isInteger(seq) || seq < 1) throw new Error('A move is named by # and its number.');
  const { moves } = await ask('GET', `/v1/sales/${encodeURIComponent(saleId.value)}/journal?after=${seq - 1}&limit=1`);
  if (moves[0]?.seq !== seq) throw new Error(`The journal has no move #${count(seq)}.`);
  return { move: moves[0] };
}

function Move({ move }) {
  const { seq, at, kind, claim, customer, lines, ...more } = move;
  const row = (name, value) => value && html`<tr><th scope="row">${name}</th><td>${value}</td></tr>`;
  return html`
    <table class="move">
      <tbody>
        ${row('move', html`<span class="mono">#${count(seq)}</span>`)}${row('what', html`<b>${kind}</b>`)}${row('at', timeOfDay(at, true))}
        ${row('order', claim && html`<button class="plain" onClick=${() => (orderId.value = claim)}>${claim}</button>`)}
        ${row('customer', customer)}${row('units', lines?.map((line) => `${count(line.quantity)} × ${line.sku}`).join(', '))}
        ${Object.entries(more).map(([name, value]) => value !== null && value !== '' && row(name.replaceAll('_', ' '), typeof value === 'object' ? JSON.stringify(value) : String(value)))}
      </tbody>
    </table>
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
