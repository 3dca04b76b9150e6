// A flash sale as its customers make it: thousands order at once, some ask again; at the end the ledger is held to every
// answer. The run fails (exit code 99) if a unit was sold twice, a promise was lost, or an answer was none of the allowed.
//
//   k6 run -e BASE_URL=http://127.0.0.1:8080 -e ADMIN_TOKEN=… load/k6/flash-sale.js
//
// README.md beside this file lists what else may be set.
import http from 'k6/http';
import { check, fail, sleep } from 'k6';
import { Counter, Gauge, Rate, Trend } from 'k6/metrics';

const number = (name, otherwise) => {
  const value = Number(__ENV[name] || otherwise);
  if (!Number.isFinite(value) || value < 0) throw new Error(`${name} is no number: ${__ENV[name]}`);
  return value;
};

const NODES = (__ENV.BASE_URL || 'http://127.0.0.1:8080').split(',').map((url) => url.trim().replace(/\/$/, ''));
// While a token is being replaced there are two, parted by a comma; either will do.
const TOKEN = (__ENV.ADMIN_TOKEN || '').split(',')[0].trim();
const SCENARIO = __ENV.SCENARIO || 'crowd';
const STOCK = number('STOCK', 1000);
const VUS = number('VUS', 500);
const RATE = number('RATE', 2000);
const SECONDS = seconds(__ENV.DURATION || (SCENARIO === 'spike' ? '20s' : '10s'));
const RETRY_SHARE = number('RETRY_SHARE', 0.05);
const SETTLE_SECONDS = number('SETTLE_SECONDS', 30);
const UNAVAILABLE_SHARE_MAX = number('UNAVAILABLE_SHARE_MAX', 0.01);
const DROPPED_SHARE_MAX = number('DROPPED_SHARE_MAX', 0.01);
// With generator, server and databases on two cores, a closed crowd of 500 waits for itself: the limits allow for that.
const P95_MS = number('P95_MS', SCENARIO === 'spike' ? 250 : 500);
const P99_MS = number('P99_MS', SCENARIO === 'spike' ? 500 : 1000);

/// Each answer to an order is counted under one of these.
const answers = {
  accepted: new Counter('answer_accepted'),
  sold_out: new Counter('answer_sold_out'),
  repeated: new Counter('answer_repeated'),
  unavailable: new Counter('answer_unavailable'),
  other: new Counter('answer_other'),
};
const unavailableShare = new Rate('unavailable_share');
const acceptedMs = new Trend('accepted_ms', true);
const soldOutMs = new Trend('sold_out_ms', true);

// What the ledger says at the end. A threshold needs a sample to fail, so `examined` counts that somebody looked.
const examined = new Counter('examined');
const oversold = new Counter('oversold');
const unconserved = new Counter('unconserved');
const unsettled = new Counter('unsettled');
/// One up for every order that a customer was promised, one down for every unit that the ledger gave away.
const lost = new Counter('lost');
/// One up for every "sold out", far down once the ledger shows that nothing is left: a unit that is left was refused to
/// somebody. A threshold sees one metric only, which is why these two are sums.
const falseSoldOut = new Counter('false_sold_out');
const ledger = Object.fromEntries(
  ['stock', 'available', 'held', 'sold'].map((place) => [place, new Gauge(`ledger_${place}`)]),
);

const SPIKE = [
  { share: 0.2, rate: RATE / 20 },
  { share: 0.05, rate: RATE },
  { share: 0.5, rate: RATE },
  { share: 0.25, rate: RATE / 20 },
];

const scenarios = {
  crowd: { executor: 'constant-vus', vus: VUS, duration: `${SECONDS}s` },
  spike: {
    executor: 'ramping-arrival-rate',
    startRate: Math.ceil(RATE / 20),
    timeUnit: '1s',
    preAllocatedVUs: VUS,
    stages: SPIKE.map(({ share, rate }) => ({
      duration: `${Math.ceil(share * SECONDS * 1000)}ms`,
      target: Math.ceil(rate),
    })),
  },
};
if (!scenarios[SCENARIO]) throw new Error(`SCENARIO is crowd or spike, not ${SCENARIO}`);

export const options = {
  scenarios: { [SCENARIO]: scenarios[SCENARIO] },
  setupTimeout: '60s',
  teardownTimeout: `${SETTLE_SECONDS + 60}s`,
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
  systemTags: ['check', 'name', 'scenario', 'status'],
  thresholds: {
    checks: ['rate==1'],
    answer_other: ['count==0'],
    unavailable_share: [`rate<=${UNAVAILABLE_SHARE_MAX}`],
    'http_req_duration{name:order}': [`p(95)<${P95_MS}`, `p(99)<${P99_MS}`],
    // Requests that the generator could not send in time would be missing from the latencies.
    dropped_iterations: [`count<=${Math.ceil(DROPPED_SHARE_MAX * RATE * SECONDS)}`],
    examined: ['count==1'],
    oversold: ['count==0'],
    unconserved: ['count==0'],
    unsettled: ['count==0'],
    lost: ['count<=0'],
    false_sold_out: ['count<=0'],
  },
};

