// The card of the chart: events over time, its legend, and the notes about what it covers.

import { pathOf } from "./answers.js";
import { downloadLink } from "./data.js";
import { byId, h, plural, put, segments, setText, whole } from "./dom.js";
import * as filters from "./filters.js";
import { colorOf, Plot } from "./plot.js";
import * as range from "./range.js";
import { OTHERS, stack } from "./series.js";
import { instantText, length, range as rangeText } from "./time.js";
import { choose, view } from "./view.js";

let plot = null;

/** Opens the drawer of a step. */
export const openStep = ({ from, to }, change = {}) => choose({ ...change, open: `step:${instantText(from)}/${instantText(to)}` });

/** Draws the buttons that choose what the bars are stacked by. */
export function renderControls() {
  segments(byId("stack"), "by", [["type", "by type"], ["severity", "by severity"]], view().by, choose);
}

/** Returns an entry of the legend. A click filters by it, or removes the filter. */
function legendEntry(key, sum) {
  const { by } = view();
  const content = [h("i", { class: `swatch ${colorOf(key, by)}` }), key, h("b", {}, whole(sum))];
  if (key === OTHERS) return h("li", {}, h("span", { class: "legend-entry" }, ...content));
  return h("li", {}, h("button", {
    type: "button", class: "legend-entry", "data-key": key, "aria-pressed": String(view()[by] === key), title: `Show only ${key}`,
    onclick: () => choose({ [by]: key }, { toggle: true }),
  }, ...content));
}

function renderLegend(answer, model) {
  const sums = model.keys.map((_, k) => model.steps.reduce((sum, step) => sum + step.counts[k], 0));
  const before = model.before?.reduce((a, b) => a + b, 0);
  const focused = document.activeElement?.dataset?.key;
  put(byId("legend"),
    ...model.keys.map((key, k) => legendEntry(key, sums[k])),
    before === undefined ? null : h("li", { id: "legend-previous" }, h("span", { class: "legend-entry" }, h("i", { class: "swatch previous" }), "previous period", h("span", { class: "legend-sum" }, whole(before)))),
    answer.open.length ? h("li", { class: "legend-open" }, h("span", { class: "legend-entry" }, h("i", { class: "swatch open" }), "still counting")) : null,
  );
  if (focused) byId("legend").querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function renderNotes(answer, model) {
  const total = model.steps.reduce((sum, step) => sum + step.total, 0);
  const more = answer.series_total - answer.series_read;
  const late = answer.all_time.late_count;
  setText(byId("chart-note"), `${plural(total, "event")} · ${rangeText(model.from, model.to)} · ${length(model.stepMs)} bars`);
  put(byId("chart-scope"),
    total ? null : h("span", {}, filters.nothing()),
    more > 0 ? h("span", {}, `This chart and “this range” cover only the ${whole(answer.series_read)} largest of ${whole(answer.series_total)} series. ${answer.partial ? "Loading the others." : "Choose a city to see the others."}`) : null,
    late > 0 && !view().severity ? h("span", {}, `${whole(late)} late ${late === 1 ? "event" : "events"} (all time) arrived after the window was final: counted in the totals, not in this chart.`) : null,
  );
}

export function render(answer) {
  plot ??= new Plot(byId("chart"), "Events over time", { pick: (step) => openStep(step), select: (from, to) => range.show(from, to) });
  const model = stack(answer, view());
  plot.render(model, view().by);
  renderLegend(answer, model);
  renderNotes(answer, model);
  downloadLink(byId("chart-csv"), `${pathOf(answer, filters.query())}&format=csv`);
}
