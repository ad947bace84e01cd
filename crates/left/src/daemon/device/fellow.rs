//! Other members: found by what people call them, and removed.

use std::path::Path;

use left_core::version::DeviceId;

use super::super::ask::Msg;
use super::super::book::Fellow;
use super::super::handle::{Removed, UserError};
use super::super::owner;
use super::{Device, lock};

impl Device {
    /// See [`Daemon::remove_peer`](super::super::handle::Daemon::remove_peer).
    pub(super) fn remove_fellow(&self, dir: &Path, who: &str) -> Result<Removed, UserError> {
        let members = self.record_of(dir)?;
        let what = format!("cannot remove `{who}`");
        let todo = "use `left leave DIR`";
        let fellow = find(&members.fellows(), self.door.device, who, what, todo)?;
        let still = members.remove(fellow.device)?;
        if let Some(running) = lock(&self.shares).get(&members.id()) {
            owner::nudge(&running.tx, Msg::MembersChanged);
        }
        let shown = |f: &Fellow| format!("{} ({})", f.name, f.device.short());
        Ok(Removed {
            device: fellow.device,
            name: fellow.name,
            let_in: still.iter().map(shown).collect(),
        })
    }
}

/// The one member that somebody means: by its whole name, its whole id or the start of it.
/// `what` can not be done otherwise; `todo` is for this device itself.
pub(super) fn find(
    all: &[Fellow],
    me: DeviceId,
    who: &str,
    what: String,
    todo: &str,
) -> Result<Fellow, UserError> {
    /// Fewer characters are too easily mistyped into another device.
    const MIN_PREFIX: usize = 5;
    let id = who.trim().to_ascii_uppercase();
    let is_id = |d: DeviceId| id.len() >= MIN_PREFIX && d.to_string().starts_with(&id);
    if is_id(me) {
        return Err(UserError::usage(what, "it is this device itself", todo));
    }
    let mut found = all.iter().filter(|f| f.name == who || is_id(f.device));
    match (found.next(), found.next()) {
        (Some(fellow), None) => Ok(fellow.clone()),
        (None, _) => {
            let why = "no member of the share has this name or id";
            Err(UserError::new(what, why, "see `left status`"))
        }
        (Some(_), Some(_)) => {
            let why = "several members have this name or begin of an id";
            Err(UserError::new(what, why, "give more of the id"))
        }
    }
}
