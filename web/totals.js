// The big numbers. They count up to the value in the tables and never beyond it.

import { canCompare } from "./answers.js";
import { byId, plural, setText, still, whole } from "./dom.js";
import { isFiltered } from "./filters.js";
import { clockSeconds, dayYear, range, zoneAt } from "./time.js";
import { view } from "./view.js";

const COUNT_MS = 700;
const RATE_OVER_MS = 10_000;
/** Shortest time for a rate. Over less time, one burst of events would look like a high rate. */
const RATE_OVER_MS_MIN = 5_000;

const shown = new Map();
let seen = [];

/** Animates a figure up to `value`. */
function countTo(element, value) {
  const state = shown.get(element) ?? { from: 0, to: null, value: 0 };
  if (state.to === value) return;
  Object.assign(state, { from: state.value, to: value, begun: performance.now() });
  shown.set(element, state);
  if (still.matches || state.frame) {
    if (still.matches) show(element, state, value);
    return;
  }
  const step = (now) => {
    const part = Math.min(1, (now - state.begun) / COUNT_MS);
    show(element, state, Math.round(state.from + (state.to - state.from) * (1 - (1 - part) ** 3)));
    state.frame = part < 1 ? requestAnimationFrame(step) : 0;
  };
  state.frame = requestAnimationFrame(step);
}

function show(element, state, value) {
  state.value = value;
  setText(element, whole(value));
}

/** Restarts the rate, because the page did not observe the counts for a while. */
export function interrupt() {
  seen = [];
  setText(byId("rate"), "");
}

/** Returns the words of the filters, such as `high weather events in NYC`. */
function what(events) {
  const { city, type, severity } = view();
  const words = [severity, type, events === 1 ? "event" : "events"].filter(Boolean).join(" ");
  if (!isFiltered()) return words;
  return `${words} ${city ? `in ${city}` : "in all cities"}`;
}

/** Shows the sums of the range, which are those of the chart. */
function renderRange({ totals, previous, from, to, series_read: read, series_total: series }) {
  const { severity } = view();
  const events = totals.event_count;
  countTo(byId("total-range"), events);
  const part = read < series ? ` of the ${whole(read)} largest of ${whole(series)} series` : "";
  setText(byId("range-what"), `${what(events)}${part} in this range`);
  setText(byId("range-scope"), range(Date.parse(from), Date.parse(to)));
  byId("range-parts").hidden = Boolean(severity);
  countTo(byId("range-high"), totals.severity_high);
  countTo(byId("range-critical"), totals.severity_critical);
  renderDifference(events, previous);
}

/** Shows how the range differs from the period before it. */
function renderDifference(events, previous) {
  const box = byId("difference");
  box.hidden = !view().compare || !canCompare();
  if (!previous) {
    setText(box, "The events begin in this range, so there is no period before it.");
    return;
  }
  const before = previous.totals.event_count;
  const sign = events > before ? "+" : events < before ? "−" : "±";
  const by = Math.abs(events - before);
  const percent = before ? ` (${sign}${((by / before) * 100).toFixed(1)} %)` : "";
  setText(box, `${sign}${whole(by)}${percent} against ${plural(before, "event")} in the period before`);
}

/** Shows the sums that the server computed. */
export function render(answer) {
  const { all_time: all, generated_at: generatedAt } = answer;
  const { city, type, severity } = view();
  const events = severity ? all[`severity_${severity}`] : all.event_count + all.late_count;
  renderRange(answer);
  countTo(byId("total-events"), events);
  countTo(byId("total-high"), all.severity_high);
  countTo(byId("total-critical"), all.severity_critical);
  countTo(byId("total-late"), all.late_count);
  // With a severity filter, the main figure is the only one of all time.
  byId("all-time").hidden = Boolean(severity);
  setText(byId("total-label"), isFiltered() ? `${what(events)}, all time` : `${what(events)} counted, all time`);
  const ms = Date.parse(generatedAt);
  const today = dayYear(ms) === dayYear(Date.now());
  setText(byId("as-of"), `as of ${today ? "" : `${dayYear(ms)}, `}${clockSeconds(ms)} ${zoneAt(ms)}`);
  setText(byId("rate"), rate(`${city}|${type}|${severity}`, ms, events));
}

/** Returns the recent rate of counted events as text, or an empty text if it is unknown. */
function rate(view, ms, events) {
  if (seen.length && seen[0].view !== view) seen = [];
  const last = seen.at(-1);
  if (!last || last.ms < ms) seen.push({ view, ms, events });
  while (seen.length > 2 && ms - seen[1].ms >= RATE_OVER_MS) seen.shift();
  const [first] = seen;
  if (ms - first.ms < RATE_OVER_MS_MIN || events < first.events) return "";
  const perSecond = ((events - first.events) * 1000) / (ms - first.ms);
  if (perSecond === 0) return "";
  return ` · ${perSecond < 10 ? perSecond.toFixed(1) : whole(Math.round(perSecond))} per second`;
}
