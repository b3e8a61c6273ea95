// Watermark, lag and latency, if the metrics of this server have them: in `dev`, or if a consumer runs in the same
// process.

import { askText } from "./data.js";
import { byId, h, plural, put, whole } from "./dom.js";
import { clockSeconds, dayYear } from "./time.js";

/** Parses the Prometheus text format into samples with name, labels and value. */
function parseSamples(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const match = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value;
    found.push({ name: match[1], labels, value: Number(match[3]) });
  }
  return found;
}

/** Latencies cover about the last minute, and need at least this many events. */
const RECENT_MS = 60_000;
const RECENT_EVENTS_MIN = 20;
let scrapes = [];

/** Returns the histogram of the last minute: pairs of an upper bound in seconds and a cumulative count. */
function recentLatencies(all) {
  const buckets = all.filter((one) => one.name === "citystream_event_latency_seconds_bucket")
    .map((one) => [one.labels.le === "+Inf" ? Infinity : Number(one.labels.le), one.value]).sort((a, b) => a[0] - b[0]);
  const total = (one) => one.buckets.at(-1)?.[1] ?? 0;
  const now = { ms: performance.now(), buckets };
  // Counters that fell belong to a new process.
  if (scrapes.length && total(now) < total(scrapes.at(-1))) scrapes = [];
  scrapes.push(now);
  while (scrapes.length > 2 && now.ms - scrapes[1].ms >= RECENT_MS) scrapes.shift();
  const before = new Map(scrapes[0].buckets);
  return buckets.map(([bound, count]) => [bound, count - (before.get(bound) ?? 0)]);
}

function quantile(buckets, part) {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (total < RECENT_EVENTS_MIN) return null;
  return buckets.find(([, count]) => count >= total * part)[0];
}

const seconds = (value) => (value === null ? "too few events" : value === Infinity ? "over 1 h" : value < 1 ? `≤ ${whole(value * 1000)} ms` : `≤ ${whole(value)} s`);

/** Returns the number of rejected records by reason, or null if none was rejected. */
function rejectedList(samples) {
  if (!samples.length) return null;
  return h("div", { id: "rejected" }, h("h3", {}, "Rejected records by reason"),
    h("ul", {}, ...samples.map((one) => h("li", {}, h("span", {}, one.labels.reason.replaceAll("_", " ")), h("b", {}, whole(one.value))))));
}

export async function load() {
  let all = [];
  try {
    all = parseSamples(await askText("/metrics"));
  } catch {
    // The metrics are optional. The other requests show whether the server is up.
    return;
  }
  const lag = all.filter((one) => one.name === "citystream_consumer_lag_records");
  const card = byId("pipeline");
  card.hidden = lag.length === 0;
  if (!lag.length) return;
  const marks = new Map(all.filter((one) => one.name === "citystream_watermark_timestamp_seconds").map((one) => [one.labels.partition, one.value]));
  const sum = (name) => all.filter((one) => one.name === name).reduce((total, one) => total + one.value, 0);
  const rejected = all.filter((one) => one.name === "citystream_events_rejected_total" && one.value > 0).sort((a, b) => b.value - a.value);
  const rows = lag.sort((a, b) => Number(a.labels.partition) - Number(b.labels.partition));
  const behind = lag.reduce((total, one) => total + Math.max(0, one.value), 0);
  const latency = recentLatencies(all);
  const fact = (name, value, title) => h("div", { title }, h("dt", {}, name), h("dd", {}, value));
  put(byId("pipeline-body"),
    h("dl", { class: "facts" },
      fact("Lag", plural(behind, "record")),
      fact("Latency p50", seconds(quantile(latency, 0.5)), "Half of the events of the last minute were stored within this time after they were sent."),
      fact("Latency p99", seconds(quantile(latency, 0.99)), "99 % of the events of the last minute were stored within this time after they were sent."),
      fact("Duplicate writes refused", whole(sum("citystream_fence_conflicts_total")), "Writes that DynamoDB refused because an earlier attempt or another consumer had already counted their records."),
      fact("Rejected records", whole(sum("citystream_events_rejected_total"))),
    ),
    h("table", { class: "partitions" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "partition"), h("th", { scope: "col" }, "watermark"), h("th", { scope: "col" }, "lag"))),
      h("tbody", {}, ...rows.map((one) => {
        const mark = marks.get(one.labels.partition);
        const known = mark !== undefined && Number.isFinite(mark) && mark > 0;
        return h("tr", {}, h("th", { scope: "row" }, one.labels.partition),
          h("td", {}, known ? `${dayYear(mark * 1000)}, ${clockSeconds(mark * 1000)}` : "none yet"),
          h("td", {}, whole(one.value)));
      }))),
    rejectedList(rejected),
  );
}
