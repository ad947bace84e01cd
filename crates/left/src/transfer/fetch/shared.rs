//! What all threads of a fetcher hold in common, and how ends of items are reported.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{SendTimeoutError, Sender};
use left_core::content::{ContentId, Segment};
use left_core::plan::{FetchError, FetchItem, OpId, StageName};
use tracing::warn;

use super::big::Big;
use super::elsewhere::Luck;
use super::file::BigFile;
use super::offers;
use super::state::{Job, Outcome, State, Whereabouts};
use super::wanted::Asked;
use super::{FetchConfig, FetchStats, is_small, stock, swarm};
use crate::transfer::fileio::start_writeback;
use crate::transfer::ports::{FetchDisk, ManifestStore};

/// Results wait at most about this long for others to be reported with.
const REPORT_AFTER: Duration = Duration::from_millis(5);

/// How often a thread that waits for the receiver of results looks whether all is over.
const SEND_WAIT: Duration = Duration::from_millis(100);

/// Locks; a thread that panicked elsewhere does not take all others down with it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Results {
    list: Vec<Outcome>,
    since: Option<Instant>,
    /// Of small contents staged: they may be in memory until they are put in place.
    bytes: usize,
}

/// Bytes of small contents that are reported together at most: the stage's room is for those that are
/// being put in place.
const RESULTS_BYTES: usize = 1 << 20;

pub(super) struct Shared {
    pub(super) config: FetchConfig,
    pub(super) disk: Arc<dyn FetchDisk>,
    pub(super) manifests: Arc<dyn ManifestStore>,
    pub(super) state: Mutex<State>,
    /// Something in the state changed that a lane may wait for.
    pub(super) wake: Condvar,
    /// There may be a job for a local worker. Apart, as lanes are woken for each segment that is in place, when
    /// there is hardly ever one.
    pub(super) work: Condvar,
    /// There may be something to tell to others.
    pub(super) news: Condvar,
    pub(super) stats: FetchStats,
    pub(super) luck: Luck,
    results: Mutex<Results>,
    out: Sender<Vec<Outcome>>,
    /// Makes staged names of this run differ from those of others.
    nonce: u64,
}

impl Shared {
    pub(super) fn new(
        config: FetchConfig,
        disk: Arc<dyn FetchDisk>,
        manifests: Arc<dyn ManifestStore>,
        out: Sender<Vec<Outcome>>,
    ) -> Self {
        Self {
            config,
            disk,
            manifests,
            state: Mutex::new(State::new()),
            wake: Condvar::new(),
            work: Condvar::new(),
            news: Condvar::new(),
            stats: FetchStats::default(),
            luck: Luck::default(),
            results: Mutex::new(Results::default()),
            out,
            nonce: RandomState::new().hash_one(std::process::id()),
        }
    }

    /// Wakes whoever may have something to do now: lanes and local workers.
    pub(super) fn wake_all(&self) {
        self.wake.notify_all();
        self.work.notify_all();
    }

    /// A staged name of this item alone.
    pub(super) fn own_name(&self, id: OpId) -> String {
        format!("s{}-{:016x}", id.0, self.nonce)
    }

    /// Puts outcomes with those that wait to be reported.
    pub(super) fn report_later(&self, outcomes: impl IntoIterator<Item = Outcome>) -> bool {
        let mut results = lock(&self.results);
        results.list.extend(outcomes);
        if results.since.is_none() && !results.list.is_empty() {
            results.since = Some(Instant::now());
        }
        results.list.len() >= self.config.results_batch || results.bytes >= RESULTS_BYTES
    }

    /// Notes bytes of an outcome that is reported next.
    pub(super) fn report_bytes(&self, bytes: usize) {
        lock(&self.results).bytes += bytes;
    }

    /// Reports outcomes, together with others when there are soon more. May wait for the
    /// receiver: no lock may be held.
    pub(super) fn report(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        if self.report_later(outcomes) {
            self.flush();
        }
    }

    /// Reports what waits.
    pub(super) fn flush(&self) {
        let list = {
            let mut results = lock(&self.results);
            (results.since, results.bytes) = (None, 0);
            std::mem::take(&mut results.list)
        };
        if !list.is_empty() {
            crash_point!("staged");
            self.send(list);
        }
    }

