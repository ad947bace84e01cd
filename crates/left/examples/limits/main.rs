//! What the machine itself gives, so that each figure of LEFT stands beside the best possible one:
//! hashing, cutting, encrypting, sockets, files, a database. One thread unless it says otherwise.
//! Prints a JSON list; `cargo xtask bench --limits` runs it.
//!
//!     cargo run --release -p left --example limits -- FOLDER
//!
//! FOLDER is on the file system that counts; what is made there is removed again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

mod compute;
mod disk;
mod wire;

const GIB: f64 = 1_073_741_824.0;

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).context("say a folder")?;
    let folder = PathBuf::from(folder).join(format!("left-limits-{}", std::process::id()));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let all = measure(&folder);
    std::fs::remove_dir_all(&folder)?;
    println!("{}", serde_json::to_string_pretty(&all?)?);
    Ok(())
}

/// Everything, in less than a minute.
fn measure(folder: &Path) -> Result<Vec<Gauge>> {
    let mut gauges = compute::measure(256 << 20)?;
    gauges.extend(wire::measure(1 << 30)?);
    gauges.extend(disk::measure(folder, 512 << 20, 10_000)?);
    Ok(gauges)
}

/// One thing that the machine can do.
#[derive(Serialize)]
struct Gauge {
    what: &'static str,
    /// How fast.
    value: f64,
    /// Of what a second.
    unit: &'static str,
    /// CPU seconds for a GiB, or for 10,000 of the unit.
    cpu: Option<f64>,
}

/// Processed bytes, or made things.
enum Done {
    Bytes(u64),
    Things(u64, &'static str),
}

/// Runs `work` once and says how fast it was. What it says it has done is what counts.
fn time(what: &'static str, work: impl FnOnce() -> Result<Done>) -> Result<Gauge> {
    let (start, before) = (Instant::now(), cpu());
    let done = work()?;
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu() - before);
    let (count, unit, per) = match done {
        Done::Bytes(count) => (count as f64, "bytes", GIB),
        Done::Things(count, unit) => (count as f64, unit, 10_000.0),
    };
    let gauge = Gauge {
        what,
        value: count / wall.max(1e-9),
        unit,
        cpu: Some(cpu.as_secs_f64() / count * per),
    };
    eprintln!("{what}: {:.0} {unit}/s", gauge.value);
    Ok(gauge)
}

/// CPU time of this process so far, all threads.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// `len` bytes without any pattern, always the same for the same seed.
fn random(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_keyed(&[seed; 32])
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}
