// The report's pictures as SVG text: the stock grid, the draining curve, the latencies. Colours come from its style sheet.

import { count, micros, rate, sinceStart } from '../shared/format.js';
import { PLACES, cellsOf, layout } from '../shared/waffle.js';
import { windowOf, withBadges } from '../shared/timeline.js';

/** Text within SVG and HTML. */
export const text = (plain) => String(plain ?? '').replace(/[&<>"']/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' })[c]);

const CLASSES = { sold: 'sold', held: 'held', in_flight: 'flight', available: 'available' };

/** Patterns that the pictures share; stands once in a page. */
export const patterns = () => `
  <svg width="0" height="0" class="patterns" aria-hidden="true"><defs>
    <pattern id="stripes" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="5" height="5" class="ground"/><rect width="5" height="5" class="tint"/><rect width="2.6" height="5" class="held"/></pattern>
  </defs></svg>`;

/** Where the units were in the end. Cells of one place are one path, so the picture is small. */
export function gridPicture(sums, oversold) {
  const [width, height] = [860, 300];
  const { per, all, cells } = cellsOf(sums);
  const shape = layout(all, width - 12, height - 12);
  const at = (i) => [6 + shape.left + (i % shape.columns) * (shape.cell_w + shape.gap), 6 + shape.top + Math.floor(i / shape.columns) * (shape.cell_h + shape.gap)];
  let from = 0;
  const paths = PLACES.map((place) => {
    let d = '';
    let checks = '';
    for (let i = from; i < from + cells[place]; i += 1) {
      const [x, y] = at(i);
      d += `M${x} ${y}h${shape.cell_w}v${shape.cell_h}h-${shape.cell_w}z`;
      if (place === 'sold' && Math.min(shape.cell_w, shape.cell_h) >= 9) checks += check(x, y, shape);
    }
    from += cells[place];
    return d ? `<path class="${CLASSES[place]}" d="${d}"/>${checks ? `<path class="check" d="${checks}"/>` : ''}` : '';
  });
  const said = `Of ${count(sums.stock)} units ${PLACES.map((place) => `${count(sums[place])} ${place.replace('_', ' ')}`).join(', ')}`;
  return `<figure><svg viewBox="0 0 ${width} ${height + 26}" role="img" aria-label="${said}">
    <rect class="frame" x=".5" y=".5" width="${width - 1}" height="${height - 1}"/>${paths.join('')}${crosses(oversold, height)}
    <text x="0" y="${height + 18}">${per === 1 ? '1 cell = 1 unit' : `1 cell = ${count(per)} units`}</text>
    ${oversold > 0 ? '' : `<text x="${width}" y="${height + 18}" text-anchor="end">outside the frame: oversold</text>`}
  </svg></figure>`;
}

function check(x, y, { cell_w: w, cell_h: h }) {
  const s = Math.min(w, h) * 0.5;
  const n = (value) => value.toFixed(1);
  return `M${n(x + w / 2 - s / 2)} ${n(y + h / 2)}l${n(s * 0.38)} ${n(s * 0.4)}l${n(s * 0.67)} ${n(-s * 0.82)}`;
}

function crosses(oversold, height) {
  const shown = Math.min(oversold, 40);
  let d = '';
  for (let i = 0; i < shown; i += 1) d += `M${200 + i * 15} ${height + 8}l10 10m0 -10l-10 10`;
  return d ? `<path class="cross" d="${d}"/><text x="${210 + shown * 15}" y="${height + 18}" class="strong">${count(oversold)} oversold</text>` : '';
}

/** Stacked units over time, the refusals per second as a line, and the marks. */
export function curvePicture(state, start) {
  const box = { left: 64, top: 26, width: 712, height: 214 };
  const [from, to] = windowOf(state, start, false);
  const all = state.points.map(([at, ...rest]) => [(at - start) / 1000, ...rest]);
  const before = all.filter(([t]) => t < from).at(-1);
  const points = all.filter(([t]) => t >= from && t <= to * 1.001);
  if (before) points.unshift([from, ...before.slice(1)]);
  if (points.length < 2) return '<p class="soft">Too little happened for a curve.</p>';
  const stock = Math.max(1, ...points.map(([, a, f, h, s]) => a + (f ?? 0) + h + s));
  const most = nice(Math.max(10, ...points.map((point) => point[5])));
  const x = (t) => box.left + ((t - from) / (to - from)) * box.width;
  const y = (n, max) => box.top + box.height - (n / max) * box.height;
  const level = (point, n) => point.slice(1, n + 1).reduce((sum, value) => sum + (value ?? 0), 0);
  const area = (kind, n) => {
    let d = `M${x(points[0][0]).toFixed(1)} ${box.top + box.height}`;
    // A level stays as it is until the next move.
    for (const point of points) d += `H${x(point[0]).toFixed(1)}V${y(level(point, n), stock).toFixed(1)}`;
    return `<path class="${kind}" d="${d}L${x(points.at(-1)[0]).toFixed(1)} ${box.top + box.height}z"/>`;
  };
  const line = points.map((point, i) => `${i ? 'L' : 'M'}${x(point[0]).toFixed(1)} ${y(point[5], most).toFixed(1)}`).join('');
  return `<figure><svg viewBox="0 0 860 270" role="img" aria-label="Units over time">
    ${axes(box, stock, most, from, to, x)}${area('sold', 4)}${area('held', 3)}${area('flight', 2)}${area('available', 1)}
    <path class="refusals" d="${line}"/>${badges(withBadges(state.marks, start), box, x)}
  </svg></figure>`;
}

/** The next number whose quarters are round. */
function nice(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  return power * [1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10].find((step) => step * power >= n);
}

function axes(box, stock, most, from, to, x) {
  const parts = [0, 0.25, 0.5, 0.75, 1].map((share) => {
    const at = box.top + box.height * (1 - share);
    return `<path class="grid" d="M${box.left} ${at}h${box.width}"/><text x="${box.left - 8}" y="${at + 4}" text-anchor="end">${count(stock * share)}</text>
      <text x="${box.left + box.width + 8}" y="${at + 4}">${rate(most * share)}/s</text>`;
  });
  const times = [0, 0.25, 0.5, 0.75, 1].map((share) => from + (to - from) * share);
  return parts.join('') + times.map((t) => `<text x="${x(t)}" y="${box.top + box.height + 20}" text-anchor="middle">${sinceStart(t * 1000)}</text>`).join('');
}

function badges(marks, box, x) {
  let free = -Infinity;
  return marks.filter((mark) => x(mark.ms / 1000) <= box.left + box.width + 1).map((mark) => {
    const at = x(mark.ms / 1000);
    const badge = Math.max(at, free + 19);
    free = badge;
    return `<path class="mark" d="M${at.toFixed(1)} ${box.top}v${box.height}"/><circle class="badge" cx="${badge.toFixed(1)}" cy="12" r="8.5"/><text class="strong" x="${badge.toFixed(1)}" y="16" text-anchor="middle">${mark.badge}</text>`;
  }).join('');
}

/** How long the answers of one outcome took, on an axis from 10 µs to 10 s. */
export function latencyPicture(outcome, of) {
  const [width, height] = [560, 64];
  const rows = new Array(60).fill(0);
  for (const [upper, n] of of.buckets ?? []) rows[Math.min(59, Math.max(0, Math.floor(Math.log10((upper * 0.93) / 10) * 10)))] += n;
  const most = Math.max(1, ...rows);
  const step = width / rows.length;
  const bars = rows.map((n, i) => (n > 0 ? `M${(i * step).toFixed(1)} ${height}v-${Math.max(1, (n / most) * (height - 4)).toFixed(1)}h${(step - 0.8).toFixed(1)}V${height}z` : '')).join('');
  const ticks = [100, 1e3, 1e4, 1e5, 1e6].map((us) => {
    const x = Math.log10(us / 10) * 10 * step;
    return `<path class="grid" d="M${x.toFixed(1)} 0v${height}"/><text x="${x.toFixed(1)}" y="${height + 15}" text-anchor="middle">${micros(us).replace('.00', '').replace('.0', '')}</text>`;
  });
  return `<svg viewBox="0 0 ${width} ${height + 20}" role="img" aria-label="Latency of ${text(outcome)}">${ticks.join('')}<path class="available" d="${bars}"/></svg>`;
}
