// What the page shows: the filters, the range and the open drawer. The URL contains all of it, so a view can be bookmarked, shared
// and left with the back button.

import { SEVERITIES } from "./dom.js";
import { isZone, parseInstant, setZone } from "./time.js";

/** Names of the ranges. `fit` is chosen by the page: where the events are. */
export const SPANS = ["fit", "1h", "6h", "24h", "7d", "30d", "1y", "all"];
export const STEPS = ["window", "hour", "day"];
const DEFAULTS = { city: "", type: "", severity: "", span: "fit", from: "", to: "", step: "", tz: "UTC", compare: "", by: "type", open: "" };
const CHOICES = { severity: SEVERITIES, span: SPANS, step: STEPS, compare: ["previous"], by: ["type", "severity"] };
/** Names that may have other values than those of `CHOICES`, each with its check. */
const CHECKS = {
  city: () => true,
  open: (text) => /^(step|event|city):./.test(text),
  type: (text) => /^[a-z][a-z0-9_-]*$/.test(text),
  tz: isZone,
  from: (text) => !Number.isNaN(parseInstant(text)),
  to: (text) => !Number.isNaN(parseInstant(text)),
};
/** What decides about the numbers. The other names decide how they are drawn. */
const NUMBERS = ["city", "type", "severity", "span", "from", "to", "step", "tz", "compare"];

/** What is wrong with the URL, one sentence each. */
let refused = [];
let current = read();
const listeners = [];

function read() {
  const next = { ...DEFAULTS };
  refused = [];
  for (const [name, value] of new URLSearchParams(location.search)) {
    if (!Object.hasOwn(DEFAULTS, name)) refused.push(`The URL sets ${name}, which the page does not know.`);
    else if (!value) next[name] = DEFAULTS[name];
    else if (CHOICES[name] ? CHOICES[name].includes(value) : CHECKS[name](value)) next[name] = value;
    else refused.push(`The URL sets ${name}=${value}, which is not valid${CHOICES[name] ? `; use ${CHOICES[name].join(", ")}` : ""}.`);
  }
  setZone(next.tz);
  if (next.from && next.to && parseInstant(next.from) >= parseInstant(next.to)) {
    refused.push("The URL sets a range that ends before it begins.");
    [next.from, next.to] = ["", ""];
  }
  return next;
}

export const view = () => current;
export const refusals = () => refused;
/** Returns a key of the numbers on screen. Two views have the same key only if they show the same numbers. */
export const key = () => JSON.stringify(NUMBERS.map((name) => current[name]));
/** Calls the listener with the view before each change. */
export const onChange = (listener) => listeners.push(listener);

/** Changes a part of the view. With `toggle`, choosing the current value clears it. */
export function choose(change, { toggle = false } = {}) {
  const next = { ...current };
  for (const [name, value] of Object.entries(change)) {
    next[name] = toggle && current[name] === value ? DEFAULTS[name] : value;
  }
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(next)) {
    if (value !== DEFAULTS[name]) query.set(name, value);
  }
  refused = [];
  history.pushState(null, "", query.size ? `?${query}` : location.pathname);
  apply(next);
}

function apply(next) {
  const before = current;
  current = next;
  setZone(next.tz);
  for (const listener of listeners) listener(before);
}

addEventListener("popstate", () => apply(read()));
