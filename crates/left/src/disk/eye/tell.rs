//! What the eye says, and what it keeps in mind for it: watches, troubles, the batch at hand.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::SendTimeoutError;
use left_core::diff::{Observation, Seen};
use left_core::index::IndexError;
use left_core::path::RelPath;
use rustix::io::Errno;

use super::EyeEvent;
use super::run::{BLIND_SCAN, Eye, MAX_WAIT};

/// Most observations of one event.
const MAX_BATCH: usize = 512;
/// How often progress is told.
const ACTIVITY: Duration = Duration::from_millis(250);
/// Refused names that are remembered as told.
const MAX_BAD_NAMES: usize = 1000;

impl Eye {
    /// Whether a folder should be watched and is not.
    pub(super) fn misses_watch(&self, path: &RelPath) -> bool {
        !self.blind && self.watcher.as_ref().is_some_and(|w| !w.is_watched(path))
    }

    pub(super) fn watch(&mut self, path: Option<&RelPath>, dir: BorrowedFd<'_>) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        match watcher.add(path, dir) {
            Ok(()) => {}
            Err(Errno::NOSPC | Errno::NOMEM) => self.go_blind(
                "the system's limit of watched folders is reached: raise fs.inotify.max_user_watches \
                 (sysctl); until then the share is looked through once a minute",
            ),
            // Gone already, or not readable: the walk finds out.
            Err(e) => tracing::debug!(error = %std::io::Error::from(e), "a folder can not be watched"),
        }
    }

    pub(super) fn unwatch(&mut self, path: &RelPath) {
        if let Some(watcher) = &mut self.watcher {
            watcher.drop_below(path);
        }
    }

    pub(super) fn go_blind(&mut self, reason: &str) {
        if !self.blind {
            self.blind = true;
            self.next_blind = Some(Instant::now() + BLIND_SCAN);
            self.send(EyeEvent::WatchLimit {
                reason: reason.into(),
            });
        }
    }

    /// Paths in trouble directly in a folder.
    pub(super) fn trouble_in<'a>(
        &'a self,
        dir: Option<&'a RelPath>,
    ) -> impl Iterator<Item = &'a RelPath> {
        let below = match dir {
            Some(dir) => self.trouble.range(dir.clone()..),
            None => self.trouble.range::<RelPath, _>(..),
        };
        below
            .take_while(move |p| dir.is_none_or(|dir| *p == dir || p.is_below(dir)))
            .filter(move |p| p.parent().as_ref() == dir)
    }

    /// Forgets the trouble of a path that is gone and of all below; returns whether it had any itself.
    pub(super) fn forget_trouble(&mut self, path: &RelPath) -> bool {
        let gone: Vec<RelPath> = self
            .trouble
            .range(path.clone()..)
            .take_while(|p| *p == path || p.is_below(path))
            .cloned()
            .collect();
        gone.iter().for_each(|p| {
            self.trouble.remove(p);
        });
        gone.first() == Some(path)
    }

    pub(super) fn bad_name(&mut self, dir: Option<&RelPath>, name: &[u8]) {
        let place = dir.map(|d| format!("{d}/")).unwrap_or_default();
        let what = format!("{place}{}", name.escape_ascii());
        if self.bad_names.len() < MAX_BAD_NAMES && self.bad_names.insert(what.clone()) {
            let reason = match left_core::path::join(dir, name) {
                Err(e) => e.to_string(),
                Ok(_) => "not a possible name".into(),
            };
            self.problem(what, format!("{reason}: not synchronised, left alone"));
        }
    }

    /// Tells a problem that would else be told again and again.
    pub(super) fn problem_once(&mut self, what: String, reason: String) {
        let key = format!("{what}: {reason}");
        if self.bad_names.len() < MAX_BAD_NAMES && self.bad_names.insert(key) {
            self.problem(what, reason);
        }
    }

    pub(super) fn problem(&mut self, what: String, reason: String) {
        self.send(EyeEvent::Problem { what, reason });
    }

    pub(super) fn index_failed(&mut self, error: IndexError) {
        if !self.index_broken {
            self.index_broken = true;
            self.send(EyeEvent::IndexFailed(error));
        }
    }

    pub(super) fn emit(&mut self, path: RelPath, seen: Seen) {
        self.batch_since.get_or_insert_with(Instant::now);
        self.told.note(&path);
        self.batch.push(Observation { path, seen });
        if self.batch.len() >= MAX_BATCH {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        self.batch_since = None;
        if !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            self.told.send();
            self.send(EyeEvent::Observed(batch));
        }
    }

    pub(super) fn flush_if_old(&mut self) {
        if self.batch_since.is_some_and(|t| t.elapsed() >= MAX_WAIT) {
            self.flush();
        }
    }

    /// Before sleeping nothing is kept back.
    pub(super) fn flush_unless_hints(&mut self) {
        if self.gone.is_none() {
            self.flush();
        }
    }

    /// Sends, waiting while the receiver is busy; gives up when told to stop.
    pub(super) fn send(&mut self, event: EyeEvent) {
        let mut event = event;
        while !self.is_stopped() {
            match self.out.send_timeout(event, Duration::from_millis(100)) {
                Ok(()) => return,
                Err(SendTimeoutError::Timeout(back)) => event = back,
                Err(SendTimeoutError::Disconnected(_)) => {
                    self.stop.store(true, Ordering::SeqCst);
                    return;
                }
            }
        }
    }

    pub(super) fn tell_activity(&mut self) {
        let scanning = !self.sweeps.is_empty();
        if (scanning || !self.pool.is_idle()) && self.active.elapsed() >= ACTIVITY {
            self.active = Instant::now();
            let _ = self.out.try_send(EyeEvent::Activity {
                looked: self.looked,
                read: self.pool.bytes_read(),
                scanning,
            });
        }
    }
}
