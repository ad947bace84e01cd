//! One-shot transfer: [`send`] serves files and folders to whoever has the ticket, [`get`] fetches
//! them, and nobody becomes a member of anything.
//!
//! On the wire it is a share that lives as long as the sending process, of which the fetching device
//! sees the index and asks for contents (docs/protocol.md, "One-shot"). Neither side makes a share: the
//! sender keeps its list in memory and its manifests in a temporary folder of `LEFT_HOME`, the receiver
//! works in a folder of its own ([`room`]) that is gone when all is there. What was received goes into
//! place by [`apply`](crate::disk::apply()), as everywhere.
//!
//! Neither needs, disturbs or is disturbed by a running left of the same device.

mod door;
mod getting;
mod listing;
mod receive;
mod room;
mod send;
mod serving;
mod tree;
mod work;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Sender;
use left_core::path::RelPath;
use left_core::version::DeviceId;
use serde::Serialize;

use crate::home::text;

pub use listing::InTheWay;
pub use receive::{Got, Receive, get};
pub use send::{Send, Sent, send};

/// What happens. In JSON an object with the field `event`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Sending: the ticket is ready.
    Ticket {
        /// The ticket, `left1...`.
        ticket: String,
        /// The command for the other machine.
        get_line: String,
        /// Unix seconds after which it is void.
        expires: u64,
        /// Any number of devices may fetch.
        keep: bool,
        /// Where this process listens, `host:port`.
        listen: Vec<String>,
    },
    /// All that is sent is read, or at the receiver: known.
    Listed {
        /// Files and links.
        files: u64,
        /// Bytes of all files.
        bytes: u64,
    },
    /// Something is not sent.
    Skipped {
        /// What.
        path: String,
        /// Why.
        why: String,
    },
    /// The other side is connected.
    Connected {
        /// Who.
        #[serde(with = "text")]
        device: DeviceId,
        /// Its name.
        name: String,
        /// Where it is.
        address: String,
    },
    /// The connection ended before all was fetched.
    Lost {
        /// With whom.
        #[serde(with = "text")]
        device: DeviceId,
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// How far a receiver is.
    Progress {
        /// Which, at the sender; at the receiver: the sender.
        #[serde(with = "text")]
        device: DeviceId,
        /// Bytes that are there.
        done: u64,
        /// Bytes of all files.
        total: u64,
        /// Bytes a second.
        rate: u64,
        /// Seconds that it takes still, at this rate.
        seconds_left: Option<u64>,
    },
    /// Sending: a device has everything.
    Fetched {
        /// Who.
        #[serde(with = "text")]
        device: DeviceId,
        /// Its name.
        name: String,
        /// Where it is.
        address: String,
    },
    /// Sending: somebody was turned away.
    Refused {
        /// Where it is.
        address: String,
        /// Who.
        #[serde(with = "text")]
        device: DeviceId,
        /// Why; it was not told that.
        why: String,
    },
    /// Receiving: everything is in place.
    Got(Got),
    /// Something worth knowing.
    Notice {
        /// What.
        text: String,
    },
}

/// Asks a transfer to end, from any thread.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Stopping>);

#[derive(Debug, Default)]
struct Stopping {
    stopped: AtomicBool,
    wakers: Mutex<Vec<Sender<()>>>,
}

impl Stop {
    /// Asks to end. Again does nothing.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        for waker in lock(&self.0.wakers).iter() {
            // Full: it is awake already.
            let _ = waker.try_send(());
        }
    }

    /// Whether the end was asked for.
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }

    /// Has [`stop`](Self::stop) send there.
    fn wake(&self, waker: Sender<()>) {
        if self.is_stopped() {
            let _ = waker.try_send(());
        }
        lock(&self.0.wakers).push(waker);
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A path for people.
fn shown(path: &RelPath) -> String {
    use std::os::unix::ffi::OsStrExt;
    crate::home::clean(std::path::Path::new(std::ffi::OsStr::from_bytes(
        path.as_bytes(),
    )))
}

fn unix_now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}

/// Bytes a second over the last seconds, from counts that only grow.
#[derive(Debug, Default)]
struct Meter {
    seen: std::collections::VecDeque<(std::time::Instant, u64)>,
}

impl Meter {
    const SPAN: std::time::Duration = std::time::Duration::from_secs(5);

    fn rate(&mut self, now: std::time::Instant, count: u64) -> u64 {
        self.seen.push_back((now, count));
        while self.seen.len() > 2 && now.duration_since(self.seen[0].0) > Self::SPAN {
            self.seen.pop_front();
        }
        let (then, before) = self.seen[0];
        let ms = u64::try_from(now.duration_since(then).as_millis()).unwrap_or(u64::MAX);
        let bytes = count.saturating_sub(before);
        u64::try_from(u128::from(bytes) * 1000 / u128::from(ms.max(1))).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_rate_is_of_the_last_seconds() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut meter = Meter::default();
        assert_eq!(meter.rate(at(0), 5000), 0);
        assert_eq!(meter.rate(at(1), 6000), 1000);
        assert_eq!(meter.rate(at(3), 8000), 1000);
        assert_eq!(meter.rate(at(60), 8000), 0);
        // Counts go back when files vanish.
        assert_eq!(meter.rate(at(61), 100), 0);
    }

    #[test]
    fn a_stop_wakes_whoever_waits_also_later() {
        let stop = Stop::default();
        let (tx, rx) = crossbeam_channel::bounded(1);
        stop.wake(tx);
        assert!(!stop.is_stopped() && rx.try_recv().is_err());
        stop.stop();
        stop.stop();
        assert!(stop.is_stopped() && rx.try_recv().is_ok());
        let (tx, rx) = crossbeam_channel::bounded(1);
        stop.wake(tx);
        assert!(rx.try_recv().is_ok());
    }
}
