// The events of a city, newest first, page by page.

import { identity } from "./alerts.js";
import { ask, downloadLink } from "./data.js";
import { h, typeClass } from "./dom.js";
import { pagedList } from "./paging.js";
import { clockSeconds, day } from "./time.js";
import { choose } from "./view.js";

const ROWS = 20;
/** Events that one request reads while the list shows only some types or severities. */
const READ = 200;
/** Most requests for one page. The page may then have fewer rows. */
const REQUESTS_MAX = 10;

/** Returns the path of the events of a city in a range. */
export const path = (city, { from, to }) => `/api/v1/events/${encodeURIComponent(city)}?${new URLSearchParams({ from, to })}`;

/**
 * Returns a function that reads pages of the events that match. The API filters events by city and time only, so it may read
 * several pages for one. A cursor of a page is the cursor of the API and the events that were read but not shown.
 */
function reader(base, { type, severity }) {
  const matches = (event) => (!type || event.event_type === type) && (!severity || event.severity === severity);
  const limit = type || severity ? READ : ROWS;
  return async (after = { rest: [], cursor: "" }) => {
    let { rest, cursor } = after;
    for (let n = 0; rest.length < ROWS && cursor !== null && n < REQUESTS_MAX; n += 1) {
      const answer = await ask(`${base}&limit=${limit}${cursor && `&cursor=${cursor}`}`);
      rest = [...rest, ...answer.events.filter(matches)];
      cursor = answer.next ?? null;
    }
    const [items, left] = [rest.slice(0, ROWS), rest.slice(ROWS)];
    return { items, after: left.length || cursor !== null ? { rest: left, cursor } : null };
  };
}

/** Returns the row of an event, which opens its drawer. */
export function eventRow(event) {
  const ms = Date.parse(event.timestamp);
  return h("li", {}, h("button", { type: "button", class: "event", "data-id": identity(event), onclick: () => choose({ open: `event:${identity(event)}` }) },
    h("time", { datetime: event.timestamp }, `${day(ms)} ${clockSeconds(ms)}`),
    h("span", { class: "event-words" }, event.description || `${event.severity} ${event.event_type}`),
    h("span", { class: "event-meta" }, h("i", { class: `swatch sev-${event.severity}` }), event.severity,
      h("i", { class: `swatch ${typeClass(event.event_type)}` }), event.event_type, event.late ? h("span", { class: "tag" }, "late") : null)));
}

/** Returns a section with the events of a city in a range that match a type and a severity. */
export function eventsSection(city, range, filters) {
  const base = path(city, range);
  const csv = h("a", { class: "csv" }, filters.type || filters.severity ? "CSV, all events of the city" : "CSV");
  downloadLink(csv, `${base}&format=csv`);
  const words = [filters.severity, filters.type].filter(Boolean).join(" ");
  return h("section", { class: "events" },
    h("div", { class: "card-head" }, h("h3", {}, `${words ? `${words.charAt(0).toUpperCase()}${words.slice(1)} events` : "Events"} in ${city}`), csv),
    pagedList({ read: reader(base, filters), row: eventRow, what: "event", empty: "No events are stored for this range. Raw events expire, while counts stay." }));
}
