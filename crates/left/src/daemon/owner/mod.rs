//! One share's owner: the one thread that drives the engine and owns its index. Everything else
//! sends it messages and takes its effects.

mod batch;
mod choose;
mod durable;
mod inbox;
mod lanes;
mod members;
mod start;
mod tell;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, TrySendError, after, never, select};
use left_core::diff::Observation;
use left_core::engine::{Dropped, Effect, Engine, Event, Now};
use left_core::index::IndexError;
use left_core::message::{Control, Role};
use left_core::path::RelPath;
use left_core::plan::{FetchError, Op, OpId, StageName};
use left_core::version::DeviceId;
use tokio::sync::broadcast;

use batch::Batch;
use durable::Checkpoints;

use super::adapt::Source;
use super::ask::Msg;
use super::gate::Door;
use super::handle::{ApplyTimes, DaemonEvent};
use super::history::{Scribe, SharedLimits, Thinner};
use super::latest;
use super::limits::Limiter;
use super::links::Links;
use super::members::Members;
use super::offers::Offers;
use super::snapshot::{Board, Progressing};
use crate::disk::{DiskEye, EyeEvent, History, Near, Root, Stage};
use crate::net::Net;
use crate::store::IndexDb;
use crate::transfer::Fetcher;

/// Looking at rates and progress while there is work.
const BEAT: Duration = Duration::from_millis(500);

/// What one run of a share is made of.
pub(super) struct Setup {
    pub(super) device: DeviceId,
    pub(super) path: PathBuf,
    pub(super) members: Members,
    pub(super) door: Arc<Door>,
    pub(super) net: Option<Arc<Net>>,
    pub(super) events: broadcast::Sender<DaemonEvent>,
    pub(super) board: Arc<Board>,
    /// What this share may carry.
    pub(super) limiter: Arc<Limiter>,
    /// Which versions are kept.
    pub(super) limits: SharedLimits,
    /// Told once how the first dial with a ticket went.
    pub(super) joined: Option<Sender<Result<(), String>>>,
}

/// Why an owner ended.
pub(super) enum Ended {
    /// It was asked to.
    Stopped,
    /// It is to be started anew at once: what this device may do in the share changed.
    Again,
    /// The share can not be worked on now; the reason, and whether trying again may help soon.
    Broken(String),
}

pub(crate) type FetchResults = Vec<(OpId, Result<StageName, FetchError>)>;

pub(super) struct Owner {
    setup: Setup,
    tx: Sender<Msg>,
    engine: Engine,
    index: IndexDb,
    root: Arc<Root>,
    stage: Arc<Stage>,
    history: Arc<History>,
    scribe: Scribe,
    /// The index was empty at start: what the first look finds is no change.
    unheard: bool,
    thinner: Option<Thinner>,
    eye: DiskEye,
    fetcher: Fetcher,
    fetched: Receiver<FetchResults>,
    /// What the fetcher was asked for and has not answered yet.
    fetching: HashMap<OpId, RelPath>,
    looks: Receiver<EyeEvent>,
    /// The thread that changes the disk, and where it takes its work from.
    apply: Option<Sender<Vec<(OpId, Op)>>>,
    applier: Option<JoinHandle<()>>,
    source: Arc<Source>,
    offers: Arc<Offers>,
    links: Links,
    /// What the applier has to do, in order.
    batches: VecDeque<Batch>,
    applied: ApplyTimes,
    checkpoints: Checkpoints,
    waits: HashMap<u64, Sender<()>>,
    next_wait: u64,
    /// Who waits for what is dropped.
    drops: HashMap<u64, Sender<Dropped>>,
    conflicts: Vec<RelPath>,
    problems: Vec<(String, String)>,
    notices: Vec<String>,
    progress: Progressing,
    /// Events that came of effects.
    queue: VecDeque<Event>,
    /// Something happened since the state was last put where people find it.
    dirty: bool,
    started: Instant,
    next_dial: Option<Instant>,
    stop: bool,
    /// Stops only to be started anew.
    again: bool,
    /// What this device does, as the engine was told.
    role: Role,
    send_only: bool,
}

