//! `left sync`: two machines that name each other pair by a code.

use std::path::Path;
use std::sync::Weak;
use std::time::Duration;

use left_core::message::RefusedCode;
use left_core::version::DeviceId;

use super::super::ask::Msg;
use super::super::handle::{DaemonEvent, SyncInfo, UserError};
use super::super::owner;
use super::super::pairing::{Pending, Terms};
use super::address::with_port;
use super::enter::Adopt;
use super::{Device, failed, lock};
use crate::home::{clean, read_share};
use crate::net::code::PairCode;
use crate::net::proof::founding_from_code;
use crate::net::{ControlLane, DEFAULT_PORT, DialError, DialPair, Introduction};

impl Device {
    /// A pairing is complete: the folder is a member of the share now, together with the peer.
    pub(super) fn paired(
        &self,
        pending: &Pending,
        terms: Terms,
        peer: DeviceId,
        from: &Introduction,
    ) -> Result<(), UserError> {
        let share = terms.share();
        let founding = match terms {
            Terms::New(founding) => Some(founding),
            Terms::Share(_) => None,
        };
        let (record, new) = self.adopt(&pending.dir, Adopt::Join(share, founding))?;
        if record.id != share {
            return Err(UserError::new(
                format!("cannot pair {}", clean(&pending.dir)),
                "it is another share already",
                "use another folder",
            ));
        }
        let mut addresses = vec![pending.peer.clone()];
        addresses.extend(
            from.addresses
                .iter()
                .filter(|a| **a != pending.peer)
                .cloned(),
        );
        let running = lock(&self.shares)
            .get(&share)
            .map(|r| (r.members.clone(), r.tx.clone()));
        if let Some((members, tx)) = running {
            members.pair_with(peer, &from.name, &addresses)?;
            owner::nudge(&tx, Msg::MembersChanged);
            return Ok(());
        }
        let members = self.members_of(record);
        members.pair_with(peer, &from.name, &addresses)?;
        self.info(&members.record(), new);
        self.run(members, None, true)
    }

    /// Dials the other machine of a pairing until one end has reached the other.
    fn spawn_pairing(&self, pending: Pending) {
        let (Some(net), Some(me)) = (self.net.clone(), self.me.upgrade()) else {
            return;
        };
        let weak = self.me.clone();
        drop(me);
        let door = self.door.clone();
        let events = self.events.clone();
        net.runtime().clone().spawn(async move {
            let mut wait = Duration::from_millis(200);
            let mut told = String::new();
            while door.pairings.is_waiting(pending.number) {
                let call = DialPair {
                    code: pending.code.clone(),
                    addresses: vec![pending.peer.clone()],
                    share: pending.share,
                    me: door.introduction(),
                };
                match net.dial_pair(call).await {
                    Ok(lane) => {
                        let (weak, pending) = (weak.clone(), pending.clone());
                        let done = tokio::task::spawn_blocking(move || {
                            take_pairing(&weak, &pending, lane)
                        });
                        if let Ok(Err(error)) = done.await {
                            let _ = events.send(DaemonEvent::Notice {
                                text: error.to_string(),
                            });
                        }
                        return;
                    }
                    Err(error) => {
                        let text = pairing_trouble(&pending.peer, &error);
                        if text != told {
                            tracing::info!("{text}");
                            if !matches!(error, DialError::Unreachable(_)) {
                                let _ = events.send(DaemonEvent::Notice { text: text.clone() });
                            }
                            told = text;
                        }
                    }
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(2));
            }
        });
    }

    pub(super) fn pair(
        &self,
        dir: &Path,
        peer: &str,
        code: Option<&str>,
    ) -> Result<SyncInfo, UserError> {
        let dir = self.home.prepare_folder(dir)?;
        let peer = with_port(peer.trim(), DEFAULT_PORT);
        let share = read_share(&dir).ok().map(|m| m.id);
        let record = self.home.shares()?.into_iter().find(|r| r.path == dir);
        if let Some(record) = &record {
            self.adopt(&dir, Adopt::Join(record.id, None))?;
            self.run(self.members_of(record.clone()), None, true)?;
            if code.is_none() && !record.members.is_empty() {
                let members = self.record_of(&dir)?;
                members.update(|r| {
                    // The only other machine may have a new address.
                    if let [only] = r.members.as_mut_slice()
                        && !only.addresses.contains(&peer)
                    {
                        only.addresses.insert(0, peer.clone());
                    }
                })?;
                self.send(&dir, Msg::MembersChanged)?;
                return Ok(SyncInfo {
                    share: dir,
                    code: None,
                    command_for_other: "left sync --peer HOST-OF-THIS-MACHINE".into(),
                });
            }
        }
        let (code, made) = match code {
            Some(text) => {
                let code = PairCode::parse(text).map_err(|e| {
                    UserError::usage(
                        "cannot pair",
                        e,
                        "copy the code as the other machine shows it",
                    )
                })?;
                (code, false)
            }
            None => {
                let code = PairCode::generate().map_err(|e| failed("cannot pair", e))?;
                (code, true)
            }
        };
        let pending = self.door.pairings.add(dir.clone(), code.key(), peer, share);
        self.spawn_pairing(pending);
        let here = self.door.introduction().addresses;
        let here = here.first().map_or("HOST-OF-THIS-MACHINE", String::as_str);
        let info = SyncInfo {
            share: dir,
            code: made.then(|| code.to_string()),
            command_for_other: format!("left sync --peer {here} --code {code}"),
        };
        Ok(info)
    }
}

fn pairing_trouble(peer: &str, error: &DialError) -> String {
    match error {
        DialError::Refused(r) if r.code == RefusedCode::NotAdmitted => format!(
            "{peer} answers, but does not expect this code: run the command shown on the other \
             machine, with the same code"
        ),
        other => format!("cannot pair with {peer} yet: {other}"),
    }
}

fn take_pairing(
    weak: &Weak<Device>,
    pending: &Pending,
    lane: ControlLane,
) -> Result<(), UserError> {
    let Some(device) = weak.upgrade() else {
        return Ok(());
    };
    let from = Introduction {
        instance: lane.info.instance,
        name: lane.info.name.clone(),
        addresses: lane.info.addresses.clone(),
    };
    let share = lane.info.share;
    let founding = founding_from_code(&pending.code, device.door.device, lane.info.peer);
    let terms = match pending.share.is_none() && founding.share() == share {
        true => Terms::New(founding),
        false => Terms::Share(share),
    };
    device
        .door
        .pairings
        .complete(pending, terms, lane.info.peer, &from)?;
    if let Some(tx) = lock(&device.routes).get(&share) {
        let _ = tx.send(Msg::Control(lane));
    }
    Ok(())
}
