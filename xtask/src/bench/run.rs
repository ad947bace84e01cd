//! One run: one tool does one row in fresh folders.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::halt;
use super::judge::median;
use super::measure::{self, Meter};
use super::net::End;
use super::random;
use super::rows::{Course, Row, Settings};
use super::tools::{Pair, Session, Tool, until};
use super::tree::{self, Goal};

/// How long a tool may go on working after the change is visible, and still be charged for it.
const REST: Duration = Duration::from_secs(5);
/// What a tool puts off until some seconds after its last work, as syncing the disk, is not idling.
const PUT_OFF: Duration = Duration::from_secs(10);
/// Of a file that is under way while small ones are measured, so much has passed at the first one.
const UNDER_WAY: u64 = 4 << 20;
/// Small changes that must have been made while the big file was under way.
const ENOUGH: usize = 10;
/// The file that shows what a tool adds to a file's bytes on the wire.
const PROBE: u64 = 64 << 20;

/// What one run has cost.
#[derive(Serialize, Deserialize, Default)]
pub struct Sample {
    /// Seconds from the change until the receiver holds it; the median where a run has
    /// several changes.
    pub wall: f64,
    /// Seconds of each change.
    pub walls: Vec<f64>,
    /// Bytes on the wire, both directions.
    pub wire: u64,
    /// CPU seconds of all processes at both ends.
    pub cpu: f64,
    /// Largest peak memory of any one process, in bytes.
    pub memory: u64,
    /// Where a receiver was killed: bytes sent twice, as a part of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twice: Option<f64>,
    /// What else is worth saying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How the trees differed when the clock had stopped; nothing is how it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
}

/// A run under way.
struct Run<'a, 'n> {
    row: &'a Row,
    tool: &'a dyn Tool,
    pair: &'a Pair<'n>,
    settings: Settings,
    session: Box<dyn Session>,
}

/// What the clock says, and what was said beside.
#[derive(Default)]
struct Told {
    walls: Vec<f64>,
    twice: Option<f64>,
    note: Option<String>,
}

/// Lets `tool` do `row` once.
pub fn once(row: &Row, tool: &dyn Tool, pair: &Pair<'_>, settings: Settings) -> Result<Sample> {
    let (source, stage) = (pair.root(End::A), pair.stage());
    row.base(&source)?;
    // Even where a row starts from nothing there is one file, whose arrival shows that the
    // two ends have found each other.
    fs::write(source.join("first"), "here").context("cannot write")?;
    let goal = Goal::folder(&source, "".as_ref(), "".as_ref())?;
    let mut run = Run {
        row,
        tool,
        pair,
        settings,
        session: tool.start(pair)?,
    };
    run.finish(&goal, None)
        .context("before the clock started")?;
    row.stage(&stage, settings)?;
    run.session.ready(pair)?;
    // What was written so far must not wait in the page cache for somebody else's fsync.
    File::open(&stage)
        .and_then(|folder| Ok(rustix::fs::syncfs(folder)?))
        .context("syncfs")?;

    let daemons: Vec<u32> = run.daemons();
    Meter::start(&daemons).rest(4 * REST)?;
    if row.course == Course::Idle {
        halt::nap(PUT_OFF)?;
    }
    let narrow = match row.course {
        Course::HalfWay { rate } => Some(rate),
        _ => None,
    };
    let overhead = narrow.map(|_| run.overhead()).transpose()?;
    let _narrow = narrow.map(|rate| pair.net.narrow(rate)).transpose()?;
    let meter = Meter::start(&daemons);
    let wire = pair.net.bytes()?;
    let told = match row.course {
        Course::Running => run.running(&meter)?,
        Course::Down | Course::Fresh => run.again(&meter)?,
        Course::Plan => run.plan(&meter)?,
        Course::HalfWay { .. } => run.half_way(&meter, overhead.unwrap_or(1.0))?,
        Course::Idle => run.idle()?,
        Course::Busy => run.busy(&meter)?,
    };
    let idle = row.course == Course::Idle;
    // An idle tool has its own clock: what it costs later belongs to nothing.
    let cpu = idle.then(|| meter.cpu());
    let bytes = pair.net.bytes()? - wire;
    let wrong = tree::compare(&source, &pair.root(End::B))
        .err()
        .map(|error| format!("{error:#}"));
    halt::check()?;
    if !idle {
        meter.rest(REST)?;
    }
    Ok(Sample {
        wall: median(&told.walls),
        walls: told.walls,
        wire: if idle {
            bytes
        } else {
            pair.net.bytes()? - wire
        },
        cpu: cpu.unwrap_or_else(|| meter.cpu()),
        memory: if idle { run.resident() } else { meter.peak() },
        twice: told.twice,
        note: told.note,
        wrong,
    })
}

