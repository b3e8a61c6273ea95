// The page: loads the numbers, passes them to the modules that draw them, and shows how fresh they are.

import * as alerts from "./alerts.js";
import * as answers from "./answers.js";
import * as breakIt from "./break.js";
import * as cities from "./cities.js";
import * as cityDrawer from "./city-drawer.js";
import { listen, Poller, openWithToken, Refused, saveWithToken } from "./data.js";
import { byId, setText } from "./dom.js";
import * as drawer from "./drawer.js";
import "./event-drawer.js";
import * as filters from "./filters.js";
import * as heatmap from "./heatmap.js";
import * as incidents from "./incidents.js";
import "./keys.js";
import * as ownEvent from "./own-event.js";
import * as pipeline from "./pipeline.js";
import * as range from "./range.js";
import * as rangeBar from "./range-bar.js";
import "./sheet.js";
import "./step-drawer.js";
import "./theme.js";
import { ago, clock, clockSeconds, dayYear, zoneAt } from "./time.js";
import * as timeline from "./timeline.js";
import * as totals from "./totals.js";
import * as unseen from "./unseen.js";
import { key, onChange, view } from "./view.js";

const root = document.documentElement;
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

/** Loads everything on the page. */
async function load() {
  const loaded = await answers.load(cities.load);
  await Promise.all([alerts.load(loaded.chosen), incidents.load(), pipeline.load()]);
  return loaded;
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
  if (!answer || answer.key !== key()) return;
  const { whole, chosen, tail } = answer;
  range.setShown(chosen, tail);
  cityDrawer.setRange(chosen);
  rangeBar.render();
  const names = answer.cities?.cities ?? whole.series;
  filters.offer([...new Set(names.map((one) => one.city))], [...new Set(whole.series.map((one) => one.event_type))]);
  filters.setUnknown(chosen.series_total === 0 && whole.series_total > 0);
  totals.render(chosen);
  timeline.render(chosen);
  heatmap.render(chosen);
  cities.render(answer);
  alerts.render(chosen);
  setText(byId("link-alerts"), `alerts in this range${view().type ? ", all types" : ""}`);
  byId("link-alerts").href = alerts.path(chosen);
  byId("link-timeline").href = answers.pathOf(chosen, filters.query());
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
  const { whole, tail } = answer;
  if (whole.series_total === 0 && events(whole) === 0) {
    showState("empty", "waiting for events", "No events yet. Numbers appear once a consumer has counted the first event.");
    return;
  }
  const start = Date.parse(tail.newest_window_start ?? "");
  if (Number.isNaN(start)) {
    showState("old", "connected · no windows yet");
    return;
  }
  const cut = tail.series_read < tail.series_total ? ` in the ${tail.series_read} largest series` : "";
  const live = Date.now() - start < LIVE_MS_MAX;
  const age = !live ? `newest event${cut} of ${dayYear(start)}, ${clock(start)} ${zoneAt(start)}`
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
      showState("stale", `stale since ${clockSeconds(sinceMs)} ${zoneAt(sinceMs)}`,
        `${sentence(why)} Showing the numbers of ${clockSeconds(at)} ${zoneAt(at)}. Reconnecting automatically.`);
    } else {
      showState("error", "offline", `${sentence(why)} Retrying automatically.`);
    }
  },
});

// Ages also change without an answer.
setInterval(() => {
  if (["live", "old"].includes(root.dataset.state)) showFreshness();
  alerts.updateAges();
  incidents.updateAges();
  if (performance.now() - answeredMs > RATE_GAP_MS_MAX) totals.interrupt();
}, 1_000);

function sentence(text) {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

let shownKey = key();

onChange(() => {
  drawControls();
  if (shownKey !== key()) {
    shownKey = key();
    cityDrawer.setRange(null);
    alerts.forget();
    filters.changed();
    poller.soon();
  }
  draw();
  drawer.render();
});

function drawControls() {
  filters.render();
  rangeBar.render();
  timeline.renderControls();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("#links a, a[download]");
  if (!link) return;
  const isHandled = link.download ? saveWithToken(link) : openWithToken(link.href, event.ctrlKey || event.metaKey ? "_blank" : "_self");
  if (isHandled) event.preventDefault();
});

// --- start -----------------------------------------------------------------------------------

drawControls();
breakIt.start();
ownEvent.start();
poller.soon();
drawer.render();
listen({
  up(is) {
    poller.stream = is;
  },
  event(name, data) {
    if (name === "alert") unseen.take(JSON.parse(data));
    poller.changed();
  },
});
