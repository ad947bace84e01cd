//! `cargo xtask bench --growth`: what more files and more receivers cost LEFT.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::figures::Grown;
use super::measure::{self, Meter};
use super::net::Switch;
use super::process::Process;
use super::random;
use super::tools::{left, until};
use super::tree::{self, Goal};
use super::{Common, halt, show};

const PORT: u16 = 20201;
/// Receivers that one machine can bear at once.
const MOST: u64 = 32;

/// Trees of these numbers of files of 100 bytes, to one receiver.
pub fn trees(counts: &[u64], common: &Common, work: &Path, steps: &mut Vec<Grown>) -> Result<()> {
    for &count in counts {
        ensure!(count > 0, "a tree needs a file");
        let fleet = Fleet::start(1, common, &work.join(format!("tree-{count}")))?;
        let stage = fleet.work.join("tree");
        random::tree(&stage, count, 100, 1 << 32)?;
        let goal = Goal::folder(&stage, "".as_ref(), "tree".as_ref())?;
        let step = fleet.measure(&stage, "tree", &goal, count, count * 100)?;
        eprintln!(
            "{count} files: {}, receiver {}",
            show::duration(step.wall),
            show::bytes(step.memory[1] as f64)
        );
        steps.push(step);
        fs::remove_dir_all(&fleet.work)?;
    }
    Ok(())
}

/// One file of `size` to these numbers of receivers, which take turns run by run; of the runs of each the one
/// with the median time.
pub fn receivers(
    counts: &[u64],
    size: u64,
    common: &Common,
    work: &Path,
    steps: &mut Vec<Grown>,
) -> Result<()> {
    let mut runs: Vec<Vec<Grown>> = counts.iter().map(|_| Vec::new()).collect();
    for _ in 0..common.runs.max(1) {
        for (&count, runs) in counts.iter().zip(&mut runs) {
            runs.push(to_receivers(count, size, common, work)?);
        }
    }
    for mut runs in runs {
        runs.sort_by(|a, b| a.wall.total_cmp(&b.wall));
        steps.push(runs.swap_remove((runs.len() - 1) / 2));
    }
    Ok(())
}

fn to_receivers(count: u64, size: u64, common: &Common, work: &Path) -> Result<Grown> {
    ensure!((1..=MOST).contains(&count), "1 to {MOST} receivers");
    let folder = work.join(format!("receivers-{count}"));
    let fleet = Fleet::start(usize::try_from(count)?, common, &folder)?;
    let stage = fleet.work.join("file");
    random::file(&stage, size, 21)?;
    let mut goal = Goal::file(&fleet.work, "file".as_ref())?;
    goal.rename("file".as_ref(), "big".as_ref());
    let step = fleet.measure(&stage, "big", &goal, count, size)?;
    eprintln!(
        "{count} receivers: {}, {} left the source",
        show::duration(step.wall),
        show::bytes(step.sent as f64)
    );
    fs::remove_dir_all(&fleet.work)?;
    Ok(step)
}

/// A sender and its receivers, connected and equal.
struct Fleet {
    // Ended before their network goes.
    processes: Vec<Process>,
    switch: Switch,
    work: PathBuf,
    binary: PathBuf,
    limit: Duration,
}

impl Fleet {
    fn start(receivers: usize, common: &Common, work: &Path) -> Result<Self> {
        let mut fleet = Self {
            processes: Vec::new(),
            switch: Switch::create(receivers + 1)?,
            work: work.to_owned(),
            binary: left::binary(common.left.as_deref())?,
            limit: Duration::from_secs(common.limit),
        };
        fs::create_dir_all(fleet.root(0))?;
        fs::write(fleet.root(0).join("first"), "here")?;
        let mut share = fleet.left(0, "share");
        share.arg(fleet.root(0)).args(fleet.listen(0));
        fleet.spawn(share, "share")?;
        // Before it runs, another command would take its place.
        until(Duration::from_secs(60), "the start of the source", || {
            fleet.processes[0].check()?;
            Ok(left::ticket(&fleet.processes[0].printed()))
        })?;
        for receiver in 1..=receivers {
            let ticket = fleet.ticket()?;
            let mut join = fleet.left(receiver, "join");
            join.arg(ticket).arg(fleet.root(receiver));
            join.args(fleet.listen(receiver));
            fleet.spawn(join, &format!("join-{receiver}"))?;
        }
        let goal = Goal::file(&fleet.root(0), "first".as_ref())?;
        fleet.arrive(&goal)?;
        let mut wait = fleet.left(0, "wait");
        wait.arg(fleet.root(0)).args(["--timeout", "60s"]);
        let waited = wait.output().context("cannot run left")?;
        ensure!(waited.status.success(), "the devices do not become equal");
        Ok(fleet)
    }

    /// One for another receiver.
    fn ticket(&self) -> Result<String> {
        let mut ask = self.left(0, "ticket");
        ask.arg(self.root(0)).arg("--json");
        let answer = ask.output().context("cannot run left")?;
        left::ticket(&String::from_utf8_lossy(&answer.stdout))
            .context("`left ticket` prints no ticket")
    }

    fn left(&self, machine: usize, verb: &str) -> Command {
        let mut command = self.switch.command(machine, &self.binary);
        let home = self.work.join(format!("home-{machine}"));
        command.env("HOME", &home).env("LEFT_HOME", &home).arg(verb);
        command
    }

    fn listen(&self, machine: usize) -> [String; 6] {
        let address = self.switch.address(machine);
        [
            "--listen".into(),
            format!("{address}:{PORT}"),
            "--advertise".into(),
            address,
            "--no-web".into(),
            "--json".into(),
        ]
    }

    fn root(&self, machine: usize) -> PathBuf {
        self.work.join(format!("root-{machine}"))
    }

    fn spawn(&mut self, command: Command, what: &str) -> Result<()> {
        let process = Process::start(command, what, &self.work)?;
        self.processes.push(process);
        Ok(())
    }

    /// Waits until every receiver has reached `goal`.
    fn arrive(&self, goal: &Goal) -> Result<()> {
        let all: Vec<&Process> = self.processes.iter().collect();
        (1..self.processes.len()).try_for_each(|n| goal.wait(&self.root(n), self.limit, &all))
    }

    /// Moves `stage` in as `name` and measures until all have it.
    fn measure(
        &self,
        stage: &Path,
        name: &str,
        goal: &Goal,
        count: u64,
        content: u64,
    ) -> Result<Grown> {
        File::open(&self.work).and_then(|folder| Ok(rustix::fs::syncfs(folder)?))?;
        let pids: Vec<u32> = self.processes.iter().map(Process::id).collect();
        Meter::start(&pids).rest(Duration::from_secs(20))?;
        let meter = Meter::start(&pids);
        let sent = self.switch.sent(0)?;
        let start = Instant::now();
        fs::rename(stage, self.root(0).join(name)).context("cannot move in")?;
        self.arrive(goal)?;
        let wall = start.elapsed().as_secs_f64();
        meter.rest(Duration::from_secs(10))?;
        halt::check()?;
        let sent = self.switch.sent(0)? - sent;
        for receiver in 1..self.processes.len() {
            tree::compare(&self.root(0), &self.root(receiver))?;
        }
        let peaks: Vec<u64> = pids.iter().map(|&pid| measure::peak(pid)).collect();
        Ok(Grown {
            count,
            wall,
            cpu: meter.cpu(),
            memory: [peaks[0], peaks[1..].iter().copied().max().unwrap_or(0)],
            sent,
            content,
        })
    }
}
