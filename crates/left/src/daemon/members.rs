//! Who belongs to a share: its record, kept in memory and on disk alike, and the signed membership
//! list in it. What a statement means is decided in core; here it is signed and checked.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use left_core::membership::{Act, Roll, Signed, StatementError};
use left_core::message::{MAX_MEMBERS, Member, Nonce, Role, RollPart, ShareId};
use left_core::ticket::Ticket;
use left_core::version::DeviceId;

use super::book::{Book, Fellow, read_roll};
use crate::home::{Home, MemberRecord, Mode, ShareRecord, TicketRecord, UserError};
use crate::net::{DeviceKey, is_signed};

/// Longest that a device waits for the list after it joined.
const LIST_WAIT: Duration = Duration::from_secs(3);
/// Most addresses kept of one device.
const MAX_ADDRESSES: usize = 16;
/// Most tickets kept; beyond it the oldest void ones are forgotten.
const MAX_TICKETS: usize = 256;

/// The record of one share. Shared between its owner thread and the gate.
#[derive(Clone)]
pub(super) struct Members {
    home: Home,
    key: Arc<DeviceKey>,
    inner: Arc<Mutex<Book>>,
    /// Rung when the book changed.
    changed: Arc<Condvar>,
}

/// How a ticket that was proven stands.
pub(super) enum TicketUse {
    /// The bearer is a member now.
    Admitted(Role),
    /// Used by another device, expired, or no ticket for this device.
    Spent(&'static str),
    /// It could not be written down; try again.
    Failed(UserError),
}

/// Why a peer's part of the list was not taken in.
#[derive(Debug)]
pub(super) enum HearError {
    /// The peer sent what no honest peer sends.
    Wrong(String),
    /// It could not be written down.
    Failed(UserError),
}

impl Members {
    pub(super) fn new(home: Home, key: Arc<DeviceKey>, record: ShareRecord) -> Self {
        let roll = read_roll(&record).map(Arc::new);
        let inner = Book::new(record, roll, key.id());
        Self {
            home,
            key,
            inner: Arc::new(Mutex::new(inner)),
            changed: Arc::default(),
        }
    }

    /// The record as it is now. A panic elsewhere left it whole: it is only replaced as a whole.
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn record(&self) -> Arc<ShareRecord> {
        self.lock().record.clone()
    }

    pub(super) fn id(&self) -> ShareId {
        self.lock().record.id
    }

    /// As what this device works on the folder: as its role says, or less, by its user's choice.
    pub(super) fn works_as(&self) -> Role {
        let record = self.record();
        match record.mode {
            Mode::ReceiveOnly => Role::ReadOnly,
            Mode::TwoWay | Mode::SendOnly => record.role,
        }
    }

    /// Whether a device that may write does not do what others change.
    pub(super) fn sends_only(&self) -> bool {
        let record = self.record();
        record.mode == Mode::SendOnly && record.role == Role::ReadWrite
    }

    /// Whether the user holds this member still, or the whole share.
    pub(super) fn is_paused(&self, device: DeviceId) -> bool {
        let record = self.record();
        let mut members = record.members.iter();
        record.paused || members.any(|m| m.device == device && m.paused)
    }

    /// Holds a member still, or lets it go on.
    pub(super) fn pause(&self, device: DeviceId, on: bool) -> Result<(), UserError> {
        self.update(|record| {
            meet(record, device, "", &[]);
            let members = record.members.iter_mut();
            members
                .filter(|m| m.device == device)
                .for_each(|m| m.paused = on);
        })
    }

    /// What another device may do, if it is to be let in: it is a member by the list, or let this
    /// device in and the list does not show this device yet.
    pub(super) fn role_of(&self, device: DeviceId) -> Option<Role> {
        self.lock().role_of(device, self.key.id())
    }

    /// All others that may be let in, sorted by device.
    pub(super) fn fellows(&self) -> Arc<Vec<Fellow>> {
        self.lock().fellows.clone()
    }

    /// Who removed this device from the share, if somebody did and it was not let in again.
    pub(super) fn removed_by(&self) -> Option<DeviceId> {
        let inner = self.lock();
        let roll = inner.roll.as_ref()?;
        let removed = roll.is_removed(self.key.id()) && inner.record.invitation.is_none();
        removed.then(|| roll.remover_of(self.key.id())).flatten()
    }

    /// Whether a device was removed and not let in again.
    pub(super) fn is_removed(&self, device: DeviceId) -> bool {
        let roll = self.lock().roll.clone();
        roll.is_some_and(|r| r.is_removed(device))
    }

    /// Whether this device is a read-write member by the list.
    pub(super) fn may_admit(&self) -> bool {
        self.lock().standing_of(self.key.id()) == Some(Role::ReadWrite)
    }

