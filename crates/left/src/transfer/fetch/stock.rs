//! Serves others what is being fetched here, and what has just become whole.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use left_core::chunker::cut_segment;
use left_core::content::{ChunkRef, ContentId, Segment, SegmentId, SegmentRef};
use left_core::message::Parts;
use left_core::version::DeviceId;

use super::big::Big;
use super::file::BigFile;
use super::refs::RefList;
use super::shared::{Shared, guarded, lock};
use super::state::State;
use super::tell::{ALL_AGAIN, OUTBOX, all_of};
use crate::counters::HASHED;
use crate::transfer::fileio::read_at_most;

/// Whole contents that are still served from where they were put; the index has them soon.
const MAX_RECENT: usize = 4;
const RECENT: Duration = Duration::from_secs(20);

/// A content that is whole and perhaps not yet in the index.
pub(super) struct Recent {
    /// What it is asked for as.
    ids: Vec<ContentId>,
    size: u64,
    refs: RefList,
    /// Open for reading only: nobody could run a program that is open for writing.
    file: Arc<File>,
    until: Instant,
    /// Who asked what is here, and when.
    told: BTreeMap<DeviceId, Instant>,
}

/// Forgets contents that the index has by now.
pub(super) fn forget_old(recent: &mut VecDeque<Recent>, now: Instant) {
    recent.retain(|r| now < r.until);
}

/// Somebody begins to fetch what has just become whole here: all of it is told, but not as often as
/// one may like to ask.
pub(super) fn hello(recent: &mut VecDeque<Recent>, id: &ContentId, peer: DeviceId) -> Vec<Parts> {
    let Some(recent) = recent.iter_mut().find(|r| r.ids.contains(id)) else {
        return Vec::new();
    };
    let now = Instant::now();
    let asked = recent.told.insert(peer, now);
    if asked.is_some_and(|at| now - at < ALL_AGAIN) {
        return Vec::new();
    }
    all_of(*id, recent.refs.len())
}

/// A content is whole: others are told of all of it, and it is served on until the index has it.
pub(super) fn delivered(st: &mut State, mut big: Big, file: Option<File>) {
    let Some(file) = file else { return };
    // Who is not told by us is told by the index, soon.
    for (device, p) in &big.swarm.partners {
        if st.outbox.len() >= OUTBOX {
            break;
        }
        let all = all_of(p.id, big.refs.len());
        st.outbox.extend(all.into_iter().map(|m| (*device, m)));
    }
    let ids = [Some(big.file.id()), big.was];
    st.recent.push_back(Recent {
        ids: ids.into_iter().flatten().collect(),
        size: big.file.size,
        refs: std::mem::take(&mut big.refs),
        file: Arc::new(file),
        until: Instant::now() + RECENT,
        told: BTreeMap::new(),
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

/// Where a segment is.
struct Found {
    from: From,
    sref: SegmentRef,
    offset: u64,
    /// Of the file.
    size: u64,
}

enum From {
    Stage(Arc<BigFile>, Option<Vec<ChunkRef>>),
    Recent(Arc<File>),
}

impl Stock {
    /// Reads segment `n` of a content, or of what is known as an offer, if it is in place here: its
    /// bytes into `buf`, from the front.
    pub fn part(&self, content: &ContentId, n: u64, buf: &mut Vec<u8>) -> Option<Segment> {
        let found = self.find(content, n)?;
        let Found { sref, offset, .. } = found;
        if sref.is_zeros() {
            return None;
        }
        buf.resize(usize::try_from(sref.len).ok()?, 0);
        let whole = |file: &File, buf: &mut [u8]| {
            let read = read_at_most(file, buf, offset);
            read.map(|n| n == buf.len())
        };
        let (read, list) = match found.from {
            From::Stage(file, list) => {
                let staged = &file.prepared.get()?.file;
                // Who writes there while it is read writes the same bytes.
                match guarded(&file, || whole(staged, buf)) {
                    Ok(Some(read)) => (read, list),
                    // It was just put in place, where the user may write to it.
                    Ok(None) => (matches!(whole(staged, buf), Ok(true)), None),
                    Err(_) => (false, None),
                }
            }
            From::Recent(file) => (matches!(whole(&file, buf), Ok(true)), None),
        };
        if !read {
            return None;
        }
        let chunks = list.or_else(|| {
            HASHED.add(sref.len);
            let last = offset + sref.len == found.size;
            cut_segment(buf, last).filter(|list| SegmentId::of(list) == sref.id)
        })?;
        Some(Segment { sref, chunks })
    }

    /// The chunk list of such a segment, if it is at hand: nothing is read for it.
    pub fn list(&self, content: &ContentId, n: u64) -> Option<Vec<ChunkRef>> {
        match self.find(content, n)?.from {
            From::Stage(_, list) => list,
            From::Recent(_) => None,
        }
    }

    fn find(&self, content: &ContentId, n: u64) -> Option<Found> {
        let shared = self.0.upgrade()?;
        let st = lock(&shared.state);
        let n = usize::try_from(n).ok()?;
        if let Some(big) = st.bigs.values().find(|b| b.is_known_as(content)) {
            let (sref, offset) = big.refs.get(n).filter(|_| big.swarm.here.has(n))?;
            return Some(Found {
                from: From::Stage(Arc::clone(&big.file), big.swarm.list(n)),
                sref,
                offset,
                size: big.file.size,
            });
        }
        let recent = st.recent.iter().find(|r| r.ids.contains(content))?;
        let (sref, offset) = recent.refs.get(n)?;
        Some(Found {
            from: From::Recent(Arc::clone(&recent.file)),
            sref,
            offset,
            size: recent.size,
        })
    }
}
