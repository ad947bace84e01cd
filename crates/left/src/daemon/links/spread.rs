//! When more data lanes than the usual ones are kept to a peer.
//!
//! What follows a lost packet on a TCP connection waits for it, for a round trip at least, and so does what
//! would be asked for next. With a second connection the link is not idle meanwhile: with one packet in a
//! hundred lost it carries a sixth more. And each connection begins with ten packets and doubles: with
//! four of them a link of 100 Mbit/s and 100 ms is full a round trip sooner than with two, which counts where
//! there are many small contents. On a short link there is nothing to gain. For big contents more gain no
//! more, or lose: connections under BBR each take their rate for larger than it is, and together fill the queue
//! until packets are lost. So there the others are but a reserve (whoever asks decides that). To open one takes
//! three round trips, so they stand ready as long as something came or went not long ago.

use std::time::{Duration, Instant};

/// Round trips from this one on are long.
const LONG: Duration = Duration::from_millis(20);
/// Data lanes beyond the usual ones, for each direction, to a peer over a long link.
pub(super) const EXTRA: usize = 2;
/// Those to all peers of a share.
pub(super) const EXTRA_IN_ALL: usize = 64 * 2 * EXTRA;
/// How often is looked whether they are needed.
pub(super) const LOOK: Duration = Duration::from_secs(15);
/// Less than this between two looks is no use.
const USE: u64 = 1 << 20;
/// How long they are kept after the last use.
const KEPT: Duration = Duration::from_secs(600);

/// What is known of one peer.
pub(super) struct Spread {
    round_trip: Duration,
    used: Instant,
    bytes: u64,
}

impl Spread {
    /// A peer was connected; something may come of it.
    pub(super) fn new(round_trip: Duration, now: Instant) -> Self {
        Self {
            round_trip,
            used: now,
            bytes: 0,
        }
    }

    /// A round trip took so long; the quickest counts.
    pub(super) fn round_trip(&mut self, took: Duration) {
        self.round_trip = self.round_trip.min(took);
    }

    /// Whether there is anything to look at.
    pub(super) fn is_long(&self) -> bool {
        self.round_trip >= LONG
    }

    /// Whether more lanes are to be there, when so many bytes came and went since the beginning.
    pub(super) fn look(&mut self, bytes: u64, now: Instant) -> bool {
        if bytes.saturating_sub(self.bytes) >= USE {
            self.used = now;
        }
        self.bytes = bytes;
        self.is_long() && now.saturating_duration_since(self.used) < KEPT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_link_has_more_lanes() {
        let now = Instant::now();
        let mut spread = Spread::new(LONG, now);
        assert!(spread.is_long() && spread.look(0, now));
        // The first one was lost and sent again: what it took says nothing.
        spread.round_trip(Duration::from_millis(1));
        spread.round_trip(Duration::from_secs(1));
        assert!(!spread.is_long() && !spread.look(100 << 20, now));
    }

    #[test]
    fn they_are_kept_while_they_are_used() {
        let start = Instant::now();
        let mut spread = Spread::new(LONG * 5, start);
        let mut now = start;
        let mut bytes = 0;
        // Little comes, then nothing.
        while spread.look(bytes, now) {
            now += LOOK;
            bytes += USE / 2;
        }
        assert_eq!(now - start, KEPT);
        assert!(!spread.look(bytes + USE - 1, now));
        // A file.
        bytes += 3 * USE;
        assert!(spread.look(bytes, now));
        assert!(spread.look(bytes, now + KEPT - LOOK));
        assert!(!spread.look(bytes, now + KEPT));
    }
}
