//! Waiting until all connected peers have the same: first everyone looks at its disk (a barrier),
//! then everyone must have taken in everyone's index and need nothing. Where the last peer goes
//! meanwhile, the wait goes on until one comes: without a peer nobody has the same.

use std::collections::{BTreeMap, BTreeSet};

use super::{Effect, Engine};
use crate::index::{Index, IndexError};
use crate::message::{Ask, Control};
use crate::version::DeviceId;

/// Barriers and waits under way.
#[derive(Debug, Default)]
pub(super) struct Waits {
    next_token: u64,
    /// Our own disk's barriers: for whom.
    local: BTreeMap<u64, Asker>,
    waits: Vec<Wait>,
    /// Peers' barriers that are done but for deletions that are held.
    held: Vec<(DeviceId, u64)>,
}

#[derive(Debug, Clone, Copy)]
enum Asker {
    Us,
    Peer(DeviceId, u64),
    /// The engine, for a last look at what is deleted.
    Deletions,
    /// A peer that asked what we hold: first we look, then our disk is synced.
    Question(DeviceId),
    Answer(DeviceId),
}

#[derive(Debug)]
struct Wait {
    id: u64,
    token: u64,
    local: bool,
    peers: BTreeSet<DeviceId>,
}

/// Barriers a peer may have under way; more are ignored until one is answered.
const MAX_PEER_BARRIERS: usize = 16;

impl Engine {
    /// Somebody here waits.
    pub(super) fn wait(&mut self, id: u64, out: &mut Vec<Effect>) {
        self.waits.next_token += 1;
        let token = self.waits.next_token;
        self.waits.local.insert(token, Asker::Us);
        out.push(Effect::Barrier(token));
        let peers: BTreeSet<DeviceId> = self.sessions.keys().copied().collect();
        for peer in &peers {
            out.push(Effect::Send {
                peer: *peer,
                message: Control::Barrier(token),
            });
        }
        self.waits.waits.push(Wait {
            id,
            token,
            local: false,
            peers,
        });
    }

    /// A peer asks us to look at our disk.
    pub(super) fn peer_barrier(&mut self, peer: DeviceId, theirs: u64, out: &mut Vec<Effect>) {
        let asked = self.waits.local.values();
        let same = |a: &&Asker| matches!(a, Asker::Peer(p, _) if *p == peer);
        let held = self.waits.held.iter().filter(|(p, _)| *p == peer).count();
        if held + asked.filter(same).count() >= MAX_PEER_BARRIERS {
            return;
        }
        self.waits.next_token += 1;
        let token = self.waits.next_token;
        self.waits.local.insert(token, Asker::Peer(peer, theirs));
        out.push(Effect::Barrier(token));
    }

    /// Our own disk was looked at.
    pub(super) fn barrier_done(&mut self, token: u64, index: &dyn Index, out: &mut Vec<Effect>) {
        match self.waits.local.remove(&token) {
            Some(Asker::Us) => {
                for wait in &mut self.waits.waits {
                    wait.local |= wait.token == token;
                }
            }
            Some(Asker::Peer(peer, theirs)) => {
                self.waits.held.push((peer, theirs));
                self.release_barriers(index);
            }
            Some(Asker::Deletions) => {
                let mut all = self.waits.local.values();
                if !all.any(|a| matches!(a, Asker::Deletions)) {
                    // What was not seen to be gone stands there again.
                    self.meant.clear();
                }
            }
            Some(Asker::Question(peer)) => {
                let token = self.next_token();
                self.waits.local.insert(token, Asker::Answer(peer));
                out.push(Effect::Sync(token));
            }
            Some(Asker::Answer(_)) | None => {}
        }
    }

    /// A peer asks which of these we hold.
    pub(super) fn peer_asks(&mut self, peer: DeviceId, ask: Ask, out: &mut Vec<Effect>) {
        if self.sheds.question(peer, ask) {
            let token = self.next_token();
            self.waits.local.insert(token, Asker::Question(peer));
            out.push(Effect::Barrier(token));
        }
    }

    /// What is in the folder is durable.
    pub(super) fn synced(
        &mut self,
        token: u64,
        index: &dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        self.sheds.synced(token);
        match self.waits.local.get(&token) {
            Some(Asker::Answer(peer)) => {
                let peer = *peer;
                self.waits.local.remove(&token);
                self.answer(peer, index, out)
            }
            _ => Ok(()),
        }
    }

    /// A number for a barrier or a question.
    pub(super) fn next_token(&mut self) -> u64 {
        self.waits.next_token += 1;
        self.waits.next_token
    }

    /// Has the disk looked at once more for deletions that are meant.
    pub(super) fn own_barrier(&mut self, out: &mut Vec<Effect>) {
        self.waits.next_token += 1;
        let token = self.waits.next_token;
        self.waits.local.insert(token, Asker::Deletions);
        out.push(Effect::Barrier(token));
    }

    /// Answers barriers, unless deletions seen before are still to be told.
    pub(super) fn release_barriers(&mut self, index: &dyn Index) {
        if self.is_deleting() {
            return;
        }
        for (peer, theirs) in std::mem::take(&mut self.waits.held) {
            if let Some(session) = self.sessions.get_mut(&peer) {
                session.barriers.push((index.head(), theirs));
            }
        }
    }

    /// A peer looked at its disk and told us all it found.
    pub(super) fn peer_barrier_done(&mut self, peer: DeviceId, token: u64) {
        for wait in &mut self.waits.waits {
            if wait.token == token {
                wait.peers.remove(&peer);
            }
        }
    }

    /// A peer that is gone is waited for no longer, and its own barriers are void: it may give
    /// their tokens out again when it comes back.
    pub(super) fn forget_barriers(&mut self, peer: DeviceId) {
        self.waits
            .local
            .retain(|_, asker| !matches!(asker, Asker::Peer(p, _) | Asker::Question(p) | Asker::Answer(p) if *p == peer));
        self.sheds.peer_down(peer);
        self.waits.held.retain(|(p, _)| *p != peer);
        for wait in &mut self.waits.waits {
            wait.peers.remove(&peer);
        }
    }

    /// Ends the waits whose condition holds now.
    pub(super) fn answer_waits(
        &mut self,
        index: &dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        if self.waits.waits.is_empty() {
            return Ok(());
        }
        let head = self.announced_head(index);
        let calm = !self.is_busy(self.needed(index.totals()?).need_files)
            && self.alarm.is_none()
            && self.look_again.is_empty()
            && !self.sessions.is_empty();
        if !calm || !self.sessions.values().all(|s| s.in_sync(head)) {
            return Ok(());
        }
        self.waits.waits.retain(|wait| {
            let over = wait.local && wait.peers.is_empty();
            if over {
                out.push(Effect::Waited(wait.id));
            }
            !over
        });
        Ok(())
    }
}
