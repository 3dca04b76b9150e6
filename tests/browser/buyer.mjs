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
  assert.match(await page.textContent('.status'), /All units are in other people's checkouts; 2 could come back by [0-9:]{8}\./);
  const ends = (await orders('busy')).map((order) => order.expires_at).sort();
  assert.equal(await page.getAttribute('.status time', 'datetime'), ends[1], 'when the last hold ends');
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

test('after a refusal the page waits for a unit, and orders nothing by itself', async () => {
  await program.openSale('back', 1);
  const held = await (await program.order('back', 'first')).json();
  const context = await strict(chrome, program);
  const page = await context.newPage();
  const posts = [];
  context.on('request', (request) => request.method() === 'POST' && posts.push(request.url()));
  await page.goto(`${program.url}/s/back`);
  context.allow(/409/);
  await page.fill('input[name=customer]', 'second');
  await page.click('button');
  await page.waitForSelector('[role=alert]');
  assert.equal(posts.length, 1);
  assert.equal(new URL(page.url()).pathname, '/s/back', 'a reload is no second try');
  await program.ask('POST', `/v1/orders/${held.id}/cancel`, {});
  await page.waitForSelector('.status:has-text("1 of 1 left")', { timeout: 15_000 });
  assert.equal(await page.textContent('.when'), 'Open now');
  assert.equal(await page.inputValue('input[name=customer]'), 'second', 'what was filled in stays');
  assert.equal(await page.locator('[role=alert]').count(), 0);
  await page.reload();
  await page.waitForTimeout(500);
  assert.equal(posts.length, 1, 'nothing was sent again');
  assert.deepEqual((await orders('back')).map((order) => order.state), ['released'], 'no order was made');
  await page.fill('input[name=customer]', 'second');
  await page.click('button');
  await page.waitForSelector('text=Held for you until');
  await context.close();
});

test('a second wish is told of the first, and may be ordered as well', async () => {
  await program.openSale('both', 5, { per_customer_limit: 2 });
  const context = await strict(chrome, program);
  const page = await context.newPage();
  const wish = async (quantity) => {
    await page.goto(`${program.url}/s/both`);
    await page.fill('input[name=customer]', 'eve');
    await page.fill('input[name=quantity]', quantity);
    await page.click('button');
  };
  await wish('1');
  await page.waitForURL('**/s/both/orders/ord_*');
  const first = page.url();
  context.allow(/422/, /409/);
  await wish('2');
  const link = page.getByRole('link', { name: 'an order already' });
  assert.equal(new URL(await link.getAttribute('href'), program.url).href, first);
  await page.fill('input[name=quantity]', '1');
  await page.click('button');
  await page.waitForURL('**/s/both/orders/ord_*');
  assert.notEqual(page.url(), first);
  assert.equal((await orders('both')).length, 2);
  context.clean();
  await context.close();
});

test('what is not there is a page too, and what is over says so', async () => {
  const context = await strict(chrome, program);
  context.allow(/404/);
  const page = await context.newPage();
  await page.goto(`${program.url}/s/nosuch`);
  assert.match(await page.textContent('main'), /There is no such sale/);
  await accessible(page, 'no such sale');
  assert.match((await program.raw('GET', '/s/nosuch')).headers.get('content-type'), /problem\+json/);
  await program.openSale('over', 2);
  await program.order('over', 'one');
  await program.order('over', 'two');
  await program.ask('POST', '/v1/sales/over/close', {});
  await page.goto(`${program.url}/s/over`);
  assert.match(await page.textContent('.status'), /No longer on sale/);
  const opens_at = new Date(Date.now() + 3 * 86_400_000);
  await program.sale('later', 3, { opens_at: opens_at.toISOString(), hold_seconds: 150 });
  await page.goto(`${program.url}/s/later`);
  assert.match(await page.textContent('.when'), new RegExp(`Opens on .*${opens_at.getFullYear()}`));
  assert.match(await page.textContent('form'), /held for you for 2 minutes 30 seconds/);
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
