// The event log with its filter.

import { html, useState } from '../shared/preact.js';
import { count, timeOfDay } from '../shared/format.js';
import { orderId, state } from './model.js';

/** Rows on the page; the filter looks through all entries that are kept. */
const ROWS_MAX = 120;

export function Log() {
  const [kind, setKind] = useState('');
  const [text, setText] = useState('');
  const { log } = state.value;
  const kinds = [...new Set(log.map((entry) => entry.kind))].sort();
  const wanted = text.trim().toLowerCase();
  const found = log.filter((entry) => (!kind || entry.kind === kind) && (!wanted || `${entry.text} ${entry.order ?? ''} ${entry.sku ?? ''} ${entry.seq ?? ''}`.toLowerCase().includes(wanted)));
  return html`
    <section class="card log" aria-labelledby="log-title">
      <header>
        <h2 id="log-title">Event log</h2>
        <div class="tools">
          <select aria-label="Kind" value=${kind} onChange=${(event) => setKind(event.target.value)}>
            <option value="">all kinds</option>${kinds.map((name) => html`<option key=${name} value=${name}>${name.replaceAll('_', ' ')}</option>`)}
          </select>
          <input type="search" aria-label="Filter" placeholder="order, SKU, text" value=${text} onInput=${(event) => setText(event.target.value)} />
        </div>
      </header>
      <div class="scroll" tabindex="0" role="region" aria-label="Entries">
        ${found.length === 0 ? html`<p class="empty">${log.length === 0 ? 'Nothing has happened yet.' : 'No entry matches.'}</p>` : html`
          <table>
            <colgroup><col class="at" /><col class="seq" /><col class="kind" /><col /></colgroup>
            <thead class="hidden"><tr><th>at</th><th>number</th><th>kind</th><th>what</th></tr></thead>
            <tbody>${found.slice(0, ROWS_MAX).map((entry) => html`<${Row} key=${`${entry.at} ${entry.seq} ${entry.kind} ${entry.order}`} entry=${entry} />`)}</tbody>
          </table>`}
      </div>
    </section>
  `;
}

function Row({ entry }) {
  return html`
    <tr>
      <td class="at num">${timeOfDay(entry.at, true)}</td>
      <td class="seq">${entry.seq ? html`<button class="plain" title="Show this move" onClick=${() => (orderId.value = `#${entry.seq}`)}>#${count(entry.seq)}</button>` : ''}</td>
      <td class="kind">${entry.kind.replaceAll('_', ' ')}</td>
      <td class="text">${entry.text}${entry.order && html` <button class="plain" title="Show its timeline" onClick=${() => (orderId.value = entry.order)}>${short(entry.order)}</button>`}</td>
    </tr>
  `;
}

const short = (order) => (order.length > 16 ? `${order.slice(0, 14)}…` : order);
