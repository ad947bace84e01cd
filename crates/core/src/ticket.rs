//! Tickets: one copy-and-paste string that lets a device into a share.
//!
//! The text is `left1` and lowercase base32 (RFC 4648, no padding) of: format (1 byte), share
//! (32), inviter (32), id (16), secret (16), role (1; 3: not a share but a [`SendTicket`]), expiry (8, little-endian), number of
//! addresses (1), each address (1 byte of length, then its bytes), checksum (5: the start of a
//! BLAKE3 over all before it).

use std::fmt;

use data_encoding::BASE32_NOPAD;

use crate::message::{Nonce, Role, ShareId};
use crate::version::DeviceId;

/// Most addresses a ticket carries.
pub const MAX_ADDRESSES: usize = 16;
/// Longest address a ticket carries, in bytes.
pub const MAX_ADDRESS: usize = 255;

/// What every ticket starts with.
const PREFIX: &str = "left1";
/// Names the binary form.
const FORMAT: u8 = 1;
/// In the place of a role: a [`SendTicket`].
const SEND: u8 = 3;
/// Bytes of the checksum: 8 characters.
const CHECKSUM: usize = 5;
/// Bytes before the addresses.
const FIXED: usize = 1 + 32 + 32 + 16 + 16 + 1 + 8 + 1;
/// Most characters of a ticket; leaves room for a newer kind with more in it.
const MAX_TEXT: usize = 16 * 1024;

/// What a ticket says.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Which share.
    pub share: ShareId,
    /// Who invites: the key the dialed device must show.
    pub inviter: DeviceId,
    /// Names the ticket at the inviter.
    pub id: Nonce,
    /// One-time secret.
    pub secret: [u8; 16],
    /// What the newcomer may do.
    pub role: Role,
    /// Unix seconds after which it is void.
    pub expires: u64,
    /// Where the inviter may be dialed, `host:port`.
    pub addresses: Vec<String>,
}

/// Why a text is no ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Does not start with `left1`.
    #[error(
        "a ticket starts with `left1`, this text does not; copy the whole line that the other machine showed"
    )]
    NotATicket,
    /// The checksum is wrong.
    #[error("the ticket is mistyped or cut off: its checksum does not match; copy it again")]
    Mistyped,
    /// Made by a newer LEFT.
    #[error("the ticket is of a newer kind than this version of left reads; update left")]
    Newer,
    /// It lets into no share: `left send` made it.
    #[error("this ticket is of `left send`, not of a share; take what is sent with `left get`")]
    OfSend,
    /// It lets into a share.
    #[error("this ticket is of a share, not of `left send`; join the share with `left join`")]
    OfShare,
}

/// A ticket of `left send`: whoever has it may fetch once what is sent. `share` names what is sent,
/// `role` is read-only and means nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SendTicket(pub Ticket);

impl SendTicket {
    /// Parses the text as [`Ticket::parse`] does.
    pub fn parse(text: &str) -> Result<Self, TicketError> {
        match read_text(text)? {
            (ticket, SEND) => Ok(Self(ticket)),
            _ => Err(TicketError::OfShare),
        }
    }
}

impl fmt::Display for SendTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, SEND)
    }
}

impl Ticket {
    /// Parses the text. White space is ignored wherever it stands (long lines get wrapped), and
    /// capitals are as good as small letters.
    pub fn parse(text: &str) -> Result<Self, TicketError> {
        match read_text(text)? {
            (_, SEND) => Err(TicketError::OfSend),
            (ticket, _) => Ok(ticket),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, role: u8) -> fmt::Result {
        let mut bytes = self.body(role);
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        write!(
            f,
            "{PREFIX}{}",
            BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()
        )
    }

    fn body(&self, role: u8) -> Vec<u8> {
        let addresses: Vec<&String> = self
            .addresses
            .iter()
            .filter(|a| a.len() <= MAX_ADDRESS)
            .take(MAX_ADDRESSES)
            .collect();
        let mut body =
            Vec::with_capacity(FIXED + addresses.iter().map(|a| 1 + a.len()).sum::<usize>());
        body.push(FORMAT);
        body.extend_from_slice(&self.share.0);
        body.extend_from_slice(&self.inviter.0);
        body.extend_from_slice(&self.id);
        body.extend_from_slice(&self.secret);
        body.push(role);
        body.extend_from_slice(&self.expires.to_le_bytes());
        body.push(addresses.len() as u8);
        for address in addresses {
            body.push(address.len() as u8);
            body.extend_from_slice(address.as_bytes());
        }
        body
    }
}

/// The text to copy. Addresses past [`MAX_ADDRESSES`] and those longer than [`MAX_ADDRESS`] are
/// left out. It holds the secret: not for logs.
impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::ReadWrite => 1,
            Role::ReadOnly => 2,
        };
        self.write(f, role)
    }
}

/// Without the secret, so that a ticket in a log lets nobody in.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("share", &self.share)
            .field("inviter", &self.inviter)
            .field("role", &self.role)
            .field("expires", &self.expires)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new_derive_key("LEFT 2026 ticket checksum v1");
    hasher.update(body);
    let mut sum = [0; CHECKSUM];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

/// The ticket, and the byte in the place of its role.
fn read_text(text: &str) -> Result<(Ticket, u8), TicketError> {
    let text: String = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .take(MAX_TEXT + 1)
        .map(|c| c.to_ascii_uppercase())
        .collect();
    let code = text
        .strip_prefix(&PREFIX.to_ascii_uppercase())
        .ok_or(TicketError::NotATicket)?;
    if text.len() > MAX_TEXT {
        return Err(TicketError::Mistyped);
    }
    let bytes = BASE32_NOPAD
        .decode(code.as_bytes())
        .map_err(|_| TicketError::Mistyped)?;
    let (body, sum) = bytes
        .split_last_chunk::<CHECKSUM>()
        .ok_or(TicketError::Mistyped)?;
    if *sum != checksum(body) {
        return Err(TicketError::Mistyped);
    }
    // The text is what its maker wrote; if it can not be read, the maker knows more.
    read_body(body).ok_or(TicketError::Newer)
}

fn read_body(body: &[u8]) -> Option<(Ticket, u8)> {
    let mut rest = body;
    let [format] = take(&mut rest)?;
    if format != FORMAT {
        return None;
    }
    let share = ShareId(take(&mut rest)?);
    let inviter = DeviceId(take(&mut rest)?);
    let id = take(&mut rest)?;
    let secret = take(&mut rest)?;
    let [kind] = take(&mut rest)?;
    let role = match kind {
        1 => Role::ReadWrite,
        2 | SEND => Role::ReadOnly,
        _ => return None,
    };
    let expires = u64::from_le_bytes(take(&mut rest)?);
    let [count] = take(&mut rest)?;
    if usize::from(count) > MAX_ADDRESSES {
        return None;
    }
    let mut addresses = Vec::with_capacity(count.into());
    for _ in 0..count {
        let [len] = take(&mut rest)?;
        let (address, after) = rest.split_at_checked(len.into())?;
        let address = std::str::from_utf8(address).ok()?;
        if address.chars().any(char::is_control) {
            return None;
        }
        addresses.push(address.to_owned());
        rest = after;
    }
    let ticket = Ticket {
        share,
        inviter,
        id,
        secret,
        role,
        expires,
        addresses,
    };
    rest.is_empty().then_some((ticket, kind))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*head)
}
