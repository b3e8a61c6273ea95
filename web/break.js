// The fault panel of `dev`, and the comparison that shows that faults do not change the counts.

import { ask, RETRY_MS_MAX } from "./data.js";
import { byId, h, plural, setText, whole } from "./dom.js";
import { clockSeconds, zoneAt } from "./time.js";

const ASK_EVERY_MS = 1_000;
/** `dev` stops comparing if no page has asked for this long. */
const UNSEEN_MS_MAX = 5_000;
/** Age at which the last comparison is no longer shown as current. */
const COMPARED_MS_MAX = 60_000;
const token = document.querySelector('meta[name="citystream-token"]')?.content;

const BUTTONS = [
  ["kill", "Kill the consumer", "stops without drain or commit; a new one takes over"],
  ["zombie", "Wake a zombie", "a second consumer with outdated state writes too"],
  ["throttle", "Throttle DynamoDB", "DynamoDB rejects four of five writes for 10 s"],
  ["cut", "Lose the replies", "writes take effect, but their replies are lost for 10 s"],
  ["broker", "Stop the broker", "Kafka is unreachable for 10 s"],
  ["receiver", "Stop the receiver", "messages about incidents are refused for 10 s"],
  ["garbage", "Send 1,000 bad events", "half of them late, half of them malformed"],
];

/** Where the browser remembers whether the whole panel is shown. */
const OPEN = "citystream-break";

const headers = { "x-citystream-token": token };

export function start() {
  if (!token) return;
  const card = byId("break");
  card.hidden = false;
  card.append(
    h("div", { class: "card-head" }, h("h2", { id: "break-title" }, "Break it"),
      h("button", { type: "button", class: "quiet", id: "break-toggle", "aria-controls": "break-body", onclick: () => setOpen(byId("break-body").hidden) })),
    h("div", { class: "verdict", id: "verdict", "data-state": "waiting" },
      h("p", { class: "verdict-line", id: "verdict-line" }, "comparing the log with the tables"),
      h("p", { class: "verdict-note", id: "verdict-note" }, "an independent count of every record in the log")),
    h("p", { class: "verdict-note", id: "break-waits", role: "status", hidden: true }),
    panel(),
  );
  setOpen(localStorage.getItem(OPEN) === "yes");
  poll();
}

/** Shows the whole panel, or only its verdict. */
function setOpen(isOpen) {
  localStorage.setItem(OPEN, isOpen ? "yes" : "no");
  byId("break-body").hidden = !isOpen;
  byId("break").classList.toggle("collapsed", !isOpen);
  byId("break-toggle").setAttribute("aria-expanded", String(isOpen));
  setText(byId("break-toggle"), isOpen ? "Show only the verdict" : "Inject faults");
}

/** Returns the part of the panel that collapses: the buttons and the log. */
function panel() {
  return h("div", { id: "break-body", hidden: true },
    h("p", { class: "note" }, "Everything runs in this process, on an embedded Kafka and DynamoDB. Inject faults and check that the tables still match the log."),
    h("div", { class: "break-buttons" }, ...BUTTONS.map(([name, title, text]) =>
      h("button", { type: "button", class: "break-button", "data-break": name, onclick: () => press(name) },
        h("span", { class: "break-name" }, title), h("span", { class: "break-text" }, text)))),
    h("ol", { class: "break-log", id: "break-log", "aria-live": "polite", "aria-label": "Event log", tabindex: "0" }),
  );
}

async function press(name) {
  try {
    show(await ask(`/dev/break/${name}`, { method: "POST", headers }));
  } catch (error) {
    if (error.status) setText(byId("verdict-note"), error.message);
    else showStale("the server does not answer");
  }
}

/** Shows that the server is unreachable, the comparison is outdated, and faults cannot be injected. */
function showStale(why) {
  const box = byId("verdict");
  const when = box.dataset.at ? ` of ${box.dataset.at}` : "";
  box.dataset.state = "stale";
  byId("break-waits").hidden = true;
  setText(byId("verdict-note"), `stale: ${why}; this is the last comparison${when}`);
  for (const button of byId("break").querySelectorAll("[data-break]")) {
    button.disabled = true;
    button.classList.remove("running");
  }
}

let timer = 0;
let pauseMs = ASK_EVERY_MS;
let asking = false;

