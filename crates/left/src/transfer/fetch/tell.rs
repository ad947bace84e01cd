//! What receivers of one content tell each other, and the thread that tells it and looks after them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use left_core::chunker::cut_segment;
use left_core::content::{ContentId, Segment, SegmentId, SegmentRef};
use left_core::message::{MAX_PARTS_BITMAP, Parts};
use left_core::version::DeviceId;
use tracing::debug;

use super::big::Big;
use super::file::BigFile;
use super::offers;
use super::shared::{Shared, guarded, lock};
use super::state::{Peers, State};
use super::swarm::Swarm;
use crate::counters::HASHED;
use crate::transfer::fileio::read_at_most;

/// How often it is looked whether there is something to tell.
const TICK: Duration = Duration::from_millis(20);
/// News are told when there are so many bytes of them, or after so long.
const TELL_BYTES: u64 = 4 << 20;
const TELL_AFTER: Duration = Duration::from_millis(100);
/// A gap in the positions told that is worth a message of its own.
const GAP: usize = 4096;
/// Whole contents that are still served from where they were put; the index has them soon.
const MAX_RECENT: usize = 4;
const RECENT: Duration = Duration::from_secs(20);

/// Sends what is told, each to one peer. Must not wait.
pub type Tell = Box<dyn Fn(Vec<(DeviceId, Parts)>) + Send + Sync>;

/// A content that is whole and perhaps not yet in the index.
pub(super) struct Recent {
    /// What it is asked for as.
    ids: Vec<ContentId>,
    size: u64,
    refs: Vec<SegmentRef>,
    /// Open for reading only: nobody could run a program that is open for writing.
    file: Arc<File>,
    until: Instant,
}

/// Positions, in order, as messages.
fn messages(content: ContentId, hello: bool, all: impl Iterator<Item = usize>) -> Vec<Parts> {
    let mut out: Vec<Parts> = Vec::new();
    for n in all {
        let fits = |p: &&mut Parts| {
            let at = n - p.from as usize;
            at / 8 < MAX_PARTS_BITMAP && at < p.bitmap.len() * 8 + GAP
        };
        let parts = match out.last_mut().filter(fits) {
            Some(parts) => parts,
            None => {
                out.push(Parts {
                    content,
                    from: (n - n % 8) as u64,
                    bitmap: Vec::new(),
                    hello: false,
                });
                let Some(parts) = out.last_mut() else { break };
                parts
            }
        };
        let at = n - parts.from as usize;
        if parts.bitmap.len() <= at / 8 {
            parts.bitmap.resize(at / 8 + 1, 0);
        }
        parts.bitmap[at / 8] |= 1 << (at % 8);
    }
    if hello && out.is_empty() {
        out.push(Parts {
            content,
            from: 0,
            bitmap: Vec::new(),
            hello,
        });
    }
    if let Some(first) = out.first_mut() {
        first.hello = hello;
    }
    out
}

type Outbox = Vec<(DeviceId, Parts)>;

impl Swarm {
    /// What is to be told now; `all`: whether it is due or not.
    fn tell(&mut self, id: ContentId, others: &[DeviceId], all: bool, out: &mut Outbox) {
        let greet = std::mem::take(&mut self.greet);
        if greet {
            let hello = messages(id, true, self.here.iter());
            for other in others {
                out.extend(hello.iter().map(|m| (*other, m.clone())));
                if let Some(p) = self.partners.get_mut(other) {
                    p.tell_all = false;
                }
            }
        }
        let now = Instant::now();
        let waited = self.told_at.is_none_or(|t| now - t >= TELL_AFTER);
        let due = all || self.news_bytes >= TELL_BYTES || waited;
        let mut news = Vec::new();
        if due && !self.news.is_empty() {
            news = std::mem::take(&mut self.news);
            news.sort_unstable();
            self.news_bytes = 0;
            self.told_at = Some(now);
        }
        for (device, p) in &mut self.partners {
            let told = match std::mem::take(&mut p.tell_all) {
                true => messages(p.id, false, self.here.iter()),
                false => messages(p.id, false, news.iter().copied()),
            };
            out.extend(told.into_iter().map(|m| (*device, m)));
        }
    }
}

/// Members that may be fetching it, too.
pub(super) fn others(big: &Big, peers: &Peers) -> Vec<DeviceId> {
    let may = |p: &&DeviceId| !big.peers.contains(p);
    peers.parts.iter().filter(may).copied().collect()
}

