//! Compression where it saves time: the asker says how fast bytes come to it, as only it knows whether it
//! waits for them. On a link that is faster than [`FASTEST`] nothing is compressed, nor what a sample shows
//! not to yield.

use std::time::{Duration, Instant};

use super::super::frame::FrameKind;

/// Bytes a second of a link from which on nothing is compressed: less than a gigabit.
const FASTEST: u64 = 80_000_000;
/// Levels of zstd and about how many bytes a second each takes in; what was measured last corrects
/// all of them.
const LEVELS: [(i32, f64); 4] = [(1, 300e6), (3, 150e6), (6, 60e6), (9, 30e6)];
/// Smaller payloads are not worth a compressor's start.
const SMALLEST: usize = 512;
/// Longer payloads are judged by a sample of this length first.
const SAMPLE: usize = 16 * 1024;
/// How many bytes are sent as they are after some that did not yield: more each time.
const SKIP_FIRST: u64 = 1 << 20;
const SKIP_MOST: u64 = 64 << 20;

/// After so many bytes sent it is seen whether the asker told the truth: buffers on the way swallow
/// less than that at once.
const LOOK_AFTER: u64 = 32 << 20;
/// One that takes so many times what it told is not believed: compressing costs more than sending.
const TOO_MANY: u64 = 4;

/// A measure that slowly forgets.
#[derive(Clone, Copy, Default)]
struct Pace {
    bytes: f64,
    seconds: f64,
}

impl Pace {
    fn add(&mut self, bytes: usize, time: Duration) {
        if self.bytes > 8e6 {
            self.bytes /= 2.0;
            self.seconds /= 2.0;
        }
        self.bytes += bytes as f64;
        self.seconds += time.as_secs_f64();
    }

    /// Bytes a second, once there is enough to tell.
    fn rate(&self) -> Option<f64> {
        (self.bytes > 256e3).then(|| self.bytes / self.seconds.max(1e-9))
    }
}

/// Decides what is compressed, and does it.
pub(super) struct Packer {
    /// The asker takes compressed payloads.
    zstd: bool,
    /// What the asker said last.
    rate: u64,
    /// Bytes sent since `sent_since`, and how many a second it took when that was last looked at.
    sent: u64,
    sent_since: Instant,
    taken: u64,
    /// How fast payloads are made here.
    made: Pace,
    /// How fast payloads are compressed, as a multiple of what [`LEVELS`] says.
    speed: f64,
    /// What remained of the payloads compressed last.
    ratio: f64,
    zip: Option<zstd::bulk::Compressor<'static>>,
    packed: Vec<u8>,
    /// Bytes that are still to be sent as they are, and how many after the next that do not yield.
    skip: u64,
    next_skip: u64,
}

impl Packer {
    pub(super) fn new(zstd: bool) -> Self {
        Self {
            zstd,
            rate: 0,
            sent: 0,
            sent_since: Instant::now(),
            taken: 0,
            made: Pace::default(),
            speed: 1.0,
            ratio: 0.5,
            zip: None,
            packed: Vec::new(),
            skip: 0,
            next_skip: SKIP_FIRST,
        }
    }

    /// The asker gets so many bytes a second; 0: it does not wait for them.
    pub(super) fn told(&mut self, rate: u64) {
        self.rate = rate;
    }

    /// So many bytes went out.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        if self.sent >= LOOK_AFTER {
            let seconds = self.sent_since.elapsed().as_secs_f64().max(1e-9);
            self.taken = (self.sent as f64 / seconds) as u64;
            (self.sent, self.sent_since) = (0, Instant::now());
        }
    }

    /// Another file is served: what was seen of the last one says nothing of it.
    pub(super) fn other_file(&mut self) {
        self.skip = 0;
        self.next_skip = SKIP_FIRST;
    }

    /// A payload was made in this time.
    pub(super) fn made(&mut self, bytes: usize, time: Duration) {
        if self.zstd {
            self.made.add(bytes, time);
        }
    }

    /// The compressed payload, where that is worth it.
    pub(super) fn pack(&mut self, kind: FrameKind, payload: &[u8]) -> Option<&[u8]> {
        let yields = matches!(
            kind,
            FrameKind::Data | FrameKind::Segment | FrameKind::Chunks
        );
        if !self.zstd || !yields || payload.len() < SMALLEST {
            return None;
        }
        if self.taken / TOO_MANY > self.rate {
            return None;
        }
        let level = level(self.rate, self.made.rate(), self.speed, self.ratio)?;
        let len = payload.len() as u64;
        if self.skip >= len {
            self.skip -= len;
            return None;
        }
        self.skip = 0;
        let middle = payload.len() / 2;
        let sample = payload.get(middle..middle + SAMPLE);
        let packed = match sample.is_none_or(|s| self.squeeze(1, s).is_some()) {
            true => self.timed(level, payload),
            false => None,
        };
        match packed {
            Some(len) => {
                self.next_skip = SKIP_FIRST;
                Some(&self.packed[..len])
            }
            None => {
                self.skip = self.next_skip;
                self.next_skip = (2 * self.next_skip).min(SKIP_MOST);
                None
            }
        }
    }

    fn timed(&mut self, level: i32, payload: &[u8]) -> Option<usize> {
        let start = Instant::now();
        let packed = self.squeeze(level, payload);
        let seconds = start.elapsed().as_secs_f64().max(1e-9);
        let usual = LEVELS.iter().find(|(l, _)| *l == level)?.1;
        let seen = payload.len() as f64 / seconds / usual;
        self.speed = (0.8 * self.speed + 0.2 * seen).clamp(0.02, 20.0);
        let remains = packed? as f64 / payload.len() as f64;
        self.ratio = 0.8 * self.ratio + 0.2 * remains;
        packed
    }

    /// Compresses into `packed`; the length if at least a sixteenth was saved.
    fn squeeze(&mut self, level: i32, bytes: &[u8]) -> Option<usize> {
        let room = bytes.len() - bytes.len() / 16 - 1;
        if self.packed.len() < room {
            self.packed.resize(room, 0);
        }
        let zip = match &mut self.zip {
            Some(zip) => zip,
            none => none.insert(zstd::bulk::Compressor::new(level).ok()?),
        };
        zip.set_compression_level(level).ok()?;
        // Fails when it does not fit: then it does not yield.
        zip.compress_to_buffer(bytes, &mut self.packed[..room]).ok()
    }
}

