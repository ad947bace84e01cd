//! The figures as aligned tables for the terminal and as Markdown.

use std::fmt::Write as _;

use anyhow::Result;

use super::bounds::{self, What};
use super::figures::{Cell, Figures, Gauge, Grown, Line};
use super::judge::{self, Verdict};
use super::run::Sample;

const HEADS: [&str; 8] = [
    "tool",
    "wall",
    "wire",
    "CPU s",
    "peak RSS",
    "durable",
    "LEFT ÷ tool: wall, wire, CPU",
    "bound",
];

/// A table: a title, heads, lines.
pub struct Table {
    title: String,
    heads: Vec<String>,
    lines: Vec<Vec<String>>,
    /// What is said below it.
    after: Vec<String>,
}

impl Table {
    /// For the terminal.
    pub fn text(&self) -> String {
        let mut text = format!("\n{}\n", self.title);
        let all: Vec<&Vec<String>> = std::iter::once(&self.heads).chain(&self.lines).collect();
        let width = |column: usize| {
            let widths = all.iter().filter_map(|line| line.get(column));
            widths.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        for line in all {
            let padded: Vec<String> = line
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| format!("{cell:<width$}"))
                .collect();
            let _ = writeln!(text, "  {}", padded.join("  ").trim_end());
        }
        for line in &self.after {
            let _ = writeln!(text, "  {line}");
        }
        text
    }

    /// For a document.
    pub fn markdown(&self) -> String {
        let mut text = format!("| {} |\n|", self.heads.join(" | "));
        text.push_str(&" --- |".repeat(self.heads.len()));
        text.push('\n');
        for line in &self.lines {
            let _ = writeln!(text, "| {} |", line.join(" | "));
        }
        for line in &self.after {
            let _ = writeln!(text, "\n{line}");
        }
        text
    }
}

/// One table a row, for the terminal.
pub fn rows(figures: &Figures) -> Vec<Table> {
    let lines = figures.rows.iter().chain(&figures.lab);
    lines.map(|line| all_rows(&[line], &line.title)).collect()
}

/// All rows in one table, for a document.
pub fn all_rows(lines: &[&Line], title: &str) -> Table {
    let mut table = Table {
        title: title.to_owned(),
        heads: HEADS.map(str::to_owned).to_vec(),
        lines: Vec::new(),
        after: Vec::new(),
    };
    let several = lines.len() > 1;
    if several {
        table.heads.insert(0, "work".into());
    }
    for line in lines {
        for cell in &line.cells {
            let mut columns = columns(line, cell);
            if several {
                columns.insert(0, line.title.clone());
            }
            table.lines.push(columns);
            let notes = cell.samples.values().filter_map(|s| s.note.as_ref());
            for said in cell.troubles().chain(notes.take(1)) {
                let what = if several { line.name.as_str() } else { "" };
                table
                    .after
                    .push(format!("{what} {}: {said}", cell.tool).trim_start().into());
            }
        }
    }
    table
}

/// Every bound, and whether it is reached.
pub fn verdicts(figures: &Figures) -> Table {
    let mut table = Table {
        title: "bounds".into(),
        heads: ["work", "bound", "read", "reached"]
            .map(str::to_owned)
            .to_vec(),
        lines: Vec::new(),
        after: Vec::new(),
    };
    for line in figures.rows.iter().chain(&figures.lab) {
        for verdict in judged(line) {
            let reached = match verdict.reached {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "not compared",
            };
            let line = [&line.title, &verdict.bound, &verdict.read];
            let mut line: Vec<String> = line.map(String::clone).to_vec();
            line.push(reached.into());
            table.lines.push(line);
        }
    }
    table
}

/// What the machine gives.
pub fn limits(gauges: &[Gauge]) -> Table {
    let line = |gauge: &Gauge| {
        let cpu = gauge
            .cpu
            .map_or_else(String::new, |cpu| format!("{cpu:.2}"));
        vec![gauge.what.clone(), rate(gauge), cpu]
    };
    Table {
        title: "what the machine gives".into(),
        heads: ["what", "rate", "CPU s per GiB, or per 10,000"]
            .map(str::to_owned)
            .to_vec(),
        lines: gauges.iter().map(line).collect(),
        after: Vec::new(),
    }
}

/// Trees of more and more files.
pub fn trees(steps: &[Grown]) -> Table {
    let line = |step: &Grown| {
        let count = step.count as f64;
        vec![
            step.count.to_string(),
            duration(step.wall),
            format!("{:.0} µs", step.wall / count * 1e6),
            format!("{:.0} µs", step.cpu / count * 1e6),
            bytes(step.memory[0] as f64),
            bytes(step.memory[1] as f64),
            format!("{:.0}", step.sent as f64 / count),
        ]
    };
    Table {
        title: "growth: files of 100 bytes".into(),
        heads: [
            "files",
            "wall",
            "wall a file",
            "CPU a file",
            "peak RSS, sender",
            "receiver",
            "bytes sent a file",
        ]
        .map(str::to_owned)
        .to_vec(),
        lines: steps.iter().map(line).collect(),
        after: Vec::new(),
    }
}

