//! What changed, and which versions are kept.

use left_core::entry::Kind;
use left_core::path::RelPath;

use super::types::{Happened, LogEntry, Thing, VersionInfo};
use super::{Lent, Past};
use crate::disk::Kept;
use crate::home::UserError;
use crate::store::{Change, Filter, What};

/// Entries of one page of the log.
pub const MAX_PAGE: usize = 1000;
/// How long before its entry in the log a version may have gone to history: one batch of work.
const BATCH_MS: u64 = 600_000;
/// Batches that are looked into for the version that an entry replaced.
const MAX_LOOKS: usize = 256;

impl Past {
    /// At most `limit` (and 1000) changes of a path and what is below it, the latest first; `before`
    /// an entry's id for the page after it.
    pub fn log(
        &self,
        at: Option<&RelPath>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<LogEntry>, UserError> {
        let fail = |e: &dyn std::fmt::Display| {
            UserError::new(
                "cannot read the log of changes",
                e,
                "try again: a damaged log is made anew",
            )
        };
        let Lent {
            scribe, history, ..
        } = &self.lent;
        scribe.flush();
        let filter = Filter {
            at,
            before,
            after_ms: None,
        };
        let changes = scribe.journal.latest(filter, limit.min(MAX_PAGE));
        let changes = changes.map_err(|e| fail(&e))?;
        let ids = history.ids().map_err(|e| fail(&e))?;
        Ok(changes.into_iter().map(|c| self.entry(c, &ids)).collect())
    }

    /// All versions of a path that are kept here, the latest first.
    pub fn versions(&self, path: &RelPath) -> Result<Vec<VersionInfo>, UserError> {
        let Lent { root, history, .. } = &self.lent;
        let all = history.versions(root, path).map_err(|e| {
            UserError::new(
                "cannot read the history",
                e,
                "see that .left/history in the share can be read by your user",
            )
        })?;
        let numbered = (1..).zip(all);
        Ok(numbered.map(|(n, kept)| info(n, kept)).collect())
    }

    fn entry(&self, change: Change, ids: &[String]) -> LogEntry {
        let kept = self.replaced(&change, ids);
        let note = change.note;
        LogEntry {
            id: change.id,
            when: change.at_ms,
            path: note.path.to_string(),
            what: match note.what {
                What::Created => Happened::Created,
                What::Changed => Happened::Changed,
                What::Deleted => Happened::Deleted,
            },
            thing: match note.kind {
                Kind::Dir => Thing::Folder,
                Kind::Symlink => Thing::Link,
                _ => Thing::File,
            },
            size: note.size,
            device: note.device,
            by: self
                .who
                .names
                .get(&note.device)
                .cloned()
                .unwrap_or_default(),
            edited: note.edited_ms,
            kept,
        }
    }

    /// The version that a change replaced, where it is kept.
    fn replaced(&self, change: &Change, ids: &[String]) -> Option<String> {
        if change.note.what == What::Created || change.note.kind == Kind::Dir {
            return None;
        }
        let Lent {
            root,
            history,
            scribe,
            ..
        } = &self.lent;
        let until = |id: &String| crate::disk::history::until_ms(id).unwrap_or(0);
        let end = ids.partition_point(|id| until(id) <= change.at_ms);
        let near = ids[..end].iter().rev().take(MAX_LOOKS);
        let path = &change.note.path;
        for id in near.take_while(|id| until(id) + BATCH_MS > change.at_ms) {
            if let Ok(Some(kept)) = history.find(root, id, path) {
                // Another change of the path in between replaced it.
                let next = scribe
                    .journal
                    .first_after(path, kept.until_ms.saturating_sub(1));
                let own = matches!(next, Ok(Some(next)) if next.id == change.id);
                return own.then_some(kept.id);
            }
        }
        None
    }
}

fn info(n: u32, kept: Kept) -> VersionInfo {
    VersionInfo {
        n,
        until: kept.until_ms,
        size: kept.size,
        modified: millis(kept.mtime),
        thing: if kept.link { Thing::Link } else { Thing::File },
        id: kept.id,
    }
}

/// Milliseconds since 1970.
pub(super) fn millis(t: left_core::entry::Mtime) -> i64 {
    t.secs
        .saturating_mul(1000)
        .saturating_add(i64::from(t.nanos / 1_000_000))
}
