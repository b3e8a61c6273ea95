// The drawer: a dialog at the side of the page that shows what `open` of the URL names.

import { byId, h, put, setText } from "./dom.js";
import { choose, key, view } from "./view.js";

const kinds = new Map();
/** Numbers the openings, so that a slow answer does not replace a newer drawer. */
let opening = 0;
let shown = "";

/**
 * Registers a kind of drawer. `make(id)` returns its title and its content, or a promise of them.
 */
export const register = (kind, make) => kinds.set(kind, make);

/** Closes the drawer and removes it from the URL. */
const close = () => choose({ open: "" });

async function open(name) {
  const [, kind, id] = /^(\w+):(.+)$/s.exec(name);
  opening += 1;
  const number = opening;
  const dialog = byId("drawer");
  setText(byId("drawer-title"), "Loading");
  put(byId("drawer-body"), h("p", { class: "note" }, "Loading."));
  if (!dialog.open) dialog.showModal();
  let content;
  try {
    content = await kinds.get(kind)(id);
  } catch (error) {
    content = { title: "Not shown", body: [h("p", { class: "trouble" }, error.status ? `${error.message}.` : "The server does not answer.")] };
  }
  if (number !== opening) return;
  setText(byId("drawer-title"), content.title);
  put(byId("drawer-body"), ...content.body);
  byId("drawer-body").scrollTop = 0;
  dialog.dataset.kind = kind;
}

/** Opens or closes the drawer as the URL says. */
export function render() {
  const { open: name, by } = view();
  const state = name && JSON.stringify([name, key(), by]);
  if (state === shown) return;
  shown = state;
  if (name) open(name);
  else if (byId("drawer").open) {
    opening += 1;
    byId("drawer").close();
  }
}

byId("drawer-close").addEventListener("click", close);
byId("drawer").addEventListener("cancel", (event) => {
  event.preventDefault();
  close();
});
// A click on the backdrop has the dialog itself as its target.
byId("drawer").addEventListener("click", (event) => { if (event.target === byId("drawer")) close(); });
