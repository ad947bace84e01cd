//! One of the demo's two devices: a folder, a home, a real process.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use left_core::message::Role;
use rustix::process::{Pid, Signal, kill_process};

use crate::api::Client;
use crate::daemon::handle::{Status, UserError};
use crate::home::Home;

/// How long a process may take until it answers.
const STARTING: Duration = Duration::from_secs(30);
/// How long a process may take to stop before it is killed.
const STOPPING: Duration = Duration::from_secs(5);
/// How long one look at a process' state takes at most.
const LOOK: Duration = Duration::from_millis(200);

pub(super) struct Machine {
    name: &'static str,
    pub(super) share: PathBuf,
    home: Home,
    address: String,
    log: PathBuf,
    program: Vec<OsString>,
    child: Option<Child>,
}

impl Machine {
    pub(super) fn new(
        name: &'static str,
        place: &Path,
        port: u16,
        program: &[OsString],
    ) -> Result<Self, UserError> {
        let share = place.join(name);
        fs::create_dir(&share).map_err(|e| UserError::io("cannot make", &share, &e))?;
        Ok(Self {
            name,
            share,
            home: Home::open(Some(&place.join(format!("home-{name}"))))?,
            address: format!("127.0.0.1:{port}"),
            log: place.join(format!("{name}.log")),
            program: program.to_vec(),
            child: None,
        })
    }

    /// Starts the process with these arguments and returns when it answers.
    pub(super) fn start(&mut self, args: &[OsString]) -> Result<(), UserError> {
        let error = |e: std::io::Error| UserError::io("cannot start", Path::new(self.name), &e);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(error)?;
        let (program, first) = self
            .program
            .split_first()
            .ok_or_else(|| error(std::io::ErrorKind::NotFound.into()))?;
        let child = Command::new(program)
            .args(first)
            .args(args)
            .args(["--listen", &self.address, "--advertise", &self.address])
            .args(["--name", self.name, "--json"])
            .env("LEFT_HOME", self.home.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(error)?)
            .stderr(log)
            .spawn()
            .map_err(error)?;
        self.child = Some(child);
        let end = Instant::now() + STARTING;
        while !self.knows_the_share() {
            let exited = self
                .child
                .as_mut()
                .and_then(|c| c.try_wait().ok().flatten());
            if exited.is_some() || Instant::now() > end {
                let why = self.last_words();
                let todo = "look at what it says, and try again";
                return Err(UserError::new(
                    format!("{} did not start", self.name),
                    why,
                    todo,
                ));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// SIGKILL, as a power cut would do it.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be gone already, which is the same.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and patience for a clean stop.
    pub(super) fn end(mut self) {
        let Some(child) = &mut self.child else {
            return;
        };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let end = Instant::now() + STOPPING;
        while Instant::now() < end && matches!(child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }

    pub(super) fn ticket(&self) -> Result<String, UserError> {
        let hour = Duration::from_secs(3600);
        let ticket = self.client()?.ticket(&self.share, Role::ReadWrite, hour)?;
        Ok(ticket.ticket)
    }

    pub(super) fn in_sync(&mut self) -> Result<bool, UserError> {
        let result = self.client().and_then(|c| c.wait(Some(&self.share), LOOK));
        let exited = self
            .child
            .as_mut()
            .and_then(|c| c.try_wait().ok().flatten());
        if exited.is_some() {
            let todo = "look at what it says, and report it";
            return Err(UserError::new(
                format!("{} ended", self.name),
                self.last_words(),
                todo,
            ));
        }
        if result.is_err() {
            // It lives and will answer; not to ask it in a hot loop.
            thread::sleep(LOOK);
        }
        Ok(result.is_ok_and(|r| r.in_sync))
    }

    pub(super) fn status(&self) -> Option<Status> {
        self.client().and_then(|c| c.status()).ok()
    }

    /// Bytes on all its connections since it started.
    pub(super) fn wire_bytes(&self) -> Result<u64, UserError> {
        let status = self.client()?.status()?;
        let peers = status.shares.iter().flat_map(|s| &s.peers);
        Ok(peers.map(|p| p.bytes_in + p.bytes_out).sum())
    }

    fn client(&self) -> Result<Client, UserError> {
        Client::connect(&self.home)?.ok_or_else(|| {
            UserError::new(
                format!("{} does not answer", self.name),
                self.last_words(),
                "",
            )
        })
    }

    fn knows_the_share(&self) -> bool {
        self.status()
            .is_some_and(|s| s.shares.iter().any(|s| s.path == self.share))
    }

    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let last = log.lines().rev().find(|line| line.starts_with("left:"));
        let last = last.or(log.lines().last()).unwrap_or("it says nothing");
        last.strip_prefix("left: ").unwrap_or(last).to_string()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}
