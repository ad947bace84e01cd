//! Devices and version vectors.
//!
//! Source: D. S. Parker et al., "Detection of mutual inconsistency in distributed systems",
//! IEEE TSE 1983. Counters are hybrid: `max(old + 1, wall clock in ms)`, so that a device that
//! lost its index never re-issues a version it had issued before.

use std::cmp::Ordering;
use std::fmt;

/// Most devices one version vector may name.
pub const MAX_DEVICES: usize = 1024;
/// Largest counter accepted from outside: far beyond any clock, far below overflow.
pub const MAX_COUNTER: u64 = 1 << 56;

/// A device: its Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub [u8; 32]);

impl DeviceId {
    /// The first 7 characters of the id, enough for a person to tell devices apart.
    pub fn short(&self) -> String {
        let mut s = self.to_string();
        s.truncate(7);
        s
    }

    /// Parses what [`Display`](fmt::Display) prints (52 characters of base32).
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = data_encoding::BASE32_NOPAD
            .decode(text.trim().to_ascii_uppercase().as_bytes())
            .ok()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::BASE32_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// A version vector: device → counter, sorted by device, no zero counters.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Version(Vec<(DeviceId, u64)>);

/// How two versions relate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// The same.
    Equal,
    /// The left one is older: the right one knew of it.
    Before,
    /// The left one is newer.
    After,
    /// Neither knew of the other.
    Concurrent,
}

impl Version {
    /// A vector from pairs in any order; the largest counter of a device counts.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (DeviceId, u64)>) -> Self {
        let mut v: Vec<(DeviceId, u64)> = pairs.into_iter().filter(|(_, c)| *c > 0).collect();
        v.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        v.dedup_by_key(|(d, _)| *d);
        Self(v)
    }

    /// The pairs, sorted by device.
    pub fn pairs(&self) -> &[(DeviceId, u64)] {
        &self.0
    }

    /// This device's counter, 0 where it has none.
    pub fn counter(&self, device: DeviceId) -> u64 {
        match self.0.binary_search_by_key(&device, |(d, _)| *d) {
            Ok(at) => self.0[at].1,
            Err(_) => 0,
        }
    }

    /// Compares by knowledge.
    pub fn relation(&self, other: &Self) -> Relation {
        let (mut less, mut more) = (false, false);
        let (mut a, mut b) = (self.0.as_slice(), other.0.as_slice());
        loop {
            match (a.first(), b.first()) {
                (None, None) => break,
                (Some(_), None) => {
                    more = true;
                    break;
                }
                (None, Some(_)) => {
                    less = true;
                    break;
                }
                (Some((da, ca)), Some((db, cb))) => match da.cmp(db) {
                    Ordering::Less => {
                        more = true;
                        a = &a[1..];
                    }
                    Ordering::Greater => {
                        less = true;
                        b = &b[1..];
                    }
                    Ordering::Equal => {
                        less |= ca < cb;
                        more |= ca > cb;
                        a = &a[1..];
                        b = &b[1..];
                    }
                },
            }
        }
        match (less, more) {
            (false, false) => Relation::Equal,
            (true, false) => Relation::Before,
            (false, true) => Relation::After,
            (true, true) => Relation::Concurrent,
        }
    }

    /// The smallest version that knows of both (pointwise maximum).
    pub fn join(&self, other: &Self) -> Self {
        Self::from_pairs(self.0.iter().chain(&other.0).copied())
    }

    /// A successor made by `device` at wall clock `now_ms`: its counter becomes
    /// `max(old + 1, now_ms, floor + 1)`. `floor` is the largest counter of this device that
    /// any peer has ever shown us, so that a lost index under a clock set back is safe too.
    pub fn bump(&self, device: DeviceId, now_ms: u64, floor: u64) -> Self {
        let old = self.counter(device);
        let new = (old.saturating_add(1))
            .max(floor.saturating_add(1))
            .max(now_ms)
            .min(MAX_COUNTER);
        self.join(&Self(vec![(device, new)]))
    }
}
