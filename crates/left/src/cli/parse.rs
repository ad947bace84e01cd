//! Times, sizes and addresses as people type them.

use std::time::Duration;

use bytesize::ByteSize;

use crate::daemon::handle::{DEFAULT_PORT, Listen};
use crate::home::UserError;

/// `60s`, `500ms`, `15m`, `1h30m`, `1d`, `2w`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, UserError> {
    let wrong = || {
        UserError::usage(
            format!("cannot read the time `{text}`"),
            "it is no number with a unit",
            "write it like 500ms, 60s, 15m, 1h30m, 1d or 2w",
        )
    };
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let millis = match &rest[..letters] {
            "ms" => 1,
            "" | "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        let part = number.checked_mul(millis).ok_or_else(wrong)?;
        total = total
            .checked_add(Duration::from_millis(part))
            .ok_or_else(wrong)?;
    }
    Ok(total)
}

/// `500MB`, `64MiB`, `1000000`.
pub(super) fn size(text: &str) -> Result<u64, UserError> {
    text.parse::<ByteSize>().map(|s| s.as_u64()).map_err(|_| {
        UserError::usage(
            format!("cannot read the size `{text}`"),
            "it is no number of bytes",
            "write it like 500MB, 64MiB or 1000000",
        )
    })
}

/// `20201`, `:20201`, `0.0.0.0:20201`, `host`, `[::1]:20201`, `::1`.
pub(super) fn listen(text: &str) -> Result<Listen, UserError> {
    let text = text.trim();
    if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        return Ok(Listen { host: None, port });
    }
    // The system would take it for an address.
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad_address(text, "a port is a number up to 65535"));
    }
    let (host, port) = host_port(text)?;
    let port = port.unwrap_or(DEFAULT_PORT);
    Ok(Listen {
        host: Some(host),
        port,
    })
}

/// `HOST` or `HOST:PORT`; the default port is filled in.
pub(super) fn peer(text: &str) -> Result<String, UserError> {
    let (host, port) = host_port(text.trim())?;
    match port {
        Some(0) => Err(bad_address(text, "port 0 cannot be dialed")),
        port => Ok(join(&host, port.unwrap_or(DEFAULT_PORT))),
    }
}

/// `HOST` or `HOST:PORT`, as typed.
pub(super) fn advertise(text: &str) -> Result<String, UserError> {
    let (host, port) = host_port(text.trim())?;
    Ok(match port {
        Some(0) => return Err(bad_address(text, "port 0 cannot be dialed")),
        Some(port) => join(&host, port),
        None => host,
    })
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn host_port(text: &str) -> Result<(String, Option<u16>), UserError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else {
            return Err(bad_address(text, "the bracket is not closed"));
        };
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(bad_address(text, "after the bracket only :PORT may follow")),
        }
    } else if text.matches(':').count() > 1 {
        // A bare IPv6 address.
        (text, None)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return Err(bad_address(text, "the host is missing"));
    }
    let v6 = host.contains(':');
    let name = |c: char| c.is_alphanumeric() || "-._".contains(c);
    if v6
        && host
            .split('%')
            .next()
            .is_none_or(|h| h.parse::<std::net::Ipv6Addr>().is_err())
    {
        return Err(bad_address(text, "it is no IPv6 address"));
    }
    if !v6 && (host.len() > 253 || host.starts_with('-') || !host.chars().all(name)) {
        return Err(bad_address(text, "it is no host name or address"));
    }
    let port = match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(port)) => Some(port),
        Some(Err(_)) => return Err(bad_address(text, "the port is no number up to 65535")),
    };
    Ok((host.to_string(), port))
}

fn bad_address(text: &str, why: &str) -> UserError {
    let todo = "write it like 10.0.0.2, host.example or 10.0.0.2:20201";
    UserError::usage(format!("cannot read the address `{text}`"), why, todo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, millis) in [
            ("60s", 60_000),
            ("500ms", 500),
            ("15m", 900_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("2w", 14 * 86_400_000),
            ("7", 7000),
            ("0s", 0),
        ] {
            assert_eq!(
                duration(text).unwrap(),
                Duration::from_millis(millis),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "-1s",
            "1x",
            "1.5h",
            "99999999999999999999s",
            "99999999999999w",
        ] {
            let e = duration(text).unwrap_err();
            assert_eq!(e.exit_code, 2, "{text}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("500MB").unwrap(), 500_000_000);
        assert_eq!(size("64MiB").unwrap(), 64 << 20);
        assert_eq!(size("1000").unwrap(), 1000);
        assert!(size("big").is_err());
    }

    #[test]
    fn listening_addresses() {
        let at = |host: Option<&str>, port| Listen {
            host: host.map(str::to_string),
            port,
        };
        for (text, expected) in [
            (":20202", at(None, 20202)),
            ("20202", at(None, 20202)),
            ("0", at(None, 0)),
            ("0.0.0.0:1", at(Some("0.0.0.0"), 1)),
            ("127.0.0.1", at(Some("127.0.0.1"), 20201)),
            ("attic.example", at(Some("attic.example"), 20201)),
            ("[::1]:7", at(Some("::1"), 7)),
            ("::1", at(Some("::1"), 20201)),
        ] {
            assert_eq!(listen(text).unwrap(), expected, "{text}");
        }
        for text in [
            "", ":", "a b", "h:70000", "h:x", "[::1", "[::1]7", "g::1", "-x",
        ] {
            assert!(listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn peers() {
        assert_eq!(peer("10.0.0.2").unwrap(), "10.0.0.2:20201");
        assert_eq!(peer(" host:7 ").unwrap(), "host:7");
        assert_eq!(peer("::1").unwrap(), "[::1]:20201");
        assert_eq!(peer("fe80::1%eth0").unwrap(), "[fe80::1%eth0]:20201");
        assert!(peer("host:0").is_err());
        assert_eq!(advertise("host").unwrap(), "host");
        assert_eq!(advertise("[::1]:7").unwrap(), "[::1]:7");
    }
}
