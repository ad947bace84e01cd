//! One share's engine: `step(now, event, index) -> effects`. It only dispatches; what an event
//! means stands in the files beside this one: [`local`](self) (the disk was looked at), `peers`
//! (messages), `work` and `walker` (what to do next), `withhold` (what not), `make` (how), `results`
//! (what came of it), `heal` (damage), `choose` (what is held), `shed` (what is dropped), `wait` (is
//! all equal?).

mod choose;
mod event;
mod heal;
mod local;
mod make;
mod own;
mod peers;
mod results;
mod shed;
mod wait;
mod walker;
mod withhold;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::diff::Author;
use crate::index::{Index, IndexError, Txn};
use crate::message::{Control, Progress, Role};
use crate::path::RelPath;
use crate::plan::OpId;
use crate::reconcile::{Decision, reconcile, reconcile_read_only};
use crate::safety::DeletionGuard;
use crate::session::Session;
use crate::version::DeviceId;

use choose::Choice;
pub use event::{Effect, Event, Now, PeerState, Report, State};
use heal::Damage;
pub use own::Edits;
use own::OwnEdits;
use results::FULL_MS;
use shed::Sheds;
pub use shed::{Dropped, Kept, MAX_SHEDS};
use wait::Waits;
use walker::Walker;
use withhold::Taking;
pub use withhold::{Theirs, Withheld};
use work::{Job, Retry};

/// How one engine is set up.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// This device.
    pub device: DeviceId,
    /// What this device may do in the share.
    pub role: Role,
    /// A read-write member that does not do what others change, by its user's choice.
    pub send_only: bool,
}

/// Waiting before paths that wait for others are tried again.
const LOOK_AGAIN_MS: u64 = 500;

/// One share's engine. Holds only what can be computed again: all that must last is in the index.
pub struct Engine {
    config: Config,
    sessions: BTreeMap<DeviceId, Session>,
    /// Operations and fetches under way.
    /// Boxed, for the table never gets smaller.
    jobs: HashMap<OpId, Box<Job>>,
    /// The paths they touch.
    busy: HashMap<RelPath, OpId>,
    /// Big contents under way.
    contents: BTreeSet<crate::content::ContentId>,
    /// Files that fetches under way copy from, with how many do: not deleted meanwhile.
    sources: HashMap<RelPath, usize>,
    next_op: u64,
    walker: Walker,
    retries: BTreeMap<RelPath, Retry>,
    /// What is not as the index says, to be brought again.
    damaged: BTreeMap<RelPath, Damage>,
    /// Of it what a power cut took back and no connected peer could give.
    torn: BTreeMap<RelPath, Damage>,
    /// When it is tried again, and how often it was in vain.
    heal_at: Option<u64>,
    heal_tries: u32,
    /// New files whose bytes we have elsewhere, waiting to be told that they were renamed.
    hopes: BTreeMap<crate::content::ContentId, Vec<RelPath>>,
    /// Paths that just became needed.
    fresh: Vec<RelPath>,
    /// The user said that the deletions which the next scan finds are meant.
    accepting: bool,
    /// Paths seen to change while an operation on them was under way.
    look_again: BTreeSet<RelPath>,
    problems: BTreeSet<RelPath>,
    guard: DeletionGuard,
    /// By inode, folders that were seen where none was before: the path, and when (monotonic
    /// milliseconds).
    arrived_dirs: HashMap<u64, (RelPath, u64)>,
    /// Deletions that were held and are meant: announced if a last look shows them.
    meant: BTreeSet<RelPath>,
    /// Announced and not settled, as what our record says may be gone.
    put_off: BTreeSet<RelPath>,
    alarm: Option<String>,
    paused: bool,
    /// Until when nothing is fetched because the disk is full.
    full_until: Option<u64>,
    /// How long the next wait for room is, in milliseconds.
    full_wait: u64,
    /// When to walk all needs again, because too many failed to remember each.
    rewalk_at: Option<u64>,
    /// The whole tree was looked at since start.
    scanned: bool,
    /// The index was empty at start: nothing is applied before the tree was looked at.
    first_scan: bool,
    waits: Waits,
    own: OwnEdits,
    /// What is taken though this device only sends.
    taking: Taking,
    /// As such it looked at all needs once: from then on only at what is new.
    surveyed: bool,
    choice: Choice,
    sheds: Sheds,
}

