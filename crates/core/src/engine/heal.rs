//! What is not as it was recorded though nobody changed it is brought again from peers: bytes that
//! `verify` found wrong, and what a power cut took back. Nothing of it is announced: the entry stays.

use std::collections::BTreeMap;

use super::work::{Job, MAX_JOBS, big};
use super::{Effect, Engine, Now};
use crate::entry::{FileStat, Kind, Node, Record};
use crate::index::{Index, IndexError};
use crate::path::RelPath;
use crate::plan::{FetchItem, Op};
use crate::probe::{cover, mutant};
use crate::reconcile::{Decision, best};

/// What a power cut may have taken back, at most; beyond it the next start finds the rest.
const MAX_DAMAGED: usize = 100_000;

/// Waiting before what could not be healed is tried again, ...
const HEAL_MS: u64 = 1000;
/// ... at most, since it gets longer each time.
const HEAL_MAX_MS: u64 = 60_000;

/// What stands in the place of something damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stands {
    /// What the index says, as far as `lstat` can tell.
    AsRecorded,
    /// Something else: a power cut took the recorded thing back.
    Torn(Option<FileStat>),
}

/// Something that is to be brought again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    /// What should stand there.
    node: Node,
    stands: Stands,
}

impl Engine {
    /// Whether the whole tree was looked at since the start, or since that was asked for.
    pub fn has_scanned(&self) -> bool {
        self.scanned
    }

    /// Whether something that a power cut took back is still missing here.
    pub fn is_healing(&self) -> bool {
        let torn = |d: &Damage| d.stands != Stands::AsRecorded;
        !self.torn.is_empty()
            || self.damaged.values().any(torn)
            || self.jobs.values().any(|job| job.heals.is_some())
    }

    /// Takes note of damaged files, to be replaced by what connected peers have.
    pub(super) fn damaged(
        &mut self,
        paths: Vec<RelPath>,
        index: &dyn Index,
    ) -> Result<(), IndexError> {
        for path in paths {
            if let Some(record) = index.get(&path)?
                && record.entry.node.content().is_some()
            {
                let (node, stands) = (record.entry.node, Stands::AsRecorded);
                self.damaged.insert(path, Damage { node, stands });
            }
        }
        Ok(())
    }

    /// A power cut took back what is recorded of a path; `stat` stands there instead. The share has so
    /// many `files`.
    pub(super) fn torn(
        &mut self,
        now: Now,
        path: RelPath,
        stat: Option<FileStat>,
        files: u64,
        index: &dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let Some(record) = index.get(&path)?.filter(|r| r.entry.node.is_live()) else {
            return Ok(());
        };
        let damage = Damage {
            node: record.entry.node,
            stands: Stands::Torn(stat),
        };
        if self.torn.get(&path) == Some(&damage) || self.damaged.len() >= MAX_DAMAGED {
            // Tried already, and tried again in its time.
            return Ok(());
        }
        cover("local: torn by a power cut");
        let known = self.damaged.get(&path) == Some(&damage);
        if stat.is_none() && damage.node.kind() != Kind::Dir && !known {
            self.guard.lost(now.mono_ms, files);
        }
        let told = "a power cut took back what was written here last; it comes back from a peer \
                    that has it. If none has: write it anew, or take what is here now with \
                    `left resume DIR --accept-deletions`";
        self.problem(&path, told.to_owned(), out);
        self.torn.remove(&path);
        self.damaged.insert(path, damage);
        Ok(())
    }

    /// Our record of a path as an operation will find it: what a power cut took back stands there no
    /// more. Whether it is so.
    pub(super) fn as_it_stands(&self, path: &RelPath, ours: &mut Option<Record>) -> bool {
        let damage = self.torn.get(path).or_else(|| self.damaged.get(path));
        let Some(Stands::Torn(stat)) = damage.map(|d| d.stands) else {
            return false;
        };
        cover("heal: peers have something newer");
        if let Some(record) = ours {
            record.stat = stat;
        }
        true
    }

    /// Whether peers have something newer in the place of what is damaged: that is brought instead.
    /// What a device that only sends withholds is not brought.
    fn is_outdated(
        &self,
        path: &RelPath,
        record: &Record,
        index: &dyn Index,
    ) -> Result<bool, IndexError> {
        let theirs = index.theirs(path)?;
        let best = best(&theirs).map(|e| self.decide(Some(&record.entry), e));
        Ok(match best {
            Some(Decision::Take { target, .. }) => {
                let withheld = self.withholds(path, &target.node);
                if withheld {
                    cover("heal: what peers have is withheld");
                }
                !withheld || mutant("what is damaged waits for what is withheld")
            }
            _ => false,
        })
    }

    /// Whether what is recorded of a path is not there, and is not on its way either.
    pub(super) fn is_damaged(&self, path: &RelPath) -> bool {
        self.torn.contains_key(path) || self.damaged.contains_key(path)
    }

