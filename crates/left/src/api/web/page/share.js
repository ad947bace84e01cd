// One folder.

import { h } from "/assets/dom.js";
import { graph, speed } from "/assets/graph.js";
import { pill, progress } from "/assets/overview.js";
import { files } from "/assets/files.js";
import { conflicts } from "/assets/conflicts.js";
import { history } from "/assets/history.js";
import { limits } from "/assets/limits.js";
import { modes, pausePeer, withheld } from "/assets/modes.js";
import { line } from "/assets/activity.js";
import { bytes, count, name, rate, role, sentence, shown, span } from "/assets/words.js";

const TABS = [["overview", "Overview"], ["files", "Files"], ["conflicts", "Conflicts"], ["history", "History"], ["settings", "Settings"]];
const BODIES = { overview: body, files, conflicts, history, settings };

export function share(state, at) {
  const share = state.status.shares.find((s) => s.id === at.id);
  if (!share) return h("section", null, h("h1", null, "This folder is not synchronised here"), h("p", null, h("a", { href: "#/" }, "All folders")));
  const tab = BODIES[at.tab] ? at.tab : "overview";
  const paused = share.state === "paused";
  return [
    h("header", { class: "top" },
      h("div", null, h("h1", null, name(shown(share.path)), " ", pill(share)), h("p", { class: "quiet path" }, shown(share.path))),
      h("div", { class: "buttons" },
        button("invite", share, "Invite a device", "main"),
        paused ? button("resume", share, "Let it go on") : share.state === "alarm" ? null : button("pause", share, "Pause"))),
    h("nav", { class: "tabs", "aria-label": "Of this folder" }, TABS.map(([id, text]) =>
      h("a", { href: `#/folder/${share.id}${id === "overview" ? "" : `/${id}`}`, "aria-current": id === tab ? "page" : null, "data-key": id }, text, id === "conflicts" && share.conflicts.length ? h("span", { class: "badge" }, share.conflicts.length) : null))),
    share.alarm ? alarm(share) : null,
    h("div", { class: "tab", "data-key": tab }, BODIES[tab](share, state, at)),
  ];
}

export const button = (what, share, text, kind = "", more = {}) =>
  h("button", { type: "button", class: kind || null, "data-do": what, "data-share": share.id, "data-key": `${what}${more["data-key"] ?? ""}`, ...more }, text);

const alarm = (share) => h("section", { class: "banner bad", role: "alert", "data-key": "alarm" },
  h("h2", null, "Nothing is changed until you decide"),
  h("p", null, share.alarm.reason), h("p", null, share.alarm.todo),
  h("div", { class: "buttons" }, button("resume", share, "Look again"), button("accept", share, "The deletions are meant", "danger")));

function body(share, state) {
  const seen = state.activity.filter((a) => a.share === share.path).slice(-6).reverse();
  return [
    h("section", { class: "panel" }, h("h2", null, "Now"), h("p", { class: "say" }, sentence(share)),
      share.state === "syncing" && share.need_bytes ? progress(share) : null,
      graph(share.id),
      h("p", { class: "legend quiet" }, h("span", { class: "in" }, `in ${rate(sum(share, "rate_in"))}`), h("span", { class: "out" }, `out ${rate(sum(share, "rate_out"))}`),
        h("span", null, `${count(share.files, "file")}, ${count(share.dirs, "folder")}, ${bytes(share.bytes)}`))),
    share.transfers.length ? h("section", { class: "panel" }, h("h2", null, "Coming in"), h("ul", { class: "rows" }, share.transfers.map((t) => transfer(share, t)))) : null,
    withheld(share),
    trouble(share),
    devices(share),
    h("section", { class: "panel" }, h("h2", null, "Lately"), seen.length ? h("ol", { class: "log" }, seen.map((a) => line(a, false)))
      : h("p", { class: "quiet" }, "Nothing happened since left was started. Put a file into the folder and see it appear on the other devices.")),
  ];
}

const sum = (share, what) => share.peers.reduce((n, p) => n + p[what], 0);

