// Tests of the dashboard in a real browser, on `citystream dev`. scripts/test-browser runs them.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { accessible, begin, dev, end, figure, january, number, open, picture, serve, state } from "./harness.mjs";

const BYTES_MAX = 226_000;

let live;

before(async () => {
  await begin();
  live = await dev("--port", "0", "--rate", "40/s");
});

after(end);

test("loads fast and small, and counts up", async () => {
  const bodies = [];
  const page = await open(live.address, {}, async (page) => {
    page.on("response", (response) => {
      const { pathname } = new URL(response.url());
      if (pathname === "/" || pathname.startsWith("/assets/")) bodies.push(response.body());
    });
  });
  await state(page, "live");
  const first = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime);
  // This takes a second on an idle machine. This machine may be busy.
  assert.ok(first < 5_000, `first paint after ${Math.round(first)} ms`);
  const bytes = (await Promise.all(bodies)).reduce((sum, body) => sum + body.length, 0);
  console.log(`first paint after ${Math.round(first)} ms, ${bytes} bytes`);
  assert.ok(bytes > 50_000 && bytes <= BYTES_MAX, `${bytes} bytes`);
  const before = await number(page, "total-events");
  await page.waitForFunction((n) => Number(document.getElementById("total-events").textContent.replaceAll(",", "")) > n, before + 20);
  await page.waitForSelector(".alert");
  await page.waitForSelector("#pipeline:not([hidden]) .partitions td");
  await page.waitForFunction(() => /last event counted (just now|\d+ s ago)/.test(document.getElementById("status-text").textContent));
  // Durations cover the time since the page was opened. At first there are too few.
  await page.waitForFunction(() => /p50≤/.test(document.getElementById("pipeline-body").textContent));
  await page.waitForFunction(() => [...document.querySelectorAll(".bars rect")].some((bar) => bar.height.baseVal.value > 20));
  assert.deepEqual(page.errors, []);
  await page.context().close();
});

test("shows what the tables hold, filtered by the address", async () => {
  const server = await dev("--port", "0", "--input", january);
  const page = await open(server.address, { reducedMotion: "reduce" });
  await figure(page, "33,960");
  // While everything is loaded at once, a busy machine may answer 504. The page must report it and go on.
  page.errors = page.errors.filter((text) => !text.includes("504"));
  await page.waitForFunction(() => document.getElementById("total-late").textContent === "609");
  assert.equal(await number(page, "total-high"), 2_025);
  assert.equal(await number(page, "total-critical"), 780);
  // Connected, but not live: the events are old, and the page shows their age.
  await state(page, "old");
  assert.match(await page.locator("#status-text").textContent(), /connected · newest event of 1 Feb 2013/);

  await page.selectOption("#city", "LA");
  await figure(page, "1,154");
  assert.match(page.url(), /\?city=LA$/);
  await page.locator("#severities label", { hasText: "high" }).click();
  assert.match(page.url(), /city=LA&severity=high/);
  await page.waitForFunction(() => document.getElementById("total-label").textContent.startsWith("high events in LA"));
  const high = await number(page, "total-events");
  assert.ok(high > 0 && high < 1_154);
  assert.match(await page.locator("#link-alerts").getAttribute("href"), /city=LA&severity=high$/);
  await page.reload();
  await figure(page, String(high));
  assert.equal(await page.inputValue("#city"), "LA");
  await page.goBack();
  await figure(page, "1,154");
  await page.locator("#clear").click();
  await figure(page, "33,960");
  assert.equal(new URL(page.url()).search, "");

  // The whole week by severity, read with the keyboard.
  await page.locator("#spans label", { hasText: "7d" }).click();
  await page.locator("#stack label", { hasText: "severity" }).click();
  await page.waitForFunction(() => document.getElementById("chart-note").textContent.includes("1 h bars"));
  const labels = await page.locator(".axis text").allTextContents();
  assert.equal(new Set(labels).size, labels.length, `axis labels repeat: ${labels}`);
  assert.ok(labels.includes("2013"), `no year: ${labels}`);
  const slider = page.getByRole("slider");
  await slider.focus();
  await page.keyboard.press("Home");
  const read = () => slider.getAttribute("aria-valuetext");
  const first = await read();
  await page.keyboard.press("ArrowRight");
  assert.notEqual(await read(), first);
  assert.match(await read(), /events/);
  await page.waitForSelector(".tip:not([hidden])");
  await page.keyboard.press("Escape");

  // A cell of the heat map sets a filter. A second click removes it.
  const cell = page.locator('[data-cell="NYC#incident"]');
  await cell.click();
  assert.match(page.url(), /city=NYC&type=incident/);
  await cell.click();
  assert.doesNotMatch(page.url(), /city=/);
  await page.locator("#spans label", { hasText: "24h" }).click();
  await page.waitForFunction(() => document.getElementById("chart-note").textContent.includes("10 min bars"));
  await page.locator("#chart-title").evaluate((title) => scrollTo(0, title.getBoundingClientRect().top + scrollY - 126));
  await picture(page, "dashboard-january");
  // A week is more than one request may read, so the page sends more requests.
  assert.deepEqual(page.errors.filter((text) => !/ 50[34] /.test(text)), []);
  await page.context().close();
  assert.equal(await server.stop(), 0);
});

