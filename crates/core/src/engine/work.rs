//! What to do next: needs become fetches and operations.
//!
//! Needs are walked up (parents first) for what is to be made, then down (children first) for what
//! is to be deleted, so that a rename finds its old file still there. Nothing of the walk is
//! stored: it can start again at any time.

use super::heal::Stands;
use super::{Effect, Engine, Now};
use crate::conflict::{copy_entry, copy_path};
use crate::content::{ContentId, WHOLE_MAX};
use crate::entry::{Entry, Node, Record};
use crate::index::{Index, IndexError, Need, Txn, Walk};
use crate::path::RelPath;
use crate::plan::{Expect, FetchItem, Op, OpId};
use crate::probe::{cover, mutant};
use crate::reconcile::{Decision, best};
use crate::version::Relation;

/// Operations and fetches under way at most.
pub(super) const MAX_JOBS: usize = 4096;
/// Big files (longer than [`WHOLE_MAX`]) fetched at once.
pub(super) const MAX_BIG: usize = 8;
/// Needs read at a time.
pub(super) const PAGE: usize = 256;
/// Files with the content wanted that are considered.
pub(super) const MAX_COPIES: usize = 8;

/// One path's way from need to done.
#[derive(Debug)]
pub(super) struct Job {
    /// Where.
    pub path: RelPath,
    /// Our entry afterwards.
    pub target: Entry,
    /// Our record when it was decided.
    pub ours: Option<Record>,
    /// Where the bytes that stand there now go in a conflict.
    pub loser: Option<RelPath>,
    /// The old path of a rename, with its record and its entry afterwards.
    pub moved: Option<(RelPath, Record, Entry)>,
    /// The big content this job fetches.
    pub fetching: Option<ContentId>,
    /// Files of ours that the fetch reads.
    pub copies: Vec<RelPath>,
    /// A power cut took back what our record says of the path.
    pub torn: bool,
    /// The entry is ours already and only the disk lacks it.
    pub heals: Option<Stands>,
    /// Our index forgot the entry already and it goes from the disk.
    pub drops: bool,
}

impl Job {
    /// What is expected to stand at the path.
    pub fn expect(&self) -> Expect {
        expect(self.ours.as_ref())
    }
}

pub(super) fn big(node: &Node) -> Option<ContentId> {
    node.content().filter(|_| node.size() > WHOLE_MAX)
}

pub(super) fn expect(ours: Option<&Record>) -> Expect {
    match ours {
        Some(Record {
            entry,
            stat: Some(stat),
        }) if entry.node.is_live() => Expect::Present(entry.node.kind(), *stat),
        _ => Expect::Absent,
    }
}

/// Why and until when a path is left alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    /// Monotonic milliseconds; `None`: until something changes.
    pub at: Option<u64>,
    /// How often in a row it went wrong.
    pub attempts: u32,
}

impl Retry {
    pub fn due(&self) -> Option<u64> {
        self.at
    }
}

/// What one page of needs led to.
#[derive(Default)]
pub(super) struct Batch {
    pub txn: Txn,
    pub fetch: Vec<FetchItem>,
    pub ops: Vec<(OpId, Op)>,
}

impl Batch {
    /// Our record of a path as it will be when the page's transaction is committed.
    pub fn record(&self, path: &RelPath, index: &dyn Index) -> Result<Option<Record>, IndexError> {
        match self.txn.put.iter().find(|(p, _)| p == path) {
            Some((_, record)) => Ok(Some(record.clone())),
            None => index.get(path),
        }
    }
}

/// Which needs a walk is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// What is to be made, but big files.
    Make,
    /// Big files only.
    Big,
    /// What is to be deleted.
    Delete,
    /// All, for single paths.
    Any,
}

impl Engine {
    /// Starts as much as there is room for.
    pub(super) fn pump(
        &mut self,
        now: Now,
        index: &mut dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        if self.is_held() {
            self.fresh.clear();
            self.walker.again();
            return Ok(());
        }
        self.start_fresh(now, index, out)?;
        if self.withholds_all() && self.surveyed {
            self.walker.rest();
            return Ok(());
        }
        while self.jobs.len() < MAX_JOBS {
            let Some((walk, from)) = self.walker.at.clone() else {
                break;
            };
            if walk == Walk::Down && self.index_incoming() {
                // What looks deleted may turn out to be renamed.
                cover("plan: deletions wait for the rest of an index");
                break;
            }
            if self.choice.is_enough() {
                // A new selection may set very many aside.
                break;
            }
            let page = index.needs(walk, from.as_ref(), PAGE)?;
            let Some(last) = page.last().map(|n| n.path.clone()) else {
                self.walker.end_of_pass();
                continue;
            };
            let which = match walk {
                Walk::Up => Which::Make,
                Walk::Down => Which::Delete,
            };
            self.start_page(now, &page, which, index, out)?;
            if let Some((_, from)) = &mut self.walker.at {
                *from = Some(last);
            }
        }
        self.pump_big(now, index, out)?;
        self.surveyed |= self.walker.is_idle();
        self.start_fresh(now, index, out)
    }

