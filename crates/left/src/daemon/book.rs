//! What is known of the members of one share: its record, the list in it, and who follows from
//! both.

use std::collections::HashMap;
use std::sync::Arc;

use left_core::membership::{Founding, Roll, Standing};
use left_core::message::Role;
use left_core::version::DeviceId;

use crate::home::{MemberRecord, ShareRecord};
use crate::net::is_signed;

/// See the module's text. Changed as a whole.
#[derive(Clone)]
pub(super) struct Book {
    pub(super) record: Arc<ShareRecord>,
    /// `None` until somebody told how the share was founded.
    pub(super) roll: Option<Arc<Roll>>,
    /// Who is a member by the list.
    standing: Arc<Vec<Standing>>,
    /// Who may be let in, made of all that: asked for often, changed rarely.
    pub(super) fellows: Arc<Vec<Fellow>>,
}

/// Another member, as the list and the record tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fellow {
    pub(super) device: DeviceId,
    /// Empty when it never told.
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) addresses: Vec<String>,
    /// The user holds it still.
    pub(super) paused: bool,
    /// Who let it in.
    pub(super) by: Option<DeviceId>,
}

impl Book {
    pub(super) fn new(record: ShareRecord, roll: Option<Arc<Roll>>, me: DeviceId) -> Self {
        let standing = roll.as_ref().map(|r| r.members()).unwrap_or_default();
        let mut book = Self {
            record: Arc::new(record),
            roll,
            standing: Arc::new(standing),
            fellows: Arc::default(),
        };
        book.fellows = Arc::new(book.make_fellows(me));
        book
    }

    /// Another record with the same list.
    pub(super) fn replace(&mut self, record: ShareRecord, me: DeviceId) {
        self.record = Arc::new(record);
        self.fellows = Arc::new(self.make_fellows(me));
    }

    /// By the list alone.
    pub(super) fn standing_of(&self, device: DeviceId) -> Option<Role> {
        let at = self.standing.binary_search_by_key(&device, |s| s.device);
        at.ok().map(|at| self.standing[at].role)
    }

    pub(super) fn role_of(&self, device: DeviceId, me: DeviceId) -> Option<Role> {
        let sponsor = self.record.sponsor == Some(device) && self.standing_of(me).is_none();
        let sponsor = sponsor.then_some(Role::ReadWrite);
        self.standing_of(device).or(sponsor)
    }

    fn make_fellows(&self, me: DeviceId) -> Vec<Fellow> {
        let met = self.record.members.iter().map(|m| (m.device, m));
        let met: HashMap<DeviceId, &MemberRecord> = met.collect();
        let mut devices: Vec<(DeviceId, Option<DeviceId>)> =
            self.standing.iter().map(|s| (s.device, s.by)).collect();
        let sponsor = self.record.sponsor;
        devices.extend(
            sponsor
                .filter(|s| self.standing_of(*s).is_none())
                .map(|s| (s, None)),
        );
        devices.sort();
        let fellow = |(device, by)| {
            let met = met.get(&device);
            Some(Fellow {
                device,
                name: met.map(|m| m.name.clone()).unwrap_or_default(),
                role: self.role_of(device, me)?,
                addresses: met.map(|m| m.addresses.clone()).unwrap_or_default(),
                paused: met.is_some_and(|m| m.paused),
                by,
            })
        };
        let others = devices.into_iter().filter(|(device, _)| *device != me);
        others.filter_map(fellow).collect()
    }
}

/// The list of a record; a statement that is damaged ends it, and peers tell the rest again.
pub(super) fn read_roll(record: &ShareRecord) -> Option<Roll> {
    let founding: Founding = record.founding.filter(|f| f.share() == record.id)?;
    let mut roll = Roll::new(founding);
    for signed in &record.statements {
        if let Err(why) = roll.add(signed.clone(), is_signed) {
            tracing::error!("the stored membership list is damaged: {why}");
            break;
        }
    }
    Some(roll)
}

/// All devices that a record at rest tells of but `me`, which may not be known.
pub(super) fn at_rest(record: &ShareRecord) -> Vec<Fellow> {
    let roll = read_roll(record).map(Arc::new);
    let book = Book::new(record.clone(), roll, DeviceId([0; 32]));
    let met = |f: &&Fellow| record.members.iter().any(|m| m.device == f.device);
    book.fellows.iter().filter(met).cloned().collect()
}
