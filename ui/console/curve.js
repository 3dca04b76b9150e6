// The draining curve: where the units were at each moment, and the refusals per second, in bins as fine as the sale was short.

import uPlot from '../vendor/uplot.js';
import { html, useEffect, useRef, useState } from '../shared/preact.js';
import { count, rate, sinceStart } from '../shared/format.js';
import { windowOf, withBadges } from '../shared/timeline.js';
import { opening, state } from './model.js';
import { coloursOf } from './grid.js';
import { TableButton } from './hero.js';

export function Curve() {
  const [table, setTable] = useState(false);
  const [whole, setWhole] = useState(false);
  const marks = withBadges(state.value.marks, opening(state.value));
  return html`
    <section class="card" aria-labelledby="curve-title">
      <header>
        <h2 id="curve-title">Draining</h2>
        <button class="plain" aria-pressed=${whole} onClick=${() => setWhole(!whole)}>${whole ? 'show the rush' : 'show all'}</button>
        <${TableButton} on=${table} set=${setTable} />
      </header>
      <div class="plot">${table ? html`<${Table} />` : html`<${Plot} whole=${whole} marks=${marks} />`}</div>
      <p class="marks" aria-label="Marks">
        ${marks.map((mark) => html`<span key=${mark.badge}><span class="badge">${mark.badge}</span>${mark.word} <b>${sinceStart(mark.ms)}</b></span>`)}
        <span class="refusals"><i></i>refused per second, axis on the right</span>
        ${marks.length === 0 && html`<span>marks appear as they happen: opened, first unit, half, sold out, last settle</span>`}
      </p>
    </section>
  `;
}

function Plot({ whole, marks }) {
  const box = useRef();
  const chart = useRef();
  const shown = useRef({});
  shown.current = { marks, range: windowOf(state.value, opening(state.value), whole) };
  useEffect(() => {
    const build = () => {
      chart.current?.destroy();
      chart.current = new uPlot(options(box.current, shown), dataOf(), box.current);
    };
    build();
    const themes = ['(prefers-color-scheme: dark)', '(forced-colors: active)'].map((query) => matchMedia(query));
    themes.forEach((theme) => theme.addEventListener('change', build));
    const watch = new ResizeObserver(() => box.current && chart.current.setSize({ width: box.current.clientWidth, height: box.current.clientHeight }));
    watch.observe(box.current);
    return () => {
      watch.disconnect();
      themes.forEach((theme) => theme.removeEventListener('change', build));
      chart.current.destroy();
    };
  }, []);
  useEffect(() => chart.current.setData(dataOf(), true), [state.value.points, whole, marks.length]);
  const { now } = state.value;
  const said = `Units over time; now ${now.items.map((item) => `${count(item.available)} ${item.sku} available`).join(', ')}.`;
  return html`<div ref=${box} role="img" aria-label=${said} style=${{ height: '100%' }}></div>`;
}

/** Stacked from below: available, in flight, held, sold; drawn from the top, so that each covers what it stands on. */
function dataOf() {
  const start = opening(state.value);
  const columns = [[], [], [], [], [], []];
  for (const [at, available, flight, held, sold, refused] of state.value.points) {
    const below = available + (flight ?? 0);
    columns[0].push((at - start) / 1000);
    columns[1].push(below + held + sold);
    columns[2].push(below + held);
    columns[3].push(below);
    columns[4].push(available);
    columns[5].push(refused);
  }
  return columns;
}

function options(box, shown) {
  const c = coloursOf(box);
  const font = `12px ${getComputedStyle(box).fontFamily}`;
  const axis = { stroke: c.soft, font, grid: { stroke: c.line, width: 1 }, ticks: { stroke: c.line, width: 1, size: 4 } };
  const area = (stroke, fill) => ({ scale: 'units', stroke, width: 1.5, fill, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) });
  return {
    width: box.clientWidth || 600,
    height: box.clientHeight || 232,
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { show: false }, y: false },
    padding: [18, 4, 0, 0],
    scales: {
      x: { time: false, range: () => shown.current.range },
      units: { range: (_, __, max) => [0, Math.max(1, max)] },
      refused: { range: (_, __, max) => [0, Math.max(10, max * 1.08)] },
    },
    axes: [
      { ...axis, grid: { show: false }, values: (_, ticks, _axis, _space, step) => ticks.map((t) => axisTime(t, step)), space: 70, size: 30 },
      { ...axis, scale: 'units', size: 52, values: (_, ticks) => ticks.map(count) },
      { ...axis, scale: 'refused', side: 1, size: 58, grid: { show: false }, values: (_, ticks) => ticks.map((n) => `${rate(n)}/s`) },
    ],
    series: [
      {},
      area(c.sold, c.sold),
      area(c.held, (plot) => striped(plot.ctx, c.held, c.card)),
      area(c.flight, c.card),
      area(c.available, c.available),
      { scale: 'refused', stroke: c.ink, width: 1.6, dash: [2, 3], points: { show: false } },
    ],
    hooks: { draw: [(plot) => drawMarks(plot, shown.current.marks, c, font)] },
  };
}

