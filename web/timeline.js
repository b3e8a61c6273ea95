// Events over time: one stacked bar per step, with details on hover and by arrow keys.

import { byId, byType, clock, day, dayYear, h, plural, put, range, s, setText, SEVERITIES, short, typeClass, whole } from "./dom.js";
import { filters, nothing } from "./filters.js";

const HEIGHT = 274;
/** Fewest steps that `fit` shows. */
export const FEWEST_STEPS = 12;
const MARGIN = { top: 14, right: 4, bottom: 40, left: 44 };
const OTHERS = "others";

let chart = null;
let readAt = null;
let drawn = "";

/** Returns true if an answer lists every series with its steps. The page may then compute sums itself. */
export const isComplete = (answer) => answer.series_total > 0 && answer.series_count === answer.series_total && answer.series_read === answer.series_total;

/** Applies the filters to a complete answer, so that all figures are of the same moment. */
export function choose(whole, { city, type, severity }) {
  const level = SEVERITIES.indexOf(severity);
  const series = whole.series.filter((one) => (!city || one.city === city) && (!type || one.event_type === type)).map((one) => (level < 0 ? one : {
    ...one,
    steps: one.steps.filter((step) => step[level + 1] > 0).map(([at, ...counts]) => [at, ...counts.map((n, i) => (i === level ? n : 0))]),
  }));
  const count = series.length;
  const sum = (of) => series.reduce((total, one) => total + of(one), 0);
  const allTime = Object.fromEntries(Object.keys(whole.all_time).map((name) => [name, sum((one) => one[name])]));
  const totals = { ...whole.totals, event_count: sum((one) => one.steps.flatMap(([, ...counts]) => counts).reduce((a, b) => a + b, 0)) };
  return { ...whole, series, totals, all_time: allTime, series_count: count, series_read: count, series_total: count };
}

/** Sums the series of an answer by step and by the stacked dimension. */
export function stack(answer, { severity, by }) {
  const from = Date.parse(answer.from);
  const stepMs = answer.step_seconds * 1000;
  const length = Math.round((Date.parse(answer.to) - from) / stepMs);
  const keys = by === "severity"
    ? SEVERITIES.filter((name) => !severity || name === severity)
    : [...new Set(answer.series.filter((one) => one.steps.length).map((one) => one.event_type))].sort(byType);
  if (by !== "severity" && answer.others.steps.length) keys.push(OTHERS);
  const steps = Array.from({ length }, (_, i) => ({
    from: from + i * stepMs,
    to: from + (i + 1) * stepMs,
    counts: keys.map(() => 0),
    total: 0,
    open: answer.open.includes(i),
  }));
  for (const one of [...answer.series, { ...answer.others, event_type: OTHERS }]) {
    for (const [at, ...counts] of one.steps) {
      const step = steps[at];
      if (!step) continue;
      counts.forEach((count, level) => {
        const key = keys.indexOf(by === "severity" ? SEVERITIES[level] : one.event_type);
        if (key < 0) return;
        step.counts[key] += count;
        step.total += count;
      });
    }
  }
  return { from, stepMs, keys, steps };
}

/** Leaves out the time before the first event, but keeps at least `FEWEST_STEPS`. */
function fit(model) {
  const first = model.steps.findIndex((step) => step.total > 0);
  const skip = Math.max(0, Math.min(first, model.steps.length - FEWEST_STEPS));
  return { ...model, from: model.steps[skip].from, steps: model.steps.slice(skip) };
}

/** Returns round numbers up to about `max`. */
function ticks(max) {
  const rough = Math.max(1, max) / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough));
  const last = Math.ceil(Math.max(1, max) / step) * step;
  return Array.from({ length: Math.round(last / step) + 1 }, (_, i) => i * step);
}

/** Returns the labels of the time axis: the step, its time, and a second line where the date changes. */
function timeTicks(model, width) {
  const fits = Math.max(2, Math.floor(width / 72));
  const spanMs = model.stepMs * model.steps.length;
  const minute = 60_000;
  const choices = [5, 10, 15, 30, 60, 120, 180, 240, 360, 720, 1440, 2880].map((n) => n * minute);
  // Over several days the labels are dates, because a clock time would repeat.
  const every = choices.find((ms) => spanMs / ms <= fits && (spanMs < 2160 * minute || ms >= 1440 * minute)) ?? 2880 * minute;
  const days = every >= 1440 * minute;
  const ticks = model.steps.map((step, i) => [i, step.from]).filter(([, ms]) => ms % every < model.stepMs);
  const year = (ms) => String(new Date(ms).getUTCFullYear());
  const above = ticks.map(([, ms]) => (days ? year(ms) : dayYear(ms)));
  return ticks.map(([i, ms], n) => {
    // Two dates side by side would overlap. The later date implies the earlier one.
    const crowded = !days && n + 1 < ticks.length && above[n + 1] !== above[n];
    const second = above[n] !== above[n - 1] && !crowded ? above[n] : "";
    return [i, days ? day(ms) : clock(ms), second];
  });
}

