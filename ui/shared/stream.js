// One live stream per browser and sale: the tab that holds a Web Lock reads it and passes everything on to the other tabs
// over a BroadcastChannel. Without that the seventh tab of an HTTP/1.1 origin would hang.

import { full, snapshotOf, sumsOf } from './sale-state.js';

/** Streams that one browser keeps open, over all sales; a browser opens six connections to an origin. */
const STREAMS_MAX = 3;
/** How often a tab asks that may not stream. */
const POLL_MS = 1000;
/** The server ticks at least once a second; after this silence the connection is given up. */
const SILENCE_MS = 5000;
/** After the last unit went, the curve is asked for again: its bins are finer than the ticks were. */
const REFINE_MS = 1200;
const RETRY_MS = [500, 1000, 2000, 4000];

/**
 * Follows a sale until `stop()`. Calls `on.snapshot(data)`, `on.tick(data)`, `on.log(data)` and
 * `on.state(word)`: connecting, live, polling, disconnected, unauthorized, gone.
 */
export function follow(sale, token, on) {
  const ended = new AbortController();
  const channel = 'BroadcastChannel' in globalThis ? new BroadcastChannel(`sluice-live:${sale}`) : null;
  const hub = new Hub(sale, token, on, channel, ended.signal);
  hub.run().catch((error) => {
    if (!ended.signal.aborted) console.warn('the live stream ended', error);
  });
  return {
    stop() {
      ended.abort();
      channel?.close();
    },
  };
}

class Hub {
  constructor(sale, token, on, channel, signal) {
    Object.assign(this, { sale, token, on, channel, signal, leads: false, latest: null, word: 'connecting', failures: 0 });
  }

  async run() {
    this.on.state('connecting');
    if (!navigator.locks || !this.channel) return this.poll();
    this.channel.onmessage = ({ data }) => this.heard(data);
    this.channel.postMessage({ kind: 'hello' });
    await navigator.locks.request(`sluice-live:${this.sale}`, { signal: this.signal }, () => this.lead());
  }

  /** What another tab says. */
  heard(message) {
    if (message.kind === 'hello') {
      if (this.leads && this.latest) this.channel.postMessage({ kind: 'snapshot', data: snapshotOf(this.latest), word: this.word });
    } else if (!this.leads) {
      if (message.word) this.told(message.word);
      this.happened(message.kind, message.data);
    }
  }

  async lead() {
    this.leads = true;
    for (let slot = 0; slot < STREAMS_MAX; slot += 1) {
      const streamed = await navigator.locks.request(`sluice-stream:${slot}`, { ifAvailable: true }, async (lock) => {
        if (!lock) return false;
        await this.keepStreaming();
        return true;
      });
      if (streamed) return;
    }
    await this.poll();
  }

  async keepStreaming() {
    while (!this.signal.aborted) {
      try {
        await this.read((kind, data) => {
          if (kind === 'bye') return data.reason !== 'sale_gone';
          this.tell('live');
          this.failures = 0;
          this.pass(kind, data);
          return true;
        });
      } catch (error) {
        if (this.signal.aborted || this.isFinal(error)) return;
      }
      this.tell('disconnected');
      await pause(RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)] * (0.75 + Math.random() / 2), this.signal);
      this.failures += 1;
    }
  }

  /** Asks for a snapshot again and again: the first event of a stream, which is then left. */
  async poll() {
    this.leads = true;
    while (!this.signal.aborted) {
      try {
        await this.read((kind, data) => {
          if (kind === 'snapshot') this.pass(kind, data);
          return false;
        });
        this.tell('polling');
      } catch (error) {
        if (this.signal.aborted || this.isFinal(error)) return;
        this.tell('disconnected');
      }
      await pause(POLL_MS, this.signal);
    }
  }

  async refine() {
    await pause(REFINE_MS, this.signal);
    const asked = (kind, data) => {
      if (kind === 'snapshot') this.pass(kind, data);
      return false;
    };
    if (!this.signal.aborted) await this.read(asked).catch(() => {});
  }

  isFinal(error) {
    const word = { 401: 'unauthorized', 403: 'unauthorized', 404: 'gone' }[error.status];
    if (word) this.tell(word);
    return Boolean(word);
  }

  /** Reads one stream to its end, or until `each` says that it is enough. */
  read(each) {
    return readStream(this.sale, this.token, each, this.signal);
  }

  pass(kind, data) {
    const before = this.latest && sumsOf(this.latest.now).available;
    this.latest = full(this.latest, kind, data);
    if (kind === 'tick' && before > 0 && sumsOf(data).available === 0) this.refine();
    this.channel?.postMessage({ kind, data, word: this.word });
    this.happened(kind, data);
  }

  happened(kind, data) {
    if (kind === 'snapshot' || kind === 'tick' || kind === 'log') this.on[kind](data);
  }

  /** Says how it goes, here and in the other tabs. */
  tell(word) {
    if (this.leads && word !== this.word) this.channel?.postMessage({ kind: 'state', word });
    this.told(word);
  }

  told(word) {
    if (word === this.word) return;
    this.word = word;
    this.on.state(word);
  }
}

/** The sale as it is now: what a stream begins with. */
export async function firstSnapshot(sale, token) {
  let found = null;
  await readStream(sale, token, (kind, data) => {
    if (kind === 'snapshot') found = data;
    return false;
  }, AbortSignal.timeout(20_000));
  if (!found) throw new Error('The server sent no snapshot.');
  return found;
}

async function readStream(sale, token, each, signal) {
  const left = new AbortController();
  const leave = () => left.abort();
  signal.addEventListener('abort', leave, { once: true });
  let silence = setTimeout(leave, SILENCE_MS);
  try {
    const headers = { accept: 'text/event-stream' };
    if (token) headers.authorization = `Bearer ${token}`;
    const response = await fetch(`/v1/sales/${encodeURIComponent(sale)}/live`, { headers, signal: left.signal, cache: 'no-store' });
    if (!response.ok) throw Object.assign(new Error(`The server answered ${response.status}.`), { status: response.status });
    const parser = new Parser(each);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      clearTimeout(silence);
      if (done || !parser.feed(value)) return;
      silence = setTimeout(leave, SILENCE_MS);
    }
  } finally {
    clearTimeout(silence);
    signal.removeEventListener('abort', leave);
    left.abort();
  }
}

/** Events out of text/event-stream, as the HTML standard has it; what nobody needs here (id, retry, comments) is passed over. */
class Parser {
  constructor(each) {
    Object.assign(this, { each, rest: '', kind: '', data: [] });
  }

  feed(text) {
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    return lines.every((line) => this.line(line));
  }

  line(line) {
    if (line === '') return this.dispatch();
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === 'event') this.kind = value;
    if (field === 'data') this.data.push(value);
    return true;
  }

  dispatch() {
    const { kind, data } = this;
    this.kind = '';
    this.data = [];
    return data.length === 0 || this.each(kind || 'message', JSON.parse(data.join('\n')));
  }
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done, { once: true });
  });
}
