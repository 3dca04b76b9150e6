// What the browser tests share: the real program, a real Chromium, and pages that forgive no error and no foreign request.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';

const tools = createRequire(path.join(process.env.SLUICE_NODE_TOOLS, 'package.json'));
const { chromium } = tools('playwright-core');
const AXE = fs.readFileSync(tools.resolve('axe-core/axe.min.js'), 'utf8');
const STARTS_MS_MAX = 20_000;
const children = new Set();

// The Rust test that starts this holds the other end of the standard input: if it dies, everything here ends as well.
if (process.env.SLUICE_TEST_LIVES) {
  process.stdin.resume();
  process.stdin.unref?.();
  process.stdin.on('end', () => process.exit(1));
}
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

/** The program over a data folder of its own, on a free port; `stop` asks it to end, `again` starts it at the same address. */
export class Program {
  static async start(args = ['serve']) {
    const program = new Program();
    program.args = args;
    program.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-browser-'));
    await program.spawn('127.0.0.1:0');
    return program;
  }

  async spawn(listen) {
    const env = { SLUICE_DATA: path.join(this.folder, 'data'), PATH: process.env.PATH };
    this.child = spawn(process.env.SLUICE_BIN, [...this.args, '--listen', listen], { env, cwd: this.folder, stdio: ['ignore', 'ignore', 'pipe'] });
    children.add(this.child);
    this.ended = new Promise((resolve) => this.child.once('exit', (code) => resolve(code)));
    let said = '';
    this.child.stderr.on('data', (text) => (said += text));
    const address = await until(() => /\n {2}address {2}(\S+)\n/.exec(said)?.[1], `it says where it listens: ${said}`, STARTS_MS_MAX);
    this.url = `http://${address}`;
    await until(async () => (await fetch(`${this.url}/readyz`).catch(() => null))?.ok, 'it is ready', STARTS_MS_MAX);
    this.token = fs.readFileSync(path.join(this.folder, 'data', 'admin-token'), 'utf8').trim();
  }

  /** Changes the ledger's rows behind everybody's back; the tests' own program knows how. */
  doctor(sql) {
    const env = { ...process.env, SLUICE_TEST_FOLDER: this.folder, SLUICE_TEST_SQL: sql };
    const said = execFileSync(process.env.SLUICE_TESTS, ['--exact', 'alarms::rows_are_doctored', '--ignored'], { env, encoding: 'utf8' });
    assert.match(said, /1 passed/);
  }

  /** SIGTERM; answers with the exit code. */
  async stop() {
    this.child.kill('SIGTERM');
    const code = await this.ended;
    children.delete(this.child);
    return code;
  }

  again() {
    return this.spawn(new URL(this.url).host);
  }

  async end() {
    this.child.kill('SIGKILL');
    await this.ended;
    children.delete(this.child);
    fs.rmSync(this.folder, { recursive: true, force: true });
  }

  /** Asks the API as its operator; anything but a success is an error. */
  async ask(method, at, body, headers = {}) {
    const response = await this.raw(method, at, body, headers);
    const text = await response.text();
    assert.ok(response.ok, `${method} ${at}: ${response.status} ${text}`);
    return text.startsWith('{') ? JSON.parse(text) : text;
  }

  raw(method, at, body, headers = {}) {
    const sent = { authorization: `Bearer ${this.token}`, ...(body ? { 'content-type': 'application/json' } : {}), ...headers };
    return fetch(this.url + at, { method, headers: sent, body: body && JSON.stringify(body) });
  }

  sale(id, stock, more = {}) {
    return this.ask('POST', '/v1/sales', { id, name: `Sale ${id}`, items: [{ sku: 'ps5', name: 'Console', price_cents: 49_900, currency: 'EUR', stock }], ...more });
  }

  async openSale(id, stock, more = {}) {
    await this.sale(id, stock, more);
    return this.ask('POST', `/v1/sales/${id}/open`, {});
  }

  /** Orders one unit; answers with the response. */
  order(sale, who, wait = true) {
    const headers = { 'idempotency-key': `key-${who}`, ...(wait ? { prefer: 'wait=10' } : {}) };
    return this.raw('POST', `/v1/sales/${sale}/orders`, { customer: who, lines: [{ sku: 'ps5', quantity: 1 }] }, headers);
  }
}

/** One Chromium for a file of tests. */
export async function browser() {
  return chromium.launch({ executablePath: process.env.SLUICE_CHROMIUM, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
}

/** A context whose pages note every error and every request to another origin; `clean()` asserts that there was none. */
export async function strict(chrome, program, options = {}) {
  const context = await chrome.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  const faults = [];
  const addresses = [];
  let allowed = [];
  context.on('console', (message) => {
    const text = `${message.text()} (${message.location().url})`;
    if (message.type() === 'error' && !allowed.some((pattern) => pattern.test(text))) faults.push(`console: ${text}`);
  });
  context.on('weberror', (error) => faults.push(`error: ${error.error().stack}`));
  context.on('request', (request) => {
    addresses.push(request.url());
    if (!/^(blob|data|file):/.test(request.url()) && new URL(request.url()).origin !== program.url) faults.push(`request to ${request.url()}`);
  });
  return Object.assign(context, {
    addresses,
    /** Messages that belong to what a test does on purpose. */
    allow: (...patterns) => (allowed = patterns),
    clean: () => assert.deepEqual(faults, []),
  });
}

/** The console of a sale, as the link at the start opens it; live when this returns. */
export async function openConsole(context, program, sale) {
  const page = await context.newPage();
  await page.goto(`${program.url}/?sale=${sale}#token=${program.token}`);
  await page.waitForSelector('[data-fresh=live]');
  return page;
}

/** axe finds nothing serious. */
export async function accessible(page, what) {
  await page.evaluate(AXE);
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  const bad = found.violations.filter((violation) => ['serious', 'critical'].includes(violation.impact));
  const told = bad.map((violation) => `${violation.id}: ${violation.help}: ${violation.nodes.slice(0, 3).map((node) => `${node.html} ${node.any[0]?.message ?? ''}`).join(' | ')}`);
  assert.deepEqual(told, [], what);
}

/** No word of a program that knows nothing. */
export async function sensible(page) {
  const text = await page.evaluate(() => document.body.innerText);
  assert.doesNotMatch(text, /\b(NaN|undefined|null|Infinity|\[object)\b/);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `it scrolls sideways by ${wide} px`);
}

/** Waits until the question has a true answer, and gives it. */
export async function until(question, what, ms_max = 10_000) {
  const deadline = Date.now() + ms_max;
  for (;;) {
    const answer = await question();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The number that the page shows at a place named by a data attribute. */
export const shown = async (page, selector) => Number((await page.textContent(selector)).replaceAll(',', '').replace('#', ''));
