//! Peers come, go and tell of their index.

use super::work::big;
use super::{Effect, Engine, Now};
use crate::entry::{Entry, Record};
use crate::index::{Cursor, Index, IndexError, Txn};
use crate::message::{Control, IndexBatch, Role, Start};
use crate::path::RelPath;
use crate::probe::{cover, mutant};
use crate::reconcile::Decision;
use crate::session::Session;
use crate::version::DeviceId;

/// How far ahead of our clock the counters that peers tell may be: ten years, more than any clock is
/// wrong, and far from the largest counter. Somebody who used that one up for a device, in an entry
/// of one path, would leave it no new version for its edits.
const MAX_AHEAD_MS: u64 = 10 * 366 * 86_400_000;
/// The clock of a machine that starts without one is not before this: 2026-11-01.
const FIRST_MS: u64 = 1_793_491_200_000;

/// Entries versioned again in one transaction.
const REISSUE_PAGE: usize = 1000;

impl Engine {
    pub(super) fn peer_up(
        &mut self,
        peer: DeviceId,
        role: Role,
        index: &dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let (session, message) = Session::open(peer, role, self.announced_head(index), index)?;
        self.sessions.insert(peer, session);
        self.heal_again();
        out.push(Effect::Send { peer, message });
        Ok(())
    }

    pub(super) fn peer_down(&mut self, peer: DeviceId) {
        if self.sessions.remove(&peer).is_some_and(|s| s.more) {
            // Deletions waited for the rest of its index, which does not come now.
            self.walker.again();
        }
        self.forget_barriers(peer);
    }

    pub(super) fn message(
        &mut self,
        now: Now,
        peer: DeviceId,
        message: Control,
        index: &mut dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let Some(session) = self.sessions.get_mut(&peer) else {
            return Ok(());
        };
        match message {
            Control::Start(start) if !session.started => {
                self.peer_started(now, peer, &start, index)
            }
            Control::Start(_) => {
                misbehaved(peer, "it started twice", out);
                Ok(())
            }
            Control::Index(batch) => self.index_batch(now, peer, batch, index, out),
            Control::Progress(progress) => {
                session.progress = Some(progress);
                Ok(())
            }
            Control::Barrier(token) => {
                self.peer_barrier(peer, token, out);
                Ok(())
            }
            Control::BarrierDone(token) => {
                self.peer_barrier_done(peer, token);
                self.sheds.answered(peer, token, &[]);
                Ok(())
            }
            Control::Ask(ask) => {
                self.peer_asks(peer, ask, out);
                Ok(())
            }
            Control::Have(have) => {
                self.sheds.answered(peer, have.token, &have.held);
                Ok(())
            }
            // The lane's and the daemon's business.
            Control::Offer(_)
            | Control::Parts(_)
            | Control::Roll(_)
            | Control::Members(_)
            | Control::Ping
            | Control::Pong
            | Control::Bye(_) => Ok(()),
        }
    }

    fn peer_started(
        &mut self,
        now: Now,
        peer: DeviceId,
        start: &Start,
        index: &mut dyn Index,
    ) -> Result<(), IndexError> {
        let Some(session) = self.sessions.get_mut(&peer) else {
            return Ok(());
        };
        let mut txn = Txn::default();
        let counter = start.your_counter;
        let believed = counter <= latest_counter(now);
        let parted = session.parted(start, index).filter(|_| believed);
        if session.start(start, index) {
            txn.forget.push(peer);
            txn.cursors.push((peer, session.taken));
        }
        if parted.is_some() {
            txn.counter_floor = Some(counter.max(index.counter_floor()));
        }
        // What nobody had may be had now.
        self.retries.clear();
        self.hopes.clear();
        self.walker.again();
        self.commit(txn, &[], index)?;
        if let Some(from) = parted
            && !mutant("no new versions after a lost index")
        {
            cover("peers: own edits versioned again");
            self.reissue(now, from, counter, index)?;
        }
        Ok(())
    }

    /// The peer knows of edits of ours that we do not: our index was lost or an older one came back,
    /// and what was versioned since, with a clock set back, looks older than what we announced in
    /// the life before, or the same, though it is newer. Gives our own edits above the number `from`
    /// a version after the counter `told`.
    fn reissue(
        &mut self,
        now: Now,
        mut from: u64,
        told: u64,
        index: &mut dyn Index,
    ) -> Result<(), IndexError> {
        let author = self.author(now, index);
        // What is put gets numbers beyond the head of now.
        let head = index.head();
        while from < head {
            let rows = index.changes_since(from, REISSUE_PAGE)?;
            let mut txn = Txn::default();
            from = rows.last().map_or(head, |(seq, ..)| *seq);
            for (_, path, mut record) in rows.into_iter().filter(|(seq, ..)| *seq <= head) {
                let entry = &mut record.entry;
                let made = entry.version.counter(author.device);
                let ours = entry.stamp.device == author.device;
                if ours && made <= told && !self.busy.contains_key(&path) {
                    entry.version =
                        (entry.version).bump(author.device, author.now_ms, author.floor);
                    // Another edit may have that stamp. One that is as old as its file stays so.
                    if entry.stamp.counter == made {
                        entry.stamp.counter = entry.version.counter(author.device);
                    }
                    txn.put.push((path, record));
                }
            }
            self.commit(txn, &[], index)?;
        }
        Ok(())
    }

