/* What the instrument shows: sizes, one frame, rings and what is said of a head.
 *
 * What is shown, `local`, is ahead of the page: acts wait in a queue until the page says that it has acted on them, and
 * only then does its word on sliders and heads count again. `known` is what the page is told of that; while a hand is at
 * work the two are not the same. */
const effects = new Map(); // what single heads do, by name
const NAMING = 100; // ms without a change
const waiting = new Set(); // instruments that look for theirs

const readEffects = (bytes) => {
  const start = bytes.byteOffset;
  const length = new DataView(bytes.buffer, start).getUint32(0, true);
  const found = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  found.steps = new Int16Array(bytes.slice(8 + length).buffer);
  effects.clear(); // one model at a time: they are large
  effects.set(found.name, found);
  for (const view of waiting) view.later();
};

const reach = (data) => data.layers * data.heads;

class View {
  constructor(root) {
    this.queue = [];
    this.held = [];
    this.latest = 0;
    this.tries = 0;
    this.local = this.known = null;
    this.cursor = 0;
    this.anchor = null;
    this.range = null;
    this.pointed = null;
    this.zoom = 1;
    this.cells = [];
    this.unnamed = new Set();
    this.top = makeTop();
    this.maps = [];
    this.row = make("div", { className: "maps" });
    this.signs = make("div", { className: "signs" });
    this.tip = make("div", { className: "tip", hidden: true });
    this.said = make("div", { className: "said", role: "status" });
    this.zooms = make("span", { className: "zoom", hidden: true });
    for (const by of [1, 2, 3]) {
      const button = make("button", { type: "button", data: { zoom: by } }, `${by}×`);
      button.onclick = () => { this.zoom = by; this.lay(); };
      this.zooms.append(button);
    }
    this.legend = make("div", { className: "legend" }, this.signs, this.zooms);
    this.grid = make("div", { className: "cells", role: "grid" });
    this.grid.setAttribute("aria-multiselectable", "true");
    this.part = make("div", { className: "instrument" }, this.top.part, this.row, this.legend, this.tip, this.said);
    root.append(this.part);
    this.watching = new ResizeObserver(this.resized);
  }

  resized = () => {
    if (this.width !== this.row.clientWidth || this.height !== window.innerHeight) this.lay();
  };

  /* Off the page; news bring it back. */
  leave() {
    this.watching.disconnect();
    window.removeEventListener("resize", this.resized);
    window.removeEventListener("keydown", this.steps, true);
    waiting.delete(this);
  }

  /* News from the page. */
  hear(data, send) {
    this.send = send;
    this.watching.observe(this.row);
    window.addEventListener("resize", this.resized); // the same listener again is none
    waiting.add(this);
    const other = !this.data || this.data.layers !== data.layers || this.data.heads !== data.heads;
    if (other) {
      clearTimeout(this.resting);
      [this.queue, this.held, this.cursor, this.anchor, this.range] = [[], [], 0, null, null];
      [this.local, this.known, this.pressed, this.dragging] = [null, null, null, false];
    }
    this.data = data;
    this.queue = this.queue.filter((act) => act.n > data.done);
    if (!this.queue.length && this.local === this.known) {
      const { gamma, alpha, prune, keep, gains } = data;
      const strength = data.strength?.value ?? 1;
      this.local = this.known = { gamma, alpha, strength, prune: new Set(prune), keep: new Set(keep), gains };
    }
    this.headAt = data.order ?? Array.from({ length: reach(data) }, (_, i) => i);
    this.slotOf = new Array(reach(data));
    this.headAt.forEach((head, slot) => (this.slotOf[head] = slot));
    for (const [name, [end, step, used]] of Object.entries(data.sliders)) {
      const { input, part } = this.top[name];
      Object.assign(input, { min: 0, max: end, step, disabled: !used });
      part.hidden = (name === "strength") !== (data.strength !== null);
    }
    const look = JSON.stringify(["maps", "order", "colors", "picked", "layers", "heads", "method"].map((name) => data[name]));
    if (look !== this.look) {
      this.look = look;
      this.part.style.colorScheme = data.colors.dark ? "dark" : "light";
      for (const [name, value] of Object.entries(data.colors))
        if (typeof value === "string") this.part.style.setProperty(`--${name}`, value);
      this.lay();
    }
    this.frame();
    if (!this.stepping()) for (const one of this.held.splice(0)) one();
  }

  /* Whether the page is still going back or forth, to a set that is not known here. */
  stepping() {
    return this.queue.some((act) => "step" in act);
  }

