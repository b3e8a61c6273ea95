// The page: asks for the numbers, hands them to those who draw, and says how fresh they are.

import * as alerts from "./alerts.js";
import * as breakIt from "./break.js";
import * as cities from "./cities.js";
import { ask, Clockwork, listen, Refused } from "./data.js";
import { ago, byId, clock, clockSeconds, dayYear, setText } from "./dom.js";
import * as filters from "./filters.js";
import * as heatmap from "./heatmap.js";
import * as pipeline from "./pipeline.js";
import * as timeline from "./timeline.js";
import * as totals from "./totals.js";

const root = document.documentElement;
/** Most series that the server reads for an answer: all of these are listed. */
const SERIES_LIMIT = 400;
/** Events older than this are not called live. */
const LIVE_MS_MAX = 20 * 60_000;
let answer = null;

/** Reads all that is shown: everything (`whole`), what the filters choose of it, and the cities. */
async function read() {
  const base = `/api/v1/timeline?hours=${filters.hours()}&series_limit=${SERIES_LIMIT}`;
  const [whole, list] = await Promise.all([ask(base), cities.load(), pipeline.load()]);
  const wanted = filters.query();
  const chosen = wanted ? await ask(`${base}&${wanted}&to=${encodeURIComponent(whole.to)}`) : whole;
  await alerts.load(chosen);
  return { whole, chosen, cities: list, view: filters.view() };
}

function draw() {
  // What was read for other filters would be shown under the wrong name.
  if (!answer || answer.view !== filters.view()) return;
  const { whole, chosen } = answer;
  const names = answer.cities?.cities ?? whole.series;
  filters.offer([...new Set(names.map((one) => one.city))], [...new Set(whole.series.map((one) => one.event_type))]);
  filters.missing(chosen.series_total === 0 && whole.series_total > 0);
  totals.render(chosen);
  timeline.render(chosen);
  heatmap.render(chosen);
  cities.render(answer);
  alerts.render(chosen);
  links(chosen);
}

/** The links to the API name the range and the city that are shown. */
function links({ from, to }) {
  const { city, severity } = filters.filters();
  const range = new URLSearchParams({ from, to });
  if (city) range.set("city", city);
  if (severity) range.set("severity", severity);
  byId("link-alerts").href = `/api/v1/alerts?${range}`;
  const query = new URLSearchParams({ hours: filters.hours(), to });
  byId("link-timeline").href = `/api/v1/timeline?${query}${filters.query() ? `&${filters.query()}` : ""}`;
}

function state(name, status, banner = "") {
  root.dataset.state = name;
  setText(byId("status-text"), status);
  const box = byId("banner");
  setText(box, banner);
  box.hidden = !banner;
}

/** Says whether the numbers are live, and how old the newest event is. */
function fresh() {
  const { whole } = answer;
  if (whole.series_total === 0) {
    state("empty", "waiting for events", "No events yet. The numbers appear with the first one that a consumer has counted.");
    return;
  }
  const start = Date.parse(whole.newest_window_start ?? "");
  if (Number.isNaN(start)) {
    state("old", "connected · no event in a window yet");
    return;
  }
  // An alert says the time of an event, where a window says only five minutes.
  const age = Date.now() - Math.max(start, alerts.newest());
  const newest = age < 3_600_000 ? `under ${Math.max(1, Math.ceil(age / 60_000))} min old`
    : age < 48 * 3_600_000 ? `under ${Math.ceil(age / 3_600_000)} h old`
      : `of ${dayYear(start)}, ${clock(start)} UTC`;
  const cut = whole.series_read < whole.series_total ? ` in the ${whole.series_read} largest series` : "";
  const live = age < LIVE_MS_MAX;
  state(live ? "live" : "old", `${live ? (clockwork.stream ? "live" : "up to date") : "connected"} · newest event${cut} ${newest}`);
}

const clockwork = new Clockwork(read, {
  done(next) {
    answer = next;
    fresh();
    draw();
  },
  failed(error, sinceMs) {
    const refused = error instanceof Refused;
    if (error.code === "read_ceiling") {
      state("reading", "reading history", "This range holds more than one request may read. The server keeps what it has read; the page asks on until all of it is there.");
      return;
    }
    const why = refused ? error.message : "The server does not answer.";
    if (answer) {
      const at = Date.parse(answer.whole.generated_at);
      state("stale", `stale since ${clockSeconds(sinceMs)} UTC`,
        `${sentence(why)} These are the last numbers, of ${clockSeconds(at)} UTC (${ago(at)}). The page goes on by itself.`);
    } else {
      state("error", "no numbers", `${sentence(why)} Trying again.`);
    }
  },
});

// Time goes by without an answer, too.
setInterval(() => {
  if (["live", "old"].includes(root.dataset.state)) fresh();
}, 5_000);

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
