// The console: the numbers it shows are the API's, whatever happens to the server, the tabs or the sale.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Program, accessible, browser, openConsole, sensible, shown, strict, until } from './lib.mjs';

let program;
let chrome;
before(async () => {
  program = await Program.start();
  chrome = await browser();
});
after(async () => {
  await chrome.close();
  await program.end();
});

/** `count` orders of one unit each, told to wait until they are settled. */
async function crowd(sale, count, from = 0) {
  const orders = [];
  for (let i = from; i < from + count; i += 1) orders.push(program.order(sale, `c-${i}`).then((response) => response.json()));
  return Promise.all(orders);
}

test('the numbers are those of /stock and /metrics at the same watermark', async () => {
  await program.openSale('numbers', 200);
  const context = await strict(chrome, program);
  const page = await openConsole(context, program, 'numbers');
  const orders = await crowd('numbers', 120);
  for (const order of orders.slice(0, 30)) await program.ask('POST', `/v1/orders/${order.id}/confirm`, {});
  for (const order of orders.slice(30, 37)) await program.ask('POST', `/v1/orders/${order.id}/cancel`, {});
  const stock = await program.ask('GET', '/v1/sales/numbers/stock');
  await until(async () => (await shown(page, '[data-watermark]')) === stock.watermark, `the page shows #${stock.watermark}`);
  const [item] = stock.items;
  assert.deepEqual([item.available, item.held, item.sold, item.in_flight], [87, 83, 30, 0]);
  const metrics = await program.ask('GET', '/metrics');
  for (const place of ['stock', 'available', 'held', 'sold', 'in_flight']) {
    assert.equal(await shown(page, `[data-units=${place}]`), item[place], place);
  }
  for (const place of ['available', 'held', 'sold']) {
    const line = metrics.split('\n').find((text) => text.startsWith('sluice_units{') && ['sale="numbers"', 'layer="ledger"', `state="${place}"`].every((label) => text.includes(label)));
    assert.equal(Number(line?.split(' ').at(-1)), item[place], `${place}: ${line}`);
  }
  assert.equal(await shown(page, '[data-sum]'), 200);
  assert.equal(await shown(page, '[data-funnel=accepted]'), 120);
  assert.equal(await shown(page, '[data-funnel=cancelled]'), 7);
  for (const name of ['OVERSOLD', 'UNDERSOLD', 'BROKEN PROMISES']) assert.equal(await shown(page, `[data-verdict="${name}"]`), 0);
  await sensible(page);
  context.clean();
  await context.close();
});

test('the token stands in no address', async () => {
  await program.openSale('secret', 5);
  const context = await strict(chrome, program);
  const page = await openConsole(context, program, 'secret');
  assert.equal(new URL(page.url()).hash, '');
  assert.ok(context.addresses.length > 5);
  const told = context.addresses.filter((address) => address.split('#')[0].includes(program.token));
  assert.deepEqual(told, []);
  await page.reload();
  await page.waitForSelector('[data-fresh=live]');
  context.clean();

  const stranger = await context.newPage();
  await stranger.goto(program.url);
  await stranger.waitForSelector('input[name=token]');
  await accessible(stranger, 'without a token');
  await stranger.fill('input[name=token]', program.token);
  await stranger.keyboard.press('Enter');
  await stranger.waitForSelector('[data-fresh=live]');
  context.clean();
  await context.close();
});

test('the console weighs at most 120 kB', async () => {
  await program.openSale('light', 5);
  const context = await strict(chrome, program);
  const sizes = [];
  context.on('requestfinished', (request) => {
    if (!request.url().includes('/v1/')) sizes.push(request.sizes().then((size) => [request.url(), size.responseBodySize]));
  });
  await openConsole(context, program, 'light');
  const found = await Promise.all(sizes);
  const all = found.reduce((sum, [, bytes]) => sum + bytes, 0);
  assert.ok(found.length > 15 && all > 20_000 && all <= 120_000, `${all} bytes: ${JSON.stringify(found)}`);
  context.clean();
  await context.close();
});

