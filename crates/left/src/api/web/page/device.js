// This device: what it is called, how it is reached, where its settings are.

import { h, toast } from "/assets/dom.js";
import { get } from "/assets/api.js";
import { redraw } from "/assets/app.js";
import { shown } from "/assets/words.js";

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
      settings ? row("Key and settings", h("span", { class: "path" }, shown(settings.home))) : null)),
    settings ? h("section", { class: "panel" }, h("h2", null, "Settings"),
      h("p", null, "They stand in ", h("code", { class: "path" }, shown(settings.file)), ", which is yours: left only reads it, when it starts."),
      h("dl", { class: "facts" },
        row(h("code", null, "name"), settings.name ?? h("span", { class: "quiet" }, `not set: the host’s name, ${status.name}`)),
        row(h("code", null, "listen"), settings.listen ?? h("span", { class: "quiet" }, "not set: port 20201 on all addresses")),
        row(h("code", null, "advertise"), settings.advertise.length ? settings.advertise.join(", ") : h("span", { class: "quiet" }, "not set: the addresses of this machine")),
        row(h("code", null, "web_port"), settings.web_port ?? h("span", { class: "quiet" }, "not set: this page takes a free port")))) : null,
    h("section", { class: "panel" }, h("h2", null, "In a terminal"), h("p", null, h("code", null, "left status"), " tells what this page tells; ", h("code", null, "left help"), " lists all commands.")),
    h("section", { class: "panel" }, h("h2", null, "Stop"), h("p", null, "Nothing is synchronised until left is started again."), h("button", { type: "button", class: "danger", "data-do": "stop" }, "Stop left …")),
  ];
}
