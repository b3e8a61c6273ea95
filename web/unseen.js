// Critical alerts that arrived while the page was not visible: their number in the title of the tab, and notifications if the
// visitor asked for them.

import { identity } from "./alerts.js";
import { byId } from "./dom.js";
import { choose } from "./view.js";

const TITLE = document.title;
/** Where the browser remembers that the visitor wants notifications. */
const WANTED = "citystream-notify";
/** Most alerts that are remembered, so that a repeated one counts once. */
const KNOWN_MAX = 10_000;

let unseen = new Set();

const isOn = () => localStorage.getItem(WANTED) === "yes" && globalThis.Notification?.permission === "granted";

function showTitle() {
  document.title = unseen.size ? `(${unseen.size}) ${TITLE}` : TITLE;
}

/** Shows a notification. A click opens the alert. */
function notify(alert) {
  const words = alert.description || `critical ${alert.event_type}`;
  // Alerts with the same tag replace each other, so a burst shows one notification.
  const notification = new Notification(`Critical: ${alert.city}`, { body: unseen.size > 1 ? `${words}, and ${unseen.size - 1} more` : words, tag: "citystream" });
  notification.onclick = () => {
    focus();
    choose({ open: `event:${identity(alert)}` });
    notification.close();
  };
}

/** Takes an alert of the event stream. */
export function take(alert) {
  if (alert.severity !== "critical" || !document.hidden || unseen.has(identity(alert)) || unseen.size >= KNOWN_MAX) return;
  unseen.add(identity(alert));
  showTitle();
  if (isOn()) notify(alert);
}

function render() {
  const button = byId("notify");
  button.hidden = !("Notification" in globalThis);
  button.setAttribute("aria-pressed", String(isOn()));
  button.disabled = globalThis.Notification?.permission === "denied";
  button.title = button.disabled ? "This browser blocks notifications of this page." : "Notify me of critical alerts while this tab is hidden";
}

async function toggle() {
  const next = !isOn() && await Notification.requestPermission() === "granted";
  localStorage.setItem(WANTED, next ? "yes" : "no");
  render();
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unseen = new Set();
  showTitle();
});
byId("notify").addEventListener("click", toggle);
render();
