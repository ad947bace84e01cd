//! Dropping what is not to be held here: others are asked whether they hold it, then our index forgets
//! it, and only then it goes from the disk. Whatever happens between, no deletion is told: without a
//! record nothing is missed, and what is left on the disk is an edit with bytes that others have too.
//!
//! Two devices that drop the same at once, each because the other has it, would lose it. So who asks
//! says no to others' questions about the same until it is done. With that nobody drops relying on
//! somebody who drops: in a circle of devices that rely on each other, each would have begun to ask
//! after the one it relies on.

mod orders;

use std::collections::BTreeSet;

use super::work::{Job, expect};
use super::{Effect, Engine, Now};
use crate::entry::{Kind, Record};
use crate::index::{Index, IndexError, Txn};
use crate::message::{Ask, Control, Have, Role, entry_len};
use crate::path::RelPath;
use crate::plan::{Op, OpError};
use crate::probe::{cover, mutant};
use crate::reconcile::Decision;
use crate::version::DeviceId;
pub(super) use orders::Sheds;
use orders::{Asked, Item, Shed};

/// Records read at a time.
const PAGE: usize = 256;
/// Pages without anything to drop that are read in one step.
const PAGES: usize = 40;
/// What one question asks for, at most, and its bytes.
const MAX_ASKED: usize = 1000;
const MAX_ASKED_BYTES: usize = 256 << 10;
/// Longest waiting for answers.
const ANSWER_MS: u64 = 20_000;
/// Orders to drop that may wait.
pub const MAX_SHEDS: usize = 16;

/// Why something was not dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// No other connected device has it.
    NoPeer,
    /// It is just being changed, here or elsewhere.
    Changing,
    /// What stands there is not what was told to others.
    Edited,
    /// A folder that holds what is not synchronised.
    NotEmpty,
    /// The share is paused, in alarm or not looked at yet.
    Held,
    /// Anything else, in words.
    Failed(String),
}

/// What came of an order to drop.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Files and links that went.
    pub files: u64,
    /// Folders that went.
    pub dirs: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// What stays though it is not to be held.
    pub kept: u64,
    /// The first of those.
    pub named: Vec<(RelPath, Kept)>,
}

impl Engine {
    /// The user wants what is not to be held dropped, at and below a path or everywhere.
    pub(super) fn shed(&mut self, id: u64, at: Option<RelPath>, out: &mut Vec<Effect>) {
        let mut shed = Shed {
            id,
            at,
            after: None,
            some: false,
            report: Dropped::default(),
            asked: None,
            running: 0,
        };
        if self.sheds.queue.len() < MAX_SHEDS {
            return self.sheds.queue.push_back(shed);
        }
        shed.report.kept = 1;
        let why = "too many orders to drop files wait already; try again later".to_owned();
        let at = shed
            .at
            .into_iter()
            .map(|at| (at, Kept::Failed(why.clone())));
        shed.report.named.extend(at);
        out.push(Effect::Dropped(id, shed.report));
    }

    /// Goes on with the first order.
    pub(super) fn shed_more(
        &mut self,
        now: Now,
        index: &mut dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        self.sheds.unfinished = false;
        let mut idle = 0;
        while let Some(shed) = self.sheds.queue.front_mut() {
            if let Some(asked) = &shed.asked {
                let known = asked.items.iter().all(|i| !i.holders.is_empty());
                let ready = asked.synced && (known || asked.peers.is_empty());
                if !ready && now.mono_ms < asked.until_ms {
                    return Ok(());
                }
                self.drop_asked(index, out)?;
                continue;
            }
            if shed.running > 0 {
                return Ok(());
            }
            if idle == PAGES {
                self.sheds.unfinished = true;
                return Ok(());
            }
            idle += 1;
            self.next_asked(now, index, out)?;
        }
        Ok(())
    }

