//! What a membership list is made of: the founding of a share, and signed statements.

use std::fmt;

use crate::version::DeviceId;

/// Most earlier statements that one statement names as known.
pub const MAX_AFTER: usize = 64;
/// Longest body of a statement in bytes.
pub const MAX_BODY: usize = FIXED + 32 + 1 + MAX_AFTER * 32;

/// What a signature is made over begins with this, so that it can never pass for one over anything
/// else that the same key signs (TLS 1.3 signs texts that begin with 64 blanks).
const SIGNED: &[u8] = b"LEFT 2026 membership statement v1\0";
/// Context of [`StatementId`]s.
const ID: &str = "LEFT 2026 membership statement id v1";
/// Context of [`Founding::share`].
const SHARE: &str = "LEFT 2026 share of its founder v1";

/// Format, act, share, issuer, subject, time, whether there is an `under`.
const FIXED: usize = 1 + 1 + 32 + 32 + 32 + 8 + 1;
const FORMAT: u8 = 1;

/// A share's id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareId(pub [u8; 32]);

impl ShareId {
    /// Parses what [`Display`](std::fmt::Display) prints.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = data_encoding::BASE32_NOPAD
            .decode(text.trim().to_ascii_uppercase().as_bytes())
            .ok()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

impl std::fmt::Display for ShareId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&data_encoding::BASE32_NOPAD.encode(&self.0))
    }
}

impl std::fmt::Debug for ShareId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_string()[..7])
    }
}

/// What a member may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Role {
    /// Its edits reach all.
    ReadWrite,
    /// It receives only.
    ReadOnly,
}

/// Ed25519, over [`Statement::signed_bytes`].
pub type Signature = [u8; 64];

/// Names a statement: the hash of its body. The signature is not part of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatementId(pub [u8; 32]);

impl fmt::Debug for StatementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

/// Who founded a share. The share's id is made of this, so whoever knows the id knows the founder
/// for certain once it is told the nonce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Founding {
    /// The root of trust: a read-write member without anybody's admission.
    pub founder: DeviceId,
    /// Makes the id unique.
    pub nonce: [u8; 32],
}

impl Founding {
    /// The id of the share that was founded so.
    pub fn share(&self) -> ShareId {
        let mut hasher = blake3::Hasher::new_derive_key(SHARE);
        hasher.update(&self.founder.0).update(&self.nonce);
        ShareId(*hasher.finalize().as_bytes())
    }
}

/// What a statement does to its subject.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Act {
    /// Lets it in, or gives it (also) this role.
    Admit(Role),
    /// Throws it out.
    Remove,
}

/// A member's word on the membership of a device. Immutable; named by its hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// Of which share.
    pub share: ShareId,
    /// Who says it; its key signs.
    pub issuer: DeviceId,
    /// Of whom.
    pub subject: DeviceId,
    /// What.
    pub act: Act,
    /// The admission by which the issuer may say it; `None` for the founder as such.
    pub under: Option<StatementId>,
    /// What the issuer knew: these statements and all that they knew. At most [`MAX_AFTER`].
    pub after: Vec<StatementId>,
    /// Unix seconds at the issuer, for people. Decides nothing.
    pub time: u64,
}

impl Statement {
    /// The body: what travels and what the id is made of.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(FIXED + 33 + self.after.len() * 32);
        body.push(FORMAT);
        body.push(match self.act {
            Act::Admit(Role::ReadWrite) => 1,
            Act::Admit(Role::ReadOnly) => 2,
            Act::Remove => 3,
        });
        body.extend_from_slice(&self.share.0);
        body.extend_from_slice(&self.issuer.0);
        body.extend_from_slice(&self.subject.0);
        body.extend_from_slice(&self.time.to_be_bytes());
        body.push(u8::from(self.under.is_some()));
        if let Some(under) = self.under {
            body.extend_from_slice(&under.0);
        }
        let after = &self.after[..self.after.len().min(MAX_AFTER)];
        body.push(after.len() as u8);
        for id in after {
            body.extend_from_slice(&id.0);
        }
        body
    }

    /// Reads what [`encode`](Self::encode) wrote; `None` for anything else. One statement has one
    /// body only.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut rest = body;
        let [format, act] = take(&mut rest)?;
        if format != FORMAT {
            return None;
        }
        let act = match act {
            1 => Act::Admit(Role::ReadWrite),
            2 => Act::Admit(Role::ReadOnly),
            3 => Act::Remove,
            _ => return None,
        };
        let share = ShareId(take(&mut rest)?);
        let issuer = DeviceId(take(&mut rest)?);
        let subject = DeviceId(take(&mut rest)?);
        let time = u64::from_be_bytes(take(&mut rest)?);
        let under = match take(&mut rest)? {
            [0] => None,
            [1] => Some(StatementId(take(&mut rest)?)),
            _ => return None,
        };
        let [count] = take(&mut rest)?;
        if usize::from(count) > MAX_AFTER {
            return None;
        }
        let mut after = Vec::with_capacity(count.into());
        for _ in 0..count {
            after.push(StatementId(take(&mut rest)?));
        }
        rest.is_empty().then_some(Self {
            share,
            issuer,
            subject,
            act,
            under,
            after,
            time,
        })
    }

    /// Its name.
    pub fn id(&self) -> StatementId {
        StatementId(blake3::derive_key(ID, &self.encode()))
    }

    /// What the issuer signs.
    pub fn signed_bytes(&self) -> Vec<u8> {
        [SIGNED, &self.encode()].concat()
    }
}

/// A statement with its signature, which whoever takes it in checks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signed {
    /// What is said.
    pub statement: Statement,
    /// Of the issuer.
    pub signature: Signature,
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*head)
}
