// Tests of the panel that breaks things: each accident is applied to a running `dev`, and the counts stay right.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { accessible, begin, dev, end, number, open, picture, state } from "./harness.mjs";

let server;

before(async () => {
  await begin();
  server = await dev("--port", "0", "--rate", "60/s");
});

after(end);

const log = (page) => page.locator("#break-log").textContent();
const says = (page, text) => page.waitForFunction((text) => document.getElementById("break-log").textContent.includes(text), text);
const idle = (page) => page.waitForFunction(() => !document.querySelector(".break-button.running"));
const events = (page) => number(page, "total-events");
const moves = (page, n) => page.waitForFunction((n) => Number(document.getElementById("total-events").textContent.replaceAll(",", "")) > n, n);

test("everything breaks, and nothing is lost or counted twice", async () => {
  // An alert that is fading in would have too little contrast.
  const page = await open(server.address, { reducedMotion: "reduce" });
  await state(page, "live");
  // The panel shows only its verdict until it is opened, and the browser remembers that.
  await page.locator("#verdict-line").waitFor();
  assert.equal(await page.locator(".break-button").first().isVisible(), false);
  await page.locator("#break-toggle").click();
  await page.locator(".break-button").first().waitFor();
  await page.reload();
  await state(page, "live");
  await page.locator(".break-button").first().waitFor();
  await moves(page, 300);
  const press = (name) => page.locator(`[data-break="${name}"]`).click();

  await press("garbage");
  await says(page, "invalid ones");
  // An event is late only if its partition has a watermark by now.
  const late = Number(/sent (\d+) late events/.exec(await log(page))[1]);
  assert.ok(late > 0 && late <= 500);
  await page.waitForFunction((late) => document.getElementById("total-late").textContent === String(late), late);

  await press("kill");
  await says(page, "a new consumer continues");
  await moves(page, await events(page));

  for (const [name, done] of [["throttle", "accepts writes again"], ["cut", "answers arrive again"], ["zombie", "the zombie is gone"], ["broker", "the broker is back"], ["receiver", "the receiver takes messages again; it refused"]]) {
    await press(name);
    await page.waitForSelector(`[data-break="${name}"].running`);
    await says(page, done);
    await idle(page);
    await moves(page, await events(page));
  }
  // All accidents at once.
  for (const name of ["throttle", "cut", "zombie", "kill"]) await press(name);
  await idle(page);
  await moves(page, await events(page));
  assert.match(await log(page), /found [1-9]\d* counted already/);

  // Every row of the tables is compared with the whole log, when all of it is stored.
  await page.waitForFunction((ms) => {
    const line = document.getElementById("verdict-line").textContent;
    return Date.now() - ms > 3_000 && /^log [\d,]+ = tables [\d,]+, difference 0$/.test(line);
  }, Date.now());
  const verdict = await page.locator("#verdict-line").textContent();
  const [logged, tabled] = [...verdict.matchAll(/\d[\d,]*\d/g)].map(([n]) => n);
  assert.equal(logged, tabled);
  await accessible(page, "after everything broke");
  await picture(page, "break-it");
  assert.deepEqual(page.errors, []);
  assert.equal(await number(page, "total-late"), late);
  await page.context().close();
});

test("only the page of this process may break things", async () => {
  const page = await open(server.address);
  const token = await page.locator('meta[name="citystream-token"]').getAttribute("content");
  const post = (headers) => fetch(`${server.address}/dev/break/garbage`, { method: "POST", headers }).then((answer) => answer.status);
  assert.equal(await post({}), 403);
  assert.equal(await post({ "x-citystream-token": "0".repeat(32) }), 403);
  assert.equal(await post({ "x-citystream-token": token, origin: "http://elsewhere.example" }), 403);
  const answer = await fetch(`${server.address}/dev/break/everything`, { method: "POST", headers: { "x-citystream-token": token } });
  assert.equal(answer.status, 404);
  const openapi = await fetch(`${server.address}/openapi.json`).then((answer) => answer.text());
  assert.doesNotMatch(openapi, /dev\/break/);
  await page.context().close();
});