    /// Reads on for what is to be dropped, and asks for it; ends a round, and the order.
    fn next_asked(
        &mut self,
        now: Now,
        index: &dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let held = self.is_held() || !self.scanned;
        let Some(shed) = self.sheds.queue.front_mut() else {
            return Ok(());
        };
        let page = match (held, &shed.at, &shed.after) {
            (true, ..) => Vec::new(),
            (_, None, after) => index.live_after(after.as_ref(), PAGE)?,
            (_, Some(at), after @ Some(_)) => index.live_below(at, after.as_ref(), PAGE)?,
            (_, Some(at), None) => {
                let own = index.get(at)?.filter(|r| r.entry.node.is_live());
                let own = own.map(|r| (at.clone(), r)).into_iter();
                own.chain(index.live_below(at, None, PAGE)?).collect()
            }
        };
        if page.is_empty() {
            if held {
                shed.report.kept += 1;
                let at = shed.at.iter().map(|at| (at.clone(), Kept::Held));
                shed.report.named.extend(at);
            } else if std::mem::take(&mut shed.some) {
                shed.after = None;
                shed.report.kept = 0;
                shed.report.named.clear();
                return Ok(());
            }
            if let Some(shed) = self.sheds.queue.pop_front() {
                cover("shed: done");
                out.push(Effect::Dropped(shed.id, shed.report));
            }
            return Ok(());
        }
        let (mut items, mut bytes) = (Vec::new(), 0);
        for (path, record) in page {
            if items.len() == MAX_ASKED || bytes > MAX_ASKED_BYTES {
                break;
            }
            shed.after = Some(path.clone());
            if self.choice.selection.wants(&path) {
                continue;
            }
            let is_dir = record.entry.node.kind() == Kind::Dir;
            if is_dir && !index.live_below(&path, None, 1)?.is_empty() {
                continue;
            }
            if self.busy.contains_key(&path) || self.look_again.contains(&path) {
                shed.keep(&path, Kept::Changing);
                continue;
            }
            bytes += entry_len(&path, &record.entry);
            let holders = Vec::new();
            items.push(Item {
                path,
                record,
                holders,
            });
        }
        if !items.is_empty() {
            self.ask(now, items, out);
        }
        Ok(())
    }

    /// Asks all that may hold them.
    fn ask(&mut self, now: Now, items: Vec<Item>, out: &mut Vec<Effect>) {
        let token = self.next_token();
        let writes = self.sessions.iter();
        let writes = writes.filter(|(_, s)| s.role == Role::ReadWrite && s.started);
        let peers: BTreeSet<DeviceId> = writes.map(|(peer, _)| *peer).collect();
        let entries: Vec<_> = items
            .iter()
            .map(|i| (i.path.clone(), i.record.entry.clone()))
            .collect();
        for peer in &peers {
            let entries = entries.clone();
            let message = Control::Ask(Ask { token, entries });
            let peer = *peer;
            out.push(Effect::Send { peer, message });
        }
        out.push(Effect::Sync(token));
        if let Some(shed) = self.sheds.queue.front_mut() {
            shed.asked = Some(Asked {
                token,
                peers,
                synced: false,
                until_ms: now.mono_ms + ANSWER_MS,
                items,
            });
        }
    }

    /// The answers are there, or it took too long: what others hold goes.
    fn drop_asked(
        &mut self,
        index: &mut dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let Some(mut shed) = self.sheds.queue.pop_front() else {
            return Ok(());
        };
        let Some(asked) = shed.asked.take() else {
            self.sheds.queue.push_front(shed);
            return Ok(());
        };
        let (mut txn, mut ops) = (Txn::default(), Vec::new());
        for item in asked.items {
            if let Some(why) = self.why_kept(&item, asked.synced, index)? {
                shed.keep(&item.path, why);
                continue;
            }
            cover("shed: drop");
            let Item {
                path,
                record,
                holders,
            } = item;
            if !mutant("the record outlives the drop") {
                txn.drop.push(path.clone());
            }
            for peer in holders {
                txn.theirs_put
                    .push((peer, path.clone(), record.entry.clone()));
            }
            txn.away.push((path.clone(), true));
            let op = Op::Drop {
                path: path.clone(),
                expect: expect(Some(&record)),
            };
            let id = self.claim(Job {
                path,
                target: record.entry.clone(),
                ours: Some(record),
                loser: None,
                moved: None,
                fetching: None,
                copies: Vec::new(),
                torn: false,
                heals: None,
                drops: true,
            });
            shed.running += 1;
            ops.push((id, op));
        }
        self.sheds.queue.push_front(shed);
        self.commit(txn, &[], index)?;
        if !ops.is_empty() {
            out.push(Effect::Apply(ops));
        }
        Ok(())
    }