test("says what the address asks for in vain, and that nothing suits", async () => {
  const page = await open(`${live.address}/?span=2w&severity=awful&colour=red`);
  await state(page, "live");
  const notice = () => page.locator("#notice").textContent();
  assert.match(await notice(), /span=2w.*use fit, 1h, 6h, 24h, 7d, 30d, 1y, all/);
  assert.match(await notice(), /severity=awful/);
  assert.match(await notice(), /sets colour/);
  await page.goto(`${live.address}/?city=Atlantis`);
  await figure(page, "0");
  await page.waitForFunction(() => /“Atlantis” so far/.test(document.getElementById("notice").textContent));
  for (const card of ["chart-scope", "heat", "alerts"]) {
    assert.match(await page.locator(`#${card}`).textContent(), /No events match these filters/, card);
  }
  await page.goto(`${live.address}/?severity=critical`);
  await state(page, "live");
  await page.waitForFunction(() => document.getElementById("total-label").textContent.startsWith("critical events"));
  assert.equal(await page.locator("#all-time").isVisible(), false, "no figures of other severities");
  const link = page.locator("#link-alerts");
  await page.waitForFunction(() => document.getElementById("link-alerts").search.includes("severity=critical"));
  await page.locator("#types label", { hasText: "weather" }).click();
  await page.waitForFunction(() => document.getElementById("link-alerts").textContent === "alerts in this range, all types");
  const linked = await fetch(await link.evaluate((link) => link.href)).then((answer) => answer.json());
  assert.ok(linked.alerts.every((alert) => alert.severity === "critical"));
  assert.deepEqual(page.errors, []);
  await page.context().close();
});

