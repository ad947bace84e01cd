//! Who may enter: checks what a connection asks for against members, tickets and pairings.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use left_core::message::{Nonce, Refused, RefusedCode, Role, ShareId};
use left_core::version::DeviceId;
use tokio::sync::broadcast;

use super::handle::DaemonEvent;
use super::limits::Limiter;
use super::members::{Members, TicketUse};
use super::pairing::{Pairings, Terms};
use super::sightings::Sightings;
use crate::net::handshake::{ControlRequest, PairRequest, not_admitted};
use crate::net::proof::{End, code_mac, founding_from_code, same, ticket_mac};
use crate::net::{Admitted, Gate, Introduction, Paired, Visitor};

/// What the gate of one device knows. Shared with the network's threads.
pub(super) struct Door {
    pub(super) device: DeviceId,
    pub(super) me: Mutex<Introduction>,
    pub(super) shares: Mutex<HashMap<ShareId, Members>>,
    /// Control lanes that are up or just being opened: whose data lanes may come.
    pub(super) sessions: Mutex<HashMap<Nonce, (DeviceId, ShareId)>>,
    pub(super) pairings: Arc<Pairings>,
    /// Where the user says that peers reach this device.
    pub(super) advertise: Mutex<Vec<String>>,
    /// Where members were seen.
    pub(super) sightings: Sightings,
    /// What all shares together may carry.
    pub(super) limiter: Arc<Limiter>,
    pub(super) events: broadcast::Sender<DaemonEvent>,
    /// This left stops: nobody is let in any more, and that is nobody's fault.
    pub(super) closing: AtomicBool,
    /// This left just started and does not run its shares yet: whom it does not know it does not
    /// turn away for good.
    pub(super) starting: AtomicBool,
}

/// Sessions remembered at most; each belongs to an admitted member's connection.
const MAX_SESSIONS: usize = 4096;

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Door {
    pub(super) fn introduction(&self) -> Introduction {
        lock(&self.me).clone()
    }

    pub(super) fn members(&self, share: ShareId) -> Option<Members> {
        lock(&self.shares).get(&share).cloned()
    }

    pub(super) fn forget_session(&self, session: Nonce) {
        lock(&self.sessions).remove(&session);
    }

    fn new_session(&self, peer: DeviceId, share: ShareId) -> Result<Nonce, Refused> {
        let mut session = [0; 16];
        aws_lc_rs::rand::fill(&mut session).map_err(|_| busy())?;
        let mut sessions = lock(&self.sessions);
        if sessions.len() >= MAX_SESSIONS {
            return Err(busy());
        }
        sessions.insert(session, (peer, share));
        Ok(session)
    }

    fn refused(&self, visitor: &Visitor, why: &str) -> Refused {
        tracing::warn!(
            address = %visitor.remote,
            device = %visitor.peer,
            "refused: {why}"
        );
        // Nobody listening is fine.
        let _ = self.events.send(DaemonEvent::Refused {
            address: visitor.remote.to_string(),
            device: Some(visitor.peer),
            why: why.to_owned(),
        });
        not_admitted()
    }

    fn admit(&self, peer: DeviceId, share: ShareId, role: Role) -> Result<Admitted, Refused> {
        Ok(Admitted {
            share,
            role,
            session: self.new_session(peer, share)?,
            me: self.introduction(),
        })
    }

    fn with_ticket(
        &self,
        visitor: &Visitor,
        request: &ControlRequest,
        members: &Members,
    ) -> Result<Role, Refused> {
        let Some(proof) = request.ticket else {
            return Err(self.refused(visitor, "the device is no member and shows no ticket"));
        };
        let Some(ticket) = members.ticket(proof.id) else {
            return Err(self.refused(visitor, "the ticket is not known here"));
        };
        let mac = ticket_mac(&ticket.secret, &visitor.exporter, visitor.peer, self.device);
        if !same(&mac, &proof.mac) {
            return Err(self.refused(visitor, "the ticket's secret is wrong"));
        }
        let from = &request.from;
        match members.use_ticket(proof.id, visitor.peer, &from.name, &from.addresses) {
            TicketUse::Admitted(role) => Ok(role),
            TicketUse::Spent(why) => {
                self.refused(visitor, &format!("the ticket is right, but {why}"));
                Err(Refused {
                    code: RefusedCode::TicketSpent,
                    reason: format!("the ticket is void: {why}"),
                })
            }
            TicketUse::Failed(error) => {
                tracing::error!("cannot admit {}: {error}", visitor.peer.short());
                Err(busy())
            }
        }
    }
}

