//! `left-sim`: runs seeds, tells what was covered, shrinks what fails.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

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
    /// Run new seeds for so long: from the present time on, unless `--from` says where.
    #[arg(long)]
    seconds: Option<u64>,
    /// The first seed of `--seconds` and `--fresh`.
    #[arg(long)]
    from: Option<u64>,
    /// Then run so many new seeds.
    #[arg(long, default_value_t = 0)]
    fresh: u64,
    /// How many runs at once.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
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
        return code(mutants::run_all(args.mutant.as_deref(), args.steps));
    }
    let mutant = match &args.mutant {
        None => None,
        Some(name) => match MUTANTS.iter().find(|m| m.name == name) {
            Some(mutant) => Some(mutant.name),
            None => {
                eprintln!("error: there is no fault \"{name}\"");
                return ExitCode::FAILURE;
            }
        },
    };
    let begun = Instant::now();
    let work = Work::new(&args);
    let total = Mutex::new(Total::default());
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                set_mutant(mutant);
                loop {
                    let failed = lock(&total).failed;
                    let Some(seed) = work.next(failed, begun) else {
                        break;
                    };
                    one(&args, seed, &total);
                }
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    let total = lock(&total);
    let rate = total.stats.seeds as f64 / seconds.max(0.001);
    print!("{}", total.stats.text());
    let failed = total.failed;
    println!("{seconds:.1} s, {rate:.1} seeds a second, {failed} failed");
    code(failed == 0)
}

fn code(fine: bool) -> ExitCode {
    if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[derive(Default)]
struct Total {
    stats: Stats,
    failed: u32,
}

fn lock(total: &Mutex<Total>) -> std::sync::MutexGuard<'_, Total> {
    total.lock().unwrap_or_else(|e| e.into_inner())
}

/// Which seeds are to be run.
struct Work {
    given: std::ops::Range<u64>,
    fresh: u64,
    seconds: Option<u64>,
    failures: u32,
    taken: AtomicU64,
    from: u64,
}

impl Work {
    fn new(args: &Args) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        // Runs a second apart share no seeds.
        let from = args
            .from
            .unwrap_or(now.map_or(1, |t| t.as_secs()).wrapping_mul(1000));
        let given = match (args.seed, args.seconds) {
            (Some(seed), _) => seed..seed + 1,
            (None, Some(_)) => 0..0,
            (None, None) => args.seeds.clone(),
        };
        let only = args.seed.is_some();
        if !only && (args.fresh > 0 || args.seconds.is_some()) {
            println!("new seeds from {from} on");
        }
        Self {
            given,
            fresh: if only { 0 } else { args.fresh },
            seconds: args.seconds.filter(|_| !only),
            failures: args.failures,
            taken: AtomicU64::new(0),
            from,
        }
    }

    /// The next seed, unless there is none, the time is over or too many failed.
    fn next(&self, failed: u32, begun: Instant) -> Option<u64> {
        let n = self.taken.fetch_add(1, Ordering::Relaxed);
        let given = self.given.end - self.given.start;
        let more = match self.seconds {
            Some(seconds) => begun.elapsed().as_secs() < seconds,
            None => n < given + self.fresh,
        };
        (more && failed < self.failures).then(|| match n.checked_sub(given) {
            None => self.given.start + n,
            Some(n) => self.from + n,
        })
    }
}

/// Runs one seed and adds what came of it; makes a failing run smaller.
fn one(args: &Args, seed: u64, total: &Mutex<Total>) {
    let params = Params {
        seed,
        steps: args.steps,
        devices: args.devices,
        without: args.without.clone(),
        only: args.only.clone(),
    };
    let outcome = run(&params, args.verbose);
    lock(total).stats.add(&outcome.stats);
    let Some(failure) = outcome.failure else {
        return;
    };
    lock(total).failed += 1;
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
