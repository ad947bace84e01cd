// Elements, and changing what is shown into what shall be shown without losing the focus.

const SVG = "http://www.w3.org/2000/svg";

function make(element, attrs, children) {
  for (const [name, value] of Object.entries(attrs ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

/// An element of HTML.
export function h(tag, attrs, ...children) {
  return make(document.createElement(tag), attrs, children);
}

/// An element of SVG.
export function s(tag, attrs, ...children) {
  return make(document.createElementNS(SVG, tag), attrs, children);
}

/// Makes `root` hold `children`; what is the same stays the same node.
export function fill(root, ...children) {
  const next = document.createDocumentFragment();
  next.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  morphChildren(root, next);
}

const keyOf = (node) => node.nodeType === 1 ? node.getAttribute("data-key") : null;

function morphChildren(old, next) {
  const keyed = new Map();
  for (const child of old.childNodes) {
    if (keyOf(child) !== null) keyed.set(keyOf(child), child);
  }
  let at = old.firstChild;
  for (const wanted of [...next.childNodes]) {
    const key = keyOf(wanted);
    const found = key === null ? at : keyed.get(key);
    if (!found || found.nodeName !== wanted.nodeName || keyOf(found) !== key) {
      old.insertBefore(wanted, at);
      continue;
    }
    if (found === at) at = at.nextSibling;
    else old.insertBefore(found, at);
    morph(found, wanted);
  }
  while (at) {
    const after = at.nextSibling;
    at.remove();
    at = after;
  }
}

function morph(old, next) {
  if (old.nodeType !== 1) {
    if (old.nodeValue !== next.nodeValue) old.nodeValue = next.nodeValue;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!next.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  morphChildren(old, next);
}

/// A short message that goes by itself, or stays until closed when it is bad news.
export function toast(text, bad = false) {
  const close = h("button", { type: "button", class: "plain", "aria-label": "Close this message" }, "×");
  const box = h("div", { class: bad ? "toast bad" : "toast", role: bad ? "alert" : null }, h("p", null, text), close);
  close.addEventListener("click", () => box.remove());
  const toasts = document.getElementById("toasts");
  toasts.append(box);
  while (toasts.children.length > 4) toasts.firstChild.remove();
  if (!bad) setTimeout(() => box.remove(), 6000);
}

/// A dialog; resolves when it is closed.
export function dialog(title, ...content) {
  const close = h("button", { type: "button", class: "plain close", "aria-label": "Close" }, "×");
  const heading = h("h2", { id: `d${Date.now()}` }, title);
  const box = h("dialog", { "aria-labelledby": heading.id }, h("header", null, heading, close), content);
  close.addEventListener("click", () => box.close());
  // A press beside the dialog closes it, as one expects; a drag out of a field does not.
  box.addEventListener("mousedown", (e) => { if (e.target === box) box.close(); });
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
  return box;
}

/// Asks before something that is not easily undone.
export function confirm(title, text, yes, danger = true) {
  return new Promise((resolve) => {
    const ok = h("button", { type: "button", class: danger ? "danger" : "main" }, yes);
    const no = h("button", { type: "button" }, "Cancel");
    const box = dialog(title, h("div", { class: "body" }, text.map((t) => h("p", null, t))), h("footer", null, no, ok));
    no.addEventListener("click", () => box.close());
    ok.addEventListener("click", () => { resolve(true); box.close(); });
    box.addEventListener("close", () => resolve(false));
    no.focus();
  });
}
