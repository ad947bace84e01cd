//! Orders to drop, what is asked for them, and what others ask.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Dropped, Kept};
use crate::entry::Record;
use crate::message::Ask;
use crate::path::RelPath;
use crate::version::DeviceId;

/// Paths named in a report.
const MAX_NAMED: usize = 100;

/// Orders to drop, and questions of others.
#[derive(Debug, Default)]
pub(in crate::engine) struct Sheds {
    pub(super) queue: VecDeque<Shed>,
    /// What others asked, one question each: answered when our disk was looked at and synced.
    pub(super) questions: BTreeMap<DeviceId, Ask>,
    /// More to look at in the next step.
    pub(super) unfinished: bool,
}

/// One order. Goes over the records again until nothing more goes: a folder after what is in it.
#[derive(Debug)]
pub(super) struct Shed {
    pub(super) id: u64,
    pub(super) at: Option<RelPath>,
    pub(super) after: Option<RelPath>,
    /// Something went in this round.
    pub(super) some: bool,
    pub(super) report: Dropped,
    pub(super) asked: Option<Asked>,
    /// Operations under way.
    pub(super) running: usize,
}

/// A question of ours.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) token: u64,
    /// Who has not answered yet.
    pub(super) peers: BTreeSet<DeviceId>,
    /// Our own disk is synced: a power cut brings no older state back to where nothing is to be.
    pub(super) synced: bool,
    pub(super) until_ms: u64,
    pub(super) items: Vec<Item>,
}

#[derive(Debug)]
pub(super) struct Item {
    pub(super) path: RelPath,
    pub(super) record: Record,
    pub(super) holders: Vec<DeviceId>,
}

impl Sheds {
    pub fn due(&self) -> Option<u64> {
        let asked = self.queue.front().and_then(|s| s.asked.as_ref());
        asked.map(|a| a.until_ms)
    }

    pub fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// Whether we are about to drop it.
    pub(super) fn is_asking(&self, path: &RelPath) -> bool {
        let asked = self.queue.front().and_then(|s| s.asked.as_ref());
        asked.is_some_and(|a| a.items.iter().any(|i| i.path == *path))
    }

    pub fn peer_down(&mut self, peer: DeviceId) {
        self.questions.remove(&peer);
        if let Some(asked) = self.queue.front_mut().and_then(|s| s.asked.as_mut()) {
            asked.peers.remove(&peer);
        }
    }

    /// A peer answered; `held` as in [`Have`].
    pub fn answered(&mut self, peer: DeviceId, token: u64, held: &[u8]) {
        let asked = self.queue.front_mut().and_then(|s| s.asked.as_mut());
        let Some(asked) = asked.filter(|a| a.token == token) else {
            return;
        };
        if !asked.peers.remove(&peer) {
            return;
        }
        for (at, item) in asked.items.iter_mut().enumerate() {
            if held.get(at / 8).is_some_and(|b| b & (1 << (at % 8)) != 0) {
                item.holders.push(peer);
            }
        }
    }

    /// Our disk is synced, as asked for by a question of ours.
    pub fn synced(&mut self, token: u64) {
        if let Some(asked) = self.queue.front_mut().and_then(|s| s.asked.as_mut())
            && asked.token == token
        {
            asked.synced = true;
        }
    }

    /// Keeps a peer's question; false when it has one already.
    pub fn question(&mut self, peer: DeviceId, ask: Ask) -> bool {
        if self.questions.contains_key(&peer) {
            return false;
        }
        self.questions.insert(peer, ask);
        true
    }
}

impl Shed {
    pub(super) fn keep(&mut self, path: &RelPath, why: Kept) {
        self.report.kept += 1;
        if self.report.named.len() < MAX_NAMED {
            self.report.named.push((path.clone(), why));
        }
    }
}
