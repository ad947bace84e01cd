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
        let begun = Instant::now();
        let whole = |file: &File, buf: &mut [u8]| {
            let read = read_at_most(file, buf, offset);
            read.map(|n| n == buf.len())
        };
        let (read, list) = match found.from {
            From::Stage(file, list) => {
                let staged = &file.prepared.get()?.file;
                // Who writes there while it is read writes the same bytes.
                match guarded(&file, || whole(staged, buf)) {
                    Ok(Some(read)) => {
                        file.served.note(begun.elapsed(), sref.len);
                        (read, list)
                    }
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::OnceLock;

    use crossbeam_channel::unbounded;
    use left_core::path::RelPath;

    use super::super::FetchConfig;
    use super::super::file::Prepared;
    use super::super::shared::close;
    use super::*;
    use crate::transfer::tests::node::{Node, Store, manifest, noise};

    const PARTNER: DeviceId = DeviceId([2; 32]);

    /// One content, of which all is in the stage, and a partner that was told of nothing.
    fn staged(bytes: &[u8]) -> (Arc<Shared>, Arc<BigFile>, ContentId, Vec<Segment>) {
        let (node, (id, segments)) = (Node::new(1), manifest(bytes));
        let (out, _results) = unbounded();
        let store = Arc::new(Store(Arc::clone(&node.manifests)));
        let shared = Shared::new(FetchConfig::default(), node, store, out);
        let path = RelPath::new("x").unwrap();
        let size = bytes.len() as u64;
        let mut file = BigFile::new(1, id, path, size, id.to_string(), None);
        let mut stage = tempfile::tempfile().unwrap();
        stage.write_all(bytes).unwrap();
        file.prepared = OnceLock::from(Prepared {
            file: stage,
            fresh: true,
            base: None,
            cloned: false,
            places: false,
        });
        let file = Arc::new(file);
        let mut big = Big::new(Arc::clone(&file), Vec::new(), &[]);
        big.refs = segments.iter().map(|s| s.sref).collect();
        big.swarm.begin(&DeviceId([1; 32]), id, &[]);
        let hello = Parts {
            content: id,
            from: 0,
            bitmap: Vec::new(),
            hello: true,
        };
        big.swarm.heard(PARTNER, &hello, segments.len());
        for (n, segment) in segments.iter().enumerate() {
            big.complete(n, segment.clone());
        }
        lock(&shared.state).add_big(big);
        (Arc::new(shared), file, id, segments)
    }

    #[test]
    fn it_is_served_also_while_it_is_put_in_place() {
        let bytes = noise(1, 9 << 20);
        let (shared, file, id, segments) = staged(&bytes);
        let stock = Stock(Arc::downgrade(&shared));
        let mut buf = Vec::new();
        let mut whole = || {
            let mut all = Vec::new();
            for (n, segment) in segments.iter().enumerate() {
                assert!(stock.part(&id, n as u64, &mut buf)? == *segment);
                all.extend_from_slice(&buf);
            }
            Some(all)
        };
        assert!(whole().unwrap() == bytes);
        close(&file);
        assert!(whole().unwrap() == bytes, "closed");
        let again = reopen(&file.prepared.get().unwrap().file).unwrap();
        let mut st = lock(&shared.state);
        let big = st.remove_big(1).unwrap();
        delivered(&mut st, big, Some(again));
        // All of it is told to all partners, not only what is new.
        let told: Vec<_> = std::mem::take(&mut st.outbox);
        assert!(told.len() == 1 && told[0].0 == PARTNER);
        let bits: u32 = told[0].1.bitmap.iter().map(|b| b.count_ones()).sum();
        assert_eq!(bits as usize, segments.len());
        // Who comes now is told so too, once a second.
        assert_eq!(hello(&mut st.recent, &id, PARTNER).len(), 1);
        assert!(hello(&mut st.recent, &id, PARTNER).is_empty());
        drop(st);
        assert!(whole().unwrap() == bytes, "delivered");
        let staged = &file.prepared.get().unwrap().file;
        std::os::unix::fs::FileExt::write_all_at(staged, b"user", 5).unwrap();
        assert!(whole().is_none(), "the user has changed it");
    }
}