function transfer(share, t) {
  const fast = speed(share.id) / share.transfers.length;
  const left = t.total - t.done;
  return h("li", { "data-key": t.path }, h("span", { class: "cut grow" }, t.path),
    h("progress", { max: Math.max(1, t.total), value: t.done, "aria-label": `${t.path} received` }),
    h("span", { class: "quiet num" }, `${bytes(t.done)} of ${bytes(t.total)}${fast > 0 ? `, about ${span(left / fast)}` : ""}`));
}

function trouble(share) {
  const problems = share.problems.map((p) => h("li", { "data-key": `p${p.path}` }, h("strong", { class: "path" }, p.path), " ", p.reason));
  const notices = share.notices.map((n) => h("li", { "data-key": `n${n}` }, n));
  const edits = share.local_edit_count;
  return [
    problems.length || notices.length ? h("section", { class: "panel warn" }, h("h2", null, "To know"), h("ul", { class: "plainlist" }, problems, notices)) : null,
    edits ? h("section", { class: "panel warn" }, h("h2", null, `${count(edits, "edit")} that stay here`),
      h("p", null, "This device only receives in this folder, so nobody gets what was edited here:"),
      h("ul", { class: "plainlist" }, share.local_edits.map((p) => h("li", { class: "path" }, p))), button("revert", share, "Take it back")) : null,
  ];
}

function devices(share) {
  if (!share.peers.length) {
    return h("section", { class: "panel" }, h("h2", null, "Devices"), h("div", { class: "empty" },
      h("p", null, "No other device has this folder yet. An invitation is a line of text, or a picture for the other machine’s camera; it works once."),
      button("invite", share, "Invite a device", "", { "data-key": "2" })));
  }
  return h("section", { class: "panel" }, h("h2", null, "Devices"), h("ul", { class: "rows devices" }, share.peers.map((p) =>
    h("li", { "data-key": p.device }, h("span", { class: `dot ${p.connected ? (p.in_sync ? "synced" : "syncing") : "offline"}` }),
      h("div", { class: "grow" }, h("strong", null, p.name), h("span", { class: "quiet" }, ` ${p.device.slice(0, 8)} · ${role(p.role)}`),
        h("p", { class: "quiet" }, how(p))),
      h("div", { class: "does" }, p.connected ? h("span", { class: "quiet num" }, `${rate(p.rate_in)} in, ${rate(p.rate_out)} out`) : null,
        pausePeer(share, p),
        button("remove", share, "Remove …", "small", { "data-device": p.device, "data-name": p.name, "data-key": p.device }))))));
}

function how(p) {
  if (p.paused) return "Paused by you: nothing is exchanged with it";
  if (!p.connected) return p.address ? `Not connected; last at ${p.address}` : "Not connected";
  if (p.in_sync) return `Identical · ${p.address}`;
  return `${p.need_files ? `Still needs ${count(p.need_files, "file")} (${bytes(p.need_bytes)}${p.rate_out && p.need_bytes ? `, about ${span(p.need_bytes / p.rate_out)}` : ""})` : "Comparing"} · ${p.address}`;
}

function settings(share) {
  return [
    h("section", { class: "panel" }, h("h2", null, "Check"), h("p", null, "Reads every file again, compares it with what it should be, and heals what a disk has damaged from the other devices."), button("verify", share, "Read all files again")),
    modes(share),
    limits(share),
    h("section", { class: "panel" }, h("h2", null, "Leave alone"), h("p", null, "A file ", h("code", null, ".leftignore"), " in this folder lists what is not synchronised, one pattern a line, as ", h("code", null, ".gitignore"), " does. Folders below may have their own.")),
    h("section", { class: "panel" }, h("h2", null, "This device here"), h("dl", { class: "facts" }, h("div", null, h("dt", null, "What it does"), h("dd", null, role(share.role))), h("div", null, h("dt", null, "Id of the share"), h("dd", { class: "path" }, share.id)))),
    h("section", { class: "panel" }, h("h2", null, "Stop synchronising"), h("p", null, "The folder stays as it is, with all files. It is only no longer kept identical."), button("leave", share, "Stop synchronising …", "danger")),
  ];
}