    /// Starts paths that just became needed. Settling what one peer announced may bring to light
    /// what another did, so this goes on until nothing new turns up: each round drops at least one
    /// announcement or makes its path busy, or leaves the path to wait.
    fn start_fresh(
        &mut self,
        now: Now,
        index: &mut dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        self.take_up();
        loop {
            let fresh = self.take_fresh();
            if fresh.is_empty() {
                return Ok(());
            }
            self.start_paths(now, &fresh, index, out)?;
        }
    }

    fn pump_big(
        &mut self,
        now: Now,
        index: &mut dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        while self.contents.len() < MAX_BIG
            && let Some(path) = self.walker.noted.pop_first()
        {
            let theirs = index.theirs(&path)?;
            if !theirs.is_empty() {
                let need = Need { path, theirs };
                self.start_page(now, std::slice::from_ref(&need), Which::Big, index, out)?;
            }
        }
        while self.contents.len() < MAX_BIG {
            if self.walker.big.is_none() && std::mem::take(&mut self.walker.big_again) {
                self.walker.big = Some(None);
            }
            let Some(from) = self.walker.big.clone() else {
                break;
            };
            let page = index.needs(Walk::Up, from.as_ref(), PAGE)?;
            if page.is_empty() {
                self.walker.big = std::mem::take(&mut self.walker.big_again).then_some(None);
                break;
            }
            for need in &page {
                if self.contents.len() >= MAX_BIG {
                    return Ok(());
                }
                self.start_page(now, std::slice::from_ref(need), Which::Big, index, out)?;
                self.walker.big = Some(Some(need.path.clone()));
            }
        }
        Ok(())
    }

    /// Starts single paths that just became needed or due.
    pub(super) fn start_paths(
        &mut self,
        now: Now,
        paths: &[RelPath],
        index: &mut dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let mut needs = Vec::new();
        for path in paths {
            if self.jobs.len() + needs.len() >= MAX_JOBS {
                self.walker.find_from(path);
                break;
            }
            let theirs = index.theirs(path)?;
            if !theirs.is_empty() {
                needs.push(Need {
                    path: path.clone(),
                    theirs,
                });
            }
        }
        self.start_page(now, &needs, Which::Any, index, out)?;
        if !self.index_incoming() {
            needs.reverse();
            self.start_page(now, &needs, Which::Delete, index, out)?;
        }
        Ok(())
    }

    fn start_page(
        &mut self,
        now: Now,
        page: &[Need],
        which: Which,
        index: &mut dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let mut batch = Batch::default();
        for need in page {
            self.start(now, need, which, index, &mut batch)?;
        }
        self.commit(batch.txn, &[], index)?;
        if !batch.ops.is_empty() {
            out.push(Effect::Apply(batch.ops));
        }
        if !batch.fetch.is_empty() {
            out.push(Effect::Fetch(batch.fetch));
        }
        Ok(())
    }

    /// Starts what one need asks for, if it can be started now and belongs to this walk.
    fn start(
        &mut self,
        now: Now,
        need: &Need,
        which: Which,
        index: &dyn Index,
        batch: &mut Batch,
    ) -> Result<(), IndexError> {
        if !self.choice.selection.wants(&need.path) && !self.busy.contains_key(&need.path) {
            let ours = batch.record(&need.path, index)?;
            let best = best(&need.theirs).map(|e| self.decide(ours.as_ref().map(|r| &r.entry), e));
            let take = matches!(best, Some(Decision::Take { .. }));
            if take && !self.wants(&need.path, ours.as_ref()) {
                cover("choose: set aside");
                self.choice.aside += 1;
                batch.txn.away.push((need.path.clone(), true));
                return Ok(());
            }
        }
        self.start_wanted(now, need, which, index, batch)
    }

