//! The eye's thread: waits, takes hints and commands, and gives each kind of work its turn.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use left_core::content::ContentId;
use left_core::diff::Observation;
use left_core::entry::FileStat;
use left_core::ignore::Rules;
use left_core::path::RelPath;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::hints::Hints;
use super::pool::HashPool;
use super::sweep::Sweep;
use super::told::Told;
use super::torn::Torn;
use super::{Command, EyeEvent, Holds, ManifestSink, ScanIndex};
use crate::disk::durable::Cut;
use crate::disk::root::{Root, RootGone};
use crate::disk::watch::{Watcher, When};

/// Longest time an observation waits for others.
pub(super) const MAX_WAIT: Duration = Duration::from_millis(50);
/// How often a missing root is looked for, and ...
const ROOT_POLL: Duration = Duration::from_secs(1);
/// ... how often the tree is walked when it can not be watched.
pub(super) const BLIND_SCAN: Duration = Duration::from_secs(60);
/// Observations whose reading is remembered, so that a second hint costs nothing.
pub(super) const MAX_RECENT: usize = 4096;

pub(super) struct Parts {
    pub(super) root: Arc<Root>,
    pub(super) index: Box<dyn ScanIndex + Send>,
    pub(super) manifests: Arc<dyn ManifestSink>,
    pub(super) cut: Option<Cut>,
    pub(super) out: Sender<EyeEvent>,
    pub(super) inbox: Receiver<Command>,
    pub(super) wake: Arc<OwnedFd>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) holds: Holds,
    pub(super) told: Told,
    pub(super) pool: HashPool,
}

/// A file's last reading.
pub(super) struct Recent {
    pub(super) stat: FileStat,
    pub(super) content: ContentId,
    /// The file had just changed then.
    pub(super) fresh: bool,
}

/// Something to be said when the work before it is done.
pub(super) struct Promise {
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
    pub(super) out: Sender<EyeEvent>,
    pub(super) inbox: Receiver<Command>,
    pub(super) wake: Arc<OwnedFd>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) holds: Holds,
    /// Of paths, in batches.
    pub(super) told: Told,
    pub(super) pool: HashPool,
    pub(super) watcher: Option<Watcher>,
    /// Not every folder is watched.
    pub(super) blind: bool,
    pub(super) next_blind: Option<Instant>,
    pub(super) quiet_until: Option<Instant>,
    pub(super) rules: Rules,
    pub(super) hints: Hints,
    pub(super) sweeps: VecDeque<Sweep>,
    pub(super) next_sweep: u64,
    pub(super) promises: Vec<Promise>,
    pub(super) batch: Vec<Observation>,
    pub(super) batch_since: Option<Instant>,
    /// Paths reported as unreadable: told when they are well again.
    pub(super) trouble: BTreeSet<RelPath>,
    pub(super) bad_names: HashSet<String>,
    pub(super) recent: HashMap<RelPath, Recent>,
    pub(super) torn: Option<Torn>,
    /// The root is gone; when to look for it again.
    pub(super) gone: Option<Instant>,
    pub(super) index_broken: bool,
    pub(super) looked: u64,
    /// When activity was told last.
    pub(super) active: Instant,
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
            told: parts.told,
            pool: parts.pool,
            watcher: None,
            blind: false,
            next_blind: None,
            quiet_until: None,
            rules: Rules::none(),
            hints: Hints::default(),
            sweeps: VecDeque::new(),
            next_sweep: 1,
            promises: Vec::new(),
            batch: Vec::new(),
            batch_since: None,
            trouble: BTreeSet::new(),
            bad_names: HashSet::new(),
            recent: HashMap::new(),
            torn: parts.cut.map(Torn::new),
            gone: None,
            index_broken: false,
            looked: 0,
            active: Instant::now(),
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
        self.rules = Rules::none();
        self.read_rules_of(None);
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
                Command::AcceptTorn => self.torn = None,
                Command::Released => self.release(),
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

    /// Whether somebody waits until all that had changed is told.
    pub(super) fn owes_barrier(&self) -> bool {
        let is_barrier = |p: &Promise| matches!(p.event, EyeEvent::Barrier(_));
        self.promises.iter().any(is_barrier)
    }

    /// Has the whole tree looked at, then says `event`.
    pub(super) fn scan_all(&mut self, event: EyeEvent) {
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

    fn take_due(&mut self) {
        if self.gone.is_some() {
            return;
        }
        self.hear_of_made();
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
                    self.scan_is_done(&event);
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
}
