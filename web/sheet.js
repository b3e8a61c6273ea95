// On a phone, the filters and the controls of the range are in a sheet that a button opens.

import { byId } from "./dom.js";

const narrow = matchMedia("(max-width: 560px)");

/** Moves the controls into the sheet on a narrow screen, and back on a wide one. */
function place() {
  const dialog = byId("sheet");
  const controls = byId("controls");
  if (narrow.matches) byId("sheet-body").append(controls);
  else {
    if (dialog.open) dialog.close();
    byId("controls-home").after(controls);
  }
}

/** Opens the sheet, if the screen is narrow. */
export function open() {
  if (narrow.matches && !byId("sheet").open) byId("sheet").showModal();
}

narrow.addEventListener("change", place);
byId("sheet-open").addEventListener("click", open);
byId("sheet-close").addEventListener("click", () => byId("sheet").close());
byId("sheet").addEventListener("click", (event) => { if (event.target === byId("sheet")) byId("sheet").close(); });
place();
