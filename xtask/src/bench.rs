//! `cargo xtask bench`: LEFT and its peers on the same work, in turn, between two network
//! namespaces.
//!
//! Floors, lowest first: `halt`, `random` · `measure` · `process` · `net`, `tree` · `rows`,
//! `tools` · `run` · `report` · this file. A new row is a line in `rows`, a new tool a file in
//! `tools/`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

mod halt;
mod measure;
mod net;
mod process;
mod random;
mod report;
mod rows;
mod run;
mod tools;
mod tree;

use net::Net;
use report::{Cell, Report};
use rows::{ROWS, Row};
use tools::Tool;

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Rows to measure, with commas between; the usual ones if not given.
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    only: Vec<String>,
    /// Tools to measure, with commas between; all if not given.
    #[arg(long, value_delimiter = ',', value_name = "TOOL")]
    tools: Vec<String>,
    /// How often each tool does each row; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Write all figures, also those of the single runs, to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table as Markdown to this file.
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

/// Measures and reports; the exit code says whether every run ended with equal trees.
pub fn run(args: &Args) -> Result<ExitCode> {
    halt::watch()?;
    let rows = choose_rows(&args.only)?;
    let mut report = Report::new();
    let tools = choose_tools(args, &mut report)?;
    ensure!(!tools.is_empty(), "no tool to measure");
    if !measure::sees_children() {
        eprintln!("note: this kernel does not list children; forked processes are not measured");
    }
    let net = Net::create()?;
    let work = Work::create(args.work.clone().unwrap_or_else(std::env::temp_dir))?;
    report.machine.file_system = report::file_system(&work.0);
    let limit = Duration::from_secs(args.limit);
    let all = measure_all(
        &rows,
        &tools,
        args.runs,
        &mut report,
        |row, tool, number| {
            let name = format!("{}-{}-{number}", row.name, tool.name());
            run::once(
                row,
                tool,
                tools::Pair::create(&net, work.0.join(name), limit)?,
            )
        },
    );
    // What was measured before an interruption is still worth printing.
    print!("\n{}", report.text());
    if let Some(path) = &args.json {
        fs::write(path, report.json()?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.md {
        fs::write(path, report.markdown())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    all?;
    Ok(if report.all_right() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The tools take turns, so that a slow minute of the machine does not meet only one of them.
fn measure_all(
    rows: &[&'static Row],
    tools: &[Box<dyn Tool>],
    runs: u32,
    report: &mut Report,
    mut once: impl FnMut(&Row, &dyn Tool, u32) -> Result<run::Sample>,
) -> Result<()> {
    for row in rows {
        let able: Vec<&dyn Tool> = tools
            .iter()
            .map(|tool| &**tool)
            .filter(|tool| tool.live() || !row.live_only())
            .collect();
        let mut cells: Vec<Cell> = able.iter().map(|tool| Cell::new(*tool)).collect();
        let mut done = Ok(());
        'row: for number in 1..=runs {
            for (tool, cell) in able.iter().zip(&mut cells) {
                let result = once(row, *tool, number);
                done = halt::check();
                if done.is_err() {
                    break 'row;
                }
                eprintln!(
                    "{:<13} {:<12} {number}/{runs}  {}",
                    row.name,
                    tool.name(),
                    report::line(&result)
                );
                cell.add(result);
            }
        }
        report.add(row, cells);
        done?;
    }
    Ok(())
}

fn choose_rows(names: &[String]) -> Result<Vec<&'static Row>> {
    if names.is_empty() {
        return Ok(ROWS.iter().filter(|row| row.usual).collect());
    }
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

fn choose_tools(args: &Args, report: &mut Report) -> Result<Vec<Box<dyn Tool>>> {
    let mut tools = tools::all(args.left.as_deref());
    for name in &args.tools {
        if !tools.iter().any(|tool| tool.name() == name) {
            let known: Vec<&str> = tools.iter().map(|tool| tool.name()).collect();
            bail!("no tool is called {name}; there are: {}", known.join(", "));
        }
    }
    tools.retain(|tool| args.tools.is_empty() || args.tools.iter().any(|name| tool.name() == name));
    tools.retain(|tool| match tool.find() {
        Ok(version) => {
            report.machine.versions.insert(tool.name(), version);
            true
        }
        Err(error) => {
            eprintln!("{} is left out: {error:#}", tool.name());
            report.missing.push(format!("{}: {error:#}", tool.name()));
            false
        }
    });
    Ok(tools)
}

/// The folder of this bench; dropped, it is gone.
struct Work(PathBuf);

impl Work {
    fn create(parent: PathBuf) -> Result<Self> {
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