/// Runs a share until it is stopped or broken.
pub(super) fn run(setup: Setup, tx: Sender<Msg>, rx: &Receiver<Msg>) -> Ended {
    let mut owner = match Owner::open(setup, tx) {
        Ok(owner) => owner,
        Err(reason) => return Ended::Broken(reason),
    };
    let result = owner.work(rx);
    owner.close();
    match result {
        Ok(()) if owner.again => Ended::Again,
        Ok(()) => Ended::Stopped,
        Err(error) => {
            if let IndexError::Corrupt(why) = &error {
                owner.index.condemn(why);
            }
            Ended::Broken(error.to_string())
        }
    }
}

impl Owner {
    fn work(&mut self, rx: &Receiver<Msg>) -> Result<(), IndexError> {
        if self.setup.members.record().paused {
            self.handle(Event::Pause(true))?;
        }
        if self.root.is_empty() {
            self.handle(Event::Emptied)?;
        }
        self.check_role();
        self.dial();
        while !self.stop {
            self.publish()?;
            let (fetched, looks) = (self.fetched.clone(), self.looks.clone());
            let timer = self.next_wake().map_or_else(never, after);
            select! {
                recv(rx) -> msg => match msg {
                    Ok(msg) => self.message(msg)?,
                    Err(_) => break,
                },
                recv(looks) -> event => match event {
                    Ok(event) => self.look(event)?,
                    Err(_) => return Err(IndexError::Failed("the folder is watched no more".into())),
                },
                recv(fetched) -> results => if let Ok(mut results) = results {
                    // What came meanwhile goes into the same batch: one fsync for all.
                    results.extend(fetched.try_iter().flatten());
                    results.iter().for_each(|(id, _)| drop(self.fetching.remove(id)));
                    self.handle(Event::Fetched(results))?;
                },
                recv(timer) -> _ => self.handle(Event::Tick)?,
            }
            if self.next_dial.is_some_and(|at| at <= Instant::now()) {
                self.dial();
            }
            self.checkpoint();
            self.watch_healing();
        }
        Ok(())
    }

