//! One interface, for one family of addresses, and its multicast socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use if_addrs::{IfAddr, Interface};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::{PORT, is_link_local};

/// Interfaces (each family counts) that are attended at most.
const MAX_PLACES: usize = 32;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// As RFC 6762 section 11 asks.
const HOPS: u32 = 255;

/// See the module's text.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) name: String,
    index: u32,
    /// IPv4 addresses with the length of the network's prefix, or IPv6 link-local addresses.
    addresses: Vec<(IpAddr, u8)>,
}

/// All places where others may be found.
pub(super) fn all() -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for interface in if_addrs::get_if_addrs().unwrap_or_default() {
        let Some((index, address)) = usable(&interface) else {
            continue;
        };
        let same = |p: &Place| p.index == index && p.is_v4() == address.0.is_ipv4();
        match places.iter().position(same) {
            Some(at) => places[at].addresses.push(address),
            None if places.len() < MAX_PLACES => places.push(Place {
                name: interface.name.clone(),
                index,
                addresses: vec![address],
            }),
            None => {}
        }
    }
    places
}

fn usable(interface: &Interface) -> Option<(u32, (IpAddr, u8))> {
    let index = interface.index.filter(|i| *i != 0)?;
    if interface.is_loopback() {
        return None;
    }
    match &interface.addr {
        IfAddr::V4(addr) => Some((index, (addr.ip.into(), addr.prefixlen))),
        IfAddr::V6(addr) if is_link_local(addr.ip.into()) => Some((index, (addr.ip.into(), 64))),
        IfAddr::V6(_) => None,
    }
}

impl Place {
    fn is_v4(&self) -> bool {
        self.addresses.first().is_some_and(|(ip, _)| ip.is_ipv4())
    }

    /// One of this device's addresses there.
    pub(super) fn ip(&self) -> IpAddr {
        let none = IpAddr::from([0_u8; 4]);
        self.addresses.first().map_or(none, |(ip, _)| *ip)
    }

    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|(own, _)| *own == ip)
    }

    pub(super) fn group(&self) -> SocketAddr {
        match self.is_v4() {
            true => (GROUP_V4, PORT).into(),
            false => SocketAddrV6::new(GROUP_V6, PORT, 0, self.index).into(),
        }
    }

    /// Whether a packet from there can have come over this interface alone.
    pub(super) fn is_neighbour(&self, from: IpAddr) -> bool {
        match from {
            IpAddr::V4(from) => self.addresses.iter().any(|(own, prefix)| match own {
                IpAddr::V4(own) => {
                    let shift = 32 - u32::from((*prefix).min(32));
                    let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
                    u32::from(*own) & mask == u32::from(from) & mask
                }
                IpAddr::V6(_) => false,
            }),
            IpAddr::V6(_) => !self.is_v4() && is_link_local(from),
        }
    }

    /// The address to dial; link-local ones mean nothing without their interface.
    pub(super) fn dialable(&self, ip: IpAddr, port: u16) -> SocketAddr {
        match ip {
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, self.index).into(),
            IpAddr::V4(_) => SocketAddr::new(ip, port),
        }
    }

    /// The socket of this place, in the runtime that is entered.
    pub(super) fn open(&self) -> io::Result<UdpSocket> {
        UdpSocket::from_std(self.bind()?.into())
    }

    /// Whether it could be opened.
    pub(super) fn try_open(&self) -> io::Result<()> {
        self.bind().map(drop)
    }

    fn bind(&self) -> io::Result<Socket> {
        let v4 = self.is_v4();
        let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        // Other programs of this machine (avahi, systemd-resolved) listen there too.
        socket.set_reuse_address(true)?;
        // What comes over other interfaces is their sockets' business. Old kernels ask for rights;
        // there `is_neighbour` has to do.
        let _ = socket.bind_device(Some(self.name.as_bytes()));
        if v4 {
            let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
            socket.bind(&any.into())?;
            let index = InterfaceIndexOrAddress::Index(self.index);
            socket.join_multicast_v4_n(&GROUP_V4, &index)?;
            if let IpAddr::V4(ip) = self.ip() {
                socket.set_multicast_if_v4(&ip)?;
            }
            socket.set_multicast_ttl_v4(HOPS)?;
        } else {
            socket.set_only_v6(true)?;
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
            socket.bind(&any.into())?;
            socket.join_multicast_v6(&GROUP_V6, self.index)?;
            socket.set_multicast_if_v6(self.index)?;
            socket.set_multicast_hops_v6(HOPS)?;
        }
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_neighbours_are_believed() {
        let place = |ip: &str, prefix| Place {
            name: "eth0".into(),
            index: 3,
            addresses: vec![(ip.parse().unwrap(), prefix)],
        };
        let is = |p: &Place, from: &str| p.is_neighbour(from.parse().unwrap());
        let lan = place("192.168.7.20", 24);
        assert!(is(&lan, "192.168.7.99"));
        assert!(!is(&lan, "192.168.8.99"));
        assert!(!is(&lan, "fe80::1"));
        assert!(!is(&place("10.0.0.1", 32), "10.0.0.2"));
        assert!(is(&place("10.0.0.1", 0), "8.8.8.8"));
        let six = place("fe80::5", 64);
        assert!(is(&six, "fe80::1"));
        assert!(!is(&six, "2001:db8::1"));
        assert_eq!(
            six.dialable("fe80::1".parse().unwrap(), 7).to_string(),
            "[fe80::1%3]:7"
        );
    }
}
