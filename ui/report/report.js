// The report of a sale as text: data in, HTML out, verdict first. The page shows it, and a file carries it.

import { count, dayAndTime, micros, oneIn, sinceStart, timeOfDay } from '../shared/format.js';
import { full, sumsOf } from '../shared/sale-state.js';
import { withBadges } from '../shared/timeline.js';
import { curvePicture, gridPicture, latencyPicture, patterns, text } from './pictures.js';

/**
 * `data` is {made_at, by, snapshot, audit, crowd}: the first event of the live stream, the audit's answer, and the crowd's
 * summary if a crowd made it. Whatever is missing is left out; the verdict never is.
 */
export function report(data) {
  const { snapshot, audit } = data;
  if (!snapshot) return `${verdict(data, null)}<main><p>There is no data in this report.</p></main>`;
  const state = full(null, 'snapshot', snapshot);
  const opened = snapshot.marks?.find((mark) => mark.what === 'opened')?.at ?? snapshot.opens_at ?? snapshot.curve?.from ?? snapshot.server_time;
  const start = Date.parse(opened);
  const sums = sumsOf(snapshot);
  return `${patterns()}${verdict(data, state)}<main>
    ${head(snapshot, data)}
    ${units(sums, audit?.oversold ?? snapshot.verdict.oversold)}
    <section><h2>Draining</h2>${curvePicture(state, start)}<p class="soft legend"><svg viewBox="0 0 26 8" aria-hidden="true"><path class="refusals" d="M0 4h26"/></svg>refused per second (axis on the right)</p>${marks(snapshot, start)}</section>
    <section><h2>Funnel</h2><p class="soft">From requests to accepted: answered by this process since it started. From settled on: the ledger's.</p>${funnel(snapshot.funnel)}</section>
    <section><h2>Latency by outcome</h2>${latency(snapshot.latency)}</section>
    <section><h2>Conservation</h2>${sum(snapshot, sums)}</section>
    ${audit ? `<section id="audit"><h2>Audit</h2>${audited(audit)}</section>` : ''}
    ${data.crowd ? `<section><h2>The crowd</h2>${crowd(data.crowd)}</section>` : ''}
    <section><h2>Event log</h2>${log(snapshot.log ?? [])}</section>
    <footer class="soft"><p>Sluice ${text(snapshot.process?.version)} · gate: ${text(snapshot.process?.gate)} · queue: ${text(snapshot.process?.queue)} · ledger: ${text(snapshot.process?.ledger)}</p>
    <p>Anyone can check: <code>sluice audit ${text(snapshot.sale)}</code></p></footer>
  </main>`;
}