/// Creates the sale and opens it, unless there is one.
export function setup() {
  if (!TOKEN) fail('ADMIN_TOKEN is missing: the operator\'s token, or the content of the data folder\'s admin-token');
  const run = `k6-${Date.now().toString(36)}${Math.floor(Math.random() * 1296).toString(36)}`;
  if (__ENV.SALE) {
    const stock = operator('GET', `/v1/sales/${__ENV.SALE}/stock`, null, 200);
    return { run, sale: __ENV.SALE, sku: __ENV.SKU || stock.items[0].sku, created: false };
  }
  const sku = __ENV.SKU || 'ps5';
  const sale = { id: run, name: 'k6', hold_seconds: 600, per_customer_limit: 1, items: [{ sku, stock: STOCK }] };
  operator('POST', '/v1/sales', sale, 201);
  operator('POST', `/v1/sales/${run}/open`, {}, 200);
  return { run, sale: run, sku, created: true };
}

/// The orders that this virtual user was promised.
const promised = [];

/// One customer orders a unit; or one who has a promise asks again.
export default function (sale) {
  const again = promised.length > 0 && Math.random() < RETRY_SHARE;
  if (again) {
    return repeat(sale, promised[Math.floor(Math.random() * promised.length)]);
  }
  const customer = `${sale.run}-${__VU}-${__ITER}`;
  const answer = order(sale, customer, 0);
  if (answer.kind === 'unavailable') {
    // Nobody knows what became of it; the same key again cannot order twice.
    sleep(1);
    const second = order(sale, customer, 1);
    if (second.id) keep(second.id, customer);
  } else if (answer.kind === 'accepted') {
    keep(answer.id, customer);
  }
  check(answer, { 'a new customer is accepted, or told that it is sold out': ({ kind }) => kind !== 'repeated' });
}

function keep(id, customer) {
  promised.push({ id, customer });
  lost.add(1);
}

/// The same wish under the same key, on another node if there are several: it must lead to the same order.
function repeat(sale, { id, customer }) {
  const answer = order(sale, customer, 1);
  check(answer, {
    'a retry gets the same order': ({ kind, id: found }) =>
      kind === 'unavailable' || (kind === 'repeated' && found === id),
  });
}

/// Sends one order and says what it was answered.
function order(sale, customer, hop) {
  const url = `${NODES[(__VU + hop) % NODES.length]}/v1/sales/${sale.sale}/orders`;
  const body = JSON.stringify({ customer, lines: [{ sku: sale.sku, quantity: 1 }] });
  const headers = { 'content-type': 'application/json', 'idempotency-key': customer };
  const response = http.post(url, body, { headers, tags: { name: 'order' } });
  const answer = understand(response);
  answers[answer.kind].add(1);
  unavailableShare.add(answer.kind === 'unavailable');
  if (answer.kind === 'accepted') acceptedMs.add(response.timings.duration);
  if (answer.kind === 'sold_out') {
    soldOutMs.add(response.timings.duration);
    falseSoldOut.add(1);
  }
  check(answer, { 'every answer is one of the allowed': ({ kind }) => kind !== 'other' });
  return answer;
}

function understand(response) {
  switch (response.status) {
    case 202:
      return promise('accepted', response);
    case 200:
      return promise('repeated', response);
    case 409:
      return { kind: response.body.includes('"/problems/sold-out"') ? 'sold_out' : 'other' };
    case 503:
      return { kind: response.headers['Retry-After'] ? 'unavailable' : 'other' };
    default:
      return { kind: 'other' };
  }
}

function promise(kind, response) {
  const { id, state } = response.json();
  const kept = state === 'accepted' || state === 'held' || state === 'sold';
  return id && kept ? { kind, id } : { kind: 'other' };
}

/// Waits until nothing is on its way, and holds the ledger to what was promised.
export function teardown(sale) {
  const path = `/v1/sales/${sale.sale}/stock`;
  let stock = operator('GET', path, null, 200);
  for (let waited = 0; stock.in_flight > 0 && waited < SETTLE_SECONDS; waited += 0.25) {
    sleep(0.25);
    stock = operator('GET', path, null, 200);
  }
  examined.add(1);
  unsettled.add(stock.in_flight);
  unconserved.add(stock.conserved === true ? 0 : 1);
  for (const item of stock.items) {
    const taken = item.held + item.sold;
    oversold.add(Math.max(0, taken - item.stock) + Math.max(0, -item.available));
    unconserved.add(Math.abs(item.stock - item.available - taken - item.in_flight));
    if (item.sku === sale.sku) {
      for (const place in ledger) ledger[place].add(item[place]);
      // In a sale that was there before, holds may lapse and others may order: only a new one must add up.
      lost.add(sale.created ? -taken : -Number.MAX_SAFE_INTEGER);
      falseSoldOut.add(sale.created && item.available > 0 ? 0 : -Number.MAX_SAFE_INTEGER);
    }
  }
  const audit = operator('GET', `/v1/sales/${sale.sale}/audit`, null, 200);
  unconserved.add(audit.verdict === 'violation' ? 1 : 0);
}

