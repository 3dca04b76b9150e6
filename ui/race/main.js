// The race: the same crowd against the usual ways to sell, side by side, on real tables. Whatever a lane came to is shown as it was.

import { html, render, signal, useEffect } from '../shared/preact.js';
import { count } from '../shared/format.js';
import { ask, takeToken, token } from '../shared/session.js';
import { Lane } from './lane.js';

const race = signal(null);
const trouble = signal('');
/** Why the last race did not begin; stands until another try. */
const refused = signal('');

/** How often a race that runs is looked at. */
const LOOK_MS = 500;

function App() {
  useEffect(() => {
    let timer;
    const look = async () => {
      await refresh();
      timer = setTimeout(look, race.value?.state === 'running' ? LOOK_MS : 3000);
    };
    look();
    return () => clearTimeout(timer);
  }, []);
  return html`
    <${Verdict} />
    <main id="main" tabindex="-1">
      <header class="intro">
        <div>
          <h1>The race</h1>
          <p class="soft">The same crowd, with real concurrency, buys from the same stock in several ways. Nothing is simulated, and one thing is arranged: the
            counter in front lives in this process, and one of its clients in twenty dies between counter and table. Units are those of a lane's worst seed; a lane that did not oversell this time says so.</p>
        </div>
        <${Start} />
      </header>
      ${race.value?.error && html`<p class="fault" role="alert">It ended early: ${race.value.error}</p>`}
      ${[refused.value, trouble.value].map((said) => said && html`<p class="fault" role="alert">${said}</p>`)}
      <${Lanes} />
      <p class="soft small links"><a href="/">Console</a> · The guarded lanes lock or count atomically; the others leave a gap between reading and writing.</p>
    </main>
  `;
}

/** What must be 0, of Sluice's own lanes. */
function Verdict() {
  const lanes = (race.value?.lanes ?? []).filter((lane) => lane.id.startsWith('sluice') && lane.seeds?.length > 0);
  const known = lanes.length > 0;
  const sum = (key) => lanes.reduce((total, lane) => total + (lane[key] ?? 0), 0);
  const numbers = [['OVERSOLD', sum('oversold')], ['LOST', sum('lost')], ['PHANTOM SOLD OUT', sum('phantom')]];
  const broken = known && numbers.some(([, n]) => n > 0);
  return html`
    <section class=${`verdict ${known ? (broken ? 'broken' : 'exact') : 'unknown'}`} aria-label="Verdict">
      <div><dl>${numbers.map(([name, n]) => html`<div><dt>${name}</dt><dd>${known ? count(n) : '–'}</dd></div>`)}</dl>
        <span class="asof">${known ? 'by Sluice' : 'no race yet'}</span>
        <div class="right"><span class=${`fresh ${race.value?.state === 'running' ? 'live' : race.value ? 'polling' : 'connecting'}`}>${race.value?.state ?? 'connecting'}</span></div></div>
    </section>
  `;
}

function Start() {
  const running = race.value?.state === 'running';
  const start = async (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    const wish = Object.fromEntries(['seeds', 'units', 'customers'].map((name) => [name, Number(form.get(name))]));
    refused.value = '';
    await ask('POST', '/v1/demo/race', wish).catch((error) => (refused.value = error.message));
    if (!refused.value) document.getElementById('milestones').textContent = 'The race has begun.';
    await refresh();
  };
  return html`
    <form class="start" onSubmit=${start}>
      <label>Seeds<input name="seeds" type="number" min="1" max="100" defaultValue="20" required /></label>
      <label>Units<input name="units" type="number" min="1" max="10000" defaultValue="100" required /></label>
      <label>Customers<input name="customers" type="number" min="1" max="100000" defaultValue="2000" required /></label>
      <button class="primary" disabled=${running || !race.value}>${running ? 'Running …' : 'Race'}</button>
    </form>
  `;
}

function Lanes() {
  const lanes = race.value?.lanes ?? [];
  if (lanes.length === 0) return html`<p class="card empty">${race.value ? 'No race has been run yet.' : trouble.value ? '' : 'Reading …'}</p>`;
  const most = Math.max(...lanes.flatMap((lane) => [lane.stock, ...(lane.seeds ?? []).map((seed) => seed.sold)]), 1);
  const missing = !lanes.some((lane) => lane.id.startsWith('postgres'));
  return html`
    ${missing && html`<p class="soft small missing">Four lanes are missing: they need a PostgreSQL. Start with <code>DATABASE_URL</code> set to one without TLS.</p>`}
    <ol class="lanes">${lanes.map((lane) => html`<${Lane} key=${lane.id} lane=${lane} most=${most} running=${race.value.state === 'running'} />`)}</ol>`;
}

async function refresh() {
  try {
    const before = race.value?.state;
    race.value = await ask('GET', '/v1/demo/race');
    if (before === 'running' && race.value.state === 'done') document.getElementById('milestones').textContent = 'The race is over.';
    trouble.value = '';
  } catch (error) {
    const words = { 401: 'The race needs the admin token: open the console with its link first.', 404: 'There is a race only in demo mode: run sluice demo.' };
    trouble.value = words[error.status] ?? error.message;
  }
}

takeToken();
if (!token()) trouble.value = 'The race needs the admin token: open the console with its link first.';
document.getElementById('app').replaceChildren();
render(html`<${App} />`, document.getElementById('app'));
