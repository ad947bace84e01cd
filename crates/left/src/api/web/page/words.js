// Numbers and states in words.

const UNITS = ["bytes", "kB", "MB", "GB", "TB", "PB"];

export function bytes(n) {
  if (n === 1) return "1 byte";
  let unit = 0;
  while (n >= 999.5 && unit < UNITS.length - 1) {
    n /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || n >= 99.5 ? 0 : n >= 9.95 ? 1 : 2;
  return `${n.toFixed(digits)} ${UNITS[unit]}`;
}

export const rate = (n) => `${bytes(n)}/s`;
export const number = (n) => n.toLocaleString("en").replaceAll(",", "\u202f");
export const count = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

/// So many seconds, roughly.
export function span(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
  return count(Math.round(seconds / 86400), "day");
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const exact = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });

/// A moment, given in Unix seconds.
export function when(seconds, hands = clock) {
  const then = new Date(seconds * 1000);
  const today = new Date().toDateString() === then.toDateString();
  return today ? hands.format(then) : `${day.format(then)}, ${hands.format(then)}`;
}
/// The same to the second, where two moments are told apart.
export const exactly = (seconds) => when(seconds, exact);

export const iso = (seconds) => {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? "" : date.toISOString();
};

/// The last part of a path.
export const name = (path) => path.replace(/\/+$/, "").split("/").pop() || path;
/// A path as people read it; some travel as URLs since their bytes are no text.
export const shown = (path) => {
  if (!path.startsWith("file://")) return path;
  try { return decodeURIComponent(path.slice(7)); } catch { return path; }
};

export const STATES = {
  synced: "Identical",
  syncing: "Synchronising",
  offline: "Nobody connected",
  paused: "Paused",
  alarm: "Needs you",
};

/// A share's state in one sentence.
export function sentence(share) {
  const there = share.peers.filter((p) => p.connected).length;
  switch (share.state) {
    case "synced": if (share.withheld_count) return `The others have all that was edited here; ${count(share.withheld_count, "change")} of theirs ${share.withheld_count === 1 ? "is" : "are"} not done here.`;
      return there === 1 ? `Identical with ${share.peers.find((p) => p.connected).name}.` : `Identical on ${there + 1} devices.`;
    case "syncing": {
      if (share.need_files) return `${count(share.need_files, "file")} to come (${bytes(share.need_bytes)}).`;
      const behind = share.peers.filter((p) => p.connected && p.need_files);
      if (behind.length) return `${behind.map((p) => p.name).join(", ")} still ${behind.length === 1 ? "takes" : "take"} ${count(Math.max(...behind.map((p) => p.need_files)), "file")}.`;
      return "Comparing.";
    }
    case "offline": if (share.peers.some((p) => p.paused) && share.peers.every((p) => p.paused)) return "You paused all of the other devices; changes are kept and sent later.";
      return share.peers.length ? "None of the other devices is connected; changes are kept and sent later." : "Only on this device so far. Invite another one.";
    case "paused": return "Held still. Nothing is sent or received until you let it go on.";
    default: return share.alarm?.reason ?? "Something needs your decision.";
  }
}

export const role = (r) => r === "read-only" ? "receives only" : "reads and writes";