  /* Sizes, colors and cells, anew. */
  lay() {
    const { data } = this;
    if (!data || !this.row.clientWidth) return;
    [this.width, this.height] = [this.row.clientWidth, window.innerHeight];
    if (this.maps.length !== data.maps.length) {
      this.maps = data.maps.map((_, i) => makeMap(i));
      this.row.replaceChildren(...this.maps.map((one) => one.part));
      this.maps[0]?.board.append(this.grid);
      this.maps.forEach((one) => this.listen(one));
    }
    const across = data.layers > 2 * data.heads;
    const beside = across || this.width < 620 ? 1 : data.maps.length;
    this.row.dataset.across = across;
    this.row.style.setProperty("--beside", beside);
    const width = (this.width - 18 * (beside - 1)) / beside - 34;
    const room = across ? Math.max(130, window.innerHeight * 0.185) : Math.max(260, window.innerHeight * 0.46);
    const fit = shapeOf(data.layers, data.heads, width, room).fit;
    if (fit) this.zoom = 1;
    this.shape = shapeOf(data.layers, data.heads, width, room, this.zoom);
    this.maps.forEach((one, i) => {
      fillCaption(one, data.maps[i], data.colors.scale);
      fillAxes(one, this.shape, data.order !== null);
      paintColors(one.colors, this.shape, data.maps[i].colors, this.headAt);
      one.paint = marksOn(one.marks, this.shape, this.headAt, data);
      one.strip.hidden = fit;
      one.view.dataset.zoomed = !fit;
    });
    this.signs.replaceChildren(...makeLegend(data, this.scaled));
    this.zooms.hidden = fit;
    for (const button of this.zooms.children) button.setAttribute("aria-pressed", Number(button.dataset.zoom) === this.zoom);
    this.fillCells();
    this.marks = null;
    this.frame();
  }

  fillCells() {
    const { rows, columns, across, layers, cw, ch } = this.shape;
    const { heads } = this.data;
    this.cells = new Array(reach(this.data));
    this.grid.setAttribute("aria-label", `Every attention head: ${layers} layers of ${heads} heads`);
    const lines = [];
    for (let row = 0; row < rows; row++) {
      const line = make("div", { role: "row" });
      for (let column = 0; column < columns; column++) {
        const slot = across ? column * heads + row : (layers - 1 - row) * heads + column;
        const head = this.headAt[slot];
        const cell = make("div", { role: "gridcell", tabIndex: -1, data: { head: nameOf(head, heads) } });
        cell.head = head;
        this.cells[head] = cell;
        line.append(cell);
      }
      lines.push(line);
    }
    this.grid.style.setProperty("--cw", `${cw}px`);
    this.grid.style.setProperty("--ch", `${ch}px`);
    const focused = this.grid.matches(":focus-within");
    this.grid.replaceChildren(...lines);
    this.cells[this.cursor].tabIndex = 0;
    if (focused) this.cells[this.cursor].focus({ preventScroll: true });
  }

  later() {
    if (this.asked) return;
    this.asked = requestAnimationFrame(() => this.frame());
  }

  /* Gates as they were learned, at the strength of the moment; null where the method is another. */
  learned() {
    const { strength } = this.data;
    return strength && gatesAt(strength.gates, this.local.strength);
  }

  choose(byHand, learned) {
    const { rule } = this.data;
    const { gamma, alpha } = this.local;
    const closed = learned && { ...rule, found: [...learned.keys()].filter((head) => learned[head] === 0) };
    return choose(closed ?? rule, gamma, alpha, byHand);
  }

  marksOf = (byHand) => this.choose(byHand, this.learned()).marks;

  /* One frame: what the sliders and what is set by hand come to, on every map, and in the numbers. */
  frame() {
    if (this.asked) cancelAnimationFrame(this.asked);
    this.asked = 0;
    const { data, local } = this;
    if (!data || !local || !this.maps[0]?.paint) return;
    const learned = this.learned();
    const { marks, count } = this.choose(local, learned);
    const gates = gatesOf(marks, learned, local);
    for (const one of this.maps) one.paint(marks, gates);
    const before = this.marks;
    let [critical, scaled] = [0, 0];
    for (let head = 0; head < marks.length; head++) {
      if (marks[head] & CRITICAL) critical++;
      if (gates[head] && gates[head] !== 1) scaled++;
      const moved = !before || before[head] !== marks[head];
      if (!moved && this.gates[head] === gates[head]) continue;
      this.unnamed.add(head);
      if (moved || !learned) this.cells[head].dataset.state = stateOf(marks[head], data, gates[head]); // else at rest
    }
    if (scaled > 0 !== this.scaled) this.signs.replaceChildren(...makeLegend(data, scaled > 0));
    clearTimeout(this.naming);
    if (before) this.naming = setTimeout(() => this.name(), NAMING);
    [this.marks, this.gates, this.scaled] = [marks, gates, scaled > 0];
    if (!before) this.name();
    for (const [name, digits] of [["gamma", 2], ["alpha", 3], ["strength", 2]]) {
      const { input, value } = this.top[name];
      if (Number(input.value) !== local[name]) input.value = local[name];
      value.textContent = local[name].toFixed(digits);
    }
    this.top.gamma.count.textContent = `${critical} critical`;
    this.top.alpha.count.textContent = `${count} of ${reach(data)} pruned`;
    this.top.strength.count.textContent = `${scaled} of ${reach(data)} scaled, ${count} pruned`;
    this.guess(learned);
    this.strips();
    this.ring();
  }

