// What is shown: a function of what left tells (`state`) and of the address (`place`).

import { fill, h, toast } from "/assets/dom.js";
import { follow, get } from "/assets/api.js";
import { sample } from "/assets/graph.js";
import { STATES, name, shown } from "/assets/words.js";
import { act } from "/assets/actions.js";
import { overview } from "/assets/overview.js";
import { share } from "/assets/share.js";
import { activity } from "/assets/activity.js";
import { device } from "/assets/device.js";

export const state = { status: null, activity: [], gone: false };

/// Where one is: `{ view, id, tab, rest }`.
export function place() {
  const parts = location.hash.replace(/^#\/?/, "").split("/");
  if (parts[0] === "folder") {
    const rest = parts.slice(3).map((p) => { try { return decodeURIComponent(p); } catch { return p; } });
    return { view: "share", id: parts[1] ?? "", tab: parts[2] || "overview", rest: rest.join("/") };
  }
  return { view: parts[0] || "overview" };
}

const VIEWS = { overview, share, activity, device };

let drawing = false;

/// Draws everything anew, soon.
export function redraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  if (!state.status) return;
  const at = place();
  fill(document.getElementById("side"), side(at));
  const view = VIEWS[at.view] ?? overview;
  const main = document.getElementById("main");
  fill(main, state.gone ? gone() : null, view(state, at));
  document.title = title(at);
}

const gone = () => h("p", { class: "banner bad", role: "alert", "data-key": "gone" },
  "left does not answer. What you see may be old; this page goes on by itself when it is back.");

function title(at) {
  const here = state.status.shares.find((s) => s.id === at.id);
  const needs = state.status.shares.filter((s) => s.state === "alarm").length;
  const where = here ? name(shown(here.path)) : { activity: "Activity", device: "This device" }[at.view] ?? state.status.name;
  return `${needs ? `(${needs}) ` : ""}${where} · left`;
}

function side(at) {
  const entry = (to, current, ...what) => h("a", { href: to, class: "entry", "aria-current": current ? "page" : null }, what);
  return [
    h("a", { href: "#/", class: "brand", "aria-label": "left: all folders" }, h("img", { src: "/assets/icon.svg", alt: "", width: 26, height: 26 }), h("span", null, "left")),
    h("nav", { "aria-label": "Main" },
      entry("#/", at.view === "overview", "All folders"),
      h("ul", { class: "shares" }, state.status.shares.map((s) => h("li", { "data-key": s.id },
        entry(`#/folder/${s.id}`, s.id === at.id, h("span", { class: `dot ${s.state}`, title: STATES[s.state] }), h("span", { class: "cut" }, name(shown(s.path))),
          s.conflicts.length ? h("span", { class: "badge", title: "Conflicts" }, s.conflicts.length) : null)))),
      entry("#/activity", at.view === "activity", "Activity"),
      entry("#/device", at.view === "device", "This device")),
    h("button", { type: "button", class: "main add", "data-do": "add" }, "Add a folder"),
    h("p", { class: "who quiet" }, h("span", { class: "cut" }, state.status.name), h("span", null, `left ${state.status.version}`)),
  ];
}

async function readActivity() {
  try {
    state.activity = await get("/v1/activity");
    redraw();
  } catch (e) {
    toast(e.message, true);
  }
}

follow({
  status(status) {
    if (!state.status) sample(status);
    Object.assign(state, { status, gone: false });
    redraw();
  },
  activity: readActivity,
  gone() {
    state.gone = true;
    redraw();
  },
});

setInterval(() => {
  sample(state.status);
  if (document.visibilityState === "visible") redraw();
}, 1000);

addEventListener("hashchange", () => {
  draw();
  document.getElementById("main").focus({ preventScroll: true });
  scrollTo(0, 0);
});

// One listener for all: elements come and go.
document.addEventListener("click", (e) => {
  const what = e.target.closest("[data-do]");
  if (what) act(what);
});
