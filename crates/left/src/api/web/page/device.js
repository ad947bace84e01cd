// This device: what it is called, how it is reached, where its settings are.

import { h, toast } from "/assets/dom.js";
import { get, post } from "/assets/api.js";
import { redraw } from "/assets/app.js";
import { rate, shown } from "/assets/words.js";

let settings = null;
let asked = false;

async function load() {
  asked = true;
  try {
    settings = await get("/v1/settings");
    redraw();
  } catch (e) {
    toast(e.message, true);
  }
}

const row = (term, what) => h("div", null, h("dt", null, term), h("dd", null, what));

export function device(state) {
  if (!asked) load();
  const { status } = state;
  return [
    h("header", { class: "top" }, h("div", null, h("h1", null, status.name), h("p", { class: "quiet" }, `left ${status.version}, process ${status.pid ?? "?"}`))),
    h("section", { class: "panel" }, h("h2", null, "This device"), h("dl", { class: "facts" },
      row("Id", h("span", { class: "path" }, status.device ?? "none yet")),
      row("Listens on", status.listen.length ? status.listen.join(", ") : "nothing: it only connects to others"),
      row("Finds others nearby", nearby(status.discovery)),
      settings ? row("Key and settings", h("span", { class: "path" }, shown(settings.home))) : null)),
    settings ? h("section", { class: "panel" }, h("h2", null, "Settings"),
      h("p", null, "They stand in ", h("code", { class: "path" }, shown(settings.file)), ", which is yours: what is set here changes single values in it and nothing else."),
      form(settings),
      h("p", { class: "quiet" }, "These are changed in the file, so that this page can not make the device unreachable:"),
      h("dl", { class: "facts" },
        row(h("code", null, "listen"), settings.listen ?? h("span", { class: "quiet" }, "not set: port 20201 on all addresses")),
        row(h("code", null, "advertise"), settings.advertise.length ? settings.advertise.join(", ") : h("span", { class: "quiet" }, "not set: the addresses of this machine")),
        row(h("code", null, "web_port"), settings.web_port ?? h("span", { class: "quiet" }, "not set: this page takes a free port")))) : null,
    h("section", { class: "panel" }, h("h2", null, "In a terminal"), h("p", null, h("code", null, "left status"), " tells what this page tells; ", h("code", null, "left help"), " lists all commands.")),
    h("section", { class: "panel" }, h("h2", null, "Stop"), h("p", null, "Nothing is synchronised until left is started again."), h("button", { type: "button", class: "danger", "data-do": "stop" }, "Stop left …")),
  ];
}

function nearby(discovery) {
  if (!discovery) return "no: it is off, or this device only listens to itself";
  if (discovery.interfaces.length) return `yes, on ${discovery.interfaces.join(", ")}`;
  return discovery.problems.length ? `no: ${discovery.problems.join("; ")}` : "this machine is on no network";
}

const said = (limit) => limit ? rate(limit) : "unlimited";

function form(now) {
  const field = (name, label, placeholder) => h("div", { class: "field" }, h("label", { for: `set-${name}` }, label),
    h("input", { id: `set-${name}`, name, type: "text", placeholder, autocomplete: "off", spellcheck: "false" }));
  const [days, percent, keep] = now.history;
  return h("div", { class: "setform", "data-key": "setform" },
    h("div", { class: "pairs" }, field("name", "Name of this device", now.name ?? "the host’s name")),
    h("div", { class: "pairs" }, field("bandwidth.up", "All folders send at most, a second", said(now.rate.up)), field("bandwidth.down", "All folders receive at most, a second", said(now.rate.down))),
    hours(now),
    h("div", { class: "pairs" }, field("history.days", "Keep old versions, days", String(days)), field("history.max_percent", "Percent of the disk, at most", String(percent)), field("history.keep", "Versions of a file, at most", keep ? String(keep) : "0: no limit")),
    h("div", { class: "buttons" }, h("button", { type: "button", class: "main", "data-do": "settings" }, "Save"),
      h("button", { type: "button", "data-do": "discovery", "aria-pressed": String(now.discovery) }, now.discovery ? "Find others nearby: on" : "Find others nearby: off")));
}

/// Hours with other rates. What is being typed stays until it is saved.
function hours(now) {
  const written = now.schedule.join("\n");
  return h("div", { class: "field", "data-key": `hours${written}` }, h("label", { for: "set-hours" }, "At these hours other rates hold, one line each"),
    h("textarea", { id: "set-hours", name: "bandwidth.schedule", rows: Math.max(2, now.schedule.length + 1), "data-was": written, placeholder: "22:00-07:00 unlimited\n12:00-13:30 up=2MB down=5MB", autocomplete: "off", spellcheck: "false", "aria-describedby": "about-hours" }, written),
    h("p", { class: "quiet", id: "about-hours" }, "By the clock of this machine; the first line that holds counts. Take a line away to end it."));
}

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

const change = async (set) => {
  const { settings: now, reloaded } = await post("/v1/settings", { set });
  settings = now;
  toast(reloaded.restart.length ? `Saved. Only a restart of left changes: ${reloaded.restart.join(", ")}.` : "Saved. It holds from now on.");
};

export const deviceActions = {
  async settings(_, button) {
    const box = button.closest(".setform");
    const set = {};
    for (const input of box.querySelectorAll("input")) {
      const text = input.value.trim();
      if (!text) continue;
      set[input.name] = !input.name.startsWith("history.") ? text : /^\d+$/.test(text) ? Number(text) : text;
    }
    const typed = box.querySelector("textarea");
    const wanted = lines(typed.value);
    if (wanted.join("\n") !== typed.dataset.was) set[typed.name] = wanted.length ? wanted : null;
    if (!Object.keys(set).length) return toast("Nothing is filled in, so nothing is changed.");
    await change(set);
    for (const input of box.querySelectorAll("input")) input.value = "";
  },
  async discovery() {
    await change({ discovery: !settings.discovery });
  },
};
