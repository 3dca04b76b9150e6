// What only a demo can do: send a crowd, and strike the machinery while the arithmetic keeps adding up.

import { html, useEffect, useState } from '../shared/preact.js';
import { count } from '../shared/format.js';
import { ask } from '../shared/session.js';
import { dialog, state } from './model.js';
import { Modal } from './controls.js';

const CHAOS = {
  'kill-worker': ['Kill the worker', 'The worker dies in the middle of its work and starts again.'],
  'deliver-twice': ['Deliver twice', 'The queue delivers what was settled once more.'],
  'freeze-gate': ['Freeze the gate 2 s', 'The gate answers nothing for two seconds.'],
};

export function DemoBar() {
  const [demo, setDemo] = useState(null);
  const [said, setSaid] = useState('');
  const running = demo?.crowd && !demo.crowd.done;
  useEffect(() => {
    let timer;
    const look = async () => {
      const found = await ask('GET', '/v1/demo').catch(() => null);
      if (found) setDemo(found);
      timer = setTimeout(look, found?.crowd && !found.crowd.done ? 300 : 1500);
    };
    look();
    return () => clearTimeout(timer);
  }, [dialog.value]);
  const strike = async (what) => {
    try {
      await ask('POST', `/v1/demo/chaos/${what}`, {});
      setSaid(CHAOS[what]?.[1] ?? what);
    } catch (error) {
      setSaid(error.message);
    }
    setTimeout(() => setSaid(''), 4000);
  };
  return html`
    <section class="demo" aria-label="Demo">
      <div class="buttons"><button class="primary" disabled=${running} onClick=${() => (dialog.value = { kind: 'crowd' })}>Run a crowd…</button>
      ${(demo?.chaos ?? []).map((what) => html`<button key=${what} title=${CHAOS[what]?.[1]} onClick=${() => strike(what)}>${CHAOS[what]?.[0] ?? what}</button>`)}</div>
      <span class="what" role="status">${said}</span>
      <${Crowd} crowd=${demo?.crowd} />
    </section>
  `;
}

function Crowd({ crowd }) {
  if (!crowd) return html`<div class="crowd soft">No crowd was called from here.</div>`;
  const stop = () => ask('DELETE', '/v1/demo/crowd').catch(() => {});
  return html`
    <div class="crowd">
      <span>offered <b>${count(crowd.offered)}</b></span><span>sent <b>${count(crowd.sent)}</b></span><span>late <b>${count(crowd.late)}</b></span>
      <span>accepted <b>${count(crowd.accepted)}</b></span><span>refused <b>${count(crowd.refused)}</b></span>
      ${crowd.unanswered > 0 && html`<span>unanswered <b>${count(crowd.unanswered)}</b></span>`}
      <progress max=${Math.max(1, crowd.offered)} value=${crowd.sent} aria-label="Crowd"></progress>
      ${crowd.done ? html`<span class="pill">done</span>` : html`<button onClick=${stop}>Stop</button>`}
    </div>
  `;
}

/** How many come, unless somebody says otherwise. */
const CUSTOMERS = 20_000;

export function CrowdDialog() {
  const { now } = state.value;
  const available = now.items.reduce((sum, item) => sum + item.available, 0);
  // So long that the units last about two seconds: the grid is seen to empty.
  const [seconds] = useState(Math.round(Math.min(30, Math.max(6, (2 * CUSTOMERS) / Math.max(1, available)))));
  const send = (form) => {
    const rate = form.get('rate');
    return ask('POST', '/v1/demo/crowd', {
      sale: now.sale,
      customers: Number(form.get('customers')),
      rate_per_second: rate === '' ? null : Number(rate),
      seconds: Number(form.get('seconds')),
      retries: form.get('retries') === 'on',
      seed: Number(form.get('seed')),
    });
  };
  return html`
    <${Modal} title="Run a crowd" action="Send them" send=${send}
      effect=${`Customers order one unit each from “${now.name}”, at their own pace, whether they are answered or not. The same seed is the same crowd.`}>
      <div class="pair">
        <label>Customers<input name="customers" type="number" min="1" max="200000" defaultValue=${CUSTOMERS} required /></label>
        <label>Seconds<input name="seconds" type="number" min="1" max="120" defaultValue=${seconds} required /></label>
        <label>Per second<input name="rate" type="number" min="1" max="50000" placeholder="all within the time" /></label>
        <label>Seed<input name="seed" type="number" min="0" defaultValue="1" required /></label>
      </div>
      <label class="check"><input type="checkbox" name="retries" checked />Some click twice, ask again, hang up and come back</label>
    </${Modal}>
  `;
}
