// The one place that knows where the libraries lie: html`…` makes elements, signals make them follow.

import { h, render } from '../vendor/preact.js';
import htm from '../vendor/htm.js';

export { render };
export { useEffect, useLayoutEffect, useMemo, useRef, useState } from '../vendor/hooks.js';
export { batch, computed, effect, signal } from '../vendor/signals.js';
export const html = htm.bind(h);
