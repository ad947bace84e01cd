//! `cargo xtask bench`: LEFT and its peers on the same work, in turn, between two network
//! namespaces; what the machine itself gives; growth; and a short form that counts.
//! `cargo xtask lab`: the same over a long link of our own.
//!
//! Floors, lowest first: `halt`, `random` · `measure` · `process` · `net`, `tree` · `rows`,
//! `tools` · `run` · `bounds`, `figures` · `judge` · `show`, `svg` · `docs` · `limits`, `growth`,
//! `lab`, `short` · this file. A new row is a line in `rows`, a new tool a file in `tools/`, a bound
//! a line in `bounds`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytesize::ByteSize;

mod bounds;
mod docs;
mod figures;
mod growth;
mod halt;
mod judge;
pub mod lab;
mod limits;
mod measure;
mod net;
mod process;
pub mod random;
mod rows;
mod run;
mod short;
mod show;
mod svg;
mod tools;
mod tree;

use figures::{Cell, Figures, Line, Machine};
use net::Net;
use rows::{ROWS, Row};
use tools::Tool;

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Rows to measure, with commas between; the usual ones if not given.
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    only: Vec<String>,
    /// Measure all rows, also those that take long.
    #[arg(long, conflicts_with = "only")]
    all: bool,
    /// Measure what the machine itself gives.
    #[arg(long)]
    limits: bool,
    /// Measure how time and memory grow with files and receivers.
    #[arg(long)]
    growth: bool,
    /// With --growth: numbers of files; none are measured without a number.
    #[arg(
        long,
        num_args = 0..,
        value_delimiter = ',',
        value_name = "N",
        default_value = "10000,100000"
    )]
    files: Vec<u64>,
    /// With --growth: numbers of receivers; none are measured without a number.
    #[arg(
        long,
        num_args = 0..,
        value_delimiter = ',',
        value_name = "N",
        default_value = "1,2,4,8"
    )]
    receivers: Vec<u64>,
    /// With --growth: size of the file that all receivers want.
    #[arg(long, value_name = "BYTES", default_value = "1GiB")]
    receivers_size: ByteSize,
    /// In three minutes: judge no times, but fail on wrong bytes and on work done twice.
    #[arg(long, conflicts_with_all = ["only", "all", "limits", "growth", "docs"])]
    short: bool,
    /// Take the figures over into docs/benchmarks.md and its pictures; alone: measure everything.
    #[arg(long)]
    docs: bool,
    /// Measure nothing: make the tables and pictures of the documents anew from docs/benchmarks.json.
    #[arg(long, conflicts_with_all = ["only", "all", "limits", "growth", "docs", "short"])]
    redraw: bool,
    /// Size of the file that is under way in the row `latency-busy`.
    #[arg(long, value_name = "BYTES", default_value = "4GiB")]
    big: ByteSize,
    /// How long to look at an idle program.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    idle: u64,
    #[command(flatten)]
    common: Common,
}

/// What all ways of measuring take.
#[derive(clap::Args, Clone)]
pub struct Common {
    /// Tools to measure, with commas between; all if not given.
    #[arg(long, value_delimiter = ',', value_name = "TOOL")]
    tools: Vec<String>,
    /// How often each tool does each row; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Write all figures, also those of the single runs, to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the tables as Markdown to this file.
    #[arg(long, value_name = "FILE")]
    md: Option<PathBuf>,
    /// The `left` to measure [default: target/release/left, built if missing].
    #[arg(long, value_name = "PATH")]
    left: Option<PathBuf>,
    /// A folder on the file system to measure on [default: the system's temporary folder].
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// The most seconds that any one step may take.
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    limit: u64,
}

