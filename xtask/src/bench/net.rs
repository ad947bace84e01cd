//! Network namespaces: two machines on one wire whose bytes the kernel counts, and nothing else on
//! it; or several machines at one switch.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::link::{self, Link};

/// Name of the interface in each namespace.
const LINK: &str = "left0";
const PREFIX: &str = "left-bench-";
/// Bytes of a full packet that are not payload: Ethernet, IPv4, TCP with timestamps.
const HEADERS: u64 = 14 + 20 + 32;

/// One of the two ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The sender.
    A,
    /// The receiver.
    B,
}

/// The pair of namespaces; dropped, they are gone. They hold the whole network between them, so
/// several benches on one machine do not meet, though all use the same addresses.
pub struct Net {
    names: Names,
    /// Our own link, where it is not the kernel's.
    pub link: Option<Link>,
}

/// Names of namespaces; dropped, the namespaces are gone.
struct Names(Vec<String>);

impl Net {
    /// Creates both namespaces and joins them by a veth pair: no delay, no loss.
    pub fn create() -> Result<Self> {
        let net = Self {
            names: Names::create(&["a", "b"])?,
            link: None,
        };
        let [a, b] = [net.name(End::A), net.name(End::B)];
        ip(&[
            "link", "add", LINK, "netns", a, "type", "veth", "peer", "name", LINK, "netns", b,
        ])?;
        for end in [End::A, End::B] {
            raise(net.name(end), net.address(end), &[])?;
        }
        Ok(net)
    }

    /// The same, joined by our own link.
    pub fn create_shaped(settings: link::Settings) -> Result<Self> {
        let names = Names::create(&["a", "b"])?;
        let pid = std::process::id();
        let devices = [format!("lnk{pid}a"), format!("lnk{pid}b")];
        let link = Link::create([&devices[0], &devices[1]], settings)?;
        let net = Self {
            names,
            link: Some(link),
        };
        for (end, device) in [(End::A, &devices[0]), (End::B, &devices[1])] {
            let name = net.name(end);
            ip(&["link", "set", device, "netns", name, "name", LINK])?;
            // A line without a broadcast: the other end is named.
            let other = if end == End::A { End::B } else { End::A };
            raise(name, net.address(end), &["peer", net.address(other)])?;
        }
        Ok(net)
    }

    /// The address of `end`.
    pub fn address(&self, end: End) -> &'static str {
        match end {
            End::A => "10.77.0.1",
            End::B => "10.77.0.2",
        }
    }

    /// A command that runs `program` inside `end`. `nsenter` replaces itself by the program, so the
    /// process that is started is the program's own.
    pub fn command(&self, end: End, program: impl AsRef<OsStr>) -> Command {
        inside(self.name(end), program)
    }

    /// Bytes that have passed the link so far, both directions together. Segmentation offload
    /// is on, as on a real card, so the headers counted are those of the large segments.
    pub fn bytes(&self) -> Result<u64> {
        let counters = Counters::of(self.name(End::A), LINK)?;
        Ok(counters.received + counters.sent)
    }

    /// Bytes inside of TCP that A has sent so far, about: what the link counted less the headers of
    /// its packets.
    pub fn payload(&self) -> Result<u64> {
        let counters = Counters::of(self.name(End::A), LINK)?;
        Ok(counters.sent.saturating_sub(counters.packets * HEADERS))
    }

    /// Sets TCP's congestion control at both ends, for those who do not choose it themselves.
    pub fn congestion(&self, name: &str) -> Result<()> {
        for end in [End::A, End::B] {
            let set = "echo \"$0\" >/proc/sys/net/ipv4/tcp_congestion_control";
            let status = self.command(end, "sh").args(["-c", set, name]).status();
            ensure!(
                status.is_ok_and(|status| status.success()),
                "this kernel has no congestion control called {name}"
            );
        }
        Ok(())
    }

    /// Lets pass no more than `rate` bits a second each way, until what comes back is dropped.
    pub fn narrow(&self, rate: u64) -> Result<Narrow<'_>> {
        let narrow = Narrow(self);
        for end in [End::A, End::B] {
            let rate = format!("{rate}bit");
            tc(&[
                "-n",
                self.name(end),
                "qdisc",
                "add",
                "dev",
                LINK,
                "root",
                "tbf",
                "rate",
                &rate,
                "burst",
                "256kb",
                "latency",
                "50ms",
            ])?;
        }
        Ok(narrow)
    }

    fn name(&self, end: End) -> &str {
        &self.names.0[usize::from(end == End::B)]
    }
}

/// A link that is narrower for a while.
pub struct Narrow<'a>(&'a Net);

impl Drop for Narrow<'_> {
    fn drop(&mut self) {
        for end in [End::A, End::B] {
            // Fails where it was never made narrower.
            let _ = tc(&["-n", self.0.name(end), "qdisc", "del", "dev", LINK, "root"]);
        }
    }
}

