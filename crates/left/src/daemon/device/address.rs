//! Where this device listens, and where it says that it can be reached.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use super::super::handle::{Listen, Options, UserError};
use crate::net::DEFAULT_PORT;

pub(crate) fn listen_addrs(listen: &Listen) -> Result<Vec<SocketAddr>, UserError> {
    let Some(host) = &listen.host else {
        let any = IpAddr::from([0_u8; 16]);
        // Without IPv6 in the kernel, IPv4 alone.
        let v6 = std::net::UdpSocket::bind((any, 0)).is_ok();
        let any = if v6 { any } else { IpAddr::from([0_u8; 4]) };
        return Ok(vec![SocketAddr::new(any, listen.port)]);
    };
    let addrs = (host.as_str(), listen.port)
        .to_socket_addrs()
        .map_err(|e| {
            UserError::new(
                format!("cannot listen on {host}"),
                e,
                "give an address of this machine to --listen",
            )
        })?;
    Ok(addrs.take(1).collect())
}

/// Where peers reach this device.
pub(crate) fn advertised(options: &Options, local: &[SocketAddr]) -> Vec<String> {
    let port = local.first().map_or(DEFAULT_PORT, SocketAddr::port);
    if !options.advertise.is_empty() {
        return options
            .advertise
            .iter()
            .map(|a| with_port(a, port))
            .collect();
    }
    let fixed = local
        .first()
        .map(SocketAddr::ip)
        .filter(|ip| !ip.is_unspecified());
    if let Some(ip) = fixed {
        return vec![SocketAddr::new(ip, port).to_string()];
    }
    let mut all: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .iter()
        .map(if_addrs::Interface::ip)
        .filter(|ip| match ip {
            IpAddr::V4(ip) => !ip.is_link_local(),
            // Link-local addresses mean nothing without their interface.
            IpAddr::V6(ip) => (ip.segments()[0] & 0xffc0) != 0xfe80,
        })
        .collect();
    // Loopback last: it is right only for a second device on this machine.
    all.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    all.into_iter()
        .map(|ip| SocketAddr::new(ip, port).to_string())
        .collect()
}

pub(super) fn with_port(address: &str, port: u16) -> String {
    let has_port = match address.rfind(':') {
        Some(at) if address.starts_with('[') => address[..at].ends_with(']'),
        Some(at) => !address[..at].contains(':'),
        None => false,
    };
    match (has_port, address.contains(':') && !address.starts_with('[')) {
        (true, _) => address.to_owned(),
        (false, true) => format!("[{address}]:{port}"),
        (false, false) => format!("{address}:{port}"),
    }
}
