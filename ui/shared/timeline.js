// The time axis of a sale: which stretch of it is worth looking at, and its marks in words.

/** Shown before the opening, at most. */
const BEFORE_MS = 10_000;
const WORDS = {
  opened: 'opened', first_unit: 'first unit', half: 'half', sold_out: 'sold out', last_settle: 'last settle',
  paused: 'paused', resumed: 'resumed', closed: 'closed', adjusted: 'adjusted',
};

/** The marks in their sequence, numbered, in ms from the opening. Of those that happen often only the first few are shown. */
export function withBadges(marks, start) {
  const sorted = marks.map((mark) => ({ what: mark.what, word: WORDS[mark.what] ?? mark.what, ms: Date.parse(mark.at) - start })).sort((a, b) => a.ms - b.ms);
  return sorted.slice(0, 9).map((mark, i) => ({ ...mark, badge: String(i + 1) }));
}

/** [from, to] in seconds from the opening: the rush, which ends soon after the last unit went, or everything. */
export function windowOf(state, start, whole) {
  const { now, points, marks } = state;
  const latest = (Math.max(points.at(-1)?.[0] ?? start, Date.parse(now.server_time)) - start) / 1000;
  const first = ((points[0]?.[0] ?? start) - start) / 1000;
  if (latest <= 0) return [-BEFORE_MS / 1000, Math.max(1, -latest * 0.1)];
  const seconds = (what) => marks.filter((mark) => mark.what === what).map((mark) => (Date.parse(mark.at) - start) / 1000);
  const [begun, last] = [Math.min(...seconds('first_unit')), Math.min(...seconds('sold_out'))];
  if (!whole && Number.isFinite(begun) && Number.isFinite(last)) {
    // The rush, from its first unit to its last and a while longer; of the time that nobody came only a little.
    const long = Math.max(0.05, last - begun);
    const from = begun > long ? begun - 0.3 * long : -Math.min(BEFORE_MS / 1000, 0.12 * last, Math.max(0, -first));
    return [from, Math.max(last, Math.min(latest, last + 0.7 * long + 0.1))];
  }
  const to = latest;
  const before = Math.min(BEFORE_MS / 1000, to * 0.08, Math.max(0, -first));
  return [-before, Math.max(to, 0.05)];
}