/// Several machines at one switch; dropped, they are gone.
pub struct Switch {
    names: Names,
}

impl Switch {
    /// `machines` namespaces and one more with the bridge that joins them.
    pub fn create(machines: usize) -> Result<Self> {
        let ends: Vec<String> = std::iter::once("hub".to_owned())
            .chain((0..machines).map(|n| n.to_string()))
            .collect();
        let ends: Vec<&str> = ends.iter().map(String::as_str).collect();
        let switch = Self {
            names: Names::create(&ends)?,
        };
        let hub = switch.names.0[0].as_str();
        ip(&["-n", hub, "link", "add", "name", "switch", "type", "bridge"])?;
        ip(&["-n", hub, "link", "set", "switch", "up"])?;
        for machine in 0..machines {
            let (name, port) = (switch.name(machine), format!("port{machine}"));
            ip(&[
                "link", "add", &port, "netns", hub, "type", "veth", "peer", "name", LINK, "netns",
                name,
            ])?;
            ip(&["-n", hub, "link", "set", &port, "master", "switch", "up"])?;
            raise(name, &switch.address(machine), &[])?;
        }
        Ok(switch)
    }

    /// The address of a machine.
    pub fn address(&self, machine: usize) -> String {
        format!("10.77.1.{}", machine + 1)
    }

    /// A command that runs `program` on a machine.
    pub fn command(&self, machine: usize, program: impl AsRef<OsStr>) -> Command {
        inside(self.name(machine), program)
    }

    /// Bytes that a machine has sent so far.
    pub fn sent(&self, machine: usize) -> Result<u64> {
        Ok(Counters::of(self.name(machine), LINK)?.sent)
    }

    fn name(&self, machine: usize) -> &str {
        &self.names.0[machine + 1]
    }
}

impl Names {
    /// Makes a namespace for each end.
    fn create(ends: &[&str]) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "network namespaces need root: run this as root"
        );
        remove_stale();
        let pid = std::process::id();
        let mut names = Self(Vec::new());
        for end in ends {
            let name = format!("{PREFIX}{pid}-{end}");
            ip(&["netns", "add", &name])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            names.0.push(name);
        }
        Ok(names)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        for name in &self.0 {
            if Path::new("/run/netns").join(name).exists()
                && let Err(error) = ip(&["netns", "del", name])
            {
                eprintln!("note: {error:#}");
            }
        }
    }
}

/// What the kernel has counted at one interface.
struct Counters {
    received: u64,
    sent: u64,
    /// Packets sent.
    packets: u64,
}

impl Counters {
    fn of(namespace: &str, device: &str) -> Result<Self> {
        let text = ip(&["-n", namespace, "-s", "-j", "link", "show", "dev", device])?;
        let links: serde_json::Value =
            serde_json::from_str(&text).context("cannot read the answer of `ip -j link`")?;
        let count = |way: &str, what: &str| {
            links[0]["stats64"][way][what]
                .as_u64()
                .context("`ip -s` shows no counters")
        };
        Ok(Self {
            received: count("rx", "bytes")?,
            sent: count("tx", "bytes")?,
            packets: count("tx", "packets")?,
        })
    }
}

/// Gives the interface of a namespace its address and takes it into service.
fn raise(namespace: &str, address: &str, peer: &[&str]) -> Result<()> {
    // No IPv6 on the link: its neighbour chatter would count as bytes on the wire.
    ip(&["-n", namespace, "link", "set", LINK, "addrgenmode", "none"])?;
    let own = if peer.is_empty() {
        format!("{address}/24")
    } else {
        address.to_owned()
    };
    let mut add = vec!["-n", namespace, "addr", "add", &own];
    add.extend(peer);
    add.extend(["dev", LINK]);
    ip(&add)?;
    ip(&["-n", namespace, "link", "set", LINK, "up"])?;
    Ok(())
}

/// Not `ip netns exec`: that gives the program a copy of all mounts, and a file system that is mounted
/// anew is one that may have lost what was not synced.
fn inside(namespace: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{namespace}"))
        .arg(program);
    command
}

/// Removes namespaces of benches that were killed before they could do it themselves.
fn remove_stale() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let Some(pid) = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next())
        else {
            continue;
        };
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            eprintln!("note: removing the namespace {name} of a bench that is gone");
            let _ = ip(&["netns", "del", name]);
        }
    }
}

fn ip(args: &[&str]) -> Result<String> {
    call("ip", args)
}

fn tc(args: &[&str]) -> Result<String> {
    call("tc", args)
}

/// Both programs are of one package.
fn call(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| {
        format!(
            "cannot run `{program}`, which makes the network namespaces: apt-get install iproute2"
        )
    })?;
    if !output.status.success() {
        bail!(
            "`{program} {}` failed: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
