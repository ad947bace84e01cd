//! What a lane does with a frame: check, write, book.
//!
//! An answer of a wrong form closes the lane; one of the right form with wrong bytes is asked for
//! again, from another peer where there is one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use left_core::chunker::{MAX_CHUNK, content_id};
use left_core::content::{ChunkRef, SEGMENT_MAX_CHUNKS, SEGMENT_TARGET_MAX, Segment, WHOLE_MAX};
use left_core::version::DeviceId;
use tracing::warn;

use super::big::Page;
use super::file::BigFile;
use super::lane::InFlight;
use super::shared::{Shared, guarded, lock, stage_error, written};
use super::small::{Failed, Key};
use super::state::{Job, State, Task};
use super::wanted::{Asked, BigTask, MissingChunks, Place, Wanted};
use crate::counters::HASHED;
use crate::transfer::fileio::{matches, write_chunks};
use crate::transfer::frame::{
    CHUNK_REF_LEN, FrameError, FrameKind, Header, REFS_PAGE, SEGMENT_REF_LEN, parse_list,
    parse_refs,
};

/// Checks a header against what was asked for, before the payload is read.
pub(super) fn check(asked: &InFlight, h: &Header) -> Result<(), FrameError> {
    let (items, kind) = match &asked.task {
        Task::Small(keys) => (keys.len(), FrameKind::Data),
        Task::Big(_, BigTask::Refs(_), _) => (1, FrameKind::Refs),
        Task::Big(_, BigTask::Parts(parts), _) => {
            let kind = match parts.front() {
                Some(Wanted::List(_)) => FrameKind::List,
                Some(Wanted::Chunks(_)) => FrameKind::Chunks,
                _ => FrameKind::Segment,
            };
            // Answered parts have left the queue.
            (asked.next + parts.len(), kind)
        }
    };
    let gone = h.kind == FrameKind::Gone;
    if !gone && h.kind != kind {
        return Err(FrameError::Malformed("an answer of another kind"));
    }
    let ends = asked.next + 1 == items || (gone && matches!(asked.task, Task::Big(..)));
    if h.last != ends {
        return Err(FrameError::Malformed(
            "an answer that ends too soon or late",
        ));
    }
    let (count, raw) = (usize::from(h.count), u64::from(h.raw));
    let fits = match (&asked.task, h.kind) {
        (_, FrameKind::Gone) => raw == 0,
        (Task::Small(keys), _) => raw == keys[asked.next].1 && raw <= WHOLE_MAX,
        (_, FrameKind::Refs) => {
            (1..=REFS_PAGE).contains(&count) && raw == (count * SEGMENT_REF_LEN) as u64
        }
        (Task::Big(_, BigTask::Parts(_), whom), _) if whom.hint && whom.partial => {
            // Its segment may be another one than ours; whether it is shows when it is here.
            let (list, raw) = (count * CHUNK_REF_LEN, h.raw as usize);
            let most = SEGMENT_TARGET_MAX as usize + MAX_CHUNK;
            count <= SEGMENT_MAX_CHUNKS
                && match h.kind {
                    FrameKind::List => raw == list,
                    FrameKind::Segment => (list..=list + most).contains(&raw),
                    _ => raw <= most,
                }
        }
        (Task::Big(_, BigTask::Parts(parts), _), _) => {
            let list = (count * CHUNK_REF_LEN) as u64;
            let bytes = parts.front().map_or(0, Wanted::cost);
            match h.kind {
                FrameKind::List => count <= SEGMENT_MAX_CHUNKS && raw == list,
                FrameKind::Segment => count <= SEGMENT_MAX_CHUNKS && raw == list + bytes,
                _ => raw == bytes,
            }
        }
        _ => false,
    };
    match fits {
        true => Ok(()),
        false => Err(FrameError::Malformed("an answer of another length")),
    }
}

/// Puts what a lost lane was asked for back in the queues.
pub(super) fn give_back(st: &mut State, asked: InFlight) -> Vec<Failed> {
    match asked.task {
        Task::Small(keys) => {
            let rest = keys.into_iter().skip(asked.next);
            rest.rev()
                .filter_map(|key| st.small.lost(key, &st.peers))
                .collect()
        }
        Task::Big(file, task, whom) => {
            if let Some(big) = st.bigs.get_mut(&file.serial) {
                match task {
                    BigTask::Refs(_) => big.refs_lost(),
                    BigTask::Parts(parts) => {
                        for part in parts.into_iter().rev() {
                            big.lost(part.n(), part.cost(), &whom);
                            big.again(part);
                        }
                    }
                }
            }
            Vec::new()
        }
    }
}

