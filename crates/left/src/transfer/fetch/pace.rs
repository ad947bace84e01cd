//! How much a peer is asked for at a time over a long link.
//!
//! A window that is too small leaves the link idle for a part of each round trip; one that is too
//! large lets TCP fill the queue in front of the bottleneck until packets are lost, above all while it
//! looks for the rate. Between the two lies a small multiple of what is under way on a full link: the
//! rate times the round trip (Kleinrock, "Power and deterministic rules of thumb for probabilistic
//! problems in computer communications", ICC 1979).
//!
//! On a short link that product is less than one frame, and the fixed windows of
//! [`FetchConfig`](super::FetchConfig) hold.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Round trips from this one on are long.
const LONG: Duration = Duration::from_millis(20);
/// A window is so many times what the link holds, in halves: as much again waits in its queue while it is
/// full, and TCP can go on doubling while it is not.
const HALVES: u64 = 5;
/// The window while the rate is hardly known: a long part is not the only one.
const FIRST: u64 = 2 << 20;
/// Spans for which that holds.
const BEGINNING: usize = 6;
/// The least window.
const LEAST: u64 = 3 << 19;
/// The largest window.
const MOST: u64 = 64 << 20;
/// Spans that a rate is remembered.
const SPANS: usize = 16;
/// The shortest span a rate is taken over: what was held back by a lost packet comes all at once.
const SHORTEST: Duration = Duration::from_millis(100);

struct Span {
    /// Bytes a second.
    rate: u64,
    /// Nothing came for half a round trip.
    held_up: bool,
}

/// What is known of the way to a peer.
#[derive(Default)]
pub(super) struct Pace {
    round_trip: Option<Duration>,
    /// The span that is measured, and what came in it.
    since: Option<Instant>,
    bytes: u64,
    /// When bytes came last, and the longest silence of the span.
    last: Option<Instant>,
    silence: Duration,
    /// The spans before.
    spans: VecDeque<Span>,
}

impl Pace {
    /// A round trip took so long; the quickest counts.
    pub(super) fn round_trip(&mut self, took: Duration) {
        self.round_trip = Some(self.round_trip.map_or(took, |rtt| rtt.min(took)));
    }

    /// The round trip, where it is long.
    pub(super) fn long(&self) -> Option<Duration> {
        self.round_trip.filter(|rtt| *rtt >= LONG)
    }

    /// Bytes came.
    pub(super) fn came(&mut self, bytes: u64, now: Instant) {
        let Some(rtt) = self.long() else { return };
        let span = rtt.max(SHORTEST);
        let since = *self.since.get_or_insert(now);
        let last = self.last.replace(now).unwrap_or(now);
        self.silence = self.silence.max(now.saturating_duration_since(last));
        self.bytes += bytes;
        let passed = now.saturating_duration_since(since);
        if passed < span {
            return;
        }
        // A span with a pause in it says nothing.
        if passed < span * 3 {
            if self.spans.len() == SPANS {
                self.spans.pop_front();
            }
            let rate = u128::from(self.bytes) * 1_000_000 / passed.as_micros().max(1);
            self.spans.push_back(Span {
                rate: u64::try_from(rate).unwrap_or(u64::MAX),
                held_up: self.silence >= rtt / 2,
            });
        }
        (self.since, self.bytes, self.silence) = (Some(now), 0, Duration::ZERO);
    }

    /// Whether bytes come by fits and starts most of the time: what follows a lost packet waits for it, and
    /// then comes all at once.
    pub(super) fn is_lossy(&self) -> bool {
        self.spans.iter().filter(|span| span.held_up).count() >= SPANS / 2
    }

    /// Bytes that may be asked for and not yet here, of all lanes together; `None`: the link is short.
    pub(super) fn window(&self) -> Option<u64> {
        let rtt = self.long()?;
        let rate = self.spans.iter().map(|span| span.rate).max().unwrap_or(0);
        let held = u128::from(rate) * rtt.as_micros() / 1_000_000;
        let window = held * u128::from(HALVES) / 2;
        let least = match self.spans.len() < BEGINNING {
            true => FIRST,
            false => LEAST,
        };
        Some(u64::try_from(window).unwrap_or(MOST).clamp(least, MOST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn long(rtt: Duration) -> Pace {
        let mut pace = Pace::default();
        pace.round_trip(rtt);
        pace
    }

    /// Bytes come at this rate, in pieces, for so long.
    fn flow(pace: &mut Pace, from: Instant, rate: u64, time: Duration) -> Instant {
        let mut now = from;
        while now < from + time {
            now += MS;
            pace.came(rate / 1000, now);
        }
        now
    }

    #[test]
    fn a_short_link_has_the_usual_windows() {
        assert_eq!(Pace::default().window(), None);
        let mut pace = long(LONG);
        assert_eq!(pace.window(), Some(FIRST));
        pace.round_trip(MS * 5);
        pace.round_trip(MS * 50);
        let start = Instant::now();
        flow(&mut pace, start, 1_000_000_000, MS * 500);
        assert_eq!(pace.window(), None, "the quickest counts");
    }

    #[test]
    fn the_window_follows_the_rate_and_stays_in_bounds() {
        let mut pace = long(MS * 100);
        let now = flow(&mut pace, Instant::now(), 12_500_000, MS * 700);
        let window = pace.window().unwrap();
        assert!((3_100_000..3_200_000).contains(&window), "{window}");
        // Ten times slower: remembered for a while, then not.
        let now = flow(&mut pace, now, 1_250_000, MS * 900);
        assert_eq!(pace.window(), Some(window));
        let now = flow(&mut pace, now, 1_250_000, MS * 1500);
        assert_eq!(pace.window(), Some(LEAST));
        flow(&mut pace, now, 10_000_000_000, MS * 500);
        assert_eq!(pace.window(), Some(MOST));
    }

    #[test]
    fn a_lossy_link_is_known_by_its_silences() {
        let mut pace = long(MS * 100);
        let mut now = flow(&mut pace, Instant::now(), 12_500_000, MS * 2000);
        assert!(!pace.is_lossy());
        // The delay is measured: a moment of silence.
        now += MS * 250;
        now = flow(&mut pace, now, 12_500_000, MS * 500);
        assert!(!pace.is_lossy());
        // All that comes in a round trip comes at once.
        for _ in 0..12 {
            now += MS * 100;
            pace.came(1_250_000, now);
        }
        assert!(pace.is_lossy());
        flow(&mut pace, now, 12_500_000, MS * 2000);
        assert!(!pace.is_lossy());
    }

    #[test]
    fn a_pause_says_nothing_of_the_rate() {
        let mut pace = long(MS * 100);
        let now = flow(&mut pace, Instant::now(), 100_000_000, MS * 500);
        let window = pace.window();
        let mut later = now;
        for _ in 0..100 {
            later += Duration::from_secs(60);
            pace.came(1, later);
        }
        assert_eq!(pace.window(), window);
    }
}
