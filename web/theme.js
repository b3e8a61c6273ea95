// The theme of the page: as the system, light or dark. The browser remembers it.

import { byId } from "./dom.js";

const THEMES = { auto: "system", light: "light", dark: "dark" };
const STORED = "citystream-theme";

function set(next) {
  const root = document.documentElement;
  if (next === "auto") delete root.dataset.theme;
  else root.dataset.theme = next;
  localStorage.setItem(STORED, next);
  byId("theme").dataset.theme = next;
  byId("theme").setAttribute("aria-label", `Theme: ${THEMES[next]}`);
  byId("theme").title = `Theme: ${THEMES[next]}`;
}

byId("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  set(names[(names.indexOf(byId("theme").dataset.theme) + 1) % names.length]);
});
const kept = localStorage.getItem(STORED);
set(kept in THEMES ? kept : "auto");
