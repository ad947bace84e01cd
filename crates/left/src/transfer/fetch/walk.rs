//! Goes through a big content's segments: what is zeros, what is in the stage already, what an
//! older version has, and what a peer must be asked for.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use left_core::chunker::cut_segment;
use left_core::content::{ChunkRef, Segment, SegmentId, SegmentRef};
use tracing::{debug, warn};

use super::base::{self, Base};
use super::elsewhere::LISTS_FIRST;
use super::file::{BigFile, Prepared};
use super::offers::offer_name;
use super::shared::{Shared, guarded, lock, stage_error, written};
use super::wanted::{MissingChunks, Place, Wanted};
use crate::counters::HASHED;
use crate::transfer::fileio::{has_data, make_zero, read_at_most, write_chunks};

/// Opens the stage and the base: of a content with this (verified) segment list, or of an offer.
pub(super) fn prepare(shared: &Shared, file: &Arc<BigFile>, refs: Option<&[SegmentRef]>) {
    let opening = lock(&file.opening);
    if file.prepared.get().is_none() {
        open(shared, file, refs);
    }
    drop(opening);
    start(shared, file);
}

fn open(shared: &Shared, file: &Arc<BigFile>, refs: Option<&[SegmentRef]>) {
    let (staged, fresh) = match guarded(file, || open_stage(shared, file)) {
        Ok(Some(opened)) => opened,
        Ok(None) => return,
        Err(e) => return shared.fail_big(file, stage_error(&e)),
    };
    let base = open_base(shared, file, refs);
    let places = shared.manifests.has_places();
    if let Some(list) = refs.filter(|_| places) {
        let own = file.base.as_ref().map(|(_, content)| *content);
        file.elsewhere.probe(shared, list, own);
    }
    let cloned = match guarded(file, || clone_base(file, &staged, fresh, base.as_ref())) {
        Ok(Some(cloned)) => cloned,
        Ok(None) => return,
        Err(e) => return shared.fail_big(file, stage_error(&e)),
    };
    let prepared = Prepared {
        file: staged,
        fresh: fresh && !cloned,
        base,
        cloned,
        places,
    };
    match shared.manifests.info(&file.id()) {
        Ok(Some(_)) => {}
        Ok(None) => match shared.manifests.writer() {
            Ok(w) => *lock(&file.writer) = Some(w),
            Err(e) => warn!(content = ?file.id(), %e, "no manifest will be stored"),
        },
        Err(e) => warn!(content = ?file.id(), %e, "no manifest will be stored"),
    }
    // Nobody else sets it while `opening` is held.
    let _ = file.prepared.set(prepared);
}

/// Lets the workers go through the segments.
fn start(shared: &Shared, file: &Arc<BigFile>) {
    let mut guard = lock(&shared.state);
    let st = &mut *guard;
    if let Some(big) = st.bigs.get_mut(&file.serial) {
        big.start_segments(&st.peers);
        if !big.swarm.is_quiet() {
            shared.news.notify_all();
        }
        while st.schedule_walk(file.serial, &shared.config) {}
    }
    drop(guard);
    shared.wake_all();
}

/// The staged file, of the right length, and whether nothing is in it. What an earlier run left
/// is used again.
fn open_stage(shared: &Shared, file: &BigFile) -> io::Result<(File, bool)> {
    let name = file.name();
    // A part of it may have come while its content id was not known.
    let offered = offer_name(&file.path);
    let mut old = shared.disk.stage_open(&name)?;
    if old.is_none() && name != offered && shared.disk.stage_rename(&offered, &name)? {
        old = shared.disk.stage_open(&name)?;
    }
    if let Some(old) = old {
        let fresh = old.metadata()?.len() == 0;
        old.set_len(file.size)?;
        let fresh = fresh || !has_data(&old, 0, file.size)?;
        return Ok((old, fresh));
    }
    let new = shared.disk.stage_create(&name)?;
    new.set_len(file.size)?;
    Ok((new, true))
}

fn open_base(shared: &Shared, file: &BigFile, refs: Option<&[SegmentRef]>) -> Option<Base> {
    let (path, content) = file.base.as_ref()?;
    let (opened, _) = shared.disk.open_local(path).ok()?;
    let max = shared.config.base_chunks;
    match Base::load(&*shared.manifests, opened, *content, refs, max) {
        Ok(base) => base,
        Err(e) => {
            debug!(%path, %e, "an older version is of no use");
            None
        }
    }
}

