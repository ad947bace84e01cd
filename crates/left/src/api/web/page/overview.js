// All folders at a glance.

import { h } from "/assets/dom.js";
import { graph, moved, speed } from "/assets/graph.js";
import { STATES, bytes, count, name, number, rate, sentence, shown, span } from "/assets/words.js";

export function overview(state) {
  const { shares } = state.status;
  if (!shares.length) return first(state.status);
  return [
    h("header", { class: "top" }, h("div", null, h("h1", null, headline(shares)), h("p", { class: "quiet" }, summary(shares))),
      h("div", { class: "buttons" }, h("button", { type: "button", class: "phone main", "data-do": "add" }, "Add a folder"))),
    h("ul", { class: "cards" }, shares.map(card)),
  ];
}

function headline(shares) {
  const of = (s) => shares.filter((share) => share.state === s).length;
  if (of("alarm")) return of("alarm") === 1 ? "One folder needs your decision" : `${of("alarm")} folders need your decision`;
  if (of("syncing")) return "Synchronising";
  if (of("synced") === shares.length) return "Everything is identical";
  if (of("offline") && of("offline") + of("paused") === shares.length) return of("paused") === shares.length ? "Everything is paused" : "No other device is connected";
  return "All is well";
}

function summary(shares) {
  const devices = new Map(shares.flatMap((s) => s.peers.map((p) => [p.device, p.connected])));
  const there = new Set(shares.flatMap((s) => s.peers.filter((p) => p.connected).map((p) => p.device)));
  const sum = (what) => shares.reduce((n, s) => n + s[what], 0);
  const parts = [`${count(shares.length, "folder")}`, `${count(sum("files"), "file")}`, bytes(sum("bytes"))];
  if (devices.size) parts.push(`${there.size} of ${count(devices.size, "other device")} connected`);
  return parts.join(" · ");
}

function card(share) {
  const title = name(shown(share.path));
  const syncing = share.state === "syncing";
  return h("li", { class: `card ${share.state}`, "data-key": share.id },
    h("div", { class: "head" }, h("h2", null, h("a", { href: `#/folder/${share.id}`, class: "cover" }, title)), pill(share)),
    h("p", { class: "quiet path" }, shown(share.path)),
    h("p", { class: "say" }, sentence(share)),
    syncing && share.need_bytes ? progress(share) : null,
    syncing || moved(share.id) ? graph(share.id) : null,
    share.conflicts.length ? h("p", { class: "warn" }, h("a", { href: `#/folder/${share.id}/conflicts` }, `${count(share.conflicts.length, "conflict copy", "conflict copies")} to look at`)) : null,
    h("dl", { class: "facts" },
      fact("Files", number(share.files)), fact("Size", bytes(share.bytes)),
      fact("Devices", h("span", { class: "peers" }, share.peers.length ? share.peers.map(peer) : "only this one"))));
}

const fact = (term, what) => h("div", null, h("dt", null, term), h("dd", null, what));

const peer = (p) => h("span", { class: `peer ${p.connected ? "on" : "off"}`, "data-key": p.device, title: p.connected ? "connected" : "not connected" }, p.name);

export const pill = (share) => h("span", { class: `pill ${share.state}` }, share.state === "synced" && share.withheld_count ? "Sent" : STATES[share.state]);

/// How far it is and how long it takes, of what is known now.
export function progress(share) {
  const staged = share.transfers.reduce((n, t) => n + t.done, 0);
  const left = Math.max(0, share.need_bytes - staged);
  const speeds = speed(share.id);
  const total = share.bytes + share.need_bytes;
  const time = speeds > 0 ? `about ${span(left / speeds)} left, ${rate(speeds)}` : "waiting";
  return h("div", { class: "progress" },
    h("progress", { max: total, value: total - left, "aria-label": "Received" }),
    h("p", { class: "quiet" }, `${bytes(left)} to come · ${time}`));
}

/// Nothing is there yet: what one can do, and what happens then.
const first = (status) => h("section", { class: "first" },
  h("h1", null, "Keep a folder identical on your machines"),
  h("p", null, "Directly between them, encrypted, without a server or an account. Every version that you wrote is kept for a while, also of what is deleted."),
  h("div", { class: "ways" },
    h("article", null, h("h2", null, "Begin here"), h("p", null, `Choose a folder of ${status.name}. You get a ticket for the other machine.`),
      h("button", { type: "button", class: "main", "data-do": "add" }, "Share a folder")),
    h("article", null, h("h2", null, "You have a ticket"), h("p", null, "It begins with ", h("code", null, "left1"), ". Files that are in both places already are merged; nothing is deleted."),
      h("button", { type: "button", "data-do": "join" }, "Join with a ticket"))));
