// A list that is read page by page: the rows of one page, and buttons for the next and the previous one.

import { h, plural, put, setText, whole } from "./dom.js";

/** Returns a region in which a wide table scrolls, also by keyboard. */
export const scrollable = (label, table) => h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table);

/** Returns which rows of the list a page shows. */
function describe(pages, at, what, empty) {
  const { items, after } = pages[at];
  if (!items.length) return at ? `No more ${what}s.` : empty;
  const before = pages.slice(0, at).reduce((sum, page) => sum + page.items.length, 0);
  const last = before + items.length;
  if (before === 0 && !after) return plural(items.length, what);
  return `${whole(before + 1)}–${whole(last)}${after ? "" : ` of ${whole(last)}`}`;
}

/**
 * Returns an element that shows the pages of a list. `read(cursor)` returns the rows of a page and the cursor of the next one;
 * `row(item)` returns an element; `empty` is shown instead of no rows; `what` names a row.
 */
export function pagedList({ read, row, empty, what, head = null }) {
  const body = h(head ? "tbody" : "ol", { class: "page-rows" });
  const note = h("p", { class: "note", role: "status" }, "loading");
  const back = h("button", { type: "button", class: "quiet page-back", hidden: true }, "Newer");
  const next = h("button", { type: "button", class: "quiet page-next", hidden: true }, "Older");
  const pages = [];
  let at = -1;

  function show() {
    put(body, ...pages[at].items.map(row));
    setText(note, describe(pages, at, what, empty));
    back.hidden = at === 0;
    next.hidden = !pages[at].after;
  }

  async function open(page) {
    if (!pages[page]) {
      next.disabled = true;
      try {
        pages[page] = await read(pages[page - 1]?.after);
      } catch (error) {
        setText(note, `This list cannot be read: ${error.message}`);
        return;
      } finally {
        next.disabled = false;
      }
    }
    at = page;
    show();
  }

  back.addEventListener("click", () => open(at - 1));
  next.addEventListener("click", () => open(at + 1));
  open(0);
  return h("div", {}, head ? scrollable(`${what}s`, h("table", { class: "rows" }, head, body)) : body, h("div", { class: "page-foot" }, note, back, next));
}