const colour = (key, by) => (key === OTHERS ? "" : by === "severity" ? `sev-${key}` : typeClass(key));

function times(step) {
  const sameDay = day(step.from) === day(step.to - 1);
  return `${day(step.from)}, ${clock(step.from)}–${sameDay ? "" : `${day(step.to)}, `}${clock(step.to)}`;
}

function describe(model, at) {
  const step = model.steps[at];
  const parts = model.keys.map((key, i) => [key, step.counts[i]]).filter(([, count]) => count > 0);
  return {
    title: times(step),
    total: `${whole(step.total)} ${step.total === 1 ? "event" : "events"}`,
    parts,
    open: step.open,
    text: `${times(step)}: ${whole(step.total)} ${step.total === 1 ? "event" : "events"}${parts.length ? `, ${parts.map(([k, n]) => `${k} ${whole(n)}`).join(", ")}` : ""}${step.open ? ", still counting" : ""}`,
  };
}

function frame(host) {
  const svg = s("svg", { class: "plot", "aria-hidden": "true", focusable: "false" });
  const tip = h("div", { class: "tip", hidden: true });
  const slider = h("div", {
    class: "plot-focus", tabindex: "0", role: "slider", "aria-label": "Events over time",
    "aria-orientation": "horizontal", "aria-valuemin": "1", "aria-valuemax": "1", "aria-valuenow": "1",
  }, svg, tip);
  host.replaceChildren(slider);
  chart = { host, svg, tip, slider, model: null };
  slider.addEventListener("pointermove", (event) => read(place(event), true));
  slider.addEventListener("pointerdown", (event) => read(place(event), true));
  slider.addEventListener("pointerleave", () => read(null, true));
  slider.addEventListener("focus", () => { if (slider.matches(":focus-visible")) read(last()); });
  slider.addEventListener("blur", () => read(null));
  slider.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -12, PageUp: 12 };
    const end = chart.model.steps.length - 1;
    if (event.key in moves) read(Math.min(end, Math.max(0, (readAt ?? last()) + moves[event.key])));
    else if (event.key === "Home") read(0);
    else if (event.key === "End") read(end);
    else if (event.key === "Escape") read(null);
    else return;
    event.preventDefault();
  });
  new ResizeObserver(() => chart.model && draw(chart.model, filters().by)).observe(host);
}

function last() {
  const at = chart.model.steps.findLastIndex((step) => step.total > 0);
  return at < 0 ? chart.model.steps.length - 1 : at;
}

function place(event) {
  const box = chart.svg.getBoundingClientRect();
  const width = box.width - MARGIN.left - MARGIN.right;
  const at = Math.floor(((event.clientX - box.left - MARGIN.left) / width) * chart.model.steps.length);
  return at >= 0 && at < chart.model.steps.length ? at : null;
}

function read(at) {
  readAt = at;
  const { tip, slider, svg, model } = chart;
  const band = svg.querySelector(".band");
  tip.hidden = at === null;
  band?.setAttribute("visibility", at === null ? "hidden" : "visible");
  if (at === null || !band) return;
  const words = describe(model, at);
  const by = filters().by;
  const { x, width } = chart.scale;
  band.setAttribute("x", x(at));
  band.setAttribute("width", x(1) - x(0));
  put(tip,
    h("strong", {}, words.title), h("span", { class: "tip-total" }, words.total),
    ...words.parts.map(([key, count]) => h("span", { class: "tip-row" }, h("i", { class: `swatch ${colour(key, by)}` }), key, h("b", {}, whole(count)))),
    words.open ? h("em", {}, "still counting") : null,
  );
  const left = x(at + 0.5);
  tip.classList.toggle("to-left", left > width / 2);
  tip.style.setProperty("--x", `${left}px`);
  slider.setAttribute("aria-valuemax", model.steps.length);
  slider.setAttribute("aria-valuenow", at + 1);
  slider.setAttribute("aria-valuetext", words.text);
}

