// The report: one file that says the verdict first, needs no server and no script, and is never empty. And the race's page.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { Program, accessible, browser, sensible, strict } from './lib.mjs';

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

async function report(context, sale) {
  const page = await context.newPage();
  await page.goto(`${program.url}/report/${sale}#token=${program.token}`);
  await page.waitForSelector('.verdict');
  return page;
}

async function saved(page, button) {
  const [download] = await Promise.all([page.waitForEvent('download'), page.click(button)]);
  return download.path();
}

/** The saved file, opened as a file, without a server and without scripts. */
async function opened(file, name) {
  const context = await chrome.newContext({ javaScriptEnabled: false });
  const asked = [];
  context.on('request', (request) => asked.push(request.url()));
  const page = await context.newPage();
  const at = path.join(program.folder, name);
  fs.copyFileSync(file, at);
  await page.goto(`file://${at}`);
  assert.deepEqual(asked, [`file://${at}`], 'it asks for nothing else');
  return [context, page];
}

test('the report of a sale is one file with the verdict first', async () => {
  await program.openSale('drop', 400, { name: 'Drop <1> & "2"' });
  for (let i = 0; i < 4; i += 1) {
    const few = Array.from({ length: 110 }, (_, n) => program.order('drop', `c-${i * 110 + n}`));
    await Promise.all(few);
  }
  for (const options of [{}, { colorScheme: 'dark' }, { forcedColors: 'active' }, { viewport: { width: 360, height: 740 } }]) {
    const context = await strict(chrome, program, options);
    const page = await report(context, 'drop');
    await accessible(page, JSON.stringify(options));
    await sensible(page);
    context.clean();
    await context.close();
  }
  const context = await strict(chrome, program, { acceptDownloads: true });
  const page = await report(context, 'drop');
  const file = await saved(page, '#save-html');
  assert.ok(fs.statSync(file).size < 500_000, `${fs.statSync(file).size} bytes`);
  const data = JSON.parse(fs.readFileSync(await saved(page, '#save-json'), 'utf8'));
  assert.deepEqual([data.audit.verdict, data.audit.oversold, data.snapshot.items[0].held], ['exact', 0, 400]);
  const [apart, alone] = await opened(file, 'drop.html');
  const text = await alone.evaluate(() => document.body.innerText);
  assert.match(text.trim(), /^OVERSOLD\s+0\s+UNDERSOLD\s+0\s+BROKEN PROMISES\s+0/);
  assert.ok(text.includes('Drop <1> & "2"') && text.includes('400 units') && text.includes('sluice audit drop'), text);
  await apart.close();
  context.clean();
  await context.close();
});

test('the report of a sale of which nothing was sold is not empty', async () => {
  await program.openSale('none', 7);
  await program.ask('POST', '/v1/sales/none/close', {});
  const context = await strict(chrome, program, { acceptDownloads: true });
  const page = await report(context, 'none');
  await sensible(page);
  const [apart, alone] = await opened(await saved(page, '#save-html'), 'none.html');
  const text = await alone.evaluate(() => document.body.innerText);
  assert.match(text.trim(), /^OVERSOLD\s+0/);
  assert.match(text, /7 units/);
  await apart.close();
  context.clean();
  await context.close();
});

test('the report that a demo writes on its own opens from its file', async () => {
  const file = path.join(program.folder, 'demo.html');
  execFileSync(process.env.SLUICE_BIN, ['demo', '--exit', '--units', '30', '--customers', '300', '--report', file], { env: { PATH: process.env.PATH, TMPDIR: program.folder }, stdio: 'pipe' });
  const context = await chrome.newContext({ viewport: { width: 360, height: 740 } });
  const [asked, faults] = [[], []];
  context.on('request', (request) => asked.push(request.url()));
  context.on('console', (message) => message.type() === 'error' && faults.push(message.text()));
  context.on('weberror', (error) => faults.push(error.error().stack));
  const page = await context.newPage();
  await page.goto(`file://${file}`);
  await page.waitForSelector('.verdict.exact');
  assert.match(await page.textContent('main'), /30 units/);
  await accessible(page, 'the report of a demo');
  await sensible(page);
  assert.deepEqual([asked, faults], [[`file://${file}`], []]);
  await context.close();
});

test('outside a demo the race says that it needs one', async () => {
  const context = await strict(chrome, program);
  context.allow(/404/);
  const page = await context.newPage();
  await page.goto(`${program.url}/race#token=${program.token}`);
  await page.waitForSelector('text=only in demo mode');
  await accessible(page, 'the race');
  await sensible(page);
  context.clean();
  await context.close();
});
