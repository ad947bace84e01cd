//! What the eye hears: the system's events, and what came of the holds.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use left_core::ignore::IGNORE_FILE;
use left_core::path::RelPath;

use super::run::Eye;
use super::{EyeEvent, lock};
use crate::disk::watch::Signal;

/// After events, inotify is left alone so long: a file written without pause costs no more than that.
const BREATH: Duration = Duration::from_millis(2);

impl Eye {
    pub(super) fn take_events(&mut self) {
        if self.quiet_until.is_some_and(|t| t > Instant::now()) {
            return;
        }
        self.quiet_until = None;
        if self.read_events() {
            self.quiet_until = Some(Instant::now() + BREATH);
        }
    }

    /// Turns all that inotify has into hints.
    pub(super) fn read_events(&mut self) -> bool {
        let Some(mut watcher) = self.watcher.take() else {
            return false;
        };
        let mut check_root = false;
        let mut overflow = false;
        let mut bad = Vec::new();
        let mut folders = Vec::new();
        let read = watcher.read(&mut |signal| match signal {
            Signal::Look { path, when, deep } => {
                if deep && self.is_held(&path) {
                    folders.push(path.clone());
                }
                self.hints.add(path, when, deep);
            }
            Signal::BadName { dir, name } => bad.push((dir, name)),
            Signal::CheckRoot => check_root = true,
            Signal::Overflow => overflow = true,
        });
        self.watcher = Some(watcher);
        for (dir, name) in bad {
            self.bad_name(dir.as_ref(), &name);
        }
        for dir in folders {
            // Walked when its hold ends. What is made in it until then should be heard of.
            if let Ok(fd) = self.root.open_dir(Some(&dir)) {
                self.watch(Some(&dir), fd.as_fd());
            }
        }
        if check_root && let Err(reason) = self.root.check() {
            self.root_gone(reason);
        }
        if overflow || self.hints.are_too_many() {
            tracing::info!(
                "more changes than can be followed one by one: looking at the whole share"
            );
            self.hints.clear_looks();
            self.scan_all(EyeEvent::ScanDone);
        }
        match read {
            Ok(any) => any,
            Err(e) => {
                self.watcher = None;
                self.go_blind(&format!("watching failed: {e}"));
                false
            }
        }
    }

    /// Takes up what is held no more.
    pub(super) fn release(&mut self) {
        let holds = Arc::clone(&self.holds);
        loop {
            self.hear_of_made();
            let held = lock(&holds);
            if held.made.is_empty() {
                self.hints.release(|path| held.paths.contains_key(path));
                return;
            }
        }
    }

    /// What was made under holds that ended needs no look for having been made.
    pub(super) fn hear_of_made(&mut self) {
        let made = std::mem::take(&mut lock(&self.holds).made);
        if made.is_empty() {
            return;
        }
        // What the system said of it lies there by now.
        self.read_events();
        for path in &made {
            let is_news = self.trouble.contains(path)
                || self.told.is_open(path)
                || path.name() == IGNORE_FILE
                || self.is_held(path);
            if !is_news {
                self.is_there(path);
                self.hints.made(path);
            }
        }
    }

    pub(super) fn is_held(&self, path: &RelPath) -> bool {
        lock(&self.holds).paths.contains_key(path)
    }
}
