//! Who belongs to a share: a list of signed statements, and the rule that makes members of it.
//!
//! A statement admits or removes a device and names what its issuer knew, as a commit names its
//! parents. So the list is a set that only grows, its order does not matter, and the same set gives
//! the same members everywhere:
//!
//! 1. The founder, told by the share's id, is a read-write member.
//! 2. A statement is *lawful* when its issuer, by what the statement itself knew, was a read-write
//!    member. That never changes. What is not lawful is not taken in.
//! 3. A removal counts for ever. It ends every admission of its subject that did not know of it, so
//!    only somebody who knew of it lets the device in again.
//! 4. A removal also voids what its subject admitted (and, through them, what those admitted),
//!    except what the removal knew and what was said under an admission that knew of the removal.
//!    So a removed device can not let anybody in by a statement with an old date.
//!
//! Two members who remove each other without knowing are both out: where the rule must err, it
//! keeps people out.
//!
//! Sources: hash-linked operations that name what they knew and the revocation of what was
//! concurrent to a removal are as in M. Kleppmann, "Making CRDTs Byzantine fault tolerant" (PaPoC
//! 2022) and M. Kleppmann, A. Bernstein, "Access control in local-first software" (2021).

mod statement;

use std::collections::HashMap;

use crate::version::DeviceId;

pub use statement::{
    Act, Founding, MAX_AFTER, MAX_BODY, Role, ShareId, Signature, Signed, Statement, StatementId,
};

/// Most statements of one share.
pub const MAX_STATEMENTS: usize = 4096;
/// From here on nobody is admitted any more, so that there is room to remove.
const MAX_ADMITTING: usize = MAX_STATEMENTS / 4 * 3;

/// Why a statement is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// It is of another share.
    #[error("it is of another share")]
    Foreign,
    /// It knew of a statement that is not known here.
    #[error("what it refers to is not known")]
    Unknown,
    /// Its signature is not the issuer's.
    #[error("its signature is wrong")]
    Signature,
    /// Its issuer had no right to say it.
    #[error("its issuer was not a read-write member")]
    Unlawful,
    /// The list has as many statements as it may have.
    #[error("the membership list is full")]
    Full,
}

/// A member, as people see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Who.
    pub device: DeviceId,
    /// What it may do.
    pub role: Role,
    /// Who admitted it; `None` for the founder as such.
    pub by: Option<DeviceId>,
}

/// A set of statements by their positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Set(Vec<u64>);

impl Set {
    fn has(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|w| w >> (at % 64) & 1 == 1)
    }

    fn insert(&mut self, at: usize) {
        if self.0.len() <= at / 64 {
            self.0.resize(at / 64 + 1, 0);
        }
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn join(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine |= theirs;
        }
    }
}

#[derive(Clone, Debug)]
struct Known {
    id: StatementId,
    signed: Signed,
    /// Everything it knew.
    past: Set,
    /// Position of the admission it was said under.
    under: Option<usize>,
}

impl Known {
    fn says(&self) -> &Statement {
        &self.signed.statement
    }
}

/// The membership list of one share. Holds lawful statements only, each after all that it knew.
#[derive(Clone, Debug)]
pub struct Roll {
    founding: Founding,
    share: ShareId,
    known: Vec<Known>,
    at: HashMap<StatementId, usize>,
    /// Positions of the removals of each device.
    removals: HashMap<DeviceId, Vec<usize>>,
}

impl Roll {
    /// The list of a share that was just founded: the founder alone.
    pub fn new(founding: Founding) -> Self {
        Self {
            share: founding.share(),
            founding,
            known: Vec::new(),
            at: HashMap::new(),
            removals: HashMap::new(),
        }
    }

    /// Of which share.
    pub fn share(&self) -> ShareId {
        self.share
    }

    /// How it was founded.
    pub fn founding(&self) -> Founding {
        self.founding
    }

    /// All statements, each after all that it knew.
    pub fn statements(&self) -> impl ExactSizeIterator<Item = &Signed> {
        self.known.iter().map(|k| &k.signed)
    }

