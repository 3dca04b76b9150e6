// The pages' arithmetic, without a browser: every unit has its place in the grid, and a state is the sum of its events.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cellsOf, layout, unitsPerCell, CELLS_MAX, PLACES } from '../../ui/shared/waffle.js';
import { full, snapshotOf, sumsOf } from '../../ui/shared/sale-state.js';
import { micros, oneIn, rate, sinceStart } from '../../ui/shared/format.js';
import { report } from '../../ui/report/report.js';
import { windowOf } from '../../ui/shared/timeline.js';

test('every cell is in one place, and whatever has a unit has a cell', () => {
  for (const stock of [0, 1, 2, 7, 100, 999, 2500, 2501, 9_999, 1_000_000]) {
    for (const [sold, held, flight] of [[0, 0, 0], [1, 0, 0], [0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1e-6], [0.999999, 0, 0]]) {
      const sums = { stock, sold: Math.floor(stock * sold), held: Math.floor(stock * held), in_flight: Math.min(stock, Math.ceil(stock * flight)) };
      sums.in_flight = Math.min(sums.in_flight, stock - sums.sold - sums.held);
      sums.available = stock - sums.sold - sums.held - sums.in_flight;
      const { per, all, cells } = cellsOf(sums);
      assert.ok(all <= CELLS_MAX && per === unitsPerCell(stock), `${stock}`);
      assert.equal(PLACES.reduce((sum, place) => sum + cells[place], 0), all);
      if (per === 1) for (const place of PLACES) assert.equal(cells[place], sums[place], JSON.stringify(sums));
      const few = PLACES.filter((place) => sums[place] > 0).length <= all;
      if (few) for (const place of PLACES) assert.equal(cells[place] > 0, sums[place] > 0, `${place} of ${JSON.stringify(sums)}: ${JSON.stringify(cells)}`);
    }
  }
});

test('the cells stay within the area, whatever their number', () => {
  for (const [width, height] of [[900, 336], [320, 290], [640, 480]]) {
    for (const n of [1, 2, 3, 10, 99, 100, 1000, 1001, 2499, 2500]) {
      const { columns, rows, cell_w: w, cell_h: h, gap, left, top } = layout(n, width, height);
      assert.ok(columns * rows >= n, `${n} cells in ${columns} x ${rows}`);
      assert.ok(left >= 0 && top >= 0 && left + columns * (w + gap) - gap <= width && top + rows * (h + gap) - gap <= height, `${n} in ${width} x ${height}`);
      assert.ok(w >= 1 && h >= 1);
    }
  }
});

function tickAt(ms, more = {}) {
  const none = { count: 0, p50_us: 0, p99_us: 0, p999_us: 0, max_us: 0, buckets: [] };
  const funnel = Object.fromEntries(['requests', 'shed', 'sold_out', 'limit', 'other', 'repeats', 'accepted', 'settled', 'held', 'sold', 'lapsed', 'cancelled'].map((key) => [key, 0]));
  return {
    sale: 's', name: 's', state: 'open', server_time: new Date(ms).toISOString(), opens_at: new Date(0).toISOString(), watermark: ms, conserved: true, in_flight: 0,
    verdict: { oversold: 0, undersold: 0, broken_promises: 0, conservation_errors: 0, first_offence: null },
    items: [{ sku: 'a', stock: 10, available: 10, held: 0, sold: 0, in_flight: 0, gate: { available: 10 } }],
    funnel, latency: { accepted: none, sold_out: none, other: none }, marks: [], process: { uptime_seconds: ms / 1000 }, ...more,
  };
}

test('a violation is said as long as the page is open', () => {
  let state = full(null, 'snapshot', { ...tickAt(1000), curve: null, log: [] });
  assert.equal(state.offence, null);
  state = full(state, 'tick', tickAt(1200, { verdict: { oversold: 1 } }));
  state = full(state, 'tick', tickAt(1400));
  assert.equal(state.offence.watermark, 1200);
  state = full(state, 'snapshot', { ...tickAt(1600), curve: null, log: [] });
  assert.equal(state.offence.watermark, 1200);
});

test('the worst numbers stand, and the first offence that leads somewhere', () => {
  const offence = (oversold, seq, what) => ({ verdict: { oversold, undersold: 0, broken_promises: 0, conservation_errors: 0, first_offence: { seq, order: null, what } }, conserved: false });
  let state = full(null, 'snapshot', { ...tickAt(1000), curve: null, log: [] });
  state = full(state, 'tick', tickAt(1200, offence(3, null, 'a row')));
  state = full(state, 'tick', tickAt(1400, offence(1, 7, 'a move')));
  state = full(state, 'tick', tickAt(1600, offence(1, 9, 'a later move')));
  state = full(state, 'tick', tickAt(1800));
  assert.deepEqual([state.offence.verdict.oversold, state.offence.verdict.first_offence.seq], [3, 7]);
  const other = full(null, 'snapshot', structuredClone(snapshotOf(state)));
  assert.deepEqual(other.offence, state.offence, 'another tab is as red');
});

