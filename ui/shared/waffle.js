// Where each unit is drawn: pure arithmetic of the stock grid, for the canvas of the console and the picture of the report.

/** Up to here a cell is a unit. */
export const CELLS_MAX = 2500;
/** The places of a unit in the sequence in which the grid is filled. */
export const PLACES = ['sold', 'held', 'in_flight', 'available'];

/** Units that one cell stands for: 1, 2, 5, 10, 20, 50 … */
export function unitsPerCell(stock) {
  for (let power = 1; ; power *= 10) {
    for (const step of [1, 2, 5]) {
      if (stock <= step * power * CELLS_MAX) return step * power;
    }
  }
}

/** How many cells each place gets; a place that has any unit has a cell. `sums` is what `sumsOf` gives. */
export function cellsOf(sums) {
  const per = unitsPerCell(sums.stock);
  const all = Math.ceil(sums.stock / per);
  const cells = { sold: 0, held: 0, in_flight: 0, available: 0 };
  let given = 0;
  for (const place of ['sold', 'held', 'in_flight']) {
    const wanted = sums[place] > 0 ? Math.max(1, Math.round(sums[place] / per)) : 0;
    cells[place] = Math.min(wanted, all - given);
    given += cells[place];
  }
  cells.available = all - given;
  // One unit left is seen as one cell left, and nothing left as none.
  const donor = ['sold', 'held', 'in_flight'].sort((a, b) => cells[b] - cells[a])[0];
  if (sums.available > 0 && cells.available === 0 && cells[donor] > 1) {
    cells[donor] -= 1;
    cells.available = 1;
  } else if (sums.available === 0 && cells.available > 0 && cells[donor] > 0) {
    cells[donor] += cells.available;
    cells.available = 0;
  }
  return { per, all, cells };
}

/** Columns, rows and sizes of `n` cells that fill this area; whole pixels, nearly square. */
export function layout(n, width, height) {
  if (n <= 0 || width <= 0 || height <= 0) return { columns: 0, rows: 0, cell_w: 0, cell_h: 0, gap: 0, left: 0, top: 0 };
  const ideal = Math.sqrt((n * width) / height);
  let best = null;
  for (let columns = Math.max(1, Math.floor(ideal * 0.8)); columns <= Math.ceil(ideal * 1.25); columns += 1) {
    const rows = Math.ceil(n / columns);
    const [step_w, step_h] = [width / columns, height / rows];
    const gap = Math.min(step_w, step_h) >= 12 ? 2 : 1;
    const [cell_w, cell_h] = [Math.floor(step_w) - gap, Math.floor(step_h) - gap];
    if (cell_w < 1 || cell_h < 1) continue;
    const square = Math.abs(Math.log(cell_w / cell_h));
    const filled = ((cell_w + gap) * columns * (cell_h + gap) * rows) / (width * height);
    const score = square * 1.2 + (1 - filled) * 3 + ((columns * rows - n) / n) * 2;
    if (!best || score < best.score) best = { score, columns, rows, cell_w, cell_h, gap };
  }
  best ??= { columns: Math.ceil(ideal), rows: Math.ceil(n / Math.ceil(ideal)), cell_w: 1, cell_h: 1, gap: 0 };
  const used = [best.columns * (best.cell_w + best.gap) - best.gap, best.rows * (best.cell_h + best.gap) - best.gap];
  return { ...best, left: Math.floor((width - used[0]) / 2), top: Math.floor((height - used[1]) / 2) };
}