    /// The same, for who can wait: a device that just joined is told the list a moment later.
    pub(super) fn may_admit_soon(&self) -> bool {
        let me = self.key.id();
        let untold =
            |book: &mut Book| book.standing_of(me).is_none() && book.record.sponsor.is_some();
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), LIST_WAIT, untold);
        let (book, _) = waited.unwrap_or_else(PoisonError::into_inner);
        book.standing_of(me) == Some(Role::ReadWrite)
    }

    /// Changes the record durably, or not at all.
    pub(super) fn update<T>(
        &self,
        change: impl FnOnce(&mut ShareRecord) -> T,
    ) -> Result<T, UserError> {
        let mut guard = self.lock();
        let mut new = (*guard.record).clone();
        let out = change(&mut new);
        if new != *guard.record {
            self.home.save_share(&new)?;
            guard.replace(new, self.key.id());
            self.changed.notify_all();
        }
        Ok(out)
    }

    /// Changes record and list together, durably or not at all.
    fn amend(
        &self,
        guard: &mut Book,
        mut record: ShareRecord,
        roll: Roll,
    ) -> Result<(), UserError> {
        record.founding = Some(roll.founding());
        record.statements = roll.statements().cloned().collect();
        if let Some(role) = roll.role_of(self.key.id()) {
            record.role = role;
            record.invitation = None;
            record.sponsor = None;
        }
        // Whoever is out is forgotten.
        let sponsor = record.sponsor;
        let known = |d| Some(d) == sponsor || roll.role_of(d).is_some();
        record.members.retain(|m| known(m.device));
        self.home.save_share(&record)?;
        *guard = Book::new(record, Some(Arc::new(roll)), self.key.id());
        self.changed.notify_all();
        Ok(())
    }

    /// A ticket of ours, if there is one by that name.
    pub(super) fn ticket(&self, id: Nonce) -> Option<TicketRecord> {
        let record = self.record();
        record.tickets.iter().find(|t| t.id == id).cloned()
    }

    /// Remembers a ticket that this device makes, and what it knew when it made it.
    pub(super) fn add_ticket(&self, mut ticket: TicketRecord) -> Result<(), UserError> {
        let now = unix_now();
        let heads = |r: &Arc<Roll>| r.heads();
        ticket.knew = self.lock().roll.as_ref().map(heads).unwrap_or_default();
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
        let mut guard = self.lock();
        let mut record = (*guard.record).clone();
        let Some(roll) = guard.roll.clone() else {
            return TicketUse::Spent("the inviter does not know the members any more");
        };
        let Some(ticket) = record.tickets.iter_mut().find(|t| t.id == id) else {
            return TicketUse::Spent("it is not known here any more");
        };
        match ticket.used_by {
            Some(by) if by == device => {}
            Some(_) => return TicketUse::Spent("it was used already; ask for another one"),
            None if ticket.expires <= unix_now() => {
                return TicketUse::Spent("it has expired; ask for another one");
            }
            None => {}
        }
        if !roll.knew_removals(&ticket.knew, device) {
            return TicketUse::Spent("the device was removed after the ticket was made");
        }
        ticket.used_by = Some(device);
        let role = ticket.role;
        meet(&mut record, device, name, addresses);
        let mut roll = (*roll).clone();
        match self.say(&mut roll, device, Act::Admit(role)) {
            Ok(()) => {}
            Err(StatementError::Full) => return TicketUse::Spent("the membership list is full"),
            Err(_) => return TicketUse::Spent("the inviter may not let anybody in any more"),
        }
        match self.amend(&mut guard, record, roll) {
            Ok(()) => TicketUse::Admitted(role),
            Err(error) => TicketUse::Failed(error),
        }
    }

    /// Signs a statement and adds it.
    fn say(&self, roll: &mut Roll, subject: DeviceId, act: Act) -> Result<(), StatementError> {
        let statement = roll.draft(self.key.id(), subject, act, unix_now())?;
        let signature = self.key.sign(&statement.signed_bytes());
        let signed = Signed {
            statement,
            signature,
        };
        roll.add(signed, is_signed).map(drop)
    }

    /// This device has a ticket, which it still has to show.
    pub(super) fn invite(&self, ticket: &Ticket, text: &str) -> Result<(), UserError> {
        self.update(|record| {
            record.role = ticket.role;
            record.invitation = Some(text.to_owned());
            record.sponsor = Some(ticket.inviter);
            meet(record, ticket.inviter, "", &ticket.addresses);
        })
    }

    /// A pairing was completed with `device`: it is let in if this device may do that; else it is
    /// expected to let this device in.
    pub(super) fn pair_with(
        &self,
        device: DeviceId,
        name: &str,
        addresses: &[String],
    ) -> Result<(), UserError> {
        let mut guard = self.lock();
        let mut record = (*guard.record).clone();
        meet(&mut record, device, name, addresses);
        let may = guard.standing_of(self.key.id()) == Some(Role::ReadWrite);
        let roll = guard.roll.clone().filter(|_| may);
        if let Some(roll) = roll.filter(|r| r.role_of(device).is_none()) {
            let mut roll = (*roll).clone();
            self.say(&mut roll, device, Act::Admit(Role::ReadWrite))
                .map_err(|e| {
                    UserError::new(
                        "cannot let the other device in",
                        e,
                        "have another member that may write let it in",
                    )
                })?;
            return self.amend(&mut guard, record, roll);
        }
        if guard.standing_of(self.key.id()).is_none() {
            record.sponsor = Some(device);
        }
        if record != *guard.record {
            self.home.save_share(&record)?;
            guard.replace(record, self.key.id());
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Removes a member. Returns those that it had let in and that are still members.
    pub(super) fn remove(&self, device: DeviceId) -> Result<Vec<Fellow>, UserError> {
        let what = "cannot remove the device";
        let mut guard = self.lock();
        let roll = guard.roll.clone().ok_or_else(|| {
            UserError::new(
                what,
                "the membership list is not known yet",
                "wait until a peer is connected",
            )
        })?;
        let mut roll = (*roll).clone();
        self.say(&mut roll, device, Act::Remove)
            .map_err(|e| match e {
                StatementError::Unlawful => UserError::new(
                    what,
                    "this device is no read-write member of the share",
                    "do it on one that is",
                ),
                e => UserError::new(
                    what,
                    e,
                    "try again, or do it on another member that may write",
                ),
            })?;
        let record = (*guard.record).clone();
        self.amend(&mut guard, record, roll)?;
        let let_in = guard.fellows.iter().filter(|f| f.by == Some(device));
        Ok(let_in.cloned().collect())
    }

    /// A member told its name and addresses.
    pub(super) fn meet(
        &self,
        device: DeviceId,
        name: &str,
        addresses: &[String],
    ) -> Result<(), UserError> {
        self.update(|record| meet(record, device, name, addresses))
    }

    /// What a member says of names and addresses. Returns whether anything was new.
    pub(super) fn hear(&self, from: DeviceId, told: &[Member]) -> Result<bool, UserError> {
        let inner = self.lock().clone();
        let writes = inner.role_of(from, self.key.id()) == Some(Role::ReadWrite);
        self.update(|record| {
            let before = record.members.clone();
            for m in told.iter().filter(|m| m.device != self.key.id()) {
                let met = record.members.iter().any(|k| k.device == m.device);
                // A device speaks for itself; others only introduce it, if it is a member.
                let introduced = writes && !met && inner.standing_of(m.device).is_some();
                if m.device == from || introduced {
                    meet(record, m.device, &m.name, &m.addresses);
                }
            }
            record.members != before
        })
    }

    /// A part of the membership list from a peer. Returns whether anything was new.
    pub(super) fn hear_roll(&self, part: RollPart) -> Result<bool, HearError> {
        let mut guard = self.lock();
        let known = guard.roll.clone();
        let mut roll = match &known {
            Some(roll) if roll.founding() == part.founding => {
                let new = |s: &Signed| !roll.knows(&s.statement.id());
                if !part.statements.iter().any(new) {
                    return Ok(false);
                }
                (**roll).clone()
            }
            None if part.founding.share() == guard.record.id => Roll::new(part.founding),
            _ => return Err(HearError::Wrong("it is the list of another share".into())),
        };
        let mut news = known.is_none();
        for signed in part.statements {
            match roll.add(signed, is_signed) {
                Ok(new) => news |= new,
                Err(StatementError::Full) => {
                    tracing::error!("the membership list is full: nobody new is taken in");
                    break;
                }
                Err(why) => return Err(HearError::Wrong(why.to_string())),
            }
        }
        if news {
            let record = (*guard.record).clone();
            let amended = self.amend(&mut guard, record, roll);
            amended.map_err(HearError::Failed)?;
        }
        Ok(news)
    }

    /// The list past its first `known` statements, in parts for the wire, and how long it is now.
    /// At least one part, so that the peer learns of the founding; none while the list is not known.
    pub(super) fn roll_parts(&self, known: usize) -> (Vec<RollPart>, usize) {
        let Some(roll) = self.lock().roll.clone() else {
            return (Vec::new(), 0);
        };
        let all = roll.statements();
        let len = all.len();
        (
            RollPart::split(roll.founding(), all.skip(known).cloned()),
            len,
        )
    }

    /// Names and addresses for telling a peer, this device's included.
    pub(super) fn to_tell(&self, name: &str, addresses: &[String]) -> Vec<Member> {
        let fellows = self.fellows();
        let others = fellows.iter().map(|f| Member {
            device: f.device,
            name: f.name.clone(),
            addresses: f.addresses.clone(),
        });
        let me = Member {
            device: self.key.id(),
            name: name.to_owned(),
            addresses: addresses.to_vec(),
        };
        others.chain([me]).collect()
    }
}

fn meet(record: &mut ShareRecord, device: DeviceId, name: &str, addresses: &[String]) {
    let at = match record.members.iter().position(|m| m.device == device) {
        Some(at) => at,
        None if record.members.len() >= MAX_MEMBERS => return,
        None => {
            record.members.push(MemberRecord {
                device,
                name: String::new(),
                addresses: Vec::new(),
                paused: false,
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
