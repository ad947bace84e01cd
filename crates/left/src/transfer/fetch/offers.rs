//! Files that a peer offers while it still reads them: their segments are brought at once, and are
//! there when the content id becomes known and it is decided that the file is wanted. An offer is
//! a hint. What is kept of it is what the content's own, verified segment list says too.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use left_core::content::{ContentId, MAX_FILE_SIZE, SegmentRef};
use left_core::path::RelPath;
use left_core::plan::FetchItem;
use left_core::version::DeviceId;
use tracing::debug;

use super::big::Big;
use super::file::BigFile;
use super::shared::{Shared, close, lock};
use super::state::{Job, State};
use super::{is_small, walk};

/// Offers taken at once; of others nothing is brought before they are needed.
const MAX_OFFERS: usize = 4;

/// What a peer tells of a file that it still reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offered {
    /// Stands for the content id in requests.
    pub id: ContentId,
    /// Of which path.
    pub path: RelPath,
    /// Bytes of the file.
    pub size: u64,
    /// Position of the first of `segments`.
    pub from: u64,
    /// The next segments.
    pub segments: Vec<SegmentRef>,
    /// What stands at that path here now.
    pub base: Option<(RelPath, ContentId)>,
}

/// The name in the stage of what is offered for a path: found again after a restart, when the
/// content id is known.
pub(super) fn offer_name(path: &RelPath) -> String {
    let hash = blake3::derive_key("LEFT 2026 stage of an offer v1", path.as_bytes());
    ContentId(hash).to_string()
}

/// Takes in an offer, or more of one.
pub(super) fn take(shared: &Shared, peer: DeviceId, offered: Offered) {
    let mut guard = lock(&shared.state);
    let st = &mut *guard;
    let known = (st.bigs.iter_mut())
        .find(|(_, big)| {
            big.offer.as_ref().is_some_and(|o| o.from == peer) && big.file.id() == offered.id
        })
        .map(|(serial, big)| {
            // Before it is judged: it is we who may have stood still.
            big.touch();
            *serial
        });
    forget_dead(shared, st);
    let serial = known.or_else(|| begin(st, peer, &offered));
    if let Some(serial) = serial
        && let Some(big) = st.bigs.get_mut(&serial)
    {
        if big.offered(offered.from, &offered.segments) {
            while st.schedule_walk(serial, &shared.config) {}
        } else {
            debug!(%peer, path = %offered.path, "an offer that makes no sense");
            end(shared, st, serial);
        }
    }
    drop(guard);
    shared.wake_all();
}

/// Ends an offer, before another one can take its place: nothing is written to its staged file any
/// more, and that is gone.
fn end(shared: &Shared, st: &mut State, serial: u64) {
    if let Some(big) = st.remove_big(serial) {
        close(&big.file);
        shared.discard(&big.file.name());
    }
}

fn begin(st: &mut State, peer: DeviceId, offered: &Offered) -> Option<u64> {
    let name = offer_name(&offered.path);
    let open = st.bigs.values().filter(|b| b.offer.is_some()).count();
    let in_use = st.bigs.values().any(|b| b.file.name() == name);
    let worth = !is_small(offered.size) && offered.size <= MAX_FILE_SIZE && offered.from == 0;
    if !worth || in_use || open >= MAX_OFFERS || !st.peers.alive(&peer) {
        return None;
    }
    let serial = st.serial();
    let file = Arc::new(BigFile::new(
        serial,
        offered.id,
        offered.path.clone(),
        offered.size,
        name,
        offered.base.clone(),
    ));
    st.add_big(Big::of_offer(Arc::clone(&file), peer));
    st.jobs.push_back(Job::Prepare(file));
    Some(serial)
}

/// Ends offers of which nothing will come any more.
pub(super) fn forget_dead(shared: &Shared, st: &mut State) {
    let dead: Vec<u64> = (st.bigs.iter())
        .filter(|(_, b)| {
            b.offer
                .as_ref()
                .is_some_and(|o| o.touched.elapsed() > shared.config.offer_idle)
        })
        .map(|(serial, _)| *serial)
        .collect();
    for serial in dead {
        end(shared, st, serial);
    }
}

