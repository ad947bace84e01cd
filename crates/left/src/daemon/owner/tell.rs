//! What the owner tells people.

use std::time::Instant;

use left_core::engine::{Event, Report};
use left_core::index::{Index, IndexError};
use left_core::message::Role;
use left_core::path::RelPath;

use super::super::handle::{DaemonEvent, Transfer};
use super::super::history::Lent;
use super::super::snapshot::{self, Parts};
use super::Owner;

impl Owner {
    pub(super) fn notice(&mut self, text: String) {
        /// Older ones make room.
        const MAX_NOTICES: usize = 20;
        if self.notices.contains(&text) {
            return;
        }
        if self.notices.len() >= MAX_NOTICES {
            self.notices.remove(0);
        }
        let _ = self
            .setup
            .events
            .send(DaemonEvent::Notice { text: text.clone() });
        self.notices.push(text);
    }

    pub(super) fn problem(&mut self, path: String, reason: String) {
        /// What status can show.
        const MAX_PROBLEMS: usize = 500;
        if self
            .problems
            .iter()
            .any(|(p, r)| *p == path && *r == reason)
        {
            return;
        }
        self.problems.retain(|(p, _)| *p != path);
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push((path.clone(), reason.clone()));
        }
        tracing::warn!(path, "{reason}");
        let _ = self.setup.events.send(DaemonEvent::Problem {
            share: self.setup.path.clone(),
            path,
            reason,
        });
    }

    pub(super) fn report(&mut self, report: Report) {
        let share = self.setup.path.clone();
        let event = match report {
            Report::Received { path, bytes } => {
                let event = DaemonEvent::FileReceived {
                    share,
                    path: path.to_string(),
                    bytes,
                };
                // The loser's device keeps its copy; here it comes like any file.
                if left_core::conflict::is_copy(&path) {
                    self.conflicts.push(path);
                }
                event
            }
            Report::Deleted { path } => DaemonEvent::FileDeleted {
                share,
                path: path.to_string(),
            },
            Report::Conflict { path, copy } => {
                self.conflicts.push(copy.clone());
                DaemonEvent::Conflict {
                    share,
                    path: path.to_string(),
                    copy: copy.to_string(),
                }
            }
            Report::Problem { path, reason } => {
                self.problem(path.to_string(), reason);
                return;
            }
            Report::Solved { path } => {
                let path = path.to_string();
                self.problems.retain(|(p, _)| *p != path);
                DaemonEvent::Solved { share, path }
            }
            Report::Alarm { reason } => {
                tracing::error!("{reason}");
                let (reason, todo) = snapshot::split_todo(&reason);
                DaemonEvent::Alarm {
                    share,
                    reason,
                    todo,
                }
            }
            Report::AlarmOver => DaemonEvent::AlarmOver { share },
            Report::Full(true) => {
                if let Some(thinner) = &self.thinner {
                    thinner.hurry();
                }
                self.notice("no room on the disk: transfers pause until there is".into());
                return;
            }
            Report::Full(false) => {
                self.notices
                    .retain(|n| !n.starts_with("no room on the disk"));
                return;
            }
        };
        let _ = self.setup.events.send(event);
    }

    /// Puts the share's state where `status` finds it.
    pub(super) fn publish(&mut self) -> Result<(), IndexError> {
        let working = self.progress.is_working();
        if !(self.dirty || working) || !self.setup.board.is_due() {
            return Ok(());
        }
        self.dirty = false;
        let now = Instant::now();
        for (_, link) in self.links.iter_mut() {
            link.look_at_rates(now);
        }
        let index = &self.index;
        self.conflicts.sort();
        self.conflicts.dedup();
        self.conflicts.retain(|path| {
            index
                .get(path)
                .is_ok_and(|r| r.is_some_and(|r| r.entry.node.is_live()))
        });
        let state = self.engine.state(&self.index)?;
        let edits = self.engine.own_edits(&self.index, snapshot::MAX_LIST)?;
        self.dirty |= edits.partial;
        let withheld = self.engine.withheld(&self.index, snapshot::MAX_LIST)?;
        let record = self.setup.members.record();
        let fellows = self.setup.members.fellows();
        let transfers = self.transfers();
        let status = snapshot::status(&Parts {
            record: &record,
            fellows: &fellows,
            path: &self.setup.path,
            state: &state,
            edits: &edits,
            withheld: &withheld,
            links: &self.links,
            conflicts: &self.conflicts,
            problems: &self.problems,
            notices: &self.notices,
            transfers,
            applied: &self.applied,
        });
        let events = &self.setup.events;
        self.progress.tell(&status, events);
        self.setup.board.publish(status);
        Ok(())
    }

    /// What the share's past is worked with, for another thread.
    pub(super) fn lend(&self) -> Lent {
        Lent {
            root: self.root.clone(),
            stage: self.stage.clone(),
            history: self.history.clone(),
            scribe: self.scribe.clone(),
        }
    }

    /// Takes own edits back; how many, or why not.
    pub(super) fn revert(
        &mut self,
        at: Option<RelPath>,
    ) -> Result<Result<u64, String>, IndexError> {
        if self.role == Role::ReadWrite {
            let why = "this device may write: its edits are the share's; older versions are in \
                       .left/history";
            return Ok(Err(why.into()));
        }
        if !self.engine.can_revert() {
            let why = "no read-write member is connected, or it has not told all yet; try again \
                       when one is";
            return Ok(Err(why.into()));
        }
        let edits = loop {
            let edits = self.engine.own_edits(&self.index, usize::MAX)?;
            if !edits.partial {
                break edits;
            }
        };
        let inside = |p: &&RelPath| at.as_ref().is_none_or(|at| *p == at || p.is_below(at));
        let count = edits.paths.iter().filter(inside).count() as u64;
        self.handle(Event::Revert(at))?;
        Ok(Ok(count))
    }

    /// Takes what this device withholds, or has its state win over it; how many paths, or why not.
    pub(super) fn decide(
        &mut self,
        at: Option<RelPath>,
        take: bool,
    ) -> Result<Result<(u64, bool), String>, IndexError> {
        if !self.send_only {
            let why = "this device takes what others change anyway; to have it only send: `left \
                       mode DIR send-only`";
            return Ok(Err(why.into()));
        }
        let count = self.engine.withheld_count(&self.index, at.as_ref())?;
        self.handle(match take {
            true => Event::Take(at),
            false => Event::Override(at),
        })?;
        let connected = self.links.peers().into_iter().next().is_some();
        Ok(Ok((count, connected)))
    }

    pub(super) fn transfers(&self) -> Vec<Transfer> {
        let big = self.fetcher.progress().big;
        let running = big.iter().filter_map(|item| {
            Some(Transfer {
                path: self.engine.path_of(item.id)?.to_string(),
                done: item.done,
                total: item.total,
            })
        });
        running.collect()
    }
}
