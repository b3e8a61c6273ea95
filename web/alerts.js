// The alerts: high and critical events, newest first.

import { ask, downloadLink } from "./data.js";
import { byId, h, setText, typeClass } from "./dom.js";
import { isUnknown, nothing } from "./filters.js";
import { ago, moment } from "./time.js";
import { choose, view } from "./view.js";

const PATH = "/api/v1/alerts";
const KEPT_MAX = 60;

let list = [];
let known = new Set();
let fresh = new Set();
/** True if the range holds more alerts than the list shows. */
let more = false;

/** Returns the text that identifies an alert or an event. */
export const identity = (alert) => `${alert.city}#${alert.timestamp}#${alert.event_id}`;

function matches(alert) {
  const { city, type, severity } = view();
  return (!city || alert.city === city) && (!type || alert.event_type === type) && (!severity || alert.severity === severity);
}

/** Loads the alerts of the range on screen. */
export async function load(answer) {
  const { city, severity, type } = view();
  more = false;
  if (severity === "low" || severity === "medium") return show([], true);
  const query = new URLSearchParams({ from: answer.from, to: answer.to, limit: type ? "400" : String(KEPT_MAX) });
  if (city) query.set("city", city);
  if (severity) query.set("severity", severity);
  const { alerts, next } = await ask(`${PATH}?${query}`);
  const matching = alerts.filter(matches);
  more = Boolean(next) || matching.length > KEPT_MAX;
  return show(matching);
}

function show(alerts, silent = false) {
  const first = known.size === 0;
  fresh = new Set(first || silent ? [] : alerts.map(identity).filter((id) => !known.has(id)));
  list = alerts.slice(0, KEPT_MAX);
  known = new Set(list.map(identity));
}

/** Returns the path of the alerts of an answer's range. The API cannot filter alerts by type. */
export function path({ from, to }) {
  const { city, severity } = view();
  const query = new URLSearchParams({ from, to });
  if (city) query.set("city", city);
  if (severity) query.set("severity", severity);
  return `${PATH}?${query}`;
}

/** Returns the event time of the newest alert, or 0 without alerts. */
export const newestMs = () => list.reduce((newest, alert) => Math.max(newest, Date.parse(alert.timestamp)), 0);

/** Updates the ages, also without new alerts. */
export function updateAges() {
  for (const time of byId("alerts").querySelectorAll("time")) setText(time, ago(Date.parse(time.dateTime)));
}

/** Forgets the alerts seen so far, so that none of the next list is marked as new. */
export function forget() {
  known = new Set();
}

export function render(answer) {
  downloadLink(byId("alerts-csv"), `${path(answer)}&format=csv`);
  setText(byId("alerts-csv"), view().type ? "CSV, all types" : "CSV");
  const host = byId("alerts");
  const { severity } = view();
  const none = severity === "low" || severity === "medium";
  setText(byId("alerts-note"), none ? `${severity} events raise no alerts`
    : `${severity || "high and critical"} in this range, ${more ? `newest ${list.length} only` : "newest first"}`);
  if (!list.length) {
    host.replaceChildren(h("li", { class: "empty" }, none ? "Only high and critical events raise alerts."
      : isUnknown() ? nothing() : "No alerts in this range."));
    return;
  }
  const old = new Map([...host.querySelectorAll("[data-id]")].map((item) => [item.dataset.id, item]));
  host.replaceChildren(...list.map((alert) => {
    const id = identity(alert);
    const item = old.get(id) ?? alertItem(alert, id);
    item.classList.toggle("fresh", fresh.has(id));
    const time = item.querySelector("time");
    setText(time, ago(Date.parse(alert.timestamp)));
    time.title = moment(Date.parse(alert.timestamp));
    return item;
  }));
}

function alertItem(alert, id) {
  return h("li", { "data-id": id }, h("button", { type: "button", class: "alert", "aria-haspopup": "dialog", onclick: () => choose({ open: `event:${id}` }) },
    h("span", { class: `badge badge-${alert.severity}` }, alert.severity),
    h("span", { class: "alert-text" },
      h("span", { class: "alert-words" }, alert.description || `${alert.severity} ${alert.event_type}`),
      h("span", { class: "alert-meta" }, h("i", { class: `swatch ${typeClass(alert.event_type)}` }), `${alert.city} · ${alert.event_type}`, alert.late ? h("span", { class: "tag" }, "late") : null)),
    h("time", { datetime: alert.timestamp })));
}
