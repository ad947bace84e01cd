// What is in a folder: its tree, and one file looked at.

import { confirm, dialog, h, toast } from "/assets/dom.js";
import { get, link, post, text } from "/assets/api.js";
import { bytes, count, iso, name, number, shown, when } from "/assets/words.js";
import { redraw, state } from "/assets/app.js";
import { versionsButton } from "/assets/history.js";

/// Longest beginning of a text that is shown, in bytes.
const MAX_TEXT = 64 << 10;
/// Folders that are remembered.
const MAX_KEPT = 50;

// By share and path: { entries, more, mark, error }.
const known = new Map();

const keyOf = (share, path) => `${share.id}/${path}`;
// When this changes, what is known may be old.
const markOf = (share) => [share.files, share.dirs, share.bytes, share.need_files, share.away_files, share.away_bytes].join();

async function load(share, path, more = false) {
  const key = keyOf(share, path);
  const old = known.get(key);
  if (old?.loading) return;
  const entry = { entries: [], more: false, ...old, loading: true, mark: markOf(share) };
  known.delete(key);
  known.set(key, entry);
  if (known.size > MAX_KEPT) known.delete(known.keys().next().value);
  try {
    const after = more ? entry.entries.at(-1)?.path : null;
    const page = await get("/v1/list", { dir: share.path, path, after });
    entry.entries = after ? entry.entries.concat(page.entries) : page.entries;
    entry.more = page.more;
    entry.error = null;
  } catch (e) {
    entry.error = e.message;
  } finally {
    entry.loading = false;
    redraw();
  }
}

const here = (share, path) => `#/folder/${share.id}/files${path ? `/${path.split("/").map(encodeURIComponent).join("/")}` : ""}`;

/// The folder that a path is in.
const above = (path) => path.split("/").slice(0, -1).join("/");

/// A path may travel as a URL; the address bar and links hold it as it is.
export function files(share, _, at) {
  const path = at.rest;
  const folder = known.get(keyOf(share, path));
  if (!folder || (folder.mark !== markOf(share) && !folder.loading)) load(share, path);
  return [
    crumbs(share, path),
    folder?.error ? h("p", { class: "banner bad", role: "alert" }, folder.error) : null,
    !folder ? h("p", { class: "quiet" }, "Looking …") : table(share, path, folder),
  ];
}

function crumbs(share, path) {
  const parts = path.startsWith("file://") ? [shown(path)] : path.split("/").filter(Boolean);
  return h("nav", { class: "crumbs", "aria-label": "Where you are" },
    h("a", { href: here(share, ""), "aria-current": path ? null : "location" }, name(shown(share.path))),
    parts.map((part, n) => [h("span", { "aria-hidden": "true" }, "/"),
      h("a", { href: here(share, parts.slice(0, n + 1).join("/")), "aria-current": n + 1 === parts.length ? "location" : null }, part)]));
}

function table(share, path, folder) {
  if (!folder.entries.length && !folder.loading && !folder.error) {
    return h("div", { class: "empty" }, h("p", null, path ? "This folder is empty." : "Nothing is in it yet. Put files into it with whatever you like; they go to the other devices by themselves."));
  }
  return [
    h("table", { class: "files" }, h("thead", null, h("tr", null, h("th", { scope: "col" }, "Name"), h("th", { scope: "col", class: "num" }, "Size"), h("th", { scope: "col", class: "num wide" }, "Changed"), h("th", { scope: "col", class: "num held" }, "On this device"))),
      h("tbody", null, folder.entries.map((e) => row(share, e)))),
    folder.more ? h("button", { type: "button", "data-do": "more", "data-share": share.id, "data-path": path }, "Show more") : null,
  ];
}

function row(share, e) {
  const more = e.at_least ? "more than " : "";
  const size = e.kind === "link" ? "" : `${more}${bytes(e.bytes + e.away_bytes)}`;
  const inside = e.kind === "folder" ? h("span", { class: "quiet" }, ` ${more}${count(e.files + e.away_files, "file")}`) : e.target ? h("span", { class: "quiet" }, ` → ${e.target}`) : null;
  const what = e.kind === "folder" ? h("a", { href: here(share, e.path), class: "cut" }, e.name)
    : e.kind === "file" && e.held ? h("button", { type: "button", class: "plain link cut", "data-do": "look", "data-share": share.id, "data-path": e.path, "data-bytes": e.bytes, "data-modified": e.modified ?? "" }, e.name)
    : h("span", { class: "cut" }, e.name);
  return h("tr", { "data-key": e.path, class: e.held ? e.kind : `${e.kind} away` },
    h("th", { scope: "row" }, h("div", null, h("span", { class: `kind ${e.kind}`, role: "img", "aria-label": { folder: "Folder", file: "File", link: "Link" }[e.kind] }), what, inside)),
    h("td", { class: "num" }, size),
    h("td", { class: "num wide quiet" }, e.modified === null ? "" : h("time", { datetime: iso(e.modified) }, when(e.modified))),
    h("td", { class: "num held" }, held(share, e)));
}

