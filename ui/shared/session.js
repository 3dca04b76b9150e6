// The operator's token: taken out of the address at once, kept for this tab only, sent as a header and nowhere else.

const KEY = 'sluice-token';

/** Moves `#token=…` into this tab's storage and out of the address bar. Call it before anything else. */
export function takeToken() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const token = fragment.get('token');
  if (token) {
    remember(token);
    history.replaceState(null, '', location.pathname + location.search);
  }
}

export const token = () => sessionStorage.getItem(KEY);
export const remember = (value) => sessionStorage.setItem(KEY, value.trim());
export const forget = () => sessionStorage.removeItem(KEY);

/** Asks the API; a problem becomes an error with its status and its words. */
export async function ask(method, path, body, headers = {}) {
  const sent = { ...headers };
  if (token()) sent.authorization = `Bearer ${token()}`;
  if (body !== undefined) sent['content-type'] = 'application/json';
  const response = await fetch(path, { method, headers: sent, body: body === undefined ? undefined : JSON.stringify(body), cache: 'no-store' });
  const text = await response.text();
  const data = text ? safely(text) : null;
  if (!response.ok) throw Object.assign(new Error(words(data, response.status)), { status: response.status, problem: data });
  return data;
}

function safely(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function words(problem, status) {
  const errors = problem?.errors?.map(({ pointer, detail }) => `${pointer || 'the body'} ${detail}`).join('; ');
  return errors || problem?.detail || problem?.title || `The server answered ${status}.`;
}

/** A key for one wish: a retry of it is no second one. */
export function newKey() {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(random, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
