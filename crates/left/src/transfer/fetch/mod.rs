//! Brings content into the stage: from files that are here already where that is possible, from
//! peers otherwise, verified in any case.
//!
//! Each lane has a thread that asks and verifies what comes; a few local workers copy from local
//! files and open stages. They meet in [`state::State`], which holds what is left to do. Every
//! item is answered exactly once.

mod answers;
mod asks;
mod base;
mod big;
mod bits;
mod elsewhere;
mod file;
mod lane;
mod local;
mod offers;
mod pace;
mod patience;
mod refs;
mod shared;
mod small;
mod state;
mod stock;
mod swarm;
mod tell;
mod walk;
mod wanted;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use left_core::content::WHOLE_MAX;
use left_core::message::Parts;
use left_core::plan::{FetchError, FetchItem, OpId, StageName};
use left_core::version::DeviceId;

use self::lane::Pulse;
pub use self::offers::Offered;
use self::shared::{Shared, lock};
use self::state::{Job, LaneInfo, Whereabouts};
pub use self::stock::Stock;
pub use self::tell::{Tell, Told};
use super::lane::{LaneCloser, LaneStream};
use super::ports::{FetchDisk, ManifestStore};

/// Limits of fetching.
#[derive(Clone, Debug)]
pub struct FetchConfig {
    /// Most small contents of one request, at most [`super::frame::MAX_WANT_ITEMS`].
    pub batch_items: usize,
    /// Most bytes of small contents of one request.
    pub batch_bytes: u64,
    /// Bytes asked for and not yet here, a lane.
    pub lane_window: u64,
    /// Bytes asked for and not yet here, a file: what a kill makes travel twice.
    pub file_window: u64,
    /// How far past the first missing segment a file is worked on.
    pub look_ahead: u64,
    /// Threads that copy from local files.
    pub local_threads: usize,
    /// Big contents that are fetched at the same time.
    pub active_big: usize,
    /// Results that are reported together at the latest.
    pub results_batch: usize,
    /// Chunks of an older version that are kept in memory to look for (about 40 bytes each).
    pub base_chunks: usize,
    /// Start writing to the disk early, so that the applier's fsync is short.
    pub early_writeback: bool,
    /// Files up to this size stay in memory when they are on the disk; larger ones would displace there
    /// what others need.
    pub kept_in_memory: u64,
    /// How long a lane is watched before the peer is told how fast its bytes come.
    pub rate_after: Duration,
    /// How long nothing may come on the lane of another receiver that owes something, before it is given
    /// up; and how long others may go on with a content that nobody has any more.
    pub stuck_after: Duration,
    /// An offer of which nothing is heard for so long is forgotten. Who offers may stand still for many
    /// seconds when its disk does, and what was brought is lost with the offer.
    pub offer_idle: Duration,
}

impl Default for FetchConfig {
    fn default() -> Self {
        Self {
            batch_items: 512,
            batch_bytes: 4 << 20,
            lane_window: 4 << 20,
            file_window: 6 << 20,
            look_ahead: 64 << 20,
            local_threads: 2,
            active_big: 32,
            results_batch: 256,
            base_chunks: 256 * 1024,
            early_writeback: true,
            kept_in_memory: memory() / 32,
            rate_after: Duration::from_millis(250),
            stuck_after: Duration::from_secs(20),
            offer_idle: Duration::from_secs(60),
        }
    }
}

/// Bytes of memory that this machine has.
#[allow(clippy::useless_conversion)] // The field has 32 bits where addresses have.
fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    u64::from(info.totalram).saturating_mul(u64::from(info.mem_unit))
}

/// Counters over all lanes.
#[derive(Debug, Default)]
pub struct FetchStats {
    /// Bytes that came in frames, headers too.
    pub received: AtomicU64,
    /// Requests sent.
    pub wants: AtomicU64,
    /// Bytes of requests sent.
    pub sent: AtomicU64,
    /// Bytes verified and staged that came from peers.
    pub fetched: AtomicU64,
    /// Bytes verified and staged that were here already.
    pub local: AtomicU64,
}

/// How far a big item is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ItemProgress {
    /// Which.
    pub id: OpId,
    /// Bytes verified and in the stage.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// How far all is.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Progress {
    /// The big items that are not yet whole.
    pub big: Vec<ItemProgress>,
    /// Small contents not yet here.
    pub small_left: u64,
    /// Bytes of the small contents not yet here.
    pub small_bytes_left: u64,
    /// Bytes a second that came from peers since progress was last asked for.
    pub rate: f64,
}

