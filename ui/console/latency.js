// Latency split by outcome: fast refusals would hide slow acceptances. One column a second, brighter where more answers fell.

import { html, useEffect, useRef, useState } from '../shared/preact.js';
import { count, micros } from '../shared/format.js';
import { HEAT_SECONDS } from '../shared/sale-state.js';
import { state } from './model.js';
import { coloursOf } from './grid.js';
import { TableButton } from './hero.js';

const OUTCOMES = [['accepted', 'accepted', '202'], ['sold_out', 'sold out', '409'], ['other', 'other', 'repeat, limit …']];
/** The axis never moves: 10 µs to 10 s, five rows a decade. */
const DECADES = [10, 1e7];
const ROWS = 30;

export function Latency() {
  const [table, setTable] = useState(false);
  const { latency } = state.value.now;
  return html`
    <section class="card" aria-labelledby="latency-title">
      <header><h2 id="latency-title">Latency by outcome</h2><span class="soft small">left: since the start · then the last ${HEAT_SECONDS} s</span>
        <${TableButton} on=${table} set=${setTable} /></header>
      ${table ? html`<${Table} latency=${latency} />` : html`
        <div class="heat">
          ${OUTCOMES.map(([key, word, code]) => html`
            <h3 key=${key}>${word}<small>${code}</small></h3>
            <div class="map"><${Map} outcome=${key} /></div>
            <${Percentiles} of=${latency[key]} />`)}
        </div>`}
    </section>
  `;
}

const Q = [['p50', 'p50_us'], ['p99', 'p99_us'], ['p99.9', 'p999_us'], ['max', 'max_us']];

function Percentiles({ of }) {
  return html`
    <dl>
      <div><dt>n</dt><dd>${count(of.count)}</dd></div>
      ${Q.map(([name, key]) => html`<div><dt>${name}</dt><dd>${of.count > 0 ? micros(of[key]) : '–'}</dd></div>`)}
    </dl>
  `;
}

function Map({ outcome }) {
  const canvas = useRef();
  const { heat, now } = state.value;
  const draw = () => paint(canvas.current, heat, now, outcome);
  useEffect(draw);
  useEffect(() => {
    const again = () => canvas.current && paint(canvas.current, state.value.heat, state.value.now, outcome);
    const watch = new ResizeObserver(again);
    watch.observe(canvas.current);
    const themes = ['(prefers-color-scheme: dark)', '(forced-colors: active)'].map((query) => matchMedia(query));
    themes.forEach((theme) => theme.addEventListener('change', again));
    return () => {
      watch.disconnect();
      themes.forEach((theme) => theme.removeEventListener('change', again));
    };
  }, []);
  return html`<canvas ref=${canvas} role="img" aria-label=${`Latency of ${outcome.replace('_', ' ')} over the last ${HEAT_SECONDS} seconds`}></canvas>`;
}

const rowOf = (us) => Math.min(ROWS - 1, Math.max(0, Math.floor((Math.log10(us / DECADES[0]) / Math.log10(DECADES[1] / DECADES[0])) * ROWS)));

function paint(canvas, heat, now, outcome) {
  const { clientWidth: w, clientHeight: h } = canvas;
  if (!w || !h) return;
  const ratio = Math.min(3, globalThis.devicePixelRatio || 1);
  if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
    canvas.width = Math.round(w * ratio);
    canvas.height = Math.round(h * ratio);
  }
  const p = canvas.getContext('2d');
  p.setTransform(ratio, 0, 0, ratio, 0, 0);
  p.clearRect(0, 0, w, h);
  const c = coloursOf(canvas);
  const plot = { p, h, c, labels: 44, strip: 64 };
  axes(plot, w, getComputedStyle(canvas).fontFamily);
  sideways(plot, now.latency[outcome].buckets);
  columns(plot, w, heat, now, outcome);
}

function axes({ p, h, c, labels, strip }, w, family) {
  p.font = `10.5px ${family}`;
  p.textAlign = 'right';
  p.textBaseline = 'middle';
  [[100, '100 µs'], [1e3, '1 ms'], [1e4, '10 ms'], [1e5, '100 ms'], [1e6, '1 s']].forEach(([us, text]) => {
    const y = h - (Math.log10(us / 10) / 6) * h;
    p.fillStyle = c.soft;
    p.fillText(text, labels - 5, y);
    p.fillStyle = c.line;
    p.fillRect(labels, Math.round(y), w - labels, 1);
  });
  p.fillStyle = c.line;
  p.fillRect(labels + strip + 6, 0, 1, h);
}

/** All answers since the start, as bars to the right. */
function sideways({ p, h, c, labels, strip }, buckets) {
  const rows = rowsOf(buckets);
  const max = Math.max(1, ...rows);
  const step = h / ROWS;
  p.fillStyle = c.available;
  rows.forEach((n, row) => {
    if (n > 0) p.fillRect(labels, h - (row + 1) * step, Math.max(1.5, (n / max) * strip), Math.max(1, step - 0.4));
  });
}

function columns({ p, h, c, labels, strip }, w, heat, now, outcome) {
  const left = labels + strip + 8;
  const width = (w - left) / HEAT_SECONDS;
  const second = Math.floor(Date.parse(now.server_time) / 1000);
  const filled = heat.columns.map((column) => [column.second, rowsOf(column[outcome])]);
  const max = Math.max(1, ...filled.flatMap(([, rows]) => rows));
  const step = h / ROWS;
  p.fillStyle = c.available;
  for (const [at, rows] of filled) {
    const x = left + (HEAT_SECONDS - 1 - (second - at)) * width;
    if (x < left) continue;
    rows.forEach((n, row) => {
      if (n === 0) return;
      p.globalAlpha = 0.16 + 0.84 * Math.sqrt(n / max);
      p.fillRect(x, h - (row + 1) * step, Math.max(1, width - 0.6), step);
    });
  }
  p.globalAlpha = 1;
}

function rowsOf(buckets) {
  const rows = new Array(ROWS).fill(0);
  // A bucket is named by its upper end; its middle lies a little below.
  for (const [upper, n] of buckets) rows[rowOf(upper * 0.93)] += n;
  return rows;
}

function Table({ latency }) {
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label="Latency by outcome">
    <table>
      <thead><tr><th>outcome</th><th class="num">answers</th>${Q.map(([name]) => html`<th class="num">${name}</th>`)}</tr></thead>
      <tbody>${OUTCOMES.map(([key, word]) => html`
        <tr key=${key}><th>${word}</th><td class="num">${count(latency[key].count)}</td>${Q.map(([, q]) => html`<td class="num">${latency[key].count > 0 ? micros(latency[key][q]) : '–'}</td>`)}</tr>`)}</tbody>
    </table>
    </div>
  `;
}
