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
const two = (n) => String(n).padStart(2, '0');
const clock = (ms) => {
  const s = Math.max(0, Math.ceil(ms / 1000));
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
};

for (const time of document.querySelectorAll('time[datetime]')) {
  const at = new Date(time.dateTime);
  time.textContent = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

const sale = document.querySelector('[data-state]');
const order = document.querySelector('[data-order]');
if (sale) salePage(sale);
if (order) orderPage(order);

function salePage(when) {
  const { state, opens, sale: id } = when.dataset;
  heard(when.dataset.now);
  const form = document.querySelector('form[data-key]');
  const button = form.querySelector('button');
  keepKey(form, id);
  let pending = false;
  form.addEventListener('submit', (event) => {
    // A second click while the first is on its way.
    if (pending) event.preventDefault();
    pending = true;
    button.textContent = 'Ordering …';
  });
  // Coming back to this page finds it ready again.
  addEventListener('pageshow', (event) => event.persisted && location.reload());
  if (state === 'scheduled') countDown(when, Date.parse(opens), form, button);
  else if (state === 'open' || state === 'paused' || state === 'draft') watch(id, state);
}

/** The same wish has the same key, also after a reload. */
function keepKey(form, id) {
  const input = form.querySelector('input[name=key]');
  try {
    const kept = sessionStorage.getItem(`sluice-key:${id}`);
    if (kept) input.value = kept;
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
      watch(form.dataset.key, 'open');
      return;
    }
    when.innerHTML = `Opens in <b>${clock(left)}</b>`;
    setTimeout(step, Math.min(250, left));
  };
  step();
}

/** Asks now and then what is left; everybody at a time of their own. */
function watch(id, state) {
  const look = async () => {
    if (!document.hidden) {
      const found = await fetch(`/v1/sales/${encodeURIComponent(id)}`).then((response) => (response.ok ? response.json() : null)).catch(() => null);
      if (found) heard(found.server_time);
      const gone = (item) => {
        const status = document.querySelector(`[data-sku="${CSS.escape(item.sku)}"]`);
        const was = status?.closest('label').classList;
        return was && (item.status === 'available') === (was.contains('held') || was.contains('gone'));
      };
      const typing = document.activeElement?.matches('input');
      if (found && (found.state !== state || found.items.some(gone)) && !typing) return location.reload();
    }
    setTimeout(look, 3000 + Math.random() * 3000);
  };
  setTimeout(look, 2000 + Math.random() * 3000);
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
