// The data of a timeline: sums of its series by step, and the filters on a complete answer.

import { byType, SEVERITIES } from "./dom.js";

export const OTHERS = "others";
/** Fewest steps that `trim` leaves. */
const STEPS_MIN = 12;

/** Returns true if an answer lists every series with its steps. The page may then compute sums itself. */
export const isComplete = (answer) => answer.series_total > 0 && answer.series_count === answer.series_total && answer.series_read === answer.series_total;

/** Returns the start of each step, and the end of the last one. */
export function stepBounds(answer) {
  const [from, to, stepMs] = [Date.parse(answer.from), Date.parse(answer.to), answer.step_seconds * 1_000];
  const starts = answer.step_starts?.map(Date.parse) ?? Array.from({ length: Math.round((to - from) / stepMs) }, (_, i) => from + i * stepMs);
  return [...starts, to];
}

const addUp = (list, of) => list.reduce((total, one) => total + of(one), 0);

function chooseSeries(series, { city, type, severity }) {
  const level = SEVERITIES.indexOf(severity);
  const matching = series.filter((one) => (!city || one.city === city) && (!type || one.event_type === type));
  if (level < 0) return matching;
  return matching.map((one) => ({
    ...one,
    steps: one.steps.filter((step) => step[level + 1] > 0).map(([at, ...counts]) => [at, ...counts.map((n, i) => (i === level ? n : 0))]),
  }));
}

/** Applies the filters to a complete answer, so that all figures are of the same moment. */
export function choose(whole, filters) {
  const series = chooseSeries(whole.series, filters);
  const count = series.length;
  const allTime = Object.fromEntries(Object.keys(whole.all_time).map((name) => [name, addUp(series, (one) => one[name])]));
  const levels = SEVERITIES.map((_, level) => addUp(series, (one) => addUp(one.steps, (step) => step[level + 1])));
  const totals = { ...whole.totals, event_count: addUp(levels, (n) => n) };
  SEVERITIES.forEach((name, level) => { totals[`severity_${name}`] = levels[level]; });
  const previous = whole.previous && choose(whole.previous, filters);
  return { ...whole, series, totals, all_time: allTime, previous, series_count: count, series_read: count, series_total: count };
}

/** Returns how many steps at the begin of an answer are before the first event and need not be shown. */
export function emptySteps(answer) {
  const length = stepBounds(answer).length - 1;
  const first = Math.min(length, ...[...answer.series, answer.others].map((one) => one.steps[0]?.[0] ?? length));
  return Math.max(0, Math.min(first, length - STEPS_MIN));
}

/** Leaves out the first `skip` steps of an answer, which are empty. */
export function trim(answer, skip) {
  if (skip === 0) return answer;
  const bounds = stepBounds(answer);
  const later = (one) => ({ ...one, steps: one.steps.map(([at, ...counts]) => [at - skip, ...counts]) });
  return {
    ...answer,
    from: new Date(bounds[skip]).toISOString().replace(".000Z", "Z"),
    step_starts: answer.step_starts?.slice(skip),
    open: answer.open.map((at) => at - skip).filter((at) => at >= 0),
    series: answer.series.map(later),
    others: later(answer.others),
    // A range that begins before the first event has no period before it.
    previous: undefined,
  };
}

/** Sums the series of an answer by step and by the stacked dimension. */
export function stack(answer, { severity, by }) {
  const bounds = stepBounds(answer);
  const keys = by === "severity"
    ? SEVERITIES.filter((name) => !severity || name === severity)
    : [...new Set(answer.series.filter((one) => one.steps.length).map((one) => one.event_type))].sort(byType);
  if (by !== "severity" && answer.others.steps.length) keys.push(OTHERS);
  const open = new Set(answer.open);
  const steps = bounds.slice(0, -1).map((from, i) => ({
    from, to: bounds[i + 1], counts: keys.map(() => 0), total: 0, open: open.has(i),
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
  const before = answer.previous ? stack({ ...answer.previous, previous: undefined }, { severity, by: "severity" }).steps.map((step) => step.total) : null;
  return { from: bounds[0], to: bounds.at(-1), stepMs: answer.step_seconds * 1_000, keys, steps, before };
}
