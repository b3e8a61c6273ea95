// A chart of stacked bars, one for each step: details on hover and by arrow keys, a click opens a step, and a drag selects a range.

import { countMarks, timeMarks } from "./axis.js";
import { h, plural, put, s, short, typeClass, whole } from "./dom.js";
import { OTHERS } from "./series.js";
import { clock, day } from "./time.js";

const MARGIN = { top: 14, right: 4, bottom: 40, left: 44 };
const WIDTH_MIN = 240;
/** Distance after which a press is a drag, in pixels. */
const DRAG_MIN = 6;

/** Returns the class of the color of a stacked key. */
export const colorOf = (key, by) => (key === OTHERS ? "" : by === "severity" ? `sev-${key}` : typeClass(key));

function times(step) {
  const sameDay = day(step.from) === day(step.to - 1);
  return `${day(step.from)}, ${clock(step.from)}–${sameDay ? "" : `${day(step.to)}, `}${clock(step.to)}`;
}

export class Plot {
  #host;
  #svg = s("svg", { class: "plot", "aria-hidden": "true", focusable: "false" });
  #tip = h("div", { class: "tip", hidden: true });
  #slider;
  #on;
  #model = null;
  #by = "type";
  #readAt = null;
  /** The steps that are being selected: where the selection began and where it is now. */
  #brush = null;
  #press = null;
  #shape = "";
  #x = null;
  #width = 0;