/// Begins a staged file that is empty as a clone of the older version, where the file system can:
/// then only what changed is written, and takes room.
fn clone_base(file: &BigFile, staged: &File, fresh: bool, base: Option<&Base>) -> io::Result<bool> {
    let cloned = fresh && base.is_some_and(|base| base.clone_into(staged));
    if cloned {
        staged.set_len(file.size)?;
    }
    Ok(cloned)
}

/// What a look at a segment showed.
enum Found {
    /// It is in place.
    Here(Segment),
    Ask(Wanted),
    /// The content is not wanted any more.
    Closed,
}

/// Looks at segments until the look-ahead is used up.
pub(super) fn walk(shared: &Shared, file: &Arc<BigFile>) {
    let Some(prepared) = file.prepared.get() else {
        return;
    };
    let mut buf = Vec::new();
    let mut asked = Vec::new();
    loop {
        let next = {
            let mut guard = lock(&shared.state);
            let st = &mut *guard;
            let closed = st.closed;
            let Some(big) = st.bigs.get_mut(&file.serial) else {
                return;
            };
            let next = big.walk_next(shared.config.look_ahead).filter(|_| !closed);
            // Requests are handed over in groups, but never kept over a segment's reading.
            let may_read = prepared.base.is_some() || prepared.places || !prepared.fresh;
            if next.is_none() || may_read || asked.len() >= 16 {
                asked.drain(..).for_each(|part| big.want(part));
            }
            if next.is_none() {
                big.walkers -= 1;
            }
            next
        };
        if asked.is_empty() {
            shared.wake.notify_all();
        }
        let Some(place) = next else { break };
        match look(shared, file, prepared, place, &mut buf) {
            Ok(Found::Here(segment)) => {
                let local = match segment.sref.is_zeros() {
                    true => 0,
                    false => segment.sref.len,
                };
                shared.stats.local.fetch_add(local, Ordering::Relaxed);
                shared.segment_done(file, place.n, segment, None);
            }
            Ok(Found::Ask(part)) => asked.push(part),
            Ok(Found::Closed) => return,
            Err(e) => return shared.fail_big(file, stage_error(&e)),
        }
    }
    give_up_if_hopeless(shared, file);
}

fn give_up_if_hopeless(shared: &Shared, file: &Arc<BigFile>) {
    let why = {
        let st = lock(&shared.state);
        let big = st.bigs.get(&file.serial);
        big.and_then(|b| b.hopeless(&st.peers))
    };
    if let Some(why) = why {
        shared.fail_big(file, why);
    }
}

fn look(
    shared: &Shared,
    file: &BigFile,
    prepared: &Prepared,
    place: Place,
    buf: &mut Vec<u8>,
) -> io::Result<Found> {
    let sref = place.sref;
    let (staged, offset) = (&prepared.file, place.offset);
    let old_data = !prepared.fresh && has_data(staged, offset, sref.len)?;
    if sref.is_zeros() {
        if old_data && guarded(file, || make_zero(staged, offset, sref.len))?.is_none() {
            return Ok(Found::Closed);
        }
        let chunks = Vec::new();
        return Ok(Found::Here(Segment { sref, chunks }));
    }
    if !old_data && prepared.base.is_none() && !prepared.places {
        return Ok(Found::Ask(Wanted::Segment(place)));
    }
    let len = sref.len as usize;
    if buf.len() < len {
        buf.resize(len, 0);
    }
    let buf = &mut buf[..len];
    // Looking for it here may fail without harm: then a peer is asked.
    let manifests = &*shared.manifests;
    let base = prepared.base.as_ref();
    let in_base = base.and_then(|b| b.find(manifests, &sref).unwrap_or(None));
    let stays = (in_base.as_ref()).filter(|(at, _)| prepared.cloned && *at == offset);
    if let Some((_, segment)) = stays
        && base::read(staged, segment, offset, buf)?
    {
        return Ok(Found::Here(segment.clone()));
    }
    if old_data && !prepared.cloned && read_at_most(staged, buf, offset)? == len {
        let last = offset + sref.len == file.size;
        HASHED.add(buf.len() as u64);
        let cut = cut_segment(buf, last).filter(|list| SegmentId::of(list) == sref.id);
        if let Some(chunks) = cut {
            return Ok(Found::Here(Segment { sref, chunks }));
        }
    }
    let from_base = base.zip(in_base).and_then(|(base, (at, segment))| {
        let read = base.read(&segment, at, buf).unwrap_or(false);
        base.done_with(at, sref.len);
        read.then_some(segment)
    });
    let found = from_base.or_else(|| match prepared.places {
        true => file.elsewhere.segment(shared, &sref, buf),
        false => None,
    });
    let Some(segment) = found else {
        return Ok(Found::Ask(
            match lists_first(shared, file, prepared, place) {
                true => Wanted::List(place),
                false => Wanted::Segment(place),
            },
        ));
    };
    let write = || write_chunks(staged, prepared.fresh, offset, buf, &segment.chunks);
    if guarded(file, write)?.is_none() {
        return Ok(Found::Closed);
    }
    written(shared, file, staged, offset, sref.len);
    Ok(Found::Here(segment))
}

