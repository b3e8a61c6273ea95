// The range on screen: its controls, the URL that holds it, zooming, and the comparison with the period before.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { accessible, begin, dev, end, figure, january, number, open, request, state } from "./harness.mjs";

let server;

before(async () => {
  await begin();
  server = await dev("--port", "0", "--input", january);
  // Ranges of hours need rollups, which follow the events.
  const page = await open(server.address);
  await figure(page, "33,960");
  await page.context().close();
});

after(end);

const inRange = (page, text) => page.waitForFunction((text) => document.getElementById("total-range").textContent === text, text);
const scope = (page, pattern) => page.waitForFunction((source) => new RegExp(source).test(document.getElementById("range-scope").textContent), pattern.source);
const query = (page) => new URL(page.url()).searchParams;
const still = { reducedMotion: "reduce" };
const ready = async (suffix = "", options = still) => {
  const page = await open(`${server.address}/${suffix}`, options);
  await state(page, "old");
  return page;
};
const done = async (page) => {
  assert.deepEqual(page.errors.filter((text) => !/ 50[34] /.test(text)), []);
  await page.context().close();
};
/** Returns the number of events that the API counts from a day of January to another. */
const api = async (from, to, more = "") => {
  const answer = await request(`${server.address}/api/v1/timeline?from=${from}&to=${to}${more}`).then((response) => response.json());
  return answer.totals.event_count;
};
const whole = (n) => new Intl.NumberFormat("en-US").format(n);

test("without a range in the URL, the page shows all events that lie in the past", async () => {
  const page = await ready();
  await inRange(page, "33,351");
  assert.equal(await number(page, "total-events"), 33_960, "all time is beside it");
  assert.match(await page.locator("#range-scope").textContent(), /^1 Jan 06:00 – 1 Feb 2013/);
  assert.equal(page.url(), `${server.address}/`);
  assert.equal(await page.locator("#range-forward").isDisabled(), true);
  await done(page);
});

test("a named range steps back and forward by its length, and follows the newest data again", async () => {
  const page = await ready("?span=7d");
  await scope(page, /– 1 Feb 2013/);
  await page.locator("#range-back").click();
  await scope(page, /^18 Jan .* – 25 Jan 2013/);
  assert.equal(query(page).get("span"), "7d");
  const [to] = [query(page).get("to")];
  const from = new Date(Date.parse(to) - 7 * 86_400_000).toISOString();
  await inRange(page, whole(await api(from, new Date(to).toISOString())));
  assert.equal(await page.locator("#range-forward").isEnabled(), true);
  await page.locator("#range-forward").click();
  await scope(page, /– 1 Feb 2013/);
  assert.equal(query(page).get("to"), null, "the range ends with the newest data");
  await page.goBack();
  await scope(page, /^18 Jan/);
  // A choice by name leaves the past.
  await page.locator("#spans label", { hasText: "24h" }).click();
  await scope(page, /1 Feb 2013/);
  assert.equal(query(page).get("to"), null);
  await done(page);
});

test("the calendar shows whole days, and steps keep them whole", async () => {
  const page = await ready();
  await page.locator("#dates-toggle").click();
  await accessible(page, "dates");
  await page.fill("#date-from", "2013-01-07");
  await page.fill("#date-to", "2013-01-05");
  await page.locator("#dates-form [type=submit]").click();
  assert.match(await page.locator("#date-trouble").textContent(), /not before it/);
  await page.fill("#date-from", "2013-01-05");
  await page.fill("#date-to", "2013-01-06");
  await page.locator("#dates-form [type=submit]").click();
  await inRange(page, whole(await api("2013-01-05", "2013-01-07")));
  assert.equal(query(page).get("from"), "2013-01-05");
  assert.equal(query(page).get("to"), "2013-01-07");
  await page.locator("#range-forward").click();
  await inRange(page, whole(await api("2013-01-07", "2013-01-09")));
  assert.equal(query(page).get("from"), "2013-01-07");
  await page.reload();
  await inRange(page, whole(await api("2013-01-07", "2013-01-09")));
  await done(page);
});

test("arrows move the range unless a control uses them", async () => {
  const page = await ready("?from=2013-01-05&to=2013-01-06");
  await scope(page, /^5 Jan 2013/);
  await page.keyboard.press("ArrowRight");
  await scope(page, /^6 Jan 2013/);
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("ArrowLeft");
  await page.waitForFunction(() => location.search.includes("from=2013-01-04"));
  await scope(page, /^4 Jan 2013/);
  // On the chart and in a group of buttons, the same keys have their own meaning.
  await page.getByRole("slider").focus();
  await page.keyboard.press("ArrowRight");
  await page.locator("#severities input").first().focus();
  await page.keyboard.press("ArrowRight");
  assert.equal(query(page).get("from"), "2013-01-04");
  assert.equal(query(page).get("severity"), "low");
  await done(page);
});

