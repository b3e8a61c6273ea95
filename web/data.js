// Requests to the server, the event stream, and the poller.
//
// The stream only shows that something changed. The page then requests the numbers, at most every two seconds. Without
// a stream it requests them every two seconds.

import { byId } from "./dom.js";

const ASK_EVERY_MS = 2_000;
/** Time between two requests while the stream reports no change. */
const ASK_QUIET_MS = 10_000;
const ANSWER_MS_MAX = 8_000;
/** Longest time for a list in CSV, which may have 100,000 rows. */
const EXPORT_MS_MAX = 120_000;
/** The stream sends a heartbeat every 10 seconds. */
const STREAM_SILENCE_MS = 30_000;
const STREAM_RETRY_MS = 5_000;
/** Longest pause between two requests to a server that does not answer. */
export const RETRY_MS_MAX = 15_000;

const TOKEN = "citystream-bearer";

function headers() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { authorization: `Bearer ${token}` } : {};
}

/** An error that the server answered. */
export class Refused extends Error {
  constructor(status, text, code = "", answer = {}) {
    super(text);
    this.status = status;
    this.code = code;
    this.answer = answer;
  }
}

async function refuse(response) {
  const answer = await response.json().catch(() => ({}));
  throw new Refused(response.status, answer.error ?? `the server answered ${response.status}`, answer.code, answer);
}

/** Returns the JSON at a path of this server. */
export async function ask(path, options = {}) {
  for (;;) {
    const response = await fetch(path, {
      ...options,
      headers: { ...headers(), ...options.headers },
      signal: AbortSignal.timeout(ANSWER_MS_MAX),
    });
    if (response.ok) return response.json();
    if (response.status !== 401) await refuse(response);
    await askForToken();
  }
}

/** Opens a path of this server with the token. Returns false if there is no token. */
export function openWithToken(path, target = "_self") {
  if (!sessionStorage.getItem(TOKEN)) return false;
  fetch(path, { headers: headers(), signal: AbortSignal.timeout(ANSWER_MS_MAX) })
    .then((response) => response.blob())
    .then((body) => open(URL.createObjectURL(body), target))
    // The status of the page shows that the server is unreachable.
    .catch(() => {});
  return true;
}

/** Saves the answer of a link as a file, because a link cannot send the token. Returns false if there is no token. */
export function saveWithToken(link) {
  if (!sessionStorage.getItem(TOKEN)) return false;
  fetch(link.href, { headers: headers(), signal: AbortSignal.timeout(EXPORT_MS_MAX) })
    .then((response) => (response.ok ? response.blob() : refuse(response)))
    .then((body) => {
      const url = URL.createObjectURL(body);
      Object.assign(document.createElement("a"), { href: url, download: link.download }).click();
      URL.revokeObjectURL(url);
    })
    .catch(() => link.classList.add("failed"));
  return true;
}

/** Points a link at a list in CSV, and names the file after the list. */
export function downloadLink(link, path) {
  link.href = path;
  link.download = `${new URL(path, location.href).pathname.split("/").slice(3).map(decodeURIComponent).join("-")}.csv`;
}

/** Returns the text at a path of this server. */
export async function askText(path) {
  const response = await fetch(path, { headers: headers(), signal: AbortSignal.timeout(ANSWER_MS_MAX) });
  if (!response.ok) throw new Refused(response.status, "");
  return response.text();
}

let login;

/** Asks for a token. Concurrent requests share one dialog. */
function askForToken() {
  login ??= new Promise((resolve) => {
    const dialog = byId("login");
    byId("login-refused").hidden = !sessionStorage.getItem(TOKEN);
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(TOKEN, byId("login-token").value.trim());
      byId("login-token").value = "";
      login = undefined;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return login;
}

/**
 * Reads the stream forever. Calls `on.event(name, data)` for each event and `on.up(bool)` when the stream connects or ends.
 * EventSource cannot send a token, so this function parses the stream itself.
 */
export async function listen(on) {
  let lastId = "";
  let retryMs = STREAM_RETRY_MS;
  for (;;) {
    const stop = new AbortController();
    let alarm = 0;
    const alive = () => {
      clearTimeout(alarm);
      alarm = setTimeout(() => stop.abort(), STREAM_SILENCE_MS);
    };
    try {
      alive();
      const resume = lastId ? { "last-event-id": lastId } : {};
      const response = await fetch("/api/v1/stream", {
        headers: { accept: "text/event-stream", ...headers(), ...resume },
        signal: stop.signal,
        cache: "no-store",
      });
      if (response.status === 404) return;
      if (!response.ok) throw new Refused(response.status, "");
      on.up(true);
      retryMs = STREAM_RETRY_MS;
      let text = "";
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
        alive();
        text += chunk.value.replaceAll("\r", "");
        const blocks = text.split("\n\n");
        text = blocks.pop();
        for (const block of blocks) {
          const event = parse(block);
          if (event.id) lastId = event.id;
          if (event.data) on.event(event.name, event.data);
        }
      }
    } catch {
      // The requests for the numbers show the visitor why.
    }
    clearTimeout(alarm);
    on.up(false);
    await new Promise((wait) => setTimeout(wait, retryMs));
    retryMs = Math.min(RETRY_MS_MAX, retryMs * 2);
  }
}

function parse(block) {
  const event = { name: "message", data: "", id: "" };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue;
    const value = line.slice(colon + 1).replace(/^ /, "");
    const field = line.slice(0, colon);
    if (field === "event") event.name = value;
    else if (field === "data") event.data += value;
    else if (field === "id") event.id = value;
  }
  return event;
}

/** Requests the numbers again and again. Calls `on.done(answer)` or `on.failed(error, sinceMs)` each time. */
export class Poller {
  #timer = 0;
  #asking = false;
  #again = false;
  #askedMs = 0;
  #failedSinceMs = 0;
  #pauseMs = ASK_EVERY_MS;
  stream = false;
  dirty = true;

  constructor(work, on) {
    this.work = work;
    this.on = on;
    document.addEventListener("visibilitychange", () => this.soon());
  }

  /** Requests the numbers as soon as possible. */
  soon() {
    this.dirty = true;
    if (this.#asking) this.#again = true;
    else this.#run();
  }

  /** Marks the numbers as outdated. The next regular request refreshes them. */
  changed() {
    this.dirty = true;
  }

  async #run() {
    clearTimeout(this.#timer);
    const quiet = this.stream && !this.dirty && Date.now() - this.#askedMs < ASK_QUIET_MS;
    if (!document.hidden && !quiet) {
      this.#asking = true;
      this.dirty = false;
      try {
        const answer = await this.work();
        this.#failedSinceMs = 0;
        this.#pauseMs = ASK_EVERY_MS;
        this.on.done(answer);
      } catch (error) {
        this.#failedSinceMs ||= Date.now();
        this.dirty = true;
        // A server that answers an error is up, and a repeated request may succeed.
        this.#pauseMs = error instanceof Refused ? ASK_EVERY_MS : Math.min(RETRY_MS_MAX, this.#pauseMs * 2);
        this.on.failed(error, this.#failedSinceMs);
      }
      this.#askedMs = Date.now();
      this.#asking = false;
    }
    const again = this.#again;
    this.#again = false;
    this.#timer = setTimeout(() => this.#run(), again ? 0 : this.#pauseMs);
  }
}