    /// Takes in a statement; whether it was new. `is_signed` is asked only of new ones: are these
    /// bytes signed by this device with this signature?
    pub fn add(
        &mut self,
        signed: Signed,
        is_signed: impl FnOnce(&DeviceId, &[u8], &Signature) -> bool,
    ) -> Result<bool, StatementError> {
        let says = &signed.statement;
        if says.share != self.share {
            return Err(StatementError::Foreign);
        }
        let id = says.id();
        if self.at.contains_key(&id) {
            return Ok(false);
        }
        if self.known.len() >= MAX_STATEMENTS {
            return Err(StatementError::Full);
        }
        let mut past = Set::default();
        for before in &says.after {
            let at = *self.at.get(before).ok_or(StatementError::Unknown)?;
            past.join(&self.known[at].past);
            past.insert(at);
        }
        let under = self.authority(says, &past)?;
        if !is_signed(&says.issuer, &says.signed_bytes(), &signed.signature) {
            return Err(StatementError::Signature);
        }
        let at = self.known.len();
        if says.act == Act::Remove {
            self.removals.entry(says.subject).or_default().push(at);
        }
        self.at.insert(id, at);
        self.known.push(Known {
            id,
            signed,
            past,
            under,
        });
        Ok(true)
    }

    /// The admission a statement was said under, if that was in force by what the statement knew.
    fn authority(&self, says: &Statement, past: &Set) -> Result<Option<usize>, StatementError> {
        let inside = |at: usize| past.has(at);
        let Some(under) = says.under else {
            let lawful = says.issuer == self.founding.founder && self.is_in(None, &inside);
            return lawful.then_some(None).ok_or(StatementError::Unlawful);
        };
        let at = *self.at.get(&under).ok_or(StatementError::Unknown)?;
        let admission = self.known[at].says();
        let lawful = past.has(at)
            && admission.subject == says.issuer
            && admission.act == Act::Admit(Role::ReadWrite)
            && self.is_in(Some(at), &inside);
        lawful.then_some(Some(at)).ok_or(StatementError::Unlawful)
    }

    /// Whether the admission at this position (`None`: the founding) is in force, by the statements
    /// for which `inside` holds.
    fn is_in(&self, admission: Option<usize>, inside: &impl Fn(usize) -> bool) -> bool {
        let subject = admission.map_or(self.founding.founder, |at| self.known[at].says().subject);
        let knew = |removal: usize| admission.is_some_and(|at| self.known[at].past.has(removal));
        let ended = self.removals_of(subject).any(|r| inside(r) && !knew(r));
        !ended && !self.is_void(admission, inside)
    }

    /// Whether an admission counts for nothing because its issuer (or who admitted that) was removed
    /// by somebody who did not know of it.
    fn is_void(&self, mut admission: Option<usize>, inside: &impl Fn(usize) -> bool) -> bool {
        while let Some(at) = admission {
            let it = &self.known[at];
            let knew = |removal: usize| it.under.is_some_and(|u| self.known[u].past.has(removal));
            let mut removals = self.removals_of(it.says().issuer);
            if removals.any(|r| inside(r) && !knew(r) && !self.known[r].past.has(at)) {
                return true;
            }
            admission = it.under;
        }
        false
    }

    fn removals_of(&self, device: DeviceId) -> impl Iterator<Item = usize> {
        self.removals.get(&device).into_iter().flatten().copied()
    }

    /// The admissions in force of a device; the founding is `None`.
    fn admissions(&self, device: DeviceId) -> impl Iterator<Item = Option<usize>> {
        let founder = (device == self.founding.founder).then_some(None);
        let admitted = self.known.iter().enumerate().filter(move |(_, k)| {
            k.says().subject == device && matches!(k.says().act, Act::Admit(_))
        });
        founder
            .into_iter()
            .chain(admitted.map(|(at, _)| Some(at)))
            .filter(|admission| self.is_in(*admission, &|_| true))
    }

    fn may_write(&self, admission: Option<usize>) -> bool {
        admission.is_none_or(|at| self.known[at].says().act == Act::Admit(Role::ReadWrite))
    }

    /// By its best admission; of several, the one with the smallest id, wherever it stands here.
    fn standing(&self, device: DeviceId) -> Option<Standing> {
        let best = self.admissions(device).min_by_key(|admission| {
            let id = admission.map(|at| self.known[at].id);
            (!self.may_write(*admission), id)
        })?;
        let role = match self.may_write(best) {
            true => Role::ReadWrite,
            false => Role::ReadOnly,
        };
        let by = best.map(|at| self.known[at].says().issuer);
        Some(Standing { device, role, by })
    }

