// The drawer of an event or alert: the full record, where it comes from, and how it was counted.

import { ask } from "./data.js";
import { h, typeClass } from "./dom.js";
import { register } from "./drawer.js";
import { path as eventsPath } from "./events.js";
import { about, clock, instantText, moment, range as rangeText } from "./time.js";
import { choose } from "./view.js";

/** Time before an event in which the begin of its window is searched. */
const WINDOW_MS_MAX = 86_400_000;
const AT_AN_INSTANT_MAX = 1_000;

/** Reads an event from the raw events, or from the alerts if raw events are not kept. */
async function read(city, timestamp, id) {
  const ms = Date.parse(timestamp);
  const instant = { from: new Date(ms).toISOString(), to: new Date(ms + 1).toISOString() };
  const { events } = await ask(`${eventsPath(city, instant)}&limit=${AT_AN_INSTANT_MAX}`);
  const event = events.find((one) => one.event_id === id);
  if (event) return { record: event, isRaw: true };
  const { alerts } = await ask(`/api/v1/alerts?${new URLSearchParams({ city, ...instant, limit: AT_AN_INSTANT_MAX })}`);
  return { record: alerts.find((one) => one.event_id === id) ?? null, isRaw: false };
}

/** Returns the window that holds an event, or null. */
async function readWindow(record) {
  const ms = Date.parse(record.timestamp);
  const query = { city: record.city, event_type: record.event_type, from: new Date(Math.max(0, ms - WINDOW_MS_MAX)).toISOString(), to: new Date(ms + 1).toISOString(), limit: 1 };
  const { aggregations: [window] } = await ask(`/api/v1/aggregations?${new URLSearchParams(query)}`);
  return window && Date.parse(window.window_end) > ms ? window : null;
}

/** Returns topic, partition and offset of a record, and whether only its id shows them. */
function sourceOf({ source, event_id: id }) {
  const stored = /^(.+)\/(\d+)\/(\d+)$/.exec(source ?? "");
  const made = /^(.+)-(\d+)-(\d+)$/.exec(id);
  const found = stored ?? made;
  return found && { topic: found[1], partition: Number(found[2]), offset: Number(found[3]), isGuess: !stored };
}

/** Returns how an event was counted, in sentences. */
function countedWords(record, window) {
  const span = window && rangeText(Date.parse(window.window_start), Date.parse(window.window_end));
  if (record.late) {
    const words = "Late: it arrived after its window was final. It counts in the totals of all time, and in no window.";
    return window ? `${words} Its window is ${span}.` : words;
  }
  if (!window) return "Counted. Its window is no longer stored.";
  const state = window.final ? "The window is final" : "The window is still counting";
  const others = window.event_count - 1;
  return `Counted in the window ${span}. ${state}, with ${others > 0 ? `${others} other ${record.event_type} ${others === 1 ? "event" : "events"}` : `no other ${record.event_type} event`}.`;
}

const fact = (name, ...value) => [h("dt", {}, name), h("dd", { "data-fact": name }, ...value)];

function extraFacts(extra) {
  return Object.entries(extra ?? {}).flatMap(([name, value]) => fact(name, typeof value === "string" ? value : JSON.stringify(value)));
}

function sourceFacts(record) {
  const source = sourceOf(record);
  if (!source) return fact("Kafka record", "not stored with this event");
  return fact("Kafka record", `partition ${source.partition}, offset ${source.offset}, topic ${source.topic}${source.isGuess ? " (from the id)" : ""}`);
}

function facts(record, window) {
  const ms = Date.parse(record.timestamp);
  const storedMs = Date.parse(record.processing_time);
  const delayMs = storedMs - ms;
  const delay = delayMs < 0 ? "before the event time" : `${about(delayMs)} after it`;
  return h("dl", { class: "record" },
    ...fact("Severity", h("span", { class: `badge badge-${record.severity}` }, record.severity)),
    ...fact("City", record.city),
    ...fact("Type", h("i", { class: `swatch ${typeClass(record.event_type)}` }), ` ${record.event_type}`),
    ...fact("Event time", moment(ms), record.future ? " (in the future when it was sent)" : ""),
    ...fact("Counting", countedWords(record, window)),
    ...sourceFacts(record),
    ...fact("Event id", record.event_id),
    ...fact("Stored", `${moment(storedMs)}, ${delay}`),
    ...(record.ttl ? fact("Kept until", moment(record.ttl * 1_000)) : []),
    ...extraFacts(record.extra));
}

function links(record, window) {
  const open = (words, change) => h("button", { type: "button", class: "quiet", onclick: () => choose(change) }, words);
  const ms = Date.parse(record.timestamp);
  return h("p", { class: "drawer-links" },
    window ? open(`Window ${clock(Date.parse(window.window_start))}`, { open: `step:${instantText(Date.parse(window.window_start))}/${instantText(Date.parse(window.window_end))}` }) : null,
    open(record.city, { open: `city:${record.city}` }),
    open("The hour around it", { span: "fit", from: instantText(Math.floor(ms / 300_000) * 300_000 - 1_800_000), to: instantText(Math.floor(ms / 300_000) * 300_000 + 1_800_000), open: "" }));
}

register("event", async (key) => {
  const [city, timestamp, ...id] = key.split("#");
  if (Number.isNaN(Date.parse(timestamp ?? ""))) return { title: "Not shown", body: [h("p", {}, "The URL names no event.")] };
  const { record, isRaw } = await read(city, timestamp, id.join("#"));
  if (!record) return { title: "Not found", body: [h("p", {}, "This event is not stored, or no longer.")] };
  const window = await readWindow(record);
  const alert = ["high", "critical"].includes(record.severity);
  return {
    title: record.description || `${record.severity} ${record.event_type}`,
    body: [
      h("p", { class: "note" }, `${alert ? "Alert" : "Event"} in ${record.city}`),
      facts(record, window),
      isRaw ? null : h("p", { class: "note" }, "The raw event is not stored, so other fields of the record are unknown."),
      links(record, window),
    ],
  };
});
