// The controls of the range: names, dates, steps back and forward, the length of a bar, the time zone, and the comparison.

import { canCompare } from "./answers.js";
import { byId, h, segments, setText } from "./dom.js";
import * as range from "./range.js";
import { addDays, dateOf, length, LOCAL, midnight, shortRange } from "./time.js";
import { choose, SPANS, STEPS, view } from "./view.js";

const COPIED_MS = 2_000;
const STEP_WORDS = { "": "Auto bars", window: "Windows", hour: "Hours", day: "Days" };

/** Chooses a range by name, which follows the newest data. */
const chooseSpan = ({ span }) => choose({ span, from: "", to: "" });

function renderZone() {
  const zones = [...new Set(["UTC", LOCAL, view().tz])];
  const words = (name) => (name === "UTC" ? "UTC" : name === LOCAL ? "Local" : name.split("/").at(-1).replaceAll("_", " "));
  segments(byId("zones"), "tz", zones.map((name) => [name, words(name)]), view().tz, choose);
  byId("zones").title = LOCAL === "UTC" ? "The time zone of this browser is UTC." : `Local: ${LOCAL}`;
  byId("zones").hidden = zones.length < 2;
}

function renderSteps() {
  const select = byId("step");
  if (!select.options.length) select.append(...["", ...STEPS].map((step) => h("option", { value: step }, STEP_WORDS[step])));
  for (const option of select.options) option.disabled = !range.allowsStep(option.value);
  select.value = range.allowsStep(view().step) ? view().step : "";
}

function renderDates() {
  const shown = range.bounds();
  const words = byId("dates-words");
  setText(words, shown ? shortRange(shown.fromMs, shown.toMs) : "Dates");
  byId("dates-toggle").setAttribute("aria-pressed", String(range.isFixed()));
}

/** Shows the state of the controls. */
export function render() {
  const { span, compare } = view();
  const shown = range.bounds();
  segments(byId("spans"), "span", SPANS.map((name) => [name, name === "fit" ? "Auto" : name]), range.isFixed() && view().from ? "" : span, chooseSpan);
  renderZone();
  renderSteps();
  renderDates();
  for (const [id, direction] of [["range-back", -1], ["range-forward", 1]]) byId(id).disabled = !range.canMove(direction);
  const words = shown ? length(shown.toMs - shown.fromMs) : "the length of the range";
  byId("range-back").title = `Back by ${words} (←)`;
  byId("range-forward").title = `Forward by ${words} (→)`;
  const button = byId("compare");
  button.disabled = !canCompare();
  button.setAttribute("aria-pressed", String(Boolean(compare) && canCompare()));
}

function openDates() {
  const shown = range.bounds();
  if (shown) {
    byId("date-from").value = dateOf(shown.fromMs);
    byId("date-to").value = dateOf(shown.toMs - 1);
  }
  setText(byId("date-trouble"), "");
  byId("dates").showModal();
}

/** Shows the chosen days. The last day is part of the range. */
function applyDates(event) {
  event.preventDefault();
  const [from, to] = [byId("date-from").value, byId("date-to").value];
  if (!from || !to || from > to) {
    setText(byId("date-trouble"), "Choose a first day, and a last day that is not before it.");
    return;
  }
  byId("dates").close();
  range.show(midnight(from), midnight(addDays(to, 1)));
}

/** Copies the address of the view, and says so. */
async function copyLink() {
  const button = byId("copy-link");
  let words = "Copied";
  try {
    await navigator.clipboard.writeText(location.href);
  } catch {
    // Browsers allow it only on secure pages. The address bar has the same text.
    words = "Copy the address bar";
  }
  setText(button, words);
  setTimeout(() => setText(button, "Copy link"), COPIED_MS);
}

byId("range-back").addEventListener("click", () => range.step(-1));
byId("range-forward").addEventListener("click", () => range.step(1));
byId("step").addEventListener("change", (event) => choose({ step: event.target.value }));
byId("compare").addEventListener("click", () => choose({ compare: "previous" }, { toggle: true }));
byId("copy-link").addEventListener("click", copyLink);
byId("dates-toggle").addEventListener("click", openDates);
byId("dates-form").addEventListener("submit", applyDates);
byId("dates-cancel").addEventListener("click", () => byId("dates").close());
