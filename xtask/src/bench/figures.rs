//! All that was measured, as it is kept in `docs/benchmarks.json`: the tables and pictures of the
//! documents are made from it, so a part can be measured again alone.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::run::Sample;
use super::tools::Tool;

/// All that was measured.
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Figures {
    /// What it was measured on.
    pub machine: Machine,
    /// LEFT and its peers on the same work.
    pub rows: Vec<Line>,
    /// What the machine itself gives.
    pub limits: Vec<Gauge>,
    /// The same over a long link.
    pub lab: Vec<Line>,
    /// Trees of more and more files.
    pub trees: Vec<Grown>,
    /// One file for more and more receivers.
    pub receivers: Vec<Grown>,
}

/// What the figures depend on besides the tools.
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Machine {
    /// Processors.
    pub cores: usize,
    /// Load average of the last minute before the start: what else the machine was doing.
    pub load: String,
    /// The kernel's release.
    pub kernel: String,
    /// TCP's congestion control.
    pub congestion: String,
    /// Kind of the file system that was worked on.
    pub file_system: String,
    /// When, and by which command, the latest part was measured.
    pub read: String,
    /// Tool → version.
    pub versions: BTreeMap<String, String>,
    /// Tools that were left out, and why.
    pub missing: Vec<String>,
}

/// One row: what each tool did.
#[derive(Serialize, Deserialize)]
pub struct Line {
    /// Name on the command line.
    pub name: String,
    /// Name in tables.
    pub title: String,
    /// The least seconds that the link takes for the bytes, where it is what bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<f64>,
    /// Each tool's runs.
    pub cells: Vec<Cell>,
}

/// What one tool did in one row.
#[derive(Serialize, Deserialize)]
pub struct Cell {
    /// Which.
    pub tool: String,
    /// What a power cut could not take back when the clock stopped.
    pub durable: String,
    /// The runs that ended, by their number.
    pub samples: BTreeMap<u32, Sample>,
    /// Why others did not.
    pub failures: Vec<String>,
}

/// One thing that the machine can do.
#[derive(Serialize, Deserialize)]
pub struct Gauge {
    /// What.
    pub what: String,
    /// How fast.
    pub value: f64,
    /// Of what a second.
    pub unit: String,
    /// CPU seconds that a GiB, or 10,000 of the unit, cost, where that was read.
    pub cpu: Option<f64>,
}

/// One step of growth.
#[derive(Serialize, Deserialize)]
pub struct Grown {
    /// How many.
    pub count: u64,
    /// Seconds until all were equal.
    pub wall: f64,
    /// CPU seconds of all processes.
    pub cpu: f64,
    /// Peak memory of the sender and of the hungriest receiver, in bytes.
    pub memory: [u64; 2],
    /// Bytes that left the source.
    pub sent: u64,
    /// Bytes of the content.
    pub content: u64,
}

impl Machine {
    /// This one, now.
    pub fn here(work: &Path) -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let kernel = rustix::system::uname();
        let read = |path: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.split_whitespace()
                .next()
                .unwrap_or("unknown")
                .to_owned()
        };
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load: read("/proc/loadavg"),
            kernel: kernel.release().to_string_lossy().into_owned(),
            congestion: read("/proc/sys/net/ipv4/tcp_congestion_control"),
            file_system: file_system(work),
            read: format!("{}, `cargo xtask {}`", today(), args.join(" ")),
            versions: BTreeMap::new(),
            missing: Vec::new(),
        }
    }
}

impl Figures {
    /// What `json` holds.
    pub fn parse(json: &str) -> Result<Self> {
        Ok(serde_json::from_str(json)?)
    }