/// Measures and reports; the exit code says whether every run ended with equal trees, and with
/// `--short` whether no work was done twice. It never judges a time.
pub fn run(args: &Args) -> Result<ExitCode> {
    halt::watch()?;
    if args.redraw {
        docs::take_over(None)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.short {
        let work = Work::create(&args.common)?;
        return short::run(&args.common, &work.0);
    }
    let everything =
        args.docs && !(args.limits || args.growth || args.all || !args.only.is_empty());
    let rows = match args.only.is_empty() {
        _ if everything || args.all => ROWS.iter().collect(),
        true if args.limits || args.growth => Vec::new(),
        true => ROWS.iter().filter(|row| row.usual).collect(),
        false => choose_rows(&args.only)?,
    };
    let settings = rows::Settings {
        big: args.big.as_u64(),
        idle: Duration::from_secs(args.idle),
    };
    let work = Work::create(&args.common)?;
    let mut figures = Figures {
        machine: Machine::here(&work.0),
        ..Figures::default()
    };
    let done = measure_parts(args, everything, &rows, settings, &work.0, &mut figures);
    finish(figures, &args.common, args.docs && done.is_ok(), done)
}

fn measure_parts(
    args: &Args,
    everything: bool,
    rows: &[&'static Row],
    settings: rows::Settings,
    work: &Path,
    figures: &mut Figures,
) -> Result<()> {
    if everything || args.limits {
        figures.limits = limits::measure(work)?;
    }
    if !rows.is_empty() {
        let tools = choose_tools(&args.common, &[], args.docs, &mut figures.machine)?;
        let net = Net::create()?;
        measure_all(
            rows,
            &tools,
            &net,
            settings,
            &args.common,
            work,
            &mut figures.rows,
        )?;
    }
    if everything {
        lab::measure(&lab::Settings::default(), &args.common, work, figures)?;
    }
    if everything || args.growth {
        growth::trees(&args.files, &args.common, work, &mut figures.trees)?;
        let size = args.receivers_size.as_u64();
        let steps = &mut figures.receivers;
        growth::receivers(&args.receivers, size, &args.common, work, steps)?;
    }
    Ok(())
}

/// Prints and writes what was measured, also before an interruption.
fn finish(figures: Figures, common: &Common, docs: bool, done: Result<()>) -> Result<ExitCode> {
    let tables = tables(&figures);
    print!("\n{}", show::preface(&figures, ""));
    for table in &tables {
        print!("{}", table.text());
    }
    if let Some(path) = &common.json {
        write(path, &figures.json()?)?;
    }
    if let Some(path) = &common.md {
        let all: Vec<String> = tables.iter().map(show::Table::markdown).collect();
        let text = format!("{}\n{}", show::preface(&figures, "- "), all.join("\n"));
        write(path, &text)?;
    }
    done?;
    let right = figures.all_right();
    if docs {
        ensure!(right, "not taken over into the documents: a run went wrong");
        docs::take_over(Some(figures))?;
    }
    Ok(if right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn tables(figures: &Figures) -> Vec<show::Table> {
    let mut tables = Vec::new();
    if !figures.limits.is_empty() {
        tables.push(show::limits(&figures.limits));
    }
    tables.extend(show::rows(figures));
    if !figures.trees.is_empty() {
        tables.push(show::trees(&figures.trees));
    }
    if !figures.receivers.is_empty() {
        tables.push(show::receivers(&figures.receivers));
    }
    tables
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The tools take turns, so that a slow minute of the machine does not meet only one of them.
fn measure_all(
    rows: &[&'static Row],
    tools: &[Box<dyn Tool>],
    net: &Net,
    settings: rows::Settings,
    common: &Common,
    work: &Path,
    lines: &mut Vec<Line>,
) -> Result<()> {
    let limit = Duration::from_secs(common.limit);
    for row in rows {
        let able: Vec<&dyn Tool> = tools
            .iter()
            .map(|tool| &**tool)
            .filter(|tool| tool.live() || !row.live_only())
            .filter(|tool| tool.deletes() || !row.deletes())
            .collect();
        let mut cells: Vec<Cell> = able.iter().map(|tool| Cell::new(*tool)).collect();
        let mut done = Ok(());
        'row: for number in 1..=common.runs {
            for (tool, cell) in able.iter().zip(&mut cells) {
                let folder = work.join(format!("{}-{}-{number}", row.name, tool.name()));
                let result = tools::Pair::create(net, folder, limit)
                    .and_then(|pair| run::once(row, *tool, &pair, settings));
                done = halt::check();
                if done.is_err() {
                    break 'row;
                }
                eprintln!(
                    "{:<13} {:<12} {number}/{}  {}",
                    row.name,
                    tool.name(),
                    common.runs,
                    show::run(&result)
                );
                cell.add(number, result);
            }
        }
        lines.push(Line {
            name: row.name.into(),
            title: row.title.into(),
            link: None,
            cells,
        });
        done?;
    }
    Ok(())
}

fn choose_rows(names: &[String]) -> Result<Vec<&'static Row>> {
    let find = |name: &String| {
        let known = || {
            ROWS.iter()
                .map(|row| row.name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        ROWS.iter()
            .find(|row| row.name == name)
            .with_context(|| format!("no row is called {name}; there are: {}", known()))
    };
    names.iter().map(find).collect()
}

/// The tools that were asked for, or those of `usual` (all, where it is empty), that are there. Figures that
/// go to the documents take the place of whole rows: for them none may be missing.
fn choose_tools(
    common: &Common,
    usual: &[&str],
    docs: bool,
    machine: &mut Machine,
) -> Result<Vec<Box<dyn Tool>>> {
    let mut tools = tools::all(common.left.as_deref());
    for name in &common.tools {
        if !tools.iter().any(|tool| tool.name() == name) {
            let known: Vec<&str> = tools.iter().map(|tool| tool.name()).collect();
            bail!("no tool is called {name}; there are: {}", known.join(", "));
        }
    }
    let asked = |name: &str| match common.tools.is_empty() {
        true => usual.is_empty() || usual.contains(&name),
        false => common.tools.iter().any(|tool| tool == name),
    };
    tools.retain(|tool| asked(tool.name()));
    tools.retain(|tool| match tool.find() {
        Ok(version) => {
            machine.versions.insert(tool.name().into(), version);
            true
        }
        Err(error) => {
            eprintln!("{} is left out: {error:#}", tool.name());
            machine.missing.push(format!("{}: {error:#}", tool.name()));
            false
        }
    });
    ensure!(!tools.is_empty(), "no tool to measure");
    ensure!(
        !docs || machine.missing.is_empty(),
        "the documents would lose the figures of what is missing: install it, or say with --tools which are to \
         be in the tables from now on"
    );
    if !measure::sees_children() {
        eprintln!("note: this kernel does not list children; forked processes are not measured");
    }
    Ok(tools)
}

/// The folder of this bench; dropped, it is gone.
struct Work(PathBuf);

impl Work {
    fn create(common: &Common) -> Result<Self> {
        let parent = common.work.clone().unwrap_or_else(std::env::temp_dir);
        let parent = std::path::absolute(parent)?;
        let path = parent.join(format!("left-bench-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("note: cannot remove {}: {error}", self.0.display());
        }
    }
}
