// Creates elements and formats numbers and times.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Returns an HTML element. Attributes `on…` are listeners; attributes `--…` are custom properties. */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Returns an SVG element. */
export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Replaces the children of an element. Null and undefined children are skipped. */
export function put(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

/** Returns the element with this id. */
export const byId = (id) => document.getElementById(id);

/** Sets the text only if it changed, so that screen readers and selections are not disturbed. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const WHOLE = new Intl.NumberFormat("en-US");
const SHORT = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

export const whole = (n) => WHOLE.format(n);
export const short = (n) => (n < 10_000 ? WHOLE.format(n) : SHORT.format(n));
export const plural = (n, one, many = `${one}s`) => `${whole(n)} ${n === 1 ? one : many}`;

const part = (options) => {
  const format = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", ...options });
  return (ms) => format.format(ms);
};
export const clock = part({ hour: "2-digit", minute: "2-digit" });
export const clockSeconds = part({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const day = part({ day: "numeric", month: "short" });
export const dayYear = part({ day: "numeric", month: "short", year: "numeric" });

/** Returns a time range with its year. */
export function range(from, to) {
  const sameDay = day(from) === day(to - 1);
  return `${sameDay ? "" : `${day(from)} ${clock(from)} – `}${dayYear(to - 1)}${sameDay ? ` ${clock(from)}–` : " "}${clock(to)} UTC`;
}

/** Returns how long ago an instant was, or its date if it is more than a day ago. */
export function ago(ms, nowMs = Date.now()) {
  const seconds = Math.round((nowMs - ms) / 1000);
  if (seconds < -90) return `${day(ms)}, ${clock(ms)}`;
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return nowMs - ms < 300 * 86_400_000 ? `${day(ms)}, ${clock(ms)}` : `${dayYear(ms)}, ${clock(ms)}`;
}

export const SEVERITIES = ["low", "medium", "high", "critical"];
const USUAL_TYPES = ["traffic", "weather", "incident", "construction"];

/** Returns the CSS class for the color of an event type. The usual four have their own; others share three. */
export function typeClass(type) {
  const at = USUAL_TYPES.indexOf(type);
  if (at >= 0) return `type-${type}`;
  let sum = 0;
  for (const c of type) sum = (sum + c.codePointAt(0)) % 3;
  return `type-other-${sum}`;
}

/** Orders event types: the usual four first, then the others by name. */
export function byType(a, b) {
  const usual = (type) => USUAL_TYPES.includes(type);
  if (usual(a) && usual(b)) return USUAL_TYPES.indexOf(a) - USUAL_TYPES.indexOf(b);
  if (usual(a) !== usual(b)) return usual(a) ? -1 : 1;
  return a.localeCompare(b);
}

export const still = matchMedia("(prefers-reduced-motion: reduce)");