test("says that it is stale when the server is gone, and goes on by itself", async () => {
  const tables = await mkdtemp(path.join(tmpdir(), "citystream-"));
  const args = ["--rate", "20/s", "--data-dir", tables];
  const server = await dev("--port", "0", ...args);
  const page = await open(server.address);
  await state(page, "live");
  await page.waitForFunction(() => Number(document.getElementById("total-events").textContent) > 10);
  await server.stop();
  await state(page, "stale");
  const kept = await number(page, "total-events");
  assert.ok(kept > 10, "the last numbers stay");
  assert.match(await page.locator("#status-text").textContent(), /stale since \d\d:\d\d:\d\d UTC/);
  await page.waitForSelector('#verdict[data-state="stale"]');
  assert.equal(await page.locator("#rate").textContent(), "", "no rate while nothing is seen");
  assert.ok(await page.locator(".alert").count() > 0);
  await page.waitForFunction(() => !/just now/.test(document.getElementById("alerts").textContent), undefined, { timeout: 20_000 });
  assert.equal(await page.locator(".break-button:not(:disabled)").count(), 0, "nothing can be broken without a server");
  assert.match(await page.locator("#banner").textContent(), /does not answer/);
  await accessible(page, "stale");
  // The page asks an absent server less and less often. Otherwise its errors would fill the console.
  const failures = page.errors.length;
  await page.waitForTimeout(10_000);
  assert.ok(page.errors.length - failures <= 6, `${page.errors.length - failures} failed requests in 10 s`);
  const again = await dev("--port", new URL(server.address).port, ...args);
  await state(page, "live");
  await page.waitForFunction((n) => Number(document.getElementById("total-events").textContent.replaceAll(",", "")) > n, kept);
  assert.equal(await page.locator("#banner").isVisible(), false);
  // Only the page of the new process may use the panel there.
  await page.waitForFunction(() => /stale: the server has restarted; reload this page/.test(document.getElementById("verdict-note").textContent));
  await page.reload();
  await page.waitForSelector(".break-button:not(:disabled)", { state: "attached" });
  // Only the refused connections went wrong in the meantime.
  assert.deepEqual(page.errors.filter((text) => !/Failed to load resource|ERR_/.test(text)), []);
  await page.context().close();
  await again.stop();
  await rm(tables, { recursive: true });
});

test("does not call sums of no row equal", async () => {
  const difference = { at_ms: 0, log: 0, tables: 0, difference: 0, compares_counts: false, rows: 3, not_comparable: 272, not_comparable_why: "counted in an earlier run, whose log is gone", waiting: 0 };
  const page = await open(live.address, {}, (page) => page.route("**/dev/state", (route) => {
    difference.at_ms += 1_000;
    return route.fulfill({ status: 200, json: { running: [], log: [], difference } });
  }));
  await page.waitForFunction(() => document.getElementById("verdict-line").textContent === "no counts can be compared");
  assert.match(await page.locator("#verdict-note").textContent(), /272 rows not comparable: counted in an earlier run/);
  // Not green.
  await page.waitForSelector('#verdict[data-state="waiting"]');
  difference.compares_counts = true;
  await page.waitForSelector('#verdict[data-state="agrees"]');
  await page.context().close();
});

test("has words for nothing and for trouble", async () => {
  const zero = { event_count: 0, late_count: 0, severity_low: 0, severity_medium: 0, severity_high: 0, severity_critical: 0 };
  const none = { from: "2026-01-01T00:00:00Z", to: "2026-01-01T06:00:00Z", step_seconds: 300, generated_at: "2026-01-01T06:00:00.000Z", open: [], totals: { ...zero, late_count: null }, all_time: zero, newest_window_start: null, series_count: 0, series_read: 0, series_total: 0, series: [], others: { ...zero, series_count: 0, steps: [] } };
  const answers = (status, body) => (page) => page.route("**/api/v1/timeline**", (route) => route.fulfill({ status, json: body }));
  const empty = await open(live.address, {}, answers(200, none));
  await state(empty, "empty");
  assert.match(await empty.locator("#banner").textContent(), /No events yet/);
  assert.equal(await empty.locator(".chart-card, #heat, #alerts, #cities").evaluateAll((cards) => cards.filter((card) => card.checkVisibility()).length), 0, "no empty boxes");
  await accessible(empty, "empty");
  await empty.context().close();
  const one = { ...zero, late_count: 1, severity_low: 1 };
  const single = { ...none, all_time: one, series_count: 1, series_read: 1, series_total: 1, series: [{ ...one, city: "NYC", event_type: "traffic", steps: [] }] };
  const lone = await open(live.address, { reducedMotion: "reduce" }, answers(200, single));
  await figure(lone, "1");
  assert.equal(await lone.locator("#total-label").textContent(), "event counted, all time");
  assert.match(await lone.locator("#chart-scope").textContent(), /^No events in this range\.1 late event \(all time\) arrived after the window was final/);
  await lone.context().close();
  const down = await open(live.address, {}, answers(503, { error: "DynamoDB does not answer", code: "store_unavailable", request_id: "0" }));
  await state(down, "error");
  assert.match(await down.locator("#banner").textContent(), /DynamoDB does not answer/);
  await accessible(down, "error");
  await down.context().close();
});