test("a drag on the chart shows only that range", async () => {
  const page = await ready("?from=2013-01-05&to=2013-01-15&step=day");
  await scope(page, /^5 Jan .* – 15 Jan 2013/);
  const bars = await page.locator("#chart .bars > g").count();
  assert.equal(bars, 10);
  const drag = async (first, last) => {
    const box = await page.locator("#chart svg").boundingBox();
    const x = (day) => box.x + 44 + (day + 0.5) * ((box.width - 48) / bars);
    await page.mouse.move(x(first), box.y + 100);
    await page.mouse.down();
    await page.mouse.move(x(last), box.y + 110, { steps: 4 });
    assert.equal(await page.locator("#chart .brush").getAttribute("visibility"), "visible");
    await page.mouse.up();
  };
  await drag(4, 2);
  await scope(page, /^7 Jan .* – 10 Jan 2013/);
  await inRange(page, whole(await api("2013-01-07", "2013-01-10")));
  assert.deepEqual([query(page).get("from"), query(page).get("to"), query(page).get("open")], ["2013-01-07", "2013-01-10", null]);
  await page.goBack();
  await scope(page, /^5 Jan/);
  // The same with the keyboard.
  await page.getByRole("slider").focus();
  await page.keyboard.press("Home");
  await page.keyboard.press("Shift+ArrowRight");
  await page.keyboard.press("Enter");
  await scope(page, /^5 Jan .* – 7 Jan 2013/);
  await inRange(page, whole(await api("2013-01-05", "2013-01-07")));
  await done(page);
});

test("the length of a bar can be chosen, but not so short that the chart is full", async () => {
  const page = await ready("?from=2013-01-05&to=2013-01-15");
  await scope(page, /^5 Jan/);
  assert.equal(await page.locator("#step option[value=window]").isDisabled(), true);
  await page.selectOption("#step", "day");
  await page.waitForFunction(() => document.querySelectorAll("#chart .bars > g").length === 10);
  assert.match(await page.locator("#chart-note").textContent(), /1 d bars/);
  assert.equal(query(page).get("step"), "day");
  await page.selectOption("#step", "hour");
  await page.waitForFunction(() => document.querySelectorAll("#chart .bars > g").length === 240);
  await done(page);
});

test("all times are of the chosen zone, and days begin at its midnight", async () => {
  const page = await ready("?from=2013-01-05&to=2013-01-06&tz=UTC", { ...still, timezoneId: "America/New_York" });
  await inRange(page, whole(await api("2013-01-05", "2013-01-06")));
  await page.locator("#zones label", { hasText: "Local" }).click();
  assert.equal(query(page).get("tz"), "America/New_York");
  await inRange(page, whole(await api("2013-01-05", "2013-01-06", "&tz=America/New_York")));
  assert.equal(await page.locator("#range-scope").textContent(), "5 Jan 2013 00:00–24:00 GMT-5");
  assert.match(await page.locator("#status-text").textContent(), /GMT-5/);
  // Days that begin in the middle of an hour of UTC cannot be summed, so the bars are other lengths or days of UTC.
  await page.goto(`${server.address}/?tz=Asia/Kolkata&span=1y&step=day`);
  await scope(page, /2013 \d\d:30 GMT\+5:30$/);
  assert.equal(await page.locator("#step option[value=day]").isDisabled(), true);
  await page.goto(`${server.address}/?tz=Mars/Olympus`);
  await state(page, "old");
  assert.match(await page.locator("#notice").textContent(), /tz=Mars\/Olympus, which is not valid/);
  await done(page);
});

test("the period before is drawn over the bars and compared in the headline", async () => {
  const page = await ready("?from=2013-01-12&to=2013-01-19");
  await inRange(page, whole(await api("2013-01-12", "2013-01-19")));
  assert.equal(await page.locator("#difference").isVisible(), false);
  await page.locator("#compare").click();
  assert.equal(query(page).get("compare"), "previous");
  await page.locator("#difference").waitFor();
  const [now, then] = [await api("2013-01-12", "2013-01-19"), await api("2013-01-05", "2013-01-12")];
  const sign = now > then ? "\\+" : "−";
  const words = await page.locator("#difference").textContent();
  assert.match(words, new RegExp(`^${sign}${whole(Math.abs(now - then))} \\(.*%\\) against ${whole(then)} events in the period before$`));
  assert.match(await page.locator("#chart .before").getAttribute("d"), /^M\d/);
  assert.match(await page.locator("#legend-previous").textContent(), new RegExp(whole(then)));
  // Filters apply to both periods.
  await page.locator("#types label", { hasText: "weather" }).click();
  const weather = await api("2013-01-05", "2013-01-12", "&event_type=weather");
  await page.waitForFunction((text) => document.getElementById("difference").textContent.includes(`against ${text} events`), whole(weather));
  await page.locator("#compare").click();
  await page.locator("#difference").waitFor({ state: "hidden" });
  // A range in which the events begin has none before it, and neither has everything.
  await page.goto(`${server.address}/?compare=previous`);
  await page.waitForFunction(() => document.getElementById("difference").textContent === "The events begin in this range, so there is no period before it.");
  await page.locator("#spans label", { hasText: "all" }).click();
  await page.waitForFunction(() => document.getElementById("compare").disabled);
  await done(page);
});

test("the address of the view can be copied", async () => {
  const page = await ready("?span=24h&city=NYC");
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.locator("#copy-link").click();
  await page.waitForFunction(() => document.getElementById("copy-link").textContent === "Copied");
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), page.url());
  await done(page);
});

test("a range that ends before it begins, or with wrong dates, is refused in words", async () => {
  const page = await ready("?from=2013-01-09&to=2013-01-02&step=week");
  const words = await page.locator("#notice").textContent();
  assert.match(words, /ends before it begins/);
  assert.match(words, /step=week, which is not valid; use window, hour, day/);
  await page.goto(`${server.address}/?from=2013-31-01`);
  await state(page, "old");
  assert.match(await page.locator("#notice").textContent(), /from=2013-31-01, which is not valid/);
  await done(page);
});
