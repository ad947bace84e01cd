//! The figures as an aligned table, as Markdown and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::rows::Row;
use super::run::Sample;
use super::tools::Tool;

/// All that was measured.
#[derive(Serialize)]
pub struct Report {
    /// The command that measured it.
    pub command: String,
    /// What it was measured on.
    pub machine: Machine,
    /// Tools that were left out, and why.
    pub missing: Vec<String>,
    rows: Vec<Line>,
}

/// What the figures depend on besides the tools.
#[derive(Serialize)]
pub struct Machine {
    cores: usize,
    /// Load average of the last minute before the start: what else the machine was doing.
    load: String,
    kernel: String,
    /// Kind of the file system that was worked on.
    pub file_system: String,
    /// Tool → version.
    pub versions: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Line {
    name: &'static str,
    title: &'static str,
    cells: Vec<Cell>,
}

/// What one tool did in one row.
#[derive(Serialize)]
pub struct Cell {
    tool: &'static str,
    durable: &'static str,
    summary: Option<Summary>,
    samples: Vec<Sample>,
    failures: Vec<String>,
    left_over: Option<Ratios>,
}

#[derive(Serialize)]
struct Summary {
    wall: Spread,
    wire: Spread,
    cpu: Spread,
    memory: Spread,
    /// 99th percentile of the single changes, where a run has several.
    p99: Option<f64>,
}

#[derive(Serialize, Clone, Copy)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

/// LEFT's medians divided by the tool's: below 1, LEFT is better.
#[derive(Serialize, Clone, Copy)]
struct Ratios {
    wall: f64,
    wire: f64,
    cpu: f64,
}

impl Report {
    /// An empty report that knows the machine.
    pub fn new() -> Self {
        let kernel = rustix::system::uname();
        let args: Vec<String> = std::env::args().skip(1).collect();
        Self {
            command: format!("cargo xtask {}", args.join(" ")),
            machine: Machine {
                cores: std::thread::available_parallelism().map_or(1, usize::from),
                load: load(),
                kernel: kernel.release().to_string_lossy().into_owned(),
                file_system: String::new(),
                versions: BTreeMap::new(),
            },
            missing: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of which all runs are done.
    pub fn add(&mut self, row: &Row, mut cells: Vec<Cell>) {
        for cell in &mut cells {
            cell.summary = Summary::of(&cell.samples);
        }
        let medians = |cell: &Cell| {
            let summary = cell.summary.as_ref()?;
            Some([summary.wall.median, summary.wire.median, summary.cpu.median])
        };
        let left = cells
            .iter()
            .find(|cell| cell.tool == "left")
            .and_then(medians);
        for cell in cells.iter_mut().filter(|cell| cell.tool != "left") {
            cell.left_over = left.zip(medians(cell)).map(|(left, peer)| Ratios {
                wall: left[0] / peer[0],
                wire: left[1] / peer[1],
                cpu: left[2] / peer[2],
            });
        }
        self.rows.push(Line {
            name: row.name,
            title: row.title,
            cells,
        });
    }

    /// Whether every run ended, and ended with equal trees.
    pub fn all_right(&self) -> bool {
        self.rows
            .iter()
            .flat_map(|row| &row.cells)
            .all(|cell| cell.state() == "ok")
    }

    /// Everything, single runs included.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The table for the terminal.
    pub fn text(&self) -> String {
        let mut text = self.preface("");
        for row in &self.rows {
            let _ = writeln!(text, "\n{} ({})", row.title, row.name);
            let mut lines = vec![HEADS.map(str::to_owned)];
            lines.extend(row.cells.iter().map(Cell::columns));
            text.push_str(&aligned(&lines));
            for cell in &row.cells {
                for trouble in cell.troubles() {
                    let _ = writeln!(text, "  {}: {trouble}", cell.tool);
                }
            }
        }
        text
    }

    /// The same for a document.
    pub fn markdown(&self) -> String {
        let mut text = self.preface("- ");
        let _ = writeln!(text, "\n| work | {} |", HEADS.join(" | "));
        let _ = writeln!(text, "| --- |{}", " --- |".repeat(HEADS.len()));
        for row in &self.rows {
            for cell in &row.cells {
                let _ = writeln!(text, "| {} | {} |", row.title, cell.columns().join(" | "));
            }
        }
        for row in &self.rows {
            for cell in &row.cells {
                for trouble in cell.troubles() {
                    let _ = writeln!(text, "\n{}, {}: {trouble}", row.name, cell.tool);
                }
            }
        }
        text
    }

    fn preface(&self, mark: &str) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "{mark}`{}`\n{mark}{} cores, load {} at the start, Linux {}, {}; two network \
             namespaces joined by a veth pair; medians (min–max) of the runs, tools in turn\n",
            self.command, machine.cores, machine.load, machine.kernel, machine.file_system
        );
        for (tool, version) in &machine.versions {
            let _ = writeln!(text, "{mark}{tool}: {version}");
        }
        for missing in &self.missing {
            let _ = writeln!(text, "{mark}left out: {missing}");
        }
        text
    }
}

const HEADS: [&str; 8] = [
    "tool",
    "wall",
    "wire",
    "CPU s",
    "peak RSS",
    "durable",
    "LEFT ÷ tool: wall, wire, CPU",
    "state",
];

impl Cell {
    /// Nothing measured yet.
    pub fn new(tool: &dyn Tool) -> Self {
        Self {
            tool: tool.name(),
            durable: tool.durable(),
            summary: None,
            samples: Vec::new(),
            failures: Vec::new(),
            left_over: None,
        }
    }