    /// Everything, single runs included.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Takes over what `newer` has; what it does not have stays. Rows keep the order of `order`.
    pub fn update(&mut self, newer: Self, order: &[&str]) {
        let versions = std::mem::take(&mut self.machine.versions);
        self.machine = newer.machine;
        for (tool, version) in versions {
            self.machine.versions.entry(tool).or_insert(version);
        }
        for (ours, theirs) in [(&mut self.rows, newer.rows), (&mut self.lab, newer.lab)] {
            for line in theirs {
                ours.retain(|old| old.name != line.name);
                ours.push(line);
            }
            let place = |line: &Line| order.iter().position(|name| *name == line.name);
            ours.sort_by_key(|line| place(line).unwrap_or(usize::MAX));
        }
        if !newer.limits.is_empty() {
            self.limits = newer.limits;
        }
        for (ours, theirs) in [
            (&mut self.trees, newer.trees),
            (&mut self.receivers, newer.receivers),
        ] {
            for step in theirs {
                ours.retain(|old| old.count != step.count);
                ours.push(step);
            }
            ours.sort_by_key(|step| step.count);
        }
    }

    /// Whether every run ended, and ended with equal trees.
    pub fn all_right(&self) -> bool {
        let lines = self.rows.iter().chain(&self.lab);
        lines.flat_map(|line| &line.cells).all(Cell::ok)
    }
}

impl Cell {
    /// Nothing measured yet.
    pub fn new(tool: &dyn Tool) -> Self {
        Self {
            tool: tool.name().into(),
            durable: tool.durable().into(),
            samples: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    /// Adds run `number`.
    pub fn add(&mut self, number: u32, result: Result<Sample>) {
        match result {
            Ok(sample) => drop(self.samples.insert(number, sample)),
            Err(error) => self.failures.push(format!("{error:#}")),
        }
    }

    /// Whether all runs ended, with equal trees, and there was one.
    pub fn ok(&self) -> bool {
        self.failures.is_empty()
            && !self.samples.is_empty()
            && self.samples.values().all(|sample| sample.wrong.is_none())
    }

    /// What went wrong.
    pub fn troubles(&self) -> impl Iterator<Item = &String> {
        let wrong = self.samples.values().filter_map(|s| s.wrong.as_ref());
        wrong.chain(&self.failures)
    }
}

/// The date, as `2026-11-25`.
fn today() -> String {
    let output = std::process::Command::new("date").arg("+%F").output();
    output.map_or_else(
        |_| "some day".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// The kind of file system that `path` lies on: what fsync costs depends on it.
fn file_system(path: &Path) -> String {
    let Ok(stat) = rustix::fs::statfs(path) else {
        return "unknown file system".into();
    };
    // Magic numbers of statfs(2); the field's type differs between platforms.
    #[allow(clippy::unnecessary_cast)]
    match stat.f_type as u64 {
        0xef53 => "ext4".into(),
        0x0102_1994 => "tmpfs (nothing is ever durable there)".into(),
        0x9123_683e => "btrfs".into(),
        0x5846_5342 => "xfs".into(),
        0x794c_7630 => "overlayfs".into(),
        0x2fc1_2fc1 => "zfs".into(),
        other => format!("file system {other:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Figures, Grown, Line};

    fn line(name: &str, title: &str) -> Line {
        Line {
            name: name.into(),
            title: title.into(),
            link: None,
            cells: Vec::new(),
        }
    }

    fn grown(count: u64, wall: f64) -> Grown {
        Grown {
            count,
            wall,
            cpu: 0.0,
            memory: [0; 2],
            sent: 0,
            content: 0,
        }
    }

    #[test]
    fn a_part_measured_again_replaces_only_itself() {
        let mut kept = Figures {
            rows: vec![line("a", "old"), line("c", "old")],
            trees: vec![grown(10, 1.0)],
            ..Figures::default()
        };
        let newer = Figures {
            rows: vec![line("b", "new"), line("a", "new")],
            trees: vec![grown(10, 2.0), grown(5, 0.5)],
            ..Figures::default()
        };
        kept.update(newer, &["a", "b", "c"]);
        let rows: Vec<_> = kept
            .rows
            .iter()
            .map(|line| (line.name.as_str(), line.title.as_str()))
            .collect();
        assert_eq!(rows, [("a", "new"), ("b", "new"), ("c", "old")]);
        assert_eq!(kept.trees.len(), 2);
        assert!(kept.trees[0].count == 5 && kept.trees[1].wall > 1.5);
    }
}
