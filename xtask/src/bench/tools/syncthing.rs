//! syncthing: one instance on each end, set up by its configuration file, and nothing but the
//! link between them: no discovery, relay, port mapping, usage report or upgrade.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Pair, Session, Tool, version};
use crate::bench::halt;
use crate::bench::measure::Meter;
use crate::bench::net::End;
use crate::bench::process::Process;

const PORT: u16 = 22000;

/// syncthing, with the shortest watch delay that it allows.
pub struct Syncthing;

/// The instances of the two ends, those that run.
struct Running([Option<Process>; 2]);

impl Tool for Syncthing {
    fn name(&self) -> &'static str {
        "syncthing"
    }

    fn durable(&self) -> &'static str {
        "yes"
    }

    fn live(&self) -> bool {
        true
    }

    fn find(&self) -> Result<String> {
        version("syncthing", "--version", "syncthing")
    }

    fn start(&self, pair: &Pair<'_>) -> Result<Box<dyn Session>> {
        let (a, b) = (identity(pair, End::A)?, identity(pair, End::B)?);
        for end in [End::A, End::B] {
            let path = pair.home(end).join("config.xml");
            fs::write(&path, config(pair, end, &a, &b))
                .with_context(|| format!("cannot write {}", path.display()))?;
            // The sign by which it knows that the folder is really there.
            fs::create_dir_all(pair.root(end).join(".stfolder"))?;
        }
        // The one that only listens comes first, so that the other's first dial succeeds.
        let b = pair.spawn(serve(pair, End::B), "syncthing-b")?;
        halt::nap(Duration::from_secs(1))?;
        let a = pair.spawn(serve(pair, End::A), "syncthing-a")?;
        Ok(Box::new(Running([Some(a), Some(b)])))
    }
}

impl Session for Running {
    fn processes(&self) -> Vec<&Process> {
        self.0.iter().flatten().collect()
    }

    fn stop(&mut self, end: End) -> Result<()> {
        self.0[end as usize]
            .take()
            .map_or(Ok(()), |mut it| it.stop())
    }

    fn kill(&mut self, end: End, meter: &Meter) -> Result<()> {
        let it = self.0[end as usize].take();
        it.map_or(Ok(()), |mut it| it.kill(Some(meter)))
    }

    fn resume(&mut self, pair: &Pair<'_>, end: End, meter: &Meter) -> Result<()> {
        let it = pair.spawn(serve(pair, end), &format!("syncthing-again-{end:?}"))?;
        meter.add(it.id());
        self.0[end as usize] = Some(it);
        Ok(())
    }

    fn ready(&mut self, _pair: &Pair<'_>) -> Result<()> {
        // Its watcher starts only after the first scan, and says so nowhere but in its log.
        halt::nap(Duration::from_secs(3))
    }
}

fn serve(pair: &Pair<'_>, end: End) -> Command {
    let mut command = pair.command(end, "syncthing");
    command
        .arg("serve")
        .arg(home_option(&pair.home(end)))
        .arg("--no-browser")
        // One process, not a second one that watches it.
        .env("STNORESTART", "1")
        .env("STNOUPGRADE", "1");
    command
}

fn home_option(home: &Path) -> String {
    format!("--home={}", home.display())
}

/// Makes the key of `end` and returns the device id.
fn identity(pair: &Pair<'_>, end: End) -> Result<String> {
    let home = pair.home(end);
    let mut command = pair.command(end, "syncthing");
    command.arg("generate").arg(home_option(&home));
    pair.spawn(command, "syncthing-generate")?
        .succeed(Duration::from_secs(60), None)?;
    let path = home.join("config.xml");
    let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    let id = text
        .split("<device id=\"")
        .skip(1)
        .find_map(|rest| rest.split('"').next());
    Ok(id
        .with_context(|| format!("no device id in {}", path.display()))?
        .to_owned())
}

/// The configuration of `end`. Only B has an address to dial: two that dial each other at the
/// same moment may both give way.
fn config(pair: &Pair<'_>, end: End, a: &str, b: &str) -> String {
    let dial = match end {
        End::A => format!("tcp://{}:{PORT}", pair.net.address(End::B)),
        End::B => "dynamic".to_owned(),
    };
    let (own, peer) = if end == End::A { (a, b) } else { (b, a) };
    format!(
        r#"<configuration version="30">
  <folder id="bench" label="bench" path="{root}" type="sendreceive" rescanIntervalS="3600"
      fsWatcherEnabled="true" fsWatcherDelayS="1">
    <filesystemType>basic</filesystemType>
    <device id="{a}"></device>
    <device id="{b}"></device>
    <minDiskFree unit="%">0</minDiskFree>
  </folder>
  <device id="{own}" name="own"><address>dynamic</address></device>
  <device id="{peer}" name="peer"><address>{dial}</address></device>
  <gui enabled="false"></gui>
  <options>
    <listenAddress>tcp://{listen}:{PORT}</listenAddress>
    <globalAnnounceEnabled>false</globalAnnounceEnabled>
    <localAnnounceEnabled>false</localAnnounceEnabled>
    <relaysEnabled>false</relaysEnabled>
    <natEnabled>false</natEnabled>
    <stunKeepaliveStartS>0</stunKeepaliveStartS>
    <reconnectionIntervalS>5</reconnectionIntervalS>
    <startBrowser>false</startBrowser>
    <urAccepted>-1</urAccepted>
    <autoUpgradeIntervalH>0</autoUpgradeIntervalH>
    <crashReportingEnabled>false</crashReportingEnabled>
    <setLowPriority>false</setLowPriority>
  </options>
</configuration>
"#,
        root = pair.root(end).display(),
        listen = pair.net.address(end),
    )
}
