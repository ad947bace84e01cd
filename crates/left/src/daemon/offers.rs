//! Files that are still being read: peers are told of their segments while the rest is read, so that
//! the transfer overlaps the reading. Until the content id is known, a random id stands for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use left_core::content::{ContentId, Segment};
use left_core::entry::FileStat;
use left_core::message::Offer;
use left_core::path::RelPath;

use super::ask::Msg;

/// Smaller files are read too fast for an offer to gain anything.
const MIN_SIZE: u64 = 8 << 20;
/// Segments of one file that are offered; the rest waits for its content id.
const MAX_SEGMENTS: usize = 2048;
/// Segments kept of all offers together (a few KiB each); the oldest offers go first.
const MAX_KEPT: usize = 8192;
/// Segments are told together when so many are new, or after so long.
const AT_ONCE: usize = 16;
const TELL_AFTER: Duration = Duration::from_millis(4);

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The offers of one share.
pub(super) struct Offers {
    /// Somebody is there to take them.
    open: AtomicBool,
    kept: Mutex<VecDeque<Arc<Offered>>>,
    tx: Sender<Msg>,
}

/// One file that is or was being read.
pub(super) struct Offered {
    id: ContentId,
    pub(super) path: RelPath,
    pub(super) stat: FileStat,
    /// Each with its place in the file.
    segments: Mutex<Vec<(u64, Segment)>>,
}

impl Offered {
    /// Segments known so far.
    pub(super) fn len(&self) -> u64 {
        lock(&self.segments).len() as u64
    }

    /// Where segment `n` begins in the file, and the segment.
    pub(super) fn segment(&self, n: u64) -> Option<(u64, Segment)> {
        let n = usize::try_from(n).ok()?;
        lock(&self.segments).get(n).cloned()
    }
}

impl Offers {
    pub(super) fn new(tx: Sender<Msg>) -> Self {
        Self {
            open: AtomicBool::new(false),
            kept: Mutex::default(),
            tx,
        }
    }

    /// Whether anybody would take an offer.
    pub(super) fn open(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }

    /// What a peer asks for as `id`, if that is an offer.
    pub(super) fn find(&self, id: &ContentId) -> Option<Arc<Offered>> {
        lock(&self.kept).iter().find(|o| o.id == *id).cloned()
    }

    /// A file begins to be read. `None` when it is not worth an offer.
    pub(super) fn begin(self: &Arc<Self>, path: &RelPath, stat: &FileStat) -> Option<Offering> {
        let mut id = [0; 32];
        let worth = stat.size >= MIN_SIZE && self.open.load(Ordering::Relaxed);
        if !worth || aws_lc_rs::rand::fill(&mut id).is_err() {
            return None;
        }
        let offered = Arc::new(Offered {
            id: ContentId(id),
            path: path.clone(),
            stat: *stat,
            segments: Mutex::default(),
        });
        self.make_room();
        lock(&self.kept).push_back(Arc::clone(&offered));
        Some(Offering {
            offers: Arc::clone(self),
            offered,
            end: 0,
            told: 0,
            told_at: Instant::now(),
        })
    }

    fn make_room(&self) {
        let mut kept = lock(&self.kept);
        let mut total: u64 = kept.iter().map(|o| o.len()).sum();
        while total > (MAX_KEPT - MAX_SEGMENTS) as u64 {
            let Some(oldest) = kept.pop_front() else {
                return;
            };
            total -= oldest.len();
        }
    }
}

/// A file that is being read.
pub(super) struct Offering {
    offers: Arc<Offers>,
    offered: Arc<Offered>,
    /// Where the next segment begins.
    end: u64,
    /// Segments told of.
    told: usize,
    told_at: Instant,
}

impl Offering {
    /// Takes in the next segment, and tells of those that are new when they are worth a message.
    pub(super) fn segment(&mut self, segment: &Segment) {
        let count = {
            let mut all = lock(&self.offered.segments);
            if all.len() >= MAX_SEGMENTS {
                return;
            }
            all.push((self.end, segment.clone()));
            all.len()
        };
        self.end += segment.sref.len;
        let new = count - self.told;
        if new >= AT_ONCE || self.told == 0 || self.told_at.elapsed() >= TELL_AFTER {
            self.tell();
        }
    }

    /// Tells of all segments that are new.
    pub(super) fn tell(&mut self) {
        let segments: Vec<_> = {
            let all = lock(&self.offered.segments);
            all[self.told..].iter().map(|(_, s)| s.sref).collect()
        };
        if segments.is_empty() {
            return;
        }
        let from = self.told as u64;
        self.told += segments.len();
        self.told_at = Instant::now();
        // Nobody listens when the share is being stopped.
        let _ = self.offers.tx.send(Msg::Offer(Offer {
            id: self.offered.id,
            path: self.offered.path.clone(),
            size: self.offered.stat.size,
            from,
            segments,
        }));
    }
}
