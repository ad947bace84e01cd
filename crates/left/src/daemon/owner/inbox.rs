//! What the owner is told by everything else.

use std::collections::HashSet;
use std::time::Instant;

use crossbeam_channel::Sender;
use left_core::engine::Event;
use left_core::index::IndexError;
use left_core::message::{Nonce, Offer};
use left_core::path::RelPath;
use left_core::plan::{OpDone, OpError, OpId};

use super::super::ask::{LaneKind, Msg};
use super::Owner;
use crate::net::{DataLane, DialError};
use crate::transfer::Told;

impl Owner {
    pub(super) fn message(&mut self, msg: Msg) -> Result<(), IndexError> {
        match msg {
            Msg::Control(lane) => self.add_lane(lane)?,
            Msg::Data(lane) => self.add_data(lane),
            Msg::Dialed { peer, result } => self.dialed(peer, result)?,
            Msg::DialedData {
                session,
                lane,
                result,
            } => self.dialed_data(session, lane, result),
            Msg::DataEnded { session, id } => self.links.data_ended(session, id),
            Msg::LookAtLanes { session } => self.links.look_at_lanes(session),
            Msg::RedialData { session, lane } => self.links.redial_data(session, lane),
            Msg::Lane {
                peer,
                session,
                event,
            } => self.lane(peer, session, event)?,
            Msg::Offer(offer) => self.offer(&offer),
            Msg::Parts(told) => self.tell_parts(told),
            Msg::Applied(results) => self.have_applied(results)?,
            Msg::Rescued(paths) => self.rescued(paths),
            Msg::LookAt(paths) => self.eye.rescan(paths),
            Msg::Lend(reply) => answer(&reply, self.lend()),
            Msg::Restored(paths) => self.restored(paths),
            Msg::Conflicts(paths) => self.conflicts.extend(paths),
            Msg::Wait(reply) => {
                let id = self.next_wait;
                self.next_wait += 1;
                self.waits.insert(id, reply);
                self.handle(Event::Wait(id))?;
            }
            Msg::Publish(reply) => {
                self.dirty = true;
                self.setup.board.hurry();
                self.publish()?;
                answer(&reply, ());
            }
            Msg::Pause(on) => {
                self.handle(Event::Pause(on))?;
                // Nothing is exchanged either: the lanes go, and are not dialed before it goes on.
                self.members_changed()?;
            }
            Msg::Resume { accept_deletions } => {
                if accept_deletions {
                    self.eye.accept_torn();
                }
                self.handle(Event::Resume { accept_deletions })?;
                self.dial();
            }
            Msg::Synced(synced) => self.have_synced(synced)?,
            Msg::Choose(selection, drop, reply) => self.choose(selection, drop, reply)?,
            Msg::IndexFailed(error) => return Err(error),
            Msg::Revert(at, reply) => answer(&reply, self.revert(at)?),
            Msg::Decide { at, take, reply } => answer(&reply, self.decide(at, take)?),
            Msg::Damaged(paths) => self.handle(Event::Damaged(paths))?,
            Msg::Sighted(peer) => {
                self.links.sighted(peer, Instant::now());
                self.dial();
            }
            Msg::NetworkChanged => {
                self.links.network_changed();
                self.tell_members(None);
                self.dial();
            }
            Msg::MembersChanged => self.members_changed()?,
            Msg::Stop => {
                self.stop = true;
                self.again = false;
            }
        }
        Ok(())
    }

    fn offer(&mut self, offer: &Offer) {
        for peer in self.links.peers() {
            self.links.offer(peer, offer);
        }
    }

    fn tell_parts(&mut self, told: Told) {
        for (peer, parts) in told.all {
            if let Err(parts) = self.links.tell_parts(peer, parts) {
                self.fetcher.untold(peer, &parts);
            }
        }
    }

    fn restored(&mut self, paths: Vec<RelPath>) {
        // Wakes the applier too: what went to history is looked at once more.
        if let Some(apply) = &self.apply {
            let _ = apply.send(Vec::new());
        }
        self.eye.rescan(paths);
    }

    fn dialed_data(&mut self, session: Nonce, lane: LaneKind, result: Result<DataLane, DialError>) {
        match result {
            Ok(data) => {
                let added = self.links.dialed_data(data, lane);
                self.use_data(added);
            }
            Err(error) => {
                tracing::info!("no data lane: {error}");
                self.links.data_failed(session, lane);
            }
        }
    }

    fn have_applied(
        &mut self,
        results: Vec<(OpId, Result<OpDone, OpError>)>,
    ) -> Result<(), IndexError> {
        crash_point!("applied");
        self.checkpoints.changed();
        let mut done = results.len();
        let good = results.iter().filter(|(_, r)| r.is_ok());
        let good: HashSet<OpId> = good.map(|(id, _)| *id).collect();
        self.handle(Event::Applied(results))?;
        // Batches are done in order, several at once or one by one.
        while self.batches.front().is_some_and(|b| b.len <= done)
            && let Some(batch) = self.batches.pop_front()
        {
            done -= batch.len;
            self.applied.add(batch.len as u64, batch.since.elapsed());
            batch.end(&good);
        }
        Ok(())
    }

    fn rescued(&mut self, paths: Vec<RelPath>) {
        for path in &paths {
            let text = format!(
                "a program wrote to a file after it was replaced; what it wrote is in {path}"
            );
            self.notice(text);
        }
        self.conflicts.extend(paths.iter().cloned());
        self.eye.rescan(paths);
    }

    fn have_synced(&mut self, synced: Result<(), String>) -> Result<(), IndexError> {
        if let Err(error) = &synced {
            self.notice(format!(
                "the disk could not take in all that was written: {error}. Check the disk; until \
                 left is started anew small files are written one by one, which is slower"
            ));
        }
        for token in self.checkpoints.synced(synced.is_ok()) {
            self.handle(Event::Synced(token))?;
        }
        if self.checkpoints.due().is_none() {
            // Nothing has changed for seconds.
            self.index.rest();
            self.source.latest.clear();
        }
        Ok(())
    }
}

/// Who asked may have given up.
fn answer<T>(reply: &Sender<T>, with: T) {
    let _ = reply.send(with);
}
