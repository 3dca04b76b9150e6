// The console: boots, asks for the token if there is none, and lays out the page.

import { effect, html, render, useEffect, useState } from '../shared/preact.js';
import { Verdict } from '../shared/verdict.js';
import { forget, remember, takeToken, token } from '../shared/session.js';
import { bytes, clock, count } from '../shared/format.js';
import { beat, choose, dataAge, dialog, loadSales, opening, orderId, saleId, sales, serverNow, signedIn, sku, state, word } from './model.js';
import { Hero } from './hero.js';
import { Curve } from './curve.js';
import { Funnel } from './funnel.js';
import { Latency } from './latency.js';
import { Holds, Layers } from './layers.js';
import { Log } from './log.js';
import { OrderTimeline } from './order.js';
import { Dialogs } from './controls.js';
import { DemoBar } from './demo.js';

function App() {
  if (!signedIn.value) return html`<${SignIn} />`;
  return html`
    <${Bar} />
    <main id="main" tabindex="-1">
      ${state.value ? html`<${Sale} />` : html`<${Waiting} />`}
    </main>
    <${Dialogs} />
  `;
}

function Bar() {
  const showOffence = (event) => {
    event.preventDefault();
    const { now, offence } = state.value;
    const first = offence.verdict.first_offence;
    const item = now.items.find((one) => first?.what.split(/[\s:]/).includes(one.sku));
    if (first?.seq || first?.order) orderId.value = first.seq ? `#${first.seq}` : first.order;
    else if (!item) return location.assign(`/report/${encodeURIComponent(now.sale)}#audit`);
    else if (now.items.length > 1) sku.value = item.sku;
    const place = document.getElementById(first?.seq || first?.order ? 'timeline' : 'conservation');
    place.scrollIntoView();
    place.focus({ preventScroll: true });
  };
  return html`<${Verdict} state=${state.value} word=${word.value} ageMs=${dataAge()} onOffence=${showOffence} />`;
}

function Sale() {
  return html`
    <${Head} />
    ${state.value.now.demo && html`<${DemoBar} />`}
    <div class="board">
      <${Hero} /><${Funnel} />
      <${Curve} /><${Layers} />
      <${Latency} /><${Holds} />
      <${Log} /><${OrderTimeline} />
    </div>
    <${Foot} />
  `;
}

function Head() {
  const { now } = state.value;
  const open = (kind) => () => (dialog.value = { kind });
  const verbs = {
    draft: ['open', 'close'], scheduled: ['open', 'close'], open: ['pause', 'close'], paused: ['resume', 'close'], ended: [],
  }[now.state] ?? [];
  const titles = { open: 'Open', pause: 'Pause', resume: 'Resume', close: 'Close' };
  return html`
    <header class="sale">
      <div class="title">
        <h1>${now.name}</h1>
        <span class=${`pill ${now.state}`} data-state>${now.state}</span>
        <span class="num timer">${timer()}</span>
        <span class="soft small facts">${facts(now)}</span>
      </div>
      <div class="controls">
        <${Chooser} />
        ${verbs.map((verb) => html`<button key=${verb} onClick=${open(verb)}>${titles[verb]}…</button>`)}
        ${now.state !== 'ended' && html`<button onClick=${open('adjust')}>Adjust stock…</button>`}
        <button onClick=${open('create')}>New sale…</button>
        <a class="button" href=${`/report/${encodeURIComponent(now.sale)}`}>Report</a>
      </div>
    </header>
  `;
}

function timer() {
  beat.value;
  const { now } = state.value;
  if (now.state === 'draft') return 'not scheduled';
  const since = serverNow() - opening(state.value);
  if (now.state === 'scheduled') return `opens in ${clock(Math.max(0, -since) + 999)}`;
  if (now.state === 'ended' || !Number.isFinite(since)) return '';
  return `T+${clock(since)}`;
}

function facts(now) {
  const limit = now.per_customer_limit ? `${count(now.per_customer_limit)} per customer` : 'no limit per customer';
  const hold = now.hold_seconds > 0 ? `held for ${clock(now.hold_seconds * 1000)}` : 'sold at once';
  return `${limit} · ${hold}`;
}