    /// What a device may do; `None`: it is no member.
    pub fn role_of(&self, device: DeviceId) -> Option<Role> {
        self.standing(device).map(|s| s.role)
    }

    /// All members, sorted by device.
    pub fn members(&self) -> Vec<Standing> {
        let mut devices: Vec<DeviceId> = self.known.iter().map(|k| k.says().subject).collect();
        devices.push(self.founding.founder);
        devices.sort();
        devices.dedup();
        devices
            .into_iter()
            .filter_map(|d| self.standing(d))
            .collect()
    }

    /// Whether the list was told that the device is removed, and it is not in again.
    pub fn is_removed(&self, device: DeviceId) -> bool {
        self.removals.contains_key(&device) && self.role_of(device).is_none()
    }

    /// Who removed a device last, by the clocks of those who did.
    pub fn remover_of(&self, device: DeviceId) -> Option<DeviceId> {
        let removals = self.removals_of(device).map(|at| &self.known[at]);
        let last = removals.max_by_key(|k| (k.says().time, k.id))?;
        Some(last.says().issuer)
    }

    /// Whether a statement is in the list.
    pub fn knows(&self, id: &StatementId) -> bool {
        self.at.contains_key(id)
    }

    /// The statements that no other one knew of: whoever names them knew everything.
    pub fn heads(&self) -> Vec<StatementId> {
        let mut later = Set::default();
        for known in &self.known {
            later.join(&known.past);
        }
        let heads = self.known.iter().enumerate();
        heads
            .filter(|(at, _)| !later.has(*at))
            .map(|(_, k)| k.id)
            .collect()
    }

    /// Whether somebody who named these statements knew of every removal of the device. Names that
    /// are not known here count for nothing.
    pub fn knew_removals(&self, named: &[StatementId], device: DeviceId) -> bool {
        let mut past = Set::default();
        for at in named.iter().filter_map(|id| self.at.get(id)) {
            past.join(&self.known[*at].past);
            past.insert(*at);
        }
        self.removals_of(device).all(|r| past.has(r))
    }

    /// What to name in order to have known everything, or at least what is needed and the latest of
    /// the rest: a list that somebody flooded may have more heads than a statement may name.
    fn knowledge(&self, mut needed: Vec<usize>) -> Result<Vec<StatementId>, StatementError> {
        let heads = self.heads();
        if heads.len() <= MAX_AFTER {
            return Ok(heads);
        }
        needed.sort_unstable_by(|a, b| b.cmp(a));
        let must = needed.len();
        let latest = heads.iter().rev().filter_map(|id| self.at.get(id)).copied();
        let (mut named, mut covered) = (Vec::new(), Set::default());
        for (i, at) in needed.into_iter().chain(latest).enumerate() {
            if covered.has(at) {
                continue;
            }
            if named.len() == MAX_AFTER {
                return if i < must {
                    Err(StatementError::Full)
                } else {
                    Ok(named)
                };
            }
            covered.join(&self.known[at].past);
            covered.insert(at);
            named.push(self.known[at].id);
        }
        Ok(named)
    }

    /// The statement by which `issuer`, who knows all of this list, would do this now. It is to be
    /// signed and added.
    pub fn draft(
        &self,
        issuer: DeviceId,
        subject: DeviceId,
        act: Act,
        time: u64,
    ) -> Result<Statement, StatementError> {
        let full = match act {
            Act::Admit(_) => MAX_ADMITTING,
            Act::Remove => MAX_STATEMENTS,
        };
        if self.known.len() >= full {
            return Err(StatementError::Full);
        }
        let under = self.admissions(issuer).find(|a| self.may_write(*a));
        let under = under.ok_or(StatementError::Unlawful)?;
        let needed = under.into_iter().chain(self.removals_of(subject));
        let after = self.knowledge(needed.collect())?;
        Ok(Statement {
            share: self.share,
            issuer,
            subject,
            act,
            under: under.map(|at| self.known[at].id),
            after,
            time,
        })
    }
}
