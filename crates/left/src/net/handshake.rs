//! Opening a lane: Hello from the dialer, HelloReply from the acceptor, inside TLS.
//!
//! Both ends already know each other's keys from TLS. The acceptor's [`Gate`] decides who may
//! enter. To a device that may not, every refusal looks the same, so it learns nothing about
//! which shares, tickets or codes exist here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use left_core::message::{
    Hello, HelloReply, LaneHello, MAX_HELLO, Nonce, PROTOCOL, Refused, RefusedCode, Role, ShareId,
    TicketProof, Welcome,
};
use left_core::version::DeviceId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::frame::{FrameError, framed, read_body, read_len, write_all};
use super::proof::Mac;
use super::tls::{Exporter, Proven};

/// What a device says of itself when a lane opens.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Introduction {
    /// This process' run.
    pub instance: Nonce,
    /// How the device is called.
    pub name: String,
    /// Where it may be dialed, `host:port`.
    pub addresses: Vec<String>,
}

/// Who knocks.
#[derive(Clone, Copy)]
pub struct Visitor {
    /// Its key, proven by TLS.
    pub peer: DeviceId,
    /// Where it comes from.
    pub remote: SocketAddr,
    /// What its proofs must be bound to.
    pub exporter: Exporter,
}

/// What a device asks that wants a control lane.
#[derive(Clone, Debug)]
pub struct ControlRequest {
    /// Which share.
    pub share: ShareId,
    /// Who asks.
    pub from: Introduction,
    /// For one who is not yet a member: check with [`super::proof::ticket_mac`].
    pub ticket: Option<TicketProof>,
}

/// What a device asks that wants to pair.
#[derive(Clone, Debug)]
pub struct PairRequest {
    /// Check with [`super::proof::code_mac`] and [`super::proof::same`].
    pub mac: Mac,
    /// The dialer's share, if its folder is one already.
    pub share: Option<ShareId>,
    /// Who asks.
    pub from: Introduction,
}

/// A device may enter a share.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// Which share.
    pub share: ShareId,
    /// What the dialer may do there.
    pub role: Role,
    /// Random; names this control lane for its data lanes.
    pub session: Nonce,
    /// What this device says of itself.
    pub me: Introduction,
}

/// A pairing succeeded.
#[derive(Clone, Debug)]
pub struct Paired {
    /// The lane, in the share both now belong to.
    pub admitted: Admitted,
    /// This end's proof of the code.
    pub mac: Mac,
}

/// Decides who may enter. Called on a thread where blocking is allowed; it should answer soon,
/// because the dialer waits no longer than the opening may last.
///
/// Answer unknown devices, shares, sessions, tickets and codes all with [`not_admitted`].
pub trait Gate: Send + Sync {
    /// A control lane is asked for.
    fn control(&self, visitor: &Visitor, request: &ControlRequest) -> Result<Admitted, Refused>;
    /// A data lane is asked for; `session` is unproven: check that it is this peer's.
    fn data(&self, visitor: &Visitor, session: Nonce) -> Result<ShareId, Refused>;
    /// A pairing is asked for.
    fn pair(&self, visitor: &Visitor, request: &PairRequest) -> Result<Paired, Refused>;
    /// A control lane that was admitted with this session does not come: its dialer was gone before it
    /// was told.
    fn control_lost(&self, _session: Nonce) {}
    /// Nor does a data lane of this session.
    fn data_lost(&self, _session: Nonce) {}
}

/// The one refusal for everything unknown.
pub fn not_admitted() -> Refused {
    Refused {
        code: RefusedCode::NotAdmitted,
        reason: "not admitted".into(),
    }
}

/// Program and version, for the other end's log.
pub(super) fn agent() -> String {
    concat!("left ", env!("CARGO_PKG_VERSION")).into()
}

/// The sender takes compressed payloads on data lanes, and says in its requests when they are worth it.
const ZSTD: &str = "zstd";

/// The sender understands what its peers tell of contents that they are fetching, and serves them.
const PARTS: &str = "parts";

/// What this program knows beyond what all do. Names that are unknown here are ignored.
fn features() -> Vec<String> {
    vec![ZSTD.into(), PARTS.into()]
}

fn knows(features: &[String], name: &str) -> bool {
    features.iter().any(|f| f == name)
}

/// An opened lane as the acceptor sees it.
pub(super) enum Accepted {
    /// A control lane (also after a pairing).
    Control {
        /// What it was told.
        welcome: Admitted,
        /// Who it is.
        from: Introduction,
        /// It takes and tells [`PARTS`].
        parts: bool,
    },
    /// A data lane.
    Data {
        session: Nonce,
        share: ShareId,
        dialer_serves: bool,
        express: bool,
        zstd: bool,
    },
}

