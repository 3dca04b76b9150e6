// One lane of the race: what it sold beside what it had, every seed, and how it first went wrong, step by step.

import { html, useState } from '../shared/preact.js';
import { count, micros } from '../shared/format.js';

export function Lane({ lane, most, running }) {
  const [how, setHow] = useState(false);
  const seeds = lane.seeds ?? [];
  const ran = seeds.length > 0;
  const steps = lane.first_wrong ?? [];
  return html`
    <li class=${`card lane ${ran && wrong(lane) ? 'wrong' : ''}`}>
      <header>
        <div class="who"><h2>${lane.name}</h2><p class="soft small">${lane.how}</p></div>
        <span class="outcome">${ran ? said(lane) : running ? 'waiting …' : ''}</span>
      </header>
      <${Bar} lane=${lane} most=${most} ran=${ran} />
      <dl class="numbers">
        ${fact('sold', ran ? count(lane.sold) : '–')}${fact('oversold', ran ? count(lane.oversold) : '–', lane.oversold > 0)}
        ${fact('lost', ran ? count(lane.lost) : '–', lane.lost > 0)}${fact('phantom sold out', ran ? count(lane.phantom) : '–', lane.phantom > 0)}
        ${fact('time', ran ? `${count(lane.ms)} ms` : '–')}${fact('p99', ran ? micros(lane.p99_ms * 1000) : '–')}
      </dl>
      <${Seeds} lane=${lane} seeds=${seeds} />
      ${steps.length > 0 && html`
        <button class="plain how" aria-expanded=${how} onClick=${() => setHow(!how)}>${how ? 'Hide how' : 'Show me how'}</button>
        ${how && html`<${Sequence} steps=${steps} />`}`}
    </li>
  `;
}

const wrong = (lane) => lane.oversold > 0 || lane.lost > 0 || lane.phantom > 0;

function said(lane) {
  if (lane.oversold > 0) return html`<i class="sign oversold"></i> oversold`;
  if (lane.phantom > 0) return 'sold out with units left';
  if (lane.lost > 0) return 'lost orders';
  return lane.guarded ? html`<i class="sign sold"></i> exact` : 'did not oversell this time';
}

const fact = (name, value, bad) => html`<div class=${bad ? 'bad' : ''}><dt>${name}</dt><dd class="num">${value}</dd></div>`;

/** What was sold within the frame of the stock; what was oversold stands outside it. */
function Bar({ lane, most, ran }) {
  const percent = (n) => `${(n / most) * 100}%`;
  const within = Math.min(lane.stock, lane.sold);
  return html`
    <div class="lanebar" role="img" aria-label=${ran ? `sold ${count(lane.sold)} of ${count(lane.stock)}` : 'not run'}>
      <div class="frame" style=${{ width: percent(lane.stock) }}></div>
      ${ran && html`<div class="within" style=${{ width: percent(within) }}></div><div class="over" style=${{ left: percent(lane.stock), width: percent(Math.max(0, lane.sold - lane.stock)) }}></div>`}
    </div>
  `;
}

const KINDS = [['oversold', 'oversold'], ['lost', 'lost'], ['phantom', 'that nobody has']];

/** Units that a seed sold too often, lost, or left to nobody. */
const missed = (seed) => KINDS.reduce((sum, [kind]) => sum + seed[kind], 0);
const kindsOf = (seed) => KINDS.filter(([kind]) => seed[kind] > 0).map(([kind, word]) => `${count(seed[kind])} ${word}`).join(', ');

/** How many seeds went wrong, in which way, and how far. */
function spread(seeds) {
  const told = KINDS.map(([kind, word]) => [word, seeds.filter((seed) => seed[kind] > 0).length, Math.max(...seeds.map((seed) => seed[kind]))]).filter(([, n]) => n > 0);
  if (told.length === 0) return `no seed of ${seeds.length} went wrong`;
  return told.map(([word, n, up]) => `${n} of ${seeds.length} seeds: up to ${count(up)} ${word}`).join('; ');
}

/** One mark per seed, at how far it went wrong: the distribution, with nothing left out. */
function Seeds({ lane, seeds }) {
  const [table, setTable] = useState(false);
  if (seeds.length < 2) return null;
  const most = Math.max(1, ...seeds.map(missed));
  return html`
    <div class="seeds">
      <span class="small soft">${spread(seeds)}</span>
      <button class="plain" aria-pressed=${table} onClick=${() => setTable(!table)}>${table ? 'view as picture' : 'view as table'}</button>
      ${table ? html`
        <div class="scroll" tabindex="0" role="region" aria-label=${`Seeds of ${lane.name}`}><table><thead><tr><th>seed</th><th class="num">sold</th><th class="num">oversold</th><th class="num">lost</th><th class="num">phantom</th><th class="num">ms</th></tr></thead>
          <tbody>${seeds.map((seed) => html`<tr key=${seed.seed}><td>${seed.seed}</td><td class="num">${count(seed.sold)}</td><td class="num">${count(seed.oversold)}</td><td class="num">${count(seed.lost)}</td><td class="num">${count(seed.phantom)}</td><td class="num">${count(seed.ms)}</td></tr>`)}</tbody></table></div>` : html`
        <div class="dots" role="img" aria-label=${`Units of ${seeds.length} seeds that were oversold, lost or nobody's: ${spread(seeds)}`}>${seeds.map((seed) => html`<i key=${seed.seed} class=${missed(seed) > 0 ? 'bad' : ''} style=${{ height: `${missed(seed) > 0 ? 14 + (missed(seed) / most) * 86 : 8}%` }} title=${`seed ${seed.seed}: ${kindsOf(seed) || 'exact'}`}></i>`)}</div>`}
    </div>
  `;
}

/** The recorded interleaving that first went wrong, as two lanes of time. */
function Sequence({ steps }) {
  const [at, setAt] = useState(1);
  const move = (to) => setAt(Math.max(1, Math.min(steps.length, to)));
  const key = (event) => {
    if (event.key === 'ArrowRight' || event.key === 'ArrowDown') move(at + 1);
    else if (event.key === 'ArrowLeft' || event.key === 'ArrowUp') move(at - 1);
    else return;
    event.preventDefault();
  };
  return html`
    <div class="sequence" onKeyDown=${key}>
      <div class="heads"><b>A</b><span></span><b>B</b></div>
      <ol>
        ${steps.map((step, i) => html`
          <li key=${i} class=${`${step.who} ${i < at ? 'done' : ''} ${i === at - 1 ? 'now' : ''}`} aria-current=${i === at - 1 ? 'step' : undefined}>
            <span class="t num">${count(step.t_us)} µs</span><span class="does"><span class="hidden">${step.who} </span>${step.does}</span>
          </li>`)}
      </ol>
      <footer><button onClick=${() => move(at - 1)} disabled=${at <= 1}>Back</button><span class="num small">${at} of ${steps.length}</span><button class="primary" onClick=${() => move(at + 1)} disabled=${at >= steps.length}>Next</button></footer>
    </div>
  `;
}
