// The page: asks for the numbers, hands them to those who draw, and says how fresh they are.

import * as alerts from "./alerts.js";
import * as breakIt from "./break.js";
import * as cities from "./cities.js";
import { ask, Clockwork, listen, Refused } from "./data.js";
import { ago, byId, clockSeconds, setText } from "./dom.js";
import * as filters from "./filters.js";
import * as heatmap from "./heatmap.js";
import * as pipeline from "./pipeline.js";
import * as timeline from "./timeline.js";
import * as totals from "./totals.js";

const root = document.documentElement;
let answer = null;

async function read() {
  const [next] = await Promise.all([ask(`/api/v1/timeline?hours=${filters.hours()}`), pipeline.load()]);
  await alerts.load(next);
  return next;
}

function draw() {
  if (!answer) return;
  filters.offer([...new Set(answer.series.map((one) => one.city))], [...new Set(answer.series.map((one) => one.event_type))]);
  totals.render(answer.series, answer.generated_at);
  timeline.render(answer);
  heatmap.render(answer);
  cities.render(answer);
  alerts.render();
}

function state(name, status, banner = "") {
  root.dataset.state = name;
  setText(byId("status-text"), status);
  const box = byId("banner");
  setText(box, banner);
  box.hidden = !banner;
}

const clockwork = new Clockwork(read, {
  done(next) {
    answer = next;
    const empty = next.series.length === 0;
    state(empty ? "empty" : "live", empty ? "waiting for events" : clockwork.stream ? "live" : "up to date",
      empty ? "No events yet. The numbers appear with the first one that a consumer has counted." : "");
    draw();
  },
  failed(error, sinceMs) {
    const refused = error instanceof Refused;
    const why = refused ? error.message : "The server does not answer.";
    if (answer) {
      state("stale", `stale since ${clockSeconds(sinceMs)} UTC`,
        `${sentence(why)} These are the last numbers, of ${clockSeconds(Date.parse(answer.generated_at))} UTC (${ago(Date.parse(answer.generated_at))}). The page goes on by itself.`);
    } else {
      state("error", "no numbers", `${sentence(why)} Trying again.`);
    }
  },
});

function sentence(text) {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

filters.onChange(() => {
  alerts.forget();
  draw();
  clockwork.soon();
});

// --- theme -----------------------------------------------------------------------------------

const THEMES = { auto: "as the system", light: "light", dark: "dark" };

function theme(next) {
  if (next === "auto") delete root.dataset.theme;
  else root.dataset.theme = next;
  localStorage.setItem("citystream-theme", next);
  byId("theme").dataset.theme = next;
  byId("theme").setAttribute("aria-label", `Theme: ${THEMES[next]}`);
  byId("theme").title = `Theme: ${THEMES[next]}`;
}

byId("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  theme(names[(names.indexOf(byId("theme").dataset.theme) + 1) % names.length]);
});
const kept = localStorage.getItem("citystream-theme");
theme(kept in THEMES ? kept : "auto");

// --- begin -----------------------------------------------------------------------------------

filters.render();
breakIt.start();
clockwork.soon();
listen({
  up(is) {
    clockwork.stream = is;
  },
  event: () => clockwork.changed(),
});
