/* The parts of the instrument on the page, and the texts on them. Nothing here knows of the server. */
const make = (name, props = {}, ...inside) => {
  const { data = {}, ...rest } = props;
  const one = document.createElement(name);
  for (const [key, value] of Object.entries(rest))
    if (key in one && key !== "role" && key !== "list") one[key] = value;
    else one.setAttribute(key, value);
  Object.assign(one.dataset, data);
  one.append(...inside);
  return one;
};

const slider = (name, letter, what) => {
  const input = make("input", { type: "range", id: name, data: { slider: name } });
  const value = make("output", { className: "value", htmlFor: name });
  const count = make("span", { className: "count" });
  const label = make("label", { htmlFor: name }, make("b", {}, letter), ` ${what} `, value);
  return { input, value, count, part: make("div", { className: "slider" }, label, input, count) };
};

const number = (name, what) => {
  const value = make("strong", { data: { estimate: name } });
  const change = make("span", { className: "change" });
  const part = make("div", { className: "number" }, make("dt", {}, what), make("dd", {}, value, " ", change));
  return { value, change, part };
};

/* What stands above the maps: the sliders and the estimates. Where gains were learned, one slider is in place of two. */
export const makeTop = () => {
  const gamma = slider("gamma", "γ", "protect");
  const alpha = slider("alpha", "α", "prune");
  const strength = slider("strength", "s", "strength");
  const numbers = {
    perplexity: number("perplexity", "≈ perplexity"),
    gap: number("gap", "≈ toxicity gap, ×10⁻³"),
    task: number("task", "≈ last words"),
  };
  const list = make("dl", { className: "numbers" });
  list.append(...Object.values(numbers).map((one) => one.part));
  const part = make("div", { className: "top" }, gamma.part, alpha.part, strength.part, list);
  return { gamma, alpha, strength, numbers, list, part };
};

export const signed = (x, digits) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(digits);
const percent = (now, before) =>
  before > 0 && Number.isFinite(now) ? `${signed((100 * (now - before)) / before, 0)}%` : "";
const short = (x) => (x < 1e4 ? x.toFixed(2) : x.toExponential(1));

/* Without `found` they are on their way; `off` is how far off they are, `learnt` how they are made and one knows. */
export const fillNumbers = ({ numbers, list }, found, [perplexity, gap], { off: [a, b], learnt }) => {
  list.title = learnt;
  const tell = ({ value, change }, text, more, worse) => {
    value.textContent = text;
    change.textContent = more;
    change.dataset.worse = worse;
  };
  if (!found) {
    for (const one of Object.values(numbers)) tell(one, "…", "", "");
    return;
  }
  const { perplexity: now } = found;
  tell(numbers.perplexity, short(now), `${percent(now, perplexity)} ${a}`, now > perplexity);
  tell(numbers.gap, (1000 * found.gap).toFixed(2), `${percent(1000 * found.gap, gap)} ${b}`, 1000 * found.gap > gap);
  if (typeof found.task !== "number") tell(numbers.task, "–", found.task === null ? "not scored" : "measured alone", "");
  else tell(numbers.task, signed(found.task, 2), "nats a word", found.task > 0);
};

/* One map: title, color bar, canvases, the axis with its handles; the first one also holds the cells for keys and
 * screen readers. */
export const makeMap = (index) => {
  const [title, note, bar] = [make("b"), make("span", { className: "note" }), make("span", { className: "bar" })];
  const [colors, marks] = [make("canvas"), make("canvas")];
  const [ring, box] = ["ring", "box"].map((className) => make("div", { className, hidden: true }));
  const board = make("div", { className: "board", data: { map: index } }, colors, marks, box, ring);
  const [side, foot] = [make("div", { className: "side" }), make("div", { className: "foot" })];
  const hint = "Layers: how many heads go in each; click to go there";
  const strip = make("canvas", { className: "strip", hidden: true, title: hint });
  const view = make("div", { className: "view" }, make("div", { className: "field" }, side, board, foot));
  const caption = make("figcaption", {}, make("span", { className: "name" }, title, " ", note), bar);
  const part = make("figure", { className: "map" }, caption, strip, view);
  return { part, title, note, bar, colors, marks, ring, box, board, side, foot, view, strip, caption };
};

