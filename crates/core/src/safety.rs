//! Is this many deletions meant? (DESIGN promise 7.)
//!
//! A script, a wrong `rm`, an unmounted disk or a restored snapshot can make most of a share vanish
//! in one go. Deletions that come in small number pass at once; from a share's noticeable part on
//! they are held until the burst is over, and then judged as a whole.

use std::collections::BTreeSet;

use crate::path::RelPath;

/// A burst of deletions is over when none came for this long.
pub const QUIET_MS: u64 = 1000;
/// Shares with at least this many files are "large".
const LARGE: u64 = 200;
/// Fewer deletions than this are never held.
const FEW: u64 = 3;

/// What to do with a file's deletion seen on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// Announce it.
    Now,
    /// Hold it back until the burst is over.
    Hold,
}

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

/// Watches deletions of files (folders follow them and are not counted; renames are no deletions).
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
    /// Counts the deletion of a file in a share that has `files` live files now (this one
    /// included).
    pub fn deleted(&mut self, now_ms: u64, files: u64) -> Pass {
        if self.count == 0 {
            self.before = files;
        }
        self.count += 1;
        self.last_ms = now_ms;
        if !self.held.is_empty() || self.is_noticeable() {
            Pass::Hold
        } else {
            Pass::Now
        }
    }

    fn is_noticeable(&self) -> bool {
        let part = if self.before >= LARGE { 10 } else { 2 };
        self.count >= FEW && self.count * part >= self.before
    }

    /// Keeps a path until the burst is over.
    pub fn hold(&mut self, path: RelPath) {
        self.held.insert(path);
    }

    /// Whether a path is kept, and so was counted already.
    pub fn holds(&self, path: &RelPath) -> bool {
        self.held.contains(path)
    }

    /// Something stands at the path again: it is not deleted.
    pub fn unhold(&mut self, path: &RelPath) {
        self.held.remove(path);
    }

    /// Whether a burst is going on.
    pub fn is_active(&self) -> bool {
        self.count > 0
    }

    /// Whether paths are held.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// When the burst is over, its verdict and what was held.
    pub fn settle(&mut self, now_ms: u64) -> Option<(Verdict, BTreeSet<RelPath>)> {
        // A clock set back ends the burst as well: the difference saturates only downwards.
        if self.count == 0 || (now_ms >= self.last_ms && now_ms - self.last_ms < QUIET_MS) {
            return None;
        }
        let (gone, of) = (self.count, self.before);
        let all = gone >= FEW && gone >= of;
        let most = of >= LARGE && gone * 4 > of * 3;
        let verdict = if all || most {
            Verdict::Alarm { gone, of }
        } else {
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

    fn burst(files: u64, gone: u64) -> (u64, Verdict) {
        let mut g = DeletionGuard::default();
        let mut passed = 0;
        for i in 0..gone {
            // What passed is no longer live; what is held still counts as live.
            match g.deleted(5, files - passed.min(i)) {
                Pass::Now => passed += 1,
                Pass::Hold => g.hold(RelPath::new(format!("f{i}")).unwrap()),
            }
        }
        assert_eq!(g.settle(5 + QUIET_MS - 1), None);
        let (verdict, held) = g.settle(5 + QUIET_MS).unwrap();
        assert_eq!(held.len() as u64, gone - passed);
        (passed, verdict)
    }

    #[test]
    fn verdicts() {
        assert_eq!(burst(1, 1), (1, Verdict::Meant));
        assert_eq!(burst(2, 2), (2, Verdict::Meant));
        assert_eq!(burst(3, 3).1, Verdict::Alarm { gone: 3, of: 3 });
        assert_eq!(burst(10, 9).1, Verdict::Meant);
        assert_eq!(burst(10, 10).1, Verdict::Alarm { gone: 10, of: 10 });
        assert_eq!(burst(10_000, 7000), (999, Verdict::Meant));
        assert_eq!(
            burst(10_000, 9000),
            (
                999,
                Verdict::Alarm {
                    gone: 9000,
                    of: 10_000
                }
            )
        );
    }
}
