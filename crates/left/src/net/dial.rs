//! Dialing: opening a lane at the address of a device that answers first ([`reach`](super::reach)).

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use left_core::message::{LaneHello, Nonce, PROTOCOL, Refused, RefusedCode, ShareId, TicketProof};
use left_core::version::DeviceId;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Net;
use super::code::CodeKey;
use super::data::{BlockingTls, DataLane};
use super::frame::FrameError;
use super::handshake::{Introduction, OpenError, Opened, open};
use super::lane::{ControlLane, LaneInfo};
use super::proof::{End, TicketSecret, code_mac, same, ticket_mac};
use super::reach::{Connected, Failure, connect_host, race};
use super::tls::{Proven, WrongKey, client_config};

/// Most addresses of one device that are tried.
const MAX_ADDRESSES: usize = 32;

/// A control lane to dial.
#[derive(Clone)]
pub struct DialControl {
    /// Which share.
    pub share: ShareId,
    /// The devices that may answer, usually one. Any other is turned away before it learns
    /// anything.
    pub peers: Vec<DeviceId>,
    /// Where: `host`, `host:port`, `[v6]:port`.
    pub addresses: Vec<String>,
    /// What this device says of itself.
    pub me: Introduction,
    /// For one who is not yet a member.
    pub ticket: Option<TicketSecret>,
}

/// A pairing to dial.
#[derive(Clone)]
pub struct DialPair {
    /// What both ends know.
    pub code: CodeKey,
    /// Where: `host`, `host:port`, `[v6]:port`.
    pub addresses: Vec<String>,
    /// This folder's share, if it is one already.
    pub share: Option<ShareId>,
    /// What this device says of itself.
    pub me: Introduction,
}

/// A data lane to dial.
#[derive(Clone, Copy, Debug)]
pub struct DialData {
    /// The control lane it belongs to.
    pub session: Nonce,
    /// Which share.
    pub share: ShareId,
    /// The device at the other end.
    pub peer: DeviceId,
    /// Where the control lane goes.
    pub remote: SocketAddr,
    /// Whether this end answers Wants.
    pub dialer_serves: bool,
    /// Whether only small contents travel here.
    pub express: bool,
}

/// Why a dial gave no lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialError {
    /// No address answered.
    Unreachable(
        /// Each address and what happened there.
        Vec<(String, String)>,
    ),
    /// Another device answered.
    WrongKey {
        /// Where.
        address: String,
        /// Who was meant and who it is.
        key: WrongKey,
    },
    /// The device said no.
    Refused(Refused),
    /// The device speaks another version of the protocol.
    Protocol {
        /// Its version.
        theirs: u32,
    },
    /// What answered is no LEFT, or broke off.
    NotLeft {
        /// Where.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The other end does not know the pairing code.
    WrongCode,
    /// The device took the connection and then said nothing.
    Timeout(Duration),
}

impl std::error::Error for DialError {}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(tried) if tried.is_empty() => f.write_str("no address to dial"),
            Self::Unreachable(tried) => {
                f.write_str("unreachable")?;
                for (at, (address, reason)) in tried.iter().enumerate() {
                    let sign = if at == 0 { ": " } else { "; " };
                    write!(f, "{sign}{address}: {reason}")?;
                }
                Ok(())
            }
            Self::WrongKey { address, key } => write!(f, "{address}: {key}"),
            Self::Refused(refused) => write!(f, "refused: {}", refused.reason),
            Self::Protocol { theirs } => write!(
                f,
                "the other device speaks LEFT protocol {theirs}, this one speaks {PROTOCOL}; update the older one"
            ),
            Self::NotLeft { address, reason } => {
                write!(f, "{address}: no LEFT device answers there ({reason})")
            }
            Self::WrongCode => f.write_str("the other device does not know the pairing code"),
            Self::Timeout(limit) => {
                write!(f, "no answer for {} seconds", limit.as_secs())
            }
        }
    }
}

impl Net {
    /// Dials a control lane.
    pub async fn dial_control(&self, dial: DialControl) -> Result<ControlLane, DialError> {
        let DialControl {
            share,
            peers,
            addresses,
            me,
            ticket,
        } = dial;
        let mut connected = self.connect(Some(peers), &addresses).await?;
        let Proven { peer, exporter } = connected.proven;
        let ticket = ticket.map(|t| TicketProof {
            id: t.id,
            mac: ticket_mac(&t.secret, &exporter, self.id(), peer),
        });
        let hello = LaneHello::Control {
            share,
            instance: me.instance,
            name: me.name,
            addresses: me.addresses,
            ticket,
        };
        let opened = self.open(&mut connected, hello).await?;
        Ok(self.control_lane(connected, opened, share))
    }

