//! Members seen nearby, and other networks: who is dialed at once, which lanes are doubted.

use std::time::{Duration, Instant};

use left_core::version::DeviceId;

use super::{Dial, Links};

/// A sighting has its member dialed at once, this often at most; else it waits its turn.
const HURRY_EVERY: Duration = Duration::from_secs(1);
/// And has a dial under way given up for it, or a lane doubted, this often at most.
const DOUBT_EVERY: Duration = Duration::from_secs(10);
/// Missing members that are tried at once when the network changed, those seen last.
const MAX_HURRIED: usize = 64;

impl Links {
    /// A member was seen nearby: it is dialed there, or doubted where it is.
    pub(in super::super) fn sighted(&mut self, peer: DeviceId, now: Instant) {
        let lately = |at: Option<Instant>, every| {
            at.is_some_and(|at| now.saturating_duration_since(at) < every)
        };
        if let Some(link) = self.up.get_mut(&peer) {
            let seen = self.door.sightings.of(peer, now);
            let there = seen.iter().any(|a| a.ip() == link.info.remote.ip());
            if !there && !lately(link.doubted, DOUBT_EVERY) {
                link.doubted = Some(now);
                link.sender.probe();
            }
            return;
        }
        let dial = self.dials.entry(peer).or_default();
        if lately(dial.hurried, HURRY_EVERY) {
            let soon = now + HURRY_EVERY;
            dial.not_before = dial.not_before.map(|at| at.min(soon));
            return;
        }
        dial.hurried = Some(now);
        dial.not_before = None;
        if let Some(task) = &dial.under_way
            && !lately(dial.given_up, DOUBT_EVERY)
        {
            task.abort();
            dial.under_way = None;
            dial.given_up = Some(now);
        }
    }

    /// This machine is on other networks than before: lanes are doubted, and who is missing is dialed
    /// at once.
    pub(in super::super) fn network_changed(&mut self) {
        for link in self.up.values() {
            link.sender.probe();
        }
        let up = &self.up;
        let missing = self.dials.iter_mut().filter(|(d, _)| !up.contains_key(d));
        let mut missing: Vec<&mut Dial> = missing.map(|(_, dial)| dial).collect();
        missing.sort_by_key(|dial| dial.failures);
        for dial in missing.into_iter().take(MAX_HURRIED) {
            if let Some(task) = dial.under_way.take() {
                task.abort();
            }
            dial.failures = 0;
            dial.not_before = None;
        }
    }
}
