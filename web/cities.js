// Every city with all its events and the shape of its last hours.

import { byId, h, put, s, SEVERITIES, whole } from "./dom.js";
import { choose, filters } from "./filters.js";
import { FEWEST_STEPS } from "./timeline.js";

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

export function render(answer) {
  const { city: chosen, type, severity, span } = filters();
  const steps = Math.round((Date.parse(answer.to) - Date.parse(answer.from)) / 1000 / answer.step_seconds);
  // As in the chart, what lies before the first event is left out where it should fit.
  const begun = Math.min(...answer.series.map((one) => one.steps[0]?.[0] ?? steps));
  const skip = span === "fit" ? Math.max(0, Math.min(begun, steps - FEWEST_STEPS)) : 0;
  const length = steps - skip;
  const width = Math.ceil(length / 48) || 1;
  const level = SEVERITIES.indexOf(severity);
  const cities = new Map();
  for (const one of answer.series) {
    if (type && one.event_type !== type) continue;
    const city = cities.get(one.city) ?? { name: one.city, total: 0, values: Array(Math.ceil(length / width)).fill(0) };
    cities.set(one.city, city);
    city.total += severity ? one[`severity_${severity}`] : one.event_count + one.late_count;
    for (const [at, ...counts] of one.steps) {
      const add = level < 0 ? counts.reduce((a, b) => a + b, 0) : counts[level];
      const place = Math.floor((at - skip) / width);
      if (place >= 0 && place < city.values.length) city.values[place] += add;
    }
  }
  const sorted = [...cities.values()].sort((a, b) => b.total - a.total || a.name.localeCompare(b.name));
  const state = JSON.stringify([sorted, chosen, all]);
  if (state === before) return;
  before = state;
  const most = Math.max(1, sorted[0]?.total ?? 0);
  const focused = document.activeElement?.dataset?.city;
  const shown = all ? sorted : sorted.slice(0, FEW);
  put(byId("cities"),
    ...shown.map((city) => h("li", {}, h("button", {
      type: "button", class: "city", "data-city": city.name, "aria-pressed": String(city.name === chosen),
      onclick: () => choose({ city: city.name }, { toggle: true }), "--share": city.total / most,
    },
      h("span", { class: "city-name" }, city.name), spark(city.values), h("span", { class: "city-total" }, whole(city.total))))),
    sorted.length > FEW ? h("li", {}, h("button", { type: "button", class: "quiet", onclick: () => { all = !all; render(answer); } },
      all ? "Show fewer" : `Show all ${sorted.length} cities`)) : null,
  );
  if (focused) byId("cities").querySelector(`[data-city="${CSS.escape(focused)}"]`)?.focus();
}
