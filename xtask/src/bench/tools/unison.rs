//! unison: a server on a socket at the receiver, one run of the text client a change.

use std::time::Duration;

use anyhow::Result;

use super::{Pair, Session, Tool, until, version};
use crate::bench::measure::Meter;
use crate::bench::net::End;
use crate::bench::process::Process;

const PORT: &str = "8740";

/// unison in socket mode.
pub struct Unison;

struct Running {
    server: Process,
}

impl Tool for Unison {
    fn name(&self) -> &'static str {
        "unison"
    }

    fn durable(&self) -> &'static str {
        "no"
    }

    fn live(&self) -> bool {
        false
    }

    fn find(&self) -> Result<String> {
        version("unison", "-version", "unison")
    }

    fn start(&self, pair: &Pair<'_>) -> Result<Box<dyn Session>> {
        let mut command = pair.command(End::B, "unison");
        command
            .args([
                "-ui",
                "text",
                "-socket",
                PORT,
                "-listen",
                pair.net.address(End::B),
            ])
            .env("UNISON", pair.home(End::B));
        let server = pair.spawn(command, "unison-server")?;
        // It says so once it listens; a probing connection would use up its one client.
        until(
            Duration::from_secs(10),
            "the start of the unison server",
            || {
                server.check()?;
                Ok(server.complained().contains("server started").then_some(()))
            },
        )?;
        Ok(Box::new(Running { server }))
    }
}

impl Session for Running {
    fn processes(&self) -> Vec<&Process> {
        vec![&self.server]
    }

    fn sync(&mut self, pair: &Pair<'_>, meter: Option<&Meter>) -> Result<()> {
        let mut command = pair.command(End::A, "unison");
        let remote = format!(
            "socket://{}:{PORT}/{}",
            pair.net.address(End::B),
            pair.root(End::B).display()
        );
        command
            .args(["-ui", "text"])
            .arg(pair.root(End::A))
            .arg(remote)
            .args([
                "-batch",
                "-auto",
                "-times",
                "-confirmbigdel=false",
                "-log=false",
            ])
            .args(["-contactquietly", "-terse"])
            .env("UNISON", pair.home(End::A));
        let mut client = pair.spawn(command, "unison")?;
        if let Some(meter) = meter {
            meter.add(client.id());
        }
        client.succeed(pair.limit, meter)
    }
}
