//! The eye's thread: waits, takes hints and commands, and gives each kind of work its turn.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender};
use left_core::content::ContentId;
use left_core::diff::{Observation, Seen};
use left_core::entry::FileStat;
use left_core::ignore::{IGNORE_FILE, Ignore};
use left_core::index::IndexError;
use left_core::path::RelPath;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::hints::Hints;
use super::pool::HashPool;
use super::sweep::Sweep;
use super::{Command, EyeEvent, Holds, ManifestSink, ScanIndex, lock};
use crate::disk::root::{Root, RootGone};
use crate::disk::watch::{Signal, Watcher, When};

/// Most observations of one event.
const MAX_BATCH: usize = 512;
/// Longest time an observation waits for others.
const MAX_WAIT: Duration = Duration::from_millis(50);
/// After events, inotify is left alone so long: a file written without pause costs no more than that.
const BREATH: Duration = Duration::from_millis(2);
/// How often a missing root is looked for, and ...
const ROOT_POLL: Duration = Duration::from_secs(1);
/// ... how often the tree is walked when it can not be watched.
const BLIND_SCAN: Duration = Duration::from_secs(60);
/// How often progress is told.
const ACTIVITY: Duration = Duration::from_millis(250);
/// Observations whose reading is remembered, so that a second hint costs nothing.
pub(super) const MAX_RECENT: usize = 4096;
/// Refused names that are remembered as told.
const MAX_BAD_NAMES: usize = 1000;
/// Longest `.leftignore`.
const MAX_IGNORE: u64 = 1024 * 1024;

pub(super) struct Parts {
    pub(super) root: Arc<Root>,
    pub(super) index: Box<dyn ScanIndex + Send>,
    pub(super) manifests: Arc<dyn ManifestSink>,
    pub(super) out: Sender<EyeEvent>,
    pub(super) inbox: Receiver<Command>,
    pub(super) wake: Arc<OwnedFd>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) holds: Holds,
    pub(super) pool: HashPool,
}

/// Something to be said when the work before it is done.
struct Promise {
    event: EyeEvent,
    /// Sweeps with a lower number must be done, then ...
    sweep: u64,
    /// ... all files that were to be read by then.
    jobs: Option<u64>,
    waits_for_holds: bool,
}

pub(super) struct Eye {
    pub(super) root: Arc<Root>,
    pub(super) index: Box<dyn ScanIndex + Send>,
    pub(super) manifests: Arc<dyn ManifestSink>,
    out: Sender<EyeEvent>,
    inbox: Receiver<Command>,
    wake: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    holds: Holds,
    pub(super) pool: HashPool,
    watcher: Option<Watcher>,
    /// Not every folder is watched.
    blind: bool,
    next_blind: Option<Instant>,
    quiet_until: Option<Instant>,
    ignore: Ignore,
    ignore_text: Vec<u8>,
    pub(super) hints: Hints,
    pub(super) sweeps: VecDeque<Sweep>,
    next_sweep: u64,
    promises: Vec<Promise>,
    batch: Vec<Observation>,
    batch_since: Option<Instant>,
    /// Paths reported as unreadable: told when they are well again.
    pub(super) trouble: BTreeSet<RelPath>,
    bad_names: HashSet<String>,
    pub(super) recent: HashMap<RelPath, (FileStat, ContentId)>,
    /// The root is gone; when to look for it again.
    gone: Option<Instant>,
    index_broken: bool,
    pub(super) looked: u64,
    told: Instant,
}

impl Eye {
    pub(super) fn new(parts: Parts) -> Eye {
        Eye {
            root: parts.root,
            index: parts.index,
            manifests: parts.manifests,
            out: parts.out,
            inbox: parts.inbox,
            wake: parts.wake,
            stop: parts.stop,
            holds: parts.holds,
            pool: parts.pool,
            watcher: None,
            blind: false,
            next_blind: None,
            quiet_until: None,
            ignore: Ignore::none(),
            ignore_text: Vec::new(),
            hints: Hints::default(),
            sweeps: VecDeque::new(),
            next_sweep: 1,
            promises: Vec::new(),
            batch: Vec::new(),
            batch_since: None,
            trouble: BTreeSet::new(),
            bad_names: HashSet::new(),
            recent: HashMap::new(),
            gone: None,
            index_broken: false,
            looked: 0,
            told: Instant::now(),
        }
    }

    pub(super) fn run(mut self) {
        self.begin();
        while !self.is_stopped() {
            self.take_commands();
            self.come_back();
            self.take_events();
            self.take_due();
            self.take_results();
            self.step_sweep();
            self.keep_promises();
            self.flush_if_old();
            self.tell_activity();
            self.wait();
        }
        self.pool.join();
    }

