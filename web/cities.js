// The cities with their events of all time, and a sparkline of the range.

import { ask } from "./data.js";
import { byId, clockSeconds, h, plural, put, s, setText, SEVERITIES, whole } from "./dom.js";
import { choose, filters } from "./filters.js";
import { FEWEST_STEPS, isComplete } from "./timeline.js";

const FEW = 8;

let all = false;
let before = "";

function spark(values) {
  const most = Math.max(1, ...values);
  const step = 100 / Math.max(1, values.length - 1);
  const points = values.map((n, i) => `${(i * step).toFixed(1)} ${(22 - (n / most) * 20).toFixed(1)}`);
  return s("svg", { class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("path", { class: "spark-fill", d: `M0 24L${points.join("L")}L100 24Z` }),
    s("path", { class: "spark-line", d: `M${points.join("L")}`, "vector-effect": "non-scaling-stroke" }));
}

/**
 * Returns the cities with their totals of all time, or null if the server cannot tell which are the largest. The page needs them
 * only if the timeline does not list every series. Otherwise the timeline's totals are of the same moment as all figures.
 */
export async function load() {
  const answer = await ask("/api/v1/cities?limit=1000");
  return answer.order === "events" ? answer : null;
}

/** Returns the totals by city under the filters, largest first, and the notes about them. */
function totalsBy(answer) {
  const { city, type, severity } = filters();
  if (!type && !severity && answer.cities) {
    const { cities, others, generated_at: at } = answer.cities;
    return { list: cities.map((one) => [one.city, one.total_events]), others, cut: "", at };
  }
  const from = city || isComplete(answer.whole) ? answer.whole : answer.chosen;
  const sums = new Map();
  for (const one of from.series) {
    if (type && one.event_type !== type) continue;
    sums.set(one.city, (sums.get(one.city) ?? 0) + (severity ? one[`severity_${severity}`] : one.event_count + one.late_count));
  }
  const list = [...sums].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]));
  const cut = from.series_count < from.series_total ? ` · of the ${whole(from.series_count)} largest of ${whole(from.series_total)} series` : "";
  return { list, others: { city_count: 0, total_events: 0 }, cut, at: from.generated_at };
}

/** Returns the events of each city by step of the range. */
function stepsByCity({ whole: answer }) {
  const { type, severity, span } = filters();
  const steps = Math.round((Date.parse(answer.to) - Date.parse(answer.from)) / 1000 / answer.step_seconds);
  // As in the chart, `fit` leaves out the time before the first event.
  const begun = Math.min(steps, ...answer.series.map((one) => one.steps[0]?.[0] ?? steps));
  const skip = span === "fit" ? Math.max(0, Math.min(begun, steps - FEWEST_STEPS)) : 0;
  const length = steps - skip;
  const width = Math.ceil(length / 48) || 1;
  const level = SEVERITIES.indexOf(severity);
  const found = new Map();
  for (const one of answer.series) {
    if (type && one.event_type !== type) continue;
    const values = found.get(one.city) ?? Array(Math.ceil(length / width)).fill(0);
    found.set(one.city, values);
    for (const [at, ...counts] of one.steps) {
      const place = Math.floor((at - skip) / width);
      if (place >= 0 && place < values.length) values[place] += level < 0 ? counts.reduce((a, b) => a + b, 0) : counts[level];
    }
  }
  return found;
}

export function render(answer) {
  const { city: chosen, type, severity } = filters();
  const { list, others, cut, at } = totalsBy(answer);
  const asOf = at === answer.chosen.generated_at ? "" : ` · as of ${clockSeconds(Date.parse(at))} UTC`;
  const values = stepsByCity(answer);
  const state = JSON.stringify([list, others, [...values], chosen, type, severity, all, asOf]);
  if (state === before) return;
  before = state;
  setText(byId("cities-note"), `${[severity, type].filter(Boolean).join(" ") || "all"} events, all time, largest first · line: this range${cut}${asOf}`);
  const most = Math.max(1, list[0]?.[1] ?? 0);
  const focused = document.activeElement?.dataset?.city;
  const shown = all ? list : list.slice(0, FEW);
  const hidden = list.slice(shown.length);
  const count = hidden.length + others.city_count;
  const events = hidden.reduce((sum, [, total]) => sum + total, others.total_events);
  put(byId("cities"),
    ...shown.map(([name, total]) => h("li", {}, h("button", {
      type: "button", class: "city", "data-city": name, "aria-pressed": String(name === chosen), title: name,
      onclick: () => choose({ city: name }, { toggle: true }), "--share": total / most,
    },
      h("span", { class: "city-name" }, name), values.has(name) ? spark(values.get(name)) : h("span", {}), h("span", { class: "city-total" }, whole(total))))),
    count ? h("li", { class: "city-others" }, h("span", { class: "city-name" }, `${plural(count, "other city", "other cities")}`), h("span", {}), h("span", { class: "city-total", id: "cities-others" }, whole(events))) : null,
    list.length > FEW ? h("li", {}, h("button", { type: "button", class: "quiet", onclick: () => { all = !all; render(answer); } },
      all ? "Show fewer" : `Show ${others.city_count ? "the" : "all"} ${whole(list.length)} ${others.city_count ? "largest" : "cities"}`)) : null,
  );
  if (focused) byId("cities").querySelector(`[data-city="${CSS.escape(focused)}"]`)?.focus();
}
