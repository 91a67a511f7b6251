/* One map of all heads: a canvas of colors, one of marks above it, and where a head stands on them.
 *
 * A shape is { layers, heads, across, rows, columns, cw, ch }: with `across` layers run to the right and heads down,
 * else heads run to the right and layers up. A slot is a place in layer order: layer * heads + rank in the layer. */
const NARROW = 7; // px of a cell from which on it is no longer looked at closely

/* The shape for a width, in px, and a height for which there is room. Cells are whole px, so that lines are sharp. */
export const shapeOf = (layers, heads, width, room, zoom = 1) => {
  const across = layers > 2 * heads;
  const [rows, columns] = across ? [heads, layers] : [layers, heads];
  const cw = Math.max(2, Math.floor(Math.min(width / columns, 44)));
  const ch = Math.max(2, Math.min(Math.floor(room / rows), Math.max(cw, 18), 26));
  return { layers, heads, across, rows, columns, cw: cw * zoom, ch: ch * zoom, fit: Math.min(cw, ch) >= NARROW };
};

export const cellOf = ({ layers, heads, across, cw, ch }, slot) => {
  const [layer, rank] = [Math.floor(slot / heads), slot % heads];
  return across ? [layer * cw, rank * ch] : [rank * cw, (layers - 1 - layer) * ch];
};

/* The slot under a place, in px from the top left of a map; the nearest one where it lies outside. */
export const slotAt = ({ layers, heads, across, rows, columns, cw, ch }, x, y) => {
  const column = Math.min(columns - 1, Math.max(0, Math.floor(x / cw)));
  const row = Math.min(rows - 1, Math.max(0, Math.floor(y / ch)));
  return across ? column * heads + row : (layers - 1 - row) * heads + column;
};

const sized = (canvas, { columns, rows, cw, ch }) => {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [columns * cw, rows * ch];
  [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  return pen;
};

export const paintColors = (canvas, shape, colors, headAt) => {
  const pen = sized(canvas, shape);
  const { cw, ch } = shape;
  const gap = Math.min(cw, ch) >= NARROW ? 1 : 0;
  for (let slot = 0; slot < headAt.length; slot++) {
    const [x, y] = cellOf(shape, slot);
    pen.fillStyle = `#${colors.slice(6 * headAt[slot], 6 * headAt[slot] + 6)}`;
    pen.fillRect(x, y, cw - gap, ch - gap);
  }
};

/* How long the bar of a gain is, in whole px, so that few are drawn anew in a frame in which all gains move. */
const barOf = (gain, cw) => Math.max(2, Math.round(((cw - 5) * Math.min(gain, 1.5)) / 1.5));

/* The look of a state, in the middle of a cell: critical is outlined, pruned crossed out; what a hand set is a disc,
 * crossed if it goes and empty if it stays; a head that is scaled has a bar as long as its gain; a ring is
 * around what is looked for. */
export const drawState = (pen, [x, y, cw, ch], state, colors, gain = 1, picked = false) => {
  const [right, down] = [x + cw - 1, y + ch - 1];
  const [cx, cy] = [(x + right) / 2, (y + down) / 2];
  const small = Math.min(cw, ch) < NARROW + 3;
  const r = small ? Math.min(cw, ch) / 2 - 1 : Math.min(6, Math.min(cw, ch) * 0.28);
  const hand = state & (FORCED | LOCKED);
  if (state & CRITICAL) {
    pen.strokeStyle = colors.ink;
    pen.lineWidth = small ? 0.75 : 1;
    const inset = small ? 0.5 : 1.5;
    pen.strokeRect(x + inset, y + inset, cw - 1 - 2 * inset, ch - 1 - 2 * inset);
  }
  const cross = (reach, color, width) => {
    pen.strokeStyle = color;
    pen.lineWidth = width;
    pen.lineCap = "round";
    pen.beginPath();
    pen.moveTo(cx - reach, cy - reach);
    pen.lineTo(cx + reach, cy + reach);
    pen.moveTo(cx + reach, cy - reach);
    pen.lineTo(cx - reach, cy + reach);
    pen.stroke();
  };
  if (hand) {
    pen.beginPath();
    pen.arc(cx, cy, r + 1, 0, 7);
    pen.fillStyle = colors.halo;
    pen.fill();
    pen.strokeStyle = colors.ink;
    pen.lineWidth = small ? 1 : 1.6;
    pen.stroke();
    if (state & PRUNED) cross(r * 0.55, colors.ink, small ? 1 : 1.6);
  } else if (state & PRUNED) {
    if (!small) cross(r, colors.halo, 4.2);
    cross(r, colors.ink, small ? 1.3 : 2.2);
  }
  if (picked) {
    pen.beginPath();
    pen.ellipse(cx, cy, cw / 2 - 2, ch / 2 - 1.5, 0, 0, 7);
    pen.strokeStyle = colors.ring;
    pen.lineWidth = 2.5;
    pen.stroke();
  }
  if (gain !== 1 && !(state & PRUNED)) {
    const width = barOf(gain, cw);
    pen.fillStyle = colors.ink;
    pen.fillRect(x + 1, down - 6, cw - 3, 5);
    pen.fillStyle = colors.halo;
    pen.fillRect(x + 2, down - 5, cw - 5, 3);
    pen.fillStyle = colors.ink;
    pen.fillRect(x + 2, down - 5, width, 3);
  }
};

/* Marks that are drawn again where a state has changed alone: `draw` costs as much as there are changes. Every state is
 * drawn once, and copied from then on. */
export const marksOn = (canvas, shape, headAt, { colors, picked }) => {
  const pen = sized(canvas, shape);
  const { cw, ch } = shape;
  const ratio = window.devicePixelRatio || 1;
  const sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [Math.ceil(16 * cw * ratio), Math.ceil(ch * ratio)];
  const ink = sheet.getContext("2d");
  ink.setTransform(ratio, 0, 0, ratio, 0, 0);
  for (let state = 1; state < 16; state++) drawState(ink, [state * cw, 0, cw, ch], state, colors);
  const shown = new Int16Array(headAt.length).fill(-1);
  const bars = new Float32Array(headAt.length);
  return (marks, gates) => {
    for (let slot = 0; slot < headAt.length; slot++) {
      const head = headAt[slot];
      const state = marks[head];
      const gate = state & PRUNED ? 1 : gates[head];
      const bar = gate === 1 ? 0 : barOf(gate, cw);
      if (shown[slot] === state && bars[slot] === bar) continue;
      const [x, y] = cellOf(shape, slot);
      if (shown[slot] >= 0) pen.clearRect(x, y, cw, ch);
      [shown[slot], bars[slot]] = [state, bar];
      if (bar || picked.includes(head)) drawState(pen, [x, y, cw, ch], state, colors, gate, picked.includes(head));
      else if (state) pen.drawImage(sheet, state * cw * ratio, 0, cw * ratio, ch * ratio, x, y, cw, ch);
    }
  };
};

/* Where labels of n lines stand, so that they have room; the last of few is always there. */
export const stepsOf = (n, px, room) => {
  const step = [1, 2, 4, 5, 8, 10, 16, 20, 32].find((s) => s * px >= room) ?? n;
  return Array.from({ length: Math.ceil(n / step) }, (_, i) => i * step);
};