/// Takes in a frame that [`check`] has passed.
pub(super) fn accept(
    shared: &Shared,
    peer: DeviceId,
    asked: &mut InFlight,
    h: &Header,
    payload: &[u8],
) {
    let gone = h.kind == FrameKind::Gone;
    let item = asked.next;
    asked.next += 1;
    match &mut asked.task {
        Task::Small(keys) => {
            let key = keys[item];
            HASHED.add(payload.len() as u64);
            if gone {
                small_failed(shared, key, peer, false);
            } else if content_id(payload) == key.0 {
                small_done(shared, key, payload);
            } else {
                small_failed(shared, key, peer, true);
            }
        }
        Task::Big(file, BigTask::Refs(_), whom) if gone => {
            big_gone(shared, file, whom, Vec::new());
        }
        Task::Big(file, BigTask::Refs(from), whom) => {
            refs(shared, file, whom, *from, payload);
        }
        Task::Big(file, BigTask::Parts(parts), whom) => {
            if gone {
                big_gone(shared, file, whom, parts.drain(..).collect());
            } else if let Some(part) = parts.pop_front() {
                let list = usize::from(h.count) * CHUNK_REF_LEN;
                self::part(shared, file, whom, part, payload, list);
            }
        }
    }
}

fn small_done(shared: &Shared, key: Key, bytes: &[u8]) {
    let waiters: Vec<_> = {
        let mut st = lock(&shared.state);
        let waiters = st.small.settle(&key);
        let wanted = waiters.into_iter();
        wanted.filter(|id| st.items.remove(id).is_some()).collect()
    };
    let fetched = &shared.stats.fetched;
    fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    shared.stage_small(waiters, bytes);
}

fn small_failed(shared: &Shared, key: Key, peer: DeviceId, lied: bool) {
    let mut guard = lock(&shared.state);
    let st = &mut *guard;
    let failed = match lied {
        true => {
            warn!(%peer, content = ?key.0, "a peer sent wrong bytes");
            *st.suspects.entry(peer).or_default() += 1;
            st.small.bad(key, peer, &st.peers)
        }
        false => st.small.gone(key, peer, &st.peers),
    };
    let outcomes = st.end(failed);
    drop(guard);
    shared.report(outcomes);
    shared.wake_all();
}

impl Shared {
    /// Writes a small content once for each item; the items are no longer in the state.
    pub(super) fn stage_small(&self, waiters: Vec<left_core::plan::OpId>, bytes: &[u8]) {
        for id in waiters {
            let name = self.own_name(id);
            let result = match self.disk.stage_put(&name, bytes) {
                Ok(()) => {
                    self.report_bytes(bytes.len());
                    Ok(left_core::plan::StageName(name))
                }
                Err(e) => {
                    self.discard(&name);
                    Err(stage_error(&e))
                }
            };
            self.report([(id, result)]);
        }
    }
}

fn refs(shared: &Shared, file: &Arc<BigFile>, whom: &Asked, from: u64, payload: &[u8]) {
    let mut st = lock(&shared.state);
    let Some(big) = st.bigs.get_mut(&file.serial) else {
        return;
    };
    match big.page(&whom.peer, from, parse_refs(payload)) {
        Page::More => {}
        Page::Whole(list) => {
            let job = Job::Settle(Arc::clone(file), list);
            st.jobs.push_front(job);
        }
        Page::Bad => {
            drop(st);
            return big_bad(shared, file, whom, None);
        }
    }
    drop(st);
    shared.wake_all();
}

fn part(
    shared: &Shared,
    file: &Arc<BigFile>,
    whom: &Asked,
    part: Wanted,
    payload: &[u8],
    list_len: usize,
) {
    let (n, cost) = (part.n(), part.cost());
    if superfluous(shared, file, n, cost, whom) {
        return;
    }
    let written = match &part {
        Wanted::List(place) => match parse_list(payload, &place.sref) {
            Some(list) => {
                let mut st = lock(&shared.state);
                if let Some(big) = st.bigs.get_mut(&file.serial) {
                    big.landed(n, cost, whom);
                    big.unwant(n);
                    let job = Job::FromBase(Arc::clone(file), *place, list);
                    st.jobs.push_back(job);
                }
                drop(st);
                shared.wake_all();
                return;
            }
            None => Ok(Written::Bad),
        },
        Wanted::Segment(place) => {
            let (list, bytes) = payload.split_at(list_len);
            match parse_list(list, &place.sref).filter(|_| bytes.len() as u64 == place.sref.len) {
                Some(list) if matches(bytes, &list) => {
                    write_segment(shared, file, *place, bytes, list)
                }
                _ => Ok(Written::Bad),
            }
        }
        Wanted::Chunks(missing) if payload.len() as u64 == missing.bytes => {
            write_missing(shared, file, missing, payload)
        }
        Wanted::Chunks(_) => Ok(Written::Bad),
    };
    match written {
        Ok(Written::Good(segment)) => {
            shared.stats.fetched.fetch_add(cost, Ordering::Relaxed);
            shared.segment_done(file, n, segment, Some((cost, whom)));
        }
        Ok(Written::Closed) => {}
        Ok(Written::Bad) => big_bad(shared, file, whom, Some(part)),
        Err(e) => shared.fail_big(file, stage_error(&e)),
    }
}

/// Whether somebody else has brought the segment meanwhile: then the answer only counts no more as
/// asked for.
fn superfluous(shared: &Shared, file: &Arc<BigFile>, n: usize, cost: u64, whom: &Asked) -> bool {
    let mut st = lock(&shared.state);
    let Some(big) = st.bigs.get_mut(&file.serial).filter(|b| b.has(n)) else {
        return false;
    };
    big.landed(n, cost, whom);
    drop(st);
    shared.wake_all();
    true
}

