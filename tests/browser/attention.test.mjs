// Keys, the help, the sheet of a phone, critical alerts that arrive unseen, rejected records, and the use of a wide screen.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { accessible, begin, dev, end, open, request, state } from "./harness.mjs";

let live;

before(async () => {
  await begin();
  live = await dev("--port", "0", "--rate", "60/s");
});

after(end);

const done = async (page) => {
  assert.deepEqual(page.errors, []);
  await page.context().close();
};
const ready = async (options = {}, suffix = "", prepare = undefined) => {
  const page = await open(`${live.address}/${suffix}`, { reducedMotion: "reduce", ...options }, prepare);
  await state(page, "live");
  return page;
};
const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };

/** Makes the page believe that its tab is hidden or visible. */
const setHidden = (page, is) => page.evaluate((is) => {
  Object.defineProperty(document, "hidden", { value: is, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}, is);

test("a slash goes to the filters, and a question mark shows the help", async () => {
  const page = await ready();
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "city");
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("?");
  await page.locator("#help").waitFor();
  await accessible(page, "help");
  await page.keyboard.press("Escape");
  await page.locator("#help").waitFor({ state: "hidden" });
  // Keys mean nothing to the page while a dialog is open.
  await page.locator("#dates-toggle").click();
  await page.keyboard.press("/");
  assert.equal(await page.locator("#dates").isVisible(), true);
  assert.notEqual(await page.evaluate(() => document.activeElement.id), "city");
  await done(page);
});

test("the title counts critical alerts that arrived unseen, and a notification names them", async () => {
  const page = await ready({ permissions: ["notifications"] }, "", (page) => page.addInitScript(() => {
    window.shown = [];
    window.Notification = class {
      static permission = "granted";
      static requestPermission = async () => "granted";
      constructor(title, options) { window.shown.push({ title, ...options }); }
      close() {}
    };
  }));
  await page.waitForFunction(() => /^live/.test(document.getElementById("status-text").textContent));
  assert.equal(await page.title(), "citystream");
  await setHidden(page, true);
  await page.waitForFunction(() => /^\([1-9]\d*\) citystream$/.test(document.title));
  assert.deepEqual(await page.evaluate(() => window.shown), [], "nobody asked for notifications");
  await setHidden(page, false);
  assert.equal(await page.title(), "citystream");
  await page.locator("#notify").click();
  assert.equal(await page.locator("#notify").getAttribute("aria-pressed"), "true");
  await setHidden(page, true);
  await page.waitForFunction(() => window.shown.length > 0);
  const [first] = await page.evaluate(() => window.shown);
  assert.match(first.title, /^Critical: ./);
  await setHidden(page, false);
  await page.locator("#notify").click();
  assert.equal(await page.locator("#notify").getAttribute("aria-pressed"), "false");
  await done(page);
});

test("on a phone, the controls are in a sheet, and everything that can be touched is large enough", async () => {
  const page = await ready(PHONE);
  await page.waitForSelector(".alert");
  const small = () => page.evaluate(() => [...document.querySelectorAll("button, a, select, summary, .segments span")]
    .filter((one) => one.checkVisibility() && !one.closest(".skip"))
    .map((one) => [one.id || one.className || one.textContent, one.getBoundingClientRect()])
    .filter(([, box]) => box.width > 0 && (box.height < 44 || box.width < 44))
    .map(([name, box]) => `${name} ${Math.round(box.width)} × ${Math.round(box.height)}`));
  assert.deepEqual(await small(), []);
  assert.equal(await page.locator("#filters").isVisible(), false);
  await page.locator("#sheet-open").click();
  await page.locator("#sheet #filters").waitFor();
  await accessible(page, "sheet");
  assert.deepEqual(await small(), [], "in the sheet");
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  await page.locator("#severities label", { hasText: "critical" }).click();
  await page.locator("#sheet-close").click();
  await page.locator("#sheet").waitFor({ state: "hidden" });
  assert.equal(await page.locator("#sheet-open").textContent(), "Filters · 1");
  await page.locator(".alert").first().click();
  await page.locator('[data-fact="Severity"]').waitFor();
  assert.deepEqual(await small(), [], "in a drawer");
  await accessible(page, "drawer on a phone");
  // On a wide screen, the controls are back on the page.
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.locator("#drawer-close").click();
  await page.locator(".toolbar #filters").waitFor();
  await done(page);
});

test("a wide screen is used: the alerts are next to the chart", async () => {
  const page = await ready({ viewport: { width: 2560, height: 1300 } });
  await page.waitForSelector(".alert");
  const box = (selector) => page.locator(selector).boundingBox();
  const [chart, alerts, main] = [await box(".chart-card"), await box(".card:has(> .alerts)"), await box("main")];
  assert.ok(main.width > 2_400, `${main.width} px`);
  assert.equal(chart.y, alerts.y);
  assert.ok(alerts.x > chart.x + chart.width);
  assert.ok(chart.width > 1_500);
  await accessible(page, "wide");
  await done(page);
});

test("rejected records are counted by reason", async () => {
  const page = await ready();
  assert.equal(await page.locator("#rejected").count(), 0);
  await page.locator("#break-toggle").click();
  await page.locator('[data-break="garbage"]').click();
  await page.locator("#rejected li").first().waitFor();
  await page.waitForFunction(() => [...document.querySelectorAll("#rejected b")].reduce((sum, one) => sum + Number(one.textContent.replaceAll(",", "")), 0) >= 500);
  const metrics = await request(`${live.address}/metrics`).then((response) => response.text());
  const reasons = [...metrics.matchAll(/^citystream_events_rejected_total\{reason="(\w+)"\} [1-9]/gm)].map(([, reason]) => reason.replaceAll("_", " "));
  const shown = await page.locator("#rejected span").allTextContents();
  assert.deepEqual([...shown].sort(), reasons.sort());
  await accessible(page, "rejected records");
  await done(page);
});
