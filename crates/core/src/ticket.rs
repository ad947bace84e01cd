//! Tickets: one copy-and-paste string that lets a device into a share.

use crate::message::{Nonce, Role, ShareId};
use crate::version::DeviceId;

/// What a ticket says.
#[derive(Clone, PartialEq, Eq, Debug)]
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
    #[error("a ticket starts with `left1`; this text does not")]
    NotATicket,
    /// The checksum is wrong.
    #[error("the ticket is mistyped or cut off: its checksum does not match; copy it again")]
    Mistyped,
    /// Made by a newer LEFT.
    #[error("the ticket is of a newer kind than this version of left reads; update left")]
    Newer,
}

impl Ticket {
    /// Parses the text; surrounding white space is ignored.
    pub fn parse(text: &str) -> Result<Self, TicketError> {
        let _ = text;
        unimplemented!()
    }
}

impl std::fmt::Display for Ticket {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        unimplemented!()
    }
}
