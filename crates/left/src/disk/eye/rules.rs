//! `.leftignore` files: which count, and what a change of one means.

use std::io::{self, Read};

use left_core::ignore::{IGNORE_FILE, MAX_FOLDER_TEXT, include};
use left_core::path::{self, RelPath};

use super::EyeEvent;
use super::run::Eye;
use super::sweep::Sweep;
use crate::disk::sys;

/// Longest `.leftignore` of a root, and longest included file.
const MAX_IGNORE: u64 = 1024 * 1024;

impl Eye {
    pub(super) fn is_ignored(&self, path: &RelPath, is_dir: bool) -> bool {
        self.rules.is_ignored(path, is_dir)
    }

    /// Something changed at `path`: if rules depend on it they are read again, and what they are for
    /// is looked at when they are others.
    pub(super) fn reload_rules_at(&mut self, path: &RelPath) {
        if !self.rules.depend_on(path) {
            return;
        }
        for dir in self.rules.folders_of(path) {
            if !self.read_rules_of(dir.as_ref()) {
                continue;
            }
            match dir {
                None => self.scan_all(EyeEvent::ScanDone),
                Some(dir) => self.start_sweep(Sweep::below(vec![dir])),
            }
        }
    }

    /// Before a path is judged that no walk came by: folders above it that were not entered yet may
    /// have rules. (A folder is watched when its rules are read, after those above it.)
    pub(super) fn learn_rules_above(&mut self, path: &RelPath) {
        let entered = |eye: &Eye, dir: &RelPath| {
            let watcher = eye.watcher.as_ref();
            watcher.is_some_and(|w| w.is_watched(dir))
        };
        let mut unknown = Vec::new();
        let mut dir = path.parent();
        while let Some(at) = dir.take_if(|at| !entered(self, at)) {
            dir = at.parent();
            unknown.push(at);
        }
        for dir in unknown.into_iter().rev() {
            self.read_rules_of(Some(&dir));
        }
    }

    /// Reads the `.leftignore` of a folder (`None`: the root) again with what it includes; returns
    /// whether the rules are others now. Rules that can not be read stay as they were.
    pub(super) fn read_rules_of(&mut self, dir: Option<&RelPath>) -> bool {
        let Ok(file) = path::join(dir, IGNORE_FILE) else {
            return false;
        };
        let all = self.read_rules(&file, dir).and_then(|text| {
            let text = text.unwrap_or_default();
            include(&text, &mut |path: &RelPath| self.read_rules(path, None))
        });
        let all = match all {
            Ok(all) => all,
            Err(e) => {
                if e.kind() == io::ErrorKind::FileTooLarge {
                    self.problem_once(file.to_string(), e.to_string());
                }
                return false;
            }
        };
        let outcome = self.rules.set(dir, all);
        for complaint in outcome.complaints {
            self.problem(file.to_string(), complaint);
        }
        if let Some(why) = outcome.refused {
            self.problem_once(file.to_string(), why);
        }
        if outcome.changed
            && let Some(watcher) = &mut self.watcher
        {
            let rules = &self.rules;
            watcher.drop_where(dir, |p| rules.is_ignored(p, true));
        }
        outcome.changed
    }

    /// A file with rules; `None` when there is none. `dir`: the folder below the root whose
    /// `.leftignore` it is.
    fn read_rules(&self, path: &RelPath, dir: Option<&RelPath>) -> io::Result<Option<Vec<u8>>> {
        let (file, stat) = match self.root.open_file(path) {
            Ok(found) => found,
            Err(e) if sys::io_absent(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut limit = MAX_IGNORE;
        if let Some(dir) = dir {
            limit = MAX_FOLDER_TEXT as u64;
            if let Some(why) = self.rules.refuses(dir, stat.size) {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
            }
        }
        let mut text = Vec::new();
        file.take(limit).read_to_end(&mut text)?;
        Ok(Some(text))
    }
}
