// What happened lately, in sentences.

import { h } from "/assets/dom.js";
import { bytes, count, iso, name, shown, when } from "/assets/words.js";

export function activity(state) {
  const all = [...state.activity].reverse();
  return [
    h("header", { class: "top" }, h("div", null, h("h1", null, "Activity"), h("p", { class: "quiet" }, "Since left was started; the newest first."))),
    all.length ? h("ol", { class: "log panel" }, all.map((a) => line(a, true)))
      : h("div", { class: "empty" }, h("p", null, "Nothing happened yet. Connections, files that arrive, conflicts and refused visitors are listed here.")),
  ];
}

/// One entry of it.
export function line(a, withFolder) {
  const [kind, text] = words(a);
  return h("li", { class: kind }, h("time", { datetime: iso(a.time) }, when(a.time)),
    withFolder && a.share ? h("span", { class: "of" }, name(shown(a.share))) : null, h("span", { class: "what" }, text));
}

const path = (p) => h("span", { class: "path" }, p);

function words(a) {
  switch (a.event) {
    case "share_started": return ["", `${name(shown(a.path))} is watched and kept identical.`];
    case "peer_connected": return ["good", `${a.name} is connected (${a.address}).`];
    case "peer_lost": return ["", `${a.name} is gone: ${a.why}.`];
    case "file_received": return ["good", a.count > 1 ? [`${count(a.count, "file")} arrived (${bytes(a.bytes_in_all)}), the last: `, path(a.path)] : [path(a.path), ` arrived (${bytes(a.bytes)}).`]];
    case "file_deleted": return ["", [path(a.path), " was deleted elsewhere, and here; its last version is kept for a while."]];
    case "conflict": return ["warn", [path(a.path), " was changed in two places; the other version is ", path(a.copy), "."]];
    case "problem": return ["warn", [path(a.path), ` can not be synchronised: ${a.reason}`]];
    case "solved": return ["good", [path(a.path), " is well again."]];
    case "alarm": return ["bad", `${a.reason}. ${a.todo}`];
    case "alarm_over": return ["good", "The alarm is over."];
    case "refused": return ["warn", `${a.address} was not let in: ${a.why}.`];
    case "notice": return ["", a.text];
    case "stopping": return ["", "left stops."];
    default: return ["", a.event];
  }
}
