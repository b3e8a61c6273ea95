// What a click opens: a bar, an alert, an event, a city, and an entry of the legend; pages of events, and links to CSV.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { accessible, begin, dev, end, figure, january, open, request, state } from "./harness.mjs";

let server;

before(async () => {
  await begin();
  server = await dev("--port", "0", "--input", january);
  const page = await open(server.address);
  await figure(page, "33,960");
  await page.context().close();
});

after(end);

const whole = (n) => new Intl.NumberFormat("en-US").format(n);
const query = (page) => new URL(page.url()).searchParams;
const get = (path) => request(`${server.address}/api/v1/${path}`).then((response) => response.json());
const lines = (path) => request(new URL(path, server.address)).then(async (response) => {
  assert.equal(response.status, 200, path);
  return (await response.text()).trim().split("\n");
});
const title = (page, text) => page.waitForFunction((text) => document.getElementById("drawer-title").textContent === text, text);
const ready = async (suffix = "", prepare = undefined) => {
  const page = await open(`${server.address}/${suffix}`, { reducedMotion: "reduce" }, prepare);
  await state(page, "old");
  return page;
};
const done = async (page) => {
  assert.deepEqual(page.errors.filter((text) => !/ 50[34] /.test(text)), []);
  await page.context().close();
};
const closed = (page) => page.locator("#drawer").waitFor({ state: "hidden" });
const DAY = "from=2013-01-30&to=2013-01-31";

test("a click on a bar opens its windows and events, and the URL opens them again", async () => {
  const page = await ready(`?${DAY}&step=hour`);
  await page.waitForFunction(() => document.querySelectorAll("#chart .bars > g").length === 24);
  const box = await page.locator("#chart svg").boundingBox();
  await page.mouse.click(box.x + 44 + 15.5 * ((box.width - 48) / 24), box.y + 100);
  await title(page, "30 Jan 2013 15:00–16:00 UTC");
  assert.equal(query(page).get("open"), "step:2013-01-30T15:00Z/2013-01-30T16:00Z");
  const hour = await get("timeline?from=2013-01-30T15:00:00Z&to=2013-01-30T16:00:00Z&series_limit=400");
  assert.equal(await page.locator("#step-total").textContent(), `${hour.totals.event_count} events`);
  const rows = await page.locator("#step-series tbody tr").evaluateAll((all) => all.map((row) => Number(row.children[1].textContent)));
  assert.equal(rows.reduce((a, b) => a + b), hour.totals.event_count, "the series add up to the bar");

  // The largest series is chosen. Its windows add up to its row.
  await page.locator(".windows tbody tr").first().waitFor();
  const windows = await page.locator(".windows tbody tr").evaluateAll((all) => all.map((row) => Number(row.children[1].textContent)));
  assert.equal(windows.reduce((a, b) => a + b), rows[0]);
  await page.locator(".events .event").first().waitFor();
  const weather = page.locator('[data-series="NYC#weather"]');
  await weather.click();
  assert.equal(await weather.getAttribute("aria-pressed"), "true");
  await page.waitForFunction(() => document.querySelector(".events h3").textContent === "Weather events in NYC");
  await page.locator(".events .event").first().waitFor();
  assert.ok(await page.locator(".events .event-meta").evaluateAll((all) => all.every((one) => one.textContent.includes("weather"))));
  await accessible(page, "drawer of a bar");

  await page.reload();
  await title(page, "30 Jan 2013 15:00–16:00 UTC");
  await page.keyboard.press("Escape");
  await closed(page);
  assert.equal(query(page).get("open"), null);
  await page.goBack();
  await title(page, "30 Jan 2013 15:00–16:00 UTC");
  await page.locator("#drawer-close").click();
  await closed(page);
  // The keyboard opens bars, too.
  await page.getByRole("slider").first().focus();
  await page.keyboard.press("Home");
  await page.keyboard.press("Enter");
  await title(page, "30 Jan 2013 00:00–01:00 UTC");
  await done(page);
});