/// Why an opening failed on the acceptor's side.
#[derive(Debug, thiserror::Error)]
pub(super) enum AcceptError {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Malformed(String),
    #[error("refused: {}", .0.reason)]
    Refused(Refused),
}

/// The acceptor's side, after TLS. The caller bounds the whole by a timeout.
pub(super) async fn accept(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proven: &Proven,
    remote: SocketAddr,
    gate: Arc<dyn Gate>,
    limit: Duration,
) -> Result<Accepted, AcceptError> {
    let len = read_len(stream, MAX_HELLO, limit).await?;
    let bytes = read_body(stream, len, limit).await?;
    let visitor = Visitor {
        peer: proven.peer,
        remote,
        exporter: proven.exporter,
    };
    let verdict = match decode_hello(&bytes) {
        Err(HelloFault::Malformed(why)) => return Err(AcceptError::Malformed(why)),
        Err(HelloFault::Protocol(theirs)) => Err(wrong_protocol(theirs)),
        Ok(hello) => ask(gate, visitor, hello).await,
    };
    let mut untold = None;
    let (outcome, opened) = match verdict {
        Ok((welcome, opened, admission)) => {
            untold = Some(admission);
            (Ok(welcome), Ok(opened))
        }
        Err(mut refused) => {
            let told = refused.clone();
            if refused.code == RefusedCode::NotAdmitted {
                // Whatever the gate's reason was, it stays in our log.
                refused = not_admitted();
            }
            (Err(refused), Err(AcceptError::Refused(told)))
        }
    };
    let reply = HelloReply {
        protocol: PROTOCOL,
        agent: agent(),
        features: features(),
        outcome,
    };
    write_all(stream, &framed(&reply.encode()), limit)
        .await
        .map_err(FrameError::from)?;
    stream.flush().await.map_err(FrameError::from)?;
    if let Some(admission) = untold {
        admission.told();
    }
    opened
}

/// What the gate has let in. Dropped before the dialer was told, also with the task that waits to tell it,
/// the gate hears that nobody comes.
struct Admission {
    gate: Arc<dyn Gate>,
    session: Nonce,
    is_data: bool,
    is_told: bool,
}

impl Admission {
    fn told(mut self) {
        self.is_told = true;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        match (self.is_told, self.is_data) {
            (true, _) => {}
            (_, true) => self.gate.data_lost(self.session),
            (_, false) => self.gate.control_lost(self.session),
        }
    }
}

async fn ask(
    gate: Arc<dyn Gate>,
    visitor: Visitor,
    hello: Hello,
) -> Result<(Welcome, Accepted, Admission), Refused> {
    let enter = move || {
        let (welcome, accepted) = decide(&*gate, &visitor, hello)?;
        let (session, is_data) = match &accepted {
            Accepted::Control { welcome, .. } => (welcome.session, false),
            Accepted::Data { session, .. } => (*session, true),
        };
        let admission = Admission {
            gate,
            session,
            is_data,
            is_told: false,
        };
        Ok((welcome, accepted, admission))
    };
    // The gate may write to disk (a ticket is spent durably), so not on the runtime's threads.
    tokio::task::spawn_blocking(enter)
        .await
        .unwrap_or_else(|_| Err(not_admitted()))
}

fn decide(
    gate: &dyn Gate,
    visitor: &Visitor,
    hello: Hello,
) -> Result<(Welcome, Accepted), Refused> {
    let zstd = knows(&hello.features, ZSTD);
    let parts = knows(&hello.features, PARTS);
    match hello.lane {
        LaneHello::Control {
            share,
            instance,
            name,
            addresses,
            ticket,
        } => {
            let from = Introduction {
                instance,
                name,
                addresses,
            };
            let request = ControlRequest {
                share,
                from,
                ticket,
            };
            let admitted = gate.control(visitor, &request)?;
            Ok(welcome(admitted, None, request.from, parts))
        }
        LaneHello::Pair {
            mac,
            share,
            instance,
            name,
            addresses,
        } => {
            let from = Introduction {
                instance,
                name,
                addresses,
            };
            let request = PairRequest { mac, share, from };
            let paired = gate.pair(visitor, &request)?;
            let mac = Some(paired.mac);
            Ok(welcome(paired.admitted, mac, request.from, parts))
        }
        LaneHello::Data {
            session,
            dialer_serves,
            express,
        } => {
            let share = gate.data(visitor, session)?;
            let welcome = Welcome {
                session: [0; 16],
                instance: [0; 16],
                name: String::new(),
                addresses: Vec::new(),
                mac: None,
                share: None,
                role: Role::ReadOnly,
            };
            let opened = Accepted::Data {
                session,
                share,
                dialer_serves,
                express,
                zstd,
            };
            Ok((welcome, opened))
        }
    }
}

