// What changed in a folder, and old versions of a file.

import { confirm, dialog, h, toast } from "/assets/dom.js";
import { link, post } from "/assets/api.js";
import { preview } from "/assets/files.js";
import { redraw } from "/assets/app.js";
import { bytes, count, exactly, iso, name, shown, when } from "/assets/words.js";

const PAGE = 100;
const DID = { created: "new", changed: "changed", deleted: "deleted" };

// By share: { entries, more, mark, error, loading }.
const known = new Map();

const markOf = (share, state) => [share.files, share.bytes, share.conflicts.length, state.activity.length].join();

async function load(share, mark, more = false) {
  const old = known.get(share.id);
  if (old?.loading) return;
  const entry = { entries: [], more: false, ...old, loading: true, mark };
  known.set(share.id, entry);
  try {
    const before = more ? entry.entries.at(-1)?.id : null;
    const page = await post("/v1/log", { path: share.path, before, limit: PAGE });
    entry.entries = before ? entry.entries.concat(page) : page;
    entry.more = page.length === PAGE;
    entry.error = null;
  } catch (e) {
    entry.error = e.message;
  } finally {
    entry.loading = false;
    redraw();
  }
}

export function history(share, state) {
  const mark = markOf(share, state);
  const log = known.get(share.id);
  if (!log || (log.mark !== mark && !log.loading)) load(share, mark);
  if (log?.error) return h("p", { class: "banner bad", role: "alert" }, log.error);
  if (!log || (log.loading && !log.entries.length)) return h("p", { class: "quiet" }, "Looking …");
  if (!log.entries.length) {
    return h("div", { class: "empty" }, h("p", null, "Nothing changed since this folder was shared. From now on every change is listed here, and what another device replaces or deletes is kept for a while: you can look at it and bring it back."));
  }
  return [
    h("p", { class: "quiet" }, "The newest first. Where an older version is kept on this device, it can be looked at and brought back."),
    h("ol", { class: "log panel" }, log.entries.map((e) => entry(share, e))),
    log.more ? h("button", { type: "button", "data-do": "older", "data-share": share.id }, "Show older changes") : null,
  ];
}

const entry = (share, e) => h("li", { "data-key": e.id, class: e.what },
  h("time", { datetime: iso(e.when / 1000) }, when(e.when / 1000)),
  h("span", { class: "what" }, h("span", { class: "path" }, e.path), h("span", { class: "quiet" }, ` ${DID[e.what]}${e.by ? ` by ${e.by}` : ""}${e.thing === "file" ? `, ${bytes(e.size)}` : ""}`)),
  e.kept ? h("button", { type: "button", class: "small", "data-do": "versions", "data-share": share.id, "data-path": e.path, "data-key": "v" }, "Old versions") : null);

// A folder whose name is no text travels as a URL.
export const inside = (share, path) => share.path.startsWith("file://") ? `${share.path}/${path.split("/").map(encodeURIComponent).join("/")}` : `${share.path}/${path}`;

/// The versions of one file: look at them, compare, bring one back.
async function versions(share, path) {
  const list = h("ul", { class: "rows versions" });
  const body = h("div", { class: "body" }, h("p", { class: "quiet" }, "Looking …"));
  const box = dialog(`Old versions of ${name(path)}`, body);
  const full = inside(share, path);
  const all = await post("/v1/versions", { path: full });
  if (!all.length) {
    body.replaceChildren(h("p", null, "No older version is kept on this device. Versions are kept where another device’s change replaced them: look there too."));
    return;
  }
  const seen = h("div", { class: "seen" });
  const button = (text, run, kind = "") => {
    const it = h("button", { type: "button", class: `small ${kind}` }, text);
    it.addEventListener("click", async () => {
      try { await run(); } catch (e) { toast(e.message, true); }
    });
    return it;
  };
  list.append(...all.map((v) => h("li", null,
    h("div", { class: "grow" }, h("strong", null, `until ${exactly(v.until / 1000)}`), h("p", { class: "quiet" }, `${bytes(v.size)}, written ${exactly(v.modified / 1000)}`)),
    v.thing === "file" ? button("Look", async () => {
      seen.replaceChildren(await preview("/v1/file", { dir: share.path, path, version: v.id }));
    }) : null,
    v.thing === "file" ? button("Compare", async () => {
      const diff = await post("/v1/diff", { path: full, version: v.id });
      seen.replaceChildren(difference(diff));
    }) : null,
    h("a", { class: "button small", href: link("/v1/file", { dir: share.path, path, version: v.id }), download: name(path) }, "Save"),
    button("Restore", async () => {
      const text = [`${path} becomes again what it was until ${exactly(v.until / 1000)}, on all devices. What stands there now is kept as an old version.`];
      if (!await confirm("Bring this version back?", text, "Restore it", false)) return;
      const report = await post("/v1/restore", { path: full, version: v.id });
      const missing = report.missing.map((m) => `${m.path}: ${m.reason}`);
      toast(missing.length ? missing.join(" ") : report.same ? "It is so already." : `${path} is back${report.only_here ? ", on this device only" : ""}.`, missing.length > 0);
      box.close();
    }, "main"))));
  body.replaceChildren(h("p", { class: "quiet" }, `${count(all.length, "version")} kept on this device; the newest first.`), list, seen);
}

/// Two versions, line by line.
export function difference(diff) {
  if (diff.same) return h("p", { class: "quiet" }, "It has the same bytes as what is there now.");
  if (diff.text === null) return h("p", { class: "quiet" }, `These are no texts, or too large to compare: ${bytes(diff.old_size)} then, ${diff.new_size === null ? "nothing" : bytes(diff.new_size)} now.`);
  const lines = diff.text.trimEnd().split("\n");
  const kind = (l, n) => n < 2 || l.startsWith("@@") ? "at" : l.startsWith("+") ? "add" : l.startsWith("-") ? "del" : null;
  return h("pre", { class: "preview diff", tabindex: 0, "aria-label": "What changed since then" }, lines.map((l, n) => h("span", { class: kind(l, n) }, `${l}\n`)));
}

export const historyActions = {
  versions: (share, button) => versions(share, button.dataset.path),
  older: (share) => load(share, known.get(share.id)?.mark, true),
};

/// A button to the versions of a file that is looked at.
export const versionsButton = (share, path) => shown(path) === path
  ? h("button", { type: "button", "data-do": "versions", "data-share": share.id, "data-path": path }, "Old versions") : null;
