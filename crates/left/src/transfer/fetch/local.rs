//! The local workers: copies within the share, and the jobs that need no peer.

use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use left_core::chunker::content_id;
use left_core::plan::{FetchItem, OpId, StageName};
use tracing::debug;

use super::file::BigFile;
use super::shared::{Shared, lock, stage_error};
use super::state::Job;
use super::{is_small, offers, walk};
use crate::counters::HASHED;
use crate::transfer::fileio::{copy_hashed, read_at_most, reflink};

enum Work {
    Job(Job),
    Copy(Box<FetchItem>),
}

/// A worker's life.
pub(super) fn work(shared: &Shared) {
    while let Some(work) = next(shared) {
        match work {
            Work::Copy(item) => {
                copy(shared, *item);
                lock(&shared.state).copying -= 1;
                shared.wake_all();
            }
            Work::Job(Job::Walk(file)) => walk::walk(shared, &file),
            Work::Job(Job::Prepare(file)) => walk::prepare(shared, &file, None),
            Work::Job(Job::Settle(file, list)) => offers::settle(shared, &file, list),
            Work::Job(Job::FromBase(file, place, list)) => {
                walk::from_base(shared, &file, place, list);
            }
            Work::Job(Job::Deliver(file, waiters)) => deliver(shared, &file, &waiters),
            Work::Job(Job::Flush) => shared.flush(),
        }
    }
}

/// The next thing to do; jobs first, as peers may wait for them. Of several workers one is never
/// taken by copying, which can last long.
fn next(shared: &Shared) -> Option<Work> {
    let mut st = lock(&shared.state);
    let copiers = shared.config.local_threads.saturating_sub(1).max(1);
    let mut flushed = false;
    loop {
        if st.closed {
            return None;
        }
        if let Some(job) = st.jobs.pop_front() {
            return Some(Work::Job(job));
        }
        if st.copying < copiers
            && let Some(item) = st.copies.pop_front()
        {
            st.copying += 1;
            return Some(Work::Copy(Box::new(item)));
        }
        if !flushed {
            drop(st);
            shared.flush();
            st = lock(&shared.state);
            flushed = true;
            continue;
        }
        st = shared.work.wait(st).unwrap_or_else(PoisonError::into_inner);
        flushed = false;
    }
}

/// Stages an item from files of this share, or passes it on to the peers.
fn copy(shared: &Shared, item: FetchItem) {
    // What was offered for its path may be nearly there, from other files of the share as well.
    let offered = offers::is_ahead(&lock(&shared.state), &item);
    if !offered {
        offers::forget(shared, &mut lock(&shared.state), &item.path);
    }
    let mut failed = None;
    if item.size == 0 && item.content == content_id(&[]) {
        return match shared.disk.stage_create(&shared.own_name(item.id)) {
            Ok(_) => shared.staged(item.id, shared.own_name(item.id)),
            Err(e) => fail(shared, item.id, &e),
        };
    }
    for path in &item.copies {
        if !lock(&shared.state).items.contains_key(&item.id) {
            break;
        }
        match try_copy(shared, &item, path, offered) {
            Ok(true) => {
                offers::forget(shared, &mut lock(&shared.state), &item.path);
                let local = &shared.stats.local;
                local.fetch_add(item.size, Ordering::Relaxed);
                return shared.staged(item.id, shared.own_name(item.id));
            }
            Ok(false) => {}
            Err(e) => failed = Some(e),
        }
    }
    shared.discard(&shared.own_name(item.id));
    if let Some(e) = failed.filter(is_full) {
        return fail(shared, item.id, &e);
    }
    let mut st = lock(&shared.state);
    // It may have been cancelled meanwhile.
    let outcomes = match st.items.contains_key(&item.id) {
        true => shared.route(&mut st, item),
        false => Vec::new(),
    };
    drop(st);
    shared.report(outcomes);
    shared.wake_all();
}

fn is_full(e: &io::Error) -> bool {
    stage_error(e) == left_core::plan::FetchError::Full
}

fn fail(shared: &Shared, id: OpId, e: &io::Error) {
    let outcomes = lock(&shared.state).end([(vec![id], stage_error(e))]);
    shared.report(outcomes);
}

/// Copies one file and checks what was copied. `Ok(false)` when the file is not what it should
/// be, cannot be read, or shares no blocks with its copy though it shall (`only_shared`); errors are the
/// stage's.
fn try_copy(
    shared: &Shared,
    item: &FetchItem,
    path: &left_core::path::RelPath,
    only_shared: bool,
) -> io::Result<bool> {
    let Ok((src, stat)) = shared.disk.open_local(path) else {
        return Ok(false);
    };
    if stat.size != item.size {
        return Ok(false);
    }
    let name = shared.own_name(item.id);
    if is_small(item.size) {
        let mut bytes = vec![0; item.size as usize];
        let read = read_at_most(&src, &mut bytes, 0);
        HASHED.add(item.size);
        if !matches!(read, Ok(n) if n == bytes.len()) || content_id(&bytes) != item.content {
            return Ok(false);
        }
        let mut file = shared.disk.stage_create(&name)?;
        io::Write::write_all(&mut file, &bytes)?;
        return Ok(true);
    }
    let staged = shared.disk.stage_create(&name)?;
    let stop = || {
        let st = lock(&shared.state);
        st.closed || !st.items.contains_key(&item.id)
    };
    // A clone cannot change under us any more; without one, the bytes are hashed as they are
    // copied.
    let id = match reflink(&src, &staged) {
        true => copy_hashed(&staged, None, &stop)?,
        false if only_shared => return Ok(false),
        false => copy_hashed(&src, Some(&staged), &stop)?,
    };
    if id.is_some_and(|id| id != item.content) {
        debug!(%path, "a local copy is not what it was");
    }
    Ok(id == Some(item.content))
}

/// Hands a whole staged file to its first item, and copies of it to the others.
fn deliver(shared: &Shared, file: &BigFile, waiters: &[OpId]) {
    let Some(prepared) = file.prepared.get() else {
        return;
    };
    let (first, others) = match waiters.split_first() {
        Some(split) => split,
        None => return,
    };
    for id in others {
        let name = shared.own_name(*id);
        let copied = shared.disk.stage_create(&name).and_then(|dst| {
            if reflink(&prepared.file, &dst) {
                return Ok(true);
            }
            let id = copy_hashed(&prepared.file, Some(&dst), &|| lock(&shared.state).closed)?;
            Ok(id == Some(file.id()))
        });
        match copied {
            Ok(true) => shared.staged(*id, name),
            Ok(false) => fail(shared, *id, &io::Error::other("the staged file changed")),
            Err(e) => fail(shared, *id, &e),
        }
    }
    let ended = lock(&shared.state).items.remove(first).is_some();
    if ended {
        shared.report([(*first, Ok(StageName(file.name())))]);
    }
}