test('everybody can read it: light, dark, 360 px, forced colours', async () => {
  await program.openSale('looks', 60);
  await crowd('looks', 40);
  const narrow = { viewport: { width: 360, height: 740 } };
  for (const options of [{ colorScheme: 'light' }, { colorScheme: 'dark' }, narrow, { forcedColors: 'active' }, { ...narrow, colorScheme: 'dark', reducedMotion: 'reduce' }]) {
    const context = await strict(chrome, program, options);
    const page = await openConsole(context, program, 'looks');
    await until(async () => (await shown(page, '[data-units=held]')) === 40, 'it shows 40 held');
    await accessible(page, JSON.stringify(options));
    await sensible(page);
    const buttons = page.locator('button:has-text("view as table")');
    while ((await buttons.count()) > 0) await buttons.first().click();
    await page.waitForSelector('.gridbox table');
    await accessible(page, `tables, ${JSON.stringify(options)}`);
    await sensible(page);
    context.clean();
    await context.close();
  }
});

test('an operator pauses and adjusts by keyboard, and says why', async () => {
  await program.openSale('steered', 50);
  const context = await strict(chrome, program);
  const page = await openConsole(context, program, 'steered');
  await page.locator('button', { hasText: 'Pause…' }).focus();
  await page.keyboard.press('Enter');
  await page.waitForSelector('dialog[open]');
  await accessible(page, 'a dialog');
  await page.locator('dialog input[name=reason]').focus();
  await page.keyboard.type('the lights went out');
  await page.keyboard.press('Enter');
  await page.waitForSelector('[data-state]:has-text("paused")');
  assert.equal((await program.ask('GET', '/v1/sales/steered')).state, 'paused');
  await page.click('text=Adjust stock…');
  await page.fill('dialog input[name=delta]', '25');
  assert.match(await page.textContent('dialog .effect'), /50 → 75/);
  await page.fill('dialog input[name=reason]', 'a pallet turned up');
  await page.click('dialog button:has-text("Add")');
  await until(async () => (await shown(page, '[data-units=stock]')) === 75, 'it shows 75');
  await page.click('text=Adjust stock…');
  await page.fill('dialog input[name=delta]', '-500');
  await page.fill('dialog input[name=reason]', 'too many');
  context.allow(/409|422/);
  await page.click('dialog button:has-text("Withdraw")');
  await page.waitForSelector('dialog [role=alert]');
  await page.keyboard.press('Escape');
  await page.waitForSelector('dialog', { state: 'detached' });
  assert.equal(await shown(page, '[data-units=stock]'), 75);
  context.clean();
  await context.close();
});

test('seven tabs share one stream, and another one takes over', async () => {
  await program.openSale('tabs', 30);
  const context = await strict(chrome, program);
  const pages = [];
  for (let i = 0; i < 7; i += 1) pages.push(await openConsole(context, program, 'tabs'));
  const streams = () => context.addresses.filter((address) => address.endsWith('/v1/sales/tabs/live')).length;
  assert.equal(streams(), 1);
  await crowd('tabs', 10);
  for (const page of pages) await until(async () => (await shown(page, '[data-units=held]')) === 10, 'every tab shows 10 held');
  await pages[0].close();
  await crowd('tabs', 5, 10);
  for (const page of pages.slice(1)) await until(async () => (await shown(page, '[data-units=held]')) === 15, 'every tab that is left shows 15 held');
  assert.equal(streams(), 2);
  context.clean();
  await context.close();
});

