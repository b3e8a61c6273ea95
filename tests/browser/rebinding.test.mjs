// A page of another site whose name resolves to this machine must read nothing.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { chromium } from "playwright-core";
import { dev, end } from "./harness.mjs";

after(end);

test("a site that rebinds its name to this machine reads nothing", async () => {
  const server = await dev("--port", "0", "--allowed-host", "city.test");
  const port = new URL(server.address).port;
  const names = ["rebound.test", "city.test"].map((name) => `MAP ${name} 127.0.0.1`).join(", ");
  // Turns off the protection that newer browsers have themselves.
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", `--host-resolver-rules=${names}`, "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests"] });
  try {
    const page = await browser.newPage();
    const read = async (name, path) => (await page.goto(`http://${name}:${port}${path}`)).text();
    for (const path of ["/", "/api/v1/stats", "/metrics", "/livez", "/dev/state"]) {
      const text = await read("rebound.test", path);
      assert.match(text, /"code":"forbidden"/, `${path}: ${text.slice(0, 200)}`);
    }
    // The site's own page, from before its name pointed to this machine.
    await page.route("**/attack", (route) => route.fulfill({ contentType: "text/html", body: "<p>attack</p>" }));
    await page.goto(`http://rebound.test:${port}/attack`);
    const stolen = await page.evaluate(() => fetch("/api/v1/stats").then((answer) => answer.text()));
    assert.match(stolen, /"code":"forbidden"/);
    assert.match(await read("city.test", "/api/v1/stats"), /total_events_processed/);
  } finally {
    await browser.close();
  }
});