/** Called when the server answers. Polls at once if it did not answer before. */
export function answered() {
  if (pauseMs > ASK_EVERY_MS && !asking) poll();
}

async function poll() {
  clearTimeout(timer);
  if (!document.hidden) {
    asking = true;
    try {
      show(await ask("/dev/state", { headers }));
      pauseMs = ASK_EVERY_MS;
    } catch (error) {
      pauseMs = error.status ? ASK_EVERY_MS : Math.min(RETRY_MS_MAX, pauseMs * 2);
      // A new process has a new token, so the page of the previous process can only read.
      showStale(error.status === 403 ? "the server has restarted; reload this page to inject faults" : error.status ? error.message : "the server does not answer");
      if (error.status === 403) {
        pauseMs = ASK_EVERY_MS;
        return;
      }
    } finally {
      asking = false;
    }
  }
  timer = setTimeout(poll, pauseMs);
}

let lookedMs = -Infinity;
/** The comparison that was there when the page began to look, and the one there now. */
let compared = { heldMs: 0, atMs: 0, sinceMs: 0 };

/** Returns why a comparison may be outdated, or an empty text if it is current. */
function describeAge(atMs) {
  const nowMs = performance.now();
  if (nowMs - lookedMs > UNSEEN_MS_MAX) compared.heldMs = atMs;
  lookedMs = nowMs;
  if (compared.atMs !== atMs) compared = { ...compared, atMs, sinceMs: nowMs };
  if (atMs === compared.heldMs) return "from before this page was visible; comparing again";
  return nowMs - compared.sinceMs > COMPARED_MS_MAX ? "no newer comparison" : "";
}

function show(state) {
  for (const button of byId("break").querySelectorAll("[data-break]")) {
    const running = state.running.find((one) => one.what === button.dataset.break);
    button.disabled = false;
    button.setAttribute("aria-disabled", String(Boolean(running)));
    button.classList.toggle("running", Boolean(running));
    const [, , text] = BUTTONS.find(([name]) => name === button.dataset.break);
    setText(button.querySelector(".break-text"), running ? running.says : text);
  }
  const waits = byId("break-waits");
  waits.hidden = !state.waiting;
  setText(waits, state.waiting ?? "");
  showVerdict(state.difference, state.running.some((one) => one.what === "broker"));
  const log = byId("break-log");
  const lines = state.log.map((line) => `${clockSeconds(line.at_ms)} ${line.text}`);
  if (log.dataset.lines !== JSON.stringify(lines)) {
    log.dataset.lines = JSON.stringify(lines);
    log.replaceChildren(...state.log.map((line) => h("li", {}, h("time", {}, clockSeconds(line.at_ms)), line.text)));
  }
}

function showVerdict(difference, unreadable) {
  const old = describeAge(difference?.at_ms ?? null);
  if (!difference) {
    byId("verdict").dataset.state = "waiting";
    return;
  }
  const { log, tables, rows, waiting, difference: bad, not_comparable: others, at_ms: atMs } = difference;
  byId("verdict").dataset.at = `${clockSeconds(atMs)} ${zoneAt(atMs)}`;
  // The sums of no row are equal, which says nothing.
  const unknown = !difference.compares_counts && !bad;
  byId("verdict").dataset.state = old ? "old" : bad ? "differs" : unreadable || unknown ? "waiting" : "agrees";
  const scope = others ? `, in the ${plural(rows, "row")} that can be compared` : "";
  setText(byId("verdict-line"), unknown ? "no counts can be compared" : `log ${whole(log)} ${bad ? "≠" : "="} tables ${whole(tables)}, difference ${whole(bad)}${scope}`);
  const parts = [`${plural(rows, "row")} compared at ${clockSeconds(atMs)} ${zoneAt(atMs)}${old && `, ${old}`}`];
  if (others) parts.push(`${plural(others, "row")} not comparable: ${difference.not_comparable_why}`);
  if (waiting) parts.push(`${plural(waiting, "record")} in flight`);
  if (bad) parts.push(`${plural(bad, "row")} differ: ${difference.first}`);
  if (unreadable) parts.push("the log cannot be read while the broker is stopped");
  setText(byId("verdict-note"), parts.join("; "));
}
