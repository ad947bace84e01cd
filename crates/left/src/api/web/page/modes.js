// Which way a folder goes on this device, what it withholds, and devices that are held still.

import { confirm, h, toast } from "/assets/dom.js";
import { post } from "/assets/api.js";
import { button } from "/assets/share.js";
import { bytes, count } from "/assets/words.js";

const MODES = [
  ["two-way", "Both ways", "What is edited anywhere is everywhere."],
  ["send-only", "Only send", "What is edited here goes to the others. What they change is shown here and not done, until you decide."],
  ["receive-only", "Only receive", "What the others change comes here. What is edited here stays here and is shown; you can take it back."],
];
const CHANGES = { new: "new there", changed: "changed there", deleted: "deleted there" };

export function modes(share) {
  const only = share.role === "read-only";
  const now = only ? "receive-only" : share.mode;
  return h("section", { class: "panel modes", "data-key": "modes" }, h("h2", null, "Which way"),
    h("p", null, only ? "This device was invited to receive only, so it does." : MODES.find(([id]) => id === now)[2]),
    only ? null : h("div", { class: "buttons", role: "group", "aria-label": "Which way this folder goes here" }, MODES.map(([id, text]) =>
      button("mode", share, text, id === now ? "main" : "", { "data-mode": id, "data-key": id, "aria-pressed": String(id === now) }))));
}

/// What others changed and this device, which only sends, does not do.
export function withheld(share) {
  if (share.mode !== "send-only" || share.role === "read-only") return null;
  const n = share.withheld_count;
  if (!n) {
    return h("section", { class: "panel", "data-key": "withheld" }, h("h2", null, "Only sends"),
      h("p", { class: "quiet" }, "When another device changes something in this folder it is listed here, and you decide."));
  }
  const more = n - share.withheld.length;
  return h("section", { class: "panel warn withheld", "data-key": "withheld" }, h("h2", null, `${count(n, "change")} of the others, not done here`),
    h("p", null, `This device only sends in this folder (${bytes(share.withheld_bytes)} would come).`),
    h("ul", { class: "plainlist" }, share.withheld.slice(0, 20).map((w) =>
      h("li", { "data-key": w.path }, h("span", { class: "path" }, w.path), h("span", { class: "quiet" }, ` ${CHANGES[w.change]}`)))),
    share.withheld.length > 20 || more > 0 ? h("p", { class: "quiet" }, `and ${n - Math.min(20, share.withheld.length)} more`) : null,
    h("div", { class: "buttons" }, button("take", share, "Do it here too …"), button("override", share, "Make the others as it is here …", "danger")));
}

export const pausePeer = (share, p) => button("pausepeer", share, p.paused ? "Let it go on" : "Pause", "small",
  { "data-device": p.device, "data-name": p.name, "data-paused": p.paused ? "1" : "", "data-key": `pause${p.device}` });

export const modeActions = {
  async mode(share, which) {
    const { mode } = which.dataset;
    if (mode === share.mode) return;
    await post("/v1/mode", { dir: share.path, mode });
    toast(MODES.find(([id]) => id === mode)[2]);
  },
  async take(share) {
    const text = ["The folder here becomes as the others have it. What stood here goes to the old versions."];
    if (!await confirm("Do here what the others changed?", text, "Do it here", false)) return;
    const { paths, connected } = await post("/v1/take", { dir: share.path });
    if (paths && !connected) throw new Error("No other device is connected, so nothing can come from them. Try again when one is.");
    toast(`${count(paths, "change")} will be done here.`);
  },
  async override(share) {
    const text = ["What the others added is deleted there; what they changed or deleted becomes as it is here.", "Their versions stay with them as old versions."];
    if (!await confirm("Make the other devices as it is here?", text, "Make them so")) return;
    const { paths } = await post("/v1/override", { dir: share.path });
    toast(`${count(paths, "change")} of the others will be undone there.`);
  },
  async pausepeer(share, which) {
    const paused = !which.dataset.paused;
    await post("/v1/pause-peer", { dir: share.path, who: which.dataset.device, paused });
    toast(paused ? `${which.dataset.name} is paused: nothing is exchanged with it.` : `${which.dataset.name} goes on.`);
  },
};
