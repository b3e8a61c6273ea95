// With 300 series, every figure of the page equals the API's own sums.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { begin, dev, end, figure, number, open, PATIENCE } from "./harness.mjs";

const CITIES = 75;
const TYPES = ["traffic", "weather", "incident", "construction"];
const SEVERITIES = ["low", "medium", "high", "critical"];
const EVENTS = 6_000;
const FROM_MS = Date.parse("2024-12-31T20:00:00Z");

let server;
let folder;

/** Five hours of events of 300 series, in order but for every hundredth, which is three hours late. */
function lines() {
  return Array.from({ length: EVENTS }, (_, n) => {
    const late = n % 100 === 99 && n > EVENTS * 0.7;
    return JSON.stringify({
      city: `City ${String((n * 7) % CITIES).padStart(2, "0")}`,
      event_type: TYPES[Math.floor(n / CITIES) % 4],
      severity: SEVERITIES[(n * n) % 11 % 4],
      timestamp: new Date(FROM_MS + n * 3_000 - (late ? 10_800_000 : 0)).toISOString(),
    });
  }).join("\n");
}

before(async () => {
  await begin();
  folder = await mkdtemp(path.join(tmpdir(), "citystream-"));
  await writeFile(path.join(folder, "events.ndjson"), lines());
  server = await dev("--port", "0", "--input", path.join(folder, "events.ndjson"));
});

after(async () => {
  await end();
  await rm(folder, { recursive: true, force: true });
});

async function api(name) {
  const response = await fetch(`${server.address}/api/v1/${name}`);
  assert.equal(response.status, 200, name);
  return response.json();
}

const whole = (n) => new Intl.NumberFormat("en-US").format(n);
const numbers = (text) => [...text.matchAll(/[\d,]+/g)].map(([n]) => Number(n.replaceAll(",", "")));

test("every figure is what stats, cities and summary say", async () => {
  const until = Date.now() + PATIENCE;
  let stats = await api("stats");
  while (stats.total_events_processed < EVENTS && Date.now() < until) {
    await new Promise((wait) => setTimeout(wait, 500));
    stats = await api("stats");
  }
  assert.equal(stats.total_events_processed, EVENTS);
  const cities = await api("cities");
  assert.equal(cities.city_count, CITIES);
  assert.equal(cities.total_events, EVENTS);
  assert.ok(stats.late_events > 0);
  const inWindows = EVENTS - stats.late_events;

  const page = await open(server.address, { reducedMotion: "reduce" });
  for (const span of ["fit", "6h", "24h", "7d"]) {
    await page.locator("#spans label", { hasText: new RegExp(`^${span === "fit" ? "Auto" : span}`) }).click();
    await figure(page, whole(EVENTS));
    // Each of these ranges contains all windows.
    await page.waitForFunction((text) => document.getElementById("total-range").textContent === text, whole(inWindows));
    await page.waitForFunction((text) => document.getElementById("chart-note").textContent.startsWith(`${text} event`), whole(inWindows));
    assert.equal(await number(page, "total-high"), stats.high_severity_alerts, span);
    assert.equal(await number(page, "total-critical"), stats.critical_alerts, span);
    assert.equal(await number(page, "total-late"), stats.late_events, span);
    const legend = await page.locator("#legend b").allTextContents();
    assert.equal(numbers(legend.join(" ")).reduce((a, b) => a + b), inWindows, `legend at ${span}`);
    const heat = await page.locator("#heat .cell-total").allTextContents();
    assert.equal(numbers(heat.join(" ")).reduce((a, b) => a + b), inWindows, `heat map at ${span}`);
    const few = await page.locator("#cities .city-total").allTextContents();
    assert.equal(numbers(few.join(" ")).reduce((a, b) => a + b), EVENTS, `cities and others at ${span}`);
  }
  assert.match(await page.locator("#chart-scope").textContent(), new RegExp(`${stats.late_events} late events`));
  await page.getByRole("button", { name: `Show all ${CITIES} cities` }).click();
  const listed = await page.locator("#cities .city").evaluateAll((all) => all.map((one) => [one.dataset.city, one.querySelector(".city-total").textContent]));
  assert.deepEqual(listed, cities.cities.map((one) => [one.city, whole(one.total_events)]));

  const summary = await api("summary/City%2042");
  await page.selectOption("#city", "City 42");
  await figure(page, whole(summary.total_events));
  for (const type of TYPES) {
    await page.locator("#types label", { hasText: type }).click();
    await figure(page, whole(summary.event_type_breakdown[type]));
  }
  await page.locator("#clear").click();
  await page.locator("#severities label", { hasText: "critical" }).click();
  await figure(page, whole(stats.critical_alerts));
  assert.equal(await page.locator("#all-time").isVisible(), false);
  // One request may read only a bounded number of rows, so the page sends more requests.
  assert.deepEqual(page.errors.filter((text) => !/ 50[34] /.test(text)), []);
  await page.context().close();
  assert.equal(await server.stop(), 0);
});
