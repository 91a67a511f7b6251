/* The bar of the presentation. A step is shown as soon as a key is pressed; the page follows when it has drawn it. */
const OTHERS = [ // where arrow keys mean something else
  "input", "textarea", "select", "[contenteditable=true]", "[role=grid]", "[role=slider]", "[role=listbox]", "[role=menu]",
  "[role=dialog]", "[role=tablist]", "[role=radiogroup]", "[role=combobox]",
].join();
const MOVES = { ArrowRight: 1, PageDown: 1, ArrowLeft: -1, PageUp: -1 };

const made = (name, props = {}, ...inside) => {
  const one = document.createElement(name);
  for (const [key, value] of Object.entries(props))
    if (key in one && key !== "role") one[key] = value;
    else one.setAttribute(key, value);
  one.append(...inside);
  return one;
};

class Bar {
  constructor(root) {
    this.asked = null;
    this.list = made("ol");
    this.back = made("button", { type: "button", "aria-label": "Previous step", title: "← arrow key" }, "‹");
    this.next = made("button", { type: "button", "aria-label": "Next step", title: "→ arrow key" }, "›");
    this.ask = made("button", { type: "button", className: "ask", "aria-expanded": "false" }, "Notes");
    this.print = made("button", { type: "button", className: "ask", title: "Two pages, to print or keep" }, "Hand-out");
    this.notes = made("aside", { className: "notes", hidden: true, role: "region", "aria-label": "Speaker's notes", tabIndex: 0 });
    this.said = made("div", { className: "said", role: "status" });
    this.back.onclick = () => this.go(this.step - 1);
    this.next.onclick = () => this.go(this.step + 1);
    this.ask.onclick = () => this.show(this.notes.hidden);
    this.print.onclick = () => window.print();
    const nav = made("nav", { "aria-label": "Steps of the presentation" }, this.back, this.list, this.next);
    root.append(made("div", { className: "bar" }, nav, made("div", { className: "tools" }, this.ask, this.print)), this.notes, this.said);
  }

  /* Until the page is at the step that was asked for last, its word on where it is is from before. */
  hear(data, send) {
    Object.assign(this, { send, steps: data.steps });
    if (this.list.children.length !== data.steps.length)
      this.list.replaceChildren(
        ...data.steps.map((name, i) => {
          const button = made("button", { type: "button" }, made("b", {}, String(i + 1)), made("span", {}, name));
          button.setAttribute("aria-label", `${i + 1}: ${name}`);
          button.onclick = () => this.go(i + 1);
          return made("li", {}, button);
        }),
      );
    this.notes.replaceChildren(made("h2", {}, "Speaker's notes"), ...data.notes.map((text) => made("p", {}, text)));
    if (this.asked === data.step) this.asked = null;
    if (this.asked === null) this.mark(data.step);
  }

  mark(step) {
    this.step = step;
    [...this.list.querySelectorAll("button")].forEach((button, i) => {
      if (i + 1 === step) button.setAttribute("aria-current", "step");
      else button.removeAttribute("aria-current");
    });
    this.back.setAttribute("aria-disabled", String(step === 1)); // it keeps the focus
    this.next.setAttribute("aria-disabled", String(step === this.steps.length));
  }

  go(step) {
    if (step < 1 || step > this.steps.length || step === this.step) return false;
    this.mark(step);
    this.said.textContent = `Step ${step} of ${this.steps.length}: ${this.steps[step - 1]}`;
    this.asked = step;
    this.send("step", step);
    return true;
  }

  show(open) {
    this.notes.hidden = !open;
    this.ask.setAttribute("aria-expanded", String(open));
  }

  key(event) {
    const by = MOVES[event.key];
    if (!by || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.composedPath().some((one) => one.matches?.(OTHERS))) return;
    if (this.go(this.step + by)) event.preventDefault();
  }
}

export default function ({ data, setStateValue, parentElement }) {
  const bar = (parentElement.bar ??= new Bar(parentElement));
  bar.hear(data, setStateValue);
  bar.listening?.abort();
  const mine = (bar.listening = new AbortController()); // a call that is ended late ends its own alone
  window.addEventListener("keydown", (event) => bar.key(event), { signal: mine.signal });
  return () => mine.abort();
}
