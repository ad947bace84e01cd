//! Is this many deletions meant? (DESIGN promise 7.)
//!
//! A script, a wrong `rm`, an unmounted disk or a restored snapshot can make most of a share vanish
//! in one go. So every deletion is held until its burst is over, which then is judged as a whole: a
//! moment for a few, longer where many come.

use std::collections::BTreeSet;

use crate::path::RelPath;
use crate::probe::{cover, mutant};

/// A burst of many deletions is over when none came for this long.
pub const QUIET_MS: u64 = 1000;
/// A burst of few is over when none came for this long: more than what the disk's watcher takes to
/// tell of all that one command did.
pub const SHORT_QUIET_MS: u64 = 150;
/// Shares with at least this many files are "large".
const LARGE: u64 = 200;
/// Fewer deletions than this are never suspicious.
const FEW: u64 = 3;

/// The verdict over a burst that is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Announce what was held.
    Meant,
    /// Raise the alarm.
    Alarm {
        /// Files that vanished in the burst.
        gone: u64,
        /// Files the share had before it.
        of: u64,
    },
}

/// Whether a share that had `files` files and shows nothing at all was not emptied on purpose.
pub fn is_emptied(files: u64) -> bool {
    files >= FEW && !mutant("no alarm at mass deletion")
}

/// Watches deletions of files and links (folders follow them and are not counted; renames are no
/// deletions).
#[derive(Debug, Default)]
pub struct DeletionGuard {
    /// Files in the share when the burst began.
    before: u64,
    /// Deletions in this burst.
    count: u64,
    last_ms: u64,
    held: BTreeSet<RelPath>,
}

impl DeletionGuard {
    /// Counts and keeps the deletion of a file in a share that has `files` live files now (this one
    /// included).
    pub fn deleted(&mut self, now_ms: u64, files: u64, path: RelPath) {
        self.lost(now_ms, files);
        self.held.insert(path);
    }

    /// Counts a file that is gone though nobody deleted it, and is to come back: it says something
    /// about what vanished with it.
    pub fn lost(&mut self, now_ms: u64, files: u64) {
        if self.count == 0 {
            self.before = files;
        }
        self.count += 1;
        self.last_ms = now_ms;
    }

    /// Keeps the deletion of a folder, uncounted: what stood in it may not have been seen yet.
    pub fn deleted_dir(&mut self, now_ms: u64, path: RelPath) {
        self.last_ms = now_ms;
        self.held.insert(path);
    }

    /// Whether this deletion was counted and is kept already.
    pub fn holds(&self, path: &RelPath) -> bool {
        self.held.contains(path)
    }

    /// Something stands at the path again: it is not deleted.
    pub fn unhold(&mut self, path: &RelPath) {
        self.held.remove(path);
    }

    /// When the burst that goes on is over if nothing more comes.
    pub fn due(&self) -> Option<u64> {
        let quiet = match self.count {
            0 if self.held.is_empty() => return None,
            0..FEW => SHORT_QUIET_MS,
            _ => QUIET_MS,
        };
        Some(self.last_ms + quiet)
    }

    /// Whether a burst goes on in which files vanished.
    pub fn is_counting(&self) -> bool {
        self.count > 0
    }

    /// Whether paths are held.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// When the burst is over, its verdict and what was held. `files`: live ones now, what is held
    /// included; fewer than before where some were moved, and then vanished too.
    pub fn settle(&mut self, now_ms: u64, files: u64) -> Option<(Verdict, BTreeSet<RelPath>)> {
        // A clock set back ends the burst as well.
        if now_ms < self.due()? && now_ms >= self.last_ms {
            return None;
        }
        let (gone, of) = (self.count, self.before);
        let all = gone >= FEW && gone >= of.min(files);
        let most = of >= LARGE && gone * 4 > of * 3;
        let verdict = if (all || most) && !mutant("no alarm at mass deletion") {
            cover("safety: alarm");
            Verdict::Alarm { gone, of }
        } else {
            cover("safety: meant");
            Verdict::Meant
        };
        let held = std::mem::take(self).held;
        Some((verdict, held))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn burst(files: u64, gone: u64) -> Verdict {
        let mut g = DeletionGuard::default();
        for i in 0..gone {
            g.deleted(5, files, RelPath::new(format!("f{i}")).unwrap());
        }
        let due = g.due().unwrap();
        assert_eq!(g.settle(due - 1, files), None);
        let (verdict, held) = g.settle(due, files).unwrap();
        assert_eq!(held.len() as u64, gone);
        assert!(g.due().is_none() && !g.is_holding());
        verdict
    }

    #[test]
    fn verdicts() {
        let alarm = |gone, of| Verdict::Alarm { gone, of };
        assert_eq!(burst(1, 1), Verdict::Meant);
        assert_eq!(burst(2, 2), Verdict::Meant);
        assert_eq!(burst(3, 3), alarm(3, 3));
        assert_eq!(burst(10, 9), Verdict::Meant);
        assert_eq!(burst(10, 10), alarm(10, 10));
        assert_eq!(burst(10_000, 7000), Verdict::Meant);
        assert_eq!(burst(10_000, 9000), alarm(9000, 10_000));
    }

    #[test]
    fn what_is_lost_otherwise_counts() {
        let mut g = DeletionGuard::default();
        g.lost(5, 3);
        for i in 0..2 {
            g.deleted(5, 3, RelPath::new(format!("f{i}")).unwrap());
        }
        let (verdict, held) = g.settle(5 + QUIET_MS, 2).unwrap();
        assert_eq!(verdict, Verdict::Alarm { gone: 3, of: 3 });
        assert_eq!(held.len(), 2);
    }

    /// Of four files one was moved before all vanished: three are left to be missed.
    #[test]
    fn what_was_moved_before_is_not_left() {
        let mut g = DeletionGuard::default();
        for i in 0..3 {
            g.deleted(5, 4, RelPath::new(format!("f{i}")).unwrap());
        }
        let (verdict, _) = g.settle(5 + QUIET_MS, 3).unwrap();
        assert_eq!(verdict, Verdict::Alarm { gone: 3, of: 4 });
    }

    #[test]
    fn folders_alone_wait_too() {
        let mut g = DeletionGuard::default();
        let path = |n: &str| RelPath::new(n).unwrap();
        g.deleted_dir(1000, path("d"));
        assert_eq!(g.due(), Some(1000 + SHORT_QUIET_MS));
        for i in 0..3 {
            g.deleted(1010, 3, path(&format!("d/{i}")));
        }
        let (verdict, _) = g.settle(1010 + QUIET_MS, 3).unwrap();
        assert_eq!(verdict, Verdict::Alarm { gone: 3, of: 3 });
    }

    #[test]
    fn few_wait_only_a_moment() {
        let mut g = DeletionGuard::default();
        let path = |n: &str| RelPath::new(n).unwrap();
        g.deleted(1000, 50, path("a"));
        g.deleted(1010, 50, path("b"));
        assert_eq!(g.due(), Some(1010 + SHORT_QUIET_MS));
        g.deleted(1020, 50, path("c"));
        assert_eq!(g.due(), Some(1020 + QUIET_MS));
    }
}