test('a sale of 300 ms is seen from its first unit to its last', async () => {
  await program.sale('blink', 100, { hold_seconds: 0 });
  const context = await strict(chrome, program);
  const page = await openConsole(context, program, 'blink');
  await program.ask('POST', '/v1/sales/blink/open', {});
  await crowd('blink', 130);
  await until(async () => (await shown(page, '[data-units=sold]')) === 100, 'it shows 100 sold');
  await until(async () => /sold out/.test(await page.textContent('.marks')), 'the curve is marked');
  const marks = await page.textContent('.marks');
  const at = (word) => Number(new RegExp(`${word} T\\+([0-9.]+) s`).exec(marks)?.[1]);
  assert.ok(at('first unit') <= at('sold out') && at('sold out') < 10, marks);
  await page.locator('.card:has(#curve-title) button:has-text("view as table")').click();
  // The curve is asked for once more after the last unit: its bins are finer than the ticks.
  await until(async () => (await page.locator('.plot tbody tr').count()) > 5, 'the curve has points');
  const last = await page.locator('.plot tbody tr').last().locator('td').allTextContents();
  assert.deepEqual(last.slice(1, 5), ['0', '0', '0', '100']);
  assert.equal(await shown(page, '[data-funnel=sold_out]'), 30);
  await sensible(page);
  context.clean();
  await context.close();
});

test('a sale of which nothing was sold is no empty page', async () => {
  await program.openSale('quiet', 10);
  await program.ask('POST', '/v1/sales/quiet/close', {});
  const context = await strict(chrome, program);
  const page = await openConsole(context, program, 'quiet');
  assert.equal(await shown(page, '[data-units=available]'), 10);
  assert.equal(await shown(page, '[data-units=sold]'), 0);
  assert.equal(await shown(page, '[data-verdict=OVERSOLD]'), 0);
  assert.equal(await page.textContent('[data-state]'), 'ended');
  await accessible(page, 'nothing sold');
  await sensible(page);
  context.clean();
  await context.close();
});

test('a doctored ledger turns the verdict red, and red it stays', async () => {
  await program.openSale('doctored', 10);
  await crowd('doctored', 4);
  const context = await strict(chrome, program);
  const page = await openConsole(context, program, 'doctored');
  await until(async () => (await shown(page, '[data-units=held]')) === 4, 'it shows 4 held');
  assert.equal(await page.getAttribute('.verdict', 'class'), 'verdict exact');
  program.doctor("update items set available = 0, held = 8, sold = 5 where sale = 'doctored'");
  await page.waitForSelector('.verdict.broken');
  assert.equal(await shown(page, '[data-verdict=OVERSOLD]'), 3);
  const [first] = await page.getByRole('link', { name: '3 units of ps5 are held or sold beyond the stock' }).all();
  assert.ok(first, 'the bar links to what it saw first');
  assert.match(await page.title(), /VIOLATION/);
  await accessible(page, 'a violation');
  program.doctor("update items set available = 6, held = 4, sold = 0 where sale = 'doctored'");
  await until(async () => (await shown(page, '[data-units=held]')) === 4, 'the rows are as before');
  const stays = async (tab, where) => {
    assert.equal(await tab.getAttribute('.verdict', 'class'), 'verdict broken', where);
    assert.equal(await shown(tab, '[data-verdict=OVERSOLD]'), 3, where);
    assert.ok(!(await tab.textContent('.verdict')).includes('#–'), where);
  };
  await stays(page, 'this page');
  await stays(await openConsole(context, program, 'doctored'), 'a second tab');
  await page.reload();
  await page.waitForSelector('[data-fresh=live]');
  await stays(page, 'after a reload');
  await page.click('.verdict a');
  assert.ok(['conservation', 'timeline'].includes(await page.evaluate(() => document.activeElement.id)), 'the link leads somewhere');
  context.clean();
  await context.close();
});

test('after a restart of the server the page goes on by itself', async () => {
  await program.openSale('restart', 20);
  await crowd('restart', 4);
  const context = await strict(chrome, program);
  const page = await openConsole(context, program, 'restart');
  context.allow(/Failed to load resource|ERR_/);
  assert.equal(await program.stop(), 0, 'an open stream does not keep the server from ending');
  await page.waitForSelector('[data-fresh=disconnected]');
  assert.equal(await shown(page, '[data-units=held]'), 4, 'the last numbers stay');
  await program.again();
  await page.waitForSelector('[data-fresh=live]', { timeout: 15_000 });
  await crowd('restart', 3, 4);
  await until(async () => (await shown(page, '[data-units=held]')) === 7, 'it shows 7 held');
  context.clean();
  await context.close();
});