/// Whether it is here, and what can be done about that.
function held(share, e) {
  const act = (action, label, title) => h("button", { type: "button", class: "plain link", "data-do": action, "data-share": share.id, "data-path": e.path, "aria-label": `${title}: ${e.name}`, title }, label);
  const fetch = act("fetch", "Fetch", "Bring it to this device");
  const drop = act("drop", "Remove", "Remove it from this device only");
  if (!e.held) return fetch;
  return e.away_files ? [fetch, " ", drop] : drop;
}

/// What a file holds, as far as it can be shown: its text, its picture, or why not.
export async function preview(address, values) {
  const { text: content, kind } = await text(address, { ...values, preview: true, max: MAX_TEXT });
  if (kind.startsWith("image/")) return h("img", { class: "preview", src: link(address, { ...values, preview: true }), alt: "The picture in this file" });
  if (!kind.startsWith("text/")) return h("p", { class: "quiet" }, "This kind of file can not be shown here.");
  return h("pre", { class: "preview", tabindex: 0 }, content || "(empty)");
}

function where(share) {
  const same = share.peers.filter((p) => p.connected && p.in_sync).map((p) => p.name);
  const rest = share.peers.filter((p) => !(p.connected && p.in_sync)).map((p) => p.name);
  return [["This device", ...same].join(", "), rest.length ? ` (not known to be up to date: ${rest.join(", ")})` : ""].join("");
}

export const fileActions = {
  async fetch(share, button) {
    await post("/v1/choose", { dir: share.path, how: "fetch", paths: [button.dataset.path] });
    toast("It is being brought.");
    load(share, above(button.dataset.path));
  },
  async drop(share, button) {
    const { path } = button.dataset;
    const text = ["It goes from this device only, and only what another connected device has. The other devices keep it, and it can be fetched again at any time."];
    if (!await confirm(`Remove ${shown(path)} from this device?`, text, "Remove from this device", false)) return;
    const done = await post("/v1/choose", { dir: share.path, how: "drop", paths: [path] });
    const kept = done.kept_paths.map((k) => `Still here: ${k.path}: ${k.reason}.`);
    toast([`${count(done.dropped, "file")} (${bytes(done.dropped_bytes)}) went from this device.`, ...kept.slice(0, 3)].join(" "), done.kept > 0);
    load(share, above(path));
  },
  more: (share, button) => load(share, button.dataset.path, true),
  async look(share, button) {
    const { path } = button.dataset;
    const body = h("div", { class: "body" }, h("p", { class: "quiet" }, "Reading …"));
    const size = Number(button.dataset.bytes);
    const values = { dir: share.path, path };
    const save = h("a", { class: "button", href: link("/v1/file", values), download: name(shown(path)) }, "Save a copy");
    const facts = h("dl", { class: "facts" },
      h("div", null, h("dt", null, "Size"), h("dd", null, `${bytes(size)}${size > 999 ? ` (${number(size)} bytes)` : ""}`)),
      button.dataset.modified ? h("div", null, h("dt", null, "Changed"), h("dd", null, when(Number(button.dataset.modified)))) : null,
      h("div", null, h("dt", null, "Is on"), h("dd", null, where(state.status.shares.find((s) => s.id === share.id) ?? share))));
    dialog(shown(path), facts, body, h("footer", null, versionsButton(share, path), save));
    try {
      body.replaceChildren(await preview("/v1/file", values));
      if (size > MAX_TEXT && body.querySelector("pre")) body.append(h("p", { class: "quiet" }, `The first ${bytes(MAX_TEXT)}.`));
    } catch (e) {
      body.replaceChildren(h("p", { class: "banner bad", role: "alert" }, e.message));
    }
  },
};
