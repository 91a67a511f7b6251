/* Streamlit's charts tell what was clicked, not whether Shift was held, and nothing of what is pointed at. This listens
 * beside them. Charts of heads are those whose first trace is called "heads", with a point for each head. */
const NAME = "heads";
const THROTTLE = 80; // ms: Plotly itself looks at the pointer every 50

const ofHeads = (chart) => chart.data?.[0]?.name === NAME && chart.checkVisibility(); // not so in a tab that is closed

export default function ({ data, setStateValue, parentElement }) {
  parentElement.listening?.abort(); // called anew after every run of the script
  const listening = (parentElement.listening = new AbortController());
  const on = (what, act) => window.addEventListener(what, act, { capture: true, signal: listening.signal });

  // A click with Shift: told before the chart tells of the click.
  let shift = data.shift;
  on("mousedown", (event) => {
    if (event.shiftKey !== shift && event.target.closest?.(".js-plotly-plot")) {
      shift = event.shiftKey;
      setStateValue("shift", shift);
    }
  });

  // Undo and redo are the text's while somebody types.
  on("keydown", (event) => {
    const typing = event.target.closest?.("input:not([type=checkbox], [type=radio], [type=range]), textarea");
    if (typing && (event.ctrlKey || event.metaKey) && /^[zy]$/i.test(event.key)) event.stopPropagation();
  });

  // The head under the pointer is ringed in the other charts of heads.
  let rings = [];
  let waiting;
  const clear = () => rings.splice(0).forEach((ring) => ring.remove());
  const point = (at) => {
    clear();
    const head = at?.isConnected && at._hoverdata?.find((one) => one.curveNumber === 0)?.pointNumber;
    if (typeof head !== "number" || !ofHeads(at)) return;
    for (const chart of document.querySelectorAll(".js-plotly-plot")) {
      if (chart === at || !ofHeads(chart)) continue;
      const { xaxis, yaxis } = chart._fullLayout;
      const { x, y, marker } = chart.data[0];
      const across = xaxis.d2p(x[head]);
      const down = yaxis.d2p(y[head]);
      if (!(across >= 0 && across <= xaxis._length && down >= 0 && down <= yaxis._length)) continue;
      const size = Math.max(Number(marker.size) || 0, 12) + 4;
      const ring = document.createElement("div");
      ring.className = "fasp-ring";
      ring.setAttribute("aria-hidden", "true");
      ring.style.cssText = `position:absolute;left:${xaxis._offset + across - size / 2}px;top:${
        yaxis._offset + down - size / 2
      }px;width:${size}px;height:${size}px;box-sizing:border-box;border:2px solid #000;outline:2px solid #fff;
        border-radius:3px;pointer-events:none`;
      chart.querySelector(".svg-container").append(ring); // which moves with the chart
      rings.push(ring);
    }
  };
  on("mousemove", (event) => {
    const at = event.target.closest?.(".js-plotly-plot");
    if (!at && !rings.length) return;
    clearTimeout(waiting);
    waiting = setTimeout(() => point(at), THROTTLE);
  });
  on("mousedown", clear);
  listening.signal.addEventListener("abort", () => {
    clearTimeout(waiting);
    clear();
  });
  return () => listening.abort();
}
