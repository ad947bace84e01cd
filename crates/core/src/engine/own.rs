//! What a read-only member edited itself: counted for people, and taken back on request. Such edits
//! never reach others (see [`reconcile_read_only`](crate::reconcile::reconcile_read_only)).

use std::collections::BTreeSet;

use super::{Effect, Engine};
use crate::entry::{Entry, Node, Stamp};
use crate::index::{Cursor, Index, IndexError, Txn};
use crate::message::Role;
use crate::path::RelPath;
use crate::reconcile::forgotten;
use crate::version::DeviceId;

/// Rows looked at in one go.
const LOOK: usize = 20_000;
/// Rows read at a time.
const PAGE: usize = 1000;
/// Own edits remembered.
const MAX_OWN: usize = 10_000;

/// The paths that this device edited, as far as the index was looked through. The index tells of
/// each change by a new number, so nothing else has to keep this up to date.
#[derive(Debug, Default)]
pub(super) struct OwnEdits {
    looked: u64,
    paths: BTreeSet<RelPath>,
    more: bool,
}

/// See [`Engine::own_edits`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edits {
    /// The first of them in order.
    pub paths: Vec<RelPath>,
    /// How many there are, at least.
    pub count: u64,
    /// There are more than are counted.
    pub more: bool,
    /// The index is not looked through to its end yet; ask again.
    pub partial: bool,
}

impl Engine {
    /// What this read-only member edited itself, at most `most` paths of it; nothing for a
    /// read-write member.
    pub fn own_edits(&mut self, index: &dyn Index, most: usize) -> Result<Edits, IndexError> {
        if self.config.role == Role::ReadWrite {
            return Ok(Edits::default());
        }
        let us = self.config.device;
        let own = &mut self.own;
        let mut left = LOOK;
        while left > 0 && own.looked < index.head() {
            let rows = index.changes_since(own.looked, PAGE.min(left))?;
            left = left.saturating_sub(rows.len().max(1));
            // Numbers without rows were replaced by later ones.
            own.looked = rows.last().map_or(index.head(), |(seq, ..)| *seq);
            for (_, path, record) in rows {
                if !is_own(&record.entry, us) {
                    own.paths.remove(&path);
                } else if own.paths.len() < MAX_OWN {
                    own.paths.insert(path);
                } else {
                    own.more = true;
                }
            }
        }
        Ok(Edits {
            paths: own.paths.iter().take(most).cloned().collect(),
            count: own.paths.len() as u64,
            more: own.more,
            partial: own.looked < index.head(),
        })
    }

    /// Whether what a read-write peer has is known completely, so that own edits can be taken back.
    pub fn can_revert(&self) -> bool {
        let writes = |s: &crate::session::Session| s.role == Role::ReadWrite;
        let mut sessions = self.sessions.values();
        sessions.any(|s| writes(s) && s.started && !s.more)
    }

    /// Brings the share's state back where this read-only member edited it, at and below `at`
    /// (everywhere for `None`). What stands there goes to history.
    ///
    /// Our index does not remember what the share had where we edited: it forgets its own version
    /// there and has the peers tell all of theirs once more. What is here only is deleted.
    pub(super) fn revert(
        &mut self,
        at: Option<&RelPath>,
        index: &mut dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        while self.own_edits(index, 0)?.partial {}
        let inside = |p: &&RelPath| at.is_none_or(|at| *p == at || p.is_below(at));
        let paths: Vec<RelPath> = self.own.paths.iter().filter(inside).cloned().collect();
        let us = self.config.device;
        let mut txn = Txn::default();
        for path in paths {
            let record = index.get(&path)?;
            let record = record.filter(|r| is_own(&r.entry, us) && !self.busy.contains_key(&path));
            let Some(record) = record else { continue };
            self.retries.remove(&path);
            if is_ours_alone(&record.entry, us) {
                let gone = deletion(&record.entry, us);
                txn.theirs_put.push((us, path.clone(), gone));
                self.fresh.push(path);
            } else {
                let mut record = record;
                record.entry.version = forgotten(us);
                txn.put.push((path, record));
            }
        }
        if !txn.put.is_empty() {
            for peer in self.sessions.keys() {
                txn.forget.push(*peer);
                txn.cursors.push((*peer, Cursor::default()));
                out.push(Effect::Reopen { peer: *peer });
            }
        }
        self.commit(txn, &[], index)?;
        self.walker.again();
        Ok(())
    }
}

/// An edit of ours that others do not have. A tombstone that only we know of is as good as nothing.
fn is_own(entry: &Entry, us: DeviceId) -> bool {
    entry.stamp.device == us && (entry.node.is_live() || !is_ours_alone(entry, us))
}

/// No other device ever had a hand in it.
fn is_ours_alone(entry: &Entry, us: DeviceId) -> bool {
    entry.version.pairs().iter().all(|(d, _)| *d == us)
}

/// What deletes an entry that is ours alone, as if it were announced to us.
fn deletion(entry: &Entry, us: DeviceId) -> Entry {
    let version = entry.version.bump(us, 0, 0);
    Entry {
        node: Node::Tombstone,
        stamp: Stamp {
            counter: version.counter(us),
            device: us,
        },
        version,
    }
}
