// Photographs the pages while a crowd of 20,000 takes 1,000 units. docs/screenshots runs it.

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
  await program.ask('POST', '/v1/demo/crowd', { sale: id, customers: 20_000, rate_per_second: null, seconds: 4, retries: true, seed });
}

/** The console while the units go, and when they are gone. */
async function console_(id, seed, name, options, fullPage) {
  const context = await strict(chrome, program, options);
  const page = await openConsole(context, program, await sale(id));
  await crowd(id, seed);
  await until(async () => (await shown(page, '[data-units=available]')) < 560, 'half of the units are gone', 30_000);
  await confirmSome(id, 240);
  if (!fullPage) await page.screenshot({ path: path.join(images, `${name}.png`) });
  await until(async () => (await program.ask('GET', '/v1/demo')).crowd?.done, 'the crowd has gone', 60_000);
  await page.waitForTimeout(2500);
  if (fullPage) {
    await page.setViewportSize({ width: options.viewport?.width ?? 1440, height: await page.evaluate(() => document.documentElement.scrollHeight) });
    await page.waitForTimeout(500);
    await page.screenshot({ path: path.join(images, `${name}.png`) });
  }
  context.clean();
  await context.close();
}

async function confirmSome(id, count) {
  const { orders } = await program.ask('GET', `/v1/sales/${id}/orders?state=held&limit=${count}`);
  await Promise.all(orders.map((order) => program.ask('POST', `/v1/orders/${order.id}/confirm`, {})));
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
await console_('demo-3', 3, 'console-360', { viewport: { width: 360, height: 780 } }, true);
await picture('/s/demo-1', 'buyer', { viewport: { width: 560, height: 640 } });
await picture(`/report/demo-1#token=${program.token}`, 'report', { viewport: { width: 1080, height: 900 } }, (page) => page.waitForSelector('.verdict'));
await chrome.close();
await program.end();
console.log(`pictures in ${images}`);
process.exit(0);
