/* What a hand and a keyboard do to the instrument, and what the page hears of it. */
const REST = 150; // ms without a move, after which the page hears of a slider
const TALL = 60; // px that a gate is dragged from 0 to 1
const SNAP = 0.08; // how near a gate comes to 0 or 1 before it is just that
const PATIENCE = 8000; // ms without an answer, after which acts are told once more; twice as long each time
const FAR = 4; // px: a button that is let go farther away has dragged

const SLIDERS = ["gamma", "alpha", "strength"];

class Hand extends View {
  constructor(root) {
    super(root);
    for (const name of SLIDERS) {
      const { input } = this.top[name];
      input.addEventListener("input", () => this.slide(name, Number(input.value)));
    }
    this.grid.addEventListener("keydown", (event) => this.key(event));
    this.grid.addEventListener("focusin", (event) => this.focused(event.target));
    this.grid.addEventListener("focusout", () => this.point(null));
    // Of screen readers: what a pointer does is the board's, for it passes through the cells.
    this.grid.addEventListener("click", ({ target: { head } }) => head !== undefined && this.act([head], head));
  }

  /* What a hand does while the page goes back or forth is meant for the set that comes, and waits for it. */
  waits(what, behind = this.stepping()) {
    if (behind) this.held.push(what);
    return behind;
  }

  /* A slider has moved. */
  slide(name, value) {
    if (this.waits(() => this.slide(name, value))) return;
    this.local = { ...this.local, [name]: value };
    this.rest(null);
    this.later();
  }