impl Engine {
    /// An engine over this index, nothing under way, no peer connected.
    pub fn new(config: Config, index: &dyn Index) -> Self {
        Self {
            config,
            sessions: BTreeMap::new(),
            jobs: HashMap::new(),
            busy: HashMap::new(),
            contents: BTreeSet::new(),
            sources: HashMap::new(),
            next_op: 1,
            walker: Walker::from_start(),
            retries: BTreeMap::new(),
            damaged: BTreeMap::new(),
            torn: BTreeMap::new(),
            heal_at: None,
            heal_tries: 0,
            hopes: BTreeMap::new(),
            fresh: Vec::new(),
            accepting: false,
            look_again: BTreeSet::new(),
            problems: BTreeSet::new(),
            guard: DeletionGuard::default(),
            arrived_dirs: HashMap::new(),
            meant: BTreeSet::new(),
            put_off: BTreeSet::new(),
            alarm: None,
            paused: false,
            full_until: None,
            full_wait: FULL_MS,
            rewalk_at: None,
            scanned: false,
            first_scan: index.head() == 0,
            waits: Waits::default(),
            own: OwnEdits::default(),
            taking: Taking::default(),
            surveyed: false,
            choice: Choice::default(),
            sheds: Sheds::default(),
        }
    }

    /// Takes in one event. Effects are to be done in order. An error leaves the engine usable only
    /// for reporting: the index is damaged or full.
    pub fn step(
        &mut self,
        now: Now,
        event: Event,
        index: &mut dyn Index,
    ) -> Result<Vec<Effect>, IndexError> {
        let mut out = Vec::new();
        match event {
            Event::Tick => {}
            Event::PeerUp { peer, role } => self.peer_up(peer, role, index, &mut out)?,
            Event::PeerDown { peer } => self.peer_down(peer),
            Event::Message { peer, message } => {
                self.message(now, peer, message, index, &mut out)?;
            }
            Event::SendReady { peer } => {
                if let Some(session) = self.sessions.get_mut(&peer) {
                    session.ready();
                }
            }
            Event::Observed(seen) => self.observed(now, seen, index, &mut out)?,
            Event::ScanDone => {
                self.scanned = true;
                self.first_scan = false;
                self.accepting = false;
                self.walker.again();
            }
            Event::BarrierDone(token) => self.barrier_done(token, index, &mut out),
            Event::Synced(token) => self.synced(token, index, &mut out)?,
            Event::Wait(id) => self.wait(id, &mut out),
            Event::Damaged(paths) => self.damaged(paths, index)?,
            Event::Fetched(results) => self.fetched(now, results, index, &mut out)?,
            Event::Applied(results) => self.applied(now, results, index, &mut out)?,
            Event::Pause(on) => {
                self.paused = on;
                self.walker.again();
            }
            Event::Emptied => self.emptied(index, &mut out)?,
            Event::RootGone(reason) => self.raise_alarm(reason, &mut out),
            Event::Revert(at) => {
                self.revert(at.as_ref(), index, &mut out)?;
            }
            Event::Take(at) => self.take(at),
            Event::Override(at) => self.override_theirs(now, at.as_ref(), index)?,
            Event::Resume { accept_deletions } => self.resume(accept_deletions, &mut out),
            Event::Choose(selection) => {
                self.surveyed = false;
                self.choose(selection);
            }
            Event::Drop { id, at } => self.shed(id, at, &mut out),
        }
        self.settle_deletions(now, index, &mut out)?;
        self.release_barriers(index);
        self.expire_retries(now, &mut out);
        self.expire_healing(now);
        self.look_through_away(index)?;
        self.pump(now, index, &mut out)?;
        self.end_taking();
        self.heal(now, index, &mut out)?;
        self.shed_more(now, index, &mut out)?;
        self.tell_peers(now, index, &mut out)?;
        self.answer_waits(index, &mut out)?;
        Ok(out)
    }

