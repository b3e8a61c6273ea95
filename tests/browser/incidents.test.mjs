// Tests of the panel of incidents: it appears with the first incident, and shows what the receivers were told.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { accessible, begin, dev, end, open, state } from "./harness.mjs";

const TOPIC = "rArJKfFlTHmPDCoXxCF6UA";
let server;

before(async () => {
  await begin();
  server = await dev("--port", "0", "--rate", "20/s");
});

after(end);

/** Returns an attribute of DynamoDB. */
const attribute = (value) => typeof value === "number" ? { N: String(value) }
  : Array.isArray(value) ? { L: value.map(attribute) }
    : typeof value === "object" ? { M: attributes(value) } : { S: value };
const attributes = (item) => Object.fromEntries(Object.entries(item).map(([name, value]) => [name, attribute(value)]));

/** Stores a row as `notify` writes it, in the database of `dev`. */
async function store(item) {
  const [, database] = /DynamoDB, in memory, at ([\d.:]+)\./.exec(server.out());
  const response = await fetch(`http://${database}/`, {
    method: "POST",
    headers: { "x-amz-target": "DynamoDB_20120810.PutItem", connection: "close" },
    body: JSON.stringify({ TableName: "citystream-incidents", Item: attributes(item) }),
  });
  assert.equal(response.status, 200, await response.text());
}

const ago = (minutes) => new Date(Date.now() - minutes * 60_000).toISOString();
const sent = (kind, outcome, more = {}) => ({ n: 1, kind, event_count: 3, begun: Date.now(), outcome, ...more });
const row = (rule, offset, openedAt, more) => ({
  rule, incident: `${TOPIC}#0#${String(offset).padStart(15, "0")}`, state: "open", opened_at: openedAt, first_event: openedAt, last_event: openedAt,
  event_count: 3, samples: [], opened: offset, next: offset + 1, city: "Bergen", ...more,
});
const item = (page, rule, offset) => page.locator(`[data-incident="${rule}#${TOPIC}#0#${String(offset).padStart(15, "0")}"]`);

test("open incidents come first, with what each receiver was told", async () => {
  const page = await open(server.address, { reducedMotion: "reduce" });
  await state(page, "live");
  await store(row("page-critical", 7, ago(12), { severity: "critical", "sent#ops": sent("opened", "taken"), "sent#night": sent("opened", "unknown") }));
  await store(row("page-silent", 3, ago(90), { event_count: 0, "sent#ops": sent("opened", "refused", { why: "status 410" }) }));
  await store(row("page-surge", 1, ago(180), { state: "resolved", resolved_at: ago(62), severity: "low", event_type: "traffic", "sent#ops": sent("resolved", "silenced") }));
  const critical = item(page, "page-critical", 7);
  await critical.waitFor();
  assert.equal(await page.locator("#incidents").isVisible(), true);
  assert.equal(await critical.locator(".badge").textContent(), "critical");
  assert.equal(await critical.locator(".incident-name").textContent(), "page-criticalBergen");
  assert.match(await critical.locator(".incident-meta").textContent(), /^3 events · opened 1[23] min ago$/);
  assert.deepEqual(await critical.locator(".delivery").allTextContents(), ["night: opened, waiting", "ops: opened, taken"]);
  const silent = item(page, "page-silent", 3);
  await silent.waitFor();
  assert.match(await silent.textContent(), /^silence.*silent since .* · opened 1 h ago.*ops: opened, refused: status 410$/);
  const surge = item(page, "page-surge", 1);
  await surge.waitFor();
  assert.match(await surge.textContent(), /^low.*Bergen · traffic.*open for 1\d\d min, resolved 1 h ago.*ops: resolved, silenced$/);
  assert.equal(await surge.locator("xpath=..").getAttribute("aria-label"), "Resolved incidents");
  await accessible(page, "incidents");
  await store({ rule: "#silence", incident: "K7WQ2M", from: Date.now() - 1_000, until: Date.now() + 3_600_000, why: "marathon", city: "Bergen" });
  const silence = page.locator('[data-silence="K7WQ2M"]');
  await silence.waitFor();
  assert.match(await silence.textContent(), /^silencemarathonBergenno messages until .* · K7WQ2M$/);
  // The panel follows the table: the incident ends.
  await store(row("page-critical", 7, ago(12), { state: "resolved", resolved_at: ago(1), severity: "critical", next: 9 }));
  await page.locator(`ol[aria-label="Resolved incidents"] [data-incident^="page-critical#"]`).waitFor();
  assert.match(await critical.locator(".incident-meta").textContent(), /^3 events · open for 1\d min, resolved 1 min ago$/);
  assert.deepEqual(page.errors, []);
  await page.context().close();
});

test("without a table of incidents there is no panel, and the page asks once", async () => {
  let asked = 0;
  const page = await open(server.address, {}, (page) => page.route("**/api/v1/incidents?*", (route) => {
    asked += 1;
    return route.fulfill({ status: 404, json: { error: "there is no table of incidents", code: "no_incidents_table", request_id: "1" } });
  }));
  await state(page, "live");
  const total = () => page.locator("#total-events").textContent();
  for (let before = await total(), times = 0; times < 3; times += 1) {
    await page.waitForFunction((before) => document.getElementById("total-events").textContent !== before, before);
    before = await total();
  }
  assert.equal(asked, 1);
  assert.equal(await page.locator("#incidents").isVisible(), false);
  await page.context().close();
});
