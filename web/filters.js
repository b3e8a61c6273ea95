// The filters: city, type and severity, and the notices about them.

import { byId, byType, h, segments, setText, SEVERITIES } from "./dom.js";
import { choose, refusals, view } from "./view.js";

let unknown = false;
let cities = [];
let types = [];

/** Returns the filters as query parameters of the timeline, or an empty text without filters. */
export function query() {
  const { city, type, severity } = view();
  const given = { city, event_type: type, severity };
  return new URLSearchParams(Object.entries(given).filter(([, value]) => value)).toString();
}

/** Returns how many filters are set. */
const count = () => ["city", "type", "severity"].filter((name) => view()[name]).length;
export const isFiltered = () => count() > 0;

/** Sets whether no event has ever matched city and type. */
export function setUnknown(is) {
  unknown = is;
  notice();
}

export const isUnknown = () => unknown;

/** Returns why a card is empty. */
export function nothing() {
  if (unknown) return "No events match these filters.";
  return isFiltered() ? "No events in this range match these filters." : "No events in this range.";
}

function notice() {
  const { city, type } = view();
  const words = [...refusals()];
  if (unknown) words.push(`No events${type ? ` of type ${type}` : ""}${city ? ` in “${city}”` : ""} so far. City names are case-sensitive.`);
  const box = byId("notice");
  setText(box, words.join(" "));
  box.hidden = !words.length;
}

/** Sets the cities and types to choose from. The current choice is always among them. */
export function offer(newCities, newTypes) {
  const same = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);
  if (same(cities, newCities) && same(types, newTypes)) return;
  [cities, types] = [newCities, newTypes];
  render();
}

export function render() {
  const { city, type, severity } = view();
  const select = byId("city");
  const names = [...new Set([...cities, city].filter(Boolean))].sort((a, b) => a.localeCompare(b));
  if (select.dataset.options !== JSON.stringify(names)) {
    select.dataset.options = JSON.stringify(names);
    select.replaceChildren(h("option", { value: "" }, "All cities"), ...names.map((name) => h("option", { value: name }, name)));
  }
  select.value = city;
  const known = [...new Set([...types, type].filter(Boolean))].sort(byType);
  segments(byId("types"), "type", [["", "All types"], ...known.map((name) => [name, name])], type, choose);
  segments(byId("severities"), "severity", [["", "Any severity"], ...SEVERITIES.map((name) => [name, name, `sev-${name}`])], severity, choose);
  byId("clear").hidden = !isFiltered();
  setText(byId("sheet-count"), isFiltered() ? ` · ${count()}` : "");
  notice();
}

/** Forgets that nothing matched, because the filters have changed. */
export function changed() {
  unknown = false;
  render();
}

byId("city").addEventListener("change", (event) => choose({ city: event.target.value }));
byId("clear").addEventListener("click", () => {
  choose({ city: "", type: "", severity: "" });
  byId("city").focus();
});
byId("filters").addEventListener("submit", (event) => event.preventDefault());
