// The page: loads the numbers, passes them to the modules that draw them, and shows how fresh they are.

import * as alerts from "./alerts.js";
import * as breakIt from "./break.js";
import * as cities from "./cities.js";
import { ask, listen, Poller, openWithToken, Refused } from "./data.js";
import { ago, byId, clock, clockSeconds, dayYear, setText } from "./dom.js";
import * as filters from "./filters.js";
import * as heatmap from "./heatmap.js";
import * as pipeline from "./pipeline.js";
import * as timeline from "./timeline.js";
import * as totals from "./totals.js";

const root = document.documentElement;
/** Most series that the server reads for one answer. The page asks for all of them. */
const SERIES_LIMIT = 400;
/** Largest age of the newest event for the page to be live. */
const LIVE_MS_MAX = 20 * 60_000;
/** Longest time between two answers from which the page computes a rate. */
const RATE_GAP_MS_MAX = 6_000;
/** Longest time between two answers that shows when an event was counted. A hidden tab exceeds it. */
const GROWTH_GAP_MS_MAX = 14_000;
let answer = null;
let answeredMs = -Infinity;
/** When the page last saw the number of events grow, or 0. */
let grownMs = 0;

/**
 * Loads everything on the page. If the unfiltered timeline (`whole`) lists every series, it suffices for the figures
 * under any filter.
 */
async function load() {
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

/** Records whether events were counted since the previous answer, if the page observed the time between. */
function compare(next) {
  const nowMs = performance.now();
  const gapMs = nowMs - answeredMs;
  if (gapMs > RATE_GAP_MS_MAX) totals.interrupt();
  if (answer && events(next.whole) !== events(answer.whole)) grownMs = gapMs <= GROWTH_GAP_MS_MAX ? Date.now() : 0;
  answeredMs = nowMs;
}

/** Ends the observation: the page does not see what is counted until the next answer. */
function interrupt() {
  answeredMs = -Infinity;
  grownMs = 0;
  totals.interrupt();
}

function draw() {
  // An answer for other filters would appear under the wrong name.
  if (!answer || answer.view !== filters.view()) return;
  const { whole, chosen } = answer;
  const names = answer.cities?.cities ?? whole.series;
  filters.offer([...new Set(names.map((one) => one.city))], [...new Set(whole.series.map((one) => one.event_type))]);
  filters.setUnknown(chosen.series_total === 0 && whole.series_total > 0);
  totals.render(chosen);
  timeline.render(chosen);
  heatmap.render(chosen);
  cities.render(answer);
  alerts.render(chosen);
  updateLinks(chosen);
}

/** Points the links to the API at the range and filters on screen. */
function updateLinks({ from, to }) {
  const { city, type, severity } = filters.filters();
  const range = new URLSearchParams({ from, to });
  if (city) range.set("city", city);
  if (severity) range.set("severity", severity);
  setText(byId("link-alerts"), `alerts in this range${type ? ", all types" : ""}`);
  byId("link-alerts").href = `/api/v1/alerts?${range}`;
  const query = new URLSearchParams({ hours: filters.hours(), to });
  byId("link-timeline").href = `/api/v1/timeline?${query}${filters.query() ? `&${filters.query()}` : ""}`;
}

/** Shows the state. The `age` changes every second, so it is outside the text that screen readers announce. */
function showState(name, status, banner = "", age = "") {
  root.dataset.state = name;
  setText(byId("status-state"), status);
  setText(byId("status-age"), age && ` · ${age}`);
  const box = byId("banner");
  setText(box, banner);
  box.hidden = !banner;
}

/** Shows whether the numbers are live, and how old the newest event is. */
function showFreshness() {
  const { whole } = answer;
  if (whole.series_total === 0 && events(whole) === 0) {
    showState("empty", "waiting for events", "No events yet. Numbers appear once a consumer has counted the first event.");
    return;
  }
  const start = Date.parse(whole.newest_window_start ?? "");
  if (Number.isNaN(start)) {
    showState("old", "connected · no windows yet");
    return;
  }
  const cut = whole.series_read < whole.series_total ? ` in the ${whole.series_read} largest series` : "";
  const live = Date.now() - start < LIVE_MS_MAX;
  const age = !live ? `newest event${cut} of ${dayYear(start)}, ${clock(start)} UTC`
    : grownMs ? `last event counted ${ago(grownMs)}`
      : `newest event${cut} at most ${ageOf(Math.max(start, alerts.newestMs()))}`;
  showState(live ? "live" : "old", live ? (poller.stream ? "live" : "up to date") : "connected", "", age);
}

function ageOf(ms) {
  const seconds = Math.max(1, Math.ceil((Date.now() - ms) / 1_000));
  return seconds < 60 ? `${seconds} s old` : `${Math.ceil(seconds / 60)} min old`;
}

const poller = new Poller(load, {
  done(next) {
    compare(next);
    answer = next;
    // The next answer covers more series.
    if (next.whole.partial || next.chosen.partial) poller.changed();
    breakIt.answered();
    showFreshness();
    draw();
  },
  failed(error, sinceMs) {
    const refused = error instanceof Refused;
    if (error.code === "read_ceiling") {
      showState("reading", "loading", "This range needs several requests. Loading continues automatically.");
      return;
    }
    interrupt();
    const why = refused ? error.message : "The server does not answer.";
    if (answer) {
      const at = Date.parse(answer.whole.generated_at);
      showState("stale", `stale since ${clockSeconds(sinceMs)} UTC`,
        `${sentence(why)} Showing the numbers of ${clockSeconds(at)} UTC. Reconnecting automatically.`);
    } else {
      showState("error", "offline", `${sentence(why)} Retrying automatically.`);
    }
  },
});

// Ages also change without an answer.
setInterval(() => {
  if (["live", "old"].includes(root.dataset.state)) showFreshness();
  alerts.updateAges();
  if (performance.now() - answeredMs > RATE_GAP_MS_MAX) totals.interrupt();
}, 1_000);

function sentence(text) {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

filters.onChange(() => {
  alerts.forget();
  draw();
  poller.soon();
});

byId("links").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (link && openWithToken(link.href, event.ctrlKey || event.metaKey ? "_blank" : "_self")) event.preventDefault();
});

// --- theme -----------------------------------------------------------------------------------

const THEMES = { auto: "system", light: "light", dark: "dark" };

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

// --- start -----------------------------------------------------------------------------------

filters.render();
breakIt.start();
poller.soon();
listen({
  up(is) {
    poller.stream = is;
  },
  event: () => poller.changed(),
});
