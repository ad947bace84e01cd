//! A network of its own, whose links can be taken down.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const BRIDGE: &str = "bridge0";
/// Of this process.
static NETS: AtomicU32 = AtomicU32::new(0);

/// A namespace for each machine, all on one bridge in a further one. The host's own network is not
/// touched. Dropped, it is gone.
pub struct Net {
    prefix: String,
    machines: usize,
}

impl Net {
    /// `None` where this test may not.
    pub fn new(machines: usize) -> Option<Self> {
        let net = Self {
            prefix: format!(
                "left-e2e-{}-{}",
                std::process::id(),
                NETS.fetch_add(1, Ordering::Relaxed)
            ),
            machines,
        };
        let hub = net.name("hub");
        let mut ok = ip(&["netns", "add", &hub]);
        ok = ok && ip(&["-n", &hub, "link", "add", "name", BRIDGE, "type", "bridge"]);
        ok = ok && ip(&["-n", &hub, "link", "set", BRIDGE, "up"]);
        (ok && (0..machines).all(|n| net.plug(n))).then_some(net)
    }

    fn plug(&self, n: usize) -> bool {
        let (hub, own, port) = (self.name("hub"), self.name(n), port(n));
        let address = format!("{}/24", Self::address(n));
        ip(&["netns", "add", &own])
            && ip(&[
                "link", "add", &port, "netns", &hub, "type", "veth", "peer", "name", "eth",
                "netns", &own,
            ])
            && ip(&["-n", &hub, "link", "set", &port, "master", BRIDGE, "up"])
            && ip(&["-n", &own, "addr", "add", &address, "dev", "eth"])
            && ip(&["-n", &own, "link", "set", "lo", "up"])
            && ip(&["-n", &own, "link", "set", "eth", "up"])
    }

    /// The words that run a program on a machine. Not `ip netns exec`: that gives it a copy of all
    /// mounts, which keeps what other tests unmount.
    pub fn wrap(&self, n: usize) -> Vec<String> {
        let net = format!("--net=/run/netns/{}", self.name(n));
        vec!["nsenter".to_owned(), net]
    }

    pub fn address(n: usize) -> String {
        format!("10.78.0.{}", n + 1)
    }

    /// Takes the cable of a machine out, or puts it in.
    pub fn link(&self, n: usize, up: bool) {
        let how = if up { "up" } else { "down" };
        assert!(ip(&["-n", &self.name("hub"), "link", "set", &port(n), how]));
    }

    /// Gives a machine another address instead of the one it has.
    pub fn renumber(&self, n: usize, old: &str, new: &str) {
        let own = self.name(n);
        let change = |how, address| {
            let address = format!("{address}/24");
            assert!(ip(&["-n", &own, "addr", how, &address, "dev", "eth"]));
        };
        change("del", old);
        change("add", new);
    }

    /// Takes the IPv4 address of a machine away: what remains is IPv6 on the link.
    pub fn only_v6(&self, n: usize) {
        assert!(ip(&[
            "-n",
            &self.name(n),
            "addr",
            "flush",
            "dev",
            "eth",
            "scope",
            "global"
        ]));
    }

    fn name(&self, of: impl std::fmt::Display) -> String {
        format!("{}-{of}", self.prefix)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for n in 0..self.machines {
            ip(&["netns", "del", &self.name(n)]);
        }
        ip(&["netns", "del", &self.name("hub")]);
    }
}

fn port(n: usize) -> String {
    format!("port{n}")
}

fn ip(args: &[&str]) -> bool {
    let mut command = Command::new("ip");
    command.args(args).stderr(Stdio::null());
    command.status().is_ok_and(|s| s.success())
}
