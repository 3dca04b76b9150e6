// Numbers, times and money as people read them; the same on every page.

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

/** 12345 -> "12,345"; nothing known -> "–". */
export const count = (n) => (Number.isFinite(n) ? whole.format(n) : '–');

/** A rate per second: "0", "0.4", "12", "5,310". */
export function rate(n) {
  if (!Number.isFinite(n)) return '–';
  return n > 0 && n < 10 ? n.toFixed(1) : whole.format(n);
}

/** How rare a part is: "1 in 25"; "–" for nothing. */
export function oneIn(part, all) {
  if (!(part > 0) || !(all > 0)) return '–';
  const n = all / part;
  return `1 in ${n < 10 ? (n < 9.95 ? n.toFixed(1) : '10') : whole.format(n)}`;
}

/** Microseconds with three digits at most: "80 µs", "1.25 ms", "2.1 s". */
export function micros(us) {
  if (!Number.isFinite(us)) return '–';
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 1e6) return `${digits(us / 1e3)} ms`;
  return `${digits(us / 1e6)} s`;
}

const digits = (n) => (n < 10 ? n.toFixed(2) : n < 100 ? n.toFixed(1) : Math.round(n).toString());

/** Milliseconds as an age: "0.1 s", "42 s", "3 min". */
export function age(ms) {
  if (!Number.isFinite(ms)) return '–';
  if (ms < 9950) return `${(Math.max(0, ms) / 1000).toFixed(1)} s`;
  if (ms < 120e3) return `${Math.round(ms / 1000)} s`;
  if (ms < 7200e3) return `${Math.round(ms / 60e3)} min`;
  return `${Math.round(ms / 3600e3)} h`;
}

/** Milliseconds as a clock that counts: "0:04", "12:10", "1:02:03". */
export function clock(ms) {
  const all = Math.max(0, Math.floor(ms / 1000));
  const [h, m, s] = [Math.floor(all / 3600), Math.floor(all / 60) % 60, all % 60];
  const two = (n) => String(n).padStart(2, '0');
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** A moment's time of day where the reader is: "12:10:31", or with milliseconds. */
export function timeOfDay(at, fraction = false) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return '–';
  const two = (n, width = 2) => String(n).padStart(width, '0');
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return fraction ? `${time}.${two(date.getMilliseconds(), 3)}` : time;
}

/** A moment with its day. */
export function dayAndTime(at) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return '–';
  const two = (n) => String(n).padStart(2, '0');
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${timeOfDay(at)}`;
}

/** Seconds from a moment on an axis that begins at 0: "T+0.35 s", "T−2 s". */
export function sinceStart(ms) {
  const sign = ms < 0 ? '−' : '+';
  const s = Math.abs(ms) / 1000;
  const text = s < 10 ? s.toFixed(s < 1 ? 2 : 1) : s < 120 ? s.toFixed(0) : `${Math.round(s / 60)} min`;
  return `T${sign}${text}${s < 120 ? ' s' : ''}`;
}

/** Cents with their currency: "€499.00". */
export function money(cents, currency) {
  if (!cents) return '';
  try {
    return new Intl.NumberFormat('en-US', { style: 'currency', currency }).format(cents / 100);
  } catch {
    return `${(cents / 100).toFixed(2)} ${currency}`;
  }
}

/** Bytes: "48.1 MB". */
export const bytes = (n) => (Number.isFinite(n) ? `${digits(n / 1e6)} MB` : '–');
