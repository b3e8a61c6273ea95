// The form of `dev` that sends an event of the visitor's own, and shows the event once it is stored.

import { ask } from "./data.js";
import { byId, h, put, setText, SEVERITIES } from "./dom.js";
import { eventRow } from "./events.js";

const PATH = "/api/v1/events";
const TYPES = ["incident", "traffic", "weather", "construction"];
/** Time between two looks for the stored event. */
const LOOK_EVERY_MS = 150;
const LOOKS_MAX = 60;
/** The newest events of the city among which the event is looked for. */
const LOOK_AT = 50;
const SHOWN_MAX = 5;

const choice = (name, values) => h("select", { name, "aria-label": name === "event_type" ? "Type" : "Severity" },
  ...values.map((value) => h("option", {}, value)));

export function start() {
  if (!document.querySelector('meta[name="citystream-token"]')) return;
  const card = byId("own");
  card.hidden = false;
  card.append(
    h("div", { class: "card-head" }, h("div", {}, h("h2", { id: "own-title" }, "Send an event of your own"),
      h("p", { class: "note" }, "It takes the same way as all others: Kafka, the consumer, the tables, this page. "))),
    h("form", { id: "own-form", class: "own-form", onsubmit: send },
      h("input", { name: "city", "aria-label": "City", value: "NYC", required: true, maxlength: "64" }),
      choice("event_type", TYPES), choice("severity", [...SEVERITIES].reverse()),
      h("input", { name: "description", "aria-label": "Description", placeholder: "What happened?", class: "wide" }),
      h("button", { type: "submit", class: "primary" }, "Send")),
    h("p", { id: "own-state", class: "note", role: "status" }),
    h("ol", { id: "own-events", class: "own-events" }));
}

async function send(submitted) {
  submitted.preventDefault();
  const event = Object.fromEntries(new FormData(submitted.target));
  const begun = performance.now();
  setText(byId("own-state"), "sending");
  try {
    const headers = { "content-type": "application/json" };
    const { results: [{ event_id: id, partition, offset }] } = await ask(`${PATH}?verbose`, { method: "POST", headers, body: JSON.stringify(event) });
    setText(byId("own-state"), `in Kafka, at offset ${offset} of partition ${partition}`);
    const stored = await find(event.city.trim(), id);
    if (!stored) {
      setText(byId("own-state"), "It is in Kafka, and no consumer has stored it yet.");
      return;
    }
    setText(byId("own-state"), `stored after ${Math.round(performance.now() - begun)} ms; select it to see how it was counted`);
    const row = eventRow(stored);
    row.classList.add("own");
    put(byId("own-events"), row, ...[...byId("own-events").children].slice(0, SHOWN_MAX - 1));
  } catch (error) {
    // A refusal says what is wrong with the event.
    const refused = error.answer?.results?.[0];
    setText(byId("own-state"), refused ? `${refused.reason}: ${refused.detail}` : error.message || "The server does not answer.");
  }
}

/** Returns the stored event with this id, or null if there is none after some seconds. */
async function find(city, id) {
  for (let n = 0; n < LOOKS_MAX; n += 1) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    // The server keeps an answer for a second. Another limit asks for another answer.
    const { events } = await ask(`${PATH}/${encodeURIComponent(city)}?limit=${LOOK_AT + n}`);
    const event = events.find((one) => one.event_id === id);
    if (event) return event;
  }
  return null;
}