    /// Adds one run.
    pub fn add(&mut self, result: Result<Sample>) {
        match result {
            Ok(sample) => self.samples.push(sample),
            Err(error) => self.failures.push(format!("{error:#}")),
        }
    }

    fn state(&self) -> &'static str {
        if self.samples.iter().any(|sample| sample.wrong.is_some()) {
            "WRONG"
        } else if !self.failures.is_empty() {
            "FAILED"
        } else if self.samples.is_empty() {
            "not run"
        } else {
            "ok"
        }
    }

    fn troubles(&self) -> impl Iterator<Item = &String> {
        self.samples
            .iter()
            .filter_map(|sample| sample.wrong.as_ref())
            .chain(&self.failures)
    }

    fn columns(&self) -> [String; 8] {
        let mut columns = [const { String::new() }; 8];
        columns[0] = self.tool.into();
        columns[5] = self.durable.into();
        columns[7] = self.state().into();
        if let Some(summary) = &self.summary {
            columns[1] = summary.wall.show(duration);
            if let Some(p99) = summary.p99 {
                let _ = write!(columns[1], ", p99 {}", duration(p99));
            }
            columns[2] = summary.wire.show(bytes);
            columns[3] = summary.cpu.show(|seconds| format!("{seconds:.2}"));
            columns[4] = bytes(summary.memory.max);
        }
        if let Some(ratios) = self.left_over {
            columns[6] = format!("{:.2}, {:.2}, {:.2}", ratios.wall, ratios.wire, ratios.cpu);
        }
        columns
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
impl Summary {
    fn of(samples: &[Sample]) -> Option<Self> {
        let spread = |value: fn(&Sample) -> f64| {
            Spread::of(&samples.iter().map(value).collect::<Vec<f64>>())
        };
        let mut walls: Vec<f64> = samples
            .iter()
            .flat_map(|sample| &sample.walls)
            .copied()
            .collect();
        walls.sort_by(f64::total_cmp);
        let several = samples.iter().any(|sample| sample.walls.len() > 1);
        Some(Self {
            wall: spread(|sample| sample.wall)?,
            wire: spread(|sample| sample.wire as f64)?,
            cpu: spread(|sample| sample.cpu)?,
            memory: spread(|sample| sample.memory as f64)?,
            p99: several.then(|| walls[(walls.len() * 99).div_ceil(100) - 1]),
        })
    }
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        Some(Self {
            median: median(values),
            min: values.iter().copied().reduce(f64::min)?,
            max: values.iter().copied().reduce(f64::max)?,
        })
    }

    fn show(self, show: fn(f64) -> String) -> String {
        let [median, min, max] = [self.median, self.min, self.max].map(show);
        if min == max {
            median
        } else {
            format!("{median} ({min}–{max})")
        }
    }
}

/// The middle value, or the mean of the two in the middle; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// One run in one line, for following along.
pub fn line(result: &Result<Sample>) -> String {
    match result {
        Ok(sample) => {
            #[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
            let (wire, memory) = (sample.wire as f64, sample.memory as f64);
            let wrong = sample.wrong.as_ref().map(|how| format!("  WRONG: {how}"));
            format!(
                "{:>9}  {:>9}  {:>6.2} CPU s  {:>9}{}",
                duration(sample.wall),
                bytes(wire),
                sample.cpu,
                bytes(memory),
                wrong.unwrap_or_default()
            )
        }
        Err(error) => format!("FAILED: {error:#}"),
    }
}

fn duration(seconds: f64) -> String {
    if seconds < 0.0995 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of bytes, never negative"
)]
fn bytes(count: f64) -> String {
    bytesize::ByteSize(count as u64).display().si().to_string()
}

fn aligned(lines: &[[String; 8]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..8).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let padded: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        let _ = writeln!(text, "  {}", padded.join("  ").trim_end());
    }
    text
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .next()
        .unwrap_or("unknown")
        .to_owned()
}

/// The kind of file system that `path` lies on: what fsync costs depends on it.
pub fn file_system(path: &Path) -> String {
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
    use super::{Sample, Summary, aligned, duration, median};

    fn sample(walls: &[f64]) -> Sample {
        let (walls, wall) = (walls.to_vec(), median(walls));
        Sample {
            wall,
            walls,
            wire: 10,
            cpu: 0.5,
            memory: 7,
            wrong: None,
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]).to_bits(), 0.0_f64.to_bits());
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn a_summary_has_a_percentile_only_of_several_changes() {
        assert!(Summary::of(&[]).is_none());
        let one = Summary::of(&[sample(&[1.0]), sample(&[3.0])]).expect("summary");
        assert!(one.p99.is_none() && (one.wall.median - 2.0).abs() < 1e-9);
        let many = Summary::of(&[sample(&[1.0, 2.0, 9.0])]).expect("summary");
        assert!(many.p99.is_some_and(|p99| (p99 - 9.0).abs() < 1e-9));
    }

    #[test]
    fn columns_are_aligned_by_characters() {
        let cell = |text: &str| std::array::from_fn(|_| text.to_owned());
        let text = aligned(&[cell("é"), cell("long")]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("  é     é") && lines[1].starts_with("  long  long"));
        assert_eq!(duration(0.0123), "12.3 ms");
        assert_eq!(duration(1.239), "1.24 s");
    }
}
