//! Keeps a share running: starts its owner, and starts it again when something broke.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use left_core::message::ShareId;
use left_core::version::DeviceId;
use tokio::sync::broadcast;

use super::super::ask::Msg;
use super::super::gate::Door;
use super::super::handle::{Alarm, ApplyTimes, DaemonEvent, ShareStatus, State};
use super::super::history::SharedLimits;
use super::super::limits::Limiter;
use super::super::members::Members;
use super::super::owner::{self, Ended, Setup};
use super::super::pairing::Pending;
use super::super::snapshot::{Board, split_todo};
use crate::home::{Lock, MARKER_DIR, ShareRecord, clean, lock_share, read_share};
use crate::net::Net;

/// A share that can not be worked on is tried again after this.
const BROKEN_WAIT: Duration = Duration::from_secs(3);

/// Keeps one share running: starts its owner, and starts it again when something broke.
pub(super) struct Keeper {
    pub(super) device: DeviceId,
    pub(super) path: PathBuf,
    pub(super) members: Members,
    pub(super) door: Arc<Door>,
    pub(super) net: Option<Arc<Net>>,
    pub(super) events: broadcast::Sender<DaemonEvent>,
    pub(super) board: Arc<Board>,
    pub(super) limits: SharedLimits,
    pub(super) limiter: Arc<Limiter>,
    pub(super) joined: Option<Sender<Result<(), String>>>,
    pub(super) share_lock: Option<Lock>,
}

impl Keeper {
    pub(super) fn keep(mut self, tx: &Sender<Msg>, rx: &Receiver<Msg>) {
        let mut told = String::new();
        loop {
            let reason = match self.once(tx, rx) {
                Ended::Stopped => return,
                Ended::Again => continue,
                Ended::Broken(reason) => with_todo(&self.path, reason),
            };
            if reason != told {
                tracing::error!(share = %self.path.display(), "{reason}");
                let (short, todo) = split_todo(&reason);
                let _ = self.events.send(DaemonEvent::Alarm {
                    share: self.path.clone(),
                    reason: short,
                    todo,
                });
                told = reason.clone();
            }
            self.board.publish(broken(&self.members.record(), &reason));
            let until = Instant::now() + BROKEN_WAIT;
            // Lanes and requests that come meanwhile are dropped, which tells their senders.
            while let Ok(msg) = rx.recv_deadline(until) {
                if matches!(msg, Msg::Stop) {
                    return;
                }
            }
        }
    }

    fn once(&mut self, tx: &Sender<Msg>, rx: &Receiver<Msg>) -> Ended {
        if self.share_lock.is_none() {
            match lock_share(&self.path) {
                Ok(lock) => self.share_lock = Some(lock),
                Err(error) => return Ended::Broken(error.to_string()),
            }
        }
        match read_share(&self.path) {
            Ok(marker) if marker.id == self.members.id() => {}
            Ok(_) => return Ended::Broken("the folder is another share now. Put the right folder back, or run `left leave DIR`".into()),
            Err(_) if !has_marker(&self.path) => {
                return Ended::Broken(format!(
                    "{} has no .left/share.toml: it is missing, was emptied or replaced. Put the \
                     folder back (or mount its disk) and left goes on by itself; nothing was \
                     deleted at others. If it is not wanted any more: `left leave DIR`",
                    clean(&self.path)
                ));
            }
            Err(error) => return Ended::Broken(error.to_string()),
        }
        let setup = Setup {
            device: self.device,
            path: self.path.clone(),
            members: self.members.clone(),
            door: self.door.clone(),
            net: self.net.clone(),
            events: self.events.clone(),
            board: self.board.clone(),
            limits: self.limits.clone(),
            limiter: self.limiter.clone(),
            joined: self.joined.take(),
        };
        owner::run(setup, tx.clone(), rx)
    }
}

/// What broke a share, and what to do about it where that does not say so itself: most often the disk
/// is full, and what the database then says does not name that.
fn with_todo(dir: &Path, reason: String) -> String {
    const NO_ROOM: u64 = 1 << 20;
    if !split_todo(&reason).1.is_empty() {
        return reason;
    }
    let full = rustix::fs::statvfs(dir).is_ok_and(|s| {
        s.f_bavail.saturating_mul(s.f_frsize) < NO_ROOM || (s.f_files > 0 && s.f_favail == 0)
    });
    match full {
        true => format!(
            "the disk is full ({reason}). Make room on it; the share goes on by itself then"
        ),
        false => format!(
            "{reason}. It is tried again every few seconds; if it stays so, see `left doctor`"
        ),
    }
}

/// Whether anything stands where the share's marker belongs, as far as can be seen.
fn has_marker(dir: &Path) -> bool {
    let marker = dir.join(MARKER_DIR).join("share.toml");
    !std::fs::symlink_metadata(marker).is_err_and(|e| e.kind() == ErrorKind::NotFound)
}

/// The status of a share that can not be worked on.
pub(super) fn broken(record: &ShareRecord, reason: &str) -> ShareStatus {
    let (reason, todo) = split_todo(reason);
    ShareStatus {
        id: record.id,
        path: record.path.clone(),
        role: record.role,
        state: State::Alarm,
        files: 0,
        dirs: 0,
        bytes: 0,
        need_files: 0,
        need_bytes: 0,
        away_files: 0,
        away_bytes: 0,
        peers: Vec::new(),
        conflicts: Vec::new(),
        local_edits: Vec::new(),
        local_edit_count: 0,
        mode: record.mode,
        withheld: Vec::new(),
        withheld_count: 0,
        withheld_bytes: 0,
        problems: Vec::new(),
        notices: Vec::new(),
        alarm: Some(Alarm { reason, todo }),
        transfers: Vec::new(),
        limit: record.limit,
        applied: ApplyTimes::default(),
    }
}

/// The status of a share whose owner has not said anything yet.
pub(super) fn starting(record: &ShareRecord) -> ShareStatus {
    ShareStatus {
        state: State::Syncing,
        alarm: None,
        ..broken(record, "")
    }
}

/// The status of a folder that waits for its pairing.
pub(super) fn waiting(pending: &Pending) -> ShareStatus {
    let record = ShareRecord::new(ShareId([0; 32]), pending.dir.clone());
    ShareStatus {
        state: State::Offline,
        alarm: None,
        notices: vec![format!("waiting for {} to pair", pending.peer)],
        ..broken(&record, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_broke_a_share_comes_with_what_to_do() {
        let here = Path::new(".");
        let says = "it is gone. Put it back";
        assert_eq!(with_todo(here, says.to_owned()), says);
        let told = with_todo(here, "the database failed: disk I/O error".to_owned());
        assert!(!split_todo(&told).1.is_empty(), "{told}");
    }
}