    /// When [`Event::Tick`] is next useful, in monotonic milliseconds; `None` when idle.
    pub fn next_tick(&self, now: Now) -> Option<u64> {
        let retry = self.retries.values().filter_map(Retry::due).min();
        let soon = self.walker.is_waiting();
        let soon = soon.then(|| now.mono_ms + LOOK_AGAIN_MS);
        let at_once = self.choice.is_unfinished() || self.sheds.is_unfinished();
        [
            retry,
            soon,
            self.guard.due(),
            self.full_until,
            self.rewalk_at,
            self.heal_at,
            self.sheds.due(),
            at_once.then_some(now.mono_ms),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What people see.
    pub fn state(&self, index: &dyn Index) -> Result<State, IndexError> {
        let all = index.totals()?;
        let totals = self.needed(all);
        let head = self.announced_head(index);
        let busy = self.is_busy(totals.need_files);
        Ok(State {
            totals,
            withheld_files: all.need_files - totals.need_files,
            withheld_bytes: all.need_bytes - totals.need_bytes,
            alarm: self.alarm.clone(),
            paused: self.paused,
            full: self.full_until.is_some(),
            scanned: self.scanned,
            busy,
            peers: self
                .sessions
                .iter()
                .map(|(device, s)| PeerState {
                    device: *device,
                    in_sync: !busy && s.in_sync(head),
                    progress: s.progress,
                })
                .collect(),
        })
    }

    /// Whether contents may be brought before it is known that they are needed: segments of a file
    /// that a peer still reads.
    pub fn takes_offers(&self) -> bool {
        let takes = !self.withholds_all() && self.full_until.is_none();
        takes && self.scanned && !self.is_held()
    }

    /// Whether anybody would listen to an offer of ours.
    pub fn makes_offers(&self) -> bool {
        let heard = self.config.role == Role::ReadWrite && !self.sessions.is_empty();
        heard && self.scanned && !self.is_held()
    }

    /// Every path that an operation under way may touch; the executor must not hand on looks at
    /// them (the engine would only ask for another look).
    pub fn is_path_busy(&self, path: &RelPath) -> bool {
        self.busy.contains_key(path)
    }

    /// What an operation or fetch under way is for.
    pub fn path_of(&self, id: OpId) -> Option<&RelPath> {
        self.jobs.get(&id).map(|job| &job.path)
    }

    fn author(&self, now: Now, index: &dyn Index) -> Author {
        Author {
            device: self.config.device,
            now_ms: now.wall_ms,
            floor: index.counter_floor(),
            first_scan: self.first_scan,
        }
    }

    fn decide(&self, ours: Option<&crate::entry::Entry>, theirs: &crate::entry::Entry) -> Decision {
        match self.config.role {
            Role::ReadWrite => reconcile(ours, theirs),
            Role::ReadOnly => reconcile_read_only(ours, theirs, self.config.device),
        }
    }

    /// How much of our index others are told: nothing of a read-only member's.
    fn announced_head(&self, index: &dyn Index) -> u64 {
        match self.config.role {
            Role::ReadWrite => index.head(),
            Role::ReadOnly => 0,
        }
    }

    /// Deletions were seen that are still to be judged or announced.
    fn is_deleting(&self) -> bool {
        self.guard.is_holding() || !self.meant.is_empty()
    }

    fn is_busy(&self, need_files: u64) -> bool {
        !self.scanned
            || !self.jobs.is_empty()
            || need_files > 0
            || self.choice.is_unfinished()
            || self.is_deleting()
            || !self.damaged.is_empty()
            || !self.torn.is_empty()
    }

    /// Sends what each peer has not been told yet.
    fn tell_peers(
        &mut self,
        now: Now,
        index: &dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let totals = self.needed(index.totals()?);
        let busy = self.is_busy(totals.need_files) || self.alarm.is_some();
        let read_only = self.config.role == Role::ReadOnly;
        let self_head = self.announced_head(index);
        for (peer, session) in &mut self.sessions {
            let mut send = |message| {
                out.push(Effect::Send {
                    peer: *peer,
                    message,
                });
            };
            if read_only {
                session.sent = index.head();
            }
            while let Some(message) = session.next_index(index)? {
                send(message);
            }
            for token in session.due_barriers() {
                send(Control::BarrierDone(token));
            }
            let progress = Progress {
                your_seq: session.taken.seq,
                head: self_head,
                busy,
                need_files: totals.need_files,
                need_bytes: totals.need_bytes,
            };
            if let Some(message) = session.next_progress(progress, now.mono_ms) {
                send(message);
            }
        }
        Ok(())
    }

    /// Commits and tells every session which numbers it need not be told, because the record is
    /// what that peer itself announced (`from` of the same position as in `txn.put`).
    fn commit(
        &mut self,
        txn: Txn,
        from: &[Vec<DeviceId>],
        index: &mut dyn Index,
    ) -> Result<(), IndexError> {
        if txn.is_empty() {
            return Ok(());
        }
        let (puts, drops) = (txn.put.len() as u64, txn.drop.len() as u64);
        let head = index.commit(txn)? - drops;
        for (i, peers) in from.iter().enumerate() {
            for peer in peers {
                if let Some(session) = self.sessions.get_mut(peer) {
                    session.skip(head - puts + 1 + i as u64);
                }
            }
        }
        Ok(())
    }

    fn raise_alarm(&mut self, reason: String, out: &mut Vec<Effect>) {
        if self.alarm.is_none() {
            out.push(Effect::Report(Report::Alarm {
                reason: reason.clone(),
            }));
            self.alarm = Some(reason);
        }
    }

    fn problem(&mut self, path: &RelPath, reason: String, out: &mut Vec<Effect>) {
        /// Beyond this many, problems are not remembered one by one.
        const MAX_PROBLEMS: usize = 10_000;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.insert(path.clone());
        }
        out.push(Effect::Report(Report::Problem {
            path: path.clone(),
            reason,
        }));
    }

    fn solved(&mut self, path: &RelPath, out: &mut Vec<Effect>) {
        if self.problems.remove(path) {
            out.push(Effect::Report(Report::Solved { path: path.clone() }));
        }
    }
}