impl Run<'_, '_> {
    fn daemons(&self) -> Vec<u32> {
        let processes = self.session.processes();
        processes.iter().map(|process| process.id()).collect()
    }

    /// The most memory that one of the processes holds now.
    fn resident(&self) -> u64 {
        let all = self.daemons();
        all.into_iter().map(measure::resident).max().unwrap_or(0)
    }

    /// Both ends run; the change is made, as often as the row says.
    fn running(&mut self, meter: &Meter) -> Result<Told> {
        let mut told = Told::default();
        for turn in 0..self.row.times() {
            pause(turn, 100)?;
            told.walls.push(self.one_change(turn, meter)?);
        }
        Ok(told)
    }

    /// Makes a change; the seconds until it is at the other end.
    fn one_change(&mut self, turn: usize, meter: &Meter) -> Result<f64> {
        let (stage, source) = (self.pair.stage(), self.pair.root(End::A));
        let change = self.row.change(&stage, &source, turn)?;
        let start = Instant::now();
        let goal = change()?;
        self.finish(&goal, Some(meter))?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Both ends are stopped and started again.
    fn again(&mut self, meter: &Meter) -> Result<Told> {
        let (stage, source) = (self.pair.stage(), self.pair.root(End::A));
        let change = self.row.change(&stage, &source, 0)?;
        for end in [End::A, End::B] {
            self.session.stop(end)?;
        }
        // Times of files are told apart by the tick of the kernel's clock.
        halt::nap(Duration::from_millis(100))?;
        let (start, goal) = if self.row.course == Course::Down {
            let goal = change()?;
            halt::nap(Duration::from_millis(100))?;
            let start = Instant::now();
            self.resume_both(meter)?;
            (start, goal)
        } else {
            let start = Instant::now();
            self.resume_both(meter)?;
            (start, change()?)
        };
        self.finish(&goal, Some(meter))?;
        Ok(Told {
            walls: vec![start.elapsed().as_secs_f64()],
            ..Told::default()
        })
    }

    fn resume_both(&mut self, meter: &Meter) -> Result<()> {
        // The one that only listens comes first, so that a first dial succeeds.
        self.session.resume(self.pair, End::B, meter)?;
        self.session.resume(self.pair, End::A, meter)
    }

    /// The second step of the original's test plan.
    fn plan(&mut self, meter: &Meter) -> Result<Told> {
        let (stage, source) = (self.pair.stage(), self.pair.root(End::A));
        let goal = self.row.change(&stage, &source, 0)?()?;
        halt::nap(Duration::from_millis(500))?;
        self.session.kill(End::B, meter)?;
        let whole = goal.reached(&self.pair.root(End::B));
        halt::nap(Duration::from_secs(1))?;
        let start = Instant::now();
        self.session.resume(self.pair, End::B, meter)?;
        self.finish(&goal, Some(meter))?;
        Ok(Told {
            walls: vec![start.elapsed().as_secs_f64()],
            note: whole.then(|| "all was there at the kill".into()),
            twice: None,
        })
    }

    /// What `tool` sends for each byte of a file: lists, frames, records.
    fn overhead(&mut self) -> Result<f64> {
        let (stage, source) = (self.pair.stage(), self.pair.root(End::A));
        random::file(&stage.join("probe"), PROBE, 7)?;
        let before = self.pair.net.payload()?;
        fs::rename(stage.join("probe"), source.join("probe"))?;
        self.finish(&Goal::file(&source, "probe".as_ref())?, None)?;
        Ok(ratio(self.pair.net.payload()? - before, PROBE))
    }

    /// The receiver is killed when half of a file is there.
    fn half_way(&mut self, meter: &Meter, overhead: f64) -> Result<Told> {
        let (stage, source) = (self.pair.stage(), self.pair.root(End::A));
        let len = self.row.content();
        let change = self.row.change(&stage, &source, 0)?;
        let before = self.pair.net.payload()?;
        let start = Instant::now();
        let goal = change()?;
        until(self.pair.limit, "half of the file", || {
            let sent = self.pair.net.payload()? - before;
            Ok((sent > len / 2).then_some(()))
        })?;
        self.session.kill(End::B, meter)?;
        self.session.resume(self.pair, End::B, meter)?;
        self.finish(&goal, Some(meter))?;
        let wall = start.elapsed().as_secs_f64();
        let sent = self.pair.net.payload()? - before;
        Ok(Told {
            walls: vec![wall],
            twice: Some(ratio(sent, len) - overhead),
            note: Some(format!(
                "overhead {:.2} % without a kill",
                (overhead - 1.0) * 100.0
            )),
        })
    }

    fn idle(&mut self) -> Result<Told> {
        let wakes = |all: &[u32]| -> u64 { all.iter().map(|&pid| measure::wakes(pid)).sum() };
        let all = self.daemons();
        let before = wakes(&all);
        let start = Instant::now();
        halt::nap(self.settings.idle)?;
        let woken = wakes(&all).saturating_sub(before);
        Ok(Told {
            walls: vec![start.elapsed().as_secs_f64()],
            note: Some(format!("threads woke {woken} times")),
            twice: None,
        })
    }

    /// Small changes while a big file is under way.
    fn busy(&mut self, meter: &Meter) -> Result<Told> {
        let (stage, source) = (self.pair.stage(), self.pair.root(End::A));
        let before = self.pair.net.bytes()?;
        let big = self.row.move_big_in(&stage, &source)?;
        until(self.pair.limit, "the start of the big file", || {
            Ok((self.pair.net.bytes()? - before > UNDER_WAY).then_some(()))
        })?;
        let mut told = Told::default();
        for turn in 0..self.row.times() {
            // Short, for many of them: of a hundred the 99th percentile is the slowest one.
            pause(turn, 20)?;
            let wall = self.one_change(turn, meter)?;
            if big.reached(&self.pair.root(End::B)) {
                break;
            }
            told.walls.push(wall);
        }
        ensure!(
            told.walls.len() >= ENOUGH,
            "the big file was through after {} changes: give a larger one with --big",
            told.walls.len()
        );
        told.note = Some(format!("{} changes", told.walls.len()));
        self.finish(&big, Some(meter))?;
        Ok(told)
    }

    /// Waits until the receiver holds what it should: a live tool is watched, another one is run.
    fn finish(&mut self, goal: &Goal, meter: Option<&Meter>) -> Result<()> {
        if self.tool.live() {
            let root = self.pair.root(End::B);
            goal.wait(&root, self.pair.limit, &self.session.processes())
        } else {
            self.session.sync(self.pair, meter)
        }
    }
}

/// `least` milliseconds, or up to two and a half times as many: uneven, so as not to keep step with any timer
/// of a tool.
fn pause(turn: usize, least: u64) -> Result<()> {
    if turn == 0 {
        return Ok(());
    }
    halt::nap(Duration::from_millis(
        least + least * 37 * (turn as u64 % 5) / 100,
    ))
}

#[allow(clippy::cast_precision_loss, reason = "shown with four digits")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
