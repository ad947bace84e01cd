//! The owner and who is a member.

use std::path::Path;

use left_core::engine::{Effect, Event};
use left_core::index::{Index, IndexError};
use left_core::message::{Control, Member, RollPart};
use left_core::version::DeviceId;

use super::super::members::HearError;
use super::choose::{is_beyond, mark};
use super::{Owner, Setup};
use crate::store::{IndexDb, Opened, StoreError};

impl Owner {
    /// Tells all connected peers (or but the one it came from) who is a member.
    pub(super) fn tell_members(&mut self, but: Option<DeviceId>) {
        let me = self.setup.door.introduction();
        let all = self.setup.members.to_tell(&me.name, &me.addresses);
        for peer in self.links.peers() {
            self.links.tell_roll(peer, &self.setup.members);
            if Some(peer) != but {
                self.links.send(peer, Control::Members(all.clone()));
            }
        }
    }

    /// The membership list changed: lanes to who is out or has another role are closed (the latter
    /// comes back), and all are told.
    pub(super) fn members_changed(&mut self) -> Result<(), IndexError> {
        self.tell_members(None);
        for peer in self.links.peers() {
            let role = self.setup.members.role_of(peer);
            let why = match (self.links.link(peer), role) {
                (_, Some(_)) if self.setup.members.is_paused(peer) => "it is paused there",
                (Some(link), Some(role)) if link.role == role => continue,
                (_, Some(_)) => "its role in the share changed",
                (_, None) => "it was removed from the share",
            };
            tracing::warn!(peer = %peer.short(), "disconnected: {why}");
            self.links.remove(peer, why);
            self.lost(peer, why);
            self.handle(Event::PeerDown { peer })?;
        }
        self.check_role();
        self.dial();
        Ok(())
    }

    /// What this device itself may do: it stops here when that changed, and is started anew.
    pub(super) fn check_role(&mut self) {
        if let Some(by) = self.setup.members.removed_by() {
            self.notice(format!(
                "this device was removed from the share by {}; the folder stays as it is: `left \
                 leave DIR`, or join again with a new ticket",
                by.short()
            ));
        }
        let members = &self.setup.members;
        if (members.works_as(), members.sends_only()) != (self.role, self.send_only) {
            self.again = true;
            self.stop = true;
        }
    }

    /// A part of the membership list came. Statements prove themselves, whoever brings them.
    pub(super) fn heard_roll(&mut self, from: DeviceId, part: RollPart) -> Result<(), IndexError> {
        match self.setup.members.hear_roll(part) {
            Ok(true) => self.members_changed(),
            Ok(false) => Ok(()),
            Err(HearError::Wrong(why)) => {
                let reason = format!("it sent a wrong membership list: {why}");
                self.run_effect(Effect::Disconnect { peer: from, reason });
                self.handle(Event::Tick)
            }
            Err(HearError::Failed(error)) => {
                tracing::error!("{error}");
                Ok(())
            }
        }
    }

    pub(super) fn heard(&mut self, from: DeviceId, told: &[Member]) {
        match self.setup.members.hear(from, told) {
            Ok(true) => {
                self.tell_members(Some(from));
                self.dial();
            }
            Ok(false) => {}
            Err(error) => tracing::error!("{error}"),
        }
    }
}

/// Opens the index; it is made anew when the role changed. One that a read-write member made names
/// edits of ours that all others have, which a read-only member would take for its own; and one of a
/// read-only member may hold what must not be announced.
pub(super) fn open_index(setup: &Setup, path: &Path) -> Result<(IndexDb, Opened), StoreError> {
    let role = setup.members.works_as();
    let before = setup.members.record().worked_as;
    if before.is_some_and(|before| before != role) {
        let (index, _) = IndexDb::open(path, setup.device)?;
        index.condemn("what this device may do in the share changed");
    }
    let mut opened = IndexDb::open(path, setup.device)?;
    let dropped = setup.members.record().dropped.clone();
    if let Some(mark) = &dropped
        && opened.1.rebuilt.is_none()
        && opened.0.head() > 0
        && !is_beyond(&opened.0, mark)
    {
        let (index, _) = opened;
        index.condemn("it is a copy from before something was dropped here");
        drop(index);
        opened = IndexDb::open(path, setup.device)?;
    }
    let mark = dropped.map(|_| mark(&opened.0));
    let update = |r: &mut crate::home::ShareRecord| {
        r.worked_as = Some(role);
        r.dropped = mark;
    };
    if let Err(error) = setup.members.update(update) {
        tracing::error!("{error}");
    }
    Ok(opened)
}
