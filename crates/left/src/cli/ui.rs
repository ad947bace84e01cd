//! What the foreground shows: JSON lines, plain lines, or plain lines above live bars.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::live::Live;
use super::output::Output;
use super::run::{Reply, reply_lines};
use super::{format, live};
use crate::daemon::handle::{DaemonEvent, State, Status};
use crate::home::clean;

/// Shows events and progress.
pub(super) struct Ui {
    out: Output,
    live: Option<Live>,
    /// Running shares, and what each received since it was last in sync: files and bytes.
    shares: BTreeMap<PathBuf, (u64, u64)>,
    /// Started shares that were told with the reply, before the daemon's own event came.
    ahead: BTreeSet<PathBuf>,
    /// There is a page to open.
    pub(super) page: bool,
}

impl Ui {
    pub(super) fn new(out: Output) -> Self {
        Self {
            out,
            live: None,
            shares: BTreeMap::new(),
            ahead: BTreeSet::new(),
            page: false,
        }
    }

    /// The job is done by this process: from now on progress may be drawn.
    pub(super) fn reply(&mut self, reply: &Reply) {
        if self.out.json() {
            self.told_by_command(reply);
        } else {
            reply_lines(reply).iter().for_each(|l| self.out.line(l));
            if std::io::stdout().is_terminal() && std::io::stderr().is_terminal() {
                self.live = Some(Live::new());
            }
            if self.page {
                self.out.line("`left web` opens its page.");
            }
            self.out
                .line("Ctrl-C stops; `left up` goes on with all shares.");
        }
    }

    /// The job was done by another left, whose events are not shown here.
    pub(super) fn reply_of_other(&mut self, reply: &Reply) {
        if self.out.json() {
            self.told_by_command(reply);
        } else {
            reply_lines(reply).iter().for_each(|l| self.out.line(l));
        }
    }

    /// First that shares started, if the daemon's events did not say so yet; then what no daemon
    /// tells, since it is one command's answer.
    fn told_by_command(&mut self, reply: &Reply) {
        let started = match reply {
            Reply::Shared(share, _) | Reply::Joined(share) => std::slice::from_ref(share),
            Reply::Up(shares) => shares,
            Reply::Pairing(_) => &[],
        };
        for share in started {
            if !self.shares.contains_key(&share.path) && self.ahead.insert(share.path.clone()) {
                self.out.object(&DaemonEvent::ShareStarted(share.clone()));
            }
        }
        match reply {
            Reply::Shared(_, ticket) => self.out.object(&DaemonEvent::Ticket(ticket.clone())),
            Reply::Pairing(sync) => self.out.object(&DaemonEvent::Pairing(sync.clone())),
            Reply::Joined(_) | Reply::Up(_) => {}
        }
    }

    /// Several that came one after the other.
    pub(super) fn events(&mut self, events: &[DaemonEvent]) {
        if self.out.json() {
            let told: Vec<_> = events.iter().filter(|event| self.note(event)).collect();
            self.out.objects(&told);
        } else {
            events.iter().for_each(|event| self.event(event));
        }
    }

    /// Takes note of an event; whether it is to be told.
    fn note(&mut self, event: &DaemonEvent) -> bool {
        match event {
            DaemonEvent::ShareStarted(share) => {
                self.shares.entry(share.path.clone()).or_default();
                if self.ahead.remove(&share.path) {
                    return false;
                }
            }
            DaemonEvent::FileReceived { share, bytes, .. } => {
                let received = self.shares.entry(share.clone()).or_default();
                received.0 += 1;
                received.1 += bytes;
            }
            _ => {}
        }
        true
    }

    pub(super) fn event(&mut self, event: &DaemonEvent) {
        if !self.note(event) {
            return;
        }
        if self.out.json() {
            return self.out.object(event);
        }
        if let Some(line) = self.event_line(event) {
            live::suspend(|| self.out.line(&line));
        }
    }

    /// Live bars are shown, and want [`draw`](Self::draw).
    pub(super) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    pub(super) fn draw(&mut self, status: &Status) {
        if let Some(live) = &mut self.live {
            live.draw(status);
        }
    }