test("an alert opens its full record, its place in the log, and its window", async () => {
  const { alerts: [alert] } = await get(`alerts?${DAY.replaceAll(/\d{4}-\d\d-\d\d/g, "$&T00:00:00Z")}&severity=critical&limit=1`);
  // The place in the log is of the API. A server of another version may not send it.
  const page = await ready(`?${DAY}&severity=critical`, (page) => page.route("**/api/v1/events/**", async (route) => {
    const response = await route.fetch();
    const answer = await response.json();
    for (const event of answer.events ?? []) event.source ??= "city-events/3/811";
    await route.fulfill({ response, json: answer });
  }));
  await page.locator(".alert").first().click();
  await title(page, alert.description);
  const fact = (name) => page.locator(`[data-fact="${name}"]`).textContent();
  assert.equal(await fact("City"), alert.city);
  assert.equal(await fact("Severity"), "critical");
  assert.equal(await fact("Event id"), alert.event_id);
  assert.match(await fact("Kafka record"), /^partition \d+, offset \d+, topic city-events$/);
  assert.match(await fact("Stored"), /, [\d,]+ d after it$/);
  const [minute] = [Math.floor(Date.parse(alert.timestamp) / 300_000) * 300_000];
  const window = new Date(minute).toISOString().slice(11, 16);
  assert.match(await fact("Counting"), new RegExp(`^Counted in the window 30 Jan 2013 ${window}–\\d\\d:\\d\\d UTC. The window is final, with `));
  await accessible(page, "drawer of an alert");

  await page.getByRole("button", { name: `Window ${window}` }).click();
  await page.locator("#step-total").waitFor();
  assert.match(query(page).get("open"), /^step:2013-01-30T/);
  await page.goBack();
  await title(page, alert.description);
  await page.getByRole("button", { name: "The hour around it" }).click();
  await closed(page);
  await page.waitForFunction(() => /^30 Jan 2013/.test(document.getElementById("range-scope").textContent));
  assert.equal(Date.parse(query(page).get("to")) - Date.parse(query(page).get("from")), 3_600_000);
  await done(page);
});

