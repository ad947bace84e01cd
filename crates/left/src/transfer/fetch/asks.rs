//! What is asked for of a big content and not yet here, and of whom: of several at once where the
//! first was too slow.

use std::collections::BTreeMap;

use left_core::version::DeviceId;

use super::wanted::Wanted;

struct Ask {
    /// As it was asked for last.
    part: Wanted,
    /// Never empty.
    of: Vec<DeviceId>,
}

/// By the position of the segment.
#[derive(Default)]
pub(super) struct Asks(BTreeMap<usize, Ask>);

impl Asks {
    pub(super) fn begin(&mut self, part: &Wanted, peer: DeviceId) {
        let ask = self.0.entry(part.n()).or_insert_with(|| Ask {
            part: part.clone(),
            of: Vec::new(),
        });
        ask.part = part.clone();
        ask.of.push(peer);
    }

    /// An answer came, or is given up.
    pub(super) fn end(&mut self, n: usize, peer: &DeviceId) {
        if let Some(ask) = self.0.get_mut(&n) {
            if let Some(at) = ask.of.iter().position(|p| p == peer) {
                ask.of.swap_remove(at);
            }
            if ask.of.is_empty() {
                self.0.remove(&n);
            }
        }
    }

    /// Who is asked for something of a segment.
    pub(super) fn of(&self, n: usize) -> &[DeviceId] {
        self.0.get(&n).map_or(&[], |ask| &ask.of)
    }

    /// Parts that nobody but these is asked for.
    pub(super) fn only_of(&self, these: impl Fn(&DeviceId) -> bool) -> Vec<Wanted> {
        let only = |ask: &&Ask| ask.of.iter().all(&these);
        self.0
            .values()
            .filter(only)
            .map(|ask| ask.part.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use left_core::content::{SegmentId, SegmentRef};

    use super::super::wanted::Place;
    use super::*;

    #[test]
    fn a_part_may_be_asked_of_several() {
        let (slow, other) = (DeviceId([1; 32]), DeviceId([2; 32]));
        let sref = SegmentRef {
            len: 5,
            id: SegmentId([1; 32]),
        };
        let part = |n| Wanted::Segment(Place { n, offset: 0, sref });
        let mut asks = Asks::default();
        asks.begin(&part(3), slow);
        asks.begin(&part(4), other);
        let late = |asks: &Asks| -> Vec<usize> {
            let parts = asks.only_of(|p| *p == slow);
            parts.iter().map(Wanted::n).collect()
        };
        assert_eq!(late(&asks), [3]);
        asks.begin(&part(3), other);
        assert!(late(&asks).is_empty());
        assert_eq!(asks.of(3), [slow, other]);
        asks.end(3, &other);
        assert_eq!(late(&asks), [3]);
        asks.end(3, &slow);
        asks.end(3, &slow);
        assert!(asks.of(3).is_empty() && asks.0.len() == 1);
    }
}
