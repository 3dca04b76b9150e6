// The verdict bar: before any data, what must be 0, and how old the answer is.

import { html } from './preact.js';
import { age, count } from './format.js';

/** The four words of the verdict with their numbers; `null` is not known yet. */
export function verdictOf(now) {
  const v = now?.verdict;
  return [
    ['OVERSOLD', v ? v.oversold : null],
    ['UNDERSOLD', v ? v.undersold : null],
    ['BROKEN PROMISES', v ? v.broken_promises : null],
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
          ${verdictOf(now).map(([name, n]) => html`<div><dt>${name}</dt><dd data-verdict=${name}>${count(n)}</dd></div>`)}
          <div class="conserved">
            <dt>CONSERVED</dt>
            <dd data-verdict="CONSERVED">${now ? (now.conserved ? html`<span aria-hidden="true">✓</span><span class="hidden">yes</span>` : html`<span aria-hidden="true">✗</span><span class="hidden">no</span>`) : '–'}</dd>
          </div>
        </dl>
        <span class="asof">
          ${now && html`as of <span class="mono" data-watermark>#${count(now.watermark)}</span>, <span class="age">${age(ageMs)} ago</span>`}
        </span>
        ${offence && html`<a href="#offence" onClick=${onOffence}>${offenceText(offence)}</a>`}
        <div class="right">${children}<${Freshness} word=${word} ageMs=${ageMs} /></div>
      </div>
    </section>
  `;
}

function offenceText({ watermark, verdict }) {
  const first = verdict.first_offence;
  return first ? `First at #${count(first.seq)}: ${first.what}` : `First seen at #${count(watermark)}`;
}

/** Live, polling, stale 4 s, disconnected. */
export function Freshness({ word, ageMs }) {
  const stale = (word === 'live' || word === 'polling') && ageMs > 2500;
  const kind = stale ? 'stale' : word;
  return html`<span class=${`fresh ${kind}`} data-fresh=${kind}>${stale ? `stale ${Math.round(ageMs / 1000)} s` : kind}</span>`;
}