test("a late event says that it is in no window, and an unknown event that it is not stored", async () => {
  let late;
  for (let cursor = ""; !late; ) {
    const page = await get(`events/NYC?limit=1000${cursor && `&cursor=${cursor}`}`);
    late = page.events.find((event) => event.late);
    cursor = page.next;
  }
  const name = `${late.city}#${late.timestamp}#${late.event_id}`;
  const page = await ready(`?open=event:${encodeURIComponent(name)}`);
  await title(page, late.description);
  assert.match(await page.locator('[data-fact="Counting"]').textContent(), /^Late: it arrived after its window was final\. It counts in the totals of all time, and in no window\./);
  await page.goto(`${server.address}/?open=event:${encodeURIComponent(`NYC#${late.timestamp}#nothing`)}`);
  await title(page, "Not found");
  await page.goto(`${server.address}/?open=step:yesterday/today`);
  await title(page, "Not shown");
  await done(page);
});

test("a city opens its view: sum, types, chart and pages of events", async () => {
  const page = await ready();
  await page.locator('[data-city="LA"]').click();
  await title(page, "LA");
  assert.equal(query(page).get("open"), "city:LA");
  const summary = await get("summary/LA");
  assert.match(await page.locator("#city-total").textContent(), new RegExp(`^${whole(summary.total_events)} events all time`));
  const types = await page.locator(".type-row").evaluateAll((all) => all.map((row) => [row.querySelector("span").textContent.trim(), row.querySelector("b").textContent]));
  assert.deepEqual(Object.fromEntries(types), Object.fromEntries(Object.entries(summary.event_type_breakdown).map(([type, n]) => [type, whole(n)])));
  await page.waitForFunction(() => [...document.querySelectorAll(".city-chart .bars rect")].some((bar) => bar.height.baseVal.value > 20));
  await accessible(page, "view of a city");

  // The list has the same events as the API, page by page.
  const ids = () => page.locator(".events .event").evaluateAll((all) => all.map((one) => one.dataset.id.split("#").slice(2).join("#")));
  const wanted = (await get("events/LA?limit=60")).events.map((event) => event.event_id);
  await page.locator(".events .event").first().waitFor();
  assert.deepEqual(await ids(), wanted.slice(0, 20));
  const foot = page.locator(".events .page-foot .note");
  assert.equal(await foot.textContent(), "1–20");
  await page.locator(".events .page-next").click();
  await page.waitForFunction(() => document.querySelector(".events .page-foot .note").textContent === "21–40");
  assert.deepEqual(await ids(), wanted.slice(20, 40));
  await page.locator(".events .page-back").click();
  await page.waitForFunction(() => document.querySelector(".events .page-foot .note").textContent === "1–20");
  assert.deepEqual(await ids(), wanted.slice(0, 20));
  await page.locator(".events .event").first().click();
  await page.locator('[data-fact="City"]').waitFor();
  await page.goBack();
  await title(page, "LA");
  await page.locator("#city-filter").click();
  await closed(page);
  await figure(page, whole(summary.total_events));
  assert.equal(await page.inputValue("#city"), "LA");
  await done(page);
});

test("an entry of the legend filters, and a second click removes the filter", async () => {
  const page = await ready();
  await page.locator('#legend [data-key="weather"]').click();
  assert.equal(query(page).get("type"), "weather");
  await page.waitForFunction(() => document.querySelectorAll("#legend [data-key]").length === 1);
  await page.locator('#legend [data-key="weather"][aria-pressed="true"]').click();
  assert.equal(query(page).get("type"), null);
  await page.locator("#stack label", { hasText: "severity" }).click();
  await page.locator('#legend [data-key="critical"]').click();
  assert.equal(query(page).get("severity"), "critical");
  await done(page);
});

test("each list can be downloaded as CSV, with what is shown", async () => {
  const page = await ready(`?${DAY}&city=NYC`);
  await page.waitForFunction(() => /^30 Jan/.test(document.getElementById("range-scope").textContent));
  const link = (selector) => page.locator(selector).evaluate((link) => [link.getAttribute("href"), link.download]);
  const [alerts, name] = await link("#alerts-csv");
  assert.equal(name, "alerts.csv");
  const expected = await get(alerts.replace("/api/v1/", "").replace("format=csv", "limit=1000"));
  assert.ok(expected.alerts.length > 60, "more than the page shows");
  assert.equal((await lines(alerts)).length - 1, expected.alerts.length);
  const cities = await lines((await link("#cities-csv"))[0]);
  assert.equal(cities.length - 1, 6);
  const [timeline] = await link("#chart-csv");
  assert.match(timeline, /^\/api\/v1\/timeline\?from=2013-01-30T00%3A00%3A00Z&to=2013-01-31T00%3A00%3A00Z&city=NYC&format=csv$/);

  await page.goto(`${server.address}/?open=step:2013-01-30T15:00Z/2013-01-30T16:00Z`);
  await page.locator(".windows tbody tr").first().waitFor();
  const windows = await lines((await link(".windows .csv"))[0]);
  assert.equal(windows.length - 1, await page.locator(".windows tbody tr").count());
  await page.locator(".events .event").first().waitFor();
  const [events, file] = await link(".events .csv");
  assert.equal(file, "events-NYC.csv");
  const all = await get("events/NYC?from=2013-01-30T15:00:00Z&to=2013-01-30T16:00:00Z&limit=1000");
  assert.equal((await lines(events)).length - 1, all.count);
  const download = page.waitForEvent("download");
  await page.locator(".windows .csv").click();
  const saved = await download;
  assert.equal(saved.suggestedFilename(), "aggregations.csv");
  assert.equal(await saved.failure(), null);
  await done(page);
});
