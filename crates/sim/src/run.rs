//! One run: a seed makes devices, links, edits and faults; then all is healed and checked.

use left_core::engine::Event;
use left_core::message::Role;

use crate::check;
use crate::edits::Written;
use crate::faults::Faults;
use crate::rng::Rng;
use crate::stats::Stats;
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
            "cargo run -p left-sim -- --seed {} --steps {}",
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

/// Happenings within which a healed world must come to rest.
pub const REST: u64 = 60_000;

/// Does one run.
pub fn run(params: &Params, print: bool) -> Outcome {
    let mut faults = Faults::some(params.seed);
    for kind in &params.without {
        faults.set(kind, false);
    }
    if faults.reader {
        // What only a reader still knows reaches nobody, and stays there alone.
        faults.lost = false;
    }
    let mut world = build(params, faults, print);
    let mut steps = Steps {
        params,
        faults,
        left: 0,
    };
    steps.plan(&mut world);
    while steps.left > 0 && world.failure.is_none() && world.happen() {
        for k in std::mem::take(&mut world.due_steps) {
            steps.take(&mut world, k);
        }
    }
    finish(&mut world, params.seed);
    world.stats.seeds = 1;
    Outcome {
        trace: world.trace_hash(),
        failure: world.failure,
        stats: world.stats,
    }
}

fn build(params: &Params, faults: Faults, print: bool) -> World {
    let mut rng = Rng::part(params.seed, 3);
    let chosen = [2, 2, 2, 3, 3, 3, 4, 5][rng.index(8)];
    let n = params.devices.unwrap_or(chosen).max(2);
    let mut roles = vec![Role::ReadWrite; n];
    if faults.reader && n > 2 {
        // Last in a chain and never the middle of a star: what it hears it does not pass on.
        roles[n - 1] = Role::ReadOnly;
    }
    let mut world = World::new(params.seed, &roles, print);
    let base = [200, 1000, 20_000, 100_000][rng.index(4)];
    let mut link = |world: &mut World, a, b| {
        let latency = base + rng.below(base);
        world.add_link(a, b, latency);
    };
    match params.seed % 3 {
        0 => (1..n).for_each(|b| link(&mut world, b - 1, b)),
        1 => (1..n).for_each(|b| link(&mut world, 0, b)),
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
    world
}

struct Steps<'a> {
    params: &'a Params,
    faults: Faults,
    left: usize,
}

impl Steps<'_> {
    /// Plans all steps, each at a moment of its own that does not depend on the others.
    fn plan(&mut self, world: &mut World) {
        let mut at = 0;
        for k in 0..self.params.steps {
            let mut rng = Rng::part(self.params.seed, 1000 + u64::from(k));
            at += match rng.below(10) {
                0..3 => rng.below(3_000),
                3..8 => rng.below(300_000),
                _ => rng.below(4_000_000),
            };
            let wanted = self.params.only.as_ref().is_none_or(|o| o.contains(&k));
            if wanted {
                world.plan(at, Happening::Step(k));
                self.left += 1;
            }
        }
    }

    fn take(&mut self, world: &mut World, k: u32) {
        self.left -= 1;
        world.stats.steps += 1;
        let mut rng = Rng::part(self.params.seed, 1_000_000 + u64::from(k));
        let device = rng.index(world.devices.len());
        let link = rng.index(world.links.len());
        // A reader that forgets what it had from others takes it for its own edits, and keeps it.
        let writer = match world.devices[device].role {
            Role::ReadWrite => device,
            Role::ReadOnly => 0,
        };
        match rng.below(100) {
            0..4 if self.faults.crash => crash(world, writer, &mut rng),
            4..7 if self.faults.lost => lose_index(world, writer, &mut rng),
            7..14 if self.faults.link => {
                world.stats.fault("link broken");
                world.break_link(link);
            }
            14..22 if self.faults.link => {
                world.stats.fault("link blocked or not");
                let blocked = !world.links[link].blocked;
                world.block(link, blocked);
            }
            22..25 if self.faults.skew => {
                world.stats.fault("clock set");
                let year = 366 * 86_400_000;
                let range = [1000, 60_000, year][rng.index(3)];
                world.devices[device].skew_ms = rng.between(0, 2 * range) as i64 - range as i64;
            }
            25..29 if self.faults.full => {
                world.stats.fault("disk full or not");
                let full = !world.devices[device].disk.full;
                world.note(&format!("{device} disk full: {full}"));
                world.devices[device].disk.full = full;
            }
            29..31 if self.faults.index => {
                world.stats.fault("index full");
                world.devices[writer].index.fail_next = true;
            }
            31..32 if self.faults.wipe => edit(world, device, &mut rng, k, wipe),
            32..40 => {
                for _ in 0..rng.between(2, 8) {
                    edit(world, device, &mut rng, k, |user| user.edit());
                }
            }
            _ => edit(world, device, &mut rng, k, |user| user.edit()),
        }
    }
}

