// What only a demo has: a crowd from a button, and chaos that the arithmetic survives.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Program, accessible, browser, openConsole, sensible, shown, strict, until } from './lib.mjs';

let program;
let chrome;
before(async () => {
  program = await Program.start(['serve', '--demo']);
  chrome = await browser();
});
after(async () => {
  await chrome.close();
  await program.end();
});

test('a crowd from the dialog, and its offered, sent and late', async () => {
  await program.openSale('crowd', 200, { per_customer_limit: 1 });
  const context = await strict(chrome, program);
  const page = await openConsole(context, program, 'crowd');
  await page.click('text=Run a crowd…');
  await page.fill('dialog input[name=customers]', '1000');
  await page.fill('dialog input[name=seconds]', '1');
  await accessible(page, 'the crowd dialog');
  // Longer than a tick takes to come: what was filled in stays.
  await page.waitForTimeout(1500);
  await page.click('dialog button:has-text("Send them")');
  await page.waitForSelector('.crowd .pill:has-text("done")', { timeout: 30_000 });
  const { crowd } = await program.ask('GET', '/v1/demo');
  const said = await page.textContent('.crowd');
  for (const name of ['offered', 'sent', 'late', 'accepted', 'refused']) {
    assert.ok(said.includes(`${name} ${crowd[name].toLocaleString('en-US')}`), `${name}: ${said} ${JSON.stringify(crowd)}`);
  }
  assert.ok(crowd.customers === 1000 && crowd.sent >= 1000, JSON.stringify(crowd));
  await until(async () => (await shown(page, '[data-units=held]')) === 200, 'all 200 are held');
  assert.equal(await shown(page, '[data-verdict=OVERSOLD]'), 0);
  await sensible(page);
  context.clean();
  await context.close();
});

test('under chaos the units add up in every frame', async () => {
  await program.openSale('chaos', 400);
  const context = await strict(chrome, program);
  const page = await openConsole(context, program, 'chaos');
  context.allow(/409/);
  await page.evaluate(() => {
    // Looks after every change of the page, not only when the test happens to ask.
    globalThis.sums = new Set();
    globalThis.frames = 0;
    const number = (selector) => Number(document.querySelector(selector)?.textContent.replaceAll(',', ''));
    new MutationObserver(() => {
      globalThis.frames += 1;
      const places = ['available', 'in_flight', 'held', 'sold'].map((place) => number(`[data-units=${place}]`));
      globalThis.sums.add(`${places.reduce((sum, n) => sum + n, 0)} ${number('[data-sum]')} ${document.querySelector('.verdict').className}`);
    }).observe(document.getElementById('app'), { subtree: true, characterData: true, childList: true });
  });
  await program.ask('POST', '/v1/demo/crowd', { sale: 'chaos', customers: 1500, rate_per_second: null, seconds: 3, retries: true, seed: 5 });
  for (const button of ['Kill the worker', 'Deliver twice', 'Freeze the gate 2 s']) {
    await page.click(`text=${button}`);
    await page.waitForTimeout(600);
  }
  await until(async () => (await program.ask('GET', '/v1/demo')).crowd.done, 'the crowd has gone', 40_000);
  await until(async () => (await shown(page, '[data-units=held]')) === 400, 'all 400 are held', 20_000);
  const [sums, frames] = await page.evaluate(() => [[...globalThis.sums], globalThis.frames]);
  assert.ok(frames > 10, `${frames} frames`);
  assert.deepEqual(sums, ['400 400 verdict exact']);
  const audit = await program.ask('GET', '/v1/sales/chaos/audit');
  assert.equal(audit.verdict, 'exact');
  context.clean();
  await context.close();
});

