// Loads the numbers of the range on screen.

import { ask } from "./data.js";
import * as filters from "./filters.js";
import * as range from "./range.js";
import { choose, emptySteps, isComplete, trim } from "./series.js";
import { key, view } from "./view.js";

/** Most series that the server reads for one answer. The page asks for all of them. */
const SERIES_LIMIT = 400;
const PATH = "/api/v1/timeline";
/** Shows where the data ends, if the range on screen ends elsewhere. */
const TAIL = `${PATH}?hours=6&series_limit=1`;

/** Returns true if the range can be compared with the period before it. */
export const canCompare = () => view().span !== "all" || range.isFixed();

/** Adds what the page always asks for, and the comparison. */
function withAll(path) {
  const compare = view().compare && canCompare() ? "&compare=previous" : "";
  return `${path}&series_limit=${SERIES_LIMIT}${compare}`;
}

/** Returns the unfiltered timeline of the range, and the one that shows where the data ends. */
async function askWhole() {
  if (range.isFixed()) {
    const [whole, tail] = await Promise.all([ask(withAll(`${PATH}?${range.query()}`)), ask(TAIL)]);
    return { whole, tail, skip: 0 };
  }
  const recent = await ask(withAll(`${PATH}?${range.query()}`));
  if (view().span !== "fit") return { whole: recent, tail: recent, skip: 0 };
  const whole = range.isPast(recent) && recent.newest_window_start ? await ask(withAll(`${PATH}?${range.query(recent.to)}`)) : recent;
  return { whole, tail: recent, skip: emptySteps(whole) };
}

/** Returns the path of the timeline with the bounds of an answer and these filters. */
export function pathOf({ from, to }, wanted) {
  const asked = new URLSearchParams(range.query());
  asked.delete("hours");
  asked.set("from", from);
  asked.set("to", to);
  return `${PATH}?${[asked, wanted].filter(String).join("&")}`;
}

/**
 * Loads the timeline without filters (`whole`) and with them (`chosen`). If `whole` lists every series, it suffices for all figures.
 * `cities` loads the list of cities, which is needed only otherwise.
 */
export async function load(cities) {
  const of = key();
  const { whole, tail, skip } = await askWhole();
  const wanted = filters.query();
  const [chosen, list] = isComplete(whole) ? [choose(whole, view()), null]
    : await Promise.all([wanted ? ask(withAll(pathOf(whole, wanted))) : whole, cities()]);
  return { key: of, whole: trim(whole, skip), chosen: trim(chosen, skip), tail, cities: list };
}

/** Loads the timeline of one city in the range of an answer. */
export const loadCity = (answer, city) => ask(withAll(pathOf(answer, new URLSearchParams({ city }))));
