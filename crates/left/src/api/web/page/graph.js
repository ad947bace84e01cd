// How fast it went during the last two minutes.

import { s } from "/assets/dom.js";
import { rate } from "/assets/words.js";

const KEPT = 120;
const past = new Map();

/// Called once a second with what is the case now.
export function sample(status) {
  const seen = new Set();
  for (const share of status?.shares ?? []) {
    seen.add(share.id);
    const line = past.get(share.id) ?? [];
    const sum = (what) => share.peers.reduce((n, p) => n + p[what], 0);
    line.push([sum("rate_in"), sum("rate_out")]);
    if (line.length > KEPT) line.shift();
    past.set(share.id, line);
  }
  for (const id of past.keys()) if (!seen.has(id)) past.delete(id);
}

/// Bytes a second to this device, smoothed over the last seconds.
export function speed(id) {
  const line = (past.get(id) ?? []).slice(-8);
  return line.length ? line.reduce((n, [down]) => n + down, 0) / line.length : 0;
}

/// Whether anything moved lately.
export const moved = (id) => (past.get(id) ?? []).some(([down, up]) => down + up > 0);

/// The rates of a share as a picture.
export function graph(id) {
  const line = past.get(id) ?? [];
  const top = Math.max(1, ...line.map(([down, up]) => Math.max(down, up)));
  const at = (n) => (KEPT - line.length + n) * (240 / (KEPT - 1));
  const path = (which) => line.map((v, n) => `${n ? "L" : "M"}${at(n).toFixed(1)} ${(46 - 42 * v[which] / top).toFixed(1)}`).join("");
  const area = (which) => line.length ? `${path(which)}L240 47L${at(0).toFixed(1)} 47Z` : "";
  const [down, up] = line.at(-1) ?? [0, 0];
  return s("svg", { class: "graph", viewBox: "0 0 240 48", preserveAspectRatio: "none", role: "img",
    "aria-label": `Last two minutes: now ${rate(down)} in, ${rate(up)} out, at most ${rate(top)}` },
  s("path", { class: "area", d: area(0) }), s("path", { class: "down", d: path(0) }), s("path", { class: "up", d: path(1) }));
}
