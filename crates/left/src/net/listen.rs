//! Taking connections: accept, hand on at once, open the lane in a task of its own.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::data::{BlockingTls, DataLane};
use super::handshake::{AcceptError, Accepted, Gate, accept, linger};
use super::lane::{ControlLane, LaneInfo};
use super::limits::{Admission, LogBudget, Slot};
use super::records::RecordStream;
use super::tls::{Proven, proven};
use super::{NetError, NetEvent, Timeouts};

/// Connections the kernel holds until they are accepted.
const BACKLOG: i32 = 256;
/// After a failed accept (usually: no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long a refused device is given to read why.
const REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// What all accepting tasks share.
pub(super) struct Shared {
    pub(super) tls: TlsAcceptor,
    pub(super) gate: Arc<dyn Gate>,
    pub(super) on_event: Box<dyn Fn(NetEvent) + Send + Sync>,
    pub(super) timeouts: Timeouts,
    pub(super) admission: Admission,
    pub(super) runtime: Handle,
    pub(super) log: LogBudget,
}

/// Listens on `addr`. Must be called inside a tokio runtime.
///
/// SO_REUSEADDR lets a restarted process have its port back although connections of its former
/// run linger in TIME_WAIT. It does not let two live listeners share a port (SO_REUSEPORT would).
pub(super) fn bind(addr: SocketAddr) -> Result<TcpListener, NetError> {
    let any_v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), addr.port());
    match bind_to(addr) {
        // A system without IPv6: its IPv4 is all that `[::]` can mean.
        Err(NetError::Listen { error, .. })
            if addr.ip() == Ipv6Addr::UNSPECIFIED && no_ipv6(&error) =>
        {
            bind_to(any_v4)
        }
        done => done,
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn bind_to(addr: SocketAddr) -> Result<TcpListener, NetError> {
    let listen = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if cfg!(unix) {
            socket.set_reuse_address(true)?;
        }
        if addr.is_ipv6() {
            // `[::]` takes IPv4 as well, whatever the system's default is.
            socket.set_only_v6(!addr.ip().is_unspecified())?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    listen().map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => NetError::PortInUse { addr },
        _ => NetError::Listen { addr, error },
    })
}

/// Sets what every connection wants: no delay for small messages, dead peers noticed, and a line that
/// loses packets kept full.
pub(super) fn tune(stream: &TcpStream, timeouts: &Timeouts) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    // The kernel counts whole seconds.
    let every = timeouts.ping.max(Duration::from_secs(1));
    let keepalive = TcpKeepalive::new().with_time(every).with_interval(every);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(timeouts.stalled))?;
    #[cfg(target_os = "linux")]
    prefer_bbr(&socket);
    Ok(())
}

/// Sends at the rate that is measured (Cardwell et al., "BBR: Congestion-Based Congestion Control",
/// ACM Queue 2016), where the kernel has that and nobody chose anything but its usual ways: those take
/// each lost packet for too much traffic, and over a long line with one loss in a hundred use a
/// hundredth of it.
#[cfg(target_os = "linux")]
fn prefer_bbr(socket: &SockRef<'_>) {
    let usual = socket.tcp_congestion().is_ok_and(|name| {
        let name = name.split(|byte| *byte == 0).next();
        matches!(name, Some(b"cubic" | b"reno"))
    });
    if usual {
        // Refused where the kernel does not have it: then it stays as it is.
        let _ = socket.set_tcp_congestion(b"bbr");
    }
}

/// Accepts until dropped; openings under way are dropped with it.
pub(super) async fn run(listener: TcpListener, shared: Arc<Shared>) {
    let mut openings = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = openings.join_next() => continue,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let Some((slot, opening)) = shared.admission.enter(remote.ip()) else {
            if shared.log.take(Instant::now()) {
                tracing::warn!(%remote, "too many connections: dropped one");
            }
            continue;
        };
        let shared = shared.clone();
        openings.spawn(async move {
            // The place among the openings is held until the lane is open or refused.
            let _opening = opening;
            open(stream, remote, slot, &shared).await;
        });
    }
}