function draw(model, by) {
  const { svg, host } = chart;
  chart.model = model;
  const width = Math.max(240, host.clientWidth);
  const inner = { width: width - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
  const marks = ticks(Math.max(...model.steps.map((step) => step.total)));
  const top = marks.at(-1);
  const x = (at) => MARGIN.left + (at / model.steps.length) * inner.width;
  const y = (n) => MARGIN.top + inner.height - (n / top) * inner.height;
  chart.scale = { x, width };
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.setAttribute("height", HEIGHT);
  const slot = inner.width / model.steps.length;
  const gap = Math.min(3, slot * 0.22);
  const shape = JSON.stringify([width, model.from, model.stepMs, model.steps.length, model.keys, by]);
  // If the bars are the same as before, only their heights change, with an animation.
  if (shape !== drawn) {
    drawn = shape;
    svg.replaceChildren(
      s("g", { class: "grid" }),
      s("rect", { class: "band", y: MARGIN.top, height: inner.height, visibility: "hidden" }),
      s("g", { class: "bars" }, ...model.steps.map((_, i) => s("g", {}, ...model.keys.map((key) =>
        s("rect", { class: colour(key, by), x: x(i) + gap / 2, width: Math.max(1, slot - gap), y: y(0), height: 0 }))))),
      s("g", { class: "axis" },
        s("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(0), y2: y(0) }),
        ...timeTicks(model, inner.width).flatMap(([i, text, second]) => [[text, 22], [second, 7]].filter(([words]) => words)
          .map(([words, up]) => s("text", { x: x(i), y: HEIGHT - up, "text-anchor": x(i) < MARGIN.left + 40 ? "start" : x(i) > width - 44 ? "end" : "middle" }, words)))),
    );
  }
  svg.querySelector(".grid").replaceChildren(...marks.slice(1).flatMap((n) => [
    s("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(n), y2: y(n) }),
    s("text", { x: MARGIN.left - 8, y: y(n) + 4, "text-anchor": "end" }, short(n)),
  ]));
  const bars = svg.querySelector(".bars").children;
  model.steps.forEach((step, i) => {
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
  if (readAt !== null) read(Math.min(readAt, model.steps.length - 1));
}

const STEP_WORDS = (seconds) => (seconds % 3600 === 0 ? `${seconds / 3600} h` : `${Math.round(seconds / 60)} min`);

export function render(answer) {
  const host = byId("chart");
  if (!chart) frame(host);
  const chosen = filters();
  const entire = stack(answer, chosen);
  const model = chosen.span === "fit" ? fit(entire) : entire;
  draw(model, chosen.by);
  const total = model.steps.reduce((sum, step) => sum + step.total, 0);
  const sums = model.keys.map((_, k) => model.steps.reduce((sum, step) => sum + step.counts[k], 0));
  put(byId("legend"),
    ...model.keys.map((key, k) => h("li", {}, h("i", { class: `swatch ${colour(key, chosen.by)}` }), key, h("b", {}, whole(sums[k])))),
    answer.open.length ? h("li", { class: "legend-open" }, h("i", { class: "swatch open" }), "still counting") : null,
  );
  const first = model.steps[0].from;
  const end = model.steps.at(-1).to;
  const more = answer.series_total - answer.series_read;
  const late = answer.all_time.late_count;
  setText(byId("chart-note"), `${plural(total, "event")} · ${range(first, end)} · ${STEP_WORDS(answer.step_seconds)} bars`);
  put(byId("chart-scope"),
    total ? null : h("span", {}, nothing()),
    more > 0 ? h("span", {}, `This chart and “this range” cover only the ${whole(answer.series_read)} largest of ${whole(answer.series_total)} series. ${answer.partial ? "Loading the others." : "Choose a city to see the others."}`) : null,
    late > 0 && !chosen.severity ? h("span", {}, `${whole(late)} late ${late === 1 ? "event" : "events"} (all time) arrived after the window was final: counted in the totals, not in this chart.`) : null,
  );
  chart.slider.setAttribute("aria-valuemax", model.steps.length);
  if (readAt === null) {
    chart.slider.setAttribute("aria-valuenow", last() + 1);
    chart.slider.setAttribute("aria-valuetext", describe(model, last()).text);
  }
}
