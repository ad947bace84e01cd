//! The tools under test, each behind the same small traits and in a file of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::measure::Meter;
use super::net::{End, Net};
use super::process::Process;
use super::tree;

mod cp;
pub mod left;
mod rsync;
mod syncthing;
mod unison;

/// A program that makes the tree of one end equal to that of the other.
pub trait Tool {
    /// Name on the command line and in the report.
    fn name(&self) -> &'static str;

    /// What a power cut could not take back when the clock stopped.
    fn durable(&self) -> &'static str;

    /// Whether it watches the folder and sends changes by itself. Its end is then seen at the
    /// receiver's tree; otherwise it is run once and its end is the end.
    fn live(&self) -> bool;

    /// Whether it deletes at the receiver what is gone at the sender.
    fn deletes(&self) -> bool {
        true
    }

    /// Finds the program and returns its version; the error says how to get it.
    fn find(&self) -> Result<String>;

    /// Starts what has to run on the two ends.
    fn start(&self, pair: &Pair<'_>) -> Result<Box<dyn Session>>;
}

/// A started tool; dropped, its processes are gone.
pub trait Session {
    /// The processes that run all the time.
    fn processes(&self) -> Vec<&Process>;

    /// Runs the tool once and waits for its end; for tools that are not live.
    fn sync(&mut self, _pair: &Pair<'_>, _meter: Option<&Meter>) -> Result<()> {
        Ok(())
    }

    /// Waits until the tool is ready for the first timed change, after the trees are equal.
    fn ready(&mut self, _pair: &Pair<'_>) -> Result<()> {
        Ok(())
    }

    /// Stops what runs at `end`, in good order; nothing to do for tools that are run once.
    fn stop(&mut self, _end: End) -> Result<()> {
        Ok(())
    }

    /// Kills what runs at `end`.
    fn kill(&mut self, _end: End, _meter: &Meter) -> Result<()> {
        Ok(())
    }

    /// Starts it again after it was stopped or killed, and does not wait for anything.
    fn resume(&mut self, _pair: &Pair<'_>, _end: End, _meter: &Meter) -> Result<()> {
        Ok(())
    }
}

/// Where one run takes place.
pub struct Pair<'a> {
    /// The two namespaces.
    pub net: &'a Net,
    /// The run's folder, which holds everything below and the logs.
    pub work: PathBuf,
    /// The most that any step may take.
    pub limit: Duration,
}

impl<'a> Pair<'a> {
    /// Makes fresh, empty folders below `work`.
    pub fn create(net: &'a Net, work: PathBuf, limit: Duration) -> Result<Self> {
        let pair = Self { net, work, limit };
        let folders = [
            pair.root(End::A),
            pair.root(End::B),
            pair.home(End::A),
            pair.home(End::B),
            pair.stage(),
        ];
        for folder in folders {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        Ok(pair)
    }

    /// The folder that is kept identical.
    pub fn root(&self, end: End) -> PathBuf {
        self.work.join(if end == End::A { "a" } else { "b" })
    }

    /// Where the tool keeps its own things.
    pub fn home(&self, end: End) -> PathBuf {
        self.work
            .join(if end == End::A { "home-a" } else { "home-b" })
    }

    /// Where a row makes content before it is moved in; on the same file system.
    pub fn stage(&self) -> PathBuf {
        self.work.join("stage")
    }

    /// `program` inside `end`, with a home of its own so that no setting of the user's counts.
    pub fn command(&self, end: End, program: impl AsRef<Path>) -> Command {
        let mut command = self.net.command(end, program.as_ref());
        command.env("HOME", self.home(end)).current_dir(&self.work);
        command
    }

    /// Starts `command`, its logs beside the folders.
    pub fn spawn(&self, command: Command, what: &str) -> Result<Process> {
        Process::start(command, what, &self.work)
    }
}

impl Drop for Pair<'_> {
    /// Gives back the space, but not the names: on ext4 without a journal, creating files was
    /// measured to cost several times more CPU time soon after many were deleted (presumably
    /// because it searches past recently freed inodes), so that deleting here would slow the
    /// tool whose turn comes next. The whole bench removes everything at its end.
    fn drop(&mut self) {
        if let Err(error) = tree::empty_large_files(&self.work) {
            eprintln!("note: {error:#}");
        }
    }
}

/// All tools, LEFT first.
pub fn all(left: Option<&Path>) -> Vec<Box<dyn Tool>> {
    vec![
        Box::new(left::Left::new(left)),
        Box::new(cp::Cp),
        Box::new(rsync::Rsync { fsync: false }),
        Box::new(rsync::Rsync { fsync: true }),
        Box::new(unison::Unison),
        Box::new(syncthing::Syncthing),
    ]
}

/// The first line that `program` prints when asked for its version.
fn version(program: &str, ask: &str, package: &str) -> Result<String> {
    let output = match Command::new(program).arg(ask).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("{program} is not installed: apt-get install {package}")
        }
        other => other.with_context(|| format!("cannot run {program}"))?,
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Tries `attempt` until it succeeds or `limit` is over.
pub fn until<T>(
    limit: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = std::time::Instant::now();
    loop {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("{what} took more than {} s", limit.as_secs());
        }
        super::halt::nap(Duration::from_millis(50))?;
    }
}
