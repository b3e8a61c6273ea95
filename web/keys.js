// Keyboard shortcuts, and the help that lists them.

import { byId } from "./dom.js";
import * as range from "./range.js";
import * as sheet from "./sheet.js";

/** Elements to which the arrow keys already mean something. */
const TAKES_ARROWS = "input, select, textarea, dialog, [role=slider], [tabindex]:not([tabindex='-1'])";
const TAKES_TEXT = "input:not([type=radio]), textarea";

const actions = {
  "/": () => { sheet.open(); byId("city").focus(); },
  "?": () => byId("help").showModal(),
  ArrowLeft: () => range.step(-1),
  ArrowRight: () => range.step(1),
};

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  const action = Object.hasOwn(actions, event.key) && actions[event.key];
  const isArrow = event.key.startsWith("Arrow");
  if (!action || document.querySelector("dialog[open]") || event.target.closest?.(isArrow ? TAKES_ARROWS : TAKES_TEXT)) return;
  event.preventDefault();
  action();
});

byId("help-open").addEventListener("click", () => byId("help").showModal());
byId("help-close").addEventListener("click", () => byId("help").close());