  /* What the set is estimated to do. Of learned gains that were measured at some strengths: straight lines between
   * these, and beyond them the heads that a hand has set otherwise. */
  guess(learned) {
    const { base, effects: name, off, learnt, strength, taught } = this.data;
    const line = strength?.at.length ? strength : null;
    const closed = this.gates.map((gate, head) => (line ? learned[head] : 1) - gate);
    const start = line && [line.nats, line.gap].map((values) => between(line.at, values, this.local.strength));
    this.found = effects.has(name) ? estimate(effects.get(name), closed, taught, start ?? undefined) : null;
    if (this.found && line) this.found.task = undefined; // not measured at strengths
    const known = line ? { off: closed.some(Boolean) ? off : line.off, learnt: line.learnt } : { off, learnt };
    fillNumbers(this.top, this.found, base, known);
  }

  /* Names of heads whose state has changed, for screen readers: once they rest, for they are long. */
  name() {
    for (const head of this.unnamed) {
      this.cells[head].dataset.state = stateOf(this.marks[head], this.data, this.gates[head]);
      this.cells[head].setAttribute("aria-selected", Boolean(this.marks[head] & PRUNED));
      this.cells[head].setAttribute("aria-label", this.words(head, this.marks));
    }
    this.unnamed.clear();
  }

  words(head, marks) {
    const { texts, heads, sure } = this.data;
    const often = !this.queue.length && sure?.[head] != null ? `; in the set in ${sure[head]}% of resamples` : "";
    const state = stateOf(marks[head], this.data, this.gates[head]);
    return `${nameOf(head, heads)}, ${state}; ${texts[head].replaceAll("\n", "; ")}${often}`;
  }

  strips() {
    const { layers, heads } = this.data;
    for (const one of this.maps) {
      if (one.strip.hidden) continue;
      const width = one.view.clientWidth;
      [one.strip.width, one.strip.height] = [width, 16];
      const pen = one.strip.getContext("2d");
      const part = width / layers;
      for (let layer = 0; layer < layers; layer++) {
        let gone = 0;
        for (let rank = 0; rank < heads; rank++) gone += this.marks[this.headAt[layer * heads + rank]] & PRUNED;
        pen.fillStyle = this.data.colors.line;
        pen.fillRect(layer * part, 0, part - 1, 16);
        pen.fillStyle = this.data.colors.scale[4];
        pen.fillRect(layer * part, 16 - (16 * gone) / heads, part - 1, (16 * gone) / heads);
      }
    }
  }

  /* Rings around the head that is pointed at or has the focus, on every map, and what is said of it. */
  ring() {
    const focused = this.cells[this.cursor].matches(":focus-visible"); // not after a click: the pointer shows where
    const head = this.pointed ?? (focused ? this.cursor : null);
    const { cw, ch } = this.shape;
    for (const one of this.maps) {
      one.ring.hidden = head === null;
      one.box.hidden = !this.range;
      if (head !== null) {
        const [x, y] = cellOf(this.shape, this.slotOf[head]);
        one.ring.style.cssText = `transform:translate(${x - 2}px,${y - 2}px);width:${cw + 3}px;height:${ch + 3}px`;
        one.ring.classList.toggle("focus", focused && this.pointed === null);
      }
      if (this.range) {
        const ends = this.range.map((h) => cellOf(this.shape, this.slotOf[h]));
        const [x, y] = [0, 1].map((k) => Math.min(ends[0][k], ends[1][k]));
        const [w, h] = [0, 1].map((k) => Math.abs(ends[0][k] - ends[1][k]) + [cw, ch][k]);
        one.box.style.cssText = `transform:translate(${x}px,${y}px);width:${w}px;height:${h}px`;
      }
    }
    this.tip.hidden = head === null || this.dragging;
    if (this.tip.hidden) return;
    const over = this.maps[this.over ?? 0];
    const [x, y] = cellOf(this.shape, this.slotOf[head]);
    const board = over.board.getBoundingClientRect();
    const whole = this.part.getBoundingClientRect();
    const { texts, heads, sure } = this.data;
    const state = stateOf(this.marks[head], this.data, this.gates[head]);
    const lines = [make("b", {}, nameOf(head, heads)), make("div", {}, state)];
    lines.push(...texts[head].split("\n").map((text) => make("div", {}, text)));
    if (!this.queue.length && sure?.[head] != null)
      lines.push(make("div", {}, `in the chosen set in ${sure[head]}% of resamples`));
    this.tip.replaceChildren(...lines);
    const middle = board.left - whole.left + x + cw / 2 - this.tip.offsetWidth / 2;
    this.tip.style.left = `${Math.max(0, Math.min(middle, whole.width - this.tip.offsetWidth))}px`;
    const at = board.top - whole.top + y; // above the head on the last map, else below it, where nothing is in the way
    const above = at - this.tip.offsetHeight - 8;
    this.tip.style.top = `${above >= 0 && over !== this.maps[0] ? above : at + ch + 8}px`;
  }

  point(head, over = 0) {
    if (head === this.pointed && over === this.over) return;
    [this.pointed, this.over] = [head, over];
    this.later();
  }
}
