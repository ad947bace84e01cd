//! How long other receivers are waited for.
//!
//! Waiting costs only while nothing is under way from who has all and a partner keeps the first
//! missing segment from us. That time is held against the partner, and what it brings is set off
//! against it: at half the speed at which bytes come from who has all. So a partner is worth
//! waiting for as long as it brings half of what could have been had without it; and whatever it
//! does, silence or a trickle, it costs a second more than that, and less each time it comes to it again.
//! This is known of a device, not of a file.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use left_core::version::DeviceId;

/// What waiting for a partner may cost; half of it the next time, and so on.
const ALLOWANCE: Duration = Duration::from_secs(1);
const LEAST: Duration = Duration::from_millis(125);
/// How long nothing is expected of a partner then; doubled each time.
const LATE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(600));
/// After so long without another time all is forgotten.
const FORGET: Duration = Duration::from_secs(600);
/// The part of the speed of who has all that a partner must come up to.
const PART: f64 = 2.0;
/// No partner must bring more than this, in bytes a second.
const ENOUGH: f64 = (32 << 20) as f64;

#[derive(Default)]
struct Standing {
    /// What waiting for it has cost.
    cost: Duration,
    times: u32,
    late_until: Option<Instant>,
}

impl Standing {
    fn is_late(&self, now: Instant) -> bool {
        self.late_until.is_some_and(|t| now < t)
    }

    fn late(&mut self, now: Instant, how_long: Duration) {
        self.cost = Duration::ZERO;
        self.times = self.times.saturating_add(1);
        self.late_until = Some(now + how_long);
    }
}

/// Partners that have been waited for, over all contents.
#[derive(Default)]
pub(super) struct Patience(BTreeMap<DeviceId, Standing>);

impl Patience {
    /// Whether nothing is expected of the device now.
    pub(super) fn is_late(&self, device: &DeviceId, now: Instant) -> bool {
        self.0.get(device).is_some_and(|s| s.is_late(now))
    }

    /// It was waited for. Whether it is late now.
    pub(super) fn waited(&mut self, device: DeviceId, time: Duration, now: Instant) -> bool {
        let standing = self.0.entry(device).or_default();
        standing.cost += time;
        let doubled = 1 << standing.times.min(16);
        let late = standing.cost > (ALLOWANCE / doubled).max(LEAST);
        if late {
            standing.late(now, (LATE.0 * doubled).min(LATE.1));
        }
        late
    }

    /// It brought what is worth so much waiting.
    pub(super) fn brought(&mut self, device: &DeviceId, worth: Duration) {
        if let Some(standing) = self.0.get_mut(device) {
            standing.cost = standing.cost.saturating_sub(worth);
        }
    }

    /// It proved to be of no use.
    pub(super) fn distrust(&mut self, device: DeviceId, now: Instant) {
        self.0.entry(device).or_default().late(now, LATE.1);
    }

    /// Forgets what was long ago.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.0.retain(|_, s| match s.late_until {
            Some(t) => now < t + FORGET,
            None => s.cost > Duration::ZERO,
        });
    }
}

/// How fast bytes come from who has all, while any are asked for.
#[derive(Default)]
pub(super) struct Speed {
    since: Option<Instant>,
    /// When an answer came last.
    last: Option<Instant>,
    bytes: f64,
    seconds: f64,
}

impl Speed {
    /// What is older counts for little.
    const SPAN: f64 = 2.0;
    /// Fewer bytes in less time say nothing.
    const LEAST: (f64, f64) = ((256 << 10) as f64, 1.0);
    /// What is older may not be so any more.
    const OLD: Duration = Duration::from_secs(5);

    pub(super) fn asked(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Bytes came, or are given up (0); `more`: others are still asked for.
    pub(super) fn landed(&mut self, bytes: u64, more: bool, now: Instant) {
        if let Some(since) = self.since {
            self.seconds += (now - since).as_secs_f64();
            self.bytes += bytes as f64;
        }
        self.since = more.then_some(now);
        self.last = Some(now);
        if self.seconds > Self::SPAN {
            self.seconds /= 2.0;
            self.bytes /= 2.0;
        }
    }

    /// Whether who has all should be asked for something, so that it is known how fast it is.
    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.since.is_none() && self.last.is_none_or(|last| now - last > Self::OLD)
    }

    /// The waiting that these bytes of a partner are worth.
    pub(super) fn worth(&self, bytes: u64) -> Duration {
        let known = self.bytes >= Self::LEAST.0 || self.seconds >= Self::LEAST.1;
        let enough = match known {
            true => (self.bytes / self.seconds.max(1e-3) / PART).clamp(1.0, ENOUGH),
            false => ENOUGH,
        };
        Duration::from_secs_f64((bytes as f64 / enough).min(FORGET.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(20);
    const MIB: u64 = 1 << 20;

    /// What 1,200 s with a partner cost that brings so many bytes a second while it is waited for.
    fn cost(speed: &Speed, rate: u64) -> Duration {
        let (mut patience, device) = (Patience::default(), DeviceId([1; 32]));
        let start = Instant::now();
        let (mut now, mut cost) = (start, Duration::ZERO);
        while now < start + Duration::from_secs(1200) {
            now += TICK;
            if !patience.is_late(&device, now) {
                cost += TICK;
                patience.waited(device, TICK, now);
                patience.brought(&device, speed.worth(rate / 50));
            }
            patience.tidy(now);
        }
        cost
    }

    fn speed(rate: u64) -> Speed {
        let (mut speed, start) = (Speed::default(), Instant::now());
        speed.asked(start);
        speed.landed(rate, false, start + Duration::from_secs(1));
        speed
    }

    #[test]
    fn who_brings_little_costs_little() {
        for rate in [0, 1, 100_000, MIB] {
            let cost = cost(&speed(20 * MIB), rate);
            assert!(cost < Duration::from_secs(4), "{rate}: {cost:?}");
        }
        let cost = cost(&Speed::default(), 8 * MIB);
        assert!(cost < Duration::from_secs(4), "{cost:?}");
    }

    #[test]
    fn who_brings_half_of_what_could_be_had_is_waited_for() {
        let all = Duration::from_secs(1200);
        assert_eq!(cost(&speed(20 * MIB), 10 * MIB), all);
        assert_eq!(cost(&speed(1000 * MIB), 33 * MIB), all);
        assert_eq!(cost(&speed(1000), 500), all);
    }

    #[test]
    fn a_small_answer_says_nothing_and_an_old_one_little() {
        let (mut speed, start) = (Speed::default(), Instant::now());
        assert!(speed.is_old(start));
        speed.asked(start);
        assert!(!speed.is_old(start + Speed::OLD * 2), "it is just asked");
        let now = start + TICK;
        speed.landed(4096, false, now);
        assert_eq!(speed.worth(32 * MIB), Duration::from_secs(1));
        assert!(!speed.is_old(now) && speed.is_old(now + Speed::OLD + TICK));
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let (mut patience, device) = (Patience::default(), DeviceId([1; 32]));
        let now = Instant::now();
        assert!(!patience.waited(device, ALLOWANCE, now));
        assert!(patience.waited(device, TICK, now));
        assert!(patience.is_late(&device, now + TICK));
        assert!(!patience.is_late(&device, now + LATE.0));
        patience.tidy(now + LATE.0);
        assert!(patience.waited(device, ALLOWANCE / 2 + TICK, now + LATE.0));
        patience.distrust(device, now);
        assert!(patience.is_late(&device, now + LATE.1 - TICK));
        patience.tidy(now + LATE.1 + FORGET);
        assert!(patience.0.is_empty());
    }
}
