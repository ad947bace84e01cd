//! What this device holds of the share: the selection, and what follows when it changes. Of what is not
//! held our index has no record. It knows it from what peers announced, set apart as *away*, so that all
//! that needs a record (announcing it, missing it on the disk, having it asked for) can not happen.

use super::Engine;
use crate::entry::{Entry, Record};
use crate::index::{Index, IndexError, Txn};
use crate::path::RelPath;
use crate::probe::cover;
use crate::select::Selection;
use crate::version::DeviceId;

/// Paths that are away read at a time.
const PAGE: usize = 256;
/// Pages of them in one step; the rest is looked at in the next ones.
const PAGES: usize = 20;

/// The selection, and how far the index follows it.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub selection: Selection,
    /// What is away is looked through for what is wanted now: after this path.
    looking: Option<Option<RelPath>>,
    /// Paths set aside in this step.
    pub aside: usize,
}

impl Choice {
    /// Whether there is more to do at once.
    pub fn is_unfinished(&self) -> bool {
        self.looking.is_some() || self.is_enough()
    }

    /// Whether one step has set enough aside.
    pub fn is_enough(&self) -> bool {
        self.aside >= PAGE * PAGES
    }
}

impl Engine {
    /// This engine, holding what is selected only.
    #[must_use]
    pub fn with_selection(mut self, selection: Selection) -> Self {
        self.choose(selection);
        self
    }

    /// What this device holds.
    pub fn selection(&self) -> &Selection {
        &self.choice.selection
    }

    /// Another selection: what is wanted now is brought, what is wanted no more is not; what is here
    /// stays until it is dropped.
    pub(super) fn choose(&mut self, selection: Selection) {
        self.choice.selection = selection;
        self.choice.looking = Some(None);
        self.walker.again();
    }

    /// Whether the share's state of `path` is to be here. What is here is kept up to date whatever the
    /// selection says: a user put or fetched it, or it can not be dropped now.
    pub fn wants(&self, path: &RelPath, ours: Option<&Record>) -> bool {
        self.choice.selection.wants(path) || ours.is_some_and(|r| r.entry.node.is_live())
    }

    /// Whether somebody may have what was announced who never said so: who got it from us before we
    /// dropped it.
    pub(super) fn asks_all(&self, theirs: &[(DeviceId, Entry)]) -> bool {
        let own = theirs.iter().any(|(d, _)| *d == self.config.device);
        (own || !self.choice.selection.is_everything()) && !self.sessions.is_empty()
    }

    /// Looks through what is away for what is wanted, a part of it in each step.
    pub(super) fn look_through_away(&mut self, index: &mut dyn Index) -> Result<(), IndexError> {
        self.choice.aside = 0;
        for _ in 0..PAGES {
            let Some(after) = self.choice.looking.clone() else {
                return Ok(());
            };
            let page = index.away(after.as_ref(), PAGE)?;
            let mut txn = Txn::default();
            for need in &page {
                let ours = index.get(&need.path)?;
                if self.wants(&need.path, ours.as_ref()) {
                    cover("choose: wanted again");
                    txn.away.push((need.path.clone(), false));
                }
            }
            let wanted = !txn.away.is_empty();
            self.commit(txn, &[], index)?;
            if wanted {
                self.walker.again();
            }
            self.choice.looking = page.into_iter().next_back().map(|need| Some(need.path));
        }
        Ok(())
    }

    /// A peer holds these no more. What is known of them stays known, for others may hold them who
    /// were never asked to say so; it is kept as if we had heard it from ourselves.
    pub(super) fn peer_dropped(
        &mut self,
        peer: DeviceId,
        paths: Vec<RelPath>,
        index: &dyn Index,
        txn: &mut Txn,
    ) -> Result<(), IndexError> {
        for path in paths {
            let theirs = index.theirs(&path)?;
            let Some((_, last)) = theirs.iter().find(|(d, _)| *d == peer) else {
                continue;
            };
            if theirs.len() == 1 && last.node.is_live() {
                cover("choose: nobody is known to have it");
                txn.theirs_put
                    .push((self.config.device, path.clone(), last.clone()));
            }
            txn.theirs_del.push((peer, path));
        }
        Ok(())
    }
}
