// Adding a folder, joining, inviting.

import { dialog, h, s, toast } from "/assets/dom.js";
import { get, post } from "/assets/api.js";
import { name, shown, when } from "/assets/words.js";

let fields = 0;

function field(label, hint, input) {
  fields += 1;
  input.id = `f${fields}`;
  const about = h("p", { class: "quiet", id: `h${fields}` }, hint);
  input.setAttribute("aria-describedby", about.id);
  return h("div", { class: "field" }, h("label", { for: input.id }, label), input, about);
}

/// A field for a folder of this machine, which proposes folders while one types.
function folderField(label, hint) {
  const list = h("datalist", { id: `l${fields}` });
  const input = h("input", { type: "text", name: "dir", required: true, list: list.id, autocomplete: "off", spellcheck: "false", placeholder: "~/photos" });
  const box = field(label, hint, input);
  box.append(list);
  let asked = 0;
  input.addEventListener("input", async () => {
    asked += 1;
    const mine = asked;
    try {
      const found = await get("/v1/folders", { typed: input.value });
      if (mine === asked) list.replaceChildren(...found.proposed.map((p) => h("option", { value: shown(p) })));
    } catch { /* Only a help while typing. */ }
  });
  const read = async () => {
    const { path } = await get("/v1/folders", { typed: input.value });
    if (!path) throw new Error("Give the folder’s whole path, such as /home/me/photos or ~/photos.");
    return path;
  };
  return { box, input, read };
}

function form(parts, yes, submit) {
  const wrong = h("p", { class: "wrong", role: "alert" });
  const ok = h("button", { type: "submit", class: "main" }, yes);
  const box = h("form", { class: "body" }, parts, wrong, h("div", { class: "buttons" }, ok));
  box.addEventListener("submit", async (e) => {
    e.preventDefault();
    wrong.textContent = "";
    ok.disabled = true;
    box.setAttribute("aria-busy", "true");
    try {
      await submit();
    } catch (error) {
      wrong.textContent = error.message;
    } finally {
      ok.disabled = false;
      box.removeAttribute("aria-busy");
    }
  });
  return box;
}

export function add(first = "share") {
  const body = h("div", null);
  const tab = (id, label) => h("button", { type: "button", role: "tab", "data-tab": id }, label);
  const tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "How" }, tab("share", "Share a folder"), tab("join", "Join with a ticket"));
  const box = dialog("Add a folder", tabs, body);
  const show = (id) => {
    for (const t of tabs.children) t.setAttribute("aria-selected", String(t.dataset.tab === id));
    body.replaceChildren(id === "join" ? joinForm(box) : shareForm(box));
    body.querySelector("input, textarea").focus();
  };
  tabs.addEventListener("click", (e) => { if (e.target.dataset.tab) show(e.target.dataset.tab); });
  tabs.addEventListener("keydown", (e) => {
    if (e.key !== "ArrowLeft" && e.key !== "ArrowRight") return;
    const next = [...tabs.children].find((t) => t !== e.target);
    show(next.dataset.tab);
    next.focus();
  });
  show(first);
}

function shareForm(box) {
  const dir = folderField("Folder on this machine", "It is made when it is missing. What is in it already is shared too.");
  return form([dir.box], "Share it", async () => {
    const share = await post("/v1/share", { dir: await dir.read() });
    box.close();
    location.hash = `#/folder/${share.id}`;
    invite(share);
  });
}

function joinForm(box) {
  const ticket = h("textarea", { name: "ticket", rows: 4, required: true, spellcheck: "false", autocomplete: "off", placeholder: "left1…" });
  const dir = folderField("Folder on this machine", "It may hold files already: both sides are merged, nothing is deleted.");
  const only = h("textarea", { name: "only", rows: 2, spellcheck: "false", autocomplete: "off", placeholder: "2024\ntrips/rome" });
  const part = h("details", null, h("summary", null, "Hold only a part"), field("Sub-folders of the share, one a line", "The rest is listed with its size and not fetched; you can change that at any time.", only));
  return form([field("Ticket", "The line that the other machine showed. It works once.", ticket), dir.box, part], "Join", async () => {
    const parts = only.value.split("\n").map((line) => line.trim()).filter(Boolean);
    const share = await post("/v1/join", { ticket: ticket.value.replace(/\s+/g, ""), dir: await dir.read(), only: parts });
    box.close();
    location.hash = `#/folder/${share.id}`;
    toast(`${name(shown(share.path))} is part of the share now.`);
  });
}

const TIMES = [["3600", "an hour"], ["86400", "a day"], ["604800", "a week"]];

export function invite(share) {
  const role = h("select", { name: "role" }, h("option", { value: "read-write" }, "reads and writes"), h("option", { value: "read-only" }, "only receives"));
  const time = h("select", { name: "time" }, TIMES.map(([value, text]) => h("option", { value, selected: value === "86400" }, text)));
  const made = h("div", { class: "made" });
  const box = dialog(`Invite a device to ${name(shown(share.path))}`, form([
    h("div", { class: "pairs" }, field("The device", "", role), field("Works for", "", time)),
  ], "Make a ticket", async () => {
    const ticket = await post("/v1/ticket", { dir: share.path, role: role.value, expires_in: Number(time.value) });
    const picture = await post("/v1/qr", { text: ticket.ticket });
    made.replaceChildren(shownTicket(ticket, picture));
    made.querySelector("button").focus();
    box.querySelector("form").hidden = true;
  }), made);
}

function shownTicket(ticket, picture) {
  const code = h("textarea", { readonly: true, rows: 4, "aria-label": "The ticket", class: "ticket" }, ticket.ticket);
  const copy = (label, text) => {
    const button = h("button", { type: "button" }, label);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        code.select();
        toast("The browser does not allow copying; the ticket is selected, press Ctrl-C.", true);
      }
    });
    return button;
  };
  return h("div", { class: "body" },
    h("div", { class: "pass" }, qr(picture),
      h("div", { class: "grow" }, h("p", null, "On the other machine, paste it under “Join with a ticket”, or run:"), h("pre", { class: "command", tabindex: 0 }, ticket.join_line), code,
        h("div", { class: "buttons" }, copy("Copy the ticket", ticket.ticket), copy("Copy the command", ticket.join_line)))),
    h("p", { class: "quiet" }, `Works once, until ${when(ticket.expires)}. Whoever has it gets in: send it by a way that you trust.`));
}

function qr({ side, squares }) {
  const quiet = 4;
  let path = "";
  for (let n = 0; n < squares.length; n += 1) {
    if (squares[n] === "1") path += `M${n % side + quiet} ${Math.floor(n / side) + quiet}h1v1h-1z`;
  }
  const whole = side + 2 * quiet;
  return s("svg", { class: "qr", viewBox: `0 0 ${whole} ${whole}`, role: "img", "aria-label": "The ticket as a QR code", "shape-rendering": "crispEdges" },
    s("rect", { width: whole, height: whole, class: "light" }), s("path", { d: path, class: "dark" }));
}
