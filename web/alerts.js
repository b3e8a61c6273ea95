// High and critical events, newest first, as they come.

import { ask } from "./data.js";
import { ago, byId, h, setText, typeClass } from "./dom.js";
import { filters, isUnknown } from "./filters.js";

const KEPT_MAX = 60;

let list = [];
let known = new Set();
let fresh = new Set();
/** The range holds more than are listed. */
let more = false;

const identity = (alert) => `${alert.city}#${alert.timestamp}#${alert.event_id}`;

function suits(alert) {
  const { city, type, severity } = filters();
  return (!city || alert.city === city) && (!type || alert.event_type === type) && (!severity || alert.severity === severity);
}

/** Reads the list of the span that is shown. */
export async function load(answer) {
  const { city, severity, type } = filters();
  more = false;
  if (severity === "low" || severity === "medium") return take([], true);
  const query = new URLSearchParams({ from: answer.from, to: answer.to, limit: type ? "400" : String(KEPT_MAX) });
  if (city) query.set("city", city);
  if (severity) query.set("severity", severity);
  const { alerts, next } = await ask(`/api/v1/alerts?${query}`);
  const suited = alerts.filter(suits);
  more = Boolean(next) || suited.length > KEPT_MAX;
  return take(suited);
}

function take(alerts, silent = false) {
  const first = known.size === 0;
  fresh = new Set(first || silent ? [] : alerts.map(identity).filter((id) => !known.has(id)));
  list = alerts.slice(0, KEPT_MAX);
  known = new Set(list.map(identity));
}

/** Returns the time of the newest alert that is listed, in ms; 0 where none is. */
export const newest = () => (list.length ? Date.parse(list[0].timestamp) : 0);

/** Forgets what was seen, as after a change of filters: nothing of the next list is news. */
export function forget() {
  known = new Set();
}

export function render() {
  const host = byId("alerts");
  const { severity } = filters();
  const none = severity === "low" || severity === "medium";
  setText(byId("alerts-note"), none ? `events of ${severity} severity raise none`
    : `${severity || "high and critical"} in this range, ${more ? `only the newest ${list.length}` : "newest first"}`);
  if (!list.length) {
    host.replaceChildren(h("li", { class: "empty" }, none ? "Only events of high and critical severity raise alerts."
      : isUnknown() ? "Nothing suits these filters." : "No event of this range raised an alert."));
    return;
  }
  const old = new Map([...host.querySelectorAll("[data-id]")].map((item) => [item.dataset.id, item]));
  host.replaceChildren(...list.map((alert) => {
    const id = identity(alert);
    const item = old.get(id) ?? one(alert, id);
    item.classList.toggle("fresh", fresh.has(id));
    setText(item.querySelector("time"), ago(Date.parse(alert.timestamp)));
    return item;
  }));
}

function one(alert, id) {
  return h("li", { class: "alert", "data-id": id },
    h("span", { class: `badge badge-${alert.severity}` }, alert.severity),
    h("div", { class: "alert-text" },
      h("p", {}, alert.description || `${alert.severity} ${alert.event_type}`),
      h("p", { class: "alert-meta" }, h("i", { class: `swatch ${typeClass(alert.event_type)}` }), `${alert.city} · ${alert.event_type}`, alert.late ? h("span", { class: "tag" }, "late") : null)),
    h("time", { datetime: alert.timestamp, title: alert.timestamp }));
}
