// What a page knows of a sale: a snapshot, brought forward by ticks and log entries. Console, report and every tab fold
// the same events with this, so they show the same.

/** Log entries that are kept. */
export const LOG_ENTRIES_MAX = 500;
/** Points of the curve; beyond it the older half loses every second one. */
const POINTS_MAX = 2400;
/** Ticks of the last seconds, for rates. */
const RECENT_MS = 2000;
/** Columns of the latency map, one a second. */
export const HEAT_SECONDS = 60;

const REFUSALS = ['shed', 'sold_out', 'limit', 'other'];
export const OUTCOMES = ['accepted', 'sold_out', 'other'];

/** All refusals of a funnel. */
export const refusedOf = (funnel) => REFUSALS.reduce((sum, key) => sum + (funnel?.[key] ?? 0), 0);

/** The state after one more event; `null` before the first snapshot. */
export function full(state, kind, data) {
  if (kind === 'snapshot') return begun(state, data);
  if (!state) return null;
  if (kind === 'tick') return ticked(state, data);
  if (kind === 'log') return { ...state, log: [data, ...state.log].slice(0, LOG_ENTRIES_MAX), marks: marked(state.marks, data) };
  return state;
}

/** The snapshot that leads another tab to this state. */
export const snapshotOf = (state) => ({ ...state.now, curve: null, points: state.points, marks: state.marks, log: [...state.log].reverse(), heat: state.heat, offence: state.offence });

function begun(before, snapshot) {
  const { curve, points, marks, log, heat, offence, ...now } = snapshot;
  const entries = [...(log ?? [])].sort((a, b) => Date.parse(b.at) - Date.parse(a.at) || (b.seq ?? 0) - (a.seq ?? 0));
  const same = before?.now.sale === now.sale;
  const goesOn = same && !restarted(before.now, now);
  const state = {
    now: { ...now, marks },
    points: points ?? withQuiet(pointsOf(curve, stockThen(now, marks)), marks ?? []),
    marks: marks ?? [],
    log: entries.slice(0, LOG_ENTRIES_MAX),
    recent: goesOn ? before.recent : [],
    // A process that started again counts from 0, so an older map says nothing about it.
    heat: heat ?? (goesOn ? before.heat : newHeat(now)),
    offence: worst(same ? before.offence : null, offence),
  };
  return ticked(state, now);
}

function ticked(state, now) {
  const at = Date.parse(now.server_time);
  const counted = { at, now };
  const recent = [...state.recent.filter((entry) => at - entry.at <= RECENT_MS), counted];
  const sums = sumsOf(now);
  return {
    ...state,
    now,
    recent,
    marks: now.marks ?? state.marks,
    heat: heated(state.heat, state.now, now, at),
    points: extended(state.points, [at, sums.available, sums.in_flight, sums.held, sums.sold, refusedPerSecond(recent)]),
    // Once something was wrong it is said as long as the page is open, whatever later ticks say.
    offence: worst(state.offence, offenceOf(now)),
  };
}

/** Units of all items together, or of one. */
export function sumsOf(now, sku = null) {
  const items = (now.items ?? []).filter((item) => !sku || item.sku === sku);
  const sum = (pick) => items.reduce((total, item) => total + (pick(item) ?? 0), 0);
  const loaded = items.length > 0 && items.every((item) => item.gate);
  return {
    stock: sum((item) => item.stock),
    available: sum((item) => item.available),
    in_flight: sum((item) => item.in_flight),
    held: sum((item) => item.held),
    sold: sum((item) => item.sold),
    gate: loaded ? sum((item) => item.gate.available) : null,
  };
}

/** What may never be, and when it was first seen; `null` if all is well. */
function offenceOf(now) {
  const v = now.verdict ?? {};
  const wrong = (v.oversold || 0) + (v.undersold || 0) + (v.broken_promises || 0) + (v.conservation_errors || 0);
  return wrong > 0 || now.conserved === false ? { at: now.server_time, watermark: now.watermark, verdict: v, conserved: now.conserved } : null;
}

/** Two offences as one: the worst numbers, since the first of them was seen; its words lead to a move or an order if any do. */
export function worst(kept, next) {
  if (!kept || !next) return kept ?? next ?? null;
  const [one, other] = [kept.verdict, next.verdict];
  const verdict = Object.fromEntries(NUMBERS.map((name) => [name, Math.max(one[name] ?? 0, other[name] ?? 0)]));
  const leads = (first) => first?.seq || first?.order;
  const first_offence = [one, other].map((v) => v.first_offence).find(leads) ?? one.first_offence ?? other.first_offence ?? null;
  return { ...kept, verdict: { ...verdict, first_offence } };
}

const NUMBERS = ['oversold', 'undersold', 'broken_promises', 'conservation_errors'];

