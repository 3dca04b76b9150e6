// Draws the stock grid on a canvas: only cells that changed are painted, from stamps made once per size and theme.

import { CELLS_MAX, PLACES, cellsOf, layout } from '../shared/waffle.js';

/** Height below the frame, where oversold cells would stand. */
const OUTSIDE = 26;
const FLASH_MS = 380;

export class Grid {
  constructor(canvas) {
    this.canvas = canvas;
    this.painter = canvas.getContext('2d');
    this.codes = new Uint8Array(0);
    this.flashing = new Map();
    this.calm = matchMedia('(prefers-reduced-motion: reduce)');
    this.watch = new ResizeObserver(() => this.resized());
    this.watch.observe(canvas);
    this.themes = ['(prefers-color-scheme: dark)', '(forced-colors: active)'].map((query) => matchMedia(query));
    this.themed = () => this.resized();
    for (const theme of this.themes) theme.addEventListener('change', this.themed);
  }

  stop() {
    this.watch.disconnect();
    cancelAnimationFrame(this.frame);
    for (const theme of this.themes) theme.removeEventListener('change', this.themed);
  }

  resized() {
    this.shape = null;
    if (this.sums) this.show(this.sums, this.oversold);
  }

  /** Shows these units; `oversold` of them stand outside the frame. */
  show(sums, oversold = 0) {
    Object.assign(this, { sums, oversold });
    const { clientWidth, clientHeight } = this.canvas;
    if (!clientWidth || !clientHeight) return;
    const { per, all, cells } = cellsOf(sums);
    const whole = this.reshape(all, clientWidth, clientHeight);
    const codes = codesOf(all, cells);
    const now = performance.now();
    const flash = !whole && !this.calm.matches;
    for (let i = 0; i < all; i += 1) {
      if (whole || codes[i] !== this.codes[i]) {
        if (flash) this.flashing.set(i, now);
        else this.cell(i, codes[i]);
      }
    }
    this.codes = codes;
    this.outside(oversold, per);
    if (flash && this.flashing.size > 0) this.animate();
  }

  /** Everything is painted anew if the number of cells, the size or the theme changed. */
  reshape(all, width, height) {
    const ratio = Math.min(3, globalThis.devicePixelRatio || 1);
    const key = `${all} ${width} ${height} ${ratio}`;
    if (this.shape?.key === key) return false;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.painter.setTransform(ratio, 0, 0, ratio, 0, 0);
    const inner = layout(all, width - 10, height - OUTSIDE - 10);
    this.shape = { key, ratio, width, height, ...inner, left: inner.left + 5, top: inner.top + 5 };
    this.flashing.clear();
    this.colours = coloursOf(this.canvas);
    this.stamps = PLACES.map((place) => this.stamp(place));
    this.frameLine();
    return true;
  }

  frameLine() {
    const { painter, shape } = this;
    painter.clearRect(0, 0, shape.width, shape.height);
    painter.strokeStyle = this.colours.line;
    painter.lineWidth = 1;
    painter.strokeRect(0.5, 0.5, shape.width - 1, shape.height - OUTSIDE - 1);
  }

  at(i) {
    const { columns, cell_w, cell_h, gap, left, top } = this.shape;
    return [left + (i % columns) * (cell_w + gap), top + Math.floor(i / columns) * (cell_h + gap)];
  }

  cell(i, code) {
    const { cell_w, cell_h } = this.shape;
    const [x, y] = this.at(i);
    this.painter.clearRect(x, y, cell_w, cell_h);
    this.painter.drawImage(this.stamps[code], x, y, cell_w, cell_h);
  }

  /** A cell that changed lights up for a moment. */
  animate() {
    cancelAnimationFrame(this.frame);
    const step = (now) => {
      const { cell_w, cell_h } = this.shape;
      for (const [i, since] of this.flashing) {
        const light = 1 - (now - since) / FLASH_MS;
        if (i < this.codes.length) this.cell(i, this.codes[i]);
        if (light <= 0 || i >= this.codes.length) {
          this.flashing.delete(i);
          continue;
        }
        const [x, y] = this.at(i);
        this.painter.globalAlpha = Math.min(1, light) * 0.75;
        this.painter.fillStyle = this.colours.card;
        this.painter.fillRect(x, y, cell_w, cell_h);
        this.painter.globalAlpha = 1;
      }
      if (this.flashing.size > 0) this.frame = requestAnimationFrame(step);
    };
    this.frame = requestAnimationFrame(step);
  }

