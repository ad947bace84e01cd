//! What one direction of the link does with each packet, as arithmetic: no clock, no device.

use std::time::Duration;

use crate::bench::random::Random;

/// What a link is like; the same both ways.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Settings {
    /// Bits a second, headers of IP and above included.
    pub rate: u64,
    /// How long a packet is under way, one way, after its last bit was sent.
    pub delay: Duration,
    /// How many of a million packets are lost, each by itself.
    pub loss: u32,
    /// Bytes that wait to be sent; a packet that does not fit is dropped.
    pub queue: u64,
    /// Which packets are lost: the same seed and the same packets lose the same ones.
    pub seed: u64,
}

/// One direction.
pub struct Shaper {
    settings: Settings,
    random: Random,
    /// When the last bit of the last packet that was taken is sent.
    free: Duration,
    /// What happened so far.
    pub counts: Counts,
}

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Bytes that went through.
    pub bytes: u64,
    /// Packets that went through.
    pub packets: u64,
    /// Packets lost by chance.
    pub lost: u64,
    /// Packets dropped because the queue was full.
    pub dropped: u64,
}

impl Shaper {
    /// A direction on which nothing is under way.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            random: Random::new(settings.seed),
            free: Duration::ZERO,
            counts: Counts::default(),
        }
    }

    /// A packet of `len` bytes comes at `now`: when it arrives, or nothing if it never does.
    /// Times that are handed out never go back, so packets keep their order.
    pub fn offer(&mut self, now: Duration, len: usize) -> Option<Duration> {
        let begin = self.free.max(now);
        if self.bytes_in(begin - now) + len as u64 > self.settings.queue {
            self.counts.dropped += 1;
            return None;
        }
        // A packet that is lost on the way has taken its time on the line before.
        self.free = begin + self.time_of(len as u64);
        if self.random.below(1_000_000) < u64::from(self.settings.loss) {
            self.counts.lost += 1;
            return None;
        }
        self.counts.packets += 1;
        self.counts.bytes += len as u64;
        Some(self.free + self.settings.delay)
    }

    fn time_of(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(self.settings.rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Bytes that are sent in `time`.
    fn bytes_in(&self, time: Duration) -> u64 {
        let bytes = time.as_nanos() * u128::from(self.settings.rate) / 8 / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Settings, Shaper};

    const SETTINGS: Settings = Settings {
        rate: 100_000_000,
        delay: Duration::from_millis(50),
        loss: 0,
        queue: 1_250_000,
        seed: 1,
    };

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_packet_alone_takes_its_length_and_the_delay() {
        let mut link = Shaper::new(SETTINGS);
        // 1,250 bytes are 10,000 bits: a tenth of a millisecond.
        let arrives = link.offer(ms(7), 1250);
        assert_eq!(arrives, Some(ms(57) + Duration::from_micros(100)));
    }

    #[test]
    fn as_much_as_the_rate_allows_goes_through_and_in_order() {
        let mut link = Shaper::new(SETTINGS);
        let mut last = Duration::ZERO;
        // Twice the rate is offered for two seconds.
        let mut through = 0;
        for n in 0..40_000_u64 {
            let now = Duration::from_micros(n * 50);
            if let Some(at) = link.offer(now, 1250) {
                assert!(at >= last && at >= now + SETTINGS.delay);
                last = at;
                through += 1250;
            }
        }
        // 25 MB in two seconds, and what waits in the queue at the end.
        assert!((25_000_000..=26_260_000).contains(&through), "{through}");
        assert_eq!(link.counts.bytes, through);
        assert!(link.counts.dropped > 0 && link.counts.lost == 0);
    }

    #[test]
    fn the_queue_is_bounded_and_empties() {
        let mut link = Shaper::new(Settings {
            queue: 10_000,
            ..SETTINGS
        });
        let taken = |link: &mut Shaper, now| (0..20).filter_map(|_| link.offer(now, 1000)).count();
        assert_eq!(taken(&mut link, ms(0)), 10);
        assert_eq!(link.counts.dropped, 10);
        // 10,000 bytes need 0.8 ms.
        assert_eq!(taken(&mut link, ms(1)), 10);
    }

    #[test]
    fn the_same_seed_loses_the_same_packets_about_as_often_as_told() {
        let run = |seed| {
            let mut link = Shaper::new(Settings {
                loss: 10_000,
                seed,
                ..SETTINGS
            });
            let fate: Vec<bool> = (0..100_000)
                .map(|n| link.offer(ms(n), 100).is_some())
                .collect();
            (fate, link.counts.lost)
        };
        let (one, lost) = run(1);
        assert_eq!(run(1), (one.clone(), lost));
        assert_ne!(run(2).0, one);
        assert!((800..1200).contains(&lost), "{lost}");
    }
}