const restarted = (before, now) => now.process.uptime_seconds < before.process.uptime_seconds;

/** A rate per second over the last ticks. */
export function perSecond(recent, pick) {
  const [first, last] = [recent[0], recent.at(-1)];
  if (!first || last.at - first.at < 150) return 0;
  return Math.max(0, (pick(last.now) - pick(first.now)) / ((last.at - first.at) / 1000));
}

function refusedPerSecond(recent) {
  return perSecond(recent.slice(-3), (now) => refusedOf(now.funnel));
}

/** The stock while the curve was drawn; unknown if it was adjusted. */
const stockThen = (now, marks) => ((marks ?? []).some((mark) => mark.what === 'adjusted') ? NaN : sumsOf(now).stock);

/** [time in ms, available, in flight, held, sold, refusals per second] of each bin. What is in no other place is in flight. */
function pointsOf(curve, stock) {
  if (!curve) return [];
  const from = Date.parse(curve.from);
  const flight = (i) => curve.in_flight?.[i] ?? Math.max(0, stock - curve.available[i] - curve.held[i] - curve.sold[i] || 0);
  return curve.available.map((available, i) => [
    from + (i + 1) * curve.bin_ms, available, flight(i), curve.held[i], curve.sold[i],
    refusals(curve, i),
  ]);
}

/** A curve begins with the first move; before it, nothing was taken. */
function withQuiet(points, marks) {
  const at = (what) => Date.parse(marks.find((mark) => mark.what === what)?.at);
  const [first] = points;
  if (!first || first[0] > (at('first_unit') || Infinity) + 2000) return points;
  const stock = first[1] + first[2] + first[3] + first[4];
  const opened = Math.min(at('opened') || first[0], first[0]);
  return [[opened - 10_000, stock, 0, 0, 0, 0], [Math.min(at('first_unit') || first[0], first[0]) - 1, stock, 0, 0, 0, 0], ...points];
}

/** Refusals per second: over the last 200 ms, because single ones in bins of 10 ms would be all spikes. */
function refusals({ bin_ms: bin, refused = [] }, i) {
  const bins = Math.min(i + 1, Math.max(1, Math.round(200 / bin)));
  const sum = refused.slice(i + 1 - bins, i + 1).reduce((total, n) => total + n, 0);
  return (sum * 1000) / (bins * bin);
}

function extended(points, point) {
  const last = points.at(-1);
  if (last && point[0] <= last[0]) return points;
  if (points.length < POINTS_MAX) return [...points, point];
  const half = points.length >> 1;
  return [...points.slice(0, half).filter((_, i) => i % 2 === 0), ...points.slice(half), point];
}

/** A log entry may be a mark of the curve that no later snapshot will bring in time. */
function marked(marks, entry) {
  if (!['opened', 'first_unit', 'half', 'sold_out', 'last_settle', 'paused', 'closed', 'adjusted'].includes(entry.kind)) return marks;
  const known = marks.some((mark) => mark.what === entry.kind && Math.abs(Date.parse(mark.at) - Date.parse(entry.at)) < 1000);
  return known ? marks : [...marks, { at: entry.at, what: entry.kind }];
}

/** One column a second per outcome: bucket -> count, out of the differences between ticks; `before` is all that was before. */
function newHeat(now) {
  return { before: bucketsOf(now), columns: [] };
}

const bucketsOf = (now) => Object.fromEntries(OUTCOMES.map((outcome) => [outcome, now.latency?.[outcome]?.buckets ?? []]));

function heated(heat, before, now, at) {
  const second = Math.floor(at / 1000);
  const columns = heat.columns.filter((column) => column.second > second - HEAT_SECONDS);
  if (before === now) return { ...heat, columns };
  const fresh = Object.fromEntries(OUTCOMES.map((outcome) => [outcome, difference(before.latency?.[outcome]?.buckets, now.latency?.[outcome]?.buckets)]));
  if (Object.values(fresh).every((list) => list.length === 0)) return { ...heat, columns };
  const last = columns.at(-1);
  if (last?.second === second) {
    const merged = Object.fromEntries(OUTCOMES.map((outcome) => [outcome, added(last[outcome], fresh[outcome])]));
    return { ...heat, columns: [...columns.slice(0, -1), { second, ...merged }] };
  }
  return { ...heat, columns: [...columns, { second, ...fresh }] };
}

function difference(before = [], now = []) {
  const old = new Map(before);
  return now.map(([upper, n]) => [upper, n - (old.get(upper) ?? 0)]).filter(([, n]) => n > 0);
}

function added(a, b) {
  const sum = new Map(a);
  for (const [upper, n] of b) sum.set(upper, (sum.get(upper) ?? 0) + n);
  return [...sum];
}
