// Helpers of the browser tests: `dev` as a process, Chromium, and what must not happen in a page.
//
// CITYSTREAM  the binary
// CHROMIUM    the browser
// DATA        the repository's data folder
// SCREENSHOTS the folder for pictures of the documents; without it, none are taken
// WEB         a folder whose page is shown instead of the binary's, without a new build

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { chromium } from "playwright-core";

export const january = path.join(process.env.DATA, "city-events-2013-01.ndjson.gz");
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** Long, since a machine may be busy; what is waited for is a state, never a time. */
export const PATIENCE = 240_000;

let browser;
const running = new Set();

export async function begin() {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
}

export async function end() {
  await browser?.close();
  for (const child of running) child.kill("SIGKILL");
}

/** Starts `dev`; returns its address and how to stop it. */
export const dev = (...args) => start(["dev", "--history", "off", "--kafka-port", "0", "--dynamodb-port", "0", ...args], {}, /^ +(http:\/\/[\d.:]+)\/$/m);

/** Starts `serve` before tables that nobody has; returns its address and how to stop it. */
export const serve = (...args) => start(["serve", ...args], {
  AWS_ENDPOINT_URL_DYNAMODB: "http://127.0.0.1:9",
  AWS_REGION: "us-east-1",
  AWS_ACCESS_KEY_ID: "test",
  AWS_SECRET_ACCESS_KEY: "test",
}, /: (http:\/\/[\d.:]+)$/m);

async function start(args, env, pattern) {
  const child = spawn(process.env.CITYSTREAM, args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env.PATH, RUST_LOG: "warn", ...env },
  });
  running.add(child);
  const ended = new Promise((resolve) => child.once("exit", resolve));
  let log = "";
  child.stderr.on("data", (text) => { log = (log + text).slice(-20_000); });
  let out = "";
  const address = await new Promise((resolve, reject) => {
    child.stdout.on("data", (text) => {
      out += text;
      const found = pattern.exec(out);
      if (found) resolve(found[1]);
    });
    ended.then((code) => reject(new Error(`${args[0]} ended with ${code}: ${log}`)));
  });
  return {
    address,
    log: () => log,
    out: () => out,
    async stop() {
      child.kill("SIGTERM");
      const code = await ended;
      running.delete(child);
      return code;
    },
  };
}

const TYPES = { ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".woff2": "font/woff2" };

/** Gives the page the files of a folder, also those that the binary does not have; what the server writes into its own page is kept. */
async function replace(page, folder) {
  await page.route("**/assets/*/*", async (route) => {
    const name = path.basename(route.request().url());
    await route.fulfill({ body: await readFile(path.join(folder, name)), contentType: TYPES[path.extname(name)] });
  });
  await page.route((url) => url.pathname === "/", async (route) => {
    const response = await route.fetch();
    const served = await response.text();
    const [token] = /<meta name="citystream-token"[^>]*>/.exec(served) ?? [""];
    const version = /\/assets\/(\w+)\//.exec(served)[1];
    const body = (await readFile(path.join(folder, "index.html"), "utf8")).replaceAll("{version}", version).replace("<!-- token -->", token);
    await route.fulfill({ response, body });
  });
}

/** Opens the page in a context of its own; what goes wrong in it is kept in `errors`. */
export async function open(address, options = {}, prepare = async () => {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  if (process.env.WEB) await replace(page, process.env.WEB);
  page.setDefaultTimeout(PATIENCE);
  page.errors = [];
  page.on("pageerror", (error) => page.errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && page.errors.push(message.text()));
  await prepare(page);
  await page.goto(address);
  return page;
}

/** Requests a URL on a connection of its own, because the server closes idle ones. */
export const request = (url) => fetch(url, { headers: { connection: "close" } });

export const number = (page, id) => page.locator(`#${id}`).textContent().then((text) => Number(text.replaceAll(",", "")));
export const state = (page, name) => page.waitForFunction((name) => document.documentElement.dataset.state === name, name);
export const figure = (page, text) => page.waitForFunction((text) => document.getElementById("total-events").textContent === text, text);

export async function picture(page, name) {
  if (!process.env.SCREENSHOTS) return;
  await page.screenshot({ path: path.join(process.env.SCREENSHOTS, `${name}.png`), animations: "disabled" });
}

export async function accessible(page, what) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  const grave = found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
  const words = grave.map((one) => `${one.id}: ${one.help}\n${one.nodes.slice(0, 3).map((node) => `  ${node.html}\n  ${node.failureSummary}`).join("\n")}`);
  assert.equal(grave.length, 0, `${what}:\n${words.join("\n")}`);
}