    /// As [`start`](Self::start), whether or not it is to be held here.
    pub(super) fn start_wanted(
        &mut self,
        now: Now,
        need: &Need,
        which: Which,
        index: &dyn Index,
        batch: &mut Batch,
    ) -> Result<(), IndexError> {
        let path = &need.path;
        if self.busy.contains_key(path) || self.is_waiting(path) {
            cover("plan: busy or waiting");
            return Ok(());
        }
        let Some(theirs) = best(&need.theirs) else {
            return Ok(());
        };
        let mut ours = batch.record(path, index)?;
        let (target, conflict) = match self.decide(ours.as_ref().map(|r| &r.entry), theirs) {
            Decision::Take { target, conflict } => (target, conflict),
            Decision::Merge(entry) if entry.node.is_live() && self.may_be_gone(path) => {
                cover("plan: may be gone here");
                self.put_off(path);
                return Ok(());
            }
            decision => {
                cover("plan: settled without the disk");
                // Settled without touching the disk; once per page and path.
                if which != Which::Big && !batch.txn.put.iter().any(|(p, _)| p == path) {
                    self.settle_need(path, ours, decision, need, index, batch)?;
                }
                return Ok(());
            }
        };
        if self.withholds(path, &target.node) {
            cover("plan: withheld");
            return Ok(());
        }
        let wanted = match (target.node.is_live(), big(&target.node).is_some()) {
            (false, _) => Which::Delete,
            (true, false) => Which::Make,
            (true, true) => Which::Big,
        };
        let any = which == Which::Any && wanted != Which::Delete;
        if which != wanted && !any {
            if which == Which::Any && self.index_incoming() {
                cover("plan: a deletion waits for the rest of an index");
                self.walker.put_off();
            }
            return Ok(());
        }
        // What a power cut took away is not there to be kept.
        let torn = self.as_it_stands(path, &mut ours);
        let loser = match (&ours, conflict) {
            (Some(ours), true) if !torn => self.loser_path(path, &ours.entry, index)?,
            _ => None,
        };
        if loser
            .as_ref()
            .is_some_and(|copy| self.busy.contains_key(copy))
        {
            cover("plan: the conflict copy's name is busy");
            self.walker.defer(path);
            return Ok(());
        }
        let job = Job {
            path: path.clone(),
            target,
            ours,
            loser,
            moved: None,
            fetching: None,
            copies: Vec::new(),
            torn,
            heals: None,
            drops: false,
        };
        if !job.target.node.is_live() {
            if self.sources.contains_key(path) {
                // Its bytes are just being copied to their new place.
                cover("plan: not deleted while it is copied");
                self.walker.defer(path);
                return Ok(());
            }
            cover("plan: remove");
            let expect = job.expect();
            let path = path.clone();
            self.begin(job, Op::Remove { path, expect }, batch);
            return Ok(());
        }
        self.start_live(now, job, need, index, batch)
    }

    fn settle_need(
        &mut self,
        path: &RelPath,
        ours: Option<Record>,
        decision: Decision,
        need: &Need,
        index: &dyn Index,
        batch: &mut Batch,
    ) -> Result<(), IndexError> {
        let stat = ours.as_ref().and_then(|r| r.stat);
        let old = ours.map(|r| r.entry);
        let entry = match decision {
            Decision::Merge(entry) => Some(entry),
            _ => old.clone(),
        };
        let Some(entry) = entry else { return Ok(()) };
        // See `index_batch` on why ours is told again to who waits for it.
        let awaited = need
            .theirs
            .iter()
            .any(|(_, e)| self.decide(old.as_ref(), e) == Decision::Await);
        let new = self.settle(path, entry, index, &mut batch.txn)?;
        if awaited || Some(&new) != old.as_ref() {
            cover("plan: settled with a new entry");
            batch
                .txn
                .put
                .push((path.clone(), Record { entry: new, stat }));
        }
        Ok(())
    }

    /// Where our losing bytes go; `None` when a copy of them exists (or was deleted) already.
    pub(super) fn loser_path(
        &self,
        path: &RelPath,
        ours: &Entry,
        index: &dyn Index,
    ) -> Result<Option<RelPath>, IndexError> {
        let mut stamp = ours.stamp;
        if mutant("conflict copy is named by its maker") {
            stamp.device = self.config.device;
        }
        let Some(copy) = copy_path(path, stamp) else {
            cover("copy: no name fits");
            return Ok(None);
        };
        // Whoever changed or deleted the copy knew of it.
        let kept = copy_entry(ours);
        let known = index.get(&copy)?.is_some_and(|r| {
            r.entry.node.same_bytes(&kept.node)
                || kept.version.relation(&r.entry.version) == Relation::Before
        });
        if known {
            cover("copy: known already");
        }
        Ok((!known).then_some(copy))
    }

    /// A path whose last try failed is left alone until it is due.
    pub(super) fn is_waiting(&self, path: &RelPath) -> bool {
        self.retries.get(path).is_some_and(|r| r.at.is_some())
    }

    pub(super) fn begin(&mut self, job: Job, op: Op, batch: &mut Batch) {
        let id = self.claim(job);
        batch.ops.push((id, op));
    }

    /// Makes a job's paths busy.
    pub(super) fn claim(&mut self, job: Job) -> OpId {
        let id = OpId(self.next_op);
        self.next_op += 1;
        self.busy.insert(job.path.clone(), id);
        if let Some((from, ..)) = &job.moved {
            self.busy.insert(from.clone(), id);
        }
        if let Some(copy) = &job.loser {
            self.busy.insert(copy.clone(), id);
        }
        self.contents.extend(job.fetching);
        for copy in &job.copies {
            *self.sources.entry(copy.clone()).or_default() += 1;
        }
        self.jobs.insert(id, Box::new(job));
        id
    }
}
