// The hero: where the units are, as four numbers and as a grid that empties.

import { html, useEffect, useRef, useState } from '../shared/preact.js';
import { count } from '../shared/format.js';
import { unitsPerCell } from '../shared/waffle.js';
import { sku, state, sums } from './model.js';
import { Grid } from './grid.js';

const WORDS = [
  ['available', 'available', 'available'],
  ['in_flight', 'flight', 'in flight'],
  ['held', 'held', 'held'],
  ['sold', 'sold', 'sold'],
];

export function Hero() {
  const [table, setTable] = useState(false);
  const { now } = state.value;
  const units = sums.value;
  const per = unitsPerCell(units.stock);
  return html`
    <section class="card hero" aria-labelledby="hero-title">
      <header>
        <h2 id="hero-title"><span class="num" data-units="stock">${count(units.stock)}</span> units${sku.value ? html` of ${nameOf(now, sku.value)}` : ''}</h2>
        <${Items} items=${now.items} />
        <${TableButton} on=${table} set=${setTable} />
      </header>
      <dl class="places">
        ${WORDS.map(([place, sign, said]) => html`
          <div key=${place}><dt><i class=${`sign ${sign}`}></i>${said}</dt><dd class="num" data-units=${place}>${count(units[place])}</dd></div>`)}
      </dl>
      <div class="gridbox">${table ? html`<${Table} items=${now.items} />` : html`<${Canvas} />`}</div>
      <p class="legend"><span>${per === 1 ? '1 cell = 1 unit' : `1 cell = ${count(per)} units`}</span><span>outside the frame: oversold</span></p>
    </section>
  `;
}

const nameOf = (now, id) => now.items.find((item) => item.sku === id)?.name ?? id;

function Items({ items }) {
  if (items.length < 2) return null;
  return html`
    <select aria-label="Item" value=${sku.value ?? ''} onChange=${(event) => (sku.value = event.target.value || null)}>
      <option value="">all ${items.length} items</option>
      ${items.map((item) => html`<option key=${item.sku} value=${item.sku}>${item.name}</option>`)}
    </select>
  `;
}

/** Every chart can be read as a table. */
export function TableButton({ on, set }) {
  return html`<button class="plain" aria-pressed=${on} onClick=${() => set(!on)}>${on ? 'view as picture' : 'view as table'}</button>`;
}

function Canvas() {
  const canvas = useRef();
  const grid = useRef();
  useEffect(() => {
    grid.current = new Grid(canvas.current);
    return () => grid.current.stop();
  }, []);
  const units = sums.value;
  const oversold = state.value.now.verdict?.oversold ?? 0;
  useEffect(() => grid.current.show(units, oversold), [units, oversold]);
  const said = `Of ${count(units.stock)} units ${WORDS.map(([place, , word]) => `${count(units[place])} ${word}`).join(', ')}.`;
  return html`<canvas ref=${canvas} role="img" aria-label=${said}></canvas>`;
}

function Table({ items }) {
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label="Units per item">
      <table>
        <thead><tr><th>item</th><th class="num">stock</th>${WORDS.map(([, , word]) => html`<th class="num">${word}</th>`)}<th class="num">gate</th></tr></thead>
        <tbody>
          ${items.map((item) => html`
            <tr key=${item.sku}><th>${item.name} <code class="soft">${item.sku}</code></th><td class="num">${count(item.stock)}</td>
              ${WORDS.map(([place]) => html`<td class="num">${count(item[place])}</td>`)}<td class="num">${count(item.gate?.available)}</td></tr>`)}
        </tbody>
      </table>
    </div>
  `;
}
