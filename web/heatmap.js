// City by type: how many, and how much of it is serious.

import { byId, byType, h, put, SEVERITIES, short, whole } from "./dom.js";
import { choose, filters } from "./filters.js";

const CITIES_MAX = 12;

let before = "";

export function render(answer) {
  const chosen = filters();
  const cells = new Map();
  const cities = new Map();
  for (const one of answer.series) {
    if (chosen.city && one.city !== chosen.city) continue;
    if (chosen.type && one.event_type !== chosen.type) continue;
    const counts = [0, 0, 0, 0];
    for (const [, ...step] of one.steps) step.forEach((n, i) => { counts[i] += n; });
    const kept = chosen.severity ? counts.map((n, i) => (SEVERITIES[i] === chosen.severity ? n : 0)) : counts;
    cells.set(`${one.city}#${one.event_type}`, kept);
    const total = kept.reduce((a, b) => a + b, 0);
    cities.set(one.city, (cities.get(one.city) ?? 0) + total);
  }
  const rows = [...cities].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).slice(0, CITIES_MAX).map(([city]) => city);
  const types = [...new Set([...cells.keys()].map((key) => key.split("#")[1]))].sort(byType);
  const state = JSON.stringify([rows, types, [...cells], chosen]);
  if (state === before) return;
  before = state;
  const serious = ([, , high, critical]) => high + critical;
  const most = Math.max(1, ...[...cells.values()].map(serious));
  const focused = document.activeElement?.dataset?.cell;
  put(byId("heat"),
    h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "visually-hidden" }, "City")), ...types.map((type) => h("th", { scope: "col" }, type)))),
      h("tbody", {}, ...rows.map((city) => h("tr", {}, h("th", { scope: "row" }, city), ...types.map((type) => {
        const counts = cells.get(`${city}#${type}`);
        if (!counts) return h("td", {}, h("span", { class: "cell none" }, "–"));
        return h("td", {}, cell(city, type, counts, serious(counts) / most, chosen));
      }))))),
  );
  if (focused) byId("heat").querySelector(`[data-cell="${CSS.escape(focused)}"]`)?.focus();
}

function cell(city, type, counts, heat, chosen) {
  const total = counts.reduce((a, b) => a + b, 0);
  const words = counts.map((n, i) => [n, SEVERITIES[i]]).filter(([n]) => n > 0).map(([n, name]) => `${whole(n)} ${name}`).join(", ");
  const pressed = chosen.city === city && chosen.type === type;
  return h("button", {
    type: "button", class: "cell", "data-cell": `${city}#${type}`, "aria-pressed": String(pressed),
    title: `${city}, ${type}: ${words || "none"}`, "aria-label": `${city}, ${type}: ${short(total)} events${words ? `, ${words}` : ""}`,
    "--warmth": `${Math.round(Math.sqrt(heat) * 100)}%`,
    onclick: () => choose(pressed ? { city: "", type: "" } : { city, type }),
  },
    h("span", { class: "cell-total" }, short(total)),
    h("span", { class: "cell-bar", "aria-hidden": "true" }, ...counts.map((n, i) => (n ? h("i", { class: `sev-${SEVERITIES[i]}`, "--part": n }) : null))),
  );
}