  /* The page hears once the hand rests. */
  rest(head) {
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.rested(head), REST);
  }

  rested(head) {
    clearTimeout(this.resting);
    this.tell(head);
  }

  /* An act on some heads, as the page says that it is meant; from an anchor all get what the anchor has. */
  act(heads, clicked, anchor = null) {
    if (this.waits(() => this.act(heads, clicked, anchor))) return;
    const { means } = this.data;
    const off = { prune: true, keep: false, leave: null }[means];
    const { prune, keep } = this.local;
    let next;
    if (means !== "toggle") next = told({ prune, keep }, heads, off);
    else if (anchor !== null) next = told({ prune, keep }, heads, Boolean(this.marks[anchor] & PRUNED));
    else next = toggled({ prune, keep }, heads, this.marksOf);
    this.local = { ...this.local, ...next };
    [this.anchor, this.range] = [clicked, null];
    this.go(clicked);
    this.tell(clicked);
    this.frame();
    const marks = this.marks;
    this.said.textContent =
      heads.length === 1
        ? `${nameOf(clicked, this.data.heads)} ${stateOf(marks[clicked], this.data, this.gates[clicked])}`
        : `${heads.length} heads changed`;
  }

  /* Set gates from 0, which is pruned by hand, over 1, as the head is, to 1.5; the page hears later. A head that was
   * learned to be scaled is as it is because it is kept by hand. */
  scale(gates) {
    if (this.waits(() => this.scale(gates))) return;
    const gains = { ...this.local.gains };
    const [on, off, stay, marks, learned] = [[], [], [], this.marksOf(this.local), this.learned()];
    for (const [head, wanted] of gates) {
      const gate = Math.round(20 * Math.min(1.5, Math.max(0, wanted))) / 20;
      if (!gate) off.push(head);
      else if (marks[head] & PRUNED) on.push(head);
      if (gate && gate !== 1) gains[head] = gate;
      else delete gains[head];
      if (gate === 1 && learned && learned[head] !== 1) stay.push(head);
    }
    const byHand = told(toggled(this.local, on, this.marksOf), off, true);
    this.local = { ...this.local, ...told(byHand, stay, false), gains };
    this.frame();
  }

  /* Only what the hand has changed: the rest may be other by now, from elsewhere on the page. */
  tell(head) {
    if (this.waits(() => this.tell(head))) return;
    const { local, known } = this;
    this.number();
    const moved = SLIDERS.map((name) => [name, local[name] === known[name] ? null : local[name]]);
    this.queue.push({ n: this.latest, ...Object.fromEntries(moved), ...changes(known, local), head });
    this.known = local;
    this.ask(PATIENCE);
  }

  /* Of the next act: above all that were before. */
  number() {
    this.latest = Math.max(Date.now(), this.latest + 1, this.data.done + 1);
  }

  /* Acts go to the page until it has acted on them: what is said while the connection is down is lost. */
  ask(patience) {
    clearTimeout(this.asking);
    this.tries += 1; // another value each time, or the page would not hear it
    this.send("acts", this.queue.map((act) => ({ ...act, tries: this.tries })));
    this.asking = setTimeout(() => this.queue.length && this.part.isConnected && this.ask(2 * patience), patience);
  }

  /* Undo and redo, wherever the focus is, but where somebody types: there they are the text's. */
  steps = (event) => {
    if (!this.part.isConnected) window.removeEventListener("keydown", this.steps, true);
    else if ((event.ctrlKey || event.metaKey) && !event.altKey && /^[zy]$/i.test(event.key)) {
      const [at] = event.composedPath();
      if (at?.closest?.("input:not([type=checkbox], [type=radio], [type=range]), textarea")) return;
      event.preventDefault();
      this.step(event.shiftKey || /y/i.test(event.key) ? 1 : -1);
    }
  };

  /* Back or forth, after what has been done until now; the page knows where to. */
  step(by) {
    if (this.waits(() => this.step(by), this.held.length > 0)) return;
    if (this.local !== this.known) this.rested(null);
    this.number();
    this.queue.push({ n: this.latest, step: by });
    this.ask(PATIENCE);
  }

  line(what, slot) {
    const { layers, heads } = this.data;
    const layer = Math.floor(slot / heads);
    if (what === "layer") return Array.from({ length: heads }, (_, i) => layer * heads + i);
    return Array.from({ length: layers }, (_, i) => this.headAt[i * heads + (slot % heads)]);
  }

  block(a, b) {
    return block(a, b, this.data.heads, this.slotOf, this.headAt);
  }

  /* Pointers on one map: a click, a box, a whole line. */
  listen(one) {
    const index = this.maps.indexOf(one);
    const headOf = (event) => {
      const { left, top } = one.board.getBoundingClientRect();
      return this.headAt[slotAt(this.shape, event.clientX - left, event.clientY - top)];
    };
    one.board.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !event.isPrimary) return;
      event.preventDefault();
      one.board.setPointerCapture(event.pointerId);
      const head = headOf(event);
      this.pressed = { head, x: event.clientX, y: event.clientY, gate: event.altKey ? this.gates[head] : null };
    });
    one.board.addEventListener("pointermove", (event) => {
      const head = headOf(event);
      const { pressed } = this;
      if (pressed && pressed.gate !== null) {
        const wanted = pressed.gate + (pressed.y - event.clientY) / TALL;
        this.scale([[pressed.head, Math.abs(wanted - 1) < SNAP ? 1 : wanted < SNAP ? 0 : wanted]]);
        return;
      }
      if (pressed && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) >= FAR && head !== pressed.head)
        this.dragging = true;
      if (this.dragging) this.range = [pressed.head, head];
      this.point(head, index);
      if (this.dragging) this.later();
    });
    one.board.addEventListener("pointerup", (event) => {
      const { pressed, dragging } = this;
      [this.pressed, this.dragging] = [null, false];
      if (!pressed) return;
      const head = headOf(event);
      if (pressed.gate !== null) {
        this.go(pressed.head);
        this.tell(pressed.head);
      } else if (dragging) this.act(this.block(pressed.head, head), head);
      else if (event.shiftKey && this.anchor !== null) this.act(this.block(this.anchor, head), head, this.anchor);
      else this.act([head], head);
    });
    one.board.addEventListener("pointercancel", () => {
      if (typeof this.pressed?.gate === "number") this.tell(this.pressed.head);
      [this.pressed, this.dragging, this.range] = [null, false, null];
      this.later();
    });
    one.board.addEventListener("pointerleave", () => !this.dragging && this.point(null));
    for (const side of [one.side, one.foot])
      side.addEventListener("click", (event) => {
        const { left, top } = one.board.getBoundingClientRect();
        const slot = slotAt(this.shape, event.clientX - left, event.clientY - top);
        const heads = this.line(side.dataset.line, slot);
        this.act(heads, Math.max(...heads));
      });
    one.strip.addEventListener("click", (event) => {
      const { left, width } = one.strip.getBoundingClientRect();
      const layer = Math.floor((this.data.layers * (event.clientX - left)) / width);
      const [x, y] = cellOf(this.shape, layer * this.data.heads);
      for (const other of this.maps) other.view.scrollTo(x - 80, y - other.view.clientHeight / 2);
    });
    one.view.addEventListener("scroll", () => {
      for (const other of this.maps) other.view.scrollTo(one.view.scrollLeft, one.view.scrollTop);
    });
  }

  focused(cell) {
    if (cell.head === undefined) return;
    this.cells[this.cursor].tabIndex = -1;
    this.cursor = cell.head;
    cell.tabIndex = 0;
    cell.setAttribute("aria-label", this.words(cell.head, this.marks)); // what the page has told since may be news
    this.point(null);
    this.later();
  }

  go(head) {
    this.cells[this.cursor].tabIndex = -1;
    this.cursor = head;
    this.cells[head].tabIndex = 0;
    this.cells[head].focus({ preventScroll: this.shape.fit });
  }

  key(event) {
    if (event.ctrlKey && !["Home", "End"].includes(event.key)) return;
    if (event.metaKey || event.altKey) return;
    const { layers, heads } = this.data;
    const { across } = this.shape;
    const slot = this.slotOf[this.cursor];
    let [layer, rank] = [Math.floor(slot / heads), slot % heads];
    const along = (right, up) => (across ? ((layer += right), (rank -= up)) : ((rank += right), (layer += up)));
    const moves = {
      ArrowRight: () => along(1, 0),
      ArrowLeft: () => along(-1, 0),
      ArrowUp: () => along(0, 1),
      ArrowDown: () => along(0, -1),
      Home: () => { along(-1e6, 0); if (event.ctrlKey) along(0, 1e6); },
      End: () => { along(1e6, 0); if (event.ctrlKey) along(0, -1e6); },
      PageUp: () => along(0, 5),
      PageDown: () => along(0, -5),
    };
    const at = this.cursor;
    if (moves[event.key]) {
      moves[event.key]();
      layer = Math.min(layers - 1, Math.max(0, layer));
      rank = Math.min(heads - 1, Math.max(0, rank));
      const next = this.headAt[layer * heads + rank];
      this.range = event.shiftKey ? [this.range?.[0] ?? at, next] : null;
      this.go(next);
      this.later();
    } else if (event.key === " " || event.key === "Enter") {
      this.act(this.range ? this.block(...this.range) : [at], at);
    } else if (/^[lc]$/i.test(event.key)) {
      this.act(this.line(/l/i.test(event.key) ? "layer" : "head", slot), at);
    } else if (/^[-+=]$/.test(event.key)) {
      const by = event.key === "-" ? -0.1 : 0.1;
      this.scale((this.range ? this.block(...this.range) : [at]).map((head) => [head, this.gates[head] + by]));
      this.rest(at);
    } else if (event.key === "Escape" && this.range) {
      this.range = null;
      this.later();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

export default function ({ data: sent, setStateValue, parentElement }) {
  if (sent instanceof Uint8Array) {
    readEffects(sent);
    return () => {};
  }
  const [data] = sent;
  const view = (parentElement.instrument ??= new Hand(parentElement));
  const call = (view.call = {});
  view.hear(data, setStateValue);
  if (data.first) setTimeout(() => setStateValue("drawn", Date.now())); // the rest of the page comes after the maps
  window.addEventListener("keydown", view.steps, true); // the same listener again is none
  // Of two calls in quick succession Streamlit may end the first after the second has begun: it ends what is its own.
  return () => view.call === call && view.leave();
}
