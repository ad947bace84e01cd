//! Small contents that wait to be fetched, grouped by the peers that may be asked for them.

use std::collections::{BTreeMap, HashMap, VecDeque};

use left_core::content::ContentId;
use left_core::plan::{FetchError, OpId};
use left_core::version::DeviceId;

use super::state::Peers;

/// A content and the size that was announced of it.
pub(super) type Key = (ContentId, u64);

/// What is left of a task that nobody can fulfil.
pub(super) type Failed = (Vec<OpId>, FetchError);

#[derive(Default)]
struct SmallTask {
    waiters: Vec<OpId>,
    /// Whom it may still be asked of, sorted.
    peers: Vec<DeviceId>,
    tried: Vec<DeviceId>,
    liar: Option<DeviceId>,
    /// The liar is asked once more, or was.
    second: bool,
    queued: bool,
}

#[derive(Default)]
pub(super) struct SmallQueue {
    tasks: HashMap<Key, SmallTask>,
    /// A key may stand in a group that its task has left, or twice: `take` passes over it.
    groups: BTreeMap<Vec<DeviceId>, VecDeque<Key>>,
    /// Bytes of what nobody is asked for yet.
    unasked: u64,
}

impl SmallQueue {
    /// Whether nothing is to be fetched.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Bytes that nobody is asked for yet.
    pub(super) fn unasked(&self) -> u64 {
        self.unasked
    }

    /// Contents not yet here, and their bytes.
    pub(super) fn left(&self) -> (u64, u64) {
        let bytes = self.tasks.keys().map(|(_, size)| size).sum();
        (self.tasks.len() as u64, bytes)
    }

    /// Queues a content, or joins who waits for it already.
    pub(super) fn add(
        &mut self,
        id: OpId,
        key: Key,
        from: &[DeviceId],
        peers: &Peers,
    ) -> Option<Failed> {
        let fresh = !self.tasks.contains_key(&key);
        let task = self.tasks.entry(key).or_default();
        task.waiters.push(id);
        let before = task.peers.len();
        for p in from {
            if !task.tried.contains(p) && !task.peers.contains(p) {
                task.peers.push(*p);
            }
        }
        task.peers.sort_unstable();
        let widened = task.queued && task.peers.len() > before;
        match fresh || widened {
            true => self.route(key, peers, false),
            false => None,
        }
    }

    /// Takes a batch for a lane of `peer`.
    pub(super) fn take(&mut self, peer: &DeviceId, items: usize, bytes: u64) -> Vec<Key> {
        let mut batch = Vec::new();
        let mut total = 0;
        for (group, queue) in &mut self.groups {
            if !group.contains(peer) {
                continue;
            }
            while let Some(key) = queue.front() {
                if let Some(task) = self.tasks.get_mut(key)
                    && task.queued
                    && task.peers == *group
                {
                    if batch.len() == items || (total + key.1 > bytes && !batch.is_empty()) {
                        return batch;
                    }
                    task.queued = false;
                    self.unasked -= key.1;
                    total += key.1;
                    batch.push(*key);
                }
                queue.pop_front();
            }
        }
        self.groups.retain(|_, q| !q.is_empty());
        batch
    }

    /// The content is here: who waited for it.
    pub(super) fn settle(&mut self, key: &Key) -> Vec<OpId> {
        let Some(task) = self.tasks.remove(key) else {
            return Vec::new();
        };
        if task.queued {
            self.unasked -= key.1;
        }
        task.waiters
    }

    /// The lane was lost before the answer came.
    pub(super) fn lost(&mut self, key: Key, peers: &Peers) -> Option<Failed> {
        self.route(key, peers, true)
    }

    /// `peer` has it not.
    pub(super) fn gone(&mut self, key: Key, peer: DeviceId, peers: &Peers) -> Option<Failed> {
        if let Some(task) = self.tasks.get_mut(&key) {
            task.peers.retain(|p| *p != peer);
            task.tried.push(peer);
        }
        self.route(key, peers, true)
    }

    /// `peer` sent something else.
    pub(super) fn bad(&mut self, key: Key, peer: DeviceId, peers: &Peers) -> Option<Failed> {
        if let Some(task) = self.tasks.get_mut(&key) {
            task.liar = Some(peer);
        }
        self.gone(key, peer, peers)
    }

    pub(super) fn cancel(&mut self, key: &Key, id: OpId) {
        if let Some(task) = self.tasks.get_mut(key) {
            task.waiters.retain(|w| *w != id);
            if task.waiters.is_empty() {
                self.settle(key);
            }
        }
    }

    /// After a peer went: whatever no one is left to be asked for.
    pub(super) fn peers_changed(&mut self, peers: &Peers) -> Vec<Failed> {
        let dead: Vec<Vec<DeviceId>> = self
            .groups
            .keys()
            .filter(|g| !g.iter().any(|p| peers.alive(p)))
            .cloned()
            .collect();
        let mut failed = Vec::new();
        for group in dead {
            for key in self.groups.remove(&group).unwrap_or_default() {
                let mine = |t: &SmallTask| t.queued && t.peers == group;
                if self.tasks.get(&key).is_some_and(mine) {
                    failed.extend(self.route(key, peers, false));
                }
            }
        }
        failed
    }

    /// Puts a task where a lane finds it, or gives it up.
    fn route(&mut self, key: Key, peers: &Peers, front: bool) -> Option<Failed> {
        let task = self.tasks.get_mut(&key)?;
        if !task.peers.iter().any(|p| peers.alive(p)) {
            match task.liar {
                Some(liar) if !task.second && peers.alive(&liar) => {
                    task.second = true;
                    task.peers = vec![liar];
                }
                liar => {
                    let why = liar.map_or(FetchError::Gone, FetchError::Corrupt);
                    return Some((self.settle(&key), why));
                }
            }
        }
        if !std::mem::replace(&mut task.queued, true) {
            self.unasked += key.1;
        }
        let queue = self.groups.entry(task.peers.clone()).or_default();
        match front {
            true => queue.push_front(key),
            false => queue.push_back(key),
        }
        None
    }
}