impl Door {
    /// Why this device's share cannot take in a folder that is none yet.
    fn cannot_pair(&self, share: ShareId, theirs: Option<ShareId>) -> Option<&'static str> {
        let members = self.members(share)?;
        // One that is a member already may let us in.
        let stuck = theirs.is_none() && !members.may_admit();
        stuck.then_some(
            "the share's device here may not let others in; pair with one that may write",
        )
    }
}

impl Gate for Door {
    fn control(&self, visitor: &Visitor, request: &ControlRequest) -> Result<Admitted, Refused> {
        if self.closing.load(Ordering::Relaxed) {
            return Err(busy());
        }
        let Some(members) = self.members(request.share) else {
            if self.starting.load(Ordering::Relaxed) {
                return Err(busy());
            }
            return Err(self.refused(visitor, "it asks for a share that is not here"));
        };
        if members.removed_by().is_some() {
            return Err(self.refused(visitor, "this device was removed from the share"));
        }
        let role = match members.role_of(visitor.peer) {
            // It is a member: it may know that it is to come again.
            Some(_) if members.is_paused(visitor.peer) => return Err(busy()),
            Some(role) => role,
            None => self.with_ticket(visitor, request, &members)?,
        };
        self.admit(visitor.peer, request.share, role)
    }

    fn data(&self, visitor: &Visitor, session: Nonce) -> Result<ShareId, Refused> {
        if self.closing.load(Ordering::Relaxed) {
            return Err(busy());
        }
        match lock(&self.sessions).get(&session) {
            Some((peer, share)) if *peer == visitor.peer => Ok(*share),
            _ => Err(not_admitted()),
        }
    }

    fn control_lost(&self, session: Nonce) {
        self.forget_session(session);
    }

    fn pair(&self, visitor: &Visitor, request: &PairRequest) -> Result<Paired, Refused> {
        let proof =
            |code: &_, end| code_mac(code, &visitor.exporter, end, visitor.peer, self.device);
        let found = self.pairings.find(visitor.peer, |pending| {
            same(&proof(&pending.code, End::Dialer), &request.mac)
        });
        let Some(pending) = found else {
            return Err(self.refused(visitor, "the pairing code is wrong, or none is expected"));
        };
        let terms = match (pending.share, request.share) {
            (Some(mine), Some(theirs)) if mine != theirs => {
                self.refused(
                    visitor,
                    "both folders are shares already, and different ones",
                );
                return Err(Refused {
                    code: RefusedCode::OtherShare,
                    reason: "both folders are shares already, and different ones; use an empty \
                             folder on one side, or `left join` with a ticket"
                        .into(),
                });
            }
            (Some(share), _) | (None, Some(share)) => Terms::Share(share),
            (None, None) => {
                Terms::New(founding_from_code(&pending.code, self.device, visitor.peer))
            }
        };
        let members = self.members(terms.share());
        if pending.done_with.is_some() && members.is_some_and(|m| m.is_removed(visitor.peer)) {
            return Err(self.refused(visitor, "the device was removed since it was paired"));
        }
        if let Some(why) = self.cannot_pair(terms.share(), request.share) {
            self.refused(visitor, why);
            return Err(Refused {
                code: RefusedCode::OtherShare,
                reason: why.into(),
            });
        }
        // Written down before the peer hears yes, so that neither ends up alone.
        let done = self
            .pairings
            .complete(&pending, terms, visitor.peer, &request.from);
        if let Err(error) = done {
            tracing::error!("cannot complete the pairing: {error}");
            return Err(busy());
        }
        Ok(Paired {
            admitted: self.admit(visitor.peer, terms.share(), Role::ReadWrite)?,
            mac: proof(&pending.code, End::Acceptor),
        })
    }
}

fn busy() -> Refused {
    Refused {
        code: RefusedCode::Busy,
        reason: "busy; try again later".into(),
    }
}