    /// A path was seen that is not torn (any more).
    pub(super) fn not_torn(&mut self, path: &RelPath) {
        self.torn.remove(path);
        if let Some(Stands::Torn(_)) = self.damaged.get(path).map(|d| d.stands) {
            self.damaged.remove(path);
        }
    }

    /// The user takes what stands there instead of what a power cut took back.
    pub(super) fn accept_torn(&mut self) {
        self.heal_at = None;
        self.torn.clear();
        self.damaged.clear();
    }

    /// What could not be healed is tried again, and soon once more: somebody new is there.
    pub(super) fn heal_again(&mut self) {
        self.heal_tries = 0;
        self.heal_now();
    }

    fn heal_now(&mut self) {
        self.heal_at = None;
        self.damaged.append(&mut self.torn);
    }

    /// Tries again what could not be healed, if that is due.
    pub(super) fn expire_healing(&mut self, now: Now) {
        if self.heal_at.is_some_and(|at| at <= now.mono_ms) {
            self.heal_now();
        }
    }

    /// Something came back, so more may: from whoever was healed meanwhile itself.
    pub(super) fn healed(&mut self) {
        self.heal_tries = 0;
    }

    /// Healing did not succeed now.
    pub(super) fn not_healed(&mut self, now: Now, job: &Job) {
        if let Some(stands @ Stands::Torn(_)) = job.heals {
            cover("heal: not now");
            let node = job.target.node.clone();
            self.torn.insert(job.path.clone(), Damage { node, stands });
            self.heal_later(now);
        }
    }

    fn heal_later(&mut self, now: Now) {
        if self.heal_at.is_none() {
            let wait = (HEAL_MS << self.heal_tries.min(6)).min(HEAL_MAX_MS);
            self.heal_at = Some(now.mono_ms + wait);
            self.heal_tries = self.heal_tries.saturating_add(1);
        }
    }

    /// Brings damaged things again. What is under way already, for another path too, is waited for.
    pub(super) fn heal(
        &mut self,
        now: Now,
        index: &dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let full = self.full_until.is_some_and(|at| at > now.mono_ms);
        if self.damaged.is_empty() || self.sessions.is_empty() || self.is_held() || full {
            return Ok(());
        }
        let (mut fetch, mut ops) = (Vec::new(), Vec::new());
        let mut waiting = BTreeMap::new();
        // No further than there is room: after a cut there may be very many, and this is every step's.
        while self.jobs.len() < MAX_JOBS
            && let Some((path, damage)) = self.damaged.pop_first()
        {
            let record = index.get(&path)?;
            let Some(record) = record.filter(|r| r.entry.node == damage.node) else {
                // Somebody edited it since: that is what counts now.
                cover("heal: edited since");
                self.solved(&path, out);
                continue;
            };
            if self.is_outdated(&path, &record, index)? {
                self.fresh.push(path.clone());
                self.torn.insert(path, damage);
                if !mutant("what is newer is sure to come") {
                    // It may be deleted there before it is here: then ours counts again.
                    self.heal_later(now);
                }
                continue;
            }
            let content = big(&damage.node);
            let busy = self.busy.contains_key(&path)
                || content.is_some_and(|c| self.contents.contains(&c));
            if busy {
                cover("plan: a damaged file waits");
                waiting.insert(path, damage);
                continue;
            }
            cover("plan: heal a damaged file");
            self.heal_one(path, record, &damage, &mut fetch, &mut ops);
        }
        self.damaged.append(&mut waiting);
        if !ops.is_empty() {
            out.push(Effect::Apply(ops));
        }
        if !fetch.is_empty() {
            out.push(Effect::Fetch(fetch));
        }
        Ok(())
    }

    fn heal_one(
        &mut self,
        path: RelPath,
        record: Record,
        damage: &Damage,
        fetch: &mut Vec<FetchItem>,
        ops: &mut Vec<(crate::plan::OpId, Op)>,
    ) {
        let target = record.entry.clone();
        let there = !matches!(damage.stands, Stands::Torn(None));
        let ours = match damage.stands {
            Stands::AsRecorded => Some(record),
            Stands::Torn(Some(stat)) => Some(Record {
                stat: Some(stat),
                ..record
            }),
            Stands::Torn(None) => None,
        };
        let fetching = big(&target.node);
        let job = Job {
            path: path.clone(),
            target: target.clone(),
            ours,
            loser: None,
            moved: None,
            fetching,
            copies: Vec::new(),
            torn: true,
            heals: Some(damage.stands),
            drops: false,
        };
        let expect = job.expect();
        let id = self.claim(job);
        let node = target.node;
        match (node.kind(), node.content()) {
            (Kind::File, Some(content)) => fetch.push(FetchItem {
                id,
                // What is still right of a big file need not travel again.
                base: (there && fetching.is_some()).then(|| (path.clone(), content)),
                path,
                content,
                size: node.size(),
                copies: Vec::new(),
                peers: self.sessions.keys().copied().collect(),
            }),
            _ => {
                let op = Op::Place {
                    path,
                    node,
                    staged: None,
                    expect,
                    loser: None,
                };
                ops.push((id, op));
            }
        }
    }
}