fn edit(
    world: &mut World,
    device: usize,
    rng: &mut Rng,
    k: u32,
    what: impl FnOnce(&mut crate::edits::User<'_>) -> String,
) {
    let device = match world.devices[device].role {
        Role::ReadWrite => device,
        Role::ReadOnly => 0,
    };
    let said = world.with_user(device, rng, what);
    world.note(&format!("step {k}: {device} {said}"));
}

fn wipe(user: &mut crate::edits::User<'_>) -> String {
    let all: Vec<_> = user.disk.tree().keys().cloned().collect();
    for path in all {
        if user.disk.get(&path).is_some() && user.rng.percent(95) {
            user.remove(&path);
        }
    }
    "wipe".to_owned()
}

fn crash(world: &mut World, device: usize, rng: &mut Rng) {
    if world.devices[device].engine.is_none() {
        return;
    }
    world.stats.fault("crash");
    world.crash(device, rng.percent(50));
    let after = rng.below(3_000_000);
    world.plan(after, Happening::Start(device));
}

fn lose_index(world: &mut World, device: usize, rng: &mut Rng) {
    world.stats.fault("index lost");
    world.crash(device, rng.percent(50));
    let id = world.devices[device].id;
    world.devices[device].index = crate::index::FakeIndex::new(id, rng.next_u64() | 1);
    let after = rng.below(3_000_000);
    world.plan(after, Happening::Start(device));
}

/// Ends all faults.
fn heal(world: &mut World) {
    world.faults = Faults::none();
    for device in 0..world.devices.len() {
        world.devices[device].disk.full = false;
        world.devices[device].index.fail_next = false;
        world.start(device);
    }
    for link in 0..world.links.len() {
        if world.links[link].blocked {
            world.block(link, false);
        }
    }
}

fn finish(world: &mut World, seed: u64) {
    world.note("heal");
    heal(world);
    world.run(REST, "after healing");
    check::idle(world);
    check::same_trees(world);
    check::bytes_kept(world);
    waits(world);
    again(world);
    let mut rng = Rng::part(seed, 4);
    if rng.percent(50) && world.failure.is_none() {
        deletions(world, &mut rng);
    }
}

/// Everybody waits, and is answered.
fn waits(world: &mut World) {
    if world.failure.is_some() {
        return;
    }
    for device in 0..world.devices.len() {
        world.step(device, Event::Wait(7));
    }
    world.run(REST, "waiting");
    for (i, d) in world.devices.iter().enumerate() {
        if !d.waited.contains(&7) && world.failure.is_none() {
            world.failure = Some(format!("the wait on device {i} was not answered"));
        }
    }
}

/// Looking at all again finds nothing and moves nothing.
fn again(world: &mut World) {
    if world.failure.is_some() {
        return;
    }
    let before = check::work(world);
    for device in 0..world.devices.len() {
        world.full_scan(device, 0);
    }
    world.run(REST, "looking at all again");
    let after = check::work(world);
    if before != after && world.failure.is_none() {
        world.fail(format!(
            "a further round did something: {before:?} became {after:?}"
        ));
    }
    check::idle(world);
}

/// In a world at rest, one user deletes; all else stays, and what is deleted stays so.
fn deletions(world: &mut World, rng: &mut Rng) {
    world.note("deletions");
    world.written = Written::default();
    let mut paths: Vec<_> = world.devices[0].disk.tree().keys().cloned().collect();
    paths.retain(|_| rng.percent(20));
    let writers: Vec<usize> = (0..world.devices.len())
        .filter(|d| world.devices[*d].role == Role::ReadWrite)
        .collect();
    for path in &paths {
        for _ in 0..rng.between(1, 2) {
            let device = writers[rng.index(writers.len())];
            if world.devices[device].disk.get(path).is_some() {
                world.with_user(device, rng, |user| user.remove(path));
                world.note(&format!("{device} deletes {path}"));
            }
            for _ in 0..rng.below(30) {
                world.happen();
            }
        }
        if rng.percent(20) {
            let link = rng.index(world.links.len());
            world.break_link(link);
        }
        if rng.percent(10) {
            let device = writers[rng.index(writers.len())];
            crash(world, device, rng);
        }
    }
    heal(world);
    world.run(REST, "after deletions");
    check::idle(world);
    check::same_trees(world);
    let left = paths
        .iter()
        .find(|p| world.devices[0].disk.get(p).is_some());
    if let Some(path) = left
        && world.failure.is_none()
    {
        world.fail(format!("{path} was deleted and came back"));
    }
}
