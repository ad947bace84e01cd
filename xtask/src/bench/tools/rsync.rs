//! rsync: a daemon at the receiver, one run of the client a change.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Pair, Session, Tool, until, version};
use crate::bench::measure::Meter;
use crate::bench::net::End;
use crate::bench::process::Process;

const PORT: &str = "8730";

/// rsync's daemon, plain or with `--fsync`.
pub struct Rsync {
    /// Whether the receiver fsyncs each file.
    pub fsync: bool,
}

struct Running {
    daemon: Process,
    fsync: bool,
}

impl Tool for Rsync {
    fn name(&self) -> &'static str {
        if self.fsync { "rsync-fsync" } else { "rsync" }
    }

    fn durable(&self) -> &'static str {
        // fsync of each file, but not of the folder that holds its name.
        if self.fsync { "yes (files)" } else { "no" }
    }

    fn live(&self) -> bool {
        false
    }

    fn find(&self) -> Result<String> {
        version("rsync", "--version", "rsync")
    }

    fn start(&self, pair: &Pair<'_>) -> Result<Box<dyn Session>> {
        let config = pair.home(End::B).join("rsyncd.conf");
        // Without an own uid the daemon would change to `nobody`, who may not write here.
        let text = format!(
            "use chroot = no\nuid = 0\ngid = 0\n[bench]\npath = {}\nread only = no\n",
            pair.root(End::B).display()
        );
        fs::write(&config, text).context("cannot write rsyncd.conf")?;
        let mut command = pair.command(End::B, "rsync");
        command
            .args(["--daemon", "--no-detach", "--port", PORT])
            .args(["--address", pair.net.address(End::B)])
            .arg("--config")
            .arg(&config);
        let daemon = pair.spawn(command, "rsync-daemon")?;
        // Listing the modules shows that it listens.
        until(
            Duration::from_secs(10),
            "the start of the rsync daemon",
            || {
                daemon.check()?;
                let mut command = pair.command(End::A, "rsync");
                command.arg(format!("rsync://{}:{PORT}/", pair.net.address(End::B)));
                let mut probe = pair.spawn(command, "rsync-probe")?;
                Ok(probe
                    .wait(Duration::from_secs(10), None)?
                    .success()
                    .then_some(()))
            },
        )?;
        Ok(Box::new(Running {
            daemon,
            fsync: self.fsync,
        }))
    }
}

impl Session for Running {
    fn processes(&self) -> Vec<&Process> {
        vec![&self.daemon]
    }

    fn sync(&mut self, pair: &Pair<'_>, meter: Option<&Meter>) -> Result<()> {
        let mut command = pair.command(End::A, "rsync");
        command.args(["-a", "--delete"]);
        if self.fsync {
            command.arg("--fsync");
        }
        // The slash at the end means the folder's content, not the folder.
        command.arg(format!("{}/", pair.root(End::A).display()));
        command.arg(format!(
            "rsync://{}:{PORT}/bench/",
            pair.net.address(End::B)
        ));
        let mut client = pair.spawn(command, "rsync")?;
        if let Some(meter) = meter {
            meter.add(client.id());
        }
        client.succeed(pair.limit, meter)
    }
}
