// What the buttons do.

import { confirm, toast } from "/assets/dom.js";
import { post } from "/assets/api.js";
import { bytes, count, name, shown } from "/assets/words.js";
import { redraw, state } from "/assets/app.js";
import { add, invite } from "/assets/dialogs.js";
import { fileActions } from "/assets/files.js";
import { historyActions } from "/assets/history.js";
import { limitActions } from "/assets/limits.js";
import { modeActions } from "/assets/modes.js";
import { deviceActions } from "/assets/device.js";
import { conflictActions } from "/assets/conflicts.js";

const shareOf = (button) => state.status.shares.find((s) => s.id === button.dataset.share);

const ACTIONS = {
  add: () => add(),
  join: () => add("join"),
  invite: (share) => invite(share),
  async pause(share) {
    await post("/v1/pause", { dir: share.path });
  },
  async resume(share) {
    await post("/v1/resume", { dir: share.path });
  },
  async accept(share) {
    const text = ["The other devices will delete these files too. They keep them in their history for some time."];
    if (!await confirm("Pass the deletions on?", text, "Yes, these deletions are meant")) return;
    await post("/v1/resume", { dir: share.path, accept_deletions: true });
  },
  async verify(share) {
    toast(`Reading every file in ${name(shown(share.path))} again. This may take a while; go on meanwhile.`);
    const report = await post("/v1/verify", { dir: share.path });
    if (!report.damaged.length) return toast(`${count(report.files, "file")} read (${bytes(report.bytes)}): all as they should be.`);
    const healed = `${count(report.healed.length, "file")} of ${report.damaged.length} damaged ones healed.`;
    toast([healed, ...report.not_healed.map((p) => `${p.path}: ${p.reason}`)].join(" "), report.not_healed.length > 0);
  },
  async leave(share) {
    const text = [
      `${shown(share.path)} stays as it is, with all files. It is only no longer kept identical with the other devices.`,
      "Old versions that were kept in it go.",
    ];
    if (!await confirm("Stop synchronising this folder?", text, "Stop synchronising")) return;
    await post("/v1/leave", { dir: share.path });
    location.hash = "#/";
  },
  async remove(share, button) {
    const text = [`${button.dataset.name} will not be let in any more, by no member of this folder.`, "What it has received stays with it."];
    if (!await confirm(`Remove ${button.dataset.name}?`, text, "Remove it")) return;
    await post("/v1/remove-peer", { dir: share.path, who: button.dataset.device });
    toast(`${button.dataset.name} is out.`);
  },
  async revert(share) {
    const text = ["The files become again as they are on the other devices. What stands here now is kept as old versions."];
    if (!await confirm("Take back what was edited here?", text, "Take it back", false)) return;
    const { edits } = await post("/v1/revert", { dir: share.path });
    toast(edits ? `${count(edits, "edit")} taken back.` : "There was nothing to take back.");
  },
  async stop() {
    const text = ["Nothing is synchronised until it is started again (left up), and this page goes too."];
    if (!await confirm("Stop left on this device?", text, "Stop left")) return;
    await post("/v1/stop");
  },
  ...fileActions,
  ...historyActions,
  ...conflictActions,
  ...limitActions,
  ...modeActions,
  ...deviceActions,
};

const running = new Set();

/// Does what a button says; it can not be pressed again meanwhile.
export async function act(button) {
  const action = ACTIONS[button.dataset.do];
  const which = JSON.stringify(button.dataset);
  if (!action || running.has(which)) return;
  running.add(which);
  button.setAttribute("aria-busy", "true");
  try {
    await action(shareOf(button), button);
  } catch (e) {
    toast(e.message, true);
  } finally {
    running.delete(which);
    button.removeAttribute("aria-busy");
    redraw();
  }
}
