// The page: asks for the numbers, hands them to those who draw, and says how fresh they are.

import * as alerts from "./alerts.js";
import * as breakIt from "./break.js";
import * as cities from "./cities.js";
import { ask, Clockwork, listen, openWithToken, Refused } from "./data.js";
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
/** With more time between two answers, they tell no rate. */
const RATE_GAP_MS_MAX = 6_000;
/** With more time between two answers, as in a hidden tab, they do not tell when an event was counted. */
const GROWTH_GAP_MS_MAX = 14_000;
let answer = null;
let answeredMs = -Infinity;
/** When the number of events was last seen to grow; 0 if it was not. */
let grownMs = 0;

/** Reads all that is shown. What lists every series (`whole`) is enough for the figures under any filter. */
async function read() {
  const base = `/api/v1/timeline?hours=${filters.hours()}&series_limit=${SERIES_LIMIT}`;
  const view = filters.view();
  const whole = await ask(base);
  const metrics = pipeline.load();
  const wanted = filters.query();
  const complete = timeline.isComplete(whole);
  const [chosen, list] = complete ? [timeline.choose(whole, filters.filters()), null]
    : await Promise.all([wanted ? ask(`${base}&${wanted}&to=${encodeURIComponent(whole.to)}`) : whole, cities.load()]);
  await Promise.all([alerts.load(chosen), metrics]);
  return { whole, chosen, cities: list, view };
}

const events = ({ all_time: all }) => all.event_count + all.late_count;

/** Notes whether events were counted since the answer before, and whether the page saw that. */
function compare(next) {
  const nowMs = performance.now();
  const gapMs = nowMs - answeredMs;
  if (gapMs > RATE_GAP_MS_MAX) totals.interrupt();
  if (answer && events(next.whole) !== events(answer.whole)) grownMs = gapMs <= GROWTH_GAP_MS_MAX ? Date.now() : 0;
  answeredMs = nowMs;
}

/** What was counted until the next answer is not seen. */
function interrupted() {
  answeredMs = -Infinity;
  grownMs = 0;
  totals.interrupt();
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
  const { city, type, severity } = filters.filters();
  const range = new URLSearchParams({ from, to });
  if (city) range.set("city", city);
  if (severity) range.set("severity", severity);
  setText(byId("link-alerts"), `alerts of this range${type ? ", all types" : ""}`);
  byId("link-alerts").href = `/api/v1/alerts?${range}`;
  const query = new URLSearchParams({ hours: filters.hours(), to });
  byId("link-timeline").href = `/api/v1/timeline?${query}${filters.query() ? `&${filters.query()}` : ""}`;
}

/** Sets the state. The `age` changes each second: it is outside of what a screen reader announces. */
function state(name, status, banner = "", age = "") {
  root.dataset.state = name;
  setText(byId("status-state"), status);
  setText(byId("status-age"), age && ` · ${age}`);
  const box = byId("banner");
  setText(box, banner);
  box.hidden = !banner;
}

/** Says whether the numbers are live, and how old the newest event is. */
function fresh() {
  const { whole } = answer;
  if (whole.series_total === 0 && events(whole) === 0) {
    state("empty", "waiting for events", "No events yet. The numbers appear with the first one that a consumer has counted.");
    return;
  }
  const start = Date.parse(whole.newest_window_start ?? "");
  if (Number.isNaN(start)) {
    state("old", "connected · no event in a window yet");
    return;
  }
  const cut = whole.series_read < whole.series_total ? ` in the ${whole.series_read} largest series` : "";
  const live = Date.now() - start < LIVE_MS_MAX;
  const age = !live ? `newest event${cut} of ${dayYear(start)}, ${clock(start)} UTC`
    : grownMs ? `last event counted ${ago(grownMs)}`
      : `newest event${cut} at most ${old(Math.max(start, alerts.newestMs()))}`;
  state(live ? "live" : "old", live ? (clockwork.stream ? "live" : "up to date") : "connected", "", age);
}

function old(ms) {
  const seconds = Math.max(1, Math.ceil((Date.now() - ms) / 1_000));
  return seconds < 60 ? `${seconds} s old` : `${Math.ceil(seconds / 60)} min old`;
}

const clockwork = new Clockwork(read, {
  done(next) {
    compare(next);
    answer = next;
    breakIt.answered();
    fresh();
    draw();
  },
  failed(error, sinceMs) {
    const refused = error instanceof Refused;
    if (error.code === "read_ceiling") {
      state("reading", "reading history", "This range holds more than one request may read. The server keeps what it has read; the page asks on until all of it is there.");
      return;
    }
    interrupted();
    const why = refused ? error.message : "The server does not answer.";
    if (answer) {
      const at = Date.parse(answer.whole.generated_at);
      state("stale", `stale since ${clockSeconds(sinceMs)} UTC`,
        `${sentence(why)} These are the last numbers, of ${clockSeconds(at)} UTC. The page goes on by itself.`);
    } else {
      state("error", "no numbers", `${sentence(why)} Trying again.`);
    }
  },
});

// Time goes by without an answer, too.
setInterval(() => {
  if (["live", "old"].includes(root.dataset.state)) fresh();
  alerts.tick();
  if (performance.now() - answeredMs > RATE_GAP_MS_MAX) totals.interrupt();
}, 1_000);

function sentence(text) {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

filters.onChange(() => {
  alerts.forget();
  draw();
  clockwork.soon();
});

byId("links").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (link && openWithToken(link.href, event.ctrlKey || event.metaKey ? "_blank" : "_self")) event.preventDefault();
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