    /// Why something that was asked for can not be dropped.
    fn why_kept(
        &self,
        item: &Item,
        synced: bool,
        index: &dyn Index,
    ) -> Result<Option<Kept>, IndexError> {
        let Item {
            path,
            record,
            holders,
        } = item;
        if self.is_held() {
            return Ok(Some(Kept::Held));
        }
        if holders.is_empty() && !mutant("dropped though nobody has it") {
            cover("shed: nobody else has it");
            return Ok(Some(Kept::NoPeer));
        }
        let now = index.get(path)?;
        let mut changing = !synced
            || self.choice.selection.wants(path)
            || self.busy.contains_key(path)
            || self.sources.contains_key(path)
            || self.is_unsure(path)
            || now.is_none_or(|r| r.entry != record.entry);
        for (_, theirs) in index.theirs(path)? {
            changing |= matches!(
                self.decide(Some(&record.entry), &theirs),
                Decision::Take { .. } | Decision::Await
            );
        }
        if changing {
            cover("shed: just being changed");
        }
        Ok(changing.then_some(Kept::Changing))
    }

    /// What stands there may not be what our index says.
    fn is_unsure(&self, path: &RelPath) -> bool {
        self.look_again.contains(path) || self.is_damaged(path) || self.is_missed(path)
    }

    /// It is gone from the disk.
    pub(super) fn drop_done(&mut self, job: Job) {
        self.retries.remove(&job.path);
        if let Some(shed) = self.sheds.queue.front_mut() {
            shed.running = shed.running.saturating_sub(1);
            shed.some = true;
            match job.target.node.kind() {
                Kind::Dir => shed.report.dirs += 1,
                _ => shed.report.files += 1,
            }
            shed.report.bytes += job.target.node.size();
        }
        // Peers may have announced something newer meanwhile.
        self.fresh.push(job.path);
    }

    /// It is still there: so is our record of it again, and an edit of it follows what it was.
    pub(super) fn drop_failed(
        &mut self,
        job: Job,
        error: OpError,
        index: &mut dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        cover("shed: what stands there is something else");
        let why = match error {
            OpError::Unexpected | OpError::NotStaged | OpError::NoParent => Kept::Edited,
            OpError::NotEmpty => Kept::NotEmpty,
            OpError::Full => Kept::Failed("no room on the disk".to_owned()),
            OpError::Io(why) => Kept::Failed(why),
        };
        if let Some(shed) = self.sheds.queue.front_mut() {
            shed.running = shed.running.saturating_sub(1);
            shed.keep(&job.path, why);
        }
        let Some(record) = job.ours else {
            return Ok(());
        };
        let mut txn = Txn::default();
        let entry = self.settle(&job.path, record.entry, index, &mut txn)?;
        let stat = record.stat;
        txn.put.push((job.path.clone(), Record { entry, stat }));
        self.commit(txn, &[], index)?;
        out.push(Effect::Rescan(vec![job.path]));
        Ok(())
    }

    /// Answers a question: of what stands here exactly as asked, and stays.
    pub(super) fn answer(
        &mut self,
        peer: DeviceId,
        index: &dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let Some(ask) = self.sheds.questions.remove(&peer) else {
            return Ok(());
        };
        let sure = self.scanned && self.alarm.is_none() && self.config.role == Role::ReadWrite;
        let mut held = vec![0; ask.entries.len().div_ceil(8)];
        for (at, (path, entry)) in ask.entries.iter().enumerate() {
            let asking = self.sheds.is_asking(path) && !mutant("who drops says that it holds");
            if !sure || asking || self.busy.contains_key(path) || self.is_unsure(path) {
                continue;
            }
            let ours = index.get(path)?.map(|r| r.entry);
            if ours.is_some_and(|o| o.node == entry.node && o.version == entry.version) {
                held[at / 8] |= 1 << (at % 8);
            }
        }
        let token = ask.token;
        let message = match held.iter().all(|b| *b == 0) {
            true => Control::BarrierDone(token),
            false => Control::Have(Have { token, held }),
        };
        out.push(Effect::Send { peer, message });
        Ok(())
    }
}