test('the way of one order can be looked at', async () => {
  await program.openSale('way', 3);
  const order = await (await program.order('way', 'ada')).json();
  await program.ask('POST', `/v1/orders/${order.id}/confirm`, {});
  const context = await strict(chrome, program);
  const page = await openConsole(context, program, 'way');
  await page.fill('#timeline input[name=order]', order.id);
  await page.keyboard.press('Enter');
  await page.waitForSelector('.steps li:nth-child(7)');
  const steps = await page.locator('.steps li > b:first-child').allTextContents();
  // The worker may be faster than the answer to the push, which may be heard before, between or after its two steps.
  assert.deepEqual(steps.filter((step) => step !== 'pushed'), ['asked', 'admitted', 'sealed', 'pulled', 'settled', 'confirmed']);
  assert.ok(steps.slice(3, 6).includes('pushed'), steps);
  await accessible(page, 'a timeline');
  await sensible(page);
  await page.locator('.log .seq button').first().click();
  await page.waitForSelector('.move');
  assert.match(await page.textContent('.move'), /what\s*open/);
  await accessible(page, 'a move');
  await page.fill('#timeline input[name=order]', '#3');
  await page.keyboard.press('Enter');
  await page.waitForSelector(`.move button:has-text("${order.id}")`);
  context.allow(/404/);
  await page.fill('#timeline input[name=order]', `ord_${'0'.repeat(32)}`);
  await page.keyboard.press('Enter');
  await page.waitForSelector('#timeline .fault');
  context.clean();
  await context.close();
});

test('a race, its seeds, and how a lane first went wrong', async () => {
  const context = await strict(chrome, program);
  const page = await context.newPage();
  await page.goto(`${program.url}/race#token=${program.token}`);
  await page.fill('input[name=seeds]', '3');
  await page.fill('input[name=units]', '30');
  await page.fill('input[name=customers]', '300');
  await page.waitForTimeout(3500);
  await page.click('button:has-text("Race")');
  await page.waitForSelector('.fresh:has-text("done")', { timeout: 90_000 });
  const board = await program.ask('GET', '/v1/demo/race');
  assert.equal(await page.locator('.lane').count(), board.lanes.length);
  assert.ok(board.lanes.length >= 6);
  for (const [i, lane] of board.lanes.entries()) {
    const said = await page.locator('.lane').nth(i).textContent();
    const numbers = await page.locator('.lane').nth(i).locator('.numbers dd').allTextContents();
    assert.ok(said.includes(lane.name), said);
    assert.deepEqual([lane.stock, lane.seeds.length], [30, 3], 'what was filled in stayed');
    assert.deepEqual(numbers.slice(0, 4), [lane.sold, lane.oversold, lane.lost, lane.phantom].map((n) => n.toLocaleString('en-US')), lane.name);
    if (lane.guarded) assert.deepEqual([lane.oversold, lane.lost, lane.phantom], [0, 0, 0], lane.name);
  }
  for (const name of ['OVERSOLD', 'LOST']) assert.equal(await page.locator(`.verdict div:has(> dt:text-is("${name}")) dd`).textContent(), '0');
  const how = page.locator('button:has-text("Show me how")');
  if ((await how.count()) > 0) {
    await how.first().click();
    while (await page.locator('.sequence button:has-text("Next")').isEnabled()) await page.locator('.sequence button:has-text("Next")').click();
    await accessible(page, 'the sequence');
  }
  for (const media of [{}, { colorScheme: 'dark' }, { forcedColors: 'active' }]) {
    await page.emulateMedia(media);
    await accessible(page, `the race, ${JSON.stringify(media)}`);
  }
  await page.emulateMedia({ forcedColors: 'none' });
  await page.setViewportSize({ width: 360, height: 740 });
  await sensible(page);
  assert.equal(await page.locator('.missing').count(), board.lanes.some((lane) => lane.id.startsWith('postgres')) ? 0 : 1);
  context.allow(/422/);
  await page.evaluate(() => document.querySelector('form.start').setAttribute('novalidate', ''));
  await page.fill('input[name=seeds]', '1000');
  await page.click('button:has-text("Race")');
  await page.waitForSelector('.fault');
  await page.waitForTimeout(3500);
  assert.equal(await page.locator('.fault').count(), 1, 'why it did not begin is not wiped away');
  context.clean();
  await context.close();
});
