// Files that were changed in two places: both side by side, and what shall stay.

import { h, toast } from "/assets/dom.js";
import { post } from "/assets/api.js";
import { preview } from "/assets/files.js";
import { inside } from "/assets/history.js";
import { redraw } from "/assets/app.js";
import { bytes, exactly } from "/assets/words.js";

// By share: { list, mark, error, loading }; by share and copy: the two previews.
const known = new Map();
const sides = new Map();

async function load(share, mark) {
  const entry = { list: [], ...known.get(share.id), loading: true, mark };
  known.set(share.id, entry);
  try {
    entry.list = await post("/v1/conflicts", { path: share.path });
    entry.error = null;
  } catch (e) {
    entry.error = e.message;
  } finally {
    entry.loading = false;
    redraw();
  }
}

export function conflicts(share) {
  const mark = share.conflicts.join("\n");
  const found = known.get(share.id);
  if (!found || (found.mark !== mark && !found.loading)) load(share, mark);
  if (found?.error) return h("p", { class: "banner bad", role: "alert" }, found.error);
  if (!found || (found.loading && !found.list.length)) return h("p", { class: "quiet" }, "Looking …");
  if (!found.list.length) {
    return h("div", { class: "empty" }, h("p", null, "No conflicts. When two devices change a file before they hear of each other, the later edit stays in place and the other one is kept beside it; both are shown here, and you choose."));
  }
  return found.list.map((c) => conflict(share, c));
}

function conflict(share, c) {
  const title = `c-${c.copy}`;
  const act = (keep, text, kind = "") => h("button", { type: "button", class: kind || null, "data-do": "resolve", "data-keep": keep, "data-share": share.id, "data-path": c.copy, "data-key": keep }, text);
  return h("section", { class: "panel conflict", "data-key": c.copy, "aria-labelledby": title },
    h("h2", { class: "path", id: title }, c.path),
    h("div", { class: "two" },
      side(share, c.path, c.size, c.modified, c.copy_is_ours ? "In place: the other device’s edit" : "In place", c.size !== null),
      side(share, c.copy, c.copy_size, c.copy_modified, `Beside it: the edit of ${c.copy_is_ours ? "this device" : c.copy_by || "a program that wrote late"}`, true)),
    h("div", { class: "buttons" }, c.size === null ? null : act("file", "Keep what is in place", "main"), act("copy", "Keep the one beside it"), act("both", "Keep both as files"), c.size === null ? null : act("merge", "Merge the texts")),
    h("p", { class: "quiet" }, "What is not kept goes to the old versions, so it can be taken back."));
}

function side(share, path, size, modified, label, there) {
  return h("div", { class: "one" }, h("h3", null, label),
    h("p", { class: "quiet" }, there ? `${bytes(size)}${modified === null ? "" : `, written ${exactly(modified / 1000)}`}` : "There is no file any more."),
    there ? h("div", { "data-key": path }, glance(share, path, `${size} ${modified}`)) : null);
}

function glance(share, path, mark) {
  const key = `${share.id}/${path}`;
  const known = sides.get(key);
  if (known?.mark !== mark) {
    const entry = { mark, node: null };
    sides.set(key, entry);
    if (sides.size > 40) sides.delete(sides.keys().next().value);
    preview("/v1/file", { dir: share.path, path }).then(
      (node) => { entry.node = node; redraw(); },
      (e) => { entry.node = h("p", { class: "quiet" }, e.message); redraw(); },
    );
  }
  // What is drawn is taken over by the page, so it gets a copy.
  return sides.get(key).node?.cloneNode(true) ?? h("p", { class: "quiet" }, "Reading …");
}

export const conflictActions = {
  async resolve(share, button) {
    const { path, keep } = button.dataset;
    const result = await post("/v1/resolve", { path: inside(share, path), keep });
    toast(result.told, !result.done);
    await load(share, null);
  },
};