  /** `on.pick(step)` opens a step, and `on.select(fromMs, toMs)` shows a range. */
  constructor(host, label, on = {}) {
    this.#host = host;
    this.#on = on;
    this.#slider = h("div", {
      class: "plot-focus", tabindex: "0", role: "slider", "aria-label": label,
      "aria-orientation": "horizontal", "aria-valuemin": "1", "aria-valuemax": "1", "aria-valuenow": "1",
    }, this.#svg, this.#tip);
    host.replaceChildren(this.#slider);
    this.#listen();
    new ResizeObserver(() => this.#model && this.#draw()).observe(host);
  }

  /** Draws the sums of `stack`. */
  render(model, by) {
    this.#model = model;
    this.#by = by;
    this.#draw();
    this.#slider.setAttribute("aria-valuemax", model.steps.length);
    if (this.#readAt === null) this.#announce(this.#last());
  }

  #listen() {
    const slider = this.#slider;
    slider.addEventListener("pointerdown", (event) => {
      const at = this.#place(event);
      if (event.button !== 0 || at === null) return;
      this.#press = { x: event.clientX, at, id: event.pointerId, dragged: false };
      this.#read(at);
    });
    slider.addEventListener("pointermove", (event) => this.#moved(event));
    slider.addEventListener("pointerup", (event) => this.#released(event));
    slider.addEventListener("pointercancel", () => this.#endPress());
    slider.addEventListener("pointerleave", () => { if (!this.#press?.dragged) this.#read(null); });
    slider.addEventListener("focus", () => { if (slider.matches(":focus-visible")) this.#read(this.#last()); });
    slider.addEventListener("blur", () => { this.#endPress(); this.#read(null); });
    slider.addEventListener("keydown", (event) => { if (this.#key(event)) event.preventDefault(); });
  }

  #moved(event) {
    const press = this.#press;
    if (!press) return this.#read(this.#place(event));
    if (this.#on.select && !press.dragged && Math.abs(event.clientX - press.x) >= DRAG_MIN) {
      press.dragged = true;
      this.#slider.setPointerCapture(press.id);
    }
    if (!press.dragged) return undefined;
    this.#brush = { from: press.at, to: this.#place(event, true) };
    this.#drawBrush();
    return this.#read(this.#brush.to);
  }

  #released(event) {
    const press = this.#press;
    if (!press) return;
    const brush = this.#brush;
    this.#endPress();
    if (press.dragged && brush) this.#select(brush);
    else if (this.#place(event) === press.at) this.#on.pick?.(this.#model.steps[press.at]);
  }

  #endPress() {
    this.#press = null;
    this.#brush = null;
    this.#drawBrush();
  }

  #select({ from, to }) {
    const { steps } = this.#model;
    this.#on.select?.(steps[Math.min(from, to)].from, steps[Math.max(from, to)].to);
  }

  /** Handles a key. Returns true if the key means something to the chart. */
  #key(event) {
    const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -12, PageUp: 12 };
    const end = this.#model.steps.length - 1;
    const at = this.#readAt ?? this.#last();
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    if (event.key in moves) {
      const next = Math.min(end, Math.max(0, at + moves[event.key]));
      this.#brush = event.shiftKey && this.#on.select ? { from: this.#brush?.from ?? at, to: next } : null;
      this.#drawBrush();
      this.#read(next);
    } else if (event.key === "Home" || event.key === "End") this.#read(event.key === "Home" ? 0 : end);
    else if (event.key === "Escape" && this.#readAt !== null) { this.#endPress(); this.#read(null); }
    else if (event.key === "Enter" && this.#brush) { const brush = this.#brush; this.#endPress(); this.#select(brush); }
    else if (event.key === "Enter" && this.#on.pick) this.#on.pick(this.#model.steps[at]);
    else return false;
    return true;
  }

  #last() {
    const at = this.#model.steps.findLastIndex((step) => step.total > 0);
    return at < 0 ? this.#model.steps.length - 1 : at;
  }

  /** Returns the step below the pointer, or null outside of the bars. With `clamp`, returns the nearest step. */
  #place(event, clamp = false) {
    const box = this.#svg.getBoundingClientRect();
    const width = box.width - MARGIN.left - MARGIN.right;
    const length = this.#model.steps.length;
    const at = Math.floor(((event.clientX - box.left - MARGIN.left) / width) * length);
    if (clamp) return Math.min(length - 1, Math.max(0, at));
    return at >= 0 && at < length ? at : null;
  }

  #describe(at) {
    const step = this.#model.steps[at];
    const before = this.#model.before?.[at];
    const parts = this.#model.keys.map((key, i) => [key, step.counts[i]]).filter(([, count]) => count > 0);
    const words = [`${times(step)}: ${plural(step.total, "event")}`, ...parts.map(([key, n]) => `${key} ${whole(n)}`)];
    if (before !== undefined) words.push(`previous period ${whole(before)}`);
    if (step.open) words.push("still counting");
    return { title: times(step), total: plural(step.total, "event"), parts, before, open: step.open, text: words.join(", ") };
  }

  #announce(at) {
    this.#slider.setAttribute("aria-valuenow", at + 1);
    this.#slider.setAttribute("aria-valuetext", this.#describe(at).text);
  }

  #read(at) {
    this.#readAt = at;
    const band = this.#svg.querySelector(".band");
    this.#tip.hidden = at === null;
    band?.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at === null || !band) return;
    const words = this.#describe(at);
    const x = this.#x;
    band.setAttribute("x", x(at));
    band.setAttribute("width", x(1) - x(0));
    put(this.#tip,
      h("strong", {}, words.title), h("span", { class: "tip-total" }, words.total),
      ...words.parts.map(([key, count]) => h("span", { class: "tip-row" }, h("i", { class: `swatch ${colorOf(key, this.#by)}` }), key, h("b", {}, whole(count)))),
      words.before === undefined ? null : h("span", { class: "tip-row" }, h("i", { class: "swatch previous" }), "previous period", h("b", {}, whole(words.before))),
      words.open ? h("em", {}, "still counting") : null,
    );
    const left = x(at + 0.5);
    this.#tip.classList.toggle("to-left", left > this.#width / 2);
    this.#tip.style.setProperty("--x", `${left}px`);
    this.#announce(at);
  }

  #drawBrush() {
    const rect = this.#svg.querySelector(".brush");
    rect?.setAttribute("visibility", this.#brush ? "visible" : "hidden");
    if (!this.#brush) return;
    const [first, last] = [this.#brush.from, this.#brush.to].sort((a, b) => a - b);
    rect.setAttribute("x", this.#x(first));
    rect.setAttribute("width", this.#x(last + 1) - this.#x(first));
  }

  #draw() {
    const model = this.#model;
    const height = parseFloat(getComputedStyle(this.#host).getPropertyValue("--plot-height")) || 274;
    const width = Math.max(WIDTH_MIN, this.#host.clientWidth);
    const marks = countMarks(Math.max(...model.steps.map((step) => step.total), ...(model.before ?? [])));
    const inner = height - MARGIN.top - MARGIN.bottom;
    const x = (at) => MARGIN.left + (at / model.steps.length) * (width - MARGIN.left - MARGIN.right);
    const y = (n) => MARGIN.top + inner - (n / marks.at(-1)) * inner;
    this.#x = x;
    this.#width = width;
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.#svg.setAttribute("height", height);
    const shape = JSON.stringify([width, height, model.from, model.stepMs, model.steps.length, model.keys, this.#by]);
    // If the bars are the same as before, only their heights change, with an animation.
    if (shape !== this.#shape) this.#drawFrame({ x, y, width, height });
    this.#shape = shape;
    this.#svg.querySelector(".grid").replaceChildren(...marks.slice(1).flatMap((n) => [
      s("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(n), y2: y(n) }),
      s("text", { x: MARGIN.left - 8, y: y(n) + 4, "text-anchor": "end" }, short(n)),
    ]));
    this.#drawBars(y);
    this.#drawBefore(x, y);
    this.#drawBrush();
    if (this.#readAt !== null) this.#read(Math.min(this.#readAt, model.steps.length - 1));
  }

  #drawFrame({ x, y, width, height }) {
    const model = this.#model;
    const inner = height - MARGIN.top - MARGIN.bottom;
    const slot = x(1) - x(0);
    const gap = Math.min(3, slot * 0.22);
    const anchor = (at) => (x(at) < MARGIN.left + 40 ? "start" : x(at) > width - 44 ? "end" : "middle");
    this.#svg.replaceChildren(
      s("g", { class: "grid" }),
      s("rect", { class: "band", y: MARGIN.top, height: inner, visibility: "hidden" }),
      s("g", { class: "bars" }, ...model.steps.map((_, i) => s("g", {}, ...model.keys.map((key) =>
        s("rect", { class: colorOf(key, this.#by), x: x(i) + gap / 2, width: Math.max(1, slot - gap), y: y(0), height: 0 }))))),
      s("path", { class: "before" }),
      s("rect", { class: "brush", y: MARGIN.top, height: inner, visibility: "hidden" }),
      s("g", { class: "axis" },
        s("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(0), y2: y(0) }),
        ...timeMarks(model, width - MARGIN.left - MARGIN.right).flatMap(([i, text, second]) => [[text, 22], [second, 7]].filter(([words]) => words)
          .map(([words, up]) => s("text", { x: x(i), y: height - up, "text-anchor": anchor(i) }, words)))),
    );
  }

  #drawBars(y) {
    const bars = this.#svg.querySelector(".bars").children;
    this.#model.steps.forEach((step, i) => {
      let below = 0;
      bars[i].setAttribute("class", step.open ? "open" : "");
      step.counts.forEach((count, k) => {
        const bar = bars[i].children[k];
        const bottom = y(below);
        below += count;
        const height = Math.max(0, bottom - y(below));
        bar.setAttribute("y", (bottom - height).toFixed(2));
        bar.setAttribute("height", height.toFixed(2));
      });
    });
  }

  /** Draws the previous period as a line over the bars. */
  #drawBefore(x, y) {
    const { before, steps } = this.#model;
    const points = before?.slice(0, steps.length).map((n, i) => `${x(i).toFixed(1)} ${y(n).toFixed(1)}H${x(i + 1).toFixed(1)}`) ?? [];
    this.#svg.querySelector(".before").setAttribute("d", points.length ? `M${points.join("L")}` : "");
  }
}
