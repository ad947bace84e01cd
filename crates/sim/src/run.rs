//! One run: a seed makes devices, links, edits and faults; then all is healed and checked.

use left_core::message::Role;
use left_core::probe::take_covered;

use crate::faults::{Faults, Kind};
use crate::rest::finish;
use crate::rng::Rng;
use crate::stats::Stats;
use crate::steps::Steps;
use crate::world::{Happening, World};

/// What decides a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// Decides all that is not given here.
    pub seed: u64,
    /// How many edits and faults.
    pub steps: u32,
    /// How many devices; `None`: as the seed says.
    pub devices: Option<usize>,
    /// Kinds of faults that are left out though the seed has them.
    pub without: Vec<String>,
    /// Only these steps are taken; `None`: all.
    pub only: Option<Vec<u32>>,
}

impl Params {
    /// As the seed says.
    pub fn new(seed: u64, steps: u32) -> Self {
        Self {
            seed,
            steps,
            devices: None,
            without: Vec::new(),
            only: None,
        }
    }

    /// The command that does this run again.
    pub fn command(&self) -> String {
        let mut out = format!(
            "cargo xtask sim --seed {} --steps {}",
            self.seed, self.steps
        );
        if let Some(n) = self.devices {
            out += &format!(" --devices {n}");
        }
        if !self.without.is_empty() {
            out += &format!(" --without {}", self.without.join(","));
        }
        if let Some(only) = &self.only {
            let list: Vec<String> = only.iter().map(u32::to_string).collect();
            out += &format!(" --only {}", list.join(","));
        }
        out + " -v"
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was counted.
    pub stats: Stats,
    /// Hash of all that happened.
    pub trace: [u8; 32],
    /// What went wrong first.
    pub failure: Option<String>,
}

/// Does one run.
pub fn run(params: &Params, print: bool) -> Outcome {
    let mut faults = Faults::some(params.seed).without(&params.without);
    if faults.has(Kind::Reader) {
        // What only a reader still knows reaches nobody, and stays there alone.
        for kind in [Kind::Lost, Kind::Restored, Kind::Power] {
            faults.set(kind, false);
        }
    }
    if params.seed % 4 != 3 {
        // What a device does not hold it does not hand on: all must be linked with all.
        faults.set(Kind::Choose, false);
    }
    if faults.has(Kind::Emptied) {
        // Here users never mean to delete all.
        faults.set(Kind::Wipe, false);
    }
    take_covered();
    let mut world = build(params, faults, print);
    let mut steps = Steps::plan(params, faults, &mut world);
    while steps.left > 0 && world.failure.is_none() && world.happen() {
        for k in std::mem::take(&mut world.due_steps) {
            steps.take(&mut world, k);
        }
    }
    finish(&mut world, params.seed);
    world.stats.seeds = 1;
    world.stats.covered = take_covered();
    Outcome {
        trace: world.trace_hash(),
        failure: world.failure,
        stats: world.stats,
    }
}

fn build(params: &Params, faults: Faults, print: bool) -> World {
    let mut rng = Rng::part(params.seed, 3);
    let chosen = [2, 2, 2, 3, 3, 3, 4, 4, 5, 6, 7, 8][rng.index(12)];
    let n = params.devices.unwrap_or(chosen).max(2);
    let mut roles = vec![Role::ReadWrite; n];
    if faults.has(Kind::Reader) && n > 2 {
        // Last in a chain and never the middle of a star: what it hears it does not pass on.
        roles[n - 1] = Role::ReadOnly;
    }
    let mut world = World::new(params.seed, &roles, print);
    // It passes on nothing either.
    world.devices[n - 1].send_only = faults.has(Kind::Sender) && !faults.has(Kind::Reader) && n > 2;
    let base = [200, 1000, 20_000, 100_000][rng.index(4)];
    let mut link = |world: &mut World, a, b| {
        let latency = base + rng.below(base);
        world.add_link(a, b, latency);
    };
    match params.seed % 4 {
        0 => (1..n).for_each(|b| link(&mut world, b - 1, b)),
        1 => (1..n).for_each(|b| link(&mut world, 0, b)),
        2 => (0..n.min(n * (n - 1) / 2)).for_each(|a| link(&mut world, a, (a + 1) % n)),
        _ => {
            for b in 1..n {
                (0..b).for_each(|a| link(&mut world, a, b));
            }
        }
    }
    for device in 0..n {
        if world.devices[device].role == Role::ReadWrite && rng.percent(40) {
            for _ in 0..rng.below(6) {
                let mut chance = Rng::new(rng.next_u64());
                let said = world.with_user(device, &mut chance, |user| user.edit());
                world.note(&format!("{device} before all: {said}"));
            }
        }
        let after = rng.below(500_000);
        world.plan(after, Happening::Start(device));
    }
    world.faults = faults;
    for device in &mut world.devices {
        device.disk.journaled = faults.has(Kind::Power);
    }
    world
}
