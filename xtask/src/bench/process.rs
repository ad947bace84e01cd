//! Child processes that are never lost: each has a log, every wait has an end, and whoever drops
//! one has killed it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::halt;
use super::measure::Meter;

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// A running child in a process group of its own.
pub struct Process {
    child: Child,
    pid: Pid,
    handle: OwnedFd,
    what: String,
    out: PathBuf,
    err: PathBuf,
    reaped: bool,
}

impl Process {
    /// Starts `command`; its output goes to `what.out` and `what.err` in `logs`.
    pub fn start(mut command: Command, what: &str, logs: &Path) -> Result<Self> {
        let (out, err) = (
            logs.join(format!("{what}.out")),
            logs.join(format!("{what}.err")),
        );
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("cannot create {}", path.display()))
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(create(&out)?)
            .stderr(create(&err)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {what}"))?;
        let pid = Pid::from_child(&child);
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error).context("cannot open a process handle");
            }
        };
        Ok(Self {
            child,
            pid,
            handle,
            what: what.to_owned(),
            out,
            err,
            reaped: false,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed on stdout so far.
    pub fn printed(&self) -> String {
        let bytes = fs::read(&self.out).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What it has printed on stderr so far.
    pub fn complained(&self) -> String {
        let bytes = fs::read(&self.err).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Fails if it has ended, which a daemon must not do by itself.
    pub fn check(&self) -> Result<()> {
        if self.ended(Duration::ZERO)? {
            bail!("{} ended by itself: {}", self.what, self.last_words());
        }
        Ok(())
    }

    /// Waits until it ends by itself. While the ended process is still there to be looked at,
    /// `meter` takes its CPU time.
    pub fn wait(&mut self, limit: Duration, meter: Option<&Meter>) -> Result<ExitStatus> {
        let start = Instant::now();
        while !self.ended(Duration::from_millis(100))? {
            halt::check()?;
            if start.elapsed() > limit {
                bail!("{} did not end within {} s", self.what, limit.as_secs());
            }
        }
        if let Some(meter) = meter {
            meter.ended(self.id());
        }
        let status = self.child.wait();
        self.reaped = true;
        status.with_context(|| format!("cannot wait for {}", self.what))
    }

    /// Like [`Process::wait`], and fails if the exit code is not 0.
    pub fn succeed(&mut self, limit: Duration, meter: Option<&Meter>) -> Result<()> {
        let status = self.wait(limit, meter)?;
        if !status.success() {
            bail!("{} failed ({status}): {}", self.what, self.last_words());
        }
        Ok(())
    }

    /// Ends it without asking. While it is still there to be looked at, `meter` takes its CPU time.
    pub fn kill(&mut self, meter: Option<&Meter>) -> Result<()> {
        kill_process_group(self.pid, Signal::KILL).context("cannot kill")?;
        self.wait(GRACE, meter).map(drop)
    }

    /// Asks it to end, and waits for it.
    pub fn stop(&mut self) -> Result<()> {
        kill_process_group(self.pid, Signal::TERM).context("cannot stop")?;
        self.wait(GRACE, None).map(drop)
    }

    /// The end of what it printed, for messages.
    fn last_words(&self) -> String {
        let words = [&self.err, &self.out].map(|path| {
            let text = fs::read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).trim().to_owned();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(4)..].join(" | ")
        });
        words
            .into_iter()
            .find(|words| !words.is_empty())
            .unwrap_or_else(|| "no output".into())
    }

    /// Whether it has ended, not yet reaped, within `time`.
    fn ended(&self, time: Duration) -> Result<bool> {
        let time = Timespec::try_from(time).context("time too long")?;
        let mut fds = [PollFd::new(&self.handle, PollFlags::IN)];
        match poll(&mut fds, Some(&time)) {
            Ok(count) => Ok(count > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error).context("cannot watch a process"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its ids may belong to somebody else by now.
        if self.reaped {
            return;
        }
        let _ = kill_process_group(self.pid, Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < GRACE {
            if self.ended(Duration::from_millis(100)).unwrap_or(true) {
                break;
            }
        }
        // Until the leader is reaped nobody else can have its group id, so this meets only
        // what it left behind.
        let _ = kill_process_group(self.pid, Signal::KILL);
        let _ = self.child.wait();
    }
}