/// Whether some of a segment's chunks may be here, so that its list is worth asking for.
fn lists_first(shared: &Shared, file: &BigFile, prepared: &Prepared, place: Place) -> bool {
    let manifests = &*shared.manifests;
    let has_chunks = |base: &Base| base.has_chunks(manifests);
    prepared.base.as_ref().is_some_and(has_chunks)
        || file.elsewhere.bases().iter().any(|b| has_chunks(b))
        || (prepared.places
            && (place.n == 0 || file.size <= LISTS_FIRST)
            && shared.luck.worth_asking(file.serial))
}

/// Takes the chunks of a segment that the base has; a peer is asked for the rest.
pub(super) fn from_base(shared: &Shared, file: &Arc<BigFile>, place: Place, list: Vec<ChunkRef>) {
    match take_chunks(shared, file, place, list) {
        Ok(Some(Found::Here(segment))) => {
            shared.segment_done(file, place.n, segment, None);
        }
        Ok(Some(Found::Ask(part))) => {
            let mut st = lock(&shared.state);
            if let Some(big) = st.bigs.get_mut(&file.serial) {
                big.want(part);
            }
            drop(st);
            shared.wake_all();
            give_up_if_hopeless(shared, file);
        }
        Ok(_) => {}
        Err(e) => shared.fail_big(file, stage_error(&e)),
    }
}

fn take_chunks(
    shared: &Shared,
    file: &BigFile,
    place: Place,
    list: Vec<ChunkRef>,
) -> io::Result<Option<Found>> {
    let Some(prepared) = file.prepared.get() else {
        return Ok(None);
    };
    let sref = place.sref;
    let elsewhere = &file.elsewhere;
    if prepared.base.is_none() && prepared.places && elsewhere.bases().is_empty() {
        elsewhere.probe_chunks(shared, &list);
    }
    let others = elsewhere.bases();
    let bases: Vec<&Base> = (prepared.base.iter())
        .chain(others.iter().map(|b| &**b))
        .collect();
    let mut buf = vec![0; sref.len as usize];
    let mut bitmap = vec![0u8; list.len().div_ceil(8)];
    let mut bytes = 0;
    // buf[run..at] waits to be written; the chunks of that run are list[first..i].
    let (mut run, mut first, mut at) = (0, 0, 0);
    let write = |run: usize, at: usize, buf: &[u8], chunks: &[ChunkRef]| {
        let offset = place.offset + run as u64;
        guarded(file, || {
            write_chunks(
                &prepared.file,
                prepared.fresh,
                offset,
                &buf[run..at],
                chunks,
            )
        })
    };
    for (i, c) in list.iter().enumerate() {
        let end = at + c.len as usize;
        let found = bases.iter().any(|base| {
            let at_base = base.find_chunk(&*shared.manifests, c);
            // Reading the base may fail without harm: then a peer is asked.
            at_base.is_some_and(|o| base.read_chunk(c, o, &mut buf[at..end]).unwrap_or(false))
        });
        if !found {
            if write(run, at, &buf, &list[first..i])?.is_none() {
                return Ok(Some(Found::Closed));
            }
            (run, first) = (end, i + 1);
            bitmap[i / 8] |= 1 << (i % 8);
            bytes += u64::from(c.len);
        }
        at = end;
    }
    if write(run, at, &buf, &list[first..])?.is_none() {
        return Ok(Some(Found::Closed));
    }
    let local = &shared.stats.local;
    local.fetch_add(sref.len - bytes, Ordering::Relaxed);
    Ok(Some(match bytes {
        0 => Found::Here(Segment { sref, chunks: list }),
        _ => Found::Ask(Wanted::Chunks(Arc::new(MissingChunks {
            place,
            list,
            bitmap,
            bytes,
        }))),
    }))
}