function verdict({ audit, snapshot }, state) {
  const v = sumOf(audit, state?.offence?.verdict ?? snapshot?.verdict);
  const conserved = v && v.conservation_errors === 0 && audit?.stock?.conserved !== false && (audit ?? snapshot).conserved !== false;
  const broken = v && (v.oversold || v.undersold || v.broken_promises || !conserved || state?.offence || audit?.verdict === 'violation');
  const entry = (name, value) => `<div><dt>${name}</dt><dd>${value}</dd></div>`;
  const first = snapshot?.verdict?.first_offence;
  return `<section class="verdict ${v ? (broken ? 'broken' : 'exact') : 'unknown'}" aria-label="Verdict"><div><dl>
    ${entry('OVERSOLD', count(v?.oversold))}${entry('UNDERSOLD', count(v?.undersold))}${entry('BROKEN PROMISES', count(v?.broken_promises))}
    <div class="conserved"><dt>CONSERVED</dt><dd>${v ? (conserved ? '✓<span class="hidden">yes</span>' : '✗<span class="hidden">no</span>') : '–'}</dd></div></dl>
    <span class="asof">${snapshot ? `as of <span class="mono">#${count(audit?.stock?.watermark ?? snapshot.watermark)}</span>${audit ? `, audit: ${text(audit.verdict)}` : ''}` : ''}</span>
    ${broken && first ? `<span>${first.seq ? `First at #${count(first.seq)}` : 'First'}: ${text(first.what)}</span>` : ''}
  </div></section>`;
}

/** What must be 0, as the live page sums it up: the worst of what the audit found and of what was seen while it ran. */
function sumOf(audit, seen) {
  if (!audit) return seen ? { conservation_errors: 0, ...seen } : null;
  const found = (...names) => names.reduce((sum, name) => sum + (audit[name] ?? 0), 0);
  const most = (name, n) => Math.max(n, seen?.[name] ?? 0);
  return {
    oversold: most('oversold', found('oversold')),
    undersold: most('undersold', found('undersold')),
    broken_promises: most('broken_promises', found('broken_promises', 'lost')),
    conservation_errors: most('conservation_errors', found('conservation_errors', 'leaked', 'doubled')),
  };
}

function head(snapshot, { made_at: made, by }) {
  return `<header class="sale"><h1>${text(snapshot.name)}</h1>
    <p class="soft"><code>${text(snapshot.sale)}</code> · ${text(snapshot.state)} · opened ${dayAndTime(snapshot.opens_at ?? snapshot.marks?.[0]?.at ?? snapshot.server_time)}
    · ${snapshot.per_customer_limit ? `${count(snapshot.per_customer_limit)} per customer` : 'no limit per customer'} · held for ${count(snapshot.hold_seconds)} s
    · report of ${dayAndTime(made)}${by ? ` by ${text(by)}` : ''}</p></header>`;
}

function units(sums, oversold) {
  const place = (sign, word, n) => `<div><dt><i class="sign ${sign}"></i>${word}</dt><dd>${count(n)}</dd></div>`;
  return `<section><h2>${count(sums.stock)} units</h2><dl class="places">${place('available', 'available', sums.available)}${place('flight', 'in flight', sums.in_flight)}${place('held', 'held', sums.held)}${place('sold', 'sold', sums.sold)}</dl>
    ${gridPicture(sums, oversold)}</section>`;
}

function marks(snapshot, start) {
  const found = withBadges(snapshot.marks ?? [], start);
  return `<p class="marks">${found.map((mark) => `<span><span class="badge">${mark.badge}</span>${mark.word} <b>${sinceStart(mark.ms)}</b></span>`).join('')}</p>`;
}

const FUNNEL = ['requests', 'shed', 'sold_out', 'limit', 'other', 'repeats', 'accepted', 'settled', 'held', 'sold', 'lapsed', 'cancelled'];

function funnel(f) {
  const row = (key) => `<tr><th>${key.replace('_', ' ')}</th><td class="num">${count(f[key])}</td><td class="num soft">${key === 'requests' ? '' : oneIn(f[key], f.requests)}</td>
    <td class="bar"><svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect width="${f.requests > 0 ? Math.min(100, (f[key] / f.requests) * 100) : 0}" height="10" class="bar"/></svg></td></tr>`;
  return `<table class="funnel"><thead><tr><th>step</th><th class="num">count</th><th class="num">share</th><th></th></tr></thead><tbody>${FUNNEL.map(row).join('')}</tbody></table>`;
}

function latency(all) {
  const row = (key, word) => {
    const of = all[key];
    const q = (us) => `<td class="num">${of.count > 0 ? micros(us) : '–'}</td>`;
    return `<tr><th>${word}</th><td class="num">${count(of.count)}</td>${q(of.p50_us)}${q(of.p99_us)}${q(of.p999_us)}${q(of.max_us)}</tr>
      <tr class="map"><td colspan="6">${of.count > 0 ? latencyPicture(word, of) : ''}</td></tr>`;
  };
  return `<table class="latency"><thead><tr><th>outcome</th><th class="num">answers</th><th class="num">p50</th><th class="num">p99</th><th class="num">p99.9</th><th class="num">max</th></tr></thead>
    <tbody>${row('accepted', 'accepted')}${row('sold_out', 'sold out')}${row('other', 'other')}</tbody></table>`;
}

function sum(snapshot, sums) {
  const row = (item) => {
    const total = item.available + item.in_flight + item.held + item.sold;
    const units = (name, what) => `<td class="num" data-name="${name}">${what}</td>`;
    return `<tr><th>${text(item.name)} <code class="soft">${text(item.sku)}</code></th>${units('available', count(item.available))}${units('+ in flight', count(item.in_flight))}${units('+ held', count(item.held))}${units('+ sold', count(item.sold))}
      ${units('', `= ${count(total)}`)}${units('stock', `${count(item.stock)} ${total === item.stock ? '✓' : '✗'}`)}${units('gate', count(item.gate?.available))}</tr>`;
  };
  const total = { name: 'all', sku: '', ...sums, gate: sums.gate === null ? null : { available: sums.gate } };
  return `<div class="scroll" tabindex="0" role="region" aria-label="Conservation"><table class="sum"><thead><tr><th>item</th><th class="num">available</th><th class="num">+ in flight</th><th class="num">+ held</th><th class="num">+ sold</th><th></th><th class="num">stock</th><th class="num">gate</th></tr></thead>
    <tbody>${snapshot.items.map(row).join('')}${snapshot.items.length > 1 ? row(total) : ''}</tbody></table></div>`;
}

function audited(audit) {
  const numbers = ['oversold', 'undersold', 'leaked', 'lost', 'doubled', 'broken_promises', 'conservation_errors'];
  const orders = Object.entries(audit.orders ?? {}).map(([state, n]) => `${count(n)} ${text(state)}`).join(', ');
  const findings = audit.findings ?? [];
  return `<p>Recounted from the first move of the journal: <b>${text(audit.verdict)}</b>. Orders: ${orders || 'none'}.</p>
    <ul class="numbers">${numbers.map((name) => `<li>${name.replaceAll('_', ' ')} <b>${count(audit[name])}</b></li>`).join('')}</ul>
    ${findings.length > 0 ? `<ul class="findings">${findings.slice(0, 100).map((finding) => `<li>${text(typeof finding === 'string' ? finding : JSON.stringify(finding))}</li>`).join('')}</ul>` : ''}`;
}

function crowd(summary) {
  const requests = Object.entries(summary.requests ?? {}).filter(([, n]) => Number.isFinite(n)).map(([name, n]) => `<li>${text(name.replaceAll('_', ' '))} <b>${count(n)}</b></li>`);
  const outcomes = (summary.outcomes ?? []).map((row) => `<tr><th>${text(String(row.outcome).replaceAll('_', ' '))}</th><td class="num">${count(row.count)}</td></tr>`);
  return `<ul class="numbers">${requests.join('')}</ul>${outcomes.length ? `<table class="narrow"><thead><tr><th>what it was told</th><th class="num">answers</th></tr></thead><tbody>${outcomes.join('')}</tbody></table>` : ''}`;
}

function log(entries) {
  if (entries.length === 0) return '<p class="soft">No entries.</p>';
  const byTime = [...entries].sort((one, other) => Date.parse(one.at) - Date.parse(other.at)).slice(-200);
  return `<table class="log"><tbody>${byTime.map((entry) => `<tr><td class="soft">${timeOfDay(entry.at, true)}</td><td class="soft mono">${entry.seq ? `#${count(entry.seq)}` : ''}</td><th>${text(entry.kind.replaceAll('_', ' '))}</th><td>${text(entry.text)}${entry.order ? ` <code class="soft">${text(entry.order)}</code>` : ''}</td></tr>`).join('')}</tbody></table>`;
}
