// What the console knows and shows, as signals; the stream fills them and the components read them.

import { batch, computed, signal } from '../shared/preact.js';
import { full, sumsOf } from '../shared/sale-state.js';
import { follow } from '../shared/stream.js';
import { ask, token } from '../shared/session.js';

/** All sales, newest first; null until read. */
export const sales = signal(null);
/** The id of the one shown. */
export const saleId = signal(null);
/** Its state, see sale-state.js; null before the first snapshot. */
export const state = signal(null);
/** How the data comes: connecting, live, polling, disconnected, unauthorized, gone. */
export const word = signal('connecting');
/** The item shown in the grid; null is all of them. */
export const sku = signal(null);
/** The open dialog, as {kind, …}. */
export const dialog = signal(null);
/** The order whose timeline is shown. */
export const orderId = signal('');
/** Counts up five times a second, so that ages and countdowns go on when no data comes. */
export const beat = signal(0);
export const signedIn = signal(Boolean(token()));

let receivedAt = performance.now();
let following = null;

export const sums = computed(() => (state.value ? sumsOf(state.value.now, sku.value) : null));

/** How long ago the newest data came, in ms. */
export function dataAge() {
  beat.value;
  return state.value ? performance.now() - receivedAt : NaN;
}

/** Now on the server's clock, in ms. */
export function serverNow() {
  return Date.parse(state.value.now.server_time) + (performance.now() - receivedAt);
}

/** When the sale opened or opens, in ms; NaN if nobody knows. */
export function opening({ now, marks, points }) {
  const opened = marks.find((mark) => mark.what === 'opened');
  return Date.parse(opened?.at ?? now.opens_at ?? (points[0] ? new Date(points[0][0]).toISOString() : ''));
}

/** Shows this sale from now on. */
export function show(id) {
  following?.stop();
  batch(() => {
    saleId.value = id;
    state.value = null;
    sku.value = null;
    orderId.value = '';
    word.value = 'connecting';
  });
  if (!id) return;
  const happened = (kind) => (data) => {
    const before = state.value;
    // A log entry carries no time of the server's, and no numbers.
    if (kind !== 'log') receivedAt = performance.now();
    state.value = full(before, kind, data);
    if (kind !== 'log') announce(before, state.value);
  };
  following = follow(id, token(), {
    snapshot: happened('snapshot'),
    tick: happened('tick'),
    log: happened('log'),
    state(said) {
      word.value = said;
      if (said === 'unauthorized') signedIn.value = false;
      if (said === 'gone') loadSales().catch(() => {});
    },
  });
}

/** Reads which sales there are, and shows the one in the address or the newest. */
export async function loadSales() {
  const listed = await ask('GET', '/v1/sales');
  sales.value = listed.sales;
  const wanted = new URLSearchParams(location.search).get('sale');
  const found = listed.sales.find((sale) => sale.id === (saleId.value ?? wanted)) ?? listed.sales[0];
  if (found && found.id !== saleId.value) show(found.id);
}

/** Shows a sale and puts it into the address, so that a reload shows it again. */
export function choose(id) {
  history.replaceState(null, '', `${location.pathname}?sale=${encodeURIComponent(id)}`);
  show(id);
}

/** Milestones are said aloud, nothing else is. */
function announce(before, after) {
  if (!before || !after || before.now.sale !== after.now.sale) return;
  const say = (text) => {
    document.getElementById('milestones').textContent = text;
  };
  const [was, is] = [sumsOf(before.now), sumsOf(after.now)];
  if (!before.offence && after.offence) say('Violation: the verdict is no longer zero.');
  else if (before.now.state !== after.now.state) say(`The sale is ${after.now.state}.`);
  else if (was.available > 0 && is.available === 0) say('Sold out: every unit is taken.');
  else if (was.available > is.stock / 2 && is.available <= is.stock / 2) say('Half of the units are taken.');
  else if (was.available === 0 && is.available > 0) say('Units are available again.');
}

setInterval(() => {
  beat.value += 1;
}, 200);
