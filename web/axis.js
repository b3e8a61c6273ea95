// The marks of the chart's axes.

import { clock, day, dayYear, offsetMs } from "./time.js";

const MINUTE_MS = 60_000;
const DAY_MS = 1_440 * MINUTE_MS;
const EVERY_MS = [5, 10, 15, 30, 60, 120, 180, 240, 360, 720, ...[1, 2, 7, 14, 28, 91, 364, 1820].map((n) => n * 1440)].map((n) => n * MINUTE_MS);
/** Width of a label of the time axis, with the space after it. */
const LABEL_WIDTH = 72;

/** Returns round numbers up to about `max`. */
export function countMarks(max) {
  const rough = Math.max(1, max) / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough));
  const last = Math.ceil(Math.max(1, max) / step) * step;
  return Array.from({ length: Math.round(last / step) + 1 }, (_, i) => i * step);
}

/** Returns the labels of the time axis: the step, its time, and a second line where the date changes. */
export function timeMarks({ steps, stepMs }, width) {
  const fits = Math.max(2, Math.floor(width / LABEL_WIDTH));
  const lengthMs = stepMs * steps.length;
  // Over several days the labels are dates, because a clock time would repeat.
  const every = EVERY_MS.find((ms) => lengthMs / ms <= fits && (lengthMs < 1.5 * DAY_MS || ms >= DAY_MS)) ?? EVERY_MS.at(-1);
  const days = every >= DAY_MS;
  const marks = steps.map((step, i) => [i, step.from]).filter(([, ms]) => (ms + offsetMs(ms)) % every < stepMs);
  const above = marks.map(([, ms]) => (days ? dayYear(ms).slice(-4) : dayYear(ms)));
  return marks.map(([i, ms], n) => {
    // Two dates side by side would overlap. The later date implies the earlier one.
    const crowded = !days && n + 1 < marks.length && above[n + 1] !== above[n];
    const second = above[n] !== above[n - 1] && !crowded ? above[n] : "";
    return [i, days ? day(ms) : clock(ms), second];
  });
}