    /// Waits for the receiver, but not when the fetcher is being dropped: then nobody may listen.
    fn send(&self, mut list: Vec<Outcome>) {
        while let Err(SendTimeoutError::Timeout(back)) = self.out.send_timeout(list, SEND_WAIT) {
            if lock(&self.state).closed {
                return;
            }
            list = back;
        }
    }

    /// Reports what has waited long enough.
    pub(super) fn flush_old(&self) {
        let since = lock(&self.results).since;
        if since.is_some_and(|t| t.elapsed() >= REPORT_AFTER) {
            self.flush();
        }
    }

    /// The name under which a content is staged: its own, so that it is found after a restart,
    /// unless the applier may be moving a file of that name just now.
    pub(super) fn final_name(&self, st: &State, content: &ContentId, id: OpId) -> String {
        match st.delivered.contains(content) {
            true => self.own_name(id),
            false => content.to_string(),
        }
    }

    /// Queues an item for the peers.
    pub(super) fn route(&self, st: &mut State, item: FetchItem) -> Vec<Outcome> {
        let key = (item.content, item.size);
        if is_small(item.size) {
            st.items.insert(item.id, Whereabouts::Small(key));
            let failed = st.small.add(item.id, key, &item.peers, &st.peers);
            return st.end(failed);
        }
        if let Some(serial) = st.by_content.get(&key).copied()
            && let Some(big) = st.bigs.get_mut(&serial)
        {
            big.waiters.push(item.id);
            big.add_peers(&item.peers);
            st.items.insert(item.id, Whereabouts::Big(serial));
            return Vec::new();
        }
        if let Some(serial) = offers::bind(st, &item) {
            st.items.insert(item.id, Whereabouts::Big(serial));
            // Who would confirm it may have left before it was wanted.
            let why = st.bigs.get(&serial).and_then(|b| b.hopeless(&st.peers));
            let Some(why) = why else {
                return Vec::new();
            };
            let ended = st.remove_big(serial);
            return st.end(ended.map(|big| {
                close(&big.file);
                (big.waiters, why)
            }));
        }
        let serial = st.serial();
        let name = self.final_name(st, &item.content, item.id);
        st.items.insert(item.id, Whereabouts::Big(serial));
        let file = BigFile::new(serial, item.content, item.path, item.size, name, item.base);
        let big = Big::new(Arc::new(file), vec![item.id], &item.peers);
        if let Some(why) = big.hopeless(&st.peers) {
            return st.end([(vec![item.id], why)]);
        }
        st.add_big(big);
        Vec::new()
    }

    /// After peers or their standing changed: ends what nobody is left to be asked for, and wakes
    /// those who may have more to do now.
    pub(super) fn peers_changed(&self, mut st: MutexGuard<'_, State>) {
        let inner = &mut *st;
        let failed = inner.small.peers_changed(&inner.peers);
        let mut outcomes = st.end(failed);
        let mut ended = Vec::new();
        for (serial, why) in st.hopeless() {
            if let Some(big) = st.remove_big(serial) {
                outcomes.extend(st.end([(big.waiters.clone(), why)]));
                ended.push(big);
            }
        }
        if !outcomes.is_empty() {
            st.jobs.push_back(Job::Flush);
        }
        drop(st);
        for big in ended {
            close(&big.file);
        }
        self.report_later(outcomes);
        self.wake_all();
    }

    /// Ends a big content with an error. What is staged stays for a later resumption.
    pub(super) fn fail_big(&self, file: &BigFile, why: FetchError) {
        close(file);
        let mut st = lock(&self.state);
        let Some(big) = st.remove_big(file.serial) else {
            return;
        };
        let outcomes = st.end([(big.waiters, why)]);
        st.jobs.push_back(Job::Flush);
        drop(st);
        self.report_later(outcomes);
        self.wake_all();
    }

