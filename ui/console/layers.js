// Conservation as a sum that anybody can add up, layer by layer at one watermark; and what waits: the queue and the holds.

import { html } from '../shared/preact.js';
import { age, clock, count } from '../shared/format.js';
import { beat, serverNow, state, sums } from './model.js';

export function Layers() {
  const { now } = state.value;
  const units = sums.value;
  const total = units.available + units.in_flight + units.held + units.sold;
  const fits = total === units.stock;
  const gateFits = units.gate === units.available;
  const line = (layer, op, place, n) => html`
    <tr><th class="layer" scope="row">${layer}</th><td class="op">${op}</td><td><i class=${`sign ${place === 'in_flight' ? 'flight' : place}`}></i> ${place.replace('_', ' ')}</td><td class="num">${count(n)}</td><td></td></tr>`;
  return html`
    <section class="card" id="conservation" tabindex="-1" aria-labelledby="sum-title">
      <header><h2 id="sum-title">Conservation</h2><span class="soft small mono">at #${count(now.watermark)}</span></header>
      <table class="sum">
        <tbody>
          ${line('gate', '', 'available', units.available)}
          ${line('queue', '+', 'in_flight', units.in_flight)}
          ${line('ledger', '+', 'held', units.held)}
          ${line('ledger', '+', 'sold', units.sold)}
          <tr class="total"><th class="layer" scope="row">ledger</th><td class="op">=</td><td>${fits ? 'stock' : `stock is ${count(units.stock)}`}</td><td class="num" data-sum>${count(total)}</td>${tick(fits)}</tr>
        </tbody>
      </table>
      <ul class="checks">
        <li><span>the gate would admit</span><span><b>${units.gate === null ? 'not loaded' : count(units.gate)}</b> <b class=${gateFits ? 'good' : ''}>${units.gate === null ? '…' : gateFits ? '✓' : '✗'}</b></span></li>
        <li><span>the ledger calls available</span><b>${count(units.available + units.in_flight)}</b></li>
        <li><span>dead letters</span><b>${count(now.queue.dead_letters)}</b></li>
      </ul>
    </section>
  `;
}

const tick = (fits) => html`<td class=${fits ? 'ok' : 'no'}>${fits ? '✓' : '✗'}<span class="hidden">${fits ? 'adds up' : 'does not add up'}</span></td>`;

export function Holds() {
  beat.value;
  const { now } = state.value;
  const { depth, oldest_seconds: oldest } = now.queue;
  const next = now.holds.next;
  const most = Math.max(1, ...next.map((hold) => hold.units));
  const lag = now.holds.release_lag_seconds;
  return html`
    <section class="card" aria-labelledby="holds-title">
      <header><h2 id="holds-title">Queue and holds</h2></header>
      <dl class="facts3">
        <div><dt>queue depth</dt><dd class="num">${count(depth)}</dd></div>
        <div><dt>oldest waits</dt><dd class="num">${depth > 0 ? age(oldest * 1000) : '–'}</dd></div>
        <div><dt>release lag</dt><dd class="num">${Number.isFinite(lag) ? `${Math.round(lag * 1000)} ms` : '–'}</dd></div>
      </dl>
      <h3>Holds that lapse next</h3>
      <div class="next">
        ${next.length === 0 ? html`<p class="empty">Nothing is held.</p>` : html`
          <table>
            <thead class="hidden"><tr><th>in</th><th>share</th><th>units</th></tr></thead>
            <tbody>${next.slice(0, 8).map((hold) => html`
              <tr key=${hold.at}><td class="num at">in ${clock(Date.parse(hold.at) - serverNow())}</td>
                <td class="bar"><i style=${{ width: `${(hold.units / most) * 100}%` }}></i></td>
                <td class="num">${count(hold.units)} ${hold.units === 1 ? 'unit' : 'units'}</td></tr>`)}</tbody>
          </table>`}
      </div>
    </section>
  `;
}
