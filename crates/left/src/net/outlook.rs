//! Which networks this machine is on, and the news that it is on others. The kernel tells (rtnetlink);
//! while it does not, nothing is done.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::net::UnixDatagram;

use super::nearby::is_link_local;

/// Interfaces come, go, get or lose their cable.
const LINK: u32 = 0x1;
/// Addresses come and go.
const IPV4_ADDRESS: u32 = 0x10;
const IPV6_ADDRESS: u32 = 0x100;

/// The addresses under which this machine can reach others and be reached, each with its interface.
/// Interfaces without a cable or network do not count, nor do addresses of one link alone: those of
/// containers come and go all the time.
pub fn outlook() -> BTreeSet<(String, IpAddr)> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let counts = |i: &if_addrs::Interface| !i.is_loopback() && !is_link_local(i.ip());
    all.into_iter()
        .filter(|i| counts(i) && i.is_oper_up())
        .map(|i| (i.name.clone(), i.ip()))
        .collect()
}

/// Hears of changes.
#[derive(Debug)]
pub struct Changes(
    /// A netlink socket. It is no Unix socket, but it is one of datagrams, and all that is done with it
    /// here is to wait until something can be received.
    UnixDatagram,
);

impl Changes {
    /// From now on; to be called in a runtime.
    pub fn hear() -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(
            &fd,
            &SocketAddrNetlink::new(0, LINK | IPV4_ADDRESS | IPV6_ADDRESS),
        )?;
        Ok(Self(UnixDatagram::from_std(fd.into())?))
    }

    /// Returns when something changed, and takes all that tells so. What exactly, [`outlook`] shows.
    pub async fn next(&self) {
        let mut buffer = [0; 8192];
        // Too much for the kernel's buffer is an error once, and a change like any other.
        let _ = self.0.recv(&mut buffer).await;
        while self.0.try_recv(&mut buffer).is_ok() {}
    }
}