fn welcome(
    admitted: Admitted,
    mac: Option<Mac>,
    from: Introduction,
    parts: bool,
) -> (Welcome, Accepted) {
    let told = Welcome {
        session: admitted.session,
        instance: admitted.me.instance,
        name: admitted.me.name.clone(),
        addresses: admitted.me.addresses.clone(),
        // The share is told only where the dialer proved a code and may not know it.
        share: mac.is_some().then_some(admitted.share),
        mac,
        role: admitted.role,
    };
    let opened = Accepted::Control {
        welcome: admitted,
        from,
        parts,
    };
    (told, opened)
}

/// Why the dialer did not get its lane from one who answered.
#[derive(Debug)]
pub(super) enum OpenError {
    Frame(FrameError),
    Malformed(String),
    Protocol(u32),
    Refused(Refused),
}

impl From<FrameError> for OpenError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

/// What the acceptor said.
pub(super) struct Opened {
    pub(super) welcome: Welcome,
    /// It takes compressed payloads.
    pub(super) zstd: bool,
    /// It takes and tells parts of contents that are being fetched.
    pub(super) parts: bool,
}

/// The dialer's side, after TLS. The caller bounds the whole by a timeout.
pub(super) async fn open(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    lane: LaneHello,
    limit: Duration,
) -> Result<Opened, OpenError> {
    let hello = Hello {
        protocol: PROTOCOL,
        agent: agent(),
        features: features(),
        lane,
    };
    write_all(stream, &framed(&hello.encode()), limit)
        .await
        .map_err(FrameError::from)?;
    stream.flush().await.map_err(FrameError::from)?;
    let len = read_len(stream, MAX_HELLO, limit).await?;
    let bytes = read_body(stream, len, limit).await?;
    let theirs = peek_protocol(&bytes);
    if theirs.is_some_and(|v| v != PROTOCOL) {
        return Err(OpenError::Protocol(theirs.unwrap_or_default()));
    }
    let reply = HelloReply::decode(&bytes).map_err(|e| OpenError::Malformed(e.to_string()))?;
    if reply.protocol != PROTOCOL {
        return Err(OpenError::Protocol(reply.protocol));
    }
    let zstd = knows(&reply.features, ZSTD);
    let parts = knows(&reply.features, PARTS);
    let welcome = reply.outcome.map_err(OpenError::Refused)?;
    Ok(Opened {
        welcome,
        zstd,
        parts,
    })
}

enum HelloFault {
    Malformed(String),
    Protocol(u32),
}

fn decode_hello(bytes: &[u8]) -> Result<Hello, HelloFault> {
    // A later version's Hello may be unreadable here: its number is looked at first.
    if let Some(theirs) = peek_protocol(bytes).filter(|v| *v != PROTOCOL) {
        return Err(HelloFault::Protocol(theirs));
    }
    let hello = Hello::decode(bytes).map_err(|e| HelloFault::Malformed(e.to_string()))?;
    if hello.protocol != PROTOCOL {
        return Err(HelloFault::Protocol(hello.protocol));
    }
    Ok(hello)
}

fn wrong_protocol(theirs: u32) -> Refused {
    Refused {
        code: RefusedCode::Protocol,
        reason: format!(
            "this device speaks LEFT protocol {PROTOCOL}, yours speaks {theirs}; update the older one"
        ),
    }
}

/// The first field of Hello and HelloReply in all versions: field 1, a varint.
fn peek_protocol(bytes: &[u8]) -> Option<u32> {
    const FIELD_1_VARINT: u8 = 0x08;
    let rest = bytes.strip_prefix(&[FIELD_1_VARINT])?;
    let mut value = 0_u32;
    for (at, byte) in rest.iter().take(5).enumerate() {
        value |= u32::from(byte & 0x7f).checked_shl(7 * at as u32)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Ends a connection so that what was written last still arrives: closing a socket with unread
/// input would reset it, and the reset may overtake the words.
pub(super) async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), limit: Duration) {
    let drain = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut sink = [0; 4096];
        while matches!(stream.read(&mut sink).await, Ok(n) if n > 0) {}
    };
    let _ = timeout(limit, drain).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_protocol_in_front_of_anything() {
        assert_eq!(peek_protocol(&[8, 1]), Some(1));
        assert_eq!(peek_protocol(&[8, 0xac, 2, 99, 99]), Some(300));
        assert_eq!(
            peek_protocol(&[8, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            Some(u32::MAX)
        );
        assert_eq!(
            peek_protocol(&[8, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80]),
            None
        );
        assert_eq!(peek_protocol(&[8]), None);
        assert_eq!(peek_protocol(b""), None);
        assert_eq!(peek_protocol(b"GET / HTTP/1.1"), None);
    }
}
