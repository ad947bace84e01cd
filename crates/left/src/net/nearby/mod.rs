//! Members on one network find each other: multicast DNS (RFC 6762) and DNS-SD (RFC 6763), as much
//! of them as it takes.
//!
//! On each interface a device says "a left listens here, on this port" under a random name, with a
//! [`tag`] that only who knows its id can recognise. What others say is looked at and forgotten:
//! nothing of it is kept here, so nothing can be filled up, and the address is the one that the
//! packet came from, not one that it names. It is a hint where to dial; TLS proves who is there.
//!
//! Not the crate `mdns-sd`: what it caches of strangers' answers has no bound, it looks for new
//! interfaces every few seconds, and it does not tell where an answer came from.

mod packet;
mod place;
pub mod tag;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use left_core::version::DeviceId;
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use packet::{Heard, MAX_PACKET};
use place::Place;
use tag::{Nonce, Tag, tag};

/// The port of multicast DNS.
pub const PORT: u16 = 5353;
/// When a question is asked after the start, in seconds; then every [`ASK_EVERY`].
const ASK_AT: [u64; 8] = [0, 1, 3, 7, 15, 31, 63, 127];
const ASK_EVERY: Duration = Duration::from_secs(300);
/// With the first so many questions this device also says where it is, unasked.
const SAY_UNASKED: usize = 3;
/// Where somebody is missed, a question is asked out of turn, this often at most.
const MISSED_EVERY: Duration = Duration::from_secs(2);
/// An answer goes out this long after the question, so that one answer does for many.
const ANSWER_AFTER: Duration = Duration::from_millis(40);
/// Answers go out this often at most.
const ANSWER_EVERY: Duration = Duration::from_secs(1);
/// Packets looked at: this many at once, and this many a second. One that speaks of left counts as
/// several. What comes beyond is dropped by the kernel.
const BURST: f64 = 600.0;
const PER_SECOND: f64 = 300.0;
const OURS_COST: f64 = 10.0;
/// How long nothing is read when that is used up, or when reading fails.
const REST: Duration = Duration::from_millis(200);

/// Somebody says where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// What the tag was made with.
    pub nonce: Nonce,
    /// Recognised by who knows the device: see [`tag()`].
    pub tag: Tag,
    /// Where the packet came from, with the port that it names.
    pub address: SocketAddr,
}

/// How it goes with finding others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Interfaces on which this device asks and listens.
    pub interfaces: Vec<String>,
    /// Why some or all do not do.
    pub problems: Vec<String>,
}

/// Asks, listens and answers until it is dropped.
#[derive(Debug)]
pub struct Nearby {
    tasks: Vec<JoinHandle<()>>,
    missed: watch::Sender<()>,
    reach: Reach,
}

type OnSight = dyn Fn(Sighting) + Send + Sync;

/// What all interfaces share.
struct Voice {
    nonce: Nonce,
    tag: Tag,
    /// Where this device listens; `None`: it only asks.
    port: Option<u16>,
    budget: Mutex<Budget>,
    on_sight: Box<OnSight>,
}

impl Nearby {
    /// Begins on every interface that can multicast. A device that listens on the address `only` says
    /// so only there. `on_sight` must not block.
    pub fn start(
        runtime: &Handle,
        device: DeviceId,
        listening: Option<SocketAddr>,
        on_sight: impl Fn(Sighting) + Send + Sync + 'static,
    ) -> Self {
        let mut nonce = [0; 16];
        let random = aws_lc_rs::rand::fill(&mut nonce).is_ok();
        let voice = Arc::new(Voice {
            nonce,
            tag: tag(device, &nonce),
            // Without random numbers nothing is said.
            port: listening.filter(|_| random).map(|a| a.port()),
            budget: Mutex::new(Budget::new()),
            on_sight: Box::new(on_sight),
        });
        let only = listening.map(|a| a.ip()).filter(|ip| !ip.is_unspecified());
        let (missed, _) = watch::channel(());
        let mut reach = Reach::default();
        let mut tasks = Vec::new();
        let _inside = runtime.enter();
        for place in place::all() {
            match place.open() {
                Ok(socket) => {
                    reach.interfaces.push(place.name.clone());
                    let says = only.is_none_or(|ip| place.has(ip));
                    let hears = missed.subscribe();
                    tasks.push(runtime.spawn(attend(socket, place, says, voice.clone(), hears)));
                }
                Err(error) => reach.problems.push(format!("{}: {error}", place.name)),
            }
        }
        reach.interfaces.dedup();
        Self {
            tasks,
            missed,
            reach,
        }
    }

