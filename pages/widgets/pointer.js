/* Streamlit's charts tell their latest selection: not every click, not whether Shift was held, and nothing of what is
 * pointed at. This listens beside them. Charts that take clicks say in their layout what their points are (`ready` in
 * pointer.py); the traces that take hover take clicks. */
const THROTTLE = 80; // ms: Plotly itself looks at the pointer every 50
const MOST = 160; // px that are left empty
const STILL = 8; // px: as with Plotly, a button that is let go farther away has dragged

/* What the points of a chart are; undefined where it takes no clicks, or lies in a closed tab. */
const pointsAre = (chart) =>
  chart?._fullLayout && typeof chart.layout.meta === "string" && chart.checkVisibility() ? chart.layout.meta : undefined;

/* Where a point stands within its chart, in px from the left and the top; null outside the axes. */
const placeOf = (chart, curve, index) => {
  const { xaxis, yaxis } = chart._fullLayout;
  const { x, y } = chart.data[curve];
  const [across, down] = [xaxis.d2p(x[index]), yaxis.d2p(y[index])];
  const inside = across >= 0 && across <= xaxis._length && down >= 0 && down <= yaxis._length;
  return inside ? [xaxis._offset + across, yaxis._offset + down] : null;
};

/* A chart's points that take hover, where they stand in the window. */
const pointsOf = (chart) => {
  const { left, top } = chart.getBoundingClientRect();
  const area = chart.querySelector(".nsewdrag").getBoundingClientRect();
  const points = chart.data.flatMap((trace, curve) =>
    (trace.hoverinfo === "skip" ? [] : Array.from(trace.x)).map((_, index) => {
      const place = placeOf(chart, curve, index);
      return place && { chart, curve, index, x: left + place[0], y: top + place[1] };
    }),
  );
  const reach = chart._fullLayout.hoverdistance;
  return { of: chart.layout.meta, area, points: points.filter(Boolean), reach: reach < 0 ? Infinity : reach };
};

const nearest = ({ points, reach }, { clientX, clientY }) => {
  const away = ({ x, y }) => Math.hypot(x - clientX, y - clientY);
  const found = points.reduce((best, one) => (best && away(best) <= away(one) ? best : one), null);
  return found && away(found) <= reach ? found : null;
};

const within = ({ area }, { clientX: x, clientY: y }) =>
  x >= area.left && x <= area.right && y >= area.top && y <= area.bottom;

const ring = (chart, curve, index, name, line) => {
  const place = placeOf(chart, curve, index);
  if (!place) return null;
  const size = Math.max(Number(chart.data[curve].marker.size) || 0, 12) + 4;
  const drawn = document.createElement("div");
  drawn.className = name;
  drawn.setAttribute("aria-hidden", "true");
  drawn.style.cssText = `position:absolute;left:${place[0] - size / 2}px;top:${place[1] - size / 2}px;width:${size}px;
    height:${size}px;box-sizing:border-box;border:2px ${line} #000;outline:2px solid #fff;border-radius:3px;
    pointer-events:none`;
  chart.querySelector(".svg-container").append(drawn); // which moves with the chart, and goes with it
  return drawn;
};

/* Keep a part of the page as high as it was, unless the window's width changes or much of it is gone. */
const hold = (part, kept) => {
  if (!part) return;
  const grow = () => {
    const { top, width } = part.getBoundingClientRect();
    const needed = part.lastElementChild.getBoundingClientRect().bottom - top;
    const before = kept.width === width && kept.height - needed < MOST ? kept.height : 0;
    [kept.width, kept.height] = [width, Math.max(needed, before)];
    part.style.minHeight = `${kept.height}px`;
  };
  grow();
  if (kept.part === part) return;
  kept.watching?.disconnect();
  kept.part = part;
  part.style.overflowAnchor = "none"; // or the browser scrolls along with what moves in it
  kept.watching = new ResizeObserver(grow);
  kept.watching.observe(part);
};

export default function ({ data, setStateValue, parentElement }) {
  parentElement.listening?.abort(); // called anew after every run of the script
  const listening = (parentElement.listening = new AbortController());
  const on = (what, act) => window.addEventListener(what, act, { capture: true, signal: listening.signal });

  // Clicks that the page has not acted on yet. What was clicked is marked until then.
  const waiting = (parentElement.clicks ??= []);
  while (waiting.length && waiting[0].n <= data.done) waiting.shift().mark?.remove();
  on("pointerdown", (event) => {
    const { target, clientX, clientY, shiftKey } = event;
    const chart = target.closest?.(".js-plotly-plot");
    parentElement.pressed = null;
    if (!event.isPrimary || event.button !== 0) return;
    let seen = null;
    if (data.of.includes(pointsAre(chart))) seen = target.closest(".nsewdrag") && pointsOf(chart);
    // for a moment after every change a chart is not there, or not drawn: then the one that stood there counts
    else if (!chart?._fullLayout && target.closest?.(".stPlotlyChart")) seen = parentElement.seen;
    // the chart may be another one when the button is let go
    if (!seen || !within(seen, event)) return;
    parentElement.pressed = { of: seen.of, found: nearest(seen, event), clientX, clientY, shiftKey };
  });
  on("pointerup", (event) => {
    const { of, found, clientX, clientY, shiftKey } = parentElement.pressed ?? {};
    parentElement.pressed = null;
    if (!found || Math.hypot(event.clientX - clientX, event.clientY - clientY) >= STILL) return;
    const { chart, curve, index } = found;
    const n = Math.max(Date.now(), (parentElement.latest ?? data.done) + 1);
    parentElement.latest = n;
    const mark = chart.isConnected ? ring(chart, curve, index, "fasp-clicked", "dashed") : null;
    waiting.push({ n, of, curve_number: curve, point_index: index, shift: shiftKey, mark });
    setStateValue("clicks", waiting.map(({ mark, ...click }) => click));
  });
  on("scroll", () => (parentElement.seen = null));

  // What stands above the grids may grow, but hardly shrinks: they stay where they are under the hand.
  hold(document.querySelector(".st-key-above"), parentElement);

  // Undo and redo are the text's while somebody types.
  on("keydown", (event) => {
    const typing = event.target.closest?.("input:not([type=checkbox], [type=radio], [type=range]), textarea");
    if (typing && (event.ctrlKey || event.metaKey) && /^[zy]$/i.test(event.key)) event.stopPropagation();
  });

  // What is under the pointer is ringed in the other charts of the same.
  let rings = [];
  let later;
  const clear = () => rings.splice(0).forEach((one) => one.remove());
  const point = (at) => {
    clear();
    const of = pointsAre(at);
    if (!data.of.includes(of)) return;
    parentElement.seen = pointsOf(at);
    const index = at._hoverdata?.find((one) => one.curveNumber === 0)?.pointNumber;
    if (typeof index !== "number") return;
    for (const chart of document.querySelectorAll(".js-plotly-plot")) {
      const drawn = chart !== at && pointsAre(chart) === of && ring(chart, 0, index, "fasp-ring", "solid");
      if (drawn) rings.push(drawn);
    }
  };
  on("mousemove", (event) => {
    const at = event.target.closest?.(".js-plotly-plot");
    if (!at && !rings.length) return;
    clearTimeout(later);
    later = setTimeout(() => point(at), THROTTLE);
  });
  on("mousedown", clear);
  listening.signal.addEventListener("abort", () => {
    clearTimeout(later);
    clear();
  });
  return () => listening.abort();
}
