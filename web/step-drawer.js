// The drawer of a bar: its series, the windows of one of them, and the events of its city.

import { ask, downloadLink } from "./data.js";
import { h, plural, put, SEVERITIES, typeClass, whole } from "./dom.js";
import { register } from "./drawer.js";
import { eventsSection } from "./events.js";
import * as filters from "./filters.js";
import { pagedList, scrollable } from "./paging.js";
import { clock, day, parseInstant, range as rangeText } from "./time.js";
import { view } from "./view.js";

const WINDOW_ROWS = 12;
/** Most series with a row. */
const SERIES_ROWS = 40;

/** Returns the series of a timeline with their counts by severity, largest first. */
function countSeries(answer) {
  const counted = answer.series.map((one) => {
    const counts = SEVERITIES.map((_, level) => one.steps.reduce((sum, step) => sum + step[level + 1], 0));
    return { city: one.city, type: one.event_type, counts, total: counts.reduce((a, b) => a + b, 0) };
  });
  return counted.filter((one) => one.total > 0).sort((a, b) => b.total - a.total);
}

const severityHeads = () => SEVERITIES.map((name) => h("th", { scope: "col" }, h("i", { class: `swatch sev-${name}` }), name));
const severityCells = (counts) => counts.map((n) => h("td", {}, n ? whole(n) : "–"));

function windowRow(one) {
  const [from, to] = [Date.parse(one.window_start), Date.parse(one.window_end)];
  return h("tr", {}, h("th", { scope: "row" }, `${day(from)} ${clock(from)}–${clock(to)}`), h("td", {}, whole(one.event_count)),
    ...severityCells(SEVERITIES.map((name) => one[`severity_${name}`])), h("td", {}, one.final ? "final" : "still counting"));
}

/** Returns a section with the windows of a series. */
function windowsSection({ city, type }, range) {
  const base = `/api/v1/aggregations?${new URLSearchParams({ city, event_type: type, ...range })}`;
  const csv = h("a", { class: "csv" }, "CSV");
  downloadLink(csv, `${base}&format=csv`);
  const read = async (cursor) => {
    const answer = await ask(`${base}&limit=${WINDOW_ROWS}${cursor ? `&cursor=${cursor}` : ""}`);
    return { items: answer.aggregations, after: answer.next };
  };
  const head = h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "window"), h("th", { scope: "col" }, "events"), ...severityHeads(), h("th", { scope: "col" }, "state")));
  return h("section", { class: "windows" },
    h("div", { class: "card-head" }, h("h3", {}, `Windows of ${type} in ${city}`), csv),
    pagedList({ read, row: windowRow, what: "window", empty: "No windows in this range.", head }));
}

/** Returns the table of the series, and the element below it that shows the windows and events of one of them. */
function seriesTable(series, range) {
  const detail = h("div", { id: "step-detail" });
  const buttons = series.map((one) => h("button", { type: "button", class: "series", "data-series": `${one.city}#${one.type}`, onclick: () => show(one) },
    h("i", { class: `swatch ${typeClass(one.type)}` }), `${one.city}, ${one.type}`));
  const show = (one) => {
    buttons.forEach((button, n) => button.setAttribute("aria-pressed", String(series[n] === one)));
    put(detail, windowsSection(one, range), eventsSection(one.city, range, { type: one.type, severity: view().severity }));
  };
  const head = h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "series"), h("th", { scope: "col" }, "events"), ...severityHeads()));
  const rows = series.map((one, n) => h("tr", {}, h("th", { scope: "row" }, buttons[n]), h("td", {}, whole(one.total)), ...severityCells(one.counts)));
  if (series.length) show(series[0]);
  const table = h("table", { class: "rows", id: "step-series" }, head, h("tbody", {}, ...rows));
  return [scrollable("series", table), detail];
}

register("step", async (id) => {
  const [fromMs, toMs] = id.split("/").map(parseInstant);
  if (!(fromMs < toMs)) return { title: "Not shown", body: [h("p", {}, "The URL names no range of time.")] };
  const range = { from: new Date(fromMs).toISOString(), to: new Date(toMs).toISOString() };
  const answer = await ask(`/api/v1/timeline?${[new URLSearchParams(range), filters.query(), "series_limit=400"].filter(String).join("&")}`);
  const series = countSeries(answer);
  const more = series.length - SERIES_ROWS;
  return {
    title: rangeText(fromMs, toMs),
    body: [
      h("p", { id: "step-total", class: "drawer-figure" }, plural(answer.totals.event_count, "event")),
      ...(series.length ? seriesTable(series.slice(0, SERIES_ROWS), range) : [h("p", { class: "note" }, filters.nothing())]),
      more > 0 ? h("p", { class: "note" }, `${plural(more, "smaller series", "smaller series")} not listed. Choose a city to see them.`) : null,
    ],
  };
});
