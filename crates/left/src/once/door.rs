//! Who may fetch: whoever proves the ticket. Without `--keep` that is the first device that does.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_channel::Sender;
use left_core::message::{Nonce, Refused, RefusedCode, Role, ShareId};
use left_core::ticket::Ticket;
use left_core::version::DeviceId;

use super::serving::Wake;
use super::{Event, lock, unix_now};
use crate::net::handshake::{ControlRequest, PairRequest, not_admitted};
use crate::net::proof::{same, ticket_mac};
use crate::net::{Admitted, Gate, Introduction, Paired, Visitor};

/// Connections that fetch at the same time.
const MAX_SESSIONS: usize = 64;
/// Data lanes of one of them.
const MAX_LANES: u32 = 16;
/// Refusals that are told; the rest is in the log only.
const MAX_TOLD: u32 = 100;

/// See the module's text.
pub(super) struct Door {
    pub(super) ticket: Ticket,
    pub(super) keep: bool,
    pub(super) me: Mutex<Introduction>,
    used_by: Mutex<Option<DeviceId>>,
    /// Control lanes that are up, and how many data lanes each was given.
    sessions: Mutex<HashMap<Nonce, (DeviceId, u32)>>,
    refusals: AtomicU32,
    out: Sender<Wake>,
}

impl Door {
    pub(super) fn new(ticket: Ticket, keep: bool, me: Introduction, out: Sender<Wake>) -> Self {
        Self {
            ticket,
            keep,
            me: Mutex::new(me),
            used_by: Mutex::default(),
            sessions: Mutex::default(),
            refusals: AtomicU32::new(0),
            out,
        }
    }

    pub(super) fn forget(&self, session: Nonce) {
        lock(&self.sessions).remove(&session);
    }

    /// One of its data lanes is no more.
    pub(super) fn lane_ended(&self, session: Nonce) {
        if let Some((_, lanes)) = lock(&self.sessions).get_mut(&session) {
            *lanes = lanes.saturating_sub(1);
        }
    }

    fn refused(&self, visitor: &Visitor, why: &str) {
        tracing::warn!(address = %visitor.remote, device = %visitor.peer, "refused: {why}");
        if self.refusals.fetch_add(1, Ordering::Relaxed) >= MAX_TOLD {
            return;
        }
        // Nobody listening is fine.
        let _ = self.out.send(Wake::Tell(Event::Refused {
            address: visitor.remote.to_string(),
            device: visitor.peer,
            why: why.to_owned(),
        }));
    }

    fn stranger(&self, visitor: &Visitor, why: &str) -> Refused {
        self.refused(visitor, why);
        not_admitted()
    }

    /// Only for who has proven the secret.
    fn spent(&self, visitor: &Visitor, why: &str) -> Refused {
        self.refused(visitor, why);
        Refused {
            code: RefusedCode::TicketSpent,
            reason: format!("the ticket is void: {why}"),
        }
    }
}

impl Gate for Door {
    fn control(&self, visitor: &Visitor, request: &ControlRequest) -> Result<Admitted, Refused> {
        let ticket = &self.ticket;
        let Some(proof) = request.ticket.filter(|_| request.share == ticket.share) else {
            return Err(self.stranger(visitor, "it shows no ticket, or asks for something else"));
        };
        let mac = ticket_mac(
            &ticket.secret,
            &visitor.exporter,
            visitor.peer,
            ticket.inviter,
        );
        if proof.id != ticket.id || !same(&mac, &proof.mac) {
            return Err(self.stranger(visitor, "it does not know the ticket"));
        }
        if ticket.expires <= unix_now() {
            return Err(self.spent(visitor, "it has expired"));
        }
        let mut used_by = lock(&self.used_by);
        if !self.keep && used_by.is_some_and(|d| d != visitor.peer) {
            return Err(self.spent(visitor, "another device has used it"));
        }
        let busy = || Refused {
            code: RefusedCode::Busy,
            reason: "busy; try again later".into(),
        };
        let mut session = [0; 16];
        aws_lc_rs::rand::fill(&mut session).map_err(|_| busy())?;
        let mut sessions = lock(&self.sessions);
        if sessions.len() >= MAX_SESSIONS {
            return Err(busy());
        }
        sessions.insert(session, (visitor.peer, 0));
        *used_by = Some(visitor.peer);
        Ok(Admitted {
            share: ticket.share,
            role: Role::ReadOnly,
            session,
            me: lock(&self.me).clone(),
        })
    }

    fn data(&self, visitor: &Visitor, session: Nonce) -> Result<ShareId, Refused> {
        match lock(&self.sessions).get_mut(&session) {
            Some((peer, lanes)) if *peer == visitor.peer && *lanes < MAX_LANES => {
                *lanes += 1;
                Ok(self.ticket.share)
            }
            _ => Err(not_admitted()),
        }
    }

    fn control_lost(&self, session: Nonce) {
        self.forget(session);
    }

    fn data_lost(&self, session: Nonce) {
        self.lane_ended(session);
    }

    fn pair(&self, visitor: &Visitor, _: &PairRequest) -> Result<Paired, Refused> {
        Err(self.stranger(visitor, "it wants to pair"))
    }
}
