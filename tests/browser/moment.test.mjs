// What the page shows together is of one moment, and old figures do not look new.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { begin, dev, end, open, state } from "./harness.mjs";

let server;

before(async () => {
  await begin();
  server = await dev("--port", "0", "--rate", "200/s");
});

after(end);

/** Looks at the figures at each change of the page, until there were `looks` different ones. */
const figures = (page, looks) => page.evaluate((looks) => new Promise((resolve) => {
  const number = (element) => Number(element.textContent.replaceAll(",", ""));
  const seen = new Map();
  new MutationObserver((_, observer) => {
    const cities = [...document.querySelectorAll(".city")];
    const [total, city] = [number(document.getElementById("total-events")), document.getElementById("city").value];
    const shown = cities.filter((one) => !city || one.dataset.city === city);
    seen.set(total, shown.reduce((sum, one) => sum + number(one.querySelector(".city-total")), 0));
    if (seen.size < looks) return;
    observer.disconnect();
    resolve([...seen]);
  }).observe(document.getElementById("main"), { childList: true, subtree: true, characterData: true });
}), looks);

test("the cities add up to the number of events at each moment", async () => {
  const page = await open(server.address, { reducedMotion: "reduce" });
  await state(page, "live");
  await page.waitForSelector(".city");
  const all = await figures(page, 6);
  assert.deepEqual(all.map(([, cities]) => cities), all.map(([total]) => total));
  await page.selectOption("#city", "NYC");
  await page.waitForFunction(() => document.getElementById("total-label").textContent === "events in NYC, all time");
  const filtered = await figures(page, 6);
  assert.deepEqual(filtered.map(([, city]) => city), filtered.map(([total]) => total));
  assert.deepEqual(page.errors, []);
  await page.context().close();
});

test("a comparison of before the page was opened is not shown as current", async () => {
  const first = await open(server.address);
  await first.waitForSelector('#verdict[data-state="agrees"]');
  await first.context().close();
  const page = await open(server.address, {}, (page) => page.addInitScript(() => {
    window.states = [];
    const look = () => {
      const box = document.getElementById("verdict");
      const state = box?.dataset.state;
      if (state && state !== window.states.at(-1)?.state) window.states.push({ state, note: document.getElementById("verdict-note").textContent });
    };
    new MutationObserver(look).observe(document, { childList: true, subtree: true, attributes: true, characterData: true });
  }));
  await page.waitForSelector('#verdict[data-state="agrees"]');
  const states = await page.evaluate(() => window.states);
  assert.deepEqual(states.map(({ state }) => state), ["waiting", "old", "agrees"]);
  assert.match(states[1].note, /compared at \d\d:\d\d:\d\d UTC, from before this page was visible; comparing again/);
  await page.context().close();
});
