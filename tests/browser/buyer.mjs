// The buyer's page: bought by keyboard, without JavaScript, by a double click; and what it says when nothing is left.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Program, accessible, browser, sensible, strict, until } from './lib.mjs';

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

const orders = async (sale) => (await program.ask('GET', `/v1/sales/${sale}/orders`)).orders;

test('a purchase by keyboard alone, and the unit given back', async () => {
  await program.openSale('keys', 5, { per_customer_limit: 2 });
  const context = await strict(chrome, program);
  const page = await context.newPage();
  await page.goto(`${program.url}/s/keys`);
  for (let i = 0; i < 6 && !(await page.evaluate(() => document.activeElement.name === 'customer')); i += 1) await page.keyboard.press('Tab');
  await page.keyboard.type('ada@example.org');
  await page.keyboard.press('Enter');
  await page.waitForURL('**/s/keys/orders/ord_*');
  await page.waitForSelector('text=Held for you until');
  const [order] = await orders('keys');
  assert.deepEqual([order.state, order.customer], ['held', 'ada@example.org']);
  await accessible(page, 'an order');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Give it back');
  await page.keyboard.press('Enter');
  await page.waitForSelector('text=You gave it back');
  assert.equal((await orders('keys'))[0].state, 'released');
  await sensible(page);
  context.clean();
  await context.close();
});

test('a purchase without JavaScript', async () => {
  await program.openSale('plain', 5);
  const context = await strict(chrome, program, { javaScriptEnabled: false, viewport: { width: 360, height: 740 } });
  const page = await context.newPage();
  await page.goto(`${program.url}/s/plain`);
  await page.fill('input[name=customer]', 'bob');
  await page.fill('input[name=quantity]', '2');
  await page.click('button:has-text("Buy")');
  await page.waitForURL('**/s/plain/orders/ord_*');
  assert.match(await page.textContent('main'), /Held for you until \d\d:\d\d:\d\d UTC/);
  const [order] = await orders('plain');
  assert.deepEqual([order.state, order.lines], ['held', [{ sku: 'ps5', quantity: 2 }]]);
  await page.click('text=Give it back');
  await page.waitForSelector('text=You gave it back');
  context.clean();
  await context.close();
});

test('a double click and a reload lead to the same order', async () => {
  await program.openSale('twice', 5);
  const context = await strict(chrome, program);
  const page = await context.newPage();
  await page.goto(`${program.url}/s/twice`);
  const key = await page.inputValue('input[name=key]');
  await page.reload();
  assert.equal(await page.inputValue('input[name=key]'), key, 'the key outlives a reload');
  await page.fill('input[name=customer]', 'carol');
  await page.dblclick('button');
  await page.waitForURL('**/s/twice/orders/ord_*');
  const first = page.url();
  await page.goto(`${program.url}/s/twice`);
  await page.fill('input[name=customer]', 'carol');
  await page.click('button');
  await page.waitForURL('**/s/twice/orders/ord_*');
  assert.equal(page.url(), first);
  assert.equal((await orders('twice')).length, 1);
  context.clean();
  await context.close();
});

test('units in other checkouts are not called sold out', async () => {
  await program.openSale('busy', 2);
  const held = [];
  for (const who of ['a', 'b']) held.push(await program.order('busy', who).then((response) => response.json()));
  const context = await strict(chrome, program);
  const page = await context.newPage();
  await page.goto(`${program.url}/s/busy`);
  assert.match(await page.textContent('.status'), /All units are in other people's checkouts; 2 could come back by \d\d:\d\d:\d\d/);
  context.allow(/409/);
  await page.fill('input[name=customer]', 'late');
  await page.click('button');
  await page.waitForSelector('[role=alert]');
  assert.equal(await page.inputValue('input[name=customer]'), 'late', 'what was filled in stays');
  await accessible(page, 'all units held');
  for (const order of held) await program.ask('POST', `/v1/orders/${order.id}/confirm`, {});
  await until(async () => /every unit is sold/.test(await (await program.raw('GET', '/s/busy')).text()), 'it says sold out');
  await sensible(page);
  context.clean();
  await context.close();
});

test('a sale that opens while one waits', async () => {
  const opens_at = new Date(Date.now() + 3_000).toISOString();
  await program.sale('soon', 3, { opens_at });
  const context = await strict(chrome, program);
  const page = await context.newPage();
  await page.goto(`${program.url}/s/soon`);
  assert.ok(await page.isDisabled('button'));
  assert.match(await page.textContent('.when'), /Opens in 0:0\d/);
  await page.fill('input[name=customer]', 'dan');
  await page.waitForSelector('button:enabled', { timeout: 8_000 });
  await page.click('button');
  await page.waitForURL('**/s/soon/orders/ord_*');
  context.clean();
  await context.close();
});

test('the page is small, readable for everybody, and takes no form of another origin', async () => {
  await program.openSale('small', 5);
  for (const options of [{ colorScheme: 'light' }, { colorScheme: 'dark' }, { viewport: { width: 360, height: 740 } }, { forcedColors: 'active' }]) {
    const context = await strict(chrome, program, options);
    const page = await context.newPage();
    const bodies = [];
    page.on('response', (response) => bodies.push(response.body().then((body) => body.length)));
    await page.goto(`${program.url}/s/small`, { waitUntil: 'load' });
    const bytes = (await Promise.all(bodies)).reduce((sum, length) => sum + length, 0);
    assert.ok(bodies.length >= 3 && bytes > 5_000 && bytes <= 15_000, `${bytes} bytes in ${bodies.length} files`);
    await accessible(page, JSON.stringify(options));
    await sensible(page);
    context.clean();
    await context.close();
  }
  const form = 'key=k&customer=eve&sku=ps5&quantity=1';
  const foreign = await fetch(`${program.url}/s/small/orders`, {
    method: 'POST', body: form, headers: { origin: 'http://evil.example', 'content-type': 'application/x-www-form-urlencoded' },
  });
  assert.equal(foreign.status, 403);
  assert.equal((await orders('small')).length, 0);
});
