//! `left status` for people.

use super::format::{bytes, count, device, text};
use crate::daemon::handle::{Mode, PeerStatus, ShareStatus, State, Status, WithheldChange};
use crate::home::clean;

/// Most lines of one kind for one share; the rest is counted.
const MAX_LINES: usize = 20;

pub(super) fn lines(status: &Status) -> Vec<String> {
    let mut lines = vec![head(status)];
    if status.shares.is_empty() {
        lines.push("No shares; make one with `left share DIR`.".into());
    }
    let width = status.shares.iter().map(|s| clean(&s.path).chars().count());
    let width = width.max().unwrap_or(0);
    for share in &status.shares {
        lines.extend(share_lines(share, width, status.pid.is_some()));
    }
    lines
}

fn head(status: &Status) -> String {
    let name = match status.device {
        Some(id) => device(&status.name, id),
        None => text(&status.name),
    };
    match status.pid {
        Some(pid) => format!(
            "{name}: process {pid}, listens on {}",
            text(&status.listen.join(", "))
        ),
        None => format!("{name}: left does not run; start it with `left up`"),
    }
}

fn share_lines(share: &ShareStatus, width: usize, running: bool) -> Vec<String> {
    let mut first = format!("{:width$}  {:7}", clean(&share.path), share.state.name());
    if running {
        let (files, dirs) = (count(share.files, "file"), count(share.dirs, "folder"));
        first.push_str(&format!("  {files}, {dirs}, {}", bytes(share.bytes)));
    }
    let mut lines = vec![first.trim_end().to_string()];
    if let Some(alarm) = &share.alarm {
        lines.push(format!("  ALARM: {}", text(&alarm.reason)));
        lines.push(format!("         {}", text(&alarm.todo)));
    }
    if share.state == State::Paused {
        lines.push(format!("  go on with `left resume {}`", clean(&share.path)));
    }
    if !share.limit.is_unlimited() {
        let text =
            |rate: Option<u64>| rate.map_or("unlimited".into(), |n| format!("{}/s", bytes(n)));
        let (up, down) = (text(share.limit.up), text(share.limit.down));
        lines.push(format!("  limited: up {up}, down {down}"));
    }
    if share.need_files > 0 || share.need_bytes > 0 {
        let (files, size) = (count(share.need_files, "file"), bytes(share.need_bytes));
        lines.push(format!("  needs {files}, {size}"));
    }
    match (share.mode, share.withheld_count) {
        (Mode::TwoWay, _) => {}
        (Mode::SendOnly, 0) => lines.push("  send-only: has nothing to withhold".into()),
        (Mode::SendOnly, n) => {
            let dir = clean(&share.path);
            lines.push(format!(
                "  send-only: {} that others changed and that are not done here ({}); `left take {dir}` \
                 does them, `left override {dir}` undoes them on the others",
                count(n, "path"),
                bytes(share.withheld_bytes),
            ));
            let paths = share.withheld.iter().map(|w| {
                let what = match w.change {
                    WithheldChange::New => "new",
                    WithheldChange::Changed => "changed",
                    WithheldChange::Deleted => "deleted",
                };
                format!("    {what} there: {}", text(&w.path))
            });
            some(&mut lines, n as usize, "path", paths);
        }
        (Mode::ReceiveOnly, _) => lines.push("  receive-only".into()),
    }
    if share.away_files > 0 {
        let (paths, size) = (count(share.away_files, "path"), bytes(share.away_bytes));
        lines.push(format!(
            "  {paths}, {size}, not held here (`left choose {}`)",
            clean(&share.path)
        ));
    }
    let peers = share.peers.iter().map(|p| peer_line(p, running));
    some(&mut lines, share.peers.len(), "peer", peers);
    let transfers = share.transfers.iter().map(|t| {
        let (done, total) = (bytes(t.done), bytes(t.total));
        format!("  receiving {}: {done} of {total}", text(&t.path))
    });
    some(&mut lines, share.transfers.len(), "transfer", transfers);
    let conflicts = share.conflicts.iter().map(|path| {
        format!(
            "  conflict: {}: end it with `left resolve`, or delete what you do not need",
            text(path)
        )
    });
    some(&mut lines, share.conflicts.len(), "conflict", conflicts);
    if share.local_edit_count > 0 {
        lines.push(format!(
            "  {} here, which nobody receives (this device only receives); `left revert {}` takes them back",
            count(share.local_edit_count, "edit"),
            clean(&share.path)
        ));
        let edits = share.local_edits.iter().map(|p| format!("    {}", text(p)));
        let all = share.local_edit_count as usize;
        some(&mut lines, all, "edit", edits);
    }
    let problems = share.problems.iter();
    let problems = problems.map(|p| format!("  problem: {}: {}", text(&p.path), text(&p.reason)));
    some(&mut lines, share.problems.len(), "problem", problems);
    let notices = share
        .notices
        .iter()
        .map(|n| format!("  notice: {}", text(n)));
    some(&mut lines, share.notices.len(), "notice", notices);
    lines
}

fn peer_line(peer: &PeerStatus, running: bool) -> String {
    let mut line = format!("  {}", device(&peer.name, peer.device));
    if peer.role == left_core::message::Role::ReadOnly {
        line.push_str(", read-only");
    }
    if peer.paused {
        line.push_str(", paused");
        return line;
    }
    if !peer.connected {
        let address = text(&peer.address);
        if running {
            line.push_str(", not connected");
        }
        if !address.is_empty() {
            line.push_str(&format!(", last at {address}"));
        }
        return line;
    }
    line.push_str(&format!(", {}", text(&peer.address)));
    if peer.in_sync {
        line.push_str(", in sync");
    } else {
        let (files, size) = (count(peer.need_files, "file"), bytes(peer.need_bytes));
        line.push_str(&format!(", needs {files}, {size}"));
    }
    if peer.rate_in > 0 || peer.rate_out > 0 {
        let (to, from) = (bytes(peer.rate_out), bytes(peer.rate_in));
        line.push_str(&format!(", {from}/s from it, {to}/s to it"));
    }
    line
}

fn some(lines: &mut Vec<String>, all: usize, what: &str, texts: impl Iterator<Item = String>) {
    lines.extend(texts.take(MAX_LINES));
    if all > MAX_LINES {
        let more = count((all - MAX_LINES) as u64, what);
        lines.push(format!("  and {more} more (`left status --json` has them)"));
    }
}
