// The big numbers. They count up to the value in the tables and never beyond it.

import { byId, clockSeconds, dayYear, range, setText, still, whole } from "./dom.js";
import { filters, isFiltered } from "./filters.js";

const COUNT_MS = 700;
const RATE_OVER_MS = 10_000;
/** Shortest time for a rate. Over less time, one burst of events would look like a high rate. */
const RATE_OVER_MS_MIN = 5_000;

const shown = new Map();
let seen = [];

/** Animates a figure up to `value`. */
export function countTo(element, value) {
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

/** Shows the sums that the server computed. */
export function render({ all_time: all, totals, from, to, generated_at: generatedAt, series_read: read, series_total: series }) {
  const { city, type, severity } = filters();
  const events = severity ? all[`severity_${severity}`] : all.event_count + all.late_count;
  countTo(byId("total-events"), events);
  countTo(byId("total-high"), all.severity_high);
  countTo(byId("total-critical"), all.severity_critical);
  countTo(byId("total-late"), all.late_count);
  countTo(byId("total-range"), totals.event_count);
  // With a severity filter, the main figure is the only one of all time.
  byId("all-time").hidden = Boolean(severity);
  const what = [severity, type].filter(Boolean).join(" ");
  setText(byId("total-label"), isFiltered()
    ? `${what ? `${what} ` : ""}${events === 1 ? "event" : "events"} ${city ? `in ${city}` : "in all cities"}, all time`
    : events === 1 ? "event counted, all time" : "events counted, all time");
  setText(byId("range-scope"), `this range, ${range(Date.parse(from), Date.parse(to))}`);
  setText(byId("range-what"), read < series ? `in windows, ${whole(read)} largest of ${whole(series)} series` : "in windows");
  const ms = Date.parse(generatedAt);
  const today = dayYear(ms) === dayYear(Date.now());
  setText(byId("as-of"), `as of ${today ? "" : `${dayYear(ms)}, `}${clockSeconds(ms)} UTC`);
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
