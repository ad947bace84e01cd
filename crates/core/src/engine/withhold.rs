//! A device that only sends by its own choice: what others change is remembered as needed, and not
//! done. The user may take it after all, or have this device's state win over it.
//!
//! Nothing else is different. Local edits are told as always; where one meets an edit that is
//! withheld, the rules for concurrent edits hold, and who must make a conflict copy here makes it
//! when it is taken. What needs no change of the disk (the same bytes, a deletion of what was never
//! here) is recorded at once.

use std::collections::BTreeSet;

use super::{Engine, Now};
use crate::diff::edit;
use crate::entry::{Entry, Kind, Node, Record};
use crate::index::{Index, IndexError, Need, Totals, Txn, Walk};
use crate::path::RelPath;
use crate::probe::{cover, mutant};
use crate::reconcile::{Decision, best};

/// Needs looked at in one go, and paths of one transaction.
const PAGE: usize = 256;

/// What is taken though this device only sends.
#[derive(Debug, Default)]
pub(super) struct Taking {
    all: bool,
    at: BTreeSet<RelPath>,
}

/// What others changed and this device withholds, of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// Where.
    pub path: RelPath,
    /// What they did.
    pub change: Theirs,
}

/// See [`Withheld`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theirs {
    /// It is not here.
    New,
    /// Here it is something else.
    Changed,
    /// It is here still.
    Deleted,
}

impl Taking {
    fn is_none(&self) -> bool {
        !self.all && self.at.is_empty()
    }

    fn holds(&self, path: &RelPath, target: &Node) -> bool {
        // A folder above is made for what is in it, not deleted or replaced.
        let above = |at: &RelPath| at.is_below(path) && target.kind() == Kind::Dir;
        let at = |at: &RelPath| at == path || path.is_below(at) || above(at);
        self.all || self.at.iter().any(at)
    }
}

impl Engine {
    /// Whether our disk is not to become this because the device only sends.
    pub(super) fn withholds(&self, path: &RelPath, target: &Node) -> bool {
        let withholds = self.config.send_only && !self.taking.holds(path, target);
        withholds && !mutant("who only sends takes all the same")
    }

    /// Whether nothing of what others changed is to be done.
    pub(super) fn withholds_all(&self) -> bool {
        self.config.send_only && self.taking.is_none()
    }

    /// What is needed: nothing of what is withheld.
    pub(super) fn needed(&self, totals: Totals) -> Totals {
        match self.withholds_all() {
            true => Totals {
                need_files: 0,
                need_bytes: 0,
                ..totals
            },
            false => totals,
        }
    }

    /// The first paths that are withheld, at most `most` (of a page).
    pub fn withheld(&self, index: &dyn Index, most: usize) -> Result<Vec<Withheld>, IndexError> {
        if !self.config.send_only {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        for need in index.needs(Walk::Up, None, PAGE)? {
            let ours = index.get(&need.path)?;
            let Some(target) = self.target(ours.as_ref(), &need) else {
                continue;
            };
            let here = ours.is_some_and(|r| r.entry.node.is_live());
            let change = match (here, target.node.is_live()) {
                (false, _) => Theirs::New,
                (true, true) => Theirs::Changed,
                (true, false) => Theirs::Deleted,
            };
            all.push(Withheld {
                path: need.path,
                change,
            });
        }
        all.truncate(most);
        Ok(all)
    }

    /// How many paths are withheld at and below a path, or everywhere.
    pub fn withheld_count(
        &self,
        index: &dyn Index,
        at: Option<&RelPath>,
    ) -> Result<u64, IndexError> {
        let (mut from, mut count) = (None, 0);
        loop {
            let page = index.needs(Walk::Up, from.as_ref(), PAGE)?;
            let Some(last) = page.last().map(|n| n.path.clone()) else {
                return Ok(count);
            };
            from = Some(last);
            for need in page.iter().filter(|n| is_at(&n.path, at)) {
                let ours = index.get(&need.path)?;
                count += u64::from(self.target(ours.as_ref(), need).is_some());
            }
        }
    }

    /// Takes what others changed, at and below a path or everywhere. What comes until all of that is
    /// done is taken with it.
    pub(super) fn take(&mut self, at: Option<RelPath>) {
        match at {
            Some(path) => {
                self.taking.at.insert(path);
            }
            None => self.taking.all = true,
        }
        self.walker.again();
    }

    /// All that could be taken is: from now on others' changes are withheld again.
    pub(super) fn end_taking(&mut self) {
        let waits = self.retries.values().any(|r| r.at.is_some());
        let over = self.jobs.is_empty()
            && self.walker.is_idle()
            && !waits
            && self.full_until.is_none()
            && !self.index_incoming()
            && !self.is_held();
        if over && !self.taking.is_none() {
            cover("withhold: all is taken");
            self.taking = Taking::default();
        }
    }

    /// Has our state win over what is withheld, at and below a path or everywhere: an edit that knows
    /// of theirs, so that it supersedes it. What is not here is deleted there. Their bytes go to
    /// their history.
    pub(super) fn override_theirs(
        &mut self,
        now: Now,
        at: Option<&RelPath>,
        index: &mut dyn Index,
    ) -> Result<(), IndexError> {
        if !self.config.send_only {
            return Ok(());
        }
        let mut from = None;
        loop {
            let page = index.needs(Walk::Up, from.as_ref(), PAGE)?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            from = Some(last.path.clone());
            let mut txn = Txn::default();
            for need in page {
                if is_at(&need.path, at) && !self.busy.contains_key(&need.path) {
                    self.override_one(now, need, index, &mut txn)?;
                }
            }
            self.commit(txn, &[], index)?;
        }
    }

    fn override_one(
        &mut self,
        now: Now,
        need: Need,
        index: &dyn Index,
        txn: &mut Txn,
    ) -> Result<(), IndexError> {
        let ours = index.get(&need.path)?;
        let Some(target) = self.target(ours.as_ref(), &need) else {
            return Ok(());
        };
        if !self.wants(&need.path, ours.as_ref()) {
            // Not held here by choice: that is no opinion about it.
            cover("withhold: not held here");
            return Ok(());
        }
        if self.is_damaged(&need.path) && !mutant("an override announces what is not there") {
            // Nobody could get it from us, and theirs would be gone.
            cover("withhold: ours is not there to win");
            return Ok(());
        }
        cover(match ours.is_some() {
            true => "withhold: ours wins over theirs",
            false => "withhold: theirs is to be deleted",
        });
        let mut base = ours.unwrap_or(Record {
            entry: Entry {
                node: Node::Tombstone,
                ..target
            },
            stat: None,
        });
        for (_, theirs) in &need.theirs {
            if !mutant("an override does not know of theirs") {
                base.entry.version = base.entry.version.join(&theirs.version);
            }
        }
        let node = base.entry.node.clone();
        let new = edit(Some(&base), node, base.stat, &self.author(now, index));
        for (peer, _) in need.theirs {
            txn.theirs_del.push((peer, need.path.clone()));
        }
        self.retries.remove(&need.path);
        txn.put.push((need.path, new));
        Ok(())
    }

    /// What our disk would become, if it would change.
    fn target(&self, ours: Option<&Record>, need: &Need) -> Option<Entry> {
        let theirs = best(&need.theirs)?;
        match self.decide(ours.map(|r| &r.entry), theirs) {
            Decision::Take { target, .. } => Some(target),
            _ => None,
        }
    }
}

/// Whether a path is at or below another; all are for `None`.
fn is_at(path: &RelPath, at: Option<&RelPath>) -> bool {
    at.is_none_or(|at| path == at || path.is_below(at))
}
