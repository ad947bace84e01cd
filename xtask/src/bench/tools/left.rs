//! LEFT itself: `left share` at the sender, `left join` at the receiver.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use super::{Pair, Session, Tool, until};
use crate::bench::measure::Meter;
use crate::bench::net::End;
use crate::bench::process::Process;
use crate::workspace;

const PORT: u16 = 20201;

/// LEFT, from a binary that is built if need be.
pub struct Left {
    binary: PathBuf,
    given: bool,
    traced: bool,
}

struct Running {
    /// The processes of the two ends, those that run.
    ends: [Option<Process>; 2],
    binary: PathBuf,
    traced: bool,
}

impl Left {
    /// LEFT from the binary `given`, or from the workspace's release build.
    pub fn new(given: Option<&Path>) -> Self {
        Self {
            binary: path(given),
            given: given.is_some(),
            traced: false,
        }
    }

    /// With each fsync written down, see [`trace`], where this machine lets processes be traced.
    pub fn traced(self) -> Self {
        let tried = Command::new("strace")
            .args([
                "-f",
                "--seccomp-bpf",
                "-e",
                "trace=fsync",
                "-o",
                "/dev/null",
            ])
            .arg("true")
            .output();
        let traced = tried.is_ok_and(|tried| tried.status.success());
        if !traced {
            eprintln!("note: fsyncs are not counted: strace is missing or may not trace");
        }
        Self { traced, ..self }
    }

    fn command(&self, pair: &Pair<'_>, end: End, verb: &str) -> Command {
        command(&self.binary, pair, end, verb, self.traced)
    }
}

fn command(binary: &Path, pair: &Pair<'_>, end: End, verb: &str, traced: bool) -> Command {
    let mut command = if traced {
        let mut strace = pair.command(end, "strace");
        // Beside the process, which so stays the one that was started; a line a call, at once.
        strace.args(["-D", "-f", "--seccomp-bpf", "-e", "trace=fsync,fdatasync"]);
        strace
            .args(["-y", "-A", "-o"])
            .arg(trace(pair, end))
            .arg(binary);
        strace
    } else {
        pair.command(end, binary)
    };
    command.env("LEFT_HOME", pair.home(end)).arg(verb);
    command
}

/// Where the fsyncs of an end are written down, one a line.
pub fn trace(pair: &Pair<'_>, end: End) -> PathBuf {
    pair.work.join(format!("fsyncs-{end:?}"))
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
        present(&self.binary, self.given)?;
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
        let mut share = self.command(pair, End::A, "share");
        share.arg(pair.root(End::A)).args([
            "--listen",
            &listen(pair, End::A),
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
            .args(["--listen", &listen(pair, End::B), "--json"]);
        let b = pair.spawn(join, "left-join")?;
        Ok(Box::new(Running {
            ends: [Some(a), Some(b)],
            binary: self.binary.clone(),
            traced: self.traced,
        }))
    }
}

impl Session for Running {
    fn processes(&self) -> Vec<&Process> {
        self.ends.iter().flatten().collect()
    }

    fn stop(&mut self, end: End) -> Result<()> {
        self.ends[end as usize]
            .take()
            .map_or(Ok(()), |mut it| it.stop())
    }

    fn kill(&mut self, end: End, meter: &Meter) -> Result<()> {
        let it = self.ends[end as usize].take();
        it.map_or(Ok(()), |mut it| it.kill(Some(meter)))
    }

    fn resume(&mut self, pair: &Pair<'_>, end: End, meter: &Meter) -> Result<()> {
        let mut up = command(&self.binary, pair, end, "up", self.traced);
        up.args(["--listen", &listen(pair, end), "--json"]);
        if end == End::A {
            up.args(["--advertise", pair.net.address(end)]);
        }
        let it = pair.spawn(up, &format!("left-up-{end:?}"))?;
        meter.add(it.id());
        self.ends[end as usize] = Some(it);
        Ok(())
    }

    fn ready(&mut self, pair: &Pair<'_>) -> Result<()> {
        let mut wait = command(&self.binary, pair, End::A, "wait", false);
        wait.arg(pair.root(End::A)).args(["--timeout", "60s"]);
        // The trees are equal already; this only adds what LEFT itself thinks of it.
        if let Err(error) = pair.spawn(wait, "left-wait")?.succeed(pair.limit, None) {
            eprintln!("note: {error:#}");
        }
        Ok(())
    }
}

fn listen(pair: &Pair<'_>, end: End) -> String {
    format!("{}:{PORT}", pair.net.address(end))
}

/// The program `given`, or that of the workspace, built where it is missing.
pub fn binary(given: Option<&Path>) -> Result<PathBuf> {
    let binary = path(given);
    present(&binary, given.is_some())?;
    Ok(binary)
}

fn path(given: Option<&Path>) -> PathBuf {
    given.map_or_else(
        || workspace::target().join("release/left"),
        |path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
    )
}

fn present(binary: &Path, given: bool) -> Result<()> {
    if !binary.exists() {
        ensure!(!given, "{} is not there", binary.display());
        build()?;
    } else if !given && workspace::newer_sources(modified(binary)?) {
        eprintln!(
            "note: {} is older than the sources: cargo build --release -p left",
            binary.display()
        );
    }
    Ok(())
}

/// The ticket in what `left share` has printed so far: in a JSON event, or alone on a line.
pub fn ticket(printed: &str) -> Option<String> {
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
    let status = Command::new(workspace::cargo())
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