    /// How long to sleep at most; for ever when nothing is to be done.
    fn next_wake(&self) -> Option<Duration> {
        let now = Instant::now();
        let tick = self
            .engine
            .next_tick(self.now())
            .map(|ms| Duration::from_millis(ms).saturating_sub(self.started.elapsed()));
        let dial = self.next_dial.map(|at| at.saturating_duration_since(now));
        let beat = self.progress.is_working().then_some(BEAT);
        let beat = if self.dirty {
            Some(super::snapshot::EVERY)
        } else {
            beat
        };
        let sync = self.checkpoints.due();
        let sync = sync.map(|at| at.saturating_duration_since(now));
        [tick, dial, beat, sync].into_iter().flatten().min()
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        Now {
            mono_ms: self.started.elapsed().as_millis() as u64,
            wall_ms: wall.map_or(1, |d| d.as_millis() as u64),
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), IndexError> {
        self.queue.push_back(event);
        while let Some(event) = self.queue.pop_front() {
            self.dirty |= !matches!(event, Event::Tick);
            let now = self.now();
            self.index.hold()?;
            let effects = self.engine.step(now, event, &mut self.index);
            self.index.release()?;
            for effect in effects? {
                self.dirty = true;
                self.run_effect(effect);
            }
        }
        self.offers.open(self.engine.makes_offers());
        Ok(())
    }

    fn run_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Send { peer, message } => {
                if matches!(message, Control::Index(_)) {
                    crash_point!("announcing");
                }
                let sent = self.links.send(peer, message);
                crash_point!("announced");
                self.sent(peer, sent);
            }
            Effect::Disconnect { peer, reason } => {
                tracing::warn!(peer = %peer.short(), "disconnected: {reason}");
                self.links.remove(peer, &reason);
                self.links.dial_failed(peer, reason.clone());
                self.lost(peer, &reason);
            }
            Effect::Reopen { peer } => {
                let why = "to be told its index once more";
                self.links.remove(peer, why);
                self.lost(peer, why);
            }
            Effect::Fetch(items) => {
                let asked = items.iter().map(|i| (i.id, i.path.clone()));
                self.fetching.extend(asked);
                self.fetcher.submit(items);
            }
            Effect::Apply(ops) => {
                self.note_drops(&ops);
                // The eye would see our own changes before the index knows of them.
                let paths = ops.iter().map(|(_, op)| op.path().clone()).collect();
                let hold = self.eye.hold(paths);
                self.batches.push_back(Batch::new(&ops, hold));
                if self.apply.as_ref().is_none_or(|a| a.send(ops).is_err()) {
                    tracing::error!("the thread that changes the disk is gone");
                    self.stop = true;
                }
            }
            Effect::Rescan(paths) => self.eye.rescan(paths),
            Effect::RescanAll => self.eye.scan_all(),
            Effect::Barrier(token) => self.eye.barrier(token),
            Effect::Sync(token) => {
                if self.checkpoints.ask(token) {
                    self.queue.push_back(Event::Synced(token));
                }
            }
            Effect::Dropped(id, dropped) => {
                if let Some(reply) = self.drops.remove(&id) {
                    // Who asked may have given up.
                    let _ = reply.send(dropped);
                }
            }
            Effect::Waited(id) => {
                if let Some(reply) = self.waits.remove(&id) {
                    // Who waited may have given up.
                    let _ = reply.send(());
                }
            }
            Effect::Report(report) => self.report(report),
        }
    }

    fn sent(&mut self, peer: DeviceId, index_messages: usize) {
        for _ in 0..index_messages {
            self.queue.push_back(Event::SendReady { peer });
        }
    }

    /// Which observations hold still, and which do not.
    fn look_once_more(&self, seen: Vec<Observation>) -> (Vec<Observation>, Vec<Observation>) {
        let mut near = Near::new(&self.root);
        seen.into_iter()
            .partition(|o| self.engine.is_path_busy(&o.path) || near.still_holds(o))
    }

    /// The disk showed something. Each observation is checked once more, in the same breath in which the engine
    /// records it: an operation of ours may have been done since it was made, or the folder have become unreadable.
    fn look(&mut self, event: EyeEvent) -> Result<(), IndexError> {
        match event {
            EyeEvent::Observed(seen) => {
                crash_point!("seen");
                let (good, stale) = self.look_once_more(seen);
                if !stale.is_empty() {
                    self.eye.rescan(stale.into_iter().map(|o| o.path).collect());
                }
                if !good.is_empty() {
                    self.checkpoints.changed();
                }
                let places = latest::places(&good, |path| !self.engine.is_path_busy(path));
                self.handle(Event::Observed(good))?;
                self.source.latest.recorded(places);
                self.eye.recorded();
                Ok(())
            }
            EyeEvent::ScanDone => {
                if std::mem::take(&mut self.unheard) {
                    self.index.listen(self.scribe.listener());
                }
                self.handle(Event::ScanDone)
            }
            EyeEvent::Barrier(token) => self.handle(Event::BarrierDone(token)),
            EyeEvent::Problem { what, reason } => {
                self.problem(what, reason);
                Ok(())
            }
            EyeEvent::IndexFailed(error) => Err(error),
            EyeEvent::RootGone(gone) => self.handle(Event::RootGone(format!(
                "{gone}. Put the folder back (or mount its disk) and left goes on by itself; \
                 nothing was deleted at others. If it is not wanted any more: `left leave DIR`"
            ))),
            EyeEvent::RootBack => self.handle(Event::Resume {
                accept_deletions: false,
            }),
            EyeEvent::WatchLimit { reason } => {
                self.notice(reason);
                Ok(())
            }
            EyeEvent::Activity { .. } => Ok(()),
        }
    }

    /// Ends everything that was started, in an order in which nobody waits for anybody.
    fn close(&mut self) {
        for peer in self.links.peers() {
            self.links.remove(peer, "left stops there");
        }
        // What was begun is finished; nobody else may work on the folder before. Dropping the
        // owner ends the fetcher and the eye.
        self.apply = None;
        self.thinner = None;
        self.scribe.flush();
        if self.applier.take().is_some_and(|t| t.join().is_err()) {
            tracing::error!("the thread that changes the disk ended in a panic");
        }
    }
}

/// Sends without blocking; a full queue means that the receiver will look anyway.
pub(super) fn nudge(tx: &Sender<Msg>, msg: Msg) {
    if let Err(TrySendError::Full(_)) = tx.try_send(msg) {
        tracing::debug!("a share's queue is full");
    }
}
