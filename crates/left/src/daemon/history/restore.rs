//! Bringing versions back.

use std::collections::{HashMap, HashSet};

use left_core::path::RelPath;

use super::types::{Bring, RestoreReport};
use super::{At, Lent, Past};
use crate::disk::{Found, Kept, Put, Restorer};
use crate::home::{UserError, clean};

/// Paths of which the running share is told at once.
const TOLD: usize = 512;

impl Past {
    /// Brings back what is asked for at `at` (`None`: the whole share); with `dry_run` only says what
    /// that would be.
    pub fn restore(
        &self,
        at: Option<&RelPath>,
        bring: &Bring,
        dry_run: bool,
    ) -> Result<RestoreReport, UserError> {
        self.check()?;
        self.lent.scribe.flush();
        let mut work = Work::new(self, dry_run, matches!(bring, Bring::At(_)));
        match (at, bring) {
            (at, Bring::DeletedSince(ms)) => self.undelete(at, *ms, &mut work)?,
            (None, Bring::At(At::Time(ms))) => self.as_of(None, *ms, &mut work)?,
            (None, _) => return Err(no_time(&clean(&self.dir))),
            (Some(path), bring) if self.is_tree(path)? => match bring {
                Bring::At(At::Time(ms)) => self.as_of(Some(path), *ms, &mut work)?,
                _ if self.look(path)?.is_none() => return Err(self.unknown(path)),
                _ => return Err(no_time(&path.to_string())),
            },
            (Some(path), bring) => {
                let at = match bring {
                    Bring::At(at) => at.clone(),
                    _ => At::Nth(1),
                };
                let kept = self.version(path, &at)?;
                let latest = self.version(path, &At::Nth(1))?;
                work.bring_back(path, &kept, || latest.id == kept.id);
            }
        }
        let report = work.finish();
        let nothing = report.restored + report.same + report.missing_count == 0;
        match at {
            Some(path) if nothing && self.look(path)?.is_none() && !self.is_noted(path) => {
                Err(self.unknown(path))
            }
            _ => Ok(report),
        }
    }

    /// Whether the log tells of a path or of anything below it.
    fn is_noted(&self, path: &RelPath) -> bool {
        self.lent.scribe.journal.knows(path).unwrap_or(false)
    }

    /// Whether a path is, or was, a folder with something in it.
    fn is_tree(&self, path: &RelPath) -> Result<bool, UserError> {
        Ok(match self.look(path)? {
            Some(Found::Dir(_)) => true,
            Some(_) => false,
            None => {
                let Lent { root, history, .. } = &self.lent;
                let versions = history.versions(root, path);
                let versions = versions.map_err(|e| {
                    UserError::new(
                        "cannot read the history",
                        e,
                        "see that .left/history in the share can be read by your user",
                    )
                })?;
                versions.is_empty()
            }
        })
    }
}

fn no_time(path: &str) -> UserError {
    UserError::usage(
        format!("cannot bring back {path}"),
        "it is a folder, and no time is given",
        "say as of when (`left restore DIR@2h`), or `--deleted-since 10m`",
    )
}

impl Past {
    fn unknown(&self, path: &RelPath) -> UserError {
        let log = "see `left log`; of a folder that is gone say as of when (`left restore DIR@2h`)";
        UserError::new(
            format!("cannot bring back {path}"),
            "it is not there, and no version of it is kept on this device",
            self.elsewhere(path).unwrap_or_else(|| log.to_owned()),
        )
    }
}

/// One run: what is to be done is done, or in a dry run only counted.
pub(super) struct Work<'a> {
    past: &'a Past,
    restorer: Restorer<'a>,
    report: RestoreReport,
    /// Sizes of what is under way.
    sizes: HashMap<RelPath, u64>,
    told: Vec<RelPath>,
    /// In a dry run: folders that need no word of their own.
    implied: HashSet<RelPath>,
    /// Also what is not gone but other than it was.
    changed: bool,
}

impl<'a> Work<'a> {
    fn new(past: &'a Past, dry_run: bool, changed: bool) -> Self {
        let Lent {
            root,
            stage,
            history,
            ..
        } = &past.lent;
        let report = RestoreReport {
            dry_run,
            only_here: past.who.read_only,
            ..RestoreReport::default()
        };
        Work {
            past,
            restorer: Restorer::new(root, stage, history),
            report,
            sizes: HashMap::new(),
            told: Vec::new(),
            implied: HashSet::new(),
            changed,
        }
    }

    /// `is_last` is asked only where it matters: the latest version may leave the history.
    pub(super) fn bring_back(&mut self, path: &RelPath, kept: &Kept, is_last: impl Fn() -> bool) {
        if self.report.dry_run {
            match self.past.lent.root.look(path) {
                Ok(Some(Found::Dir(_))) => {
                    self.miss(path, "a folder stands there now".into());
                }
                _ => {
                    self.imply(path);
                    self.report.back(path.to_string(), kept.size);
                }
            }
            return;
        }
        let may_move = matches!(self.past.lent.root.look(path), Ok(None)) && is_last();
        self.sizes.insert(path.clone(), kept.size);
        self.restorer.bring_back(kept, path, may_move);
        self.collect();
    }

    pub(super) fn make_dir(&mut self, path: &RelPath) {
        match self.report.dry_run {
            true if self.implied.contains(path) => {}
            true => {
                self.imply(path);
                self.report.back(path.to_string(), 0);
            }
            false => self.restorer.make_dir(path),
        }
        self.collect();
    }

    /// The folders above are made with it.
    fn imply(&mut self, path: &RelPath) {
        let mut at = path.parent();
        while let Some(dir) = at {
            at = dir.parent();
            if !self.implied.insert(dir) {
                return;
            }
        }
    }

    pub(super) fn miss(&mut self, path: &RelPath, why: String) {
        self.report.miss(path.to_string(), why);
    }

    /// A path that has another name now: nothing to bring back, only to be said where the state of a
    /// time is asked for.
    pub(super) fn renamed(&mut self, path: &RelPath, name: &RelPath) {
        if self.changed {
            self.miss(path, format!("it is called {name} now"));
        }
    }

    fn collect(&mut self) {
        let done = self.restorer.take_done();
        self.take(done);
        if self.told.len() >= TOLD {
            self.past.tell(std::mem::take(&mut self.told));
        }
    }

    fn take(&mut self, done: Vec<crate::disk::restore::Outcome>) {
        for (path, put) in done {
            let bytes = self.sizes.remove(&path).unwrap_or(0);
            match put {
                Ok(Put::Done) => {
                    self.report.back(path.to_string(), bytes);
                    self.told.push(path);
                }
                Ok(Put::Same) => self.report.same += 1,
                Err(why) => self.report.miss(path.to_string(), why),
            }
        }
    }

    fn finish(mut self) -> RestoreReport {
        let done = self.restorer.finish();
        self.take(done);
        self.past.tell(std::mem::take(&mut self.told));
        self.report
    }
}