test("asks for a token until it is one of the file's, and keeps it for the tab", async () => {
  const folder = await mkdtemp(path.join(tmpdir(), "citystream-"));
  const tokens = path.join(folder, "tokens");
  const token = "0123456789abcdef0123456789abcdef";
  await writeFile(tokens, `${token}\n`);
  const server = await serve("--port", "0", "--auth-token-file", tokens);
  const page = await open(server.address);
  for (const given of ["not one of the tokens", token]) {
    await page.locator("#login[open]").waitFor();
    assert.equal(await page.locator("#login-refused").isVisible(), given === token, "it says that it was asked before");
    await accessible(page, "login");
    await page.fill("#login-token", given);
    await page.keyboard.press("Enter");
    // After a refusal the page asks for the token again, perhaps before the dialog was seen closed.
    const next = given === token ? "#login:not([open])" : "#login[open] #login-refused:not([hidden])";
    await page.locator(next).waitFor({ state: "attached" });
  }
  // The page is let in. The next error is about the tables, which do not exist.
  await state(page, "error");
  const words = await page.locator("#banner").textContent();
  assert.match(words, /DynamoDB/);
  await page.reload();
  await state(page, "error");
  assert.equal(await page.locator("#login[open]").count(), 0, "the tab knows the token");
  // Lists in CSV are requested with the token. This server has no tables, so the link shows that it failed.
  const csv = page.waitForRequest((request) => request.url().endsWith("/api/v1/cities?format=csv"));
  await page.locator("#cities-csv").evaluate((link) => link.click());
  assert.equal((await csv).headers().authorization, `Bearer ${token}`);
  await page.locator("#cities-csv.failed").waitFor({ state: "attached" });
  // The links at the foot of the page open with the token, too.
  await page.getByRole("link", { name: "metrics" }).click();
  await page.waitForFunction(() => /^# HELP citystream_/m.test(document.body.textContent));
  const refused = page.errors.filter((text) => !/ (401|503|504) /.test(text));
  assert.deepEqual(refused, []);
  await page.context().close();
  assert.equal(await server.stop(), 0);
  await rm(folder, { recursive: true });
});

test("can be read by everybody, in light and dark, on a phone", async () => {
  for (const [name, options] of Object.entries({
    light: { colorScheme: "light" },
    dark: { colorScheme: "dark" },
    phone: { colorScheme: "light", viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true },
    small: { colorScheme: "light", viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true },
  })) {
    const page = await open(live.address, options);
    await state(page, "live");
    await page.waitForSelector(".alert");
    await page.waitForTimeout(1_200); // the figures have counted up
    const [content, width] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(content <= width, `${name}: ${content} px wide in ${width}`);
    const hidden = await page.locator("#filters label").evaluateAll((all) => all.filter((one) => one.getBoundingClientRect().right > innerWidth).map((one) => one.textContent));
    assert.deepEqual(hidden, [], `${name}: filters beyond the edge`);
    if (name === "phone") {
      assert.ok(await page.locator("#heat").evaluate((heat) => heat.scrollWidth <= heat.clientWidth), "the heat map is cut");
      assert.ok(await page.locator("#chart-title").evaluate((title) => title.getBoundingClientRect().top < innerHeight), "the chart begins on the first screen");
    }
    await accessible(page, name);
    if (name !== "small") await picture(page, `dashboard-${name}`);
    assert.deepEqual(page.errors, []);
    await page.context().close();
  }
  const page = await open(live.address, { colorScheme: "light" });
  await state(page, "live");
  const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await paper();
  await page.locator("#theme").click();
  await page.locator("#theme").click();
  assert.equal(await page.locator("#theme").getAttribute("aria-label"), "Theme: dark");
  assert.notEqual(await paper(), light);
  await page.context().close();
});
