//! After a power cut: what went back in time is no edit.

use std::collections::BTreeSet;

use left_core::content::ContentId;
use left_core::diff::Seen;
use left_core::entry::{FileStat, Mtime, Record};
use left_core::path::RelPath;

use super::EyeEvent;
use super::run::Eye;
use crate::disk::durable::Cut;

/// Paths that are remembered as gone by a power cut. What is beyond it is taken for deleted, of which
/// the judgement on deletions knows.
const MAX_VANISHED: usize = 100_000;

pub(super) struct Torn {
    cut: Cut,
    /// The first look at the whole tree is not over.
    first: bool,
    /// What the cut took away as a whole: no deletion, also when it is looked at once more.
    vanished: BTreeSet<RelPath>,
}

impl Torn {
    pub(super) fn new(cut: Cut) -> Self {
        Self {
            cut,
            first: true,
            vanished: BTreeSet::new(),
        }
    }
}

fn time(t: Mtime) -> (i64, u32) {
    (t.secs, t.nanos)
}

impl Eye {
    /// Whether a file that looks as recorded must be read all the same: its bytes may not have reached
    /// the disk.
    pub(super) fn is_unsure(&self, stat: &FileStat) -> bool {
        let unsure = |t: &Torn| t.first && time(stat.ctime) >= time(t.cut.since);
        self.torn.as_ref().is_some_and(unsure)
    }

    /// Whether renames are recognised without reading: after a cut, times and sizes prove less.
    pub(super) fn trusts_stats(&self) -> bool {
        self.torn.as_ref().is_none_or(|t| !t.first)
    }

    /// Whether what was read is older than what is recorded: no program can set a file's ctime back,
    /// only the system can, by forgetting.
    pub(super) fn is_torn(&mut self, path: &RelPath, stat: &FileStat, content: ContentId) -> bool {
        let Some(torn) = &self.torn else { return false };
        if time(stat.ctime) > time(torn.cut.found) {
            return false;
        }
        let record = match self.index.get(path) {
            Ok(record) => record,
            Err(error) => {
                self.index_failed(error);
                return false;
            }
        };
        record.is_some_and(|record| went_back(&record, stat, content))
    }

    pub(super) fn tell_torn(&mut self, path: RelPath, stat: FileStat) {
        self.recent.remove(&path);
        self.emit(path, Seen::Torn(Some(stat)));
    }

    /// Says that something recorded is gone: deleted, or taken back by the power cut.
    pub(super) fn tell_missing(&mut self, path: RelPath, record: Option<&Record>) {
        if let Some(torn) = &mut self.torn {
            if torn.vanished.contains(&path) {
                // Told again to who looks again: the first time it may have come in between.
                self.emit(path, Seen::Torn(None));
                return;
            }
            let changed = record.and_then(|r| r.stat).map(|s| time(s.ctime));
            let unsure = changed.is_some_and(|at| at >= time(torn.cut.since));
            if torn.first && unsure && torn.vanished.len() < MAX_VANISHED {
                torn.vanished.insert(path.clone());
                self.emit(path, Seen::Torn(None));
                return;
            }
        }
        self.tell_absent(path);
    }

    /// Something stands at a path (again).
    pub(super) fn is_there(&mut self, path: &RelPath) {
        if let Some(torn) = &mut self.torn {
            torn.vanished.remove(path);
        }
    }

    pub(super) fn scan_is_done(&mut self, event: &EyeEvent) {
        if let (EyeEvent::ScanDone, Some(torn)) = (event, &mut self.torn) {
            torn.first = false;
        }
    }
}

/// The disk shows something else than the record, and nothing that was done after it.
fn went_back(record: &Record, stat: &FileStat, content: ContentId) -> bool {
    let (Some(old), Some(recorded)) = (record.stat, record.entry.node.content()) else {
        return false;
    };
    let differs = recorded != content || old.mtime != stat.mtime || old.mode != stat.mode;
    differs && time(stat.ctime) <= time(old.ctime)
}