/// Asks as the operator, again while the server is not ready.
function operator(method, path, body, status) {
  const headers = { authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json' };
  let response;
  for (let tries = 0; tries < 20; tries += 1) {
    response = http.request(method, NODES[0] + path, body && JSON.stringify(body), { headers, tags: { name: 'operator' } });
    if (response.status !== 503 && response.status !== 0) break;
    sleep(0.5);
  }
  if (response.status !== status) fail(`${method} ${path}: ${response.status} ${response.error} ${response.body}`);
  return response.json();
}

/// Prints what matters, and writes it as JSON if SUMMARY_JSON names a file.
export function handleSummary(data) {
  const summary = summarize(data.metrics);
  const files = { stdout: text(summary) };
  if (__ENV.SUMMARY_JSON) files[__ENV.SUMMARY_JSON] = `${JSON.stringify(summary, null, 2)}\n`;
  return files;
}

function summarize(metrics) {
  const value = (metric, name) => (metrics[metric] ? metrics[metric].values[name] : 0);
  const latency = (metric) =>
    Object.fromEntries(
      [['p50', 'med'], ['p95', 'p(95)'], ['p99', 'p(99)'], ['max', 'max']].map(([name, stat]) => [name, value(metric, stat)]),
    );
  const counts = Object.fromEntries(Object.keys(answers).map((kind) => [kind, value(`answer_${kind}`, 'count')]));
  const requests = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const crossed = Object.entries(metrics).flatMap(([metric, { thresholds }]) =>
    Object.entries(thresholds || {}).filter(([, { ok }]) => !ok).map(([threshold]) => `${metric} ${threshold}`),
  );
  return {
    scenario: SCENARIO,
    seconds: SECONDS,
    requests,
    requests_per_second: requests / SECONDS,
    ...counts,
    // A refusal costs no transaction of the ledger: the gate says it, or the API from memory.
    sold_out_share: requests ? counts.sold_out / requests : 0,
    latency_ms: { all: latency('http_req_duration{name:order}'), accepted: latency('accepted_ms'), sold_out: latency('sold_out_ms') },
    dropped: value('dropped_iterations', 'count'),
    checks: { passed: value('checks', 'passes'), failed: value('checks', 'fails') },
    ledger: Object.fromEntries(Object.keys(ledger).map((place) => [place, value(`ledger_${place}`, 'value')])),
    examined: value('examined', 'count') === 1,
    oversold: value('oversold', 'count'),
    undersold: value('false_sold_out', 'count') > 0 ? value('ledger_available', 'value') : 0,
    unconserved: value('unconserved', 'count'),
    unsettled: value('unsettled', 'count'),
    lost: Math.max(0, value('lost', 'count')),
    crossed,
    passed: crossed.length === 0,
  };
}

function text(summary) {
  const whole = (count) => String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, ',');
  const line = (name, count, what) => `  ${name.padEnd(14)}${whole(count).padStart(10)}  ${what}\n`;
  const ms = ({ p50, p95, p99, max }) => [p50, p95, p99, max].map((time) => time.toFixed(1).padStart(9)).join('');
  const { latency_ms: latency } = summary;
  const share = (100 * summary.sold_out_share).toFixed(2);
  return `\n${summary.scenario}, ${summary.seconds} s\n\n`
    + line('requests', summary.requests, `orders sent, ${whole(summary.requests_per_second)} a second`)
    + line('accepted', summary.accepted, 'promised (202)')
    + line('sold out', summary.sold_out, `refused (409): ${share} % of all answers, without a transaction of the ledger`)
    + line('repeated', summary.repeated, 'the order they had (200)')
    + line('unavailable', summary.unavailable, 'not now (503)')
    + line('other', summary.other, 'none of these; must be 0')
    + (summary.dropped ? line('dropped', summary.dropped, 'not sent: the generator was too slow') : '')
    + `\n  ms             ${['p50', 'p95', 'p99', 'max'].map((name) => name.padStart(9)).join('')}\n`
    + `  all            ${ms(latency.all)}\n`
    + `  accepted       ${ms(latency.accepted)}\n`
    + `  sold out       ${ms(latency.sold_out)}\n`
    + (summary.examined ? ledgerText(summary) : '\n  the ledger was not read\n')
    + (summary.passed ? '\n  passed\n\n' : `\n  FAILED: ${summary.crossed.join('; ')}\n\n`);
}

function ledgerText({ ledger: { stock, available, held, sold }, ...summary }) {
  return `\n  ledger: ${stock} = ${available} available + ${held} held + ${sold} sold\n`
    + `  OVERSOLD ${summary.oversold} · UNDERSOLD ${summary.undersold} · LOST ${summary.lost}`
    + ` · FAILED CHECKS ${summary.checks.failed}\n`;
}

/// "10s", "500ms", "2m" or "10" in seconds.
function seconds(text) {
  const [, count, unit] = /^([0-9.]+)(ms|s|m)?$/.exec(text) || fail(`DURATION is no duration: ${text}`);
  return Number(count) * { ms: 0.001, s: 1, m: 60 }[unit || 's'];
}