/// Ends what is offered for a path: its content is got in another way.
pub(super) fn forget(shared: &Shared, st: &mut State, path: &RelPath) {
    if let Some(serial) = find(st, path) {
        end(shared, st, serial);
    }
}

/// Whether it is quicker to go on with what was offered for the item's path than to copy it anew.
pub(super) fn is_ahead(st: &State, item: &FetchItem) -> bool {
    let big = find(st, &item.path).and_then(|serial| st.bigs.get(&serial));
    let file = big.map(|b| &b.file).filter(|f| f.size == item.size);
    // What it was is told by a peer.
    let confirmed = item.peers.iter().any(|p| st.peers.alive(p));
    file.filter(|_| confirmed).is_some_and(|file| {
        let done = file.bytes_done.load(Ordering::Relaxed);
        // With places the rest comes from the same files as a copy would.
        let local = file.prepared.get().is_some_and(|p| p.places);
        done > 0 && (local || done >= file.size / 2)
    })
}

fn find(st: &State, path: &RelPath) -> Option<u64> {
    (st.bigs.iter())
        .find(|(_, b)| b.offer.is_some() && b.file.path == *path)
        .map(|(serial, _)| *serial)
}

/// An item is wanted that may be what was offered for its path: what came of that counts for it,
/// if the content's own list confirms it.
pub(super) fn bind(st: &mut State, item: &FetchItem) -> Option<u64> {
    let serial = find(st, &item.path)?;
    let mut big = st.remove_big(serial)?;
    if big.file.size != item.size {
        // The staged part stays: it is looked through for what is right in it.
        close(&big.file);
        return None;
    }
    big.was = Some(big.file.id());
    big.file.bind(item.content);
    big.bind(item.id, &item.peers);
    st.add_big(big);
    Some(serial)
}

/// The segment list of a content is verified: opens what is not open yet and goes on.
pub(super) fn settle(shared: &Shared, file: &Arc<BigFile>, list: Vec<SegmentRef>) {
    let mut guard = lock(&shared.state);
    let st = &mut *guard;
    let Some(big) = st.bigs.get_mut(&file.serial) else {
        return;
    };
    if !big.settle(list.clone()) {
        // The new attempt works on the same staged file: first the old one must have ended.
        close(file);
        restart(shared, st, file);
        drop(guard);
        shared.wake_all();
        return;
    }
    let waiter = big.waiters.first().copied();
    drop(guard);
    // From here on it can be found again under its content id.
    if let Some(waiter) = waiter
        && file.name() == offer_name(&file.path)
    {
        // Opening it goes by its name.
        let opening = lock(&file.opening);
        let name = shared.final_name(&lock(&shared.state), &file.id(), waiter);
        match shared.disk.stage_rename(&file.name(), &name) {
            Ok(true) => file.renamed(name),
            // Not opened yet.
            Ok(false) => file.renamed(name),
            Err(error) => debug!(path = %file.path, %error, "the staged file keeps its name"),
        }
        drop(opening);
    }
    walk::prepare(shared, file, Some(&list));
    shared.drain(file);
}

/// What was offered was something else: the content is fetched as if there had been no offer.
fn restart(shared: &Shared, st: &mut State, file: &BigFile) {
    let Some(old) = st.remove_big(file.serial) else {
        return;
    };
    let serial = st.serial();
    for id in &old.waiters {
        st.items.insert(*id, super::state::Whereabouts::Big(serial));
    }
    let content = file.id();
    let Some(first) = old.waiters.first() else {
        return;
    };
    let name = shared.final_name(st, &content, *first);
    let anew = BigFile::new(
        serial,
        content,
        file.path.clone(),
        file.size,
        name,
        file.base.clone(),
    );
    st.add_big(Big::new(Arc::new(anew), old.waiters, &old.peers));
}
