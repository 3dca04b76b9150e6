// What an operator can do: each dialog says first what will happen, and asks for a reason.

import { html, useEffect, useRef, useState } from '../shared/preact.js';
import { count } from '../shared/format.js';
import { ask, newKey } from '../shared/session.js';
import { choose, dialog, loadSales, saleId, state } from './model.js';
import { CrowdDialog } from './demo.js';

export function Dialogs() {
  const open = dialog.value;
  if (!open) return null;
  if (open.kind === 'create') return html`<${Create} />`;
  if (open.kind === 'adjust') return html`<${Adjust} />`;
  if (open.kind === 'crowd') return html`<${CrowdDialog} />`;
  return html`<${Steer} verb=${open.kind} />`;
}

/** A modal dialog with one form; `send` resolves when it is done, and what it throws is shown. */
export function Modal({ title, effect, action, danger, send, children }) {
  const box = useRef();
  const [trouble, setTrouble] = useState('');
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    const before = document.activeElement;
    box.current.showModal();
    return () => before?.focus?.();
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setTrouble('');
    try {
      await send(new FormData(event.target));
      dialog.value = null;
    } catch (error) {
      setTrouble(error.message);
      setBusy(false);
    }
  };
  return html`
    <dialog ref=${box} onClose=${() => (dialog.value = null)} aria-labelledby="dialog-title">
      <h2 id="dialog-title">${title}</h2>
      <form onSubmit=${submit}>
        <p class="effect">${effect}</p>
        ${children}
        ${trouble && html`<p class="fault" role="alert">${trouble}</p>`}
        <footer>
          <button type="button" onClick=${() => box.current.close()}>Not now</button>
          <button class=${danger ? 'primary danger' : 'primary'} disabled=${busy}>${action}</button>
        </footer>
      </form>
    </dialog>
  `;
}

export function Reason() {
  return html`<label>Reason<input name="reason" required maxlength="200" placeholder="stands in the log" autocomplete="off" /></label>`;
}

function Steer({ verb }) {
  const { now } = state.value;
  const available = now.items.reduce((sum, item) => sum + item.available, 0);
  const held = now.items.reduce((sum, item) => sum + item.held, 0);
  const texts = {
    open: ['Open the sale', 'Open now', `From now on orders are accepted, whatever its opening time says. ${count(available)} units are available.`],
    pause: ['Pause the sale', 'Pause', `New orders hear “paused” until you resume. Orders that were accepted are settled. ${count(held)} held units go on, and may be confirmed or lapse.`],
    resume: ['Resume the sale', 'Resume', `Orders are accepted again. ${count(available)} units are available.`],
    close: ['Close the sale', 'Close for good', `Nothing is sold any more, and this cannot be undone. ${count(available)} units stay unsold; ${count(held)} held units may still be confirmed.`],
  };
  const [title, action, effect] = texts[verb];
  const send = (form) => ask('POST', `/v1/sales/${encodeURIComponent(now.sale)}/${verb}`, { reason: form.get('reason') });
  return html`<${Modal} title=${title} action=${action} effect=${effect} danger=${verb === 'close'} send=${send}><${Reason} /></${Modal}>`;
}

function Adjust() {
  const { now } = state.value;
  const [sku, setSku] = useState(now.items[0]?.sku);
  const [delta, setDelta] = useState('');
  const key = useRef(newKey());
  const item = now.items.find((one) => one.sku === sku) ?? now.items[0];
  const change = Number.parseInt(delta, 10);
  const effect = Number.isFinite(change) && change !== 0
    ? `Stock of ${item.name}: ${count(item.stock)} → ${count(item.stock + change)}; available: ${count(item.available)} → ${count(item.available + change)}. ${change < 0 ? 'Units that are held or sold stay where they are; if fewer are available, nothing changes.' : 'They can be ordered at once.'}`
    : `Stock of ${item.name} is ${count(item.stock)}, of which ${count(item.available)} are available.`;
  const send = (form) =>
    ask('POST', `/v1/sales/${encodeURIComponent(now.sale)}/items/${encodeURIComponent(item.sku)}/adjustments`, { delta: change, reason: form.get('reason') }, { 'idempotency-key': key.current });
  return html`
    <${Modal} title="Adjust stock" action=${change < 0 ? 'Withdraw' : 'Add'} effect=${effect} send=${send}>
      <div class="pair">
        <label>Item<select value=${sku} onChange=${(event) => setSku(event.target.value)}>${now.items.map((one) => html`<option key=${one.sku} value=${one.sku}>${one.name}</option>`)}</select></label>
        <label>Units<input name="delta" type="number" required step="1" value=${delta} onInput=${(event) => setDelta(event.target.value)} placeholder="50 adds, -50 withdraws" /></label>
      </div>
      <${Reason} />
    </${Modal}>
  `;
}

function Create() {
  const [items, setItems] = useState([{ key: 0 }]);
  const change = (event) => {
    event.preventDefault();
    setItems([...items, { key: items.length }]);
  };
  const send = async (form) => {
    const all = (name) => form.getAll(name);
    const number = (text) => (text === '' ? undefined : Number(text));
    const body = {
      name: form.get('name'),
      hold_seconds: number(form.get('hold_seconds')),
      per_customer_limit: number(form.get('limit')),
      items: all('sku').map((sku, i) => ({
        sku,
        name: all('item_name')[i] || undefined,
        stock: number(all('stock')[i]),
        price_cents: all('price')[i] === '' ? undefined : Math.round(Number(all('price')[i]) * 100),
        currency: all('currency')[i] || undefined,
      })),
    };
    if (form.get('opens_at')) body.opens_at = new Date(form.get('opens_at')).toISOString();
    const made = await ask('POST', '/v1/sales', body);
    if (form.get('open')) await ask('POST', `/v1/sales/${encodeURIComponent(made.id)}/open`, {});
    saleId.value = null;
    choose(made.id);
    loadSales().catch(() => {});
  };
  return html`
    <${Modal} title="New sale" action="Create" send=${send}
      effect="Creates the sale with its stock. Without an opening time it stays a draft until it is opened by hand.">
      <label>Name<input name="name" required maxlength="200" autocomplete="off" /></label>
      <div class="pair">
        <label>Opens at <input name="opens_at" type="datetime-local" step="1" /><small>your local time; empty: by hand</small></label>
        <label>Held for<input name="hold_seconds" type="number" min="0" max="2592000" defaultValue="600" required /><small>seconds; 0 sells at once</small></label>
        <label>Per customer<input name="limit" type="number" min="1" placeholder="no limit" /><small>units at most</small></label>
      </div>
      ${items.map(({ key }) => html`
        <div class="pair" key=${key}>
          <label>SKU<input name="sku" required maxlength="64" pattern="[A-Za-z0-9][A-Za-z0-9._\\-]*" autocomplete="off" spellcheck="false" /></label>
          <label>Item<input name="item_name" maxlength="200" placeholder="as people call it" autocomplete="off" /></label>
          <label>Stock<input name="stock" type="number" min="0" max="1000000000" required /></label>
          <label>Price<input name="price" type="number" min="0" step="0.01" placeholder="0.00" /></label>
          <label>Currency<input name="currency" maxlength="3" pattern="[A-Z]{3}" placeholder="USD" /></label>
        </div>`)}
      <p><button type="button" onClick=${change}>One more item</button></p>
      <label class="check"><input type="checkbox" name="open" />Open it at once</label>
    </${Modal}>
  `;
}
