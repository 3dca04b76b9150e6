// The verdict bar: before any data, what must be 0, and how old the answer is.

import { html } from './preact.js';
import { age, count } from './format.js';

/** The words of the verdict with their numbers, the worst that were seen; `null` is not known yet. */
function verdictOf(state) {
  const v = state?.offence?.verdict ?? state?.now.verdict;
  return [
    ['OVERSOLD', v ? (v.oversold ?? 0) : null],
    ['UNDERSOLD', v ? (v.undersold ?? 0) : null],
    ['BROKEN PROMISES', v ? (v.broken_promises ?? 0) : null],
  ];
}

/** `state` is null before the first data; `ageMs` how long ago it came; `word` how it comes. */
export function Verdict({ state, word, ageMs, onOffence, children }) {
  const now = state?.now;
  const offence = state?.offence;
  const kind = offence ? 'broken' : now ? 'exact' : 'unknown';
  return html`
    <section class=${`verdict ${kind}`} aria-label="Verdict">
      <div>
        <dl>
          ${verdictOf(state).map(([name, n]) => html`<div><dt>${name}</dt><dd data-verdict=${name}>${count(n)}</dd></div>`)}
          <div class="conserved">
            <dt>CONSERVED</dt>
            <dd data-verdict="CONSERVED">${now ? (now.conserved && !offence ? html`<span aria-hidden="true">✓</span><span class="hidden">yes</span>` : html`<span aria-hidden="true">✗</span><span class="hidden">no</span>`) : '–'}</dd>
          </div>
        </dl>
        <span class="asof">
          ${now && html`as of <span class="mono" data-watermark>#${count(now.watermark)}</span>, <span class="age">${age(ageMs)} ago</span>`}
        </span>
        ${offence && html`<a href="#conservation" onClick=${onOffence}>${offenceText(offence)}</a>`}
        <div class="right">${children}<${Freshness} word=${word} ageMs=${ageMs} /></div>
      </div>
    </section>
  `;
}

function offenceText({ watermark, verdict }) {
  const first = verdict.first_offence;
  if (!first) return `First seen at #${count(watermark)}`;
  return first.seq ? `First at #${count(first.seq)}: ${first.what}` : `First seen at #${count(watermark)}: ${first.what}`;
}

/** Live, polling, stale 4 s, disconnected. */
export function Freshness({ word, ageMs }) {
  const stale = (word === 'live' || word === 'polling') && ageMs > 2500;
  const kind = stale ? 'stale' : word;
  return html`<span class=${`fresh ${kind}`} data-fresh=${kind}>${stale ? `stale ${Math.round(ageMs / 1000)} s` : kind}</span>`;
}
