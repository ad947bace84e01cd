//! `cp` on one machine, and a sync of the file system: what it costs to have the bytes twice and
//! durable, with no network at all.

use anyhow::Result;

use super::{Pair, Session, Tool, version};
use crate::bench::measure::Meter;
use crate::bench::net::End;
use crate::bench::process::Process;

/// `cp -a` and `sync -f`.
pub struct Cp;

struct Running;

impl Tool for Cp {
    fn name(&self) -> &'static str {
        "cp+sync"
    }

    fn durable(&self) -> &'static str {
        "yes"
    }

    fn live(&self) -> bool {
        false
    }

    fn deletes(&self) -> bool {
        false
    }

    fn find(&self) -> Result<String> {
        version("cp", "--version", "coreutils")
    }

    fn start(&self, _pair: &Pair<'_>) -> Result<Box<dyn Session>> {
        Ok(Box::new(Running))
    }
}

impl Session for Running {
    fn processes(&self) -> Vec<&Process> {
        Vec::new()
    }

    fn sync(&mut self, pair: &Pair<'_>, meter: Option<&Meter>) -> Result<()> {
        let mut command = pair.command(End::A, "sh");
        command
            .args(["-c", "cp -a \"$0/.\" \"$1/\" && sync -f \"$1\""])
            .args([pair.root(End::A), pair.root(End::B)]);
        let mut copy = pair.spawn(command, "cp")?;
        if let Some(meter) = meter {
            meter.add(copy.id());
        }
        copy.succeed(pair.limit, meter)
    }
}
