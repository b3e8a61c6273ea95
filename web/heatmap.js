// Events by city and type, and how many of them are high or critical.

import { byId, byType, h, put, setText, SEVERITIES, short, whole } from "./dom.js";
import { nothing } from "./filters.js";
import { choose, view } from "./view.js";

const CITIES_MAX = 12;

let before = "";

export function render(answer) {
  const chosen = view();
  const cells = new Map();
  const cities = new Map();
  for (const one of answer.series) {
    const counts = [0, 0, 0, 0];
    for (const [, ...step] of one.steps) step.forEach((n, i) => { counts[i] += n; });
    const total = counts.reduce((a, b) => a + b, 0);
    if (!total) continue;
    cells.set(`${one.city}#${one.event_type}`, counts);
    cities.set(one.city, (cities.get(one.city) ?? 0) + total);
  }
  const order = [...cities].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).map(([city]) => city);
  const [rows, rest] = [order.slice(0, CITIES_MAX), new Set(order.slice(CITIES_MAX))];
  const types = [...new Set([...cells.keys()].map((key) => key.split("#")[1]))].sort(byType);
  const state = JSON.stringify([rows, types, [...cells], chosen, answer.series_read, nothing()]);
  if (state === before) return;
  before = state;
  setText(byId("heat-note"), `Events in this range by city and type${answer.series_read < answer.series_total ? `, ${whole(answer.series_read)} largest series only` : ""}. A warmer color means more high and critical events.`);
  if (!rows.length) {
    put(byId("heat"), h("p", { class: "empty" }, nothing()));
    return;
  }
  const serious = ([, , high, critical]) => high + critical;
  const shown = rows.flatMap((city) => types.map((type) => cells.get(`${city}#${type}`)).filter(Boolean));
  const most = Math.max(1, ...shown.map(serious));
  const focused = document.activeElement?.dataset?.cell;
  put(byId("heat"),
    h("table", { "--types": types.length },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "visually-hidden" }, "City")), ...types.map((type) => h("th", { scope: "col", title: type }, type)))),
      h("tbody", {}, ...rows.map((city) => h("tr", {}, h("th", { scope: "row", title: city }, city), ...types.map((type) => {
        const counts = cells.get(`${city}#${type}`);
        if (!counts) return h("td", {}, h("span", { class: "cell none" }, "–"));
        return h("td", {}, cell(city, type, counts, serious(counts) / most, chosen));
      }))), rest.size ? othersRow(rest, types, cells) : "")),
  );
  if (focused) byId("heat").querySelector(`[data-cell="${CSS.escape(focused)}"]`)?.focus();
}

/** Returns the row that sums the cities without their own row. */
function othersRow(rest, types, cells) {
  const sums = new Map(types.map((type) => [type, 0]));
  for (const [key, counts] of cells) {
    const [city, type] = key.split("#");
    if (rest.has(city)) sums.set(type, sums.get(type) + counts.reduce((a, b) => a + b, 0));
  }
  return h("tr", { class: "heat-others" }, h("th", { scope: "row" }, `${whole(rest.size)} others`),
    ...types.map((type) => h("td", {}, h("span", { class: "cell" }, h("span", { class: "cell-total" }, short(sums.get(type)))))));
}

function cell(city, type, counts, heat, chosen) {
  const total = counts.reduce((a, b) => a + b, 0);
  const words = counts.map((n, i) => [n, SEVERITIES[i]]).filter(([n]) => n > 0).map(([n, name]) => `${whole(n)} ${name}`).join(", ");
  const pressed = chosen.city === city && chosen.type === type;
  return h("button", {
    type: "button", class: "cell", "data-cell": `${city}#${type}`, "aria-pressed": String(pressed),
    title: `${city}, ${type}: ${words || "none"}`, "aria-label": `${city}, ${type}: ${short(total)} events${words ? `, ${words}` : ""}`,
    "--warmth": `${Math.round(Math.sqrt(heat) * 100)}%`,
    onclick: () => {
      // The filters may have changed since the cell was drawn.
      const now = view();
      choose(now.city === city && now.type === type ? { city: "", type: "" } : { city, type });
    },
  },
    h("span", { class: "cell-total" }, short(total)),
    h("span", { class: "cell-bar", "aria-hidden": "true" }, ...counts.map((n, i) => (n ? h("i", { class: `sev-${SEVERITIES[i]}`, "--part": n }) : null))),
  );
}
