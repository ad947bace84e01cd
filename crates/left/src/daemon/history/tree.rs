//! Whole folders as they were: which version of each path is the one of a time, and what can not be had.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use left_core::entry::Kind;
use left_core::path::RelPath;

use super::restore::Work;
use super::{Lent, Past, moment};
use crate::disk::Kept;
use crate::home::UserError;
use crate::store::{Change, Filter, What};

/// Changes read at a time.
const PAGE: usize = 1000;
/// How far apart a deletion and the same bytes under another name may be to be one rename.
const RENAME_MS: u64 = 60_000;

/// How a path was at a time.
pub(super) enum Verdict {
    /// As the kept version.
    Kept,
    /// As now.
    Unchanged,
    /// Nothing stood there.
    NotThere,
    /// Otherwise, and it is not kept here; why.
    Lost(String),
}

/// Which change of a path tells what is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counts {
    /// The first after the time: the path is to be as it was then.
    First,
    /// The last: the path is to be there again.
    Last,
}

impl Past {
    /// How `path` was at `ms`; `kept` is the oldest version that was replaced after that.
    pub(super) fn verdict(
        &self,
        path: &RelPath,
        kept: Option<&Kept>,
        ms: u64,
    ) -> Result<Verdict, String> {
        let first = self.lent.scribe.journal.first_after(path, ms);
        let first = first.map_err(|e| e.to_string())?;
        Ok(judge(kept.map(|k| k.until_ms), first.as_ref(), |c| {
            self.lost(c)
        }))
    }

    fn lost(&self, change: &Change) -> String {
        let (by, when) = (self.name_of(change.note.device), moment(change.at_ms));
        let what = match change.note.what {
            What::Deleted => "deleted",
            _ => "changed",
        };
        let others = self.others();
        let kept = match change.note.device == self.who.me && !others.is_empty() {
            true => format!("kept on {others}, not on this device"),
            false => "not kept on this device".to_owned(),
        };
        format!("{what} by {by} on {when}; what stood there is {kept}")
    }

    /// Everything at and below `at` as it was at `ms`. What is new since then stays.
    pub(super) fn as_of(
        &self,
        at: Option<&RelPath>,
        ms: u64,
        work: &mut Work<'_>,
    ) -> Result<(), UserError> {
        let Lent { root, history, .. } = &self.lent;
        let fail = |e: std::io::Error| {
            UserError::new(
                "cannot read the history",
                e,
                "see that .left/history in the share can be read by your user",
            )
        };
        let ids = after(history.ids().map_err(fail)?, ms);
        let mut seen = HashSet::new();
        for (n, id) in ids.iter().enumerate() {
            let later = &ids[n + 1..];
            let each = |path: RelPath, kept: Kept| {
                if seen.insert(key(&path)) {
                    match self.verdict(&path, Some(&kept), ms) {
                        Ok(Verdict::Kept) => {
                            work.bring_back(&path, &kept, || self.is_last(&path, later));
                        }
                        Ok(Verdict::Unchanged | Verdict::NotThere) => {}
                        Ok(Verdict::Lost(why)) | Err(why) => work.miss(&path, why),
                    }
                }
                ControlFlow::Continue(())
            };
            history.each(root, id, at, each).map_err(fail)?;
        }
        self.not_kept(at, ms, &seen, work, Counts::First)
    }

    /// Everything at and below `at` that was deleted later than `ms` and is still gone.
    pub(super) fn undelete(
        &self,
        at: Option<&RelPath>,
        ms: u64,
        work: &mut Work<'_>,
    ) -> Result<(), UserError> {
        let Lent {
            root,
            history,
            scribe,
            ..
        } = &self.lent;
        let fail = |e: std::io::Error| {
            UserError::new(
                "cannot read the history",
                e,
                "see that .left/history in the share can be read by your user",
            )
        };
        let ids = after(history.ids().map_err(fail)?, ms);
        let mut seen = HashSet::new();
        for id in ids.iter().rev() {
            let each = |path: RelPath, kept: Kept| {
                if !seen.insert(key(&path)) || !matches!(root.look(&path), Ok(None)) {
                    return ControlFlow::Continue(());
                }
                // Replaced, then renamed away or deleted by hand: not the version that was deleted.
                let next = scribe
                    .journal
                    .first_after(&path, kept.until_ms.saturating_sub(1));
                match next {
                    Ok(Some(next)) if next.note.what != What::Deleted => {
                        seen.remove(&key(&path));
                    }
                    _ => work.bring_back(&path, &kept, || true),
                }
                ControlFlow::Continue(())
            };
            history.each(root, id, at, each).map_err(fail)?;
        }
        self.not_kept(at, ms, &seen, work, Counts::Last)
    }