/** As many digits as tell the ticks apart. */
function axisTime(t, step) {
  if (t === 0) return 'T';
  const digits = [0, 1, 2, 3].find((n) => Math.abs(step * 10 ** n - Math.round(step * 10 ** n)) < 1e-6) ?? 3;
  return `T${t < 0 ? '−' : '+'}${Math.abs(t).toFixed(digits)} s`;
}

function striped(ctx, colour, ground) {
  const tile = document.createElement('canvas');
  const size = Math.round(6 * (globalThis.devicePixelRatio || 1));
  tile.width = tile.height = size;
  const p = tile.getContext('2d');
  p.fillStyle = ground;
  p.fillRect(0, 0, size, size);
  p.strokeStyle = colour;
  p.lineWidth = size * 0.42;
  for (const d of [-size, 0, size]) {
    p.beginPath();
    p.moveTo(d - 1, size + 1);
    p.lineTo(d + size + 1, -1);
    p.stroke();
  }
  return ctx.createPattern(tile, 'repeat');
}

/** A dashed line per mark with its number on top; numbers that would touch stand beside each other. */
function drawMarks(plot, marks, c, font) {
  const { ctx, bbox } = plot;
  const ratio = globalThis.devicePixelRatio || 1;
  const radius = 8 * ratio;
  ctx.save();
  ctx.font = font.replace('12px', `${10.5 * ratio}px`);
  ctx.textAlign = 'center';
  ctx.textBaseline = 'middle';
  let free = -Infinity;
  for (const mark of marks) {
    const x = plot.valToPos(mark.ms / 1000, 'x', true);
    if (x < bbox.left - 1 || x > bbox.left + bbox.width + 1) continue;
    ctx.strokeStyle = c.ink;
    ctx.lineWidth = ratio;
    ctx.setLineDash([3 * ratio, 3 * ratio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.setLineDash([]);
    const at = Math.max(x, free + 2 * radius + 2 * ratio);
    free = at;
    ctx.fillStyle = c.card;
    ctx.strokeStyle = c.edge;
    ctx.beginPath();
    ctx.arc(at, bbox.top - radius - ratio, radius, 0, 7);
    ctx.fill();
    ctx.stroke();
    ctx.fillStyle = c.ink;
    ctx.fillText(mark.badge, at, bbox.top - radius - ratio / 2);
  }
  ctx.restore();
}

function Table() {
  const start = opening(state.value);
  const { points } = state.value;
  const [from, to] = windowOf(state.value, start, true);
  const step = Math.max(1, Math.ceil(points.length / 60));
  const rows = points.filter((point, i) => i % step === 0 || i === points.length - 1).filter(([at]) => at >= start + from * 1000 && at <= start + to * 1000);
  return html`
    <div class="scroll" style=${{ height: '100%' }} tabindex="0" role="region" aria-label="Units over time">
      <table>
        <thead><tr><th>time</th><th class="num">available</th><th class="num">in flight</th><th class="num">held</th><th class="num">sold</th><th class="num">refused per s</th></tr></thead>
        <tbody>${rows.map(([at, available, flight, held, sold, refused]) => html`
          <tr key=${at}><td>${sinceStart(at - start)}</td><td class="num">${count(available)}</td><td class="num">${count(flight)}</td><td class="num">${count(held)}</td><td class="num">${count(sold)}</td><td class="num">${rate(refused)}</td></tr>`)}
        </tbody>
      </table>
    </div>
  `;
}