export const fillCaption = (one, { title, note, help, unit, ticks }, scale) => {
  one.title.textContent = title;
  one.note.textContent = note;
  one.caption.title = help;
  const steps = make("i", { className: "steps" });
  steps.style.background = `linear-gradient(to right, ${scale.join(", ")})`;
  const ends = [ticks[0], ticks[ticks.length - 1]];
  one.bar.replaceChildren(ends[0][1], steps, ends[1][1], make("span", { className: "unit" }, unit));
  one.bar.setAttribute("aria-label", `Colors from ${ends[0][1]} (blue) to ${ends[1][1]} (orange), ${unit}`);
  one.bar.setAttribute("role", "img");
};

/* Labels of layers and heads. Each place along an axis stands for its whole line. */
export const fillAxes = (one, shape, ranked) => {
  const { across, rows, columns, cw, ch } = shape;
  const name = (line) => (line === "layer" ? "layer" : ranked ? "rank" : "head");
  const put = (place, count, px, room, along, flip) =>
    stepsOf(count, px, room).map((i) => {
      const label = make("span", {}, String(i));
      label.style[along] = `${(flip ? count - 1 - i : i) * px + px / 2}px`;
      return label;
    });
  const [down, right] = across ? ["head", "layer"] : ["layer", "head"];
  one.side.dataset.line = down;
  one.foot.dataset.line = right;
  one.side.style.height = `${rows * ch}px`;
  one.foot.style.width = `${columns * cw}px`;
  one.side.replaceChildren(...put(one.side, rows, ch, 13, "top", !across));
  one.foot.replaceChildren(...put(one.foot, columns, cw, 22, "left", false));
  one.side.title = `Click a number: the whole ${name(down)}`;
  one.foot.title = `Click a number: the whole ${name(right)}`;
  one.side.append(make("em", {}, name(down)));
  one.foot.append(make("em", {}, name(right)));
};

export const makeLegend = ({ colors, maps }, scaled) => {
  const entry = (state, text, gain) => {
    const canvas = make("canvas");
    const ratio = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = [18 * ratio, 16 * ratio];
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    drawState(pen, [0, 0, 18, 16], state, colors, gain);
    return make("span", {}, canvas, text);
  };
  const unscored = (map) => map.colors.match(/.{6}/g).includes(colors.missing.slice(1).toLowerCase());
  const swatch = (color, text) => {
    const patch = make("i", { className: "swatch" });
    patch.style.background = color;
    return make("span", {}, patch, text);
  };
  return [
    entry(CRITICAL, "critical"),
    entry(PRUNED, "pruned"),
    entry(PRUNED | FORCED, "pruned by hand"),
    entry(LOCKED, "kept by hand"),
    ...(scaled ? [entry(0, "scaled", 0.8)] : []),
    swatch(colors.veiled, "sign within noise"),
    ...(maps.some(unscored) ? [swatch(colors.missing, "not scored yet")] : []),
    make("span", { className: "keys" }, "Space toggles · Shift extends · + − scale · L layer · C column"),
  ];
};

/* What is said of a head's state, and of what it is scaled by. */
export const stateOf = (state, { method }, gain) => {
  const critical = state & CRITICAL;
  if (state & FORCED) return "pruned by hand" + (critical ? ", although critical" : "");
  const scaled = gain === 1 ? "" : `, scaled by ${Number(gain.toFixed(2))}`;
  if (state & LOCKED) return "kept by hand" + (critical ? ", and critical" : "") + scaled;
  if (state & PRUNED) return `pruned by ${method}`;
  return (critical ? "kept: critical" : "kept") + scaled;
};

export const nameOf = (head, heads) => `L${Math.floor(head / heads)}H${head % heads}`;
