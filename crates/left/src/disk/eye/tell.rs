//! What the eye says, and what it keeps in mind for it: rules, watches, troubles, the batch at hand.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::SendTimeoutError;
use left_core::diff::{Observation, Seen};
use left_core::ignore::{IGNORE_FILE, Ignore, include};
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
/// Longest `.leftignore`.
const MAX_IGNORE: u64 = 1024 * 1024;

impl Eye {
    pub(super) fn is_ignored(&self, path: &RelPath, is_dir: bool) -> bool {
        !self.ignore_text.is_empty() && self.ignore.is_ignored(path, is_dir)
    }

    pub(super) fn ignores_file_at(&self, path: &RelPath) -> bool {
        path.as_bytes() == IGNORE_FILE || self.ignore_files.contains(path)
    }

    /// A file with rules; `None` when there is none.
    fn read_rules(&self, path: &RelPath) -> io::Result<Option<Vec<u8>>> {
        match self.root.open_file(path) {
            Ok((file, _)) => {
                let mut text = Vec::new();
                file.take(MAX_IGNORE).read_to_end(&mut text)?;
                Ok(Some(text))
            }
            Err(e) if crate::disk::sys::io_absent(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Reads `.leftignore` and what it includes again; new rules mean a look at everything.
    pub(super) fn reload_ignore(&mut self) {
        let Ok(path) = RelPath::new(IGNORE_FILE) else {
            return;
        };
        let all = self.read_rules(&path).and_then(|text| {
            let text = text.unwrap_or_default();
            include(&text, &mut |path: &RelPath| self.read_rules(path))
        });
        // Rules that can not be read now stay as they were.
        let Ok(all) = all else { return };
        self.ignore_files = all.files;
        let text = match all.text.iter().all(u8::is_ascii_whitespace) {
            true => Vec::new(),
            false => all.text,
        };
        for error in all.errors {
            self.problem(".leftignore".into(), error);
        }
        if text == self.ignore_text {
            return;
        }
        let (ignore, errors) = Ignore::parse(&text);
        self.ignore = ignore;
        self.ignore_text = text;
        for line in errors {
            self.problem(".leftignore".into(), format!("not a pattern: {line}"));
        }
        if let Some(watcher) = &mut self.watcher {
            let ignore = &self.ignore;
            watcher.drop_where(|p| ignore.is_ignored(p, true));
        }
        self.scan_all(EyeEvent::ScanDone);
    }

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
        self.batch.push(Observation { path, seen });
        if self.batch.len() >= MAX_BATCH {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        self.batch_since = None;
        if !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
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
        if (scanning || !self.pool.is_idle()) && self.told.elapsed() >= ACTIVITY {
            self.told = Instant::now();
            let _ = self.out.try_send(EyeEvent::Activity {
                looked: self.looked,
                read: self.pool.bytes_read(),
                scanning,
            });
        }
    }
}
