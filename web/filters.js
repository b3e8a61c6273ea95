// The filters. The URL contains them, so a view can be bookmarked and shared.

import { byId, byType, h, setText, SEVERITIES } from "./dom.js";

/** Hours by name. `fit` starts at the first event of its hours. */
export const SPANS = { fit: 6, "1h": 1, "6h": 6, "24h": 24, "7d": 168 };
const DEFAULTS = { city: "", type: "", severity: "", span: "fit", by: "type" };

/** What is wrong with the URL, one sentence each. */
let refused = [];
let current = read();
const listeners = [];

function read() {
  const filters = { ...DEFAULTS };
  const choices = { severity: SEVERITIES, span: Object.keys(SPANS), by: ["type", "severity"] };
  refused = [];
  for (const [name, value] of new URLSearchParams(location.search)) {
    if (!(name in DEFAULTS)) refused.push(`The URL sets ${name}, which is not a filter.`);
    else if (!value || name === "city") filters[name] = value || DEFAULTS[name];
    else if (name === "type" ? /^[a-z][a-z0-9_-]*$/.test(value) : choices[name].includes(value)) filters[name] = value;
    else refused.push(`The URL sets ${name}=${value}, which is not valid${choices[name] ? `; use ${choices[name].join(", ")}` : ""}.`);
  }
  return filters;
}

export const filters = () => current;
/** Returns a key of the view. Two views have the same key only if they show the same numbers. */
export const view = () => JSON.stringify([current.city, current.type, current.severity, SPANS[current.span]]);

/** Returns the filters as query parameters of the timeline, or an empty text without filters. */
export function query() {
  const { city, type, severity } = current;
  const given = { city, event_type: type, severity };
  return new URLSearchParams(Object.entries(given).filter(([, value]) => value)).toString();
}

let unknown = false;

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
  const { city, type } = current;
  const words = [...refused];
  if (unknown) words.push(`No events${type ? ` of type ${type}` : ""}${city ? ` in “${city}”` : ""} so far. City names are case-sensitive.`);
  const box = byId("notice");
  setText(box, words.join(" "));
  box.hidden = !words.length;
}
export const hours = () => SPANS[current.span];
export const isFiltered = () => Boolean(current.city || current.type || current.severity);
export const onChange = (listener) => listeners.push(listener);

/** Changes some filters. With `toggle`, choosing the current value clears it. */
export function choose(change, { toggle = false } = {}) {
  const next = { ...current };
  for (const [name, value] of Object.entries(change)) {
    next[name] = toggle && current[name] === value ? DEFAULTS[name] : value;
  }
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(next)) {
    if (value !== DEFAULTS[name]) query.set(name, value);
  }
  const address = query.size ? `?${query}` : location.pathname;
  refused = [];
  history.pushState(null, "", address);
  apply(next);
}

function apply(next) {
  const before = current;
  current = next;
  unknown = false;
  render();
  for (const listener of listeners) listener(before);
}

addEventListener("popstate", () => apply(read()));

let cities = [];
let types = [];

/** Sets the cities and types to choose from. The current choice is always among them. */
export function offer(newCities, newTypes) {
  const same = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);
  if (same(cities, newCities) && same(types, newTypes)) return;
  [cities, types] = [newCities, newTypes];
  render();
}

function segments(fieldset, name, options) {
  const key = JSON.stringify(options);
  if (fieldset.dataset.options !== key) {
    fieldset.dataset.options = key;
    fieldset.querySelectorAll("label").forEach((label) => label.remove());
    for (const [value, text, swatch] of options) {
      fieldset.append(
        h("label", {},
          h("input", { type: "radio", name, value, onchange: () => choose({ [name]: value }) }),
          h("span", {}, swatch ? h("i", { class: `swatch ${swatch}` }) : null, text)),
      );
    }
  }
  for (const input of fieldset.querySelectorAll("input")) input.checked = input.value === current[name];
}

export function render() {
  const select = byId("city");
  const names = [...new Set([...cities, current.city].filter(Boolean))].sort((a, b) => a.localeCompare(b));
  if (select.dataset.options !== JSON.stringify(names)) {
    select.dataset.options = JSON.stringify(names);
    select.replaceChildren(h("option", { value: "" }, "All cities"), ...names.map((name) => h("option", { value: name }, name)));
  }
  select.value = current.city;
  const known = [...new Set([...types, current.type].filter(Boolean))].sort(byType);
  segments(byId("types"), "type", [["", "All types"], ...known.map((type) => [type, type])]);
  segments(byId("severities"), "severity", [["", "Any severity"], ...SEVERITIES.map((name) => [name, name, `sev-${name}`])]);
  segments(byId("spans"), "span", Object.keys(SPANS).map((span) => [span, span === "fit" ? "Auto (6 h)" : span]));
  segments(byId("stack"), "by", [["type", "by type"], ["severity", "by severity"]]);
  byId("clear").hidden = !isFiltered();
  notice();
}

byId("city").addEventListener("change", (event) => choose({ city: event.target.value }));
byId("clear").addEventListener("click", () => {
  choose({ city: "", type: "", severity: "" });
  byId("city").focus();
});
byId("filters").addEventListener("submit", (event) => event.preventDefault());
