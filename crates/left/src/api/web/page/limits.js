// How fast a folder may be: bytes a second to and from the other devices.

import { h, toast } from "/assets/dom.js";
import { post } from "/assets/api.js";
import { redraw } from "/assets/app.js";
import { rate } from "/assets/words.js";

const known = new Map();

async function load(share) {
  known.set(share.id, null);
  try {
    // Without a new limit it only tells what counts.
    known.set(share.id, await post("/v1/limit", { dir: share.path }));
    redraw();
  } catch (e) {
    toast(e.message, true);
  }
}

const said = (limit) => limit ? rate(limit) : "as fast as it goes";

export function limits(share) {
  if (!known.has(share.id)) load(share);
  const now = known.get(share.id);
  const field = (way, label) => h("div", { class: "field" }, h("label", { for: `limit-${way}` }, label), h("input", { id: `limit-${way}`, name: way, type: "text", placeholder: "5MB, unlimited", autocomplete: "off" }));
  return h("section", { class: "panel limits", "data-key": "limits" }, h("h2", null, "Limits"),
    h("p", null, now ? `Sends ${said(now.up)}, receives ${said(now.down)}.` : "Looking …"),
    h("div", { class: "pairs" }, field("up", "Send at most, a second"), field("down", "Receive at most, a second")),
    h("button", { type: "button", "data-do": "limit", "data-share": share.id }, "Set"));
}

export const limitActions = {
  async limit(share, button) {
    const value = (way) => button.closest(".limits").querySelector(`[name=${way}]`).value.trim() || null;
    known.set(share.id, await post("/v1/limit", { dir: share.path, up: value("up"), down: value("down") }));
    toast("The limits count from now on.");
  },
};
