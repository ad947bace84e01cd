//! Where members were seen on the networks that this machine is on. Hints for dialing, no more: they
//! are bounded, grow old, and go beside the addresses that members tell themselves.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use left_core::version::DeviceId;

use crate::net::nearby::{Nearby, Reach};

/// Addresses remembered of one device; the oldest makes room.
const MAX_ADDRESSES: usize = 8;
/// For how long.
const KEEP: Duration = Duration::from_secs(600);
/// Devices remembered; only members are.
const MAX_DEVICES: usize = 4096;
/// What was seen so short ago is no news.
const NEWS_AFTER: Duration = Duration::from_secs(1);

/// See the module's text.
#[derive(Default)]
pub(super) struct Sightings {
    seen: Mutex<HashMap<DeviceId, Vec<(SocketAddr, Instant)>>>,
    nearby: Mutex<Option<Nearby>>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sightings {
    /// A member was seen. Whether that is news.
    pub(super) fn note(&self, device: DeviceId, address: SocketAddr, now: Instant) -> bool {
        let mut seen = lock(&self.seen);
        if !seen.contains_key(&device) && seen.len() >= MAX_DEVICES {
            seen.retain(|_, all| all.iter().any(|(_, at)| is_fresh(*at, now)));
            if seen.len() >= MAX_DEVICES {
                return false;
            }
        }
        let all = seen.entry(device).or_default();
        let before = all.iter().position(|(a, _)| *a == address);
        let before = before.map(|at| all.remove(at).1);
        all.truncate(MAX_ADDRESSES - 1);
        all.insert(0, (address, now));
        before.is_none_or(|at| now.saturating_duration_since(at) >= NEWS_AFTER)
    }

    /// Where a device was seen not long ago, latest first.
    pub(super) fn of(&self, device: DeviceId, now: Instant) -> Vec<SocketAddr> {
        let seen = lock(&self.seen);
        let all = seen.get(&device).map(Vec::as_slice).unwrap_or_default();
        let fresh = all.iter().filter(|(_, at)| is_fresh(*at, now));
        fresh.map(|(address, _)| *address).collect()
    }

    /// This machine is on other networks now: what was seen on the former ones is forgotten.
    pub(super) fn begin(&self, nearby: Option<Nearby>) {
        lock(&self.seen).clear();
        *lock(&self.nearby) = nearby;
    }

    /// As [`begin`](Self::begin), under another name on the same networks.
    pub(super) fn rename(&self, nearby: Nearby) {
        *lock(&self.nearby) = Some(nearby);
    }

    /// Somebody is missed.
    pub(super) fn ask(&self) {
        if let Some(nearby) = &*lock(&self.nearby) {
            nearby.ask();
        }
    }

    /// How it goes; `None`: it is off.
    pub(super) fn reach(&self) -> Option<Reach> {
        lock(&self.nearby).as_ref().map(|n| n.reach().clone())
    }
}

fn is_fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < KEEP
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: DeviceId = DeviceId([1; 32]);

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn few_are_remembered_and_not_for_long() {
        let seen = Sightings::default();
        let now = Instant::now();
        for port in 1..=100 {
            assert!(seen.note(A, at(port), now));
        }
        assert!(!seen.note(A, at(100), now), "seen just now");
        let all = seen.of(A, now);
        assert_eq!(all.len(), MAX_ADDRESSES);
        assert_eq!(all[0], at(100));
        assert!(seen.note(A, at(100), now + NEWS_AFTER));
        assert!(seen.of(A, now + KEEP + NEWS_AFTER).is_empty());
        assert!(seen.of(DeviceId([2; 32]), now).is_empty());
    }

    #[test]
    fn a_hostile_network_fills_nothing() {
        let seen = Sightings::default();
        let now = Instant::now();
        let device = |n: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            DeviceId(id)
        };
        for n in 0..MAX_DEVICES + 100 {
            assert_eq!(seen.note(device(n), at(1), now), n < MAX_DEVICES);
        }
        // Old ones make room.
        assert!(seen.note(device(MAX_DEVICES), at(1), now + KEEP));
        assert_eq!(lock(&seen.seen).len(), 1);
    }
}
