//! Two network namespaces joined by a veth pair: two machines on one wire whose bytes the
//! kernel counts, and nothing else on it.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Name of the interface in each namespace.
const LINK: &str = "left0";
const PREFIX: &str = "left-bench-";

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
    names: [String; 2],
}

impl Net {
    /// Creates both namespaces and the link.
    pub fn create() -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "network namespaces need root: run this as root"
        );
        remove_stale();
        let pid = std::process::id();
        let net = Self {
            names: [format!("{PREFIX}{pid}-a"), format!("{PREFIX}{pid}-b")],
        };
        let [a, b] = [net.names[0].as_str(), net.names[1].as_str()];
        ip(&["netns", "add", a])?;
        ip(&["netns", "add", b])?;
        ip(&[
            "link", "add", LINK, "netns", a, "type", "veth", "peer", "name", LINK, "netns", b,
        ])?;
        for end in [End::A, End::B] {
            let name = net.name(end);
            let address = format!("{}/24", net.address(end));
            // No IPv6 on the link: its neighbour chatter would count as bytes on the wire.
            ip(&["-n", name, "link", "set", LINK, "addrgenmode", "none"])?;
            ip(&["-n", name, "addr", "add", &address, "dev", LINK])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            ip(&["-n", name, "link", "set", LINK, "up"])?;
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

    /// A command that runs `program` inside `end`. `ip netns exec` replaces itself by the
    /// program, so the process that is started is the program's own.
    pub fn command(&self, end: End, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name(end)]).arg(program);
        command
    }

    /// Bytes that have passed the link so far, both directions together. Segmentation offload
    /// is on, as on a real card, so the headers counted are those of the large segments.
    pub fn bytes(&self) -> Result<u64> {
        let args = [
            "-n",
            self.name(End::A),
            "-s",
            "-j",
            "link",
            "show",
            "dev",
            LINK,
        ];
        let text = ip(&args)?;
        let links: serde_json::Value =
            serde_json::from_str(&text).context("cannot read the answer of `ip -j link`")?;
        let count = |way: &str| links[0]["stats64"][way]["bytes"].as_u64();
        count("rx")
            .zip(count("tx"))
            .map(|(rx, tx)| rx + tx)
            .context("`ip -s` shows no counters")
    }

    fn name(&self, end: End) -> &str {
        match end {
            End::A => &self.names[0],
            End::B => &self.names[1],
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.names {
            if namespace_exists(name)
                && let Err(error) = ip(&["netns", "del", name])
            {
                eprintln!("note: {error:#}");
            }
        }
    }
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

fn namespace_exists(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}

fn ip(args: &[&str]) -> Result<String> {
    let output = Command::new("ip")
        .args(args)
        .output()
        .context("cannot run `ip`, which makes the network namespaces: apt-get install iproute2")?;
    if !output.status.success() {
        bail!(
            "`ip {}` failed: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
