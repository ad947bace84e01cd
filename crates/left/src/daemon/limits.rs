//! How many bytes a second data lanes may carry: a token bucket a direction, for a share and for the
//! whole device, and the hours of the latter. Control lanes are never held back.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Zoned;

use crate::home::{BandwidthConfig, Rate};
use crate::net::BlockingTls;

/// What may be carried at once after a rest, in time: 100 ms at the rate.
const BURST_PART: u64 = 10;
/// Bytes that are asked for at once, so that a change of the rate is soon felt.
const PIECE: usize = 16 << 10;
/// Fewer are not read at once at a low rate.
const LEAST_PIECE: u64 = 512;
/// How long a wait goes on before the rate is looked at again.
const SLICE: Duration = Duration::from_millis(100);
/// How often the hours and `config.toml` are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(10);

/// One direction.
#[derive(Debug, Default)]
struct Bucket {
    /// Bytes a second; 0: no limit.
    rate: AtomicU64,
    /// Until when what was carried is paid for.
    paid: Mutex<Option<Instant>>,
}

impl Bucket {
    /// Returns when `n` more bytes may be carried.
    fn take(&self, n: usize) {
        let mut due: Option<Instant> = None;
        loop {
            let rate = self.rate.load(Ordering::Relaxed);
            if rate == 0 {
                return;
            }
            let now = Instant::now();
            let at = *due.get_or_insert_with(|| pay(&mut lock(&self.paid), now, n as u64, rate));
            let rest = at.saturating_duration_since(now);
            if rest.is_zero() {
                return;
            }
            std::thread::sleep(rest.min(SLICE));
            // Another rate: what is waited for counts anew by it.
            if self.rate.load(Ordering::Relaxed) != rate {
                *lock(&self.paid) = None;
                due = None;
            }
        }
    }
}

/// Adds `n` bytes to what is paid for, and tells when they may go.
fn pay(paid: &mut Option<Instant>, now: Instant, n: u64, rate: u64) -> Instant {
    let burst = Duration::from_secs(1) / BURST_PART as u32;
    let from = paid
        .unwrap_or(now)
        .max(now.checked_sub(burst).unwrap_or(now));
    let cost = Duration::from_nanos(n.saturating_mul(1_000_000_000) / rate);
    *paid = Some(from + cost);
    from
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Both directions of a share, or of the device.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    up: Bucket,
    down: Bucket,
}

impl Limiter {
    /// Sets both rates at once, in bytes a second; `None`: no limit.
    /// Whether they were others before.
    pub(crate) fn set(&self, rate: Rate) -> bool {
        let set = |b: &Bucket, rate: Option<u64>| {
            let rate = rate.unwrap_or(0);
            b.rate.swap(rate, Ordering::Relaxed) != rate
        };
        set(&self.up, rate.up) | set(&self.down, rate.down)
    }
}

/// All that holds one lane back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits(Vec<Arc<Limiter>>);

impl Limits {
    pub(crate) fn new(all: impl IntoIterator<Item = Arc<Limiter>>) -> Limits {
        Limits(all.into_iter().collect())
    }

    /// Returns when `n` bytes may be sent.
    fn up(&self, n: usize) {
        self.0.iter().for_each(|l| l.up.take(n));
    }

    /// Returns when what follows `n` received bytes may be received.
    fn down(&self, n: usize) {
        self.0.iter().for_each(|l| l.down.take(n));
    }

    /// Bytes to receive at once: of a low rate what it gives in 100 ms, so that a lane which is held
    /// back here does not look like one on which nothing comes.
    fn down_piece(&self) -> usize {
        let rates = self.0.iter().map(|l| l.down.rate.load(Ordering::Relaxed));
        let least = rates.filter(|rate| *rate > 0).min().unwrap_or(u64::MAX);
        (least / BURST_PART).clamp(LEAST_PIECE, PIECE as u64) as usize
    }

    /// Whether any limit is set now.
    fn any(&self) -> bool {
        let set = |b: &Bucket| b.rate.load(Ordering::Relaxed) != 0;
        self.0.iter().any(|l| set(&l.up) || set(&l.down))
    }
}

/// A lane's stream that keeps to the limits, and tells when it is given up.
pub(crate) struct Limited {
    stream: BlockingTls,
    limits: Limits,
    ended: Option<Box<dyn FnOnce() + Send>>,
}

impl Limited {
    pub(crate) fn new(
        stream: BlockingTls,
        limits: Limits,
        ended: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self {
            stream,
            limits,
            ended: Some(Box::new(ended)),
        }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended();
        }
    }
}

impl io::Read for Limited {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.limits.any() {
            return self.stream.read(buf);
        }
        let piece = buf.len().min(self.limits.down_piece());
        let n = self.stream.read(&mut buf[..piece])?;
        self.limits.down(n);
        Ok(n)
    }
}

impl io::Write for Limited {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if !self.limits.any() {
            return self.stream.write(buf);
        }
        let piece = &buf[..buf.len().min(PIECE)];
        self.limits.up(piece.len());
        self.stream.write(piece)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The device's rate at a time of day.
pub(crate) fn rate_at(config: &BandwidthConfig, now: &Zoned) -> Rate {
    let minute = now.hour() as u16 * 60 + now.minute() as u16;
    let hit = config.hours.iter().find(|h| h.holds(minute));
    hit.map_or(config.rate, |h| h.rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_paid_for_with_time() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut paid = None;
        let ms = |t: Instant| t.saturating_duration_since(start).as_millis();
        // 1,000 bytes a second: the first may go at once, each next one when those before are paid.
        assert_eq!(ms(pay(&mut paid, start, 500, 1000)), 0);
        assert_eq!(ms(pay(&mut paid, start, 500, 1000)), 500);
        assert_eq!(ms(pay(&mut paid, start, 500, 1000)), 1000);
        // A long rest is worth no more than the burst.
        let later = start + Duration::from_secs(60);
        assert_eq!(ms(pay(&mut paid, later, 200, 1000)), 59_900);
        assert_eq!(ms(pay(&mut paid, later, 200, 1000)), 60_100);
    }

    #[test]
    fn at_a_low_rate_little_is_read_at_once() {
        let [share, device] = [(); 2].map(|()| Arc::new(Limiter::default()));
        let limits = Limits::new([share.clone(), device.clone()]);
        let down = |rate| Rate {
            up: None,
            down: Some(rate),
        };
        assert_eq!(limits.down_piece(), PIECE);
        share.set(down(50_000));
        device.set(down(1_000_000_000));
        assert_eq!(limits.down_piece(), 5_000);
        device.set(down(100));
        assert_eq!(limits.down_piece(), LEAST_PIECE as usize);
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let limits = Limits::new([Arc::new(Limiter::default())]);
        assert!(!limits.any());
        for _ in 0..1000 {
            limits.up(1 << 30);
            limits.down(1 << 30);
        }
    }
}
