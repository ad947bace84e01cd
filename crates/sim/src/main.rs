//! `left-sim`: runs seeds, tells what was covered, shrinks what fails.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use left_core::probe::set_mutant;
use left_sim::faults::KINDS;
use left_sim::mutants::{self, MUTANTS};
use left_sim::stats::Stats;
use left_sim::{Params, run, shrink};

/// Simulates shares with faults and checks that all devices end equal and lose nothing.
#[derive(Parser)]
struct Args {
    /// Run this seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Run these seeds, `A..B`.
    #[arg(long, value_parser = range, default_value = "0..200")]
    seeds: std::ops::Range<u64>,
    /// Run seeds from the first on for so long.
    #[arg(long)]
    seconds: Option<u64>,
    /// Edits and faults a run.
    #[arg(long, default_value_t = 40)]
    steps: u32,
    /// Devices; else as the seed says.
    #[arg(long)]
    devices: Option<usize>,
    /// Kinds of faults to leave out.
    #[arg(long, value_delimiter = ',', value_parser = KINDS.map(|(_, name)| name))]
    without: Vec<String>,
    /// Take only these steps.
    #[arg(long, value_delimiter = ',')]
    only: Option<Vec<u32>>,
    /// Stop after so many failing seeds.
    #[arg(long, default_value_t = 1)]
    failures: u32,
    /// Do not make failing runs smaller.
    #[arg(long)]
    no_shrink: bool,
    /// Build in one deliberate fault after the other, and say which seed catches each.
    #[arg(long)]
    mutants: bool,
    /// Build in this deliberate fault (with `--mutants`: those with this in their name).
    #[arg(long)]
    mutant: Option<String>,
    /// Print the trace.
    #[arg(short, long)]
    verbose: bool,
}

fn range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let (a, b) = text.split_once("..").ok_or("give a range, like 0..100")?;
    let number = |s: &str| s.parse::<u64>().map_err(|e| format!("{s}: {e}"));
    Ok(number(a)?..number(b)?)
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.mutants {
        return match mutants::run_all(args.mutant.as_deref(), args.steps) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        };
    }
    if let Some(name) = &args.mutant {
        let known = MUTANTS.iter().find(|m| m.name == name);
        let Some(mutant) = known else {
            eprintln!("error: there is no fault \"{name}\"");
            return ExitCode::FAILURE;
        };
        set_mutant(Some(mutant.name));
    }
    let begun = Instant::now();
    let mut total = Stats::default();
    let mut failed = 0;
    let mut seed = args.seed.unwrap_or(args.seeds.start);
    loop {
        let done = match (args.seed, args.seconds) {
            (Some(only), _) => seed > only,
            (None, Some(s)) => begun.elapsed().as_secs() >= s,
            (None, None) => seed >= args.seeds.end,
        };
        if done || failed >= args.failures {
            break;
        }
        let params = Params {
            seed,
            steps: args.steps,
            devices: args.devices,
            without: args.without.clone(),
            only: args.only.clone(),
        };
        let outcome = run(&params, args.verbose);
        total.add(&outcome.stats);
        if let Some(failure) = outcome.failure {
            failed += 1;
            println!(
                "seed {seed} FAILED: {failure}\n  again: {}",
                params.command()
            );
            if !args.no_shrink && !args.verbose {
                let small = shrink(&params, 300);
                let why = run(&small, false).failure.unwrap_or_default();
                println!("  smaller: {why}\n  {}", small.command());
            }
        }
        seed += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let rate = total.seeds as f64 / seconds.max(0.001);
    print!("{}", total.text());
    println!("{seconds:.1} s, {rate:.1} seeds a second, {failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