/// Fetches content for one share. Dropping it closes all lanes and ends its threads; unfinished
/// items are not answered then.
pub struct Fetcher {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// When progress was last asked for, and the bytes that had come by then.
    rated: Mutex<(Instant, u64)>,
}

impl Fetcher {
    /// Starts the local workers. Ends of items are sent to `out`, several at a time; the calls
    /// of this type never send there, so the receiver may make them.
    pub fn new(
        config: FetchConfig,
        disk: Arc<dyn FetchDisk>,
        manifests: Arc<dyn ManifestStore>,
        out: Sender<Vec<(OpId, Result<StageName, FetchError>)>>,
    ) -> Self {
        let workers = config.local_threads.max(1);
        let shared = Arc::new(Shared::new(config, disk, manifests, out));
        let threads = (0..workers)
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || local::work(&shared))
            })
            .collect();
        Self {
            shared,
            threads: Mutex::new(threads),
            rated: Mutex::new((Instant::now(), 0)),
        }
    }

    /// Tells other receivers of what is fetched here, as `me`, and shares the work with them. What
    /// they tell comes by [`Self::parts`], and they are served from [`Self::stock`].
    pub fn share_work(&self, me: DeviceId, tell: Tell) {
        lock(&self.shared.state).peers.me = Some(me);
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::spawn(move || tell::run(&shared, &tell));
        lock(&self.threads).push(thread);
    }

    /// A peer is connected: items it announced wait for its lanes until [`Self::drop_peer`].
    /// Without this call a peer counts as gone whenever it has no lane. `parts`: it understands
    /// what it is told of contents that are being fetched.
    pub fn add_peer(&self, peer: DeviceId, parts: bool) {
        let mut st = lock(&self.shared.state);
        st.peers.expected.insert(peer);
        if parts && st.peers.parts.insert(peer) {
            // It may have begun to fetch something while we did not see each other.
            let now = Instant::now();
            st.bigs.values_mut().for_each(|big| big.greet(peer, now));
            drop(st);
            self.shared.news.notify_all();
        }
    }

    /// A round trip to a peer took so long. The quickest that is told of counts: where it is long, what is
    /// asked for at a time goes by what the link holds.
    pub fn round_trip(&self, peer: DeviceId, took: Duration) {
        let mut st = lock(&self.shared.state);
        st.peers.paces.entry(peer).or_default().round_trip(took);
    }

    /// Takes in which segments of a content a peer has that fetches it too.
    pub fn parts(&self, peer: DeviceId, parts: &Parts) {
        tell::heard(&self.shared, peer, parts);
    }

    /// A peer could not be told this: it is told of it, and all that follows, later.
    pub fn untold(&self, peer: DeviceId, parts: &Parts) {
        tell::untold(&mut lock(&self.shared.state), peer, parts);
        // It may have been the last that there was to tell.
        self.shared.news.notify_all();
    }

    /// What is being fetched, to be served to others.
    pub fn stock(&self) -> Stock {
        Stock(Arc::downgrade(&self.shared))
    }

    /// Takes over a lane on which `peer` serves. An express lane carries small contents only. The
    /// lane leaves by itself when it fails.
    pub fn add_lane(
        &self,
        peer: DeviceId,
        stream: Box<dyn LaneStream>,
        closer: Arc<dyn LaneCloser>,
        express: bool,
    ) {
        let mut st = lock(&self.shared.state);
        if st.closed {
            closer.close();
            return;
        }
        let id = st.serial();
        let pulse = Arc::new(Pulse::new(Instant::now()));
        let info = LaneInfo {
            peer,
            express,
            closer,
            pulse: Arc::clone(&pulse),
            owed: 0,
            brought: 0,
            brought_at: None,
            small_turn: true,
        };
        st.peers.lanes.insert(id, info);
        drop(st);
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::spawn(move || lane::run(&shared, id, peer, stream, pulse));
        let mut threads = lock(&self.threads);
        threads.retain(|t| !t.is_finished());
        threads.push(thread);
    }

    /// Closes all lanes of a peer. Items that only it announced end with [`FetchError::Gone`].
    pub fn drop_peer(&self, peer: DeviceId) {
        let mut st = lock(&self.shared.state);
        st.peers.expected.remove(&peer);
        st.peers.parts.remove(&peer);
        st.peers.paces.remove(&peer);
        for big in st.bigs.values_mut() {
            big.swarm.left(&peer);
        }
        let closers: Vec<_> = (st.peers.lanes.values())
            .filter(|l| l.peer == peer)
            .map(|l| Arc::clone(&l.closer))
            .collect();
        st.peers.lanes.retain(|_, l| l.peer != peer);
        self.shared.peers_changed(st);
        for closer in closers {
            closer.close();
        }
    }

    /// Takes in what a peer tells of a file that it still reads.
    pub fn offer(&self, peer: DeviceId, offered: Offered) {
        offers::take(&self.shared, peer, offered);
    }

    /// Takes items in; each ends with exactly one message on the channel.
    pub fn submit(&self, items: Vec<FetchItem>) {
        let mut outcomes = Vec::new();
        let mut st = lock(&self.shared.state);
        for item in items {
            if item.size == 0 || !item.copies.is_empty() {
                st.items.insert(item.id, Whereabouts::Local);
                st.copies.push_back(item);
            } else {
                outcomes.extend(self.shared.route(&mut st, item));
            }
        }
        st.jobs.push_back(Job::Flush);
        drop(st);
        self.shared.report_later(outcomes);
        self.shared.wake_all();
    }

    /// Ends items with [`FetchError::Cancelled`], unless they have ended already. What is staged
    /// of a big content stays for a later resumption. Nothing is written to it after the return.
    pub fn cancel(&self, ids: &[OpId]) {
        let mut st = lock(&self.shared.state);
        let mut outcomes = Vec::new();
        let mut closed = Vec::new();
        for id in ids {
            match st.items.remove(id) {
                None => continue,
                Some(Whereabouts::Local) => st.copies.retain(|i| i.id != *id),
                Some(Whereabouts::Small(key)) => st.small.cancel(&key, *id),
                Some(Whereabouts::Big(serial)) => {
                    if let Some(big) = st.bigs.get_mut(&serial) {
                        big.waiters.retain(|w| w != id);
                        if big.waiters.is_empty() {
                            closed.extend(st.remove_big(serial));
                        }
                    }
                }
            }
            outcomes.push((*id, Err(FetchError::Cancelled)));
        }
        st.jobs.push_back(Job::Flush);
        drop(st);
        for big in closed {
            shared::close(&big.file);
        }
        self.shared.report_later(outcomes);
        self.shared.wake_all();
    }

    /// How far all is. The rate is that since the last call.
    pub fn progress(&self) -> Progress {
        let st = lock(&self.shared.state);
        let big = (st.bigs.values())
            .flat_map(|b| {
                let done = b.file.bytes_done.load(Ordering::Relaxed).min(b.file.size);
                b.waiters.iter().map(move |id| ItemProgress {
                    id: *id,
                    done,
                    total: b.file.size,
                })
            })
            .collect();
        let (small_left, small_bytes_left) = st.small.left();
        drop(st);
        let received = self.shared.stats.received.load(Ordering::Relaxed);
        let mut rated = lock(&self.rated);
        let (then, before) = std::mem::replace(&mut *rated, (Instant::now(), received));
        let seconds = rated.0.duration_since(then).as_secs_f64().max(1e-3);
        Progress {
            big,
            small_left,
            small_bytes_left,
            rate: (received - before) as f64 / seconds,
        }
    }

    /// Counters since the start.
    pub fn stats(&self) -> &FetchStats {
        &self.shared.stats
    }

    /// Peers that sent wrong bytes or broke the protocol of lanes, and how often.
    pub fn suspects(&self) -> Vec<(DeviceId, u64)> {
        let st = lock(&self.shared.state);
        st.suspects.iter().map(|(p, n)| (*p, *n)).collect()
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        let mut st = lock(&self.shared.state);
        st.closed = true;
        st.copies.clear();
        self.shared.news.notify_all();
        let lanes = std::mem::take(&mut st.peers.lanes);
        let files: Vec<_> = st.bigs.values().map(|b| Arc::clone(&b.file)).collect();
        drop(st);
        self.shared.wake_all();
        for lane in lanes.values() {
            lane.closer.close();
        }
        for file in files {
            shared::close(&file);
        }
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// Whether a content travels whole, without its manifest.
fn is_small(size: u64) -> bool {
    size <= WHOLE_MAX
}
