//! What people see of a share, put together where it is known and kept where it is asked for.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use left_core::engine;
use left_core::path::RelPath;
use tokio::sync::broadcast;

use super::book::Fellow;
use super::handle::{
    Alarm, ApplyTimes, DaemonEvent, PeerStatus, Problem, ShareStatus, State, Transfer, Withheld,
    WithheldChange,
};
use super::links::Links;
use crate::home::ShareRecord;

/// The state is put together at most this often.
pub(super) const EVERY: Duration = Duration::from_millis(50);
/// Entries of a list.
pub(super) const MAX_LIST: usize = 200;
/// Progress is told this often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Where the owner leaves the share's state for others.
#[derive(Default)]
pub(super) struct Board {
    inner: Mutex<(Option<ShareStatus>, Option<Instant>)>,
}

impl Board {
    /// Whether a new state is worth putting together.
    pub(super) fn is_due(&self) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.1.is_none_or(|at| at.elapsed() >= EVERY)
    }

    /// The next state is due at once.
    pub(super) fn hurry(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.1 = None;
    }

    pub(super) fn publish(&self, status: ShareStatus) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        *inner = (Some(status), Some(Instant::now()));
    }

    pub(super) fn read(&self) -> Option<ShareStatus> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.0.clone()
    }
}

/// What a status is made of.
pub(super) struct Parts<'a> {
    pub(super) record: &'a ShareRecord,
    pub(super) fellows: &'a [Fellow],
    pub(super) path: &'a Path,
    pub(super) state: &'a engine::State,
    pub(super) edits: &'a engine::Edits,
    pub(super) withheld: &'a [engine::Withheld],
    pub(super) links: &'a Links,
    pub(super) conflicts: &'a [RelPath],
    pub(super) problems: &'a [(String, String)],
    pub(super) notices: &'a [String],
    pub(super) transfers: Vec<Transfer>,
    pub(super) applied: &'a ApplyTimes,
}

pub(super) fn status(parts: &Parts<'_>) -> ShareStatus {
    let Parts { record, state, .. } = parts;
    let peers: Vec<PeerStatus> = parts.fellows.iter().map(|m| peer(parts, m)).collect();
    let totals = &state.totals;
    let synced = !state.busy && state.peers.iter().all(|p| p.in_sync);
    ShareStatus {
        id: record.id,
        path: parts.path.to_path_buf(),
        role: record.role,
        state: if state.alarm.is_some() {
            State::Alarm
        } else if state.paused {
            State::Paused
        } else if parts.links.is_empty() {
            State::Offline
        } else if synced {
            State::Synced
        } else {
            State::Syncing
        },
        files: totals.files + totals.links,
        dirs: totals.dirs,
        bytes: totals.bytes,
        need_files: totals.need_files,
        need_bytes: totals.need_bytes,
        away_files: totals.away_files,
        away_bytes: totals.away_bytes,
        peers,
        conflicts: parts
            .conflicts
            .iter()
            .take(MAX_LIST)
            .map(ToString::to_string)
            .collect(),
        mode: record.mode,
        withheld: parts.withheld.iter().map(withheld).collect(),
        withheld_count: state.withheld_files,
        withheld_bytes: state.withheld_bytes,
        local_edits: parts.edits.paths.iter().map(ToString::to_string).collect(),
        local_edit_count: parts.edits.count,
        problems: parts
            .problems
            .iter()
            .take(MAX_LIST)
            .map(|(path, reason)| Problem {
                path: path.clone(),
                reason: reason.clone(),
            })
            .collect(),
        notices: parts.notices.to_vec(),
        alarm: state.alarm.as_deref().map(|text| {
            let (reason, todo) = split_todo(text);
            Alarm { reason, todo }
        }),
        transfers: parts.transfers.iter().take(MAX_LIST).cloned().collect(),
        limit: record.limit,
        applied: parts.applied.clone(),
    }
}

fn withheld(w: &engine::Withheld) -> Withheld {
    Withheld {
        path: w.path.to_string(),
        change: match w.change {
            engine::Theirs::New => WithheldChange::New,
            engine::Theirs::Changed => WithheldChange::Changed,
            engine::Theirs::Deleted => WithheldChange::Deleted,
        },
    }
}

fn peer(parts: &Parts<'_>, member: &Fellow) -> PeerStatus {
    let link = parts.links.link(member.device);
    let seen = parts.state.peers.iter().find(|p| p.device == member.device);
    let progress = seen.and_then(|p| p.progress).unwrap_or_default();
    let bytes = parts.links.bytes(member.device);
    let away = away(member);
    let Some(link) = link else {
        return PeerStatus {
            bytes_in: bytes.0,
            bytes_out: bytes.1,
            ..away
        };
    };
    PeerStatus {
        address: link.info.remote.to_string(),
        connected: true,
        rate_in: link.rates.0,
        rate_out: link.rates.1,
        bytes_in: bytes.0,
        bytes_out: bytes.1,
        need_files: progress.need_files,
        need_bytes: progress.need_bytes,
        in_sync: seen.is_some_and(|p| p.in_sync),
        ..away
    }
}

/// A member that is not connected.
pub(super) fn away(member: &Fellow) -> PeerStatus {
    PeerStatus {
        device: member.device,
        name: member.name.clone(),
        address: member.addresses.first().cloned().unwrap_or_default(),
        connected: false,
        role: member.role,
        paused: member.paused,
        admitted_by: member.by,
        rate_in: 0,
        rate_out: 0,
        bytes_in: 0,
        bytes_out: 0,
        need_files: 0,
        need_bytes: 0,
        in_sync: false,
    }
}

/// An engine's sentence ends with what to do, after a full stop or a semicolon.
pub(super) fn split_todo(text: &str) -> (String, String) {
    match text.split_once(". ").or_else(|| text.split_once("; ")) {
        Some((reason, todo)) => (reason.to_owned(), todo.to_owned()),
        None => (text.to_owned(), String::new()),
    }
}

/// Tells changes of state and, while there is work, how far it is.
#[derive(Default)]
pub(super) struct Progressing {
    told: Option<State>,
    /// The most bytes needed since work began.
    total: u64,
    last: Option<Instant>,
    working: bool,
}

impl Progressing {
    pub(super) fn is_working(&self) -> bool {
        self.working
    }

    pub(super) fn tell(&mut self, status: &ShareStatus, events: &broadcast::Sender<DaemonEvent>) {
        if self.told != Some(status.state) {
            self.told = Some(status.state);
            let _ = events.send(DaemonEvent::State {
                share: status.path.clone(),
                state: status.state,
                need_files: status.need_files,
                need_bytes: status.need_bytes,
            });
        }
        let sending = status.peers.iter().any(|p| p.connected && p.need_files > 0);
        self.working = status.state == State::Syncing
            && (status.need_files > 0 || sending || !status.transfers.is_empty());
        if status.need_bytes == 0 {
            self.total = 0;
            return;
        }
        self.total = self.total.max(status.need_bytes);
        if self.last.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        let staged: u64 = status.transfers.iter().map(|t| t.done).sum();
        let _ = events.send(DaemonEvent::Progress {
            share: status.path.clone(),
            done: (self.total - status.need_bytes + staged).min(self.total),
            total: self.total,
            rate: status.peers.iter().map(|p| p.rate_in).sum(),
        });
    }
}
