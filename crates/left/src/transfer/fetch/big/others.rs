//! A big content that others fetch too.

use std::time::{Duration, Instant};

use left_core::message::Parts;
use left_core::version::DeviceId;

use super::offered::OFFERED_MAX;
use super::{Big, Phase};
use crate::transfer::fetch::state::Peers;
use crate::transfer::fetch::swarm::MIN_SIZE;

/// What a look at other receivers shows.
#[derive(Default)]
pub(in crate::transfer::fetch) struct Look {
    /// The one that keeps us waiting.
    pub(in crate::transfer::fetch) waits_for: Option<DeviceId>,
    /// Who brought something since the last look, and what waiting that is worth.
    pub(in crate::transfer::fetch) brought: Vec<(DeviceId, Duration)>,
    /// Lanes may have more to do now.
    pub(in crate::transfer::fetch) wake: bool,
}

impl Big {
    /// Members that may be fetching it, too.
    pub(in crate::transfer::fetch) fn others(&self, peers: &Peers) -> Vec<DeviceId> {
        let may = |p: &&DeviceId| !self.peers.contains(p);
        peers.parts.iter().filter(may).copied().collect()
    }

    /// Others may fetch it too.
    pub(super) fn join(&mut self, peers: &Peers) {
        if let Some(me) = &peers.me
            && self.file.size >= MIN_SIZE
        {
            let others = self.others(peers);
            self.swarm.begin(me, self.file.id(), &others);
        }
    }

    /// A peer that understands it is told that this is fetched here, but not before that time.
    pub(in crate::transfer::fetch) fn greet(&mut self, peer: DeviceId, not_before: Instant) {
        if !self.peers.contains(&peer) {
            self.swarm.greet(peer, not_before);
        }
    }

    /// Takes in what another receiver has. Whether more may be asked for now.
    pub(in crate::transfer::fetch) fn hear(
        &mut self,
        peer: DeviceId,
        parts: &Parts,
        peers: &Peers,
    ) -> bool {
        if self.file.size < MIN_SIZE {
            return false;
        }
        let most = match self.whole {
            true => self.refs.len(),
            false => OFFERED_MAX,
        };
        let known = self.swarm.partners.contains_key(&peer);
        let mut new = self.swarm.heard(peer, parts, most);
        if !known {
            new |= self.refresh(peers, Instant::now());
        }
        new
    }

    fn refresh(&mut self, peers: &Peers, now: Instant) -> bool {
        let ready = |p: &DeviceId| peers.has_lane(p) && self.eligible(p, peers);
        let source = self.peers.iter().any(ready);
        self.swarm.refresh(peers, source, now)
    }

    /// Looks at those who fetch it too, many times a second, and sees to it that they do not keep us
    /// waiting for long; `patience`: how long they may go on with what nobody has any more.
    pub(in crate::transfer::fetch) fn look(
        &mut self,
        peers: &Peers,
        patience: Duration,
        now: Instant,
    ) -> Look {
        if self.swarm.is_quiet() {
            return Look::default();
        }
        let mut news = self.refresh(peers, now);
        if !self.swarm.is_active() || !matches!(self.phase, Phase::Segments) {
            // Who might have fetched it too does not: all of it falls to us, and nobody looks again.
            return Look {
                wake: news,
                ..Look::default()
            };
        }
        news |= self.recall();
        if self.peers.iter().any(|p| self.eligible(p, peers)) {
            self.forsaken = None;
        } else if !self.verdicts.is_empty() {
            self.forsaken.get_or_insert(now + patience);
        }
        let n = self.done.n;
        let waits = self.inflight == 0 && !self.ready.contains_key(&n);
        let kept_by = || (self.swarm).kept_by(n, self.asks.of(n), self.is_wanted(n));
        let waits_for = waits.then(kept_by).flatten();
        if waits_for.is_some() {
            news |= self.swarm.kept_waiting(now);
        }
        Look {
            waits_for,
            brought: self.swarm.take_brought(),
            wake: !self.wanted.is_empty() && self.swarm.is_to_wake(news, now),
        }
    }

    /// What only late partners are asked for is asked of others too. Whether there was any.
    fn recall(&mut self) -> bool {
        let late = self.asks.only_of(|peer| self.swarm.is_late(peer));
        let mut any = false;
        for part in late.into_iter().rev() {
            let n = part.n();
            if !self.has(n) && !self.is_wanted(n) {
                self.wanted.push_front(part);
                any = true;
            }
        }
        any
    }
}
