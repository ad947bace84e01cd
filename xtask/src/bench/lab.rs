//! `cargo xtask lab`: the same tools over a long, narrow and lossy link of our own.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::figures::{Figures, Machine};
use super::net::Net;
use super::rows::{self, Row};
use super::{Common, Work, choose_tools, finish, halt, measure_all};
use crate::link;

/// What `cargo xtask lab` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Rows to measure, with commas between; all if not given.
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    only: Vec<String>,
    #[command(flatten)]
    link: Settings,
    /// Take the figures over into docs/benchmarks.md.
    #[arg(long)]
    docs: bool,
    #[command(flatten)]
    common: Common,
}

/// What the link is like.
#[derive(clap::Args, Clone)]
pub struct Settings {
    /// Megabits a second, each way.
    #[arg(long, value_name = "MBIT", default_value_t = 100)]
    rate: u64,
    /// Round trip in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 100)]
    rtt: u64,
    /// Packets in a hundred that are lost in the rows with loss.
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    loss: f64,
    /// KiB that wait at most to be sent [default: what the link sends in one round trip].
    #[arg(long, value_name = "KIB")]
    queue: Option<u64>,
    /// Which packets are lost.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// TCP's congestion control in the namespaces [default: the kernel's].
    #[arg(long, value_name = "NAME")]
    congestion: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rate: 100,
            rtt: 100,
            loss: 1.0,
            queue: None,
            seed: 1,
            congestion: None,
        }
    }
}

/// The rows.
pub const ROWS: &[Row] = &[
    rows::file("lab-file", "one file of 200 MB", FILE),
    rows::small("lab-small", "10,000 files of 4 KiB"),
    rows::file("lab-file-loss", "one file of 200 MB, with loss", FILE),
    rows::small("lab-small-loss", "10,000 files of 4 KiB, with loss"),
];

const FILE: u64 = 200_000_000;

/// Measures and reports.
pub fn run(args: &Args) -> Result<ExitCode> {
    halt::watch()?;
    let work = Work::create(&args.common)?;
    let mut figures = Figures {
        machine: Machine::here(&work.0),
        ..Figures::default()
    };
    let done = measure_rows(
        &args.only,
        &args.link,
        args.docs,
        &args.common,
        &work.0,
        &mut figures,
    );
    finish(figures, &args.common, args.docs && done.is_ok(), done)
}

/// All rows.
pub fn measure(
    settings: &Settings,
    common: &Common,
    work: &Path,
    figures: &mut Figures,
) -> Result<()> {
    measure_rows(&[], settings, true, common, work, figures)
}

fn measure_rows(
    only: &[String],
    settings: &Settings,
    docs: bool,
    common: &Common,
    work: &Path,
    figures: &mut Figures,
) -> Result<()> {
    for name in only {
        let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        ensure!(
            known.contains(&name.as_str()),
            "no row is called {name}; there are: {}",
            known.join(", ")
        );
    }
    let tools = choose_tools(
        common,
        &["left", "rsync", "syncthing"],
        docs,
        &mut figures.machine,
    )?;
    for row in ROWS {
        if !(only.is_empty() || only.iter().any(|name| name == row.name)) {
            continue;
        }
        let lossy = row.name.ends_with("-loss");
        let net = Net::create_shaped(settings.link(lossy))?;
        if let Some(name) = &settings.congestion {
            net.congestion(name)?;
            figures.machine.congestion.clone_from(name);
        }
        let mut lines = Vec::new();
        let nothing = rows::Settings {
            big: 0,
            idle: Duration::ZERO,
        };
        let done = measure_all(&[row], &tools, &net, nothing, common, work, &mut lines);
        if let Some(link) = &net.link {
            let [there, back] = link.counts();
            eprintln!("{:<13} link there {there:?}, back {back:?}", row.name);
        }
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        for line in &mut lines {
            let bits = row.content() as f64 * 8.0;
            line.link = Some(bits / (settings.rate as f64 * 1e6));
            line.title = settings.title(row, lossy);
            line.name = format!("{}{}", line.name, settings.mark());
        }
        figures.lab.extend(lines);
        done?;
    }
    Ok(())
}

impl Settings {
    fn link(&self, lossy: bool) -> link::Settings {
        let rate = self.rate.max(1) * 1_000_000;
        let round_trip = rate / 8 * self.rtt / 1000;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped"
        )]
        let loss = (self.loss.clamp(0.0, 100.0) * 10_000.0) as u32;
        link::Settings {
            rate,
            delay: Duration::from_micros(self.rtt * 500),
            loss: if lossy { loss } else { 0 },
            queue: self.queue.map_or(round_trip, |kib| kib << 10).max(1 << 16),
            seed: self.seed,
        }
    }

    fn title(&self, row: &Row, lossy: bool) -> String {
        let what = row.title.trim_end_matches(", with loss");
        let loss = if lossy {
            format!(", {} % loss", self.loss)
        } else {
            String::new()
        };
        let name = self.congestion.as_ref();
        let name = name.map_or_else(String::new, |name| format!(", {name}"));
        format!("{what}; {} Mbit/s, {} ms{loss}{name}", self.rate, self.rtt)
    }

    /// What tells a row over another link than the usual one.
    fn mark(&self) -> String {
        let usual = Self::default();
        let same = (self.rate, self.rtt) == (usual.rate, usual.rtt) && self.loss == usual.loss;
        if same && self.congestion.is_none() {
            String::new()
        } else {
            let name = self.congestion.as_deref().unwrap_or_default();
            format!("-{}-{}-{}{name}", self.rate, self.rtt, self.loss)
        }
    }
}
