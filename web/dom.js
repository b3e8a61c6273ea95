// Creates elements and formats numbers.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Returns an HTML element. Attributes `on…` are listeners; attributes `--…` are custom properties. */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Returns an SVG element. */
export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Replaces the children of an element. Null and undefined children are skipped. */
export function put(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

/** Returns the element with this id. */
export const byId = (id) => document.getElementById(id);

/** Sets the text only if it changed, so that screen readers and selections are not disturbed. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const WHOLE = new Intl.NumberFormat("en-US");
const SHORT = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

export const whole = (n) => WHOLE.format(n);
export const short = (n) => (n < 10_000 ? WHOLE.format(n) : SHORT.format(n));
export const plural = (n, one, many = `${one}s`) => `${whole(n)} ${n === 1 ? one : many}`;

export const SEVERITIES = ["low", "medium", "high", "critical"];
const USUAL_TYPES = ["traffic", "weather", "incident", "construction"];

/** Returns the CSS class for the color of an event type. The usual four have their own; others share three. */
export function typeClass(type) {
  const at = USUAL_TYPES.indexOf(type);
  if (at >= 0) return `type-${type}`;
  let sum = 0;
  for (const c of type) sum = (sum + c.codePointAt(0)) % 3;
  return `type-other-${sum}`;
}

/** Orders event types: the usual four first, then the others by name. */
export function byType(a, b) {
  const usual = (type) => USUAL_TYPES.includes(type);
  if (usual(a) && usual(b)) return USUAL_TYPES.indexOf(a) - USUAL_TYPES.indexOf(b);
  if (usual(a) !== usual(b)) return usual(a) ? -1 : 1;
  return a.localeCompare(b);
}

export const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Fills a fieldset with one radio button for each option: its value, its text and perhaps the class of a swatch. */
export function segments(fieldset, name, options, chosen, choose) {
  const key = JSON.stringify(options);
  if (fieldset.dataset.options !== key) {
    fieldset.dataset.options = key;
    fieldset.querySelectorAll("label").forEach((label) => label.remove());
    for (const [value, text, swatch] of options) {
      fieldset.append(
        h("label", {},
          h("input", { type: "radio", name, value, onchange: () => choose({ [name]: value }) }),
          h("span", {}, swatch ? h("i", { class: `swatch ${swatch}` }) : null, text)),
      );
    }
  }
  for (const input of fieldset.querySelectorAll("input")) input.checked = input.value === chosen;
}