/// One file for more and more receivers.
pub fn receivers(steps: &[Grown]) -> Table {
    let alone = steps
        .iter()
        .find(|step| step.count == 1)
        .map(|step| step.wall);
    let line = |step: &Grown| {
        let times = alone.map_or_else(String::new, |alone| format!("{:.2}", step.wall / alone));
        vec![
            step.count.to_string(),
            duration(step.wall),
            times,
            format!("{:.2}", step.cpu),
            bytes(step.sent as f64),
            format!("{:.2}", step.sent as f64 / step.content.max(1) as f64),
            bytes(step.memory[0].max(step.memory[1]) as f64),
        ]
    };
    let content = steps.first().map_or(0, |step| step.content);
    Table {
        title: format!("growth: receivers of one file of {}", bytes(content as f64)),
        heads: [
            "receivers",
            "wall",
            "× one receiver",
            "CPU s",
            "left the source",
            "times the file",
            "peak RSS",
        ]
        .map(str::to_owned)
        .to_vec(),
        lines: steps.iter().map(line).collect(),
        after: Vec::new(),
    }
}

/// What it was measured on.
pub fn preface(figures: &Figures, mark: &str) -> String {
    let machine = &figures.machine;
    let mut text = format!(
        "{mark}latest part: {}\n{mark}{} cores, load {} at its start, Linux {}, {}, TCP {}\n",
        machine.read,
        machine.cores,
        machine.load,
        machine.kernel,
        machine.file_system,
        machine.congestion
    );
    for (tool, version) in &machine.versions {
        let _ = writeln!(text, "{mark}{tool}: {version}");
    }
    for missing in &machine.missing {
        let _ = writeln!(text, "{mark}left out: {missing}");
    }
    text
}

/// LEFT's bounds in a row, judged; those of the lab are parts of its link.
pub fn judged(line: &Line) -> Vec<Verdict> {
    let own = bounds::of(&line.name).filter_map(|bound| judge::judge(line, bound));
    own.chain(used(line, "left").and_then(|used| {
        let (_, least) = bounds::LINK_USED
            .iter()
            .find(|(name, _)| *name == line.name)?;
        Some(Verdict {
            bound: format!("link used ≥ {:.0} %", least * 100.0),
            read: format!("{:.0} %", used * 100.0),
            reached: Some(used >= *least),
        })
    }))
    .collect()
}

/// Which part of the link a tool used, where that is what counts.
pub fn used(line: &Line, tool: &str) -> Option<f64> {
    let cell = line.cells.iter().find(|cell| cell.tool == tool)?;
    Some(line.link? / judge::spread(cell, What::Wall)?.median)
}

fn columns(line: &Line, cell: &Cell) -> Vec<String> {
    let read = |what, show: fn(f64) -> String| {
        judge::spread(cell, what).map_or_else(String::new, |spread| spread.show(show))
    };
    let mut wall = read(What::Wall, duration);
    if let Some(p99) = judge::spread(cell, What::P99) {
        let _ = write!(wall, ", p99 {}", duration(p99.median));
    }
    if let Some(used) = used(line, &cell.tool) {
        let _ = write!(wall, ", {:.0} % of the link", used * 100.0);
    }
    let left = line.cells.iter().find(|other| other.tool == "left");
    let ratios = left.filter(|_| cell.tool != "left").map(|left| {
        let ratio = |what| {
            judge::ratio(left, cell, what)
                .map_or_else(|| "–".into(), |r| r.show(|value| format!("{value:.2}")))
        };
        [What::Wall, What::Wire, What::Cpu].map(ratio).join(", ")
    });
    let mut bound: Vec<String> = Vec::new();
    if cell.tool == "left" {
        bound.extend(judged(line).iter().map(Verdict::show));
    }
    if cell.samples.values().any(|sample| sample.wrong.is_some()) {
        bound.insert(0, "WRONG".into());
    } else if !cell.ok() {
        bound.insert(0, "FAILED".into());
    }
    vec![
        cell.tool.clone(),
        wall,
        read(What::Wire, bytes),
        read(What::Cpu, |seconds| format!("{seconds:.2}")),
        judge::spread(cell, What::Memory).map_or_else(String::new, |s| bytes(s.max)),
        cell.durable.clone(),
        ratios.unwrap_or_default(),
        bound.join("; "),
    ]
}

/// One run in one line, for following along.
pub fn run(result: &Result<Sample>) -> String {
    match result {
        Ok(sample) => {
            let twice = sample
                .twice
                .map(|part| format!("  twice {:.2} %", part * 100.0));
            let wrong = sample.wrong.as_ref().map(|how| format!("  WRONG: {how}"));
            let note = sample.note.as_ref().map(|note| format!("  ({note})"));
            format!(
                "{:>9}  {:>9}  {:>6.2} CPU s  {:>9}{}{}{}",
                duration(sample.wall),
                bytes(sample.wire as f64),
                sample.cpu,
                bytes(sample.memory as f64),
                twice.unwrap_or_default(),
                note.unwrap_or_default(),
                wrong.unwrap_or_default()
            )
        }
        Err(error) => format!("FAILED: {error:#}"),
    }
}

/// Seconds, in words.
pub fn duration(seconds: f64) -> String {
    if seconds < 0.0995 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

/// Bytes, in words.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of bytes, never negative"
)]
pub fn bytes(count: f64) -> String {
    bytesize::ByteSize(count as u64).display().si().to_string()
}

fn rate(gauge: &Gauge) -> String {
    if gauge.unit == "bytes" {
        format!("{}/s", bytes(gauge.value))
    } else {
        format!("{:.0} {}/s", gauge.value, gauge.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::{Table, duration};

    #[test]
    fn columns_are_aligned_by_characters() {
        let line = |text: &str| vec![text.to_owned(), text.to_owned()];
        let table = Table {
            title: "title".into(),
            heads: line("é"),
            lines: vec![line("long")],
            after: Vec::new(),
        };
        let text = table.text();
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(lines, ["  é     é", "  long  long"]);
        assert_eq!(duration(0.0123), "12.3 ms");
        assert_eq!(duration(1.239), "1.24 s");
    }
}
