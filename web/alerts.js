// The alerts: high and critical events, newest first.

import { ask } from "./data.js";
import { ago, byId, h, setText, typeClass } from "./dom.js";
import { filters, isUnknown, nothing } from "./filters.js";

const KEPT_MAX = 60;

let list = [];
let known = new Set();
let fresh = new Set();
/** True if the range holds more alerts than the list shows. */
let more = false;

const identity = (alert) => `${alert.city}#${alert.timestamp}#${alert.event_id}`;

function matches(alert) {
  const { city, type, severity } = filters();
  return (!city || alert.city === city) && (!type || alert.event_type === type) && (!severity || alert.severity === severity);
}

/** Loads the alerts of the range on screen. */
export async function load(answer) {
  const { city, severity, type } = filters();
  more = false;
  if (severity === "low" || severity === "medium") return show([], true);
  const query = new URLSearchParams({ from: answer.from, to: answer.to, limit: type ? "400" : String(KEPT_MAX) });
  if (city) query.set("city", city);
  if (severity) query.set("severity", severity);
  const { alerts, next } = await ask(`/api/v1/alerts?${query}`);
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

export function render() {
  const host = byId("alerts");
  const { severity } = filters();
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
    setText(item.querySelector("time"), ago(Date.parse(alert.timestamp)));
    return item;
  }));
}

function alertItem(alert, id) {
  return h("li", { class: "alert", "data-id": id },
    h("span", { class: `badge badge-${alert.severity}` }, alert.severity),
    h("div", { class: "alert-text" },
      h("p", {}, alert.description || `${alert.severity} ${alert.event_type}`),
      h("p", { class: "alert-meta" }, h("i", { class: `swatch ${typeClass(alert.event_type)}` }), `${alert.city} · ${alert.event_type}`, alert.late ? h("span", { class: "tag" }, "late") : null)),
    h("time", { datetime: alert.timestamp, title: alert.timestamp }));
}