    /// Starts from nothing: new watches, the whole tree.
    fn begin(&mut self) {
        self.blind = false;
        self.next_blind = None;
        self.hints.clear();
        self.watcher = match Watcher::new() {
            Ok(watcher) => Some(watcher),
            Err(e) => {
                self.go_blind(&format!(
                    "the system gives no more watchers ({e}): raise fs.inotify.max_user_instances"
                ));
                None
            }
        };
        self.reload_ignore();
        self.scan_all(EyeEvent::ScanDone);
    }

    fn take_commands(&mut self) {
        let mut word = [0u8; 8];
        let _ = rustix::io::read(&*self.wake, &mut word);
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Rescan(paths) => {
                    for path in paths {
                        self.hints.add(path, When::Now, true);
                    }
                }
                Command::ScanAll => self.scan_all(EyeEvent::ScanDone),
                Command::Released => {
                    let holds = Arc::clone(&self.holds);
                    self.hints.release(|p| lock(&holds).contains_key(p));
                }
                Command::Barrier(token) => self.barrier(token),
            }
        }
    }

    fn barrier(&mut self, token: u64) {
        self.read_events();
        if self.gone.is_none() {
            let hints = self.hints.take_all();
            self.look_at_hints(hints);
        }
        if self.blind {
            self.scan_all(EyeEvent::Barrier(token));
            return;
        }
        self.promises.push(Promise {
            event: EyeEvent::Barrier(token),
            sweep: self.next_sweep,
            jobs: None,
            waits_for_holds: true,
        });
    }

    /// Has the whole tree looked at, then says `event`.
    fn scan_all(&mut self, event: EyeEvent) {
        let waiting = self.sweeps.iter().find(|s| s.is_fresh_full()).map(|s| s.id);
        let id = waiting.unwrap_or_else(|| {
            let mut sweep = Sweep::all();
            sweep.id = self.next_sweep;
            self.next_sweep += 1;
            self.sweeps.push_back(sweep);
            self.next_sweep - 1
        });
        let waits_for_holds = matches!(event, EyeEvent::Barrier(_));
        self.promises.push(Promise {
            event,
            sweep: id + 1,
            jobs: None,
            waits_for_holds,
        });
    }

    /// Does a sweep that came from hints: at once if it has nothing to walk, else before all others.
    pub(super) fn start_sweep(&mut self, mut sweep: Sweep) {
        if sweep.is_nothing() {
            return;
        }
        if !sweep.has_walk() {
            while !sweep.step(self) {}
            return;
        }
        sweep.id = self.next_sweep;
        self.next_sweep += 1;
        self.sweeps.push_front(sweep);
    }

    fn take_events(&mut self) {
        if self.quiet_until.is_some_and(|t| t > Instant::now()) {
            return;
        }
        self.quiet_until = None;
        if self.read_events() {
            self.quiet_until = Some(Instant::now() + BREATH);
        }
    }

    /// Turns all that inotify has into hints.
    fn read_events(&mut self) -> bool {
        let Some(mut watcher) = self.watcher.take() else {
            return false;
        };
        let mut check_root = false;
        let mut overflow = false;
        let mut bad = Vec::new();
        let read = watcher.read(&mut |signal| match signal {
            Signal::Look { path, when, deep } => self.hints.add(path, when, deep),
            Signal::BadName { dir, name } => bad.push((dir, name)),
            Signal::CheckRoot => check_root = true,
            Signal::Overflow => overflow = true,
        });
        self.watcher = Some(watcher);
        for (dir, name) in bad {
            self.bad_name(dir.as_ref(), &name);
        }
        if check_root && let Err(reason) = self.root.check() {
            self.root_gone(reason);
        }
        if overflow || self.hints.are_too_many() {
            tracing::info!(
                "more changes than can be followed one by one: looking at the whole share"
            );
            self.hints.clear_looks();
            self.scan_all(EyeEvent::ScanDone);
        }
        match read {
            Ok(any) => any,
            Err(e) => {
                self.watcher = None;
                self.go_blind(&format!("watching failed: {e}"));
                false
            }
        }
    }

    fn take_due(&mut self) {
        if self.gone.is_some() {
            return;
        }
        let due = self.hints.take_due(Instant::now());
        if !due.is_empty() {
            self.look_at_hints(due);
        }
        if self.next_blind.is_some_and(|t| t <= Instant::now()) {
            self.next_blind = Some(Instant::now() + BLIND_SCAN);
            self.scan_all(EyeEvent::ScanDone);
        }
    }

    fn take_results(&mut self) {
        while let Some(done) = self.pool.take() {
            if self.gone.is_none() {
                self.hash_done(done);
            }
        }
    }

    fn step_sweep(&mut self) {
        if self.gone.is_some() || self.pool.is_full() {
            return;
        }
        let Some(mut sweep) = self.sweeps.pop_front() else {
            return;
        };
        let done = sweep.step(self);
        if self.gone.is_some() {
            return;
        }
        if done {
            self.flush();
        } else {
            self.sweeps.push_front(sweep);
        }
    }

    fn keep_promises(&mut self) {
        if self.gone.is_some() || self.promises.is_empty() {
            return;
        }
        let first_sweep = self.sweeps.iter().map(|s| s.id).min();
        let mut kept = Vec::new();
        let mut waiting = Vec::new();
        for mut promise in std::mem::take(&mut self.promises) {
            if promise.jobs.is_none() && first_sweep.is_none_or(|id| id >= promise.sweep) {
                promise.jobs = Some(self.pool.mark());
            }
            let read = promise.jobs.is_some_and(|mark| self.pool.reached(mark));
            if read && !(promise.waits_for_holds && self.hints.has_held()) {
                kept.push(promise.event);
            } else {
                waiting.push(promise);
            }
        }
        self.promises = waiting;
        if !kept.is_empty() {
            self.flush();
            // A scan asked for twice, or by the eye itself, is said once.
            let mut said_done = false;
            for event in kept {
                let is_done = matches!(event, EyeEvent::ScanDone);
                if !(is_done && said_done) {
                    self.send(event);
                }
                said_done |= is_done;
            }
        }
    }

    /// Notes that the root can not be trusted: forgets all work, says so once, and waits.
    pub(super) fn root_gone(&mut self, reason: RootGone) {
        self.batch.clear();
        self.batch_since = None;
        self.hints.clear();
        self.sweeps.clear();
        if self.gone.is_none() {
            self.send(EyeEvent::RootGone(reason));
        }
        self.gone = Some(Instant::now() + ROOT_POLL);
    }

    fn come_back(&mut self) {
        let now = Instant::now();
        if self.gone.is_none_or(|t| t > now) {
            return;
        }
        if self.root.check().is_err() {
            self.gone = Some(now + ROOT_POLL);
            return;
        }
        self.gone = None;
        self.recent.clear();
        self.send(EyeEvent::RootBack);
        self.begin();
        // What was promised before is kept after the new walk.
        for promise in &mut self.promises {
            promise.sweep = self.next_sweep;
            promise.jobs = None;
        }
    }

    /// Sleeps until there is something to do; without end when nothing is pending.
    fn wait(&mut self) {
        let busy = !self.sweeps.is_empty() && self.gone.is_none() && !self.pool.is_full();
        if busy || self.is_stopped() {
            return;
        }
        self.flush_unless_hints();
        let mut until = [self.gone, self.next_blind, self.quiet_until]
            .into_iter()
            .flatten()
            .min();
        if self.gone.is_none() {
            let hints = self.hints.next_due();
            let batch = self.batch_since.map(|t| t + MAX_WAIT);
            until = [until, hints, batch].into_iter().flatten().min();
        }
        let timeout = until.map(|t| t.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(|d| Timespec {
            tv_sec: d.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: d.subsec_nanos().into(),
        });
        let mut fds = vec![PollFd::new(&*self.wake, PollFlags::IN)];
        if self.quiet_until.is_none()
            && let Some(watcher) = &self.watcher
        {
            fds.push(PollFd::from_borrowed_fd(watcher.fd(), PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
            Err(e) => {
                tracing::error!("waiting for changes failed: {e}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.is_some()
    }

    pub(super) fn is_held(&self, path: &RelPath) -> bool {
        lock(&self.holds).contains_key(path)
    }

    pub(super) fn is_ignored(&self, path: &RelPath, is_dir: bool) -> bool {
        !self.ignore_text.is_empty() && self.ignore.is_ignored(path, is_dir)
    }

    pub(super) fn ignores_file_at(&self, path: &RelPath) -> bool {
        path.as_bytes() == IGNORE_FILE
    }

    /// Reads `.leftignore` again; new rules mean a look at everything.
    pub(super) fn reload_ignore(&mut self) {
        let text = match RelPath::new(IGNORE_FILE).map(|p| self.root.open_file(&p)) {
            Ok(Ok((file, _))) => {
                let mut text = Vec::new();
                match std::io::Read::read_to_end(
                    &mut std::io::Read::take(file, MAX_IGNORE),
                    &mut text,
                ) {
                    Ok(_) => text,
                    // Rules that can not be read now stay as they were.
                    Err(_) => return,
                }
            }
            Ok(Err(e)) if crate::disk::sys::io_absent(&e) => Vec::new(),
            _ => return,
        };
        if text == self.ignore_text {
            return;
        }
        let (ignore, errors) = Ignore::parse(&text);
        self.ignore = ignore;
        self.ignore_text = text;
        for line in errors {
            self.problem(".leftignore".into(), format!("not a pattern: {line}"));
        }
        if let Some(watcher) = &mut self.watcher {
            let ignore = &self.ignore;
            watcher.drop_where(|p| ignore.is_ignored(p, true));
        }
        self.scan_all(EyeEvent::ScanDone);
    }

    /// Whether a folder should be watched and is not.
    pub(super) fn misses_watch(&self, path: &RelPath) -> bool {
        !self.blind && self.watcher.as_ref().is_some_and(|w| !w.is_watched(path))
    }

    pub(super) fn watch(&mut self, path: Option<&RelPath>, dir: BorrowedFd<'_>) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        match watcher.add(path, dir) {
            Ok(()) => {}
            Err(Errno::NOSPC | Errno::NOMEM) => self.go_blind(
                "the system's limit of watched folders is reached: raise fs.inotify.max_user_watches \
                 (sysctl); until then the share is looked through once a minute",
            ),
            // Gone already, or not readable: the walk finds out.
            Err(e) => tracing::debug!(error = %std::io::Error::from(e), "a folder can not be watched"),
        }
    }

    pub(super) fn unwatch(&mut self, path: &RelPath) {
        if let Some(watcher) = &mut self.watcher {
            watcher.drop_below(path);
        }
    }

    fn go_blind(&mut self, reason: &str) {
        if !self.blind {
            self.blind = true;
            self.next_blind = Some(Instant::now() + BLIND_SCAN);
            self.send(EyeEvent::WatchLimit {
                reason: reason.into(),
            });
        }
    }

    /// Paths in trouble directly in a folder.
    pub(super) fn trouble_in<'a>(
        &'a self,
        dir: Option<&'a RelPath>,
    ) -> impl Iterator<Item = &'a RelPath> {
        let below = match dir {
            Some(dir) => self.trouble.range(dir.clone()..),
            None => self.trouble.range::<RelPath, _>(..),
        };
        below
            .take_while(move |p| dir.is_none_or(|dir| *p == dir || p.is_below(dir)))
            .filter(move |p| p.parent().as_ref() == dir)
    }

    /// Forgets the trouble of a path that is gone and of all below; returns whether it had any itself.
    pub(super) fn forget_trouble(&mut self, path: &RelPath) -> bool {
        let gone: Vec<RelPath> = self
            .trouble
            .range(path.clone()..)
            .take_while(|p| *p == path || p.is_below(path))
            .cloned()
            .collect();
        gone.iter().for_each(|p| {
            self.trouble.remove(p);
        });
        gone.first() == Some(path)
    }

    pub(super) fn bad_name(&mut self, dir: Option<&RelPath>, name: &[u8]) {
        let place = dir.map(|d| format!("{d}/")).unwrap_or_default();
        let what = format!("{place}{}", name.escape_ascii());
        if self.bad_names.len() < MAX_BAD_NAMES && self.bad_names.insert(what.clone()) {
            let reason = match left_core::path::join(dir, name) {
                Err(e) => e.to_string(),
                Ok(_) => "not a possible name".into(),
            };
            self.problem(what, format!("{reason}: not synchronised, left alone"));
        }
    }

    pub(super) fn problem(&mut self, what: String, reason: String) {
        self.send(EyeEvent::Problem { what, reason });
    }

    pub(super) fn index_failed(&mut self, error: &IndexError) {
        if !self.index_broken {
            self.index_broken = true;
            self.problem("the index".into(), error.to_string());
        }
    }

    pub(super) fn emit(&mut self, path: RelPath, seen: Seen) {
        self.batch_since.get_or_insert_with(Instant::now);
        self.batch.push(Observation { path, seen });
        if self.batch.len() >= MAX_BATCH {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        self.batch_since = None;
        if !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            self.send(EyeEvent::Observed(batch));
        }
    }

    fn flush_if_old(&mut self) {
        if self.batch_since.is_some_and(|t| t.elapsed() >= MAX_WAIT) {
            self.flush();
        }
    }

    /// Before sleeping nothing is kept back.
    fn flush_unless_hints(&mut self) {
        if self.gone.is_none() {
            self.flush();
        }
    }

    /// Sends, waiting while the receiver is busy; gives up when told to stop.
    fn send(&mut self, event: EyeEvent) {
        let mut event = event;
        while !self.is_stopped() {
            match self.out.send_timeout(event, Duration::from_millis(100)) {
                Ok(()) => return,
                Err(SendTimeoutError::Timeout(back)) => event = back,
                Err(SendTimeoutError::Disconnected(_)) => {
                    self.stop.store(true, Ordering::SeqCst);
                    return;
                }
            }
        }
    }

    fn tell_activity(&mut self) {
        let scanning = !self.sweeps.is_empty();
        if (scanning || !self.pool.is_idle()) && self.told.elapsed() >= ACTIVITY {
            self.told = Instant::now();
            let _ = self.out.try_send(EyeEvent::Activity {
                looked: self.looked,
                read: self.pool.bytes_read(),
                scanning,
            });
        }
    }
}
