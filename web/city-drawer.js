// The view of a city: its sum, its types, its chart of the range, and its events.

import { loadCity } from "./answers.js";
import { ask } from "./data.js";
import { byType, h, plural, SEVERITIES, typeClass, whole } from "./dom.js";
import { register } from "./drawer.js";
import { eventsSection } from "./events.js";
import { Plot } from "./plot.js";
import * as range from "./range.js";
import { stack } from "./series.js";
import { moment, range as rangeText } from "./time.js";
import { openStep } from "./timeline.js";
import { choose, view } from "./view.js";

let bounds = null;
let waiting = [];

/** Records the range on screen, in which the view shows a city. Null means that an answer will show it. */
export function setRange(answer) {
  bounds = answer && { from: answer.from, to: answer.to };
  if (!bounds) return;
  waiting.forEach((resolve) => resolve(bounds));
  waiting = [];
}

const rangeOnScreen = () => bounds ?? new Promise((resolve) => waiting.push(resolve));

function typeRow(type, count, most, city) {
  return h("li", {}, h("button", { type: "button", class: "type-row", "--share": count / most, title: `Show only ${type} in ${city}`, onclick: () => choose({ city, type, open: "" }) },
    h("span", {}, h("i", { class: `swatch ${typeClass(type)}` }), ` ${type}`), h("b", {}, whole(count))));
}

/** Returns the types of a city with their counts of all time, and buttons that filter by them. */
function typesSection({ city, event_type_breakdown: counts }) {
  const types = Object.keys(counts).sort(byType);
  const most = Math.max(1, ...Object.values(counts));
  return h("section", {}, h("h3", {}, "By type, all time"), h("ul", { class: "types" }, ...types.map((type) => typeRow(type, counts[type], most, city))));
}

function severitySums(answer) {
  const sums = SEVERITIES.map((name) => [name, answer.totals[`severity_${name}`]]);
  return h("ul", { class: "legend" }, ...sums.map(([name, n]) => h("li", {}, h("span", { class: "legend-entry" }, h("i", { class: `swatch sev-${name}` }), name, h("b", {}, whole(n))))));
}

function chartSection(answer, city) {
  const host = h("div", { class: "chart city-chart" });
  const { by } = view();
  // A click keeps the city, so that the drawer of the bar shows only its events.
  const pick = (step) => openStep(step, { city });
  const plot = new Plot(host, `Events in ${city} over time`, { pick, select: (from, to) => range.show(from, to) });
  // The chart needs its width, which it has only after the drawer shows it.
  requestAnimationFrame(() => plot.render(stack(answer, { severity: "", by }), by));
  return h("section", {}, h("h3", {}, "Events over time"),
    h("p", { class: "note" }, `${plural(answer.totals.event_count, "event")} · ${rangeText(Date.parse(answer.from), Date.parse(answer.to))}`), host, severitySums(answer));
}

register("city", async (city) => {
  const [summary, shown] = await Promise.all([ask(`/api/v1/summary/${encodeURIComponent(city)}`), rangeOnScreen()]);
  const answer = await loadCity(shown, city);
  const isChosen = view().city === city;
  return {
    title: city,
    body: [
      h("p", { class: "drawer-figure", id: "city-total" }, plural(summary.total_events, "event"), h("span", { class: "note" }, ` all time, as of ${moment(Date.parse(summary.generated_at))}`)),
      h("p", { class: "drawer-links" }, h("button", { type: "button", class: "quiet", id: "city-filter", onclick: () => (isChosen ? choose({ city: "", open: "" }) : choose({ city, open: "" })) },
        isChosen ? "Show all cities" : `Show only ${city} on the page`)),
      chartSection(answer, city),
      typesSection(summary),
      eventsSection(city, { from: answer.from, to: answer.to }, { type: "", severity: "" }),
    ],
  };
});
