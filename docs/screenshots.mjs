// Photographs the pages after a crowd of 10,000 took 1,000 units, some of which were paid for and some given back. docs/screenshots runs it.

import fs from 'node:fs';
import path from 'node:path';
import { Program, browser, openConsole, shown, strict, until } from '../tests/browser/lib.mjs';

const images = path.join(path.dirname(new URL(import.meta.url).pathname), 'images');
fs.mkdirSync(images, { recursive: true });

const program = await Program.start(['serve', '--demo']);
const chrome = await browser();

async function sale(id) {
  await program.ask('POST', '/v1/sales', {
    id, name: 'Console launch', hold_seconds: 600, per_customer_limit: 1,
    items: [{ sku: 'console', name: 'Console', price_cents: 49_900, currency: 'EUR', stock: 1_000 }],
  });
  await program.ask('POST', `/v1/sales/${id}/open`, {});
  return id;
}

async function crowd(id, seed) {
  await program.ask('POST', '/v1/demo/crowd', { sale: id, customers: 10_000, rate_per_second: null, seconds: 5, retries: true, seed });
}

/** The console when the crowd has gone; the whole page, or what one sees at first. */
async function console_(id, seed, name, options, fullPage) {
  const context = await strict(chrome, program, options);
  const page = await openConsole(context, program, await sale(id));
  await crowd(id, seed);
  await until(async () => (await program.ask('GET', '/v1/demo')).crowd?.done, 'the crowd has gone', 60_000);
  await turn(id, 380, 'confirm');
  await turn(id, 220, 'cancel');
  await until(async () => (await shown(page, '[data-units=available]')) === 220, 'those given back are available');
  const { orders: [order] } = await program.ask('GET', `/v1/sales/${id}/orders?state=sold&limit=1`);
  await page.fill('#timeline input[name=order]', order.id);
  await page.click('#timeline button');
  await page.waitForSelector('.steps');
  await page.evaluate(() => window.scrollTo(0, 0));
  // The curve is read again a second after the last unit went, in finer bins.
  await page.waitForTimeout(2500);
  if (fullPage) {
    await page.setViewportSize({ width: options.viewport?.width ?? 1440, height: await page.evaluate(() => document.documentElement.scrollHeight) });
    await page.waitForTimeout(500);
  }
  await page.screenshot({ path: path.join(images, `${name}.png`) });
  context.clean();
  await context.close();
}

async function turn(id, count, verb) {
  const { orders } = await program.ask('GET', `/v1/sales/${id}/orders?state=held&limit=${count}`);
  await Promise.all(orders.map((order) => program.ask('POST', `/v1/orders/${order.id}/${verb}`, {})));
}

async function picture(address, name, options = {}, act = async () => {}) {
  const context = await strict(chrome, program, options);
  const page = await context.newPage();
  await page.goto(`${program.url}${address}`);
  await act(page);
  await page.waitForTimeout(600);
  await page.screenshot({ path: path.join(images, `${name}.png`), fullPage: true });
  context.clean();
  await context.close();
}

await console_('demo-1', 1, 'console', {}, false);
await console_('demo-2', 2, 'console-dark', { colorScheme: 'dark' }, true);
await console_('demo-3', 3, 'console-360', { viewport: { width: 360, height: 1240 } }, false);
await picture('/s/demo-1', 'buyer', { viewport: { width: 560, height: 640 } });
await picture(`/report/demo-1#token=${program.token}`, 'report', { viewport: { width: 1080, height: 900 } }, (page) => page.waitForSelector('.verdict'));
await picture(`/race#token=${program.token}`, 'race', {}, async (page) => {
  await page.fill('input[name=seeds]', '10');
  await page.fill('input[name=customers]', '500');
  await page.click('button:has-text("Race")');
  await page.waitForSelector('.fresh:has-text("done")', { timeout: 180_000 });
  await page.locator('button:has-text("Show me how")').first().click();
  for (let i = 0; i < 3; i += 1) await page.locator('.sequence button:has-text("Next")').click();
});
await chrome.close();
await program.end();
console.log(`pictures in ${images}`);
process.exit(0);
