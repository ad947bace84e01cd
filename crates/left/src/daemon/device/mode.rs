//! What the user chose for this device alone: which way a share goes, which peers are held still.

use std::path::Path;

use crossbeam_channel::bounded;
use left_core::message::Role;
use left_core::path::RelPath;

use super::super::ask::Msg;
use super::super::handle::{Decided, ModeInfo, PeerPaused, UserError};
use super::super::owner;
use super::super::snapshot::split_todo;
use super::{Device, fellow, lock, rel_path};
use crate::home::{Mode, clean};

impl Device {
    /// See [`Daemon::mode`](super::super::handle::Daemon::mode).
    pub(super) fn set_mode(&self, dir: &Path, mode: Option<Mode>) -> Result<ModeInfo, UserError> {
        let members = self.record_of(dir)?;
        let record = members.record();
        let Some(mode) = mode else {
            return Ok(ModeInfo { mode: record.mode });
        };
        if mode == Mode::SendOnly && record.role == Role::ReadOnly {
            return Err(UserError::new(
                format!("{} cannot be send-only", clean(dir)),
                "the share lets this device only read, so nobody would get anything from it",
                "ask a member that may write for a ticket that lets it write",
            ));
        }
        members.update(|r| r.mode = mode)?;
        if let Some(running) = lock(&self.shares).get(&members.id()) {
            owner::nudge(&running.tx, Msg::MembersChanged);
        }
        Ok(ModeInfo { mode })
    }

    /// See [`Daemon::pause_peer`](super::super::handle::Daemon::pause_peer).
    pub(super) fn pause_fellow(
        &self,
        dir: &Path,
        who: &str,
        on: bool,
    ) -> Result<PeerPaused, UserError> {
        let members = self.record_of(dir)?;
        let what = match on {
            true => format!("cannot pause `{who}`"),
            false => format!("cannot resume `{who}`"),
        };
        let me = self.door.device;
        let todo = match on {
            true => "use `left pause DIR` alone",
            false => "use `left resume DIR` alone",
        };
        let found = fellow::find(&members.fellows(), me, who, what, todo)?;
        members.pause(found.device, on)?;
        if let Some(running) = lock(&self.shares).get(&members.id()) {
            owner::nudge(&running.tx, Msg::MembersChanged);
        }
        Ok(PeerPaused {
            device: found.device,
            name: found.name,
            paused: on,
        })
    }

    /// What a device that only sends withholds is taken, or its own state wins over it.
    pub(super) fn decide(
        &self,
        dir: &Path,
        path: Option<&Path>,
        take: bool,
    ) -> Result<Decided, UserError> {
        let what = match take {
            true => "cannot take what others changed",
            false => "cannot win over what others changed",
        };
        let at: Option<RelPath> = rel_path(what, path)?;
        let (reply, done) = bounded(1);
        self.send(dir, Msg::Decide { at, take, reply })?;
        match done.recv() {
            Ok(Ok((paths, connected))) => Ok(Decided { paths, connected }),
            Ok(Err(why)) => {
                let (why, todo) = split_todo(&why);
                Err(UserError::new(what, why, todo))
            }
            Err(_) => Err(super::failed(what, "the share stops just now")),
        }
    }
}
