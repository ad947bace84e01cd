//! LEFT itself: `left share` at the sender, `left join` at the receiver.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use super::{Pair, Session, Tool, until};
use crate::bench::net::End;
use crate::bench::process::Process;
use crate::workspace;

const PORT: u16 = 20201;

/// LEFT, from a binary that is built if need be.
pub struct Left {
    binary: PathBuf,
    given: bool,
}

struct Running {
    a: Process,
    b: Process,
    binary: PathBuf,
}

impl Left {
    /// LEFT from the binary `given`, or from the workspace's release build.
    pub fn new(given: Option<&Path>) -> Self {
        let binary = given.map_or_else(
            || workspace::target().join("release/left"),
            |path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        );
        Self {
            binary,
            given: given.is_some(),
        }
    }

    fn command(&self, pair: &Pair<'_>, end: End, verb: &str) -> Command {
        command(&self.binary, pair, end, verb)
    }
}

fn command(binary: &Path, pair: &Pair<'_>, end: End, verb: &str) -> Command {
    let mut command = pair.command(end, binary);
    command.env("LEFT_HOME", pair.home(end)).arg(verb);
    command
}

impl Tool for Left {
    fn name(&self) -> &'static str {
        "left"
    }

    fn durable(&self) -> &'static str {
        "yes"
    }

    fn live(&self) -> bool {
        true
    }

    fn find(&self) -> Result<String> {
        if !self.binary.exists() {
            ensure!(!self.given, "{} is not there", self.binary.display());
            build()?;
        } else if !self.given && workspace::newer_sources(modified(&self.binary)?) {
            eprintln!(
                "note: {} is older than the sources: cargo build --release -p left",
                self.binary.display()
            );
        }
        let output = Command::new(&self.binary)
            .arg("--version")
            .output()
            .with_context(|| format!("cannot run {}", self.binary.display()))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(
            output.status.success() && !version.is_empty(),
            "{} does not say its version: it cannot do anything yet",
            self.binary.display()
        );
        Ok(version)
    }

    fn start(&self, pair: &Pair<'_>) -> Result<Box<dyn Session>> {
        let listen = |end| format!("{}:{PORT}", pair.net.address(end));
        let mut share = self.command(pair, End::A, "share");
        share.arg(pair.root(End::A)).args([
            "--listen",
            &listen(End::A),
            "--advertise",
            pair.net.address(End::A),
            "--json",
        ]);
        let a = pair.spawn(share, "left-share")?;
        let ticket = until(
            Duration::from_secs(60),
            "the ticket of `left share`",
            || {
                a.check()?;
                Ok(ticket(&a.printed()))
            },
        )?;
        let mut join = self.command(pair, End::B, "join");
        join.arg(ticket)
            .arg(pair.root(End::B))
            .args(["--listen", &listen(End::B), "--json"]);
        let b = pair.spawn(join, "left-join")?;
        Ok(Box::new(Running {
            a,
            b,
            binary: self.binary.clone(),
        }))
    }
}

impl Session for Running {
    fn processes(&self) -> Vec<&Process> {
        vec![&self.a, &self.b]
    }

    fn ready(&mut self, pair: &Pair<'_>) -> Result<()> {
        let mut wait = command(&self.binary, pair, End::A, "wait");
        wait.arg(pair.root(End::A)).args(["--timeout", "60s"]);
        // The trees are equal already; this only adds what LEFT itself thinks of it.
        if let Err(error) = pair.spawn(wait, "left-wait")?.succeed(pair.limit, None) {
            eprintln!("note: {error:#}");
        }
        Ok(())
    }
}

/// The ticket in what `left share` has printed so far: in a JSON event, or alone on a line.
fn ticket(printed: &str) -> Option<String> {
    // A line without its end may still be growing.
    let whole = printed.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().find_map(|line| {
        let line = line.trim();
        if line.starts_with("left1") {
            return line.split_whitespace().next().map(str::to_owned);
        }
        find_ticket(&serde_json::from_str(line).ok()?)
    })
}

/// The ticket in an event, or in an object within it.
fn find_ticket(event: &serde_json::Value) -> Option<String> {
    event
        .as_object()?
        .iter()
        .find_map(|(key, value)| match value.as_str() {
            Some(text) if key == "ticket" && text.starts_with("left1") => Some(text.to_owned()),
            _ => find_ticket(value),
        })
}

fn build() -> Result<()> {
    eprintln!("building left …");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "left",
            "--bin",
            "left",
        ])
        .current_dir(workspace::root())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("left does not build");
    }
    Ok(())
}

fn modified(path: &Path) -> Result<SystemTime> {
    Ok(path.metadata()?.modified()?)
}

#[cfg(test)]
mod tests {
    use super::ticket;

    #[test]
    fn a_ticket_is_found_in_both_forms() {
        let json = "{\"event\":\"start\"}\n{\"event\":\"ticket\",\"ticket\":\"left1abc\"}\n";
        assert_eq!(ticket(json).as_deref(), Some("left1abc"));
        let nested = "{\"ticket\":{\"ticket\":\"left1abc\",\"role\":\"x\"}}\n";
        assert_eq!(ticket(nested).as_deref(), Some("left1abc"));
        assert_eq!(ticket("hello\nleft1xyz\n").as_deref(), Some("left1xyz"));
        assert_eq!(ticket("left1cut"), None);
        assert_eq!(ticket(""), None);
    }
}