    fn index_batch(
        &mut self,
        now: Now,
        peer: DeviceId,
        batch: IndexBatch,
        index: &mut dyn Index,
        out: &mut Vec<Effect>,
    ) -> Result<(), IndexError> {
        let Some(session) = self.sessions.get_mut(&peer) else {
            return Ok(());
        };
        if !session.started || batch.upto < session.taken.seq {
            misbehaved(peer, "it sent index changes out of order", out);
            return Ok(());
        }
        let latest = latest_counter(now);
        if batch.entries.iter().any(|(_, e)| largest(e) > latest) {
            misbehaved(peer, "it sent a counter of more than ten years ahead", out);
            return Ok(());
        }
        session.taken.seq = batch.upto;
        session.more = batch.more;
        let cursor = Cursor {
            epoch: session.taken.epoch,
            seq: batch.upto,
        };
        let believed = session.role == Role::ReadWrite;
        let mut txn = Txn::default();
        let mut from = Vec::new();
        txn.cursors.push((peer, cursor));
        if mutant("acknowledged before committed") {
            self.commit(std::mem::take(&mut txn), &[], index)?;
        }
        if believed {
            let totals = index.totals()?;
            let needing = totals.need_files + totals.away_files > 0;
            let everything = self.choice.selection.is_everything();
            self.peer_dropped(peer, batch.dropped, index, &mut txn)?;
            for (path, theirs) in batch.entries {
                if self.busy.contains_key(&path) {
                    cover("peers: told of a busy path");
                    txn.theirs_put.push((peer, path, theirs));
                    continue;
                }
                let ours = index.get(&path)?;
                match self.decide(ours.as_ref().map(|r| &r.entry), &theirs) {
                    Decision::Take { target, .. } => {
                        self.retries.remove(&path);
                        if big(&target.node).is_some() && self.wants(&path, ours.as_ref()) {
                            self.walker.note_big(&path);
                        }
                        if !target.node.is_live() {
                            self.hope_fulfilled(ours.as_ref());
                        }
                        if everything || self.wants(&path, ours.as_ref()) {
                            self.fresh.push(path.clone());
                        }
                        if !everything {
                            let away = !self.wants(&path, ours.as_ref());
                            txn.theirs_del.push((self.config.device, path.clone()));
                            txn.away.push((path.clone(), away));
                        }
                        txn.theirs_put.push((peer, path, theirs));
                        continue;
                    }
                    Decision::Merge(entry) if entry.node.is_live() && self.may_be_gone(&path) => {
                        cover("peers: told of what may be gone here");
                        self.put_off(&path);
                        txn.theirs_put.push((peer, path, theirs));
                        continue;
                    }
                    Decision::Merge(mut entry) => {
                        // What others announced before may be settled by it, and nobody would look at it again.
                        if needing {
                            entry = self.settle(&path, entry, index, &mut txn)?;
                        }
                        from.push(if entry == theirs { vec![peer] } else { vec![] });
                        let stat = ours.and_then(|r| r.stat);
                        txn.put.push((path.clone(), Record { entry, stat }));
                    }
                    Decision::Await => {
                        // The peer settles this when it hears of ours. It may have heard already
                        // and let it go, because what it had then won: tell it again.
                        if let Some(ours) = ours
                            && !mutant("who waits is not told again")
                        {
                            from.push(vec![]);
                            txn.put.push((path.clone(), ours));
                        }
                    }
                    Decision::InSync | Decision::Older => {}
                }
                if needing {
                    txn.theirs_del.push((peer, path));
                }
            }
        }
        if !self.index_incoming() {
            self.walker.all_heard();
        }
        self.commit(txn, &from, index)
    }

    /// Connected peers, of these, that announced what is wanted.
    pub(super) fn connected<'a>(
        &'a self,
        announced: impl Iterator<Item = &'a DeviceId> + 'a,
    ) -> impl Iterator<Item = DeviceId> + 'a {
        announced.filter(|d| self.sessions.contains_key(d)).copied()
    }

    /// Whether a peer announced that more of its index follows at once.
    pub(super) fn index_incoming(&self) -> bool {
        self.sessions.values().any(|s| s.more)
    }

    /// Whether nothing may be changed on disk now.
    pub(super) fn is_held(&self) -> bool {
        self.alarm.is_some() || self.paused || (self.first_scan && !self.scanned)
    }

    /// Paths without their repetitions, in order.
    pub(super) fn take_fresh(&mut self) -> Vec<RelPath> {
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.sort();
        fresh.dedup();
        fresh
    }
}

/// The largest counter that is believed.
fn latest_counter(now: Now) -> u64 {
    now.wall_ms.max(FIRST_MS).saturating_add(MAX_AHEAD_MS)
}

/// The largest counter in an entry.
fn largest(entry: &Entry) -> u64 {
    let counters = entry.version.pairs().iter().map(|(_, c)| *c);
    counters.chain([entry.stamp.counter]).max().unwrap_or(0)
}

fn misbehaved(peer: DeviceId, why: &str, out: &mut Vec<Effect>) {
    out.push(Effect::Disconnect {
        peer,
        reason: why.to_owned(),
    });
}