    /// Dials a pairing; the connection becomes the control lane of the share both now belong to.
    /// The other end has proven that it knows the code.
    pub async fn dial_pair(&self, dial: DialPair) -> Result<ControlLane, DialError> {
        let mut connected = self.connect(None, &dial.addresses).await?;
        let Proven { peer, exporter } = connected.proven;
        let proof = |end| code_mac(&dial.code, &exporter, end, self.id(), peer);
        let hello = LaneHello::Pair {
            mac: proof(End::Dialer),
            share: dial.share,
            instance: dial.me.instance,
            name: dial.me.name,
            addresses: dial.me.addresses,
        };
        let opened = self.open(&mut connected, hello).await?;
        let (Some(mac), Some(share)) = (opened.welcome.mac, opened.welcome.share) else {
            return Err(DialError::WrongCode);
        };
        if !same(&mac, &proof(End::Acceptor)) {
            return Err(DialError::WrongCode);
        }
        Ok(self.control_lane(connected, opened, share))
    }

    /// Dials a data lane to where a control lane goes.
    pub async fn dial_data(&self, dial: DialData) -> Result<DataLane, DialError> {
        let address = dial.remote.to_string();
        let pin = Some(vec![dial.peer]);
        let mut connected = self.connect(pin, &[address]).await?;
        let hello = LaneHello::Data {
            session: dial.session,
            dialer_serves: dial.dialer_serves,
            express: dial.express,
        };
        let opened = self.open(&mut connected, hello).await?;
        let stream = BlockingTls::new(connected.stream, self.timeouts.stalled, None);
        Ok(DataLane {
            peer: dial.peer,
            session: dial.session,
            share: dial.share,
            we_serve: dial.dialer_serves,
            express: dial.express,
            zstd: opened.zstd,
            round_trip: connected.round_trip,
            stream: stream.map_err(|e| DialError::NotLeft {
                address: connected.address,
                reason: e.to_string(),
            })?,
        })
    }

    fn control_lane(&self, connected: Connected, opened: Opened, share: ShareId) -> ControlLane {
        let Opened { welcome, parts, .. } = opened;
        let info = LaneInfo {
            peer: connected.proven.peer,
            share,
            dialer_role: welcome.role,
            remote: connected.remote,
            name: welcome.name,
            addresses: welcome.addresses,
            instance: welcome.instance,
            session: welcome.session,
            dialed_by_us: true,
            parts,
            round_trip: connected.round_trip,
        };
        ControlLane {
            info,
            stream: Box::new(connected.stream),
            timeouts: self.timeouts,
            runtime: self.runtime.clone(),
            slot: None,
        }
    }

    async fn open(&self, to: &mut Connected, hello: LaneHello) -> Result<Opened, DialError> {
        let limit = self.timeouts.opening;
        let not_left = |reason: String| DialError::NotLeft {
            address: to.address.clone(),
            reason,
        };
        match timeout(limit, open(&mut to.stream, hello, limit)).await {
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(OpenError::Frame(FrameError::Silent(_)))) | Err(_) => {
                Err(DialError::Timeout(limit))
            }
            Ok(Err(OpenError::Frame(e))) => Err(not_left(e.to_string())),
            Ok(Err(OpenError::Malformed(why))) => Err(not_left(why)),
            Ok(Err(OpenError::Protocol(theirs))) => Err(DialError::Protocol { theirs }),
            Ok(Err(OpenError::Refused(refused))) => Err(match refused.code {
                // The same protocol here and "wrong protocol" there cannot both be.
                RefusedCode::Protocol => not_left(refused.reason),
                _ => DialError::Refused(refused),
            }),
        }
    }

    /// The first address where one of `pins` answers.
    pub(super) async fn connect(
        &self,
        pins: Option<Vec<DeviceId>>,
        addresses: &[String],
    ) -> Result<Connected, DialError> {
        let config = client_config(&self.key, pins).map_err(|e| DialError::NotLeft {
            address: "this device".into(),
            reason: e.to_string(),
        })?;
        let tls = TlsConnector::from(config);
        let timeouts = self.timeouts;
        let attempts = addresses
            .iter()
            .take(MAX_ADDRESSES)
            .map(|address| connect_host(tls.clone(), address.clone(), timeouts))
            .collect();
        race(attempts, timeouts.stagger)
            .await
            .map_err(|failures| summary(failures.into_iter().flatten().collect()))
    }
}

/// The failure that says most: that nobody but wrong devices answered, else something else that
/// answered, else all. Where one address was wrong and another did not answer, the right device may
/// still come to be reached.
fn summary(failures: Vec<Failure>) -> DialError {
    let mut unreachable = Vec::new();
    let mut wrong = Vec::new();
    let mut answered = None;
    for failure in failures {
        match failure {
            Failure::WrongKey(address, key) => wrong.push((address, key)),
            Failure::NotLeft(address, reason) => {
                answered.get_or_insert(DialError::NotLeft { address, reason });
            }
            Failure::Unreachable(address, reason) => unreachable.push((address, reason)),
        }
    }
    if let Some((address, key)) = wrong.first().cloned()
        && unreachable.is_empty()
    {
        return DialError::WrongKey { address, key };
    }
    let other = |(address, _)| (address, "another device answers there".to_owned());
    unreachable.extend(wrong.into_iter().map(other));
    answered.unwrap_or(DialError::Unreachable(unreachable))
}
