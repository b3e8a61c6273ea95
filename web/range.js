// The range on screen: what it asks the server for, and the steps one length back and forward.

import { dateOf, addDays, hasWholeHours, instantText, midnight, parseInstant, zoneName } from "./time.js";
import { choose, view } from "./view.js";

const HOUR_MS = 3_600_000;
/** Hours of the ranges with a fixed length. */
const HOURS = { "1h": 1, "6h": 6, "24h": 24, "7d": 168, "30d": 720, "1y": 8_760 };
/** Hours of `fit` while events arrive. */
const FIT_HOURS = 6;
/** Hours of `fit` if all events lie in the past: a month, and a day for months that end late. */
const FIT_PAST_HOURS = 768;
/** Age of the end of the data at which the data lies in the past. */
const LIVE_MS_MAX = 20 * 60_000;
/** Most bars that the page draws. */
const BARS_MAX = 2_000;
const STEP_MS = { window: 300_000, hour: HOUR_MS, day: 24 * HOUR_MS };

/** Bounds of the range on screen, and the end of the data, as far as answers have shown them. */
let shown = null;
let endMs = null;

/** Records the bounds of an answer, and the end of the data. */
export function setShown(answer, tail) {
  shown = { fromMs: Date.parse(answer.from), toMs: Date.parse(answer.to) };
  endMs = Date.parse(tail.to);
}

export const bounds = () => shown;
/** Returns true if the range does not end with the newest data. */
export const isFixed = () => Boolean(view().from || view().to);
/** Returns true if the server's answer ends in the past, because no events arrive. */
export const isPast = ({ to, generated_at: at }) => Date.parse(at) - Date.parse(to) > LIVE_MS_MAX;

/** Returns the length of the range in milliseconds, or null if only an answer shows it. */
function lengthMs() {
  const { from, to, span } = view();
  if (from) return (to ? parseInstant(to) : endMs ?? Date.now()) - parseInstant(from);
  return HOURS[span] ? HOURS[span] * HOUR_MS : shown && shown.toMs - shown.fromMs;
}

/** Returns true if the page draws the range in steps of this unit. */
export function allowsStep(step) {
  const ms = lengthMs();
  return !step || (ms !== null && ms / STEP_MS[step] <= BARS_MAX && (step !== "day" || hasWholeHours()));
}

/** Returns the range as query parameters of the timeline. `pastEnd` is the end of the data if it lies in the past. */
export function query(pastEnd = "") {
  const { from, to, span, step } = view();
  const asked = new URLSearchParams();
  if (from) asked.set("from", new Date(parseInstant(from)).toISOString());
  else if (span === "all") asked.set("from", "first");
  else asked.set("hours", HOURS[span] ?? (pastEnd ? FIT_PAST_HOURS : FIT_HOURS));
  if (to) asked.set("to", new Date(parseInstant(to)).toISOString());
  else if (pastEnd) asked.set("to", pastEnd);
  if (step && allowsStep(step)) asked.set("step", step);
  if (zoneName() !== "UTC" && hasWholeHours()) asked.set("tz", zoneName());
  return asked.toString();
}

/** Shows the instants `[fromMs, toMs)`. */
export const show = (fromMs, toMs, change = {}) => choose({ ...change, span: "fit", from: instantText(fromMs), to: instantText(toMs) });

/** Returns an instant that is moved by a length. Whole days stay whole when the clocks change. */
function move(ms, byMs) {
  const days = byMs / (24 * HOUR_MS);
  if (!Number.isInteger(days) || midnight(dateOf(ms)) !== ms) return ms + byMs;
  return midnight(addDays(dateOf(ms), days));
}

/** Returns true if the range can move in this direction: -1 is back, 1 is forward. */
export function canMove(direction) {
  if (!shown || (view().span === "all" && !isFixed())) return false;
  return direction < 0 ? shown.fromMs > 0 : isFixed() && shown.toMs < endMs;
}

/** Moves the range by its own length. A range with a name that reaches the end of the data follows it again. */
export function step(direction) {
  if (!canMove(direction)) return;
  const { from, to, span } = view();
  if (!from && HOURS[span]) {
    const next = (to ? parseInstant(to) : shown.toMs) + direction * HOURS[span] * HOUR_MS;
    choose({ to: next >= endMs ? "" : instantText(next) });
    return;
  }
  const [fromMs, toMs] = from ? [parseInstant(from), to ? parseInstant(to) : shown.toMs] : [shown.fromMs, shown.toMs];
  const byMs = direction * Math.round((toMs - fromMs) / HOUR_MS * 60) * 60_000;
  show(Math.max(0, move(fromMs, byMs)), move(toMs, byMs));
}
