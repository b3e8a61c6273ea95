// The cities with their events of all time, and a sparkline of the range.

import { ask } from "./data.js";
import { byId, h, plural, put, s, setText, SEVERITIES, whole } from "./dom.js";
import { isComplete, stepBounds } from "./series.js";
import { clockSeconds, zoneAt } from "./time.js";
import { choose, view } from "./view.js";

const FEW = 8;
/** Most points of a sparkline. */
const SPARK_POINTS = 48;

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
  const { city, type, severity } = view();
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

/** Returns the events of each city in at most `SPARK_POINTS` parts of the range. */
function stepsByCity({ whole: answer }) {
  const { type, severity } = view();
  const length = stepBounds(answer).length - 1;
  const width = Math.ceil(length / SPARK_POINTS) || 1;
  const level = SEVERITIES.indexOf(severity);
  const found = new Map();
  for (const one of answer.series) {
    if (type && one.event_type !== type) continue;
    const values = found.get(one.city) ?? Array(Math.ceil(length / width)).fill(0);
    found.set(one.city, values);
    for (const [at, ...counts] of one.steps) {
      const place = Math.floor(at / width);
      if (place < values.length) values[place] += level < 0 ? counts.reduce((a, b) => a + b, 0) : counts[level];
    }
  }
  return found;
}

/** Returns the row of a city, which opens the view of the city. */
function cityRow(name, total, most, values) {
  return h("li", {}, h("button", {
    type: "button", class: `city${name === view().city ? " chosen" : ""}`, "data-city": name, title: name, "aria-haspopup": "dialog",
    onclick: () => choose({ open: `city:${name}` }), "--share": total / most,
  },
    h("span", { class: "city-name" }, name), values ? spark(values) : h("span", {}), h("span", { class: "city-total" }, whole(total))));
}

/** Returns the row that sums the cities without a row, and the button that shows more or fewer. */
function restRows(list, shown, others, again) {
  const hidden = list.slice(shown);
  const count = hidden.length + others.city_count;
  const events = hidden.reduce((sum, [, total]) => sum + total, others.total_events);
  const words = all ? "Show fewer" : `Show ${others.city_count ? "the" : "all"} ${whole(list.length)} ${others.city_count ? "largest" : "cities"}`;
  return [
    count ? h("li", { class: "city-others" }, h("span", { class: "city-name" }, `${plural(count, "other city", "other cities")}`), h("span", {}), h("span", { class: "city-total", id: "cities-others" }, whole(events))) : null,
    list.length > FEW ? h("li", {}, h("button", { type: "button", class: "quiet", onclick: () => { all = !all; again(); } }, words)) : null,
  ];
}

export function render(answer) {
  const { city: chosen, type, severity } = view();
  const { list, others, cut, at } = totalsBy(answer);
  const atMs = Date.parse(at);
  const asOf = at === answer.chosen.generated_at ? "" : ` · as of ${clockSeconds(atMs)} ${zoneAt(atMs)}`;
  const values = stepsByCity(answer);
  const state = JSON.stringify([list, others, [...values], chosen, type, severity, all, asOf]);
  if (state === before) return;
  before = state;
  setText(byId("cities-note"), `${[severity, type].filter(Boolean).join(" ") || "all"} events, all time, largest first · line: this range${cut}${asOf}`);
  const most = Math.max(1, list[0]?.[1] ?? 0);
  const focused = document.activeElement?.dataset?.city;
  const shown = all ? list : list.slice(0, FEW);
  put(byId("cities"),
    ...shown.map(([name, total]) => cityRow(name, total, most, values.get(name))),
    ...restRows(list, shown.length, others, () => render(answer)));
  if (focused) byId("cities").querySelector(`[data-city="${CSS.escape(focused)}"]`)?.focus();
}