enum Written {
    Good(Segment),
    /// The content is not wanted any more.
    Closed,
    /// Not the bytes that were asked for.
    Bad,
}

fn write_segment(
    shared: &Shared,
    file: &BigFile,
    place: Place,
    bytes: &[u8],
    list: Vec<ChunkRef>,
) -> io::Result<Written> {
    let Some(prepared) = file.prepared.get() else {
        return Ok(Written::Closed);
    };
    let (f, fresh) = (&prepared.file, prepared.fresh);
    let done = guarded(file, || write_chunks(f, fresh, place.offset, bytes, &list))?;
    if done.is_none() {
        return Ok(Written::Closed);
    }
    written(shared, file, f, place.offset, bytes.len() as u64);
    let segment = Segment {
        sref: place.sref,
        chunks: list,
    };
    Ok(Written::Good(segment))
}

/// Checks and writes the chunks that only a peer had; the others are in place.
fn write_missing(
    shared: &Shared,
    file: &BigFile,
    missing: &MissingChunks,
    bytes: &[u8],
) -> io::Result<Written> {
    let Some(prepared) = file.prepared.get() else {
        return Ok(Written::Closed);
    };
    // Runs of chunks that lie side by side in the file too: offset, bytes, list.
    let mut runs: Vec<(u64, usize, Vec<ChunkRef>)> = Vec::new();
    let mut offset = missing.place.offset;
    for (i, c) in missing.list.iter().enumerate() {
        if missing.wants(i) {
            match runs.last_mut() {
                Some((from, len, list)) if *from + *len as u64 == offset => {
                    *len += c.len as usize;
                    list.push(*c);
                }
                _ => runs.push((offset, c.len as usize, vec![*c])),
            }
        }
        offset += u64::from(c.len);
    }
    let mut rest = bytes;
    let mut pieces = Vec::with_capacity(runs.len());
    for (offset, len, list) in &runs {
        let (piece, after) = rest.split_at(*len);
        if !matches(piece, list) {
            return Ok(Written::Bad);
        }
        pieces.push((*offset, piece, list));
        rest = after;
    }
    let write = || {
        let write = |(offset, piece, list): (u64, &[u8], &Vec<ChunkRef>)| {
            write_chunks(&prepared.file, prepared.fresh, offset, piece, list)
        };
        pieces.into_iter().try_for_each(write)
    };
    if guarded(file, write)?.is_none() {
        return Ok(Written::Closed);
    }
    let sref = missing.place.sref;
    written(shared, file, &prepared.file, missing.place.offset, sref.len);
    let segment = Segment {
        sref,
        chunks: missing.list.clone(),
    };
    Ok(Written::Good(segment))
}

/// The peer sent something else than what was asked for.
fn big_bad(shared: &Shared, file: &Arc<BigFile>, whom: &Asked, part: Option<Wanted>) {
    let peer = whom.peer;
    warn!(%peer, content = ?file.id(), "a peer sent wrong bytes");
    let mut st = lock(&shared.state);
    // The segments of an offer are a hint: bytes that are not theirs say nothing of who has it from
    // somebody else, nor of a content.
    if !whom.partial || !whom.hint {
        *st.suspects.entry(peer).or_default() += 1;
    }
    if whom.partial && !whom.hint {
        st.peers.patience.distrust(peer, Instant::now());
    }
    if let Some(big) = st.bigs.get_mut(&file.serial) {
        match whom.partial {
            true => big.swarm.ban(&peer),
            false if whom.id == file.id() => big.blame(peer),
            false => {}
        }
    }
    drop(st);
    ask_again(shared, file, whom, part.into_iter().collect());
}

/// The peer has the content no more.
fn big_gone(shared: &Shared, file: &Arc<BigFile>, whom: &Asked, parts: Vec<Wanted>) {
    let mut st = lock(&shared.state);
    if let Some(big) = st.bigs.get_mut(&file.serial) {
        let positions: Vec<usize> = parts.iter().map(Wanted::n).collect();
        let lists = matches!(parts.first(), Some(Wanted::List(_)));
        match whom.partial {
            true => big.swarm.gone_at(&whom.peer, &positions, lists),
            // What was an offer when it was asked for may have a content id by now, and be there
            // under it.
            false if whom.id == file.id() => big.gone_at(whom.peer),
            false => {}
        }
    }
    drop(st);
    ask_again(shared, file, whom, parts);
}

fn ask_again(shared: &Shared, file: &Arc<BigFile>, whom: &Asked, parts: Vec<Wanted>) {
    let hopeless = {
        let st = &mut *lock(&shared.state);
        let Some(big) = st.bigs.get_mut(&file.serial) else {
            return;
        };
        for part in parts.into_iter().rev() {
            big.lost(part.n(), part.cost(), whom);
            big.again(part);
        }
        big.hopeless(&st.peers)
    };
    if let Some(why) = hopeless {
        return shared.fail_big(file, why);
    }
    shared.wake_all();
}