  /** Oversold units: crosses below the frame, which otherwise stays empty. */
  outside(oversold, per) {
    const { painter, shape, colours } = this;
    const top = shape.height - OUTSIDE + 4;
    painter.clearRect(0, top, shape.width, OUTSIDE - 4);
    const size = Math.max(9, Math.min(16, shape.cell_w));
    const room = Math.floor((shape.width - 80) / (size + 5));
    const crosses = Math.min(Math.ceil(oversold / per), room);
    for (let i = 0; i < crosses; i += 1) cross(painter, 4 + i * (size + 5), top + 3, size, colours.oversold);
    if (crosses > 0) {
      painter.fillStyle = colours.ink;
      painter.font = `600 13px ${getComputedStyle(this.canvas).fontFamily}`;
      painter.fillText(`${oversold} oversold`, 10 + crosses * (size + 5), top + 14);
    }
  }

  stamp(place) {
    const { cell_w: w, cell_h: h, ratio } = this.shape;
    const canvas = document.createElement('canvas');
    canvas.width = Math.max(1, Math.round(w * ratio));
    canvas.height = Math.max(1, Math.round(h * ratio));
    const p = canvas.getContext('2d');
    p.setTransform(canvas.width / w, 0, 0, canvas.height / h, 0, 0);
    stampers[place](p, w, h, this.colours, Math.min(w, h));
    return canvas;
  }
}

const stampers = {
  available(p, w, h, colours) {
    p.fillStyle = colours.available;
    p.fillRect(0, 0, w, h);
  },
  held(p, w, h, colours, small) {
    p.fillStyle = p.strokeStyle = colours.held;
    if (small < 6) return triangle(p, w, h);
    p.beginPath();
    p.rect(0, 0, w, h);
    p.clip();
    p.globalAlpha = 0.22;
    p.fillRect(0, 0, w, h);
    p.globalAlpha = 1;
    const step = Math.max(4, small / 3);
    p.lineWidth = step * 0.52;
    for (let d = -h; d < w + h; d += step) line(p, d, h, d + h, 0);
    p.lineWidth = 1.6;
    p.strokeRect(0.5, 0.5, w - 1, h - 1);
  },
  in_flight(p, w, h, colours, small) {
    p.strokeStyle = p.fillStyle = colours.flight;
    p.lineWidth = small < 6 ? 1 : 2;
    p.strokeRect(p.lineWidth / 2, p.lineWidth / 2, w - p.lineWidth, h - p.lineWidth);
    if (small >= 9) p.fillRect(w / 2 - 1.5, h / 2 - 1.5, 3, 3);
  },
  sold(p, w, h, colours, small) {
    p.fillStyle = colours.sold;
    p.fillRect(0, 0, w, h);
    if (small < 8) return;
    p.strokeStyle = colours.check;
    p.lineWidth = Math.max(1.3, small / 9);
    const s = small * 0.5;
    p.beginPath();
    p.moveTo(w / 2 - s * 0.5, h / 2 + s * 0.02);
    p.lineTo(w / 2 - s * 0.12, h / 2 + s * 0.4);
    p.lineTo(w / 2 + s * 0.55, h / 2 - s * 0.42);
    p.stroke();
  },
};

function triangle(p, w, h) {
  p.globalAlpha = 0.4;
  p.fillRect(0, 0, w, h);
  p.globalAlpha = 1;
  p.beginPath();
  p.moveTo(0, 0);
  p.lineTo(w, h);
  p.lineTo(0, h);
  p.fill();
}

function line(p, x0, y0, x1, y1) {
  p.beginPath();
  p.moveTo(x0, y0);
  p.lineTo(x1, y1);
  p.stroke();
}

function cross(p, x, y, size, colour) {
  p.strokeStyle = colour;
  p.lineWidth = 3;
  line(p, x, y, x + size, y + size);
  line(p, x + size, y, x, y + size);
}

function codesOf(all, cells) {
  const codes = new Uint8Array(Math.min(all, CELLS_MAX * 2));
  let at = 0;
  PLACES.forEach((place, code) => {
    codes.fill(code, at, at + cells[place]);
    at += cells[place];
  });
  return codes;
}

/** The page's colours as they are now, in this theme. */
export function coloursOf(element) {
  const style = getComputedStyle(element);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const forced = matchMedia('(forced-colors: active)').matches;
  return {
    ...Object.fromEntries(['available', 'held', 'sold', 'flight', 'refused', 'oversold', 'line', 'edge', 'ink', 'soft', 'card', 'sunk'].map((name) => [name, colour(name)])),
    check: forced ? 'Canvas' : '#fff',
  };
}
