//! One run: one tool does one row in fresh folders.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::halt;
use super::measure::Meter;
use super::net::End;
use super::report::median;
use super::rows::Row;
use super::tools::{Pair, Session, Tool};
use super::tree::{self, Goal};

/// How long a tool may go on working after the change is visible, and still be charged for it.
const REST: Duration = Duration::from_secs(5);

/// What one run has cost.
#[derive(Serialize)]
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
    /// How the trees differed when the clock had stopped; nothing is how it should be.
    pub wrong: Option<String>,
}

/// Lets `tool` do `row` once.
pub fn once(row: &Row, tool: &dyn Tool, pair: Pair<'_>) -> Result<Sample> {
    let (source, stage) = (pair.root(End::A), pair.stage());
    row.base(&source)?;
    // Even where a row starts from nothing there is one file, whose arrival shows that the
    // two ends have found each other.
    fs::write(source.join("first"), "here").context("cannot write")?;
    let mut goal = Goal::folder(&source, "".as_ref(), "".as_ref())?;
    let mut session = tool.start(&pair)?;
    finish(tool, &mut *session, &pair, &goal, None).context("before the clock started")?;
    row.stage(&stage)?;
    session.ready(&pair)?;
    // What was written so far must not wait in the page cache for somebody else's fsync.
    File::open(&stage)
        .and_then(|folder| Ok(rustix::fs::syncfs(folder)?))
        .context("syncfs")?;

    let daemons: Vec<u32> = session
        .processes()
        .iter()
        .map(|process| process.id())
        .collect();
    Meter::start(&daemons).rest(4 * REST)?;
    let meter = Meter::start(&daemons);
    let wire = pair.net.bytes()?;
    let mut walls = Vec::new();
    for turn in 0..row.times() {
        if turn > 0 {
            // Uneven, so as not to keep step with any timer of a tool.
            halt::nap(Duration::from_millis(100 + 37 * (turn as u64 % 5)))?;
        }
        let change = row.change(&stage, &source, turn)?;
        let start = Instant::now();
        goal = change()?;
        finish(tool, &mut *session, &pair, &goal, Some(&meter))?;
        walls.push(start.elapsed().as_secs_f64());
    }
    let wrong = tree::compare(&source, &pair.root(End::B))
        .err()
        .map(|error| format!("{error:#}"));
    halt::check()?;
    meter.rest(REST)?;
    Ok(Sample {
        wall: median(&walls),
        walls,
        wire: pair.net.bytes()? - wire,
        cpu: meter.cpu(),
        memory: meter.peak(),
        wrong,
    })
}

/// Waits until the receiver holds what it should: a live tool is watched, another one is run.
fn finish(
    tool: &dyn Tool,
    session: &mut dyn Session,
    pair: &Pair<'_>,
    goal: &Goal,
    meter: Option<&Meter>,
) -> Result<()> {
    if tool.live() {
        goal.wait(&pair.root(End::B), pair.limit, &session.processes())
    } else {
        session.sync(pair, meter)
    }
}