/// The best level that keeps up with a link of `rate` bytes a second, if there is one: the
/// compressor must take in twice what the link carries when only `ratio` of the bytes remain.
/// `made`: bytes a second that are read here. When that is what the asker waits for, compressing would
/// only add to it.
fn level(rate: u64, made: Option<f64>, speed: f64, ratio: f64) -> Option<i32> {
    let link = rate as f64;
    if rate == 0 || rate > FASTEST || made.is_some_and(|made| made < 2.0 * link) {
        return None;
    }
    let needed = 2.0 * link / ratio.clamp(0.01, 1.0);
    let keeps_up = |(_, usual): &&(i32, f64)| usual * speed >= needed;
    let least = LEVELS[0];
    let best = LEVELS.iter().rev().find(keeps_up);
    // The lowest level is worth it even where it takes up all the time, if it is faster than the link.
    let best = best.or((least.1 * speed >= 2.0 * link).then_some(&LEVELS[0]));
    best.map(|(level, _)| *level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_the_link_the_higher_the_level() {
        let at = |rate| level(rate, None, 1.0, 0.5);
        assert_eq!(at(0), None, "the asker does not wait");
        assert_eq!(at(500_000_000), None);
        assert_eq!(at(100_000_000), None);
        assert_eq!(at(70_000_000), Some(1));
        assert_eq!(at(30_000_000), Some(3));
        assert_eq!(at(12_000_000), Some(6));
        assert_eq!(at(1_000_000), Some(9));
    }

    #[test]
    fn a_slow_compressor_or_disk_is_not_made_slower() {
        assert_eq!(level(12_000_000, None, 0.1, 0.5), Some(1));
        assert_eq!(level(12_000_000, None, 0.05, 0.5), None);
        assert_eq!(level(12_000_000, Some(15e6), 1.0, 0.5), None);
        // All but nothing remains: the compressor is what the asker waits for.
        assert_eq!(level(3_000_000, None, 1.0, 0.01), Some(1));
    }

    #[test]
    fn what_does_not_yield_is_left_alone_for_longer_and_longer() {
        let noise = {
            let mut bytes = vec![0; 1 << 20];
            blake3::Hasher::new().finalize_xof().fill(&mut bytes);
            bytes
        };
        let text = b"all work and no play ".repeat(50_000);
        let mut packer = Packer::new(true);
        assert!(packer.pack(FrameKind::Segment, &text).is_none(), "no rate");
        packer.told(5_000_000);
        let packed = packer.pack(FrameKind::Segment, &text).map(<[u8]>::len);
        assert!(packed.is_some_and(|len| len < text.len() / 100));
        assert!(packer.pack(FrameKind::List, &text).is_none());
        let mut tried = 0;
        for _ in 0..64 {
            let before = packer.skip;
            assert!(packer.pack(FrameKind::Segment, &noise).is_none());
            tried += u32::from(packer.skip > before);
        }
        assert!((4..10).contains(&tried), "{tried}");
        packer.other_file();
        assert!(packer.pack(FrameKind::Segment, &text).is_some());
        packer.sent(LOOK_AFTER as usize);
        assert!(packer.pack(FrameKind::Segment, &text).is_none(), "a lie");
        let mut old = Packer::new(false);
        old.told(5_000_000);
        assert!(old.pack(FrameKind::Segment, &text).is_none());
    }
}