    /// Paths that changed since `ms` and of which no version is kept: folders are made again, the rest is
    /// told of, but for what only has another name now.
    fn not_kept(
        &self,
        at: Option<&RelPath>,
        ms: u64,
        seen: &HashSet<u128>,
        work: &mut Work<'_>,
        counts: Counts,
    ) -> Result<(), UserError> {
        let mut renamed: HashMap<(i64, u64), Vec<(RelPath, u64)>> = HashMap::new();
        self.changes(ms, |change| {
            let note = &change.note;
            if let (What::Created, Some(tag)) = (note.what, note.tag) {
                let names = renamed.entry((tag, note.size)).or_default();
                names.push((note.path.clone(), change.at_ms));
            }
            Ok(())
        })?;
        let inside = |p: &RelPath| at.is_none_or(|at| p == at || p.is_below(at));
        let root = &self.lent.root;
        let counts_last = counts == Counts::Last;
        let mut last = HashSet::new();
        self.changes(ms, |change| {
            let note = &change.note;
            if !inside(&note.path) || seen.contains(&key(&note.path)) {
                return Ok(());
            }
            let counts = match counts {
                Counts::First => {
                    let first = self.lent.scribe.journal.first_after(&note.path, ms)?;
                    note.what != What::Created && first.is_some_and(|c| c.id == change.id)
                }
                // They come the latest first.
                Counts::Last => last.insert(key(&note.path)) && note.what == What::Deleted,
            };
            if !counts {
                return Ok(());
            }
            let is_gone = matches!(root.look(&note.path), Ok(None));
            match note.kind {
                Kind::Dir if is_gone => work.make_dir(&note.path),
                Kind::Dir => {}
                // A file that was made again is not gone.
                _ if counts_last && !is_gone => {}
                _ => {
                    let names = note.tag.and_then(|tag| renamed.get(&(tag, note.size)));
                    let name = names.into_iter().flatten().find(|(name, at_ms)| {
                        *name != note.path
                            && at_ms.abs_diff(change.at_ms) <= RENAME_MS
                            && matches!(root.look(name), Ok(Some(_)))
                    });
                    match name.filter(|_| note.what == What::Deleted).map(|n| &n.0) {
                        Some(name) => work.renamed(&note.path, name),
                        None => work.miss(&note.path, self.lost(&change)),
                    }
                }
            }
            Ok(())
        })
    }

    /// Every change later than `ms`, the latest first.
    fn changes(
        &self,
        ms: u64,
        mut each: impl FnMut(Change) -> Result<(), crate::store::StoreError>,
    ) -> Result<(), UserError> {
        let fail = |e| UserError::new("cannot read the log of changes", e, "try again");
        let mut before = None;
        loop {
            let filter = Filter {
                at: None,
                before,
                after_ms: Some(ms),
            };
            let page = self
                .lent
                .scribe
                .journal
                .latest(filter, PAGE)
                .map_err(fail)?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            before = Some(last.id);
            for change in page {
                each(change).map_err(fail)?;
            }
        }
    }

    /// Whether none of these later batches has another version of a path.
    fn is_last(&self, path: &RelPath, later: &[String]) -> bool {
        const MAX_LOOKS: usize = 64;
        let Lent { root, history, .. } = &self.lent;
        later.len() <= MAX_LOOKS
            && later
                .iter()
                .all(|id| matches!(history.find(root, id, path), Ok(None)))
    }
}

/// The ids of what was replaced later than `ms`.
fn after(mut ids: Vec<String>, ms: u64) -> Vec<String> {
    let until = |id: &String| crate::disk::history::until_ms(id).unwrap_or(0);
    let start = ids.partition_point(|id| until(id) <= ms);
    ids.drain(..start);
    ids
}

/// `until`: of the oldest version that was replaced later than the time asked for; `first`: the first
/// change later than that time.
fn judge(
    until: Option<u64>,
    first: Option<&Change>,
    lost: impl FnOnce(&Change) -> String,
) -> Verdict {
    match (until, first) {
        (None, None) => Verdict::Unchanged,
        // The log is not complete: what is kept tells.
        (Some(_), None) => Verdict::Kept,
        // The change is logged once it is done: it is what put the version into history.
        (Some(until), Some(first)) if until <= first.at_ms => Verdict::Kept,
        (_, Some(first)) if first.note.what == What::Created => Verdict::NotThere,
        (_, Some(first)) => Verdict::Lost(lost(first)),
    }
}

/// Tells paths apart in 16 bytes.
fn key(path: &RelPath) -> u128 {
    let hash = blake3::hash(path.as_bytes());
    let mut out = [0; 16];
    out.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_le_bytes(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Note;
    use left_core::version::DeviceId;

    #[test]
    fn a_version_is_of_a_time_only_if_nothing_changed_between() {
        let change = |what, at_ms| Change {
            id: 1,
            at_ms,
            note: Note {
                path: RelPath::new("a").unwrap(),
                what,
                kind: Kind::File,
                size: 1,
                tag: None,
                device: DeviceId([1; 32]),
                edited_ms: 1,
            },
        };
        let judged =
            |until, first: Option<Change>| match judge(until, first.as_ref(), |_| String::new()) {
                Verdict::Kept => "kept",
                Verdict::Unchanged => "unchanged",
                Verdict::NotThere => "not there",
                Verdict::Lost(_) => "lost",
            };
        use What::{Changed, Created, Deleted};
        assert_eq!(judged(None, None), "unchanged");
        assert_eq!(judged(Some(20), None), "kept");
        // Put into history at 20, noted at 21.
        assert_eq!(judged(Some(20), Some(change(Changed, 21))), "kept");
        assert_eq!(judged(Some(20), Some(change(Deleted, 20))), "kept");
        // That it went was not noted, only that it was made again.
        assert_eq!(judged(Some(20), Some(change(Created, 30))), "kept");
        // Edited here at 15, so what went at 20 is not of before 15.
        assert_eq!(judged(Some(20), Some(change(Changed, 15))), "lost");
        assert_eq!(judged(Some(20), Some(change(Created, 15))), "not there");
        assert_eq!(judged(None, Some(change(Created, 15))), "not there");
        assert_eq!(judged(None, Some(change(Deleted, 15))), "lost");
    }
}
