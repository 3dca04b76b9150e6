// The report's page: reads the sale, shows its report, and saves it as one file or as JSON.

import { firstSnapshot } from '../shared/stream.js';
import { ask, takeToken, token } from '../shared/session.js';
import { report } from './report.js';
import { text } from './pictures.js';

const place = document.getElementById('report');
const sale = decodeURIComponent(location.pathname.split('/').pop());

async function main() {
  takeToken();
  document.getElementById('back').href = `/?sale=${encodeURIComponent(sale)}`;
  if (!token()) {
    place.innerHTML = '<main><h1>The report needs the admin token</h1><p>Open the console with the link that the server printed, then come back.</p></main>';
    return;
  }
  const [snapshot, audit] = await Promise.all([firstSnapshot(sale, token()), ask('GET', `/v1/sales/${encodeURIComponent(sale)}/audit`)]);
  const data = { made_at: snapshot.server_time, by: 'the console', snapshot, audit };
  place.innerHTML = report(data);
  // The verdict stays the first thing on the page.
  place.querySelector('.verdict').after(document.getElementById('actions'));
  document.title = `${snapshot.name} · report`;
  button('save-html', async () => save(`${sale}.html`, 'text/html', await file(data)));
  button('save-json', () => save(`${sale}.json`, 'application/json', JSON.stringify(data, null, 1)));
}

/** The report as one file that needs nothing else, not even a script. */
async function file(data) {
  const read = (path) => fetch(path).then((response) => response.text());
  const [shell, base, own] = await Promise.all(['/ui/report/shell.html', '/ui/shared/base.css', '/ui/report/report.css'].map(read));
  const values = {
    title: `${text(data.snapshot.name)} · report`,
    style: base + own,
    body: report(data),
    // Within a script element only this sequence could end it.
    data: JSON.stringify(data).replaceAll('<', '\\u003c'),
    script: '',
  };
  return shell.replace(/\{\{(\w+)\}\}/g, (_, name) => values[name]);
}

function button(id, act) {
  const found = document.getElementById(id);
  found.disabled = false;
  found.addEventListener('click', act);
}

function save(name, type, content) {
  const address = URL.createObjectURL(new Blob([content], { type }));
  const link = Object.assign(document.createElement('a'), { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

main().catch((error) => {
  place.innerHTML = `<main><h1>There is no report</h1><p>${text(error.status === 404 ? 'There is no such sale.' : error.message)}</p></main>`;
});