function Chooser() {
  const all = sales.value ?? [];
  if (all.length < 2) return null;
  return html`
    <select aria-label="Sale" value=${saleId.value} onChange=${(event) => choose(event.target.value)}>
      ${all.map((sale) => html`<option key=${sale.id} value=${sale.id} selected=${sale.id === saleId.value}>${sale.name} · ${sale.id}</option>`)}
    </select>
  `;
}

function Foot() {
  const p = state.value.now.process;
  return html`
    <footer class="foot soft small num">
      <span>Sluice ${p.version}</span>
      <span>gate: ${p.gate}</span><span>queue: ${p.queue}</span><span>ledger: ${p.ledger}</span>
      <span>up ${clock(p.uptime_seconds * 1000)}</span>
      <span>CPU ${p.cpu_seconds?.toFixed(1) ?? '–'} s</span><span>memory ${bytes(p.memory_bytes)}</span>
      <a href="/docs/">API</a><a href=${`/s/${encodeURIComponent(state.value.now.sale)}`}>buyer page</a>
      ${state.value.now.demo && html`<a href="/race">race</a>`}
      <button class="plain" onClick=${leave}>Forget the token</button>
    </footer>
  `;
}

function leave() {
  forget();
  signedIn.value = false;
}

function Waiting() {
  const [trouble, setTrouble] = useState('');
  useEffect(() => {
    loadSales().catch((error) => setTrouble(error.message));
    const timer = setInterval(() => loadSales().then(() => setTrouble('')).catch((error) => setTrouble(error.message)), 3000);
    return () => clearInterval(timer);
  }, []);
  if (sales.value?.length === 0) {
    return html`
      <section class="card welcome">
        <h1>No sale yet</h1>
        <p class="soft">A sale is a window, a limit per customer, and the units there are.</p>
        <p><button class="primary" onClick=${() => (dialog.value = { kind: 'create' })}>New sale…</button></p>
        <p class="soft small">Or from a shell: <code>sluice sale create --name Drop --item ps5=1000 --open</code></p>
      </section>
    `;
  }
  return html`<section class="card welcome"><h1>${trouble ? 'The server does not answer' : 'Reading the sale …'}</h1><p class="soft">${trouble}</p></section>`;
}

function SignIn() {
  const enter = (event) => {
    event.preventDefault();
    const given = new FormData(event.target).get('token').trim();
    if (!given) return;
    remember(given);
    signedIn.value = true;
    // A sale that was refused is asked for again, now with a token.
    saleId.value = null;
    state.value = null;
    loadSales().catch(() => {});
  };
  return html`
    <main id="main" class="signin">
      <form class="card" onSubmit=${enter}>
        <h1>Sluice</h1>
        <p class="soft">${word.value === 'unauthorized' ? 'The server does not know this token.' : 'The console needs the admin token.'}
          <br /><code>sluice serve</code> and <code>sluice demo</code> print a link that carries it; it also lies in <code>admin-token</code> in the data folder.</p>
        <label>Admin token<input name="token" type="password" autocomplete="current-password" required /></label>
        <button class="primary">Open the console</button>
      </form>
    </main>
  `;
}

function boot() {
  takeToken();
  signedIn.value = Boolean(token());
  // The tab says which sale it is, and first of all if something is wrong.
  effect(() => {
    document.title = state.value ? `${state.value.offence ? '✗ VIOLATION · ' : ''}${state.value.now.name} · Sluice` : 'Sluice';
  });
  const app = document.getElementById('app');
  app.replaceChildren();
  render(html`<${App} />`, app);
  // A link with a token may be opened in a tab that shows the console already.
  window.addEventListener('hashchange', () => {
    takeToken();
    if (!signedIn.value && token()) location.reload();
  });
  // A sale that is created elsewhere shows up in the list.
  setInterval(() => signedIn.value && sales.value && loadSales().catch(() => {}), 5000);
}

boot();