    /// A segment is verified and in place; where a peer was asked for it, who that was and what it
    /// counted for in the window.
    pub(super) fn segment_done(
        &self,
        file: &Arc<BigFile>,
        n: usize,
        segment: Segment,
        from: Option<(u64, &Asked)>,
    ) {
        crash_point!("staged-part");
        let len = segment.sref.len;
        let mut st = lock(&self.state);
        let Some(big) = st.bigs.get_mut(&file.serial) else {
            return;
        };
        if let Some((cost, whom)) = from {
            big.landed(n, cost, whom);
        }
        if big.complete(n, segment) {
            file.bytes_done.fetch_add(len, Ordering::Relaxed);
            if let Some((cost, whom)) = from.filter(|(_, whom)| whom.partial) {
                big.swarm.brought(&whom.peer, cost);
            }
        }
        drop(st);
        self.drain(file);
    }

    /// Gives the manifest's writer what is in place without a gap, and ends the content when that
    /// is all of it.
    pub(super) fn drain(&self, file: &Arc<BigFile>) {
        let mut writer = lock(&file.writer);
        let done = loop {
            let (run, done) = {
                let mut st = lock(&self.state);
                let Some(big) = st.bigs.get_mut(&file.serial) else {
                    return;
                };
                let run = big.drain();
                let done = big.is_done();
                if st.schedule_walk(file.serial, &self.config) {
                    self.wake_all();
                }
                (run, done)
            };
            if run.is_empty() || writer.is_none() {
                break done;
            }
            for segment in &run {
                let Some(w) = writer.as_mut() else { break };
                if let Err(e) = w.segment(segment) {
                    warn!(content = ?file.id(), %e, "a manifest could not be stored");
                    *writer = None;
                }
            }
            if done {
                break done;
            }
        };
        if !done {
            // There may be room in the file's window again.
            self.wake.notify_all();
            return;
        }
        if let Some(w) = writer.take()
            && let Err(e) = w.finish(&file.id(), file.size)
        {
            // It is computed again from the file when somebody asks for it.
            warn!(content = ?file.id(), %e, "a manifest could not be stored");
        }
        drop(writer);
        self.deliver(file);
    }

    fn deliver(&self, file: &Arc<BigFile>) {
        close(file);
        let shared = |b: &super::big::Big| !b.swarm.partners.is_empty();
        let others = file.size >= swarm::MIN_SIZE
            && lock(&self.state).bigs.get(&file.serial).is_some_and(shared);
        // Without it others ask elsewhere.
        let again = file.prepared.get().filter(|_| others);
        let again = again.and_then(|p| stock::reopen(&p.file).ok());
        let mut st = lock(&self.state);
        let Some(mut big) = st.remove_big(file.serial) else {
            return;
        };
        st.delivered.insert(file.id());
        let waiters = std::mem::take(&mut big.waiters);
        st.jobs.push_front(Job::Deliver(Arc::clone(file), waiters));
        stock::delivered(&mut st, big, again);
        drop(st);
        self.news.notify_all();
        self.wake_all();
    }

    /// Removes a staged file that is of no use.
    pub(super) fn discard(&self, name: &str) {
        // One that stays harms nobody: the stage is tidied when nothing is fetched.
        let _ = self.disk.stage_remove(name);
    }

    /// Reports an item as staged under its own name, unless it ended before.
    pub(super) fn staged(&self, id: OpId, name: String) {
        let ended = lock(&self.state).items.remove(&id).is_some();
        match ended {
            true => self.report([(id, Ok(StageName(name)))]),
            false => self.discard(&name),
        }
    }
}

/// After the return nothing is written to the staged file any more.
pub(super) fn close(file: &BigFile) {
    *file.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
}

/// Runs a write to the staged file unless that was closed: then `None`.
pub(super) fn guarded<T>(
    file: &BigFile,
    write: impl FnOnce() -> io::Result<T>,
) -> io::Result<Option<T>> {
    let closed = file.closed.read().unwrap_or_else(PoisonError::into_inner);
    match *closed {
        true => Ok(None),
        false => write().map(Some),
    }
}

/// Has the disk begin with what was written to the staged file, of which this range is the newest part.
pub(super) fn written(shared: &Shared, file: &BigFile, staged: &File, offset: u64, len: u64) {
    let config = &shared.config;
    if config.early_writeback {
        let kept = file.size <= config.kept_in_memory || file.served.is_slow();
        start_writeback(staged, offset, len, kept);
    }
}

/// What an I/O error of the stage means for an item.
pub(super) fn stage_error(e: &io::Error) -> FetchError {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FetchError::Full,
        _ => FetchError::Io(e.to_string()),
    }
}