    /// Takes the bars away.
    pub(super) fn close(&mut self) {
        self.live = None;
    }

    /// An event for people; `None` when it is too small to be told.
    fn event_line(&mut self, event: &DaemonEvent) -> Option<String> {
        use DaemonEvent as E;
        let line = match event {
            E::Ticket(_) | E::Pairing(_) | E::ShareStarted(_) => return None,
            E::PeerConnected {
                share,
                device,
                name,
                address,
            } => {
                let who = format::device(name, *device);
                self.of(
                    share,
                    format!("connected: {who} at {}", format::text(address)),
                )
            }
            E::PeerLost {
                share,
                device,
                name,
                why,
            } => {
                let who = format::device(name, *device);
                self.of(
                    share,
                    format!("connection lost: {who}: {}", format::text(why)),
                )
            }
            E::FileReceived { share, path, bytes } => {
                let size = format::bytes(*bytes);
                self.detail(share, format!("received: {} ({size})", format::text(path)))?
            }
            E::FileDeleted { share, path } => {
                self.detail(share, format!("deleted: {}", format::text(path)))?
            }
            E::State {
                share,
                state,
                need_files,
                need_bytes,
            } => self.state_line(share, *state, *need_files, *need_bytes),
            E::Progress { .. } if self.live.is_some() => return None,
            E::Progress {
                share,
                done,
                total,
                rate,
            } => {
                let (done, total) = (format::bytes(*done), format::bytes(*total));
                let line = format!("{done} of {total}, {}/s", format::bytes(*rate));
                self.detail(share, line)?
            }
            E::Stopping => "Stopped.".to_string(),
            _ => return self.trouble_line(event),
        };
        Some(line)
    }

    /// An event that wants the user's attention.
    fn trouble_line(&self, event: &DaemonEvent) -> Option<String> {
        use DaemonEvent as E;
        Some(match event {
            E::Conflict { share, path, copy } => {
                let (path, copy) = (format::text(path), format::text(copy));
                self.of(
                    share,
                    format!("conflict: {path}: both versions are kept, the other one as {copy}"),
                )
            }
            E::Problem {
                share,
                path,
                reason,
            } => {
                let (path, reason) = (format::text(path), format::text(reason));
                self.of(share, format!("problem: {path}: {reason}"))
            }
            E::Solved { share, path } => self.of(share, format!("solved: {}", format::text(path))),
            E::Alarm {
                share,
                reason,
                todo,
            } => {
                let (reason, todo) = (format::text(reason), format::text(todo));
                let todo = if todo.is_empty() {
                    todo
                } else {
                    format!("; {todo}")
                };
                self.of(share, format!("ALARM: {reason}{todo}"))
            }
            E::AlarmOver { share } => self.of(share, "the alarm is over".to_string()),
            E::Refused {
                address,
                device,
                why,
            } => {
                let who = device.map_or("an unknown device".to_string(), |d| d.to_string());
                format!(
                    "refused: {who} from {}: {}",
                    format::text(address),
                    format::text(why)
                )
            }
            E::Notice { text } => format!("notice: {}", format::text(text)),
            // All others are no trouble.
            _ => return None,
        })
    }

    fn state_line(&mut self, share: &Path, state: State, files: u64, bytes: u64) -> String {
        let mut line = state.name().to_string();
        if files > 0 || bytes > 0 {
            let (files, bytes) = (format::count(files, "file"), format::bytes(bytes));
            line.push_str(&format!(": needs {files}, {bytes}"));
        }
        if state == State::Synced {
            let received = self.shares.entry(share.to_path_buf()).or_default();
            if received.0 > 0 {
                let (files, bytes) = (format::count(received.0, "file"), format::bytes(received.1));
                line.push_str(&format!(": {files} received, {bytes}"));
                *received = (0, 0);
            }
        }
        self.of(share, line)
    }

    /// Only for `-v`.
    fn detail(&self, share: &Path, line: String) -> Option<String> {
        self.out.verbose().then(|| self.of(share, line))
    }

    /// Names the share where there are several.
    fn of(&self, share: &Path, line: String) -> String {
        if self.shares.len() < 2 {
            return line;
        }
        format!("{}: {line}", clean(share))
    }
}