async fn open(stream: TcpStream, remote: SocketAddr, slot: Slot, shared: &Shared) {
    let limit = shared.timeouts.opening;
    let handshake = async {
        tune(&stream, &shared.timeouts)?;
        let stream = shared.tls.accept(RecordStream::new(stream)).await?;
        let tls = stream.get_ref().1;
        let proven = proven(tls, |out| {
            tls.export_keying_material(out, super::tls::EXPORTER_LABEL, None)
        });
        Ok::<_, io::Error>((proven.map_err(io::Error::other)?, TlsStream::from(stream)))
    };
    let started = Instant::now();
    let (proven, mut stream) = match timeout(limit, handshake).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => return shared.stranger(remote, &error.to_string()),
        Err(_) => return shared.stranger(remote, "no TLS handshake in time"),
    };
    let left = limit.saturating_sub(started.elapsed());
    // Its first words were there already; the handshake is over when it has answered ours.
    let proven = (proven, started.elapsed());
    let hello = accept(&mut stream, &proven.0, remote, shared.gate.clone(), limit);
    match timeout(left, hello).await {
        Ok(Ok(accepted)) => shared.opened(accepted, &proven, remote, stream, slot),
        Ok(Err(AcceptError::Refused(refused))) => {
            let peer = proven.0.peer;
            if shared.log.take(Instant::now()) {
                let code = refused.code;
                // The gate has said why, where it matters.
                tracing::debug!(%remote, %peer, ?code, reason = ?refused.reason, "refused a device");
            }
            linger(&mut stream, REFUSAL_LINGER).await;
        }
        Ok(Err(error)) => shared.stranger(remote, &error.to_string()),
        Err(_) => shared.stranger(remote, "no hello in time"),
    }
}

impl Shared {
    /// Someone who is no LEFT device, or a broken one: scanners are everyday life.
    fn stranger(&self, remote: SocketAddr, why: &str) {
        if self.log.take(Instant::now()) {
            tracing::info!(%remote, why, "dropped a connection");
        } else {
            tracing::debug!(%remote, why, "dropped a connection");
        }
    }

    fn opened(
        &self,
        accepted: Accepted,
        (proven, round_trip): &(Proven, Duration),
        remote: SocketAddr,
        stream: TlsStream<RecordStream>,
        slot: Slot,
    ) {
        match accepted {
            Accepted::Control {
                welcome,
                from,
                parts,
            } => {
                let info = LaneInfo {
                    peer: proven.peer,
                    share: welcome.share,
                    dialer_role: welcome.role,
                    remote,
                    name: from.name,
                    addresses: from.addresses,
                    instance: from.instance,
                    session: welcome.session,
                    dialed_by_us: false,
                    parts,
                    round_trip: *round_trip,
                };
                (self.on_event)(NetEvent::Control(ControlLane {
                    info,
                    stream: Box::new(stream),
                    timeouts: self.timeouts,
                    runtime: self.runtime.clone(),
                    slot: Some(slot),
                }));
            }
            Accepted::Data {
                session,
                share,
                dialer_serves,
                express,
                zstd,
            } => match BlockingTls::new(stream, self.timeouts.stalled, Some(slot)) {
                Ok(stream) => (self.on_event)(NetEvent::Data(DataLane {
                    peer: proven.peer,
                    session,
                    share,
                    we_serve: !dialer_serves,
                    express,
                    zstd,
                    round_trip: *round_trip,
                    stream,
                })),
                Err(error) => self.stranger(remote, &error.to_string()),
            },
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{SockRef, prefer_bbr};

    #[test]
    fn bbr_is_taken_where_the_kernel_has_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = SockRef::from(&stream);
        socket.set_tcp_congestion(b"reno").unwrap();
        let list = "/proc/sys/net/ipv4/tcp_available_congestion_control";
        let has = std::fs::read_to_string(list).unwrap();
        let has = has.split_whitespace().any(|name| name == "bbr");
        prefer_bbr(&socket);
        let now = socket.tcp_congestion().unwrap();
        let wanted: &[u8] = if has { b"bbr\0" } else { b"reno\0" };
        assert!(now.starts_with(wanted), "{now:?}");
    }
}
