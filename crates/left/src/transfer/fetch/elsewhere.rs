//! Bytes of a big content that other files of the share have: a copied folder of which files were
//! edited, a file that was moved and edited, two versions of one archive. They are found by segments and
//! by some chunks; what is found is hashed before it is used, as those files may change under us.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use left_core::content::{ChunkRef, ContentId, Segment, SegmentRef};
use left_core::path::RelPath;
use tracing::debug;

use super::base::{self, Base};
use super::shared::{Shared, lock};

/// Other files that are open for one content.
const MAX_OPEN: usize = 3;
/// Segments of a content that are looked for before it is begun, at most.
const PROBES: usize = 128;
/// The share of the memory for an older version's chunks that each of the other files may take.
const CHUNKS_PART: usize = 8;
/// Contents up to this size are asked for their chunk lists first, if chunks are known here: they have
/// too few segments for one that is the same.
pub(super) const LISTS_FIRST: u64 = 4 << 20;

/// Contents of which the lists were asked for in vain, one after the other, before that is done for one of
/// [`SELDOM`] only: it costs a round trip each.
const MISSES: u32 = 16;
const SELDOM: u64 = 8;

/// Whether chunk lists that were asked for first have shown anything lately.
#[derive(Default)]
pub(super) struct Luck(AtomicU32);

impl Luck {
    fn note(&self, found: bool) {
        match found {
            true => self.0.store(0, Ordering::Relaxed),
            false => {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether to ask for the lists of this content first.
    pub(super) fn worth_asking(&self, serial: u64) -> bool {
        self.0.load(Ordering::Relaxed) < MISSES || serial.is_multiple_of(SELDOM)
    }
}

/// The other files that have been found for one content.
#[derive(Default)]
pub(super) struct Elsewhere {
    open: Mutex<Vec<(ContentId, Arc<Base>)>>,
}

impl Elsewhere {
    /// Those that are open.
    pub(super) fn bases(&self) -> Vec<Arc<Base>> {
        lock(&self.open).iter().map(|(_, b)| b.clone()).collect()
    }

    /// Looks for the files that have most of these segments.
    pub(super) fn probe(&self, shared: &Shared, list: &[SegmentRef], own: Option<ContentId>) {
        let step = list.len().div_ceil(PROBES).max(1);
        let mut found: HashMap<ContentId, usize> = HashMap::new();
        for sref in list.iter().step_by(step).filter(|r| !r.is_zeros()) {
            for (content, _) in shared.manifests.having_segment(&sref.id) {
                *found.entry(content).or_default() += 1;
            }
        }
        let mut found: Vec<_> = found.into_iter().filter(|(c, _)| Some(*c) != own).collect();
        found.sort_by_key(|(content, count)| (std::cmp::Reverse(*count), *content));
        for (content, _) in found {
            if lock(&self.open).len() >= MAX_OPEN - 1 {
                break;
            }
            self.open(shared, content, Some(list));
        }
    }

    /// Reads a segment that one of the share's files has into `buf`.
    pub(super) fn segment(
        &self,
        shared: &Shared,
        sref: &SegmentRef,
        buf: &mut [u8],
    ) -> Option<Segment> {
        let manifests = &*shared.manifests;
        // Reading another file may fail without harm: then a peer is asked.
        let known = self.bases().into_iter().find_map(|base| {
            let (offset, segment) = base.find(manifests, sref).ok()??;
            base.read(&segment, offset, buf).ok()?.then_some(segment)
        });
        known.or_else(|| {
            let places = manifests.having_segment(&sref.id);
            places.into_iter().find_map(|(content, n)| {
                let (offset, segment) = base::listed(manifests, &content, n, sref).ok()??;
                let file = local(shared, &content)?;
                let read = base::read(&file, &segment, offset, buf).ok()?;
                read.then(|| self.open(shared, content, None))?;
                Some(segment)
            })
        })
    }

    /// Looks for files that have some of these chunks.
    pub(super) fn probe_chunks(&self, shared: &Shared, list: &[ChunkRef]) {
        let places = |c: &ChunkRef| shared.manifests.having_chunk(&c.id);
        let mut contents = list.iter().flat_map(places).map(|(content, _)| content);
        let found = contents.any(|content| self.open(shared, content, None));
        shared.luck.note(found);
    }

    /// Opens a file of the share with this content if there is one, and room for it.
    fn open(&self, shared: &Shared, content: ContentId, wanted: Option<&[SegmentRef]>) -> bool {
        let open = lock(&self.open);
        if open.len() >= MAX_OPEN || open.iter().any(|(c, _)| *c == content) {
            return false;
        }
        drop(open);
        let max = shared.config.base_chunks / CHUNKS_PART;
        let base = local(shared, &content)
            .and_then(|file| Base::load(&*shared.manifests, file, content, wanted, max).ok()?);
        let Some(base) = base else { return false };
        debug!(?content, "another file has a part of what is fetched");
        lock(&self.open).push((content, Arc::new(base)));
        true
    }
}

/// A file of the share that should have this content.
fn local(shared: &Shared, content: &ContentId) -> Option<File> {
    let open = |path: &RelPath| shared.disk.open_local(path).ok();
    let holders = shared.disk.holders(content);
    holders.iter().find_map(open).map(|(file, _)| file)
}
