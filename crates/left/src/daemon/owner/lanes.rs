//! The owner and its connections.

use std::time::Instant;

use left_core::engine::Event;
use left_core::index::{Index as _, IndexError};
use left_core::message::{Control, Nonce, Offer, Refused, RefusedCode, Role};
use left_core::version::DeviceId;

use super::super::adapt;
use super::super::handle::DaemonEvent;
use super::super::limits::Limits;
use super::super::links::Settled;
use super::Owner;
use crate::net::{ControlLane, DataLane, DialError, LaneEvent};
use crate::transfer::Offered;

impl Owner {
    pub(super) fn dial(&mut self) {
        self.next_dial = self.links.dial(&self.setup.members, Instant::now());
    }

    pub(super) fn dialed(
        &mut self,
        peer: DeviceId,
        result: Result<ControlLane, DialError>,
    ) -> Result<(), IndexError> {
        // With a ticket only its maker's refusal counts: others may not know of it.
        let asked = self
            .setup
            .members
            .record()
            .sponsor
            .is_none_or(|s| s == peer);
        let outcome = match result {
            Ok(lane) => {
                let role = lane.info.dialer_role;
                let joined = self.setup.members.update(|record| {
                    record.invitation = None;
                    if record.sponsor.is_some() {
                        // Until the membership list says it.
                        record.role = role;
                    }
                });
                if let Err(error) = joined {
                    tracing::error!("{error}");
                }
                self.add_lane(lane)?;
                self.check_role();
                Ok(())
            }
            Err(error) => {
                let again = self.links.dial_failed(peer, error.to_string());
                match error {
                    DialError::Refused(Refused { code, .. })
                        if asked && code != RefusedCode::Busy =>
                    {
                        Err(error.to_string())
                    }
                    DialError::WrongKey { .. } | DialError::Protocol { .. } if asked => {
                        Err(error.to_string())
                    }
                    // Not there (yet), or not asked: tried again.
                    _ => {
                        self.next_dial = Some(self.next_dial.map_or(again, |at| at.min(again)));
                        return Ok(());
                    }
                }
            }
        };
        if let Some(joined) = self.setup.joined.take() {
            let _ = joined.send(outcome);
        }
        self.dial();
        Ok(())
    }

    pub(super) fn add_lane(&mut self, lane: ControlLane) -> Result<(), IndexError> {
        let info = lane.info.clone();
        let members = &self.setup.members;
        // We decide what a peer may do. It may have been removed since the gate let it in.
        let held = members.is_paused(info.peer);
        let Some(role) = members.role_of(info.peer).filter(|_| !held) else {
            self.links.refuse(lane);
            return Ok(());
        };
        if let Err(error) = members.meet(info.peer, &info.name, &info.addresses) {
            tracing::error!("{error}");
        }
        let Settled::Up { peer, replaced } = self.links.add(lane, role) else {
            return Ok(());
        };
        if replaced {
            self.fetcher.drop_peer(peer);
            self.handle(Event::PeerDown { peer })?;
        }
        tracing::info!(peer = %peer.short(), name = info.name, address = %info.remote, "connected");
        let _ = self.setup.events.send(DaemonEvent::PeerConnected {
            share: self.setup.path.clone(),
            device: peer,
            name: info.name.clone(),
            address: info.remote.to_string(),
        });
        self.fetcher.add_peer(peer, info.parts);
        self.fetcher.round_trip(peer, info.round_trip);
        self.handle(Event::PeerUp { peer, role })?;
        for lane in self.links.take_early(info.session) {
            self.add_data(lane);
        }
        self.tell_members(None);
        Ok(())
    }

    pub(super) fn add_data(&mut self, lane: DataLane) {
        let added = self.links.add_data(lane);
        self.use_data(added);
    }

    pub(super) fn use_data(&mut self, added: Option<(u64, DataLane)>) {
        let Some((id, lane)) = added else { return };
        let tx = self.tx.clone();
        let both = [self.setup.limiter.clone(), self.setup.door.limiter.clone()];
        let limits = Limits::new(both);
        if lane.we_serve {
            adapt::spawn_server((id, lane), self.source.clone(), limits, tx);
        } else {
            self.fetcher.round_trip(lane.peer, lane.round_trip);
            adapt::add_lane(&self.fetcher, (id, lane), limits, tx);
        }
    }

    pub(super) fn lane(
        &mut self,
        peer: DeviceId,
        session: Nonce,
        event: LaneEvent,
    ) -> Result<(), IndexError> {
        let current = self
            .links
            .link(peer)
            .is_some_and(|l| l.info.session == session);
        match event {
            LaneEvent::Message(_) | LaneEvent::SendReady if !current => Ok(()),
            LaneEvent::Message(incoming) => match incoming.take() {
                Control::Members(told) => {
                    self.heard(peer, &told);
                    Ok(())
                }
                Control::Roll(part) => self.heard_roll(peer, part),
                Control::Offer(offer) => self.offered(peer, offer),
                Control::Parts(parts) => {
                    self.fetcher.parts(peer, &parts);
                    Ok(())
                }
                message => {
                    if matches!(message, Control::Index(_)) {
                        crash_point!("heard");
                    }
                    self.handle(Event::Message { peer, message })
                }
            },
            LaneEvent::SendReady => {
                let sent = self.links.send_ready(peer);
                self.sent(peer, sent);
                self.handle(Event::Tick)
            }
            LaneEvent::Closed(end) => {
                if self.links.ended(peer, session) {
                    self.lost(peer, &end.to_string());
                    self.handle(Event::PeerDown { peer })?;
                    self.dial();
                }
                Ok(())
            }
        }
    }

    /// A peer tells of a file that it still reads: its segments are brought ahead of time where it is
    /// likely that they will be wanted.
    fn offered(&mut self, peer: DeviceId, offer: Offer) -> Result<(), IndexError> {
        let heeded = self.setup.members.role_of(peer) == Some(Role::ReadWrite);
        if !heeded || !self.engine.takes_offers() || self.engine.is_path_busy(&offer.path) {
            return Ok(());
        }
        let ours = self.index.get(&offer.path)?;
        if !self.engine.wants(&offer.path, ours.as_ref()) {
            return Ok(());
        }
        let base = ours.and_then(|r| r.entry.node.content());
        self.fetcher.offer(
            peer,
            Offered {
                id: offer.id,
                size: offer.size,
                from: offer.from,
                segments: offer.segments,
                base: base.map(|content| (offer.path.clone(), content)),
                path: offer.path,
            },
        );
        Ok(())
    }

    pub(super) fn lost(&mut self, peer: DeviceId, why: &str) {
        tracing::info!(peer = %peer.short(), "connection lost: {why}");
        self.fetcher.drop_peer(peer);
        self.queue.push_back(Event::PeerDown { peer });
        let record = self.setup.members.record();
        let name = record.members.iter().find(|m| m.device == peer);
        let name = name.map(|m| m.name.clone()).unwrap_or_default();
        let _ = self.setup.events.send(DaemonEvent::PeerLost {
            share: self.setup.path.clone(),
            device: peer,
            name,
            why: why.to_owned(),
        });
        self.next_dial = Some(Instant::now());
    }
}
