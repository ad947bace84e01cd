//! How many connections are taken, and how much is logged about those that are not.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits of accepted connections. What is over is dropped at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections that are not yet a lane.
    pub opening: usize,
    /// The same from one IPv4 address or one IPv6 /64 network.
    pub opening_per_ip: usize,
    /// All accepted connections.
    pub total: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            opening: 256,
            opening_per_ip: 32,
            total: 1024,
        }
    }
}

/// An accepted connection's place; freed on drop.
#[derive(Debug)]
pub(super) struct Slot(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// Counts connections.
pub(super) struct Admission {
    limits: Limits,
    total: Arc<Semaphore>,
    opening: Arc<Mutex<Opening>>,
}

#[derive(Default)]
struct Opening {
    all: usize,
    by_ip: HashMap<IpAddr, usize>,
}

/// A place among the connections that are not yet a lane; freed on drop.
pub(super) struct OpeningSlot {
    opening: Arc<Mutex<Opening>>,
    ip: IpAddr,
}

impl Drop for OpeningSlot {
    fn drop(&mut self) {
        let mut opening = lock(&self.opening);
        opening.all -= 1;
        if let Some(count) = opening.by_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                opening.by_ip.remove(&self.ip);
            }
        }
    }
}

impl Admission {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            total: Arc::new(Semaphore::new(limits.total)),
            opening: Arc::default(),
        }
    }

    /// A place for a connection from `ip`, if there is one.
    pub(super) fn enter(&self, ip: IpAddr) -> Option<(Slot, OpeningSlot)> {
        let ip = network(ip);
        let total = self.total.clone().try_acquire_owned().ok()?;
        let mut opening = lock(&self.opening);
        let from_ip = opening.by_ip.get(&ip).copied().unwrap_or(0);
        if opening.all >= self.limits.opening || from_ip >= self.limits.opening_per_ip {
            return None;
        }
        opening.all += 1;
        opening.by_ip.insert(ip, from_ip + 1);
        drop(opening);
        let place = OpeningSlot {
            opening: self.opening.clone(),
            ip,
        };
        Some((Slot(total), place))
    }
}

fn lock(opening: &Mutex<Opening>) -> std::sync::MutexGuard<'_, Opening> {
    opening.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One customer usually has a whole IPv6 /64.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let bits = ip.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
        v4 => v4,
    }
}

/// Keeps strangers from filling the log: so many lines a minute, the rest at debug level.
#[derive(Default)]
pub(super) struct LogBudget(Mutex<Option<(Instant, u32)>>);

const LOG_WINDOW: Duration = Duration::from_secs(60);
const LOG_LINES: u32 = 60;

impl LogBudget {
    /// Whether one more line may be written now.
    pub(super) fn take(&self, now: Instant) -> bool {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *window {
            Some((since, lines)) if now.duration_since(*since) < LOG_WINDOW => {
                *lines = lines.saturating_add(1);
                *lines <= LOG_LINES
            }
            _ => {
                *window = Some((now, 1));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_network_and_gives_back() {
        let admission = Admission::new(Limits {
            opening: 4,
            opening_per_ip: 2,
            total: 5,
        });
        let enter = |ip: &str| admission.enter(ip.parse().unwrap());
        let first = enter("10.0.0.1").unwrap();
        let _second = enter("::ffff:10.0.0.1").unwrap();
        assert!(enter("10.0.0.1").is_none(), "two of one address");
        let _third = enter("2001:db8::1").unwrap();
        let (_slot, opened) = enter("2001:db8::2").unwrap();
        assert!(enter("2001:db8::3").is_none(), "two of one network");
        assert!(enter("10.0.0.2").is_none(), "four opening");
        drop(opened);
        let _other = enter("10.0.0.2").unwrap();
        drop(first);
        let _again = enter("10.0.0.1").unwrap();
        assert!(enter("10.0.0.3").is_none(), "five in all");
    }

    #[test]
    fn the_log_rests_after_a_burst() {
        let budget = LogBudget::default();
        let start = Instant::now();
        let taken = (0..1000).filter(|_| budget.take(start)).count();
        assert_eq!(taken, LOG_LINES as usize);
        assert!(budget.take(start + LOG_WINDOW));
    }
}
