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
  await page.click('dialog button:has-text("Send them")');
  await page.waitForSelector('.crowd .pill:has-text("done")', { timeout: 30_000 });
  const { crowd } = await program.ask('GET', '/v1/demo');
  const said = await page.textContent('.crowd');
  for (const name of ['offered', 'sent', 'late', 'accepted', 'refused']) {
    assert.ok(said.includes(`${name} ${crowd[name].toLocaleString('en-US')}`), `${name}: ${said} ${JSON.stringify(crowd)}`);
  }
  assert.ok(crowd.sent >= 1000, JSON.stringify(crowd));
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
  await page.waitForSelector('.steps li:nth-child(3)');
  assert.deepEqual(await page.locator('.steps li > b:first-child').allTextContents(), ['accepted', 'settled', 'confirmed']);
  await accessible(page, 'a timeline');
  await sensible(page);
  context.allow(/404/);
  await page.fill('#timeline input[name=order]', `ord_${'0'.repeat(32)}`);
  await page.keyboard.press('Enter');
  await page.waitForSelector('#timeline .fault');
  context.clean();
  await context.close();
});
