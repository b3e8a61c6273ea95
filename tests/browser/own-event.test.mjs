// Tests of the form that sends an event of the visitor's own.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { accessible, begin, dev, end, open, state } from "./harness.mjs";

let server;

before(async () => {
  await begin();
  server = await dev("--port", "0", "--rate", "20/s");
});

after(end);

test("an event of the visitor's own is shown within a second, and opens its record", async () => {
  const page = await open(server.address, { reducedMotion: "reduce" });
  await state(page, "live");
  await page.locator('#own-form input[name="city"]').fill("Bergen");
  await page.locator('#own-form input[name="description"]').fill("Cable car stopped");
  const begun = Date.now();
  await page.locator("#own-form button").click();
  const row = page.locator("#own-events .own");
  await row.waitFor();
  const took = Date.now() - begun;
  assert.match(await row.textContent(), /Cable car stopped.*critical.*incident/);
  const said = await page.locator("#own-state").textContent();
  assert.match(said, /^stored after \d+ ms/);
  console.log(`shown after ${took} ms; ${said}`);
  await accessible(page);
  await row.locator("button").click();
  const source = page.locator('[data-fact="Kafka record"]');
  await source.waitFor();
  assert.match(await source.textContent(), /^partition \d, offset \d+/);
  // The API counts it as well.
  const summary = await (await fetch(`${server.address}/api/v1/summary/Bergen`)).json();
  assert.equal(summary.total_events, 1);
  assert.deepEqual(summary.by_severity, { low: 0, medium: 0, high: 0, critical: 1 });
});

test("an event that is not valid is refused with the reason", async () => {
  const page = await open(server.address);
  await state(page, "live");
  await page.locator('#own-form input[name="city"]').fill("a#b");
  await page.locator("#own-form button").click();
  await page.waitForFunction(() => document.getElementById("own-state").textContent.startsWith("bad_city: "));
  assert.equal(await page.locator("#own-events .own").count(), 0);
});
