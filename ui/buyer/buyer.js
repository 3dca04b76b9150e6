// Makes the buyer's page live: counts by the server's clock, keeps the key of the wish, asks what is left. Without it the
// page works as well, only without counting.

const started = performance.now();
let serverAtStart = Number.NaN;
const now = () => serverAtStart + (performance.now() - started);
const heard = (time) => {
  serverAtStart = Date.parse(time) - (performance.now() - started);
};
const say = (text) => {
  document.getElementById('said').textContent = text;
};
const DAY_MS = 86_400_000;
const two = (n) => String(n).padStart(2, '0');
const clock = (ms) => {
  const s = Math.max(0, Math.ceil(ms / 1000));
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
};

const local = (at, today) => {
  const day = at.toDateString() === today.toDateString() ? '' : `${at.toLocaleDateString('en', { weekday: 'short', day: 'numeric', month: 'short', year: 'numeric' })}, `;
  return `${day}${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
};
const localize = (page) => {
  for (const time of page.querySelectorAll('time[datetime]')) time.textContent = local(new Date(time.dateTime), new Date());
};
localize(document);

const sale = document.querySelector('[data-state]');
const order = document.querySelector('[data-order]');
if (sale) salePage(sale);
if (order) orderPage(order);

function salePage(when) {
  const { state, opens, sale: id } = when.dataset;
  heard(when.dataset.now);
  const form = document.querySelector('form[data-key]');
  const button = form.querySelector('button');
  const home = `/s/${encodeURIComponent(id)}`;
  // A page that answers a form is shown like any other from here on: to load it anew orders nothing.
  if (location.pathname !== home) history.replaceState(null, '', home);
  keepKey(form, id);
  form.addEventListener('submit', (event) => {
    // A second click while the first is on its way.
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = 'yes';
    button.textContent = 'Ordering …';
  });
  // Coming back to this page finds it ready again.
  addEventListener('pageshow', (event) => event.persisted && location.replace(home));
  if (state === 'scheduled') countDown(when, Date.parse(opens), form, button);
  else if (state !== 'ended') watch(home, form);
}

/** The same wish has the same key, also after a reload. */
function keepKey(form, id) {
  const input = form.querySelector('input[name=key]');
  try {
    const kept = sessionStorage.getItem(`sluice-key:${id}`);
    if (kept && !('another' in form.dataset)) input.value = kept;
    else sessionStorage.setItem(`sluice-key:${id}`, input.value);
  } catch {
    // Storage may be forbidden; then the key lives as long as the page.
  }
}

function countDown(when, opens, form, button) {
  const step = () => {
    const left = opens - now();
    if (left <= 0) {
      when.textContent = 'Open now';
      button.disabled = false;
      button.textContent = 'Buy';
      say('The sale is open.');
      watch(`/s/${encodeURIComponent(form.dataset.key)}`, form);
      return;
    }
    const far = left > DAY_MS;
    when.innerHTML = far ? `Opens on <b>${local(new Date(opens), new Date(0))}</b>` : `Opens in <b>${clock(left)}</b>`;
    setTimeout(step, Math.min(far ? 60_000 : 250, left));
  };
  step();
}

/** Asks now and then how it stands, everybody at a time of their own, and says it in place: what was filled in stays. */
function watch(home, form) {
  const look = async () => {
    const found = !document.hidden && !form.dataset.sent && (await fetch(home).then((response) => (response.ok ? response.text() : null)).catch(() => null));
    const fresh = found && new DOMParser().parseFromString(found, 'text/html');
    const when = fresh && fresh.querySelector('[data-state]');
    if (when && !form.dataset.sent) {
      heard(when.dataset.now);
      if (when.dataset.state === 'scheduled') return location.replace(home);
      localize(fresh);
      stands(fresh, when, form);
      if (when.dataset.state === 'ended') return;
    }
    setTimeout(look, 3000 + Math.random() * 3000);
  };
  setTimeout(look, 2000 + Math.random() * 3000);
}

function stands(fresh, when, form) {
  const shown = document.querySelector('[data-state]');
  const news = shown.textContent !== when.textContent;
  Object.assign(shown.dataset, when.dataset);
  shown.textContent = when.textContent;
  for (const status of fresh.querySelectorAll('[data-sku]')) {
    const old = form.querySelector(`[data-sku="${CSS.escape(status.dataset.sku)}"]`);
    if (!old) continue;
    old.textContent = status.textContent;
    old.closest('label').className = status.closest('label').className;
  }
  const [button, next] = [form.querySelector('button'), fresh.querySelector('form button')];
  [button.textContent, button.disabled] = [next.textContent, next.disabled];
  if (!news) return;
  say(when.textContent);
  // What was said of the last try is no longer so.
  document.querySelector('.notice')?.remove();
}

function orderPage(said) {
  const { order: state, expires, sale: id } = said.dataset;
  heard(said.dataset.now);
  if (state === 'accepted') setTimeout(() => location.reload(), 700);
  if (state === 'released' || state === 'refused') {
    try {
      sessionStorage.removeItem(`sluice-key:${id}`);
    } catch {
      // There was no key kept.
    }
  }
  if (state !== 'held') return;
  const left = document.createElement('b');
  said.append(' ', left);
  const step = () => {
    const ms = Date.parse(expires) - now();
    left.textContent = `(${clock(ms)})`;
    if (ms < -400) location.reload();
    else setTimeout(step, 250);
  };
  step();
}