/// The thread's life.
pub(super) fn run(shared: &Shared, tell: &Tell) {
    let mut st = lock(&shared.state);
    loop {
        while !st.closed && st.is_quiet() {
            st = shared.news.wait(st).unwrap_or_else(PoisonError::into_inner);
        }
        if st.closed {
            return;
        }
        // One that nobody goes on with would keep this thread awake.
        offers::forget_dead(shared, &mut st);
        let (out, moved) = tick(&mut st, shared.config.stuck_after);
        if !st.hopeless().is_empty() {
            shared.peers_changed(st);
        } else {
            drop(st);
        }
        if moved {
            shared.wake.notify_all();
        }
        if !out.is_empty() {
            tell(out);
        }
        st = lock(&shared.state);
        let waited = shared.news.wait_timeout(st, TICK);
        st = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Looks after all contents; what is to be told, and whether lanes may have more to do.
fn tick(st: &mut State, stuck_after: Duration) -> (Outbox, bool) {
    let mut out = std::mem::take(&mut st.outbox);
    let mut moved = false;
    let now = Instant::now();
    st.recent.retain(|r| now < r.until);
    let peers = &st.peers;
    let mut stuck = Vec::new();
    for big in st.bigs.values_mut() {
        let others = others(big, peers);
        moved |= big.swarm.connect(peers);
        moved |= big.watch_others(peers);
        stuck.extend(big.swarm.take_stuck(stuck_after));
        let id = big.file.id();
        big.swarm.tell(id, &others, false, &mut out);
    }
    for peer in stuck {
        debug!(%peer, "nothing comes of what a peer has told that it has");
        let lanes = peers.lanes.values();
        lanes
            .filter(|l| l.peer == peer && !l.express)
            .for_each(|l| l.closer.close());
    }
    (out, moved)
}

/// Takes in what a peer tells that it has.
pub(super) fn heard(shared: &Shared, peer: DeviceId, parts: &Parts) {
    let mut guard = lock(&shared.state);
    let st = &mut *guard;
    if !st.peers.parts.contains(&peer) {
        return;
    }
    let id = parts.content;
    if let Some(big) = st.bigs.values_mut().find(|b| b.is_known_as(&id)) {
        if big.hear(peer, parts, &st.peers) {
            shared.wake.notify_all();
        }
        if parts.hello {
            shared.news.notify_all();
        }
    } else if parts.hello
        && let Some(recent) = st.recent.iter().find(|r| r.ids.contains(&id))
        && st.outbox.len() < 1024
    {
        let all = messages(id, false, 0..recent.refs.len());
        st.outbox.extend(all.into_iter().map(|m| (peer, m)));
        shared.news.notify_all();
    }
}

/// A content is whole: others are told of all of it, and it is served on until the index has it.
pub(super) fn delivered(st: &mut State, mut big: Big, file: Option<File>) {
    let Some(file) = file else { return };
    big.swarm.tell(big.file.id(), &[], true, &mut st.outbox);
    let ids = [Some(big.file.id()), big.was];
    st.recent.push_back(Recent {
        ids: ids.into_iter().flatten().collect(),
        size: big.file.size,
        refs: std::mem::take(&mut big.refs),
        file: Arc::new(file),
        until: Instant::now() + RECENT,
    });
    if st.recent.len() > MAX_RECENT {
        st.recent.pop_front();
    }
}

/// The same file once more, for reading only.
pub(super) fn reopen(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Serves what is being fetched. Nothing that was not verified.
pub struct Stock(pub(super) Weak<Shared>);

enum From {
    Stage(Arc<BigFile>, Option<Vec<left_core::content::ChunkRef>>),
    Recent(Arc<File>),
}

impl Stock {
    /// Reads segment `n` of a content, or of what is known as an offer, if it is in place here: its
    /// bytes into `buf`, from the front.
    pub fn part(&self, content: &ContentId, n: u64, buf: &mut Vec<u8>) -> Option<Segment> {
        let shared = self.0.upgrade()?;
        let n = usize::try_from(n).ok()?;
        let (from, sref, offset, size) = find(&lock(&shared.state), content, n)?;
        if sref.is_zeros() {
            return None;
        }
        buf.resize(usize::try_from(sref.len).ok()?, 0);
        let whole = |file: &File, buf: &mut [u8]| {
            let read = read_at_most(file, buf, offset);
            read.map(|n| n == buf.len())
        };
        let (read, list) = match &from {
            From::Stage(file, list) => {
                let prepared = file.prepared.get()?;
                // Nobody else begins to write there while it is read.
                let read = guarded(file, || whole(&prepared.file, buf));
                (matches!(read, Ok(Some(true))), list.clone())
            }
            From::Recent(file) => (matches!(whole(file, buf), Ok(true)), None),
        };
        if !read {
            return None;
        }
        let chunks = list.or_else(|| {
            HASHED.add(sref.len);
            let last = offset + sref.len == size;
            cut_segment(buf, last).filter(|list| SegmentId::of(list) == sref.id)
        })?;
        Some(Segment { sref, chunks })
    }
}

fn find(st: &State, content: &ContentId, n: usize) -> Option<(From, SegmentRef, u64, u64)> {
    let start = |refs: &[SegmentRef]| refs.iter().take(n).map(|r| r.len).sum();
    if let Some(big) = st.bigs.values().find(|b| b.is_known_as(content)) {
        let sref = *big.refs.get(n).filter(|_| big.swarm.here.has(n))?;
        let from = From::Stage(Arc::clone(&big.file), big.swarm.list(n));
        return Some((from, sref, start(&big.refs), big.file.size));
    }
    let recent = st.recent.iter().find(|r| r.ids.contains(content))?;
    let sref = *recent.refs.get(n)?;
    let from = From::Recent(Arc::clone(&recent.file));
    Some((from, sref, start(&recent.refs), recent.size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_told_in_few_messages() {
        let id = ContentId([1; 32]);
        let told = |all: &[usize]| messages(id, false, all.iter().copied());
        let back = |all: &[Parts]| {
            let mut out = Vec::new();
            for p in all {
                for at in 0..p.bitmap.len() * 8 {
                    if p.bitmap[at / 8] >> (at % 8) & 1 == 1 {
                        out.push(p.from as usize + at);
                    }
                }
            }
            out
        };
        assert!(told(&[]).is_empty());
        let far: Vec<usize> = (0..200_000).step_by(3).collect();
        for all in [&[5][..], &[0, 9, 700], &[1, 2, 90_000], &far] {
            let messages = told(all);
            assert_eq!(back(&messages), all);
            assert!(messages.iter().all(|m| m.bitmap.len() <= MAX_PARTS_BITMAP));
        }
        assert_eq!(told(&far).len(), 4);
        assert_eq!(told(&[1, 90_000]).len(), 2);
        let hello = messages(id, true, [].into_iter());
        assert!(hello.len() == 1 && hello[0].hello);
    }
}