test('a report is red whatever it is that the audit found', () => {
  const none = { oversold: 0, undersold: 0, leaked: 0, lost: 0, doubled: 0, broken_promises: 0, conservation_errors: 0 };
  const of = (audit, more = {}) => report({ made_at: new Date(0).toISOString(), snapshot: { ...tickAt(1000, more), curve: null, log: [] }, audit: audit && { ...none, verdict: 'exact', stock: { conserved: true }, ...audit } });
  const number = (html, name) => new RegExp(`<dt>${name}</dt><dd>(\\d+)`).exec(html)?.[1];
  for (const audit of [null, {}, { verdict: 'unsettled' }]) assert.match(of(audit), /class="verdict exact"/);
  for (const [name, at] of [['lost', 'BROKEN PROMISES'], ['oversold', 'OVERSOLD'], ['broken_promises', 'BROKEN PROMISES'], ['undersold', 'UNDERSOLD']]) {
    const html = of({ [name]: 2 });
    assert.match(html, /class="verdict broken"/, name);
    assert.equal(number(html, at), '2', name);
  }
  for (const name of ['leaked', 'doubled', 'conservation_errors']) assert.match(of({ [name]: 1 }), /class="verdict broken".*✗/s, name);
  assert.match(of({ verdict: 'violation' }), /class="verdict broken"/);
  const seen = of({}, { verdict: { oversold: 3, first_offence: { seq: null, order: null, what: 'a row' } } });
  assert.match(seen, /class="verdict broken"/, 'what was seen while it ran stays');
  assert.ok(number(seen, 'OVERSOLD') === '3' && !seen.includes('#–'), seen.slice(0, 900));
});

test('another tab folds the same state out of a snapshot of it', () => {
  let state = full(null, 'snapshot', { ...tickAt(1000), curve: { bin_ms: 100, from: new Date(500).toISOString(), available: [10, 9], held: [0, 1], sold: [0, 0], refused: [3, 4] }, log: [] });
  assert.deepEqual(state.points[0].slice(1), [10, 0, 0, 0, 0], 'before the first move nothing was taken');
  assert.deepEqual(state.points.slice(2, 4), [[600, 10, 0, 0, 0, 30], [700, 9, 0, 1, 0, 35]]);
  state = full(state, 'tick', tickAt(1200, { latency: { ...tickAt(0).latency, accepted: { count: 2, buckets: [[100, 2]] } } }));
  state = full(state, 'log', { at: new Date(1300).toISOString(), kind: 'lapsed', text: '…', seq: 4 });
  const other = full(null, 'snapshot', structuredClone(snapshotOf(state)));
  for (const key of ['points', 'log', 'heat', 'offence']) assert.deepEqual(other[key], state[key], key);
  assert.deepEqual(sumsOf(other.now), sumsOf(state.now));
  assert.deepEqual(other.heat.columns[0].accepted, [[100, 2]]);
});

test('the curve keeps its ends when it grows long', () => {
  let state = full(null, 'snapshot', { ...tickAt(0), curve: null, log: [] });
  for (let ms = 200; ms < 1_000_000; ms += 200) state = full(state, 'tick', tickAt(ms));
  assert.ok(state.points.length <= 2400);
  assert.equal(state.points.at(-1)[0], 999_800);
  assert.ok(state.points[0][0] < 1_000);
  const [from, to] = windowOf(state, 0, true);
  assert.ok(from <= 0 && to > 999);
});

test('numbers are said with three digits at most', () => {
  assert.deepEqual([micros(80), micros(1250), micros(99_940), micros(2_100_000)], ['80 µs', '1.25 ms', '99.9 ms', '2.10 s']);
  assert.deepEqual([oneIn(1, 25), oneIn(0, 5), oneIn(96, 100)], ['1 in 25', '–', '1 in 1.0']);
  assert.deepEqual([rate(0), rate(0.44), rate(5310)], ['0', '0.4', '5,310']);
  assert.deepEqual([sinceStart(0), sinceStart(350), sinceStart(-2000)], ['T+0.00 s', 'T+0.35 s', 'T−2.0 s']);
});
