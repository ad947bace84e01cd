//! Which of a device's addresses answers first.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsConnector, TlsStream};

use super::listen::tune;
use super::records::RecordStream;
use super::tls::{EXPORTER_LABEL, Proven, WrongKey, proven, server_name, wrong_key};
use super::{DEFAULT_PORT, Timeouts};

/// Most IP addresses of one host name that are tried.
const MAX_RESOLVED: usize = 8;

/// A connection whose other end is proven.
pub(super) struct Connected {
    pub(super) stream: TlsStream<RecordStream>,
    pub(super) proven: Proven,
    pub(super) remote: SocketAddr,
    pub(super) address: String,
    pub(super) round_trip: Duration,
}

/// Why one address did not do.
pub(super) enum Failure {
    Unreachable(String, String),
    WrongKey(String, WrongKey),
    NotLeft(String, String),
}

/// Connects to the first address of a host that answers.
pub(super) async fn connect_host(
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
pub(super) async fn race<T, E, F>(attempts: Vec<F>, stagger: Duration) -> Result<T, Vec<E>>
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