    /// Asks once more, soon: somebody is missed.
    pub fn ask(&self) {
        // Nobody listens where no interface can multicast.
        let _ = self.missed.send(());
    }

    /// How it goes.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }
}

impl Drop for Nearby {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Asks, listens and answers on one interface.
async fn attend(
    socket: UdpSocket,
    place: Place,
    says: bool,
    voice: Arc<Voice>,
    mut missed: watch::Receiver<()>,
) {
    let said = voice.port.filter(|_| says);
    let said = said.and_then(|port| packet::answer(&voice.nonce, &voice.tag, port, place.ip()));
    let Some(question) = packet::question() else {
        return;
    };
    let mut buffer = [0; MAX_PACKET];
    let mut beats = 0;
    let start = Instant::now();
    let (mut ask_at, mut asked) = (start, start);
    let mut answer_at: Option<Instant> = None;
    let mut answered: Option<Instant> = None;
    loop {
        let now = Instant::now();
        if ask_at <= now {
            // Lost where the interface is down: then there is nobody to ask.
            let _ = socket.send_to(&question, place.group()).await;
            asked = now;
            if beats < SAY_UNASKED {
                answer_at = Some(now);
            }
            beats += 1;
            ask_at = match ASK_AT.get(beats) {
                Some(s) => (start + Duration::from_secs(*s)).max(now + Duration::from_secs(1)),
                None => now + ASK_EVERY,
            };
        }
        if answer_at.is_some_and(|at| at <= now) {
            answer_at = None;
            answered = Some(now);
            if let Some(said) = &said {
                let _ = socket.send_to(said, place.group()).await;
            }
        }
        let wake = answer_at.map_or(ask_at, |at| at.min(ask_at));
        tokio::select! {
            got = socket.recv_from(&mut buffer) => {
                let Ok((len, from)) = got else {
                    sleep(REST).await;
                    continue;
                };
                let ours = packet::speaks_of_left(&buffer[..len]);
                if !voice.affords(if ours { OURS_COST } else { 1.0 }) {
                    sleep(REST).await;
                } else if ours {
                    match packet::read(&buffer[..len]) {
                        Heard::Question => {
                            let soon = Instant::now() + ANSWER_AFTER;
                            let again = answered.map_or(soon, |at| soon.max(at + ANSWER_EVERY));
                            answer_at.get_or_insert(again);
                        }
                        Heard::Answer { nonce, tag, port } if place.is_neighbour(from.ip()) => {
                            let address = place.dialable(from.ip(), port);
                            (voice.on_sight)(Sighting { nonce, tag, address });
                        }
                        Heard::Answer { .. } | Heard::Nothing => {}
                    }
                }
            }
            Ok(()) = missed.changed() => {
                ask_at = ask_at.min((asked + MISSED_EVERY).max(Instant::now()));
            }
            () = sleep_until(wake) => {}
        }
    }
}

impl Voice {
    fn affords(&self, cost: f64) -> bool {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.take(Instant::now(), cost)
    }
}

/// A token bucket for all interfaces together.
struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    fn new() -> Self {
        Self {
            left: BURST,
            at: Instant::now(),
        }
    }

    fn take(&mut self, now: Instant, cost: f64) -> bool {
        let gone = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + gone * PER_SECOND).min(BURST);
        self.at = now;
        let affords = self.left >= cost;
        if affords {
            self.left -= cost;
        }
        affords
    }
}

/// Whether this process may take part at all; why not, if it may not. For `left doctor`.
pub fn probe() -> Reach {
    let mut reach = Reach::default();
    for place in place::all() {
        match place.try_open() {
            Ok(()) => reach.interfaces.push(place.name.clone()),
            Err(error) => reach.problems.push(format!("{}: {error}", place.name)),
        }
    }
    reach.interfaces.dedup();
    reach
}

/// Whether an address says something on this interface only.
pub(super) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => (ip.segments()[0] & 0xffc0) == 0xfe80,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_not_looked_at() {
        let mut budget = Budget::new();
        let now = Instant::now();
        let looked = (0..10_000).filter(|_| budget.take(now, OURS_COST)).count();
        assert_eq!(looked, (BURST / OURS_COST) as usize);
        let later = now + Duration::from_secs(1);
        let looked = (0..10_000)
            .filter(|_| budget.take(later, OURS_COST))
            .count();
        assert_eq!(looked, (PER_SECOND / OURS_COST) as usize);
    }
}
