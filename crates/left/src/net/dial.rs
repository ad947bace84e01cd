//! Dialing: which of a device's addresses answers first, and opening a lane there.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use left_core::message::{LaneHello, Nonce, PROTOCOL, Refused, RefusedCode, ShareId, TicketProof};
use left_core::version::DeviceId;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsConnector, TlsStream};

use super::code::CodeKey;
use super::data::{BlockingTls, DataLane};
use super::frame::FrameError;
use super::handshake::{Introduction, OpenError, Opened, open};
use super::lane::{ControlLane, LaneInfo};
use super::listen::tune;
use super::proof::{End, TicketSecret, code_mac, same, ticket_mac};
use super::records::RecordStream;
use super::tls::{EXPORTER_LABEL, Proven, WrongKey, client_config, proven, server_name, wrong_key};
use super::{DEFAULT_PORT, Net, Timeouts};

/// Most addresses of one device that are tried.
const MAX_ADDRESSES: usize = 32;
/// Most IP addresses of one host name that are tried.
const MAX_RESOLVED: usize = 8;

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

/// A connection whose other end is proven.
pub(super) struct Connected {
    pub(super) stream: TlsStream<RecordStream>,
    pub(super) proven: Proven,
    remote: SocketAddr,
    address: String,
    round_trip: Duration,
}

/// Why one address did not do.
enum Failure {
    Unreachable(String, String),
    WrongKey(String, WrongKey),
    NotLeft(String, String),
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

async fn connect_host(
    tls: TlsConnector,
    address: String,
    timeouts: Timeouts,
) -> Result<Connected, Vec<Failure>> {
    let unreachable = |reason: String| vec![Failure::Unreachable(address.clone(), reason)];
    let (host, port) = split_address(&address).map_err(|why| unreachable(why.into()))?;
    let found = match timeout(timeouts.connect, lookup_host((host, port))).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(unreachable(format!("unknown host: {error}"))),
        Err(_) => return Err(unreachable("the host name is not resolved in time".into())),
    };
    let attempts: Vec<_> = found
        .take(MAX_RESOLVED)
        .map(|remote| connect_ip(tls.clone(), address.clone(), remote, timeouts))
        .collect();
    if attempts.is_empty() {
        return Err(unreachable("the host name has no address".into()));
    }
    race(attempts, timeouts.stagger).await
}

async fn connect_ip(
    tls: TlsConnector,
    address: String,
    remote: SocketAddr,
    timeouts: Timeouts,
) -> Result<Connected, Failure> {
    let started = Instant::now();
    let stream = match timeout(timeouts.connect, TcpStream::connect(remote)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(Failure::Unreachable(address, reason(&error))),
        Err(_) => {
            let seconds = timeouts.connect.as_secs();
            let why = format!("no connection within {seconds} seconds");
            return Err(Failure::Unreachable(address, why));
        }
    };
    let round_trip = started.elapsed();
    let handshake = async {
        tune(&stream, &timeouts)?;
        let stream = RecordStream::new(stream);
        let stream = tls.connect(server_name(), stream).await?;
        let state = stream.get_ref().1;
        let proven = proven(state, |out| {
            state.export_keying_material(out, EXPORTER_LABEL, None)
        });
        Ok::<_, io::Error>((proven.map_err(io::Error::other)?, TlsStream::from(stream)))
    };
    match timeout(timeouts.opening, handshake).await {
        Ok(Ok((proven, stream))) => Ok(Connected {
            stream,
            proven,
            remote,
            address,
            round_trip,
        }),
        Ok(Err(error)) => Err(match wrong_key(&error) {
            Some(key) => Failure::WrongKey(address, key),
            None => Failure::NotLeft(address, error.to_string()),
        }),
        Err(_) => Err(Failure::NotLeft(address, "no TLS handshake in time".into())),
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there".into(),
        _ => error.to_string(),
    }
}

/// Starts one attempt after the other, `stagger` apart or as soon as one fails; the first success
/// wins and the others are given up (after RFC 8305, "Happy Eyeballs").
async fn race<T, E, F>(attempts: Vec<F>, stagger: Duration) -> Result<T, Vec<E>>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let mut waiting = attempts.into_iter();
    let mut running = JoinSet::new();
    let mut errors = Vec::new();
    loop {
        if let Some(next) = waiting.next() {
            running.spawn(next);
        } else if running.is_empty() {
            return Err(errors);
        }
        let more = !waiting.as_slice().is_empty();
        tokio::select! {
            Some(done) = running.join_next() => match done {
                Ok(Ok(won)) => return Ok(won),
                Ok(Err(error)) => errors.push(error),
                // An attempt that panicked has been reported by the panic itself.
                Err(_) => {}
            },
            () = sleep(stagger), if more => {}
        }
    }
}

/// `host`, `host:port`, `[v6]:port`, `[v6]` or a bare IPv6 address.
fn split_address(text: &str) -> Result<(&str, u16), &'static str> {
    let text = text.trim();
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("`]` is missing")?;
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err("after `]` only `:` and a port may follow"),
        }
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return Err("the host is missing");
    }
    let port = match port {
        Some(port) => port.parse().ok().filter(|p| *p != 0),
        None => Some(DEFAULT_PORT),
    };
    Ok((
        host,
        port.ok_or("the port is not a number from 1 to 65535")?,
    ))
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use super::*;

    #[test]
    fn addresses_as_people_write_them() {
        for (text, host, port) in [
            ("host", "host", DEFAULT_PORT),
            (" host:1 ", "host", 1),
            ("10.0.0.1:65535", "10.0.0.1", 65535),
            ("::1", "::1", DEFAULT_PORT),
            ("fe80::1%eth0", "fe80::1%eth0", DEFAULT_PORT),
            ("[::1]", "::1", DEFAULT_PORT),
            ("[::1]:7", "::1", 7),
        ] {
            assert_eq!(split_address(text), Ok((host, port)), "{text}");
        }
        for bad in [
            "",
            ":1",
            "host:",
            "host:0",
            "host:65536",
            "host:x",
            "[::1",
            "[::1]7",
            "[]:7",
        ] {
            assert!(split_address(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_race_does_not_wait_for_the_slow() {
        type Attempt = Pin<Box<dyn Future<Output = Result<u8, &'static str>> + Send>>;
        let never: fn() -> Attempt = || Box::pin(std::future::pending());
        let no: fn() -> Attempt = || Box::pin(async { Err("no") });
        let yes: fn() -> Attempt = || Box::pin(async { Ok(2) });
        let soon = Duration::from_millis(1);
        assert_eq!(race(vec![never(), yes()], soon).await, Ok(2));
        // A failure starts the next at once: with this stagger the test would never end.
        let late = Duration::from_secs(3600);
        assert_eq!(race(vec![no(), yes(), never()], late).await, Ok(2));
        assert_eq!(race(vec![no(), no()], late).await, Err(vec!["no", "no"]));
        assert_eq!(race(Vec::<Attempt>::new(), late).await, Err(vec![]));
    }
}
