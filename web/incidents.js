// The incidents that `notify` has found, and what their receivers were told: the open ones, and the last ones that ended.
// The silences that cover them are between the two.

import { ask } from "./data.js";
import { byId, h, plural, put, setText } from "./dom.js";
import { about, ago, moment } from "./time.js";

const PATH = "/api/v1/incidents";
const SILENCES_PATH = "/api/v1/silences";
const OPEN_MAX = 50;
const ENDED_MAX = 10;
/** Pause after an error that the server answered. The list is optional: the other requests show whether the server is up. */
const PAUSE_MS = 60_000;
const OUTCOMES = { taken: "taken", unknown: "waiting", refused: "refused", silenced: "silenced" };

let askAgainMs = -Infinity;
let shown = "";

export async function load() {
  if (performance.now() < askAgainMs) return;
  try {
    const open = await ask(`${PATH}?state=open&limit=${OPEN_MAX}`);
    const { incidents: ended } = await ask(`${PATH}?state=resolved&limit=${ENDED_MAX}`);
    const { silences } = await ask(SILENCES_PATH);
    render(open, ended, silences);
  } catch (error) {
    // Without `notify`, there is no table of incidents. The page then asks no more.
    if (error.code === "no_incidents_table") askAgainMs = Infinity;
    else if (error.code) askAgainMs = performance.now() + PAUSE_MS;
  }
}

/** Updates the ages, also without a new answer. */
export function updateAges() {
  for (const time of byId("incidents-body").querySelectorAll("time")) setText(time, ago(Date.parse(time.dateTime)));
}

function render({ incidents: open, next }, ended, silences) {
  const key = JSON.stringify([open, ended, silences]);
  if (key === shown) return;
  shown = key;
  byId("incidents").hidden = !open.length && !ended.length && !silences.length;
  setText(byId("incidents-note"), `${next ? `newest ${OPEN_MAX}` : open.length || "none"} open, in all cities`);
  put(byId("incidents-body"),
    open.length ? h("ol", { class: "incident-list", "aria-label": "Open incidents" }, ...open.map(item)) : null,
    silences.length ? h("h3", {}, "Silences") : null,
    silences.length ? h("ul", { class: "incident-list", "aria-label": "Silences" }, ...silences.map(silence)) : null,
    ended.length ? h("h3", {}, "Resolved") : null,
    ended.length ? h("ol", { class: "incident-list", "aria-label": "Resolved incidents" }, ...ended.map(item)) : null);
  updateAges();
}

function item(one) {
  const group = [one.city, one.event_type].filter(Boolean).join(" · ");
  const events = one.event_count ? plural(one.event_count, "event") : `silent since ${moment(Date.parse(one.last_event))}`;
  const opened = Date.parse(one.opened_at);
  const ended = one.resolved_at && Date.parse(one.resolved_at);
  return h("li", { class: `incident ${one.state}`, "data-incident": `${one.rule}#${one.incident}` },
    h("span", { class: `badge badge-${one.severity ?? "none"}` }, one.severity ?? "silence"),
    h("div", { class: "incident-text" },
      h("p", { class: "incident-name" }, one.rule, group ? h("span", { class: "incident-group" }, group) : null),
      h("p", { class: "incident-meta" }, events, " · ", ended ? `open for ${about(ended - opened)}, resolved ` : "opened ", age(ended || opened)),
      one.deliveries.length ? h("ul", { class: "deliveries" }, ...one.deliveries.map(delivery)) : null));
}

function silence(one) {
  const names = [one.rule && `rule ${one.rule}`, one.city, one.event_type].filter(Boolean).join(" · ");
  return h("li", { class: "incident", "data-silence": one.silence },
    h("span", { class: "badge badge-none" }, "silence"),
    h("div", { class: "incident-text" },
      h("p", { class: "incident-name" }, one.why, h("span", { class: "incident-group" }, names || "all incidents")),
      h("p", { class: "incident-meta" }, `no messages until ${moment(Date.parse(one.until))} · ${one.silence}`)));
}

const age = (ms) => h("time", { datetime: new Date(ms).toISOString(), title: moment(ms) });

function delivery(one) {
  const words = `${one.receiver}: ${one.kind}, ${OUTCOMES[one.outcome] ?? one.outcome}${one.why ? `: ${one.why}` : ""}`;
  return h("li", { class: `delivery ${one.outcome}`, title: `Message ${one.n}, ${moment(Date.parse(one.at))}` }, words);
}
