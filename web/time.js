// Times: the zone in which the page shows them, their formats, and the dates of that zone.

const DAY_MS = 86_400_000;

let zone = "UTC";
let formats = new Map();

/** The time zone of this browser. */
export const LOCAL = new Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

export const zoneName = () => zone;

/** Returns true if this is the name of a time zone. */
export function isZone(name) {
  try {
    return Boolean(new Intl.DateTimeFormat("en-GB", { timeZone: name }));
  } catch {
    return false;
  }
}

/** Sets the zone of all times on the page. */
export function setZone(name) {
  if (name === zone) return;
  zone = name;
  formats = new Map();
}

function formatter(name, options) {
  if (!formats.has(name)) formats.set(name, new Intl.DateTimeFormat("en-GB", { timeZone: zone, ...options }));
  return formats.get(name);
}

const part = (name, options) => (ms) => formatter(name, options).format(ms);
export const clock = part("clock", { hour: "2-digit", minute: "2-digit" });
export const clockSeconds = part("clockSeconds", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const day = part("day", { day: "numeric", month: "short" });
export const dayYear = part("dayYear", { day: "numeric", month: "short", year: "numeric" });

/** Returns the short name of the zone at an instant, such as `UTC` or `CET`. */
export function zoneAt(ms) {
  if (zone === "UTC") return zone;
  const parts = formatter("zone", { timeZoneName: "short" }).formatToParts(ms);
  return parts.find(({ type }) => type === "timeZoneName").value;
}

/** Returns how far the clocks of the zone are ahead of UTC at an instant, in milliseconds. */
export function offsetMs(ms) {
  if (zone === "UTC") return 0;
  const options = { year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric", hourCycle: "h23" };
  const parts = Object.fromEntries(formatter("offset", options).formatToParts(ms).map(({ type, value }) => [type, Number(value)]));
  const shown = Date.UTC(parts.year, parts.month - 1, parts.day, parts.hour, parts.minute, parts.second);
  return shown - Math.floor(ms / 1_000) * 1_000;
}

/** Returns true if days of the zone begin with an hour of UTC. The server sums only such days. */
export const hasWholeHours = () => offsetMs(Date.now()) % 3_600_000 === 0;

/** Returns the date of an instant in the zone, such as `2013-01-05`. */
export const dateOf = (ms) => new Date(ms + offsetMs(ms)).toISOString().slice(0, 10);

/** Returns the first instant of a date in the zone. */
export function midnight(date) {
  const ms = Date.parse(`${date}T00:00:00Z`);
  return ms - offsetMs(ms - offsetMs(ms));
}

/** Returns the date that is so many days later. */
export const addDays = (date, days) => new Date(Date.parse(`${date}T00:00:00Z`) + days * DAY_MS).toISOString().slice(0, 10);

const INSTANT = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,3})?)?Z)?$/;

/** Returns the instant of a date or of a time such as `2013-01-05T06:00Z`, or NaN. */
export function parseInstant(text) {
  if (!INSTANT.test(text) || Number.isNaN(Date.parse(text))) return NaN;
  return text.length === 10 ? midnight(text) : Date.parse(text);
}

/** Returns the shortest text of an instant that `parseInstant` reads. */
export function instantText(ms) {
  const date = dateOf(ms);
  return midnight(date) === ms ? date : new Date(ms).toISOString().replace(/(:00)?\.000Z$/, "Z");
}

/** Returns a time range with its year and zone. A range within one day ends at 24:00, not at 00:00. */
export function range(from, to) {
  if (dateOf(from) === dateOf(to - 1)) {
    const end = dateOf(from) === dateOf(to) ? clock(to) : "24:00";
    return `${dayYear(from)} ${clock(from)}–${end} ${zoneAt(from)}`;
  }
  const sameYear = dayYear(from).slice(-4) === dayYear(to).slice(-4);
  return `${sameYear ? day(from) : dayYear(from)} ${clock(from)} – ${dayYear(to)} ${clock(to)} ${zoneAt(to)}`;
}

/** Returns a time range in few words: without the zone, without this year, and dates alone if it is long. */
export function shortRange(from, to) {
  const year = (ms) => dateOf(ms).slice(0, 4);
  const date = year(from) === year(Date.now()) ? day : dayYear;
  if (dateOf(from) === dateOf(to - 1)) return `${date(from)}, ${clock(from)}–${clock(to)}`;
  if (to - from < 2 * DAY_MS) return `${day(from)}, ${clock(from)} – ${day(to)}, ${clock(to)}`;
  return `${year(from) === year(to - 1) ? day(from) : dayYear(from)} – ${dayYear(to - 1)}`;
}

/** Returns the time of an event with its date and zone. */
export const moment = (ms) => `${dayYear(ms)}, ${clockSeconds(ms)} ${zoneAt(ms)}`;

/** Returns how long ago an instant was, or its date if it is more than a day ago. */
export function ago(ms, nowMs = Date.now()) {
  const seconds = Math.round((nowMs - ms) / 1000);
  if (seconds < -90) return `${day(ms)}, ${clock(ms)}`;
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return nowMs - ms < 300 * DAY_MS ? `${day(ms)}, ${clock(ms)}` : `${dayYear(ms)}, ${clock(ms)}`;
}

/** Returns a length of time in words, such as `6 h`. */
export function length(ms) {
  const [unit, name] = [[DAY_MS, "d"], [3_600_000, "h"]].find(([one]) => ms >= one && ms % one === 0) ?? [60_000, "min"];
  return `${Math.round(ms / unit)} ${name}`;
}

/** Returns a length of time in words, rounded down to one unit, such as `0.4 s` or `12 d`. */
export function about(ms) {
  const [unit, name] = [[DAY_MS, "d"], [3_600_000, "h"], [60_000, "min"]].find(([one]) => ms >= 2 * one) ?? [];
  return unit ? `${Math.floor(ms / unit).toLocaleString("en-US")} ${name}` : `${(ms / 1_000).toFixed(1)} s`;
}
