//! Lanes between devices: listening, dialing, identity, encryption.
//!
//! [`Net`] listens and dials. Every connection is TLS 1.3 between two Ed25519 keys ([`tls`]),
//! opened by one Hello and one HelloReply ([`handshake`]), and then is either a
//! [`ControlLane`] (messages; runs on tokio) or a [`DataLane`] (bulk bytes; a blocking stream for
//! a plain thread).
//!
//! Absent on purpose: certificates, session resumption, early data, locks held across modules.
//! What the lanes carry is not looked at here.

pub mod code;
mod data;
mod dial;
mod frame;
pub mod handshake;
mod lane;
mod limits;
mod listen;
pub mod nearby;
mod outbox;
pub mod outlook;
pub mod proof;
mod raw;
mod reach;
mod records;
pub mod settle;
pub mod tls;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use left_core::version::DeviceId;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

pub use data::{BlockingTls, Counters, DataLane, ShutdownHandle, TlsReader, TlsWriter};
pub use dial::{DialControl, DialData, DialError, DialPair};
pub use handshake::{Admitted, Gate, Introduction, Paired, Visitor};
pub use lane::{
    ControlLane, ControlSender, Incoming, LaneEnd, LaneEvent, LaneInfo, MAX_UNTAKEN,
    MAX_UNTAKEN_BYTES, SendError,
};
pub use limits::Limits;
#[doc(hidden)]
pub use raw::RawStream;
pub use tls::{DeviceKey, WrongKey, is_signed};

use limits::{Admission, Slot};

/// The port LEFT listens on where nothing else is said.
pub const DEFAULT_PORT: u16 = 20201;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// One TCP connection attempt.
    pub connect: Duration,
    /// TLS, Hello and HelloReply together.
    pub opening: Duration,
    /// A control lane that sent nothing for so long sends a ping.
    pub ping: Duration,
    /// A control lane that received nothing for so long is dead.
    pub silence: Duration,
    /// A control lane that is doubted and receives nothing for so long is dead.
    pub probe: Duration,
    /// A peer that takes nothing for so long, while something is to be sent, is dropped.
    pub stalled: Duration,
    /// The next of several addresses is tried after this, while the earlier still try.
    pub stagger: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            opening: Duration::from_secs(10),
            ping: Duration::from_secs(15),
            silence: Duration::from_secs(45),
            probe: Duration::from_secs(1),
            stalled: Duration::from_secs(30),
            stagger: Duration::from_millis(150),
        }
    }
}

/// What [`Net::start`] needs.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Who this device is.
    pub key: Arc<DeviceKey>,
    /// Where to listen; `[::]` takes IPv4 too. Empty: only dial.
    pub listen: Vec<SocketAddr>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How many connections are taken.
    pub limits: Limits,
    /// Where the network's tasks run.
    pub runtime: Handle,
}

impl NetConfig {
    /// Usual timeouts and limits.
    pub fn new(key: Arc<DeviceKey>, listen: Vec<SocketAddr>, runtime: Handle) -> Self {
        Self {
            key,
            listen,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            runtime,
        }
    }
}

/// A lane that another device opened.
#[derive(Debug)]
pub enum NetEvent {
    /// A control lane, admitted by the gate.
    Control(ControlLane),
    /// A data lane, admitted by the gate.
    Data(DataLane),
}

/// Why the network does not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Another process listens there.
    #[error(
        "port {} is in use by another program ({addr}); stop it or choose another with --listen",
        addr.port()
    )]
    PortInUse {
        /// The wanted address.
        addr: SocketAddr,
    },
    /// The system refuses to listen there.
    #[error("cannot listen on {addr}: {error}; choose another with --listen")]
    Listen {
        /// The wanted address.
        addr: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// TLS cannot be set up with this key.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// The network of this device. Listening stops soon after it is dropped, and at once with
/// [`stop`](Self::stop); open lanes live on.
#[derive(Debug)]
pub struct Net {
    key: Arc<DeviceKey>,
    timeouts: Timeouts,
    runtime: Handle,
    local: Vec<SocketAddr>,
    accepting: Vec<JoinHandle<()>>,
}

impl Net {
    /// Binds all addresses, then accepts. Each lane that `gate` admits goes to `on_event`, which
    /// must not block; typically it forwards into a channel.
    pub fn start(
        config: NetConfig,
        gate: Arc<dyn Gate>,
        on_event: impl Fn(NetEvent) + Send + Sync + 'static,
    ) -> Result<Self, NetError> {
        let NetConfig {
            key,
            listen,
            timeouts,
            limits,
            runtime,
        } = config;
        let shared = Arc::new(listen::Shared {
            tls: tls::server_config(&key)?.into(),
            gate,
            on_event: Box::new(on_event),
            timeouts,
            admission: Admission::new(limits),
            runtime: runtime.clone(),
            log: limits::LogBudget::default(),
        });
        let _inside = runtime.enter();
        let mut local = Vec::new();
        let mut listeners = Vec::new();
        for addr in listen {
            let listener = listen::bind(addr)?;
            let bound = listener.local_addr();
            local.push(bound.map_err(|error| NetError::Listen { addr, error })?);
            listeners.push(listener);
        }
        let accepting = listeners
            .into_iter()
            .map(|listener| runtime.spawn(listen::run(listener, shared.clone())))
            .collect();
        Ok(Self {
            key,
            timeouts,
            runtime,
            local,
            accepting,
        })
    }

    /// This device.
    pub fn id(&self) -> DeviceId {
        self.key.id()
    }

    /// The addresses listened on, with the real port where 0 was asked for.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local
    }

    /// Stops listening and returns when the ports are free again.
    pub async fn stop(mut self) {
        for task in self.accepting.drain(..) {
            task.abort();
            let _ = task.await;
        }
    }

    /// For plain threads: `net.runtime().block_on(net.dial_control(..))`.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for task in &self.accepting {
            task.abort();
        }
    }
}
