// The funnel: what became of the requests, each step with its number, its rate and how rare it is.

import { html } from '../shared/preact.js';
import { count, oneIn, rate } from '../shared/format.js';
import { perSecond, refusedOf } from '../shared/sale-state.js';
import { state } from './model.js';

/** [key, word, sign, a seam above?, since when it counts] */
export const STEPS = [
  ['requests', 'requests', 'plain'],
  ['shed', 'shed', 'refused'],
  ['sold_out', 'sold out', 'refused'],
  ['limit', 'limit', 'refused'],
  ['other', 'other', 'refused'],
  ['repeats', 'repeats', 'plain'],
  ['accepted', 'accepted', 'accepted'],
  ['settled', 'settled', 'accepted', true],
  ['held', 'held', 'held'],
  ['sold', 'sold', 'sold'],
  ['lapsed', 'lapsed', 'plain'],
  ['cancelled', 'cancelled', 'plain'],
];

const HINTS = {
  shed: 'Answered 503: come again in a moment. Never means sold out.',
  limit: 'The customer has as many units as one may have.',
  other: 'Not open yet, paused, ended, or not a proper request.',
  repeats: 'A retry: the same order came back, and no second one.',
  settled: 'Decided by the ledger.',
};

export function Funnel() {
  const { now, recent } = state.value;
  const f = now.funnel;
  const all = f.requests;
  return html`
    <section class="card" aria-labelledby="funnel-title">
      <header><h2 id="funnel-title">Funnel</h2><span class="soft small num">${count(refusedOf(f))} refused</span></header>
      <p class="soft small since">To accepted: answered by this process since it started. Below: the ledger's.</p>
      <table class="funnel">
        <thead><tr><th><span class="hidden">step</span></th><th class="bar"></th><th class="num">count</th><th class="num">per s</th><th class="num">share</th></tr></thead>
        <tbody>
          ${STEPS.map(([key, word, sign, seam]) => html`
            <tr key=${key} class=${seam ? 'seam' : ''} title=${HINTS[key]}>
              <th scope="row">${word}</th>
              <td class="bar"><i class=${sign} style=${{ width: width(f[key], all) }}></i></td>
              <td class="num count" data-funnel=${key}>${count(f[key])}</td>
              <td class="num rate">${rate(perSecond(recent, (then) => then.funnel[key]))}</td>
              <td class="num onein">${key === 'requests' ? '' : oneIn(f[key], all)}</td>
            </tr>`)}
        </tbody>
      </table>
    </section>
  `;
}

const width = (n, all) => `${all > 0 && n > 0 ? Math.max(1.2, Math.min(100, (n / all) * 100)) : 0}%`;
