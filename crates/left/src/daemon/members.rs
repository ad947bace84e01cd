//! Who belongs to a share: the record of one share, kept in memory and on disk alike.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use left_core::message::{Member, Nonce, Role, ShareId};
use left_core::version::DeviceId;

use crate::home::{Home, MemberRecord, ShareRecord, TicketRecord, UserError};

/// Most members that gossip may bring in.
const MAX_MEMBERS: usize = 1024;
/// Most addresses kept of one device.
const MAX_ADDRESSES: usize = 16;
/// Most tickets kept; beyond it the oldest void ones are forgotten.
const MAX_TICKETS: usize = 256;

/// The record of one share. Shared between its owner thread and the gate.
#[derive(Clone)]
pub(super) struct Members {
    home: Home,
    record: Arc<Mutex<ShareRecord>>,
}

/// How a ticket that was proven stands.
pub(super) enum TicketUse {
    /// The bearer is a member now.
    Admitted(Role),
    /// Used by another device, or expired.
    Spent(&'static str),
    /// It could not be written down; try again.
    Failed(UserError),
}

impl Members {
    pub(super) fn new(home: Home, record: ShareRecord) -> Self {
        Self {
            home,
            record: Arc::new(Mutex::new(record)),
        }
    }

    /// The record as it is now. A panic elsewhere left it whole: it is only replaced as a whole.
    fn lock(&self) -> MutexGuard<'_, ShareRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn record(&self) -> ShareRecord {
        self.lock().clone()
    }

    pub(super) fn id(&self) -> ShareId {
        self.lock().id
    }

    /// What this device may do.
    pub(super) fn role(&self) -> Role {
        self.lock().role
    }

    /// What another device may do, if it is a member.
    pub(super) fn role_of(&self, device: DeviceId) -> Option<Role> {
        self.lock()
            .members
            .iter()
            .find(|m| m.device == device)
            .map(|m| m.role)
    }

    /// Changes the record durably, or not at all.
    pub(super) fn update<T>(
        &self,
        change: impl FnOnce(&mut ShareRecord) -> T,
    ) -> Result<T, UserError> {
        let mut guard = self.lock();
        let mut new = guard.clone();
        let out = change(&mut new);
        if new != *guard {
            self.home.save_share(&new)?;
            *guard = new;
        }
        Ok(out)
    }

    /// A ticket of ours, if there is one by that name.
    pub(super) fn ticket(&self, id: Nonce) -> Option<TicketRecord> {
        self.lock().tickets.iter().find(|t| t.id == id).cloned()
    }

    pub(super) fn add_ticket(&self, ticket: TicketRecord) -> Result<(), UserError> {
        let now = unix_now();
        self.update(|record| {
            if record.tickets.len() >= MAX_TICKETS {
                record
                    .tickets
                    .retain(|t| t.used_by.is_none() && t.expires > now);
            }
            record.tickets.push(ticket);
        })
    }

    /// A device proved that it knows the ticket's secret.
    pub(super) fn use_ticket(
        &self,
        id: Nonce,
        device: DeviceId,
        name: &str,
        addresses: &[String],
    ) -> TicketUse {
        let now = unix_now();
        let used = self.update(|record| {
            let Some(ticket) = record.tickets.iter_mut().find(|t| t.id == id) else {
                return Err("it is not known here any more");
            };
            match ticket.used_by {
                Some(by) if by == device => {}
                Some(_) => return Err("it was used already; ask for another one"),
                None if ticket.expires <= now => return Err("it has expired; ask for another one"),
                None => ticket.used_by = Some(device),
            }
            let role = ticket.role;
            meet(record, device, role, name, addresses);
            Ok(role)
        });
        match used {
            Ok(Ok(role)) => TicketUse::Admitted(role),
            Ok(Err(why)) => TicketUse::Spent(why),
            Err(error) => TicketUse::Failed(error),
        }
    }

    /// A member told its name and addresses, or is new with this role.
    pub(super) fn meet(
        &self,
        device: DeviceId,
        role: Role,
        name: &str,
        addresses: &[String],
    ) -> Result<(), UserError> {
        self.update(|record| meet(record, device, role, name, addresses))
    }

    /// What a read-write member says of the others. Returns whether anything was new.
    pub(super) fn hear(
        &self,
        me: DeviceId,
        from: DeviceId,
        told: &[Member],
    ) -> Result<bool, UserError> {
        self.update(|record| {
            let before = record.members.clone();
            for m in told.iter().filter(|m| m.device != me) {
                let known = record.members.iter().any(|k| k.device == m.device);
                // A device speaks for itself; others only introduce it.
                if m.device == from || !known {
                    meet(record, m.device, m.role, &m.name, &m.addresses);
                }
            }
            record.members != before
        })
    }

    /// All members for telling a peer, this device included.
    pub(super) fn to_tell(&self, me: DeviceId, name: &str, addresses: &[String]) -> Vec<Member> {
        let record = self.lock();
        let mut all: Vec<Member> = record
            .members
            .iter()
            .map(|m| Member {
                device: m.device,
                name: m.name.clone(),
                role: m.role,
                addresses: m.addresses.clone(),
            })
            .collect();
        all.push(Member {
            device: me,
            name: name.to_owned(),
            role: record.role,
            addresses: addresses.to_vec(),
        });
        all
    }
}

fn meet(record: &mut ShareRecord, device: DeviceId, role: Role, name: &str, addresses: &[String]) {
    let at = match record.members.iter().position(|m| m.device == device) {
        Some(at) => at,
        None if record.members.len() >= MAX_MEMBERS => return,
        None => {
            record.members.push(MemberRecord {
                device,
                name: String::new(),
                role,
                addresses: Vec::new(),
            });
            record.members.len() - 1
        }
    };
    let member = &mut record.members[at];
    if !name.is_empty() {
        name.clone_into(&mut member.name);
    }
    if !addresses.is_empty() {
        member.addresses = addresses.iter().take(MAX_ADDRESSES).cloned().collect();
    }
}

/// Unix seconds, 0 for a clock before 1970.
pub(super) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}
