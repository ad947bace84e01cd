//! Our own link: two TUN devices and, between them, threads that hold each packet back as a line
//! of a given rate, delay, loss and queue would. For machines whose kernel has no netem.
//!
//! Floors: `shaper` (the arithmetic) · this file (devices, threads, the clock).

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tappers::{Interface, Tun};

mod shaper;

use shaper::Shaper;
pub use shaper::{Counts, Settings};

/// The largest packet a TUN device gives.
const PACKET: usize = 1 << 16;
/// How long a thread may not notice that the link is to end.
const LOOK_UP: Duration = Duration::from_millis(100);
/// Below this a thread does not sleep: waking takes about as long.
const SHORT: Duration = Duration::from_micros(60);

/// A running link; dropped, its devices are gone.
pub struct Link {
    stop: Arc<AtomicBool>,
    ways: [Arc<Way>; 2],
    threads: Vec<JoinHandle<()>>,
}

/// One direction: packets in the order of their arrival, with the time of it.
struct Way {
    state: Mutex<State>,
    filled: Condvar,
}

struct State {
    shaper: Shaper,
    under_way: VecDeque<(Duration, Box<[u8]>)>,
}

impl Link {
    /// Makes two devices of these names in the namespace of the caller, and joins them. They may
    /// be moved to other namespaces then.
    pub fn create(names: [&str; 2], settings: Settings) -> Result<Self> {
        ensure!(settings.rate > 0, "a link needs a rate");
        let open = |name: &str| -> Result<Arc<Tun>> {
            let make = || {
                let mut tun = Tun::new_named(Interface::new(OsStr::new(name))?)?;
                tun.set_nonblocking(true)?;
                std::io::Result::Ok(tun)
            };
            let tun = make().with_context(|| {
                format!("cannot make the TUN device {name}: is there /dev/net/tun?")
            })?;
            Ok(Arc::new(tun))
        };
        let [a, b] = [open(names[0])?, open(names[1])?];
        let way = |seed: u64| {
            let settings = Settings {
                seed: settings.seed ^ seed,
                ..settings
            };
            Arc::new(Way {
                state: Mutex::new(State {
                    shaper: Shaper::new(settings),
                    under_way: VecDeque::new(),
                }),
                filled: Condvar::new(),
            })
        };
        // The two directions lose different packets.
        let ways = [way(0), way(0x5555)];
        let stop = Arc::new(AtomicBool::new(false));
        let start = Instant::now();
        let mut threads = Vec::new();
        for (way, from, to) in [(&ways[0], &a, &b), (&ways[1], &b, &a)] {
            let (take_in, from, end) = (Arc::clone(way), Arc::clone(from), Arc::clone(&stop));
            threads.push(std::thread::spawn(move || {
                take_in.take_in(&from, start, &end);
            }));
            let (hand_out, to, end) = (Arc::clone(way), Arc::clone(to), Arc::clone(&stop));
            threads.push(std::thread::spawn(move || {
                hand_out.hand_out(&to, start, &end);
            }));
        }
        Ok(Self {
            stop,
            ways,
            threads,
        })
    }

    /// What has happened so far, from the first device to the second and back.
    pub fn counts(&self) -> [Counts; 2] {
        [0, 1].map(|n: usize| self.ways[n].lock().shaper.counts)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Way {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds this lock can leave the queue half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the kernel sends, gives each packet its time, drops what is lost.
    fn take_in(&self, from: &Tun, start: Instant, stop: &AtomicBool) {
        let mut buffer = vec![0; PACKET];
        while !stop.load(Ordering::Relaxed) {
            let Ok(len) = from.recv(&mut buffer) else {
                wait_readable(from);
                continue;
            };
            let now = start.elapsed();
            let mut state = self.lock();
            if let Some(at) = state.shaper.offer(now, len) {
                let was_empty = state.under_way.is_empty();
                state.under_way.push_back((at, buffer[..len].into()));
                drop(state);
                if was_empty {
                    self.filled.notify_one();
                }
            }
        }
    }

    /// Gives each packet to the other device when its time has come.
    fn hand_out(&self, to: &Tun, start: Instant, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let mut state = self.lock();
            let Some(&(at, _)) = state.under_way.front() else {
                let _ = self.filled.wait_timeout(state, LOOK_UP);
                continue;
            };
            let wait = at.saturating_sub(start.elapsed());
            if wait > SHORT {
                drop(state);
                std::thread::sleep(wait.min(LOOK_UP));
                continue;
            }
            let packet = state.under_way.pop_front();
            drop(state);
            if let Some((_, packet)) = packet {
                // Refused only by a device that is down or full: lost, as on any line.
                let _ = to.send(&packet);
            }
        }
    }
}

fn wait_readable(tun: &Tun) {
    let Ok(time) = Timespec::try_from(LOOK_UP) else {
        return;
    };
    let mut fds = [PollFd::new(tun, PollFlags::IN)];
    match poll(&mut fds, Some(&time)) {
        // A device that is not up yet is always ready and never has anything.
        Ok(n) if n > 0 && !fds[0].revents().contains(PollFlags::IN) => {
            std::thread::sleep(LOOK_UP / 10)
        }
        _ => {}
    }
}
