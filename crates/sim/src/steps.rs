//! The steps of a run: edits, and faults that begin and end.

use left_core::engine::Event;
use left_core::message::Role;
use left_core::path::RelPath;

use crate::chosen::choose;
use crate::edits::User;
use crate::faults::{Faults, Kind};
use crate::index::CommitFault;
use crate::rng::Rng;
use crate::run::Params;
use crate::world::{Happening, World};

/// The steps that are left of a run.
pub struct Steps<'a> {
    params: &'a Params,
    faults: Faults,
    /// The user of a read-only member edits too.
    reader_edits: bool,
    /// How many.
    pub left: usize,
}

impl<'a> Steps<'a> {
    /// Plans all steps, each at a moment of its own that does not depend on the others.
    pub fn plan(params: &'a Params, faults: Faults, world: &mut World) -> Self {
        let (mut at, mut left) = (0, 0);
        for k in 0..params.steps {
            let mut rng = Rng::part(params.seed, 1000 + u64::from(k));
            at += match rng.below(10) {
                0..3 => rng.below(3_000),
                3..8 => rng.below(300_000),
                _ => rng.below(4_000_000),
            };
            let wanted = params.only.as_ref().is_none_or(|o| o.contains(&k));
            if wanted {
                world.plan(at, Happening::Step(k));
                left += 1;
            }
        }
        Self {
            params,
            faults,
            reader_edits: Rng::part(params.seed, 5).percent(50),
            left,
        }
    }

    /// Takes one step.
    pub fn take(&mut self, world: &mut World, k: u32) {
        self.left -= 1;
        world.stats.steps += 1;
        let mut rng = Rng::part(self.params.seed, 1_000_000 + u64::from(k));
        let device = rng.index(world.devices.len());
        // A reader that forgets what it had from others takes it for its own edits, and keeps it.
        let writer = match world.devices[device].role {
            Role::ReadWrite => device,
            Role::ReadOnly => 0,
        };
        let kind = self.fault(&mut rng);
        match kind {
            Some(Kind::Wipe) => edit(world, writer, &mut rng, k, wipe),
            Some(kind) => fault(world, kind, [device, writer], &mut rng),
            None => {
                let edits = match rng.below(8) {
                    0 => rng.between(2, 8),
                    _ => 1,
                };
                for _ in 0..edits {
                    match device == writer || !self.reader_edits {
                        true => edit(world, writer, &mut rng, k, |user| user.edit()),
                        false => edit_as_reader(world, device, &mut rng, k),
                    }
                }
            }
        }
    }

    /// The fault of a step, of the kinds that are on: the fewer, the more often each.
    fn fault(&self, rng: &mut Rng) -> Option<Kind> {
        let on = WEIGHTS.iter().filter(|(kind, _)| self.faults.has(*kind));
        let mut all: Vec<Kind> = on.flat_map(|(kind, n)| vec![*kind; *n]).collect();
        all.truncate(MOST_FAULTS);
        all.get(rng.index(100)).copied()
    }
}

/// Kinds that are steps, and how many of 100 steps each takes.
const WEIGHTS: [(Kind, usize); 15] = [
    (Kind::Power, 5),
    (Kind::Lost, 4),
    (Kind::Restored, 5),
    (Kind::Emptied, 4),
    (Kind::Crash, 4),
    (Kind::Partition, 3),
    (Kind::Link, 7),
    (Kind::Delay, 3),
    (Kind::Skew, 3),
    (Kind::Full, 4),
    (Kind::Index, 3),
    (Kind::Unreadable, 4),
    (Kind::Wipe, 1),
    (Kind::Pause, 3),
    (Kind::Choose, 12),
];
/// At least two thirds of the steps are edits.
const MOST_FAULTS: usize = 33;

/// One fault at a device, or at one that is not a reader.
fn fault(world: &mut World, kind: Kind, [device, writer]: [usize; 2], rng: &mut Rng) {
    match kind {
        Kind::Crash => crash(world, writer, rng),
        Kind::Power => power_cut(world, writer, rng),
        Kind::Lost => lose_index(world, writer, rng),
        Kind::Restored => save_or_restore(world, writer, rng),
        Kind::Link => link(world, rng),
        Kind::Partition => partition(world, rng),
        Kind::Delay => delay(world, rng),
        Kind::Skew => set_clock(world, device, rng),
        Kind::Full => {
            world.stats.fault("disk full or not");
            let full = !world.devices[device].disk.full;
            world.note(&format!("{device} disk full: {full}"));
            world.devices[device].disk.full = full;
        }
        Kind::Index => {
            world.stats.fault("commit fails");
            let faults = [CommitFault::Full, CommitFault::Failed, CommitFault::Corrupt];
            // A reader may be the only one who still knows what a lost index knew.
            let reader = world.devices.iter().any(|d| d.role == Role::ReadOnly);
            let fault = faults[rng.index(if reader { 2 } else { 3 })];
            world.devices[writer].index.fail_in = Some((rng.below(4) as u32, fault));
        }
        Kind::Unreadable => unreadable(world, device, rng),
        Kind::Emptied => empty(world, writer, rng),
        Kind::Pause => pause(world, device),
        Kind::Choose => choose(world, device, rng),
        // These happen by themselves.
        Kind::Fetch | Kind::Race | Kind::Torn | Kind::Effect | Kind::Twice => {}
        // The one is an edit, the other no event.
        Kind::Wipe | Kind::Reader | Kind::Sender => {}
    }
}

fn edit(
    world: &mut World,
    device: usize,
    rng: &mut Rng,
    k: u32,
    what: impl FnOnce(&mut User<'_>) -> String,
) {
    if !world.is_usable(device) {
        return;
    }
    let said = world.with_user(device, rng, what);
    world.note(&format!("step {k}: {device} {said}"));
}

/// What a reader writes reaches nobody, and need not last.
fn edit_as_reader(world: &mut World, device: usize, rng: &mut Rng, k: u32) {
    let written = world.written.clone();
    world.readers_differ = true;
    edit(world, device, rng, k, |user| user.edit());
    world.written.restore(written);
}

fn wipe(user: &mut User<'_>) -> String {
    let all: Vec<_> = user.disk.tree().keys().cloned().collect();
    for path in all {
        if user.disk.get(&path).is_some() && user.rng.percent(95) {
            user.remove(&path);
        }
    }
    "wipe".to_owned()
}

fn start_later(world: &mut World, device: usize, rng: &mut Rng) {
    let after = rng.below(3_000_000);
    world.plan(after, Happening::Start(device));
}

/// A crash; the device starts again.
pub fn crash(world: &mut World, device: usize, rng: &mut Rng) {
    if world.devices[device].engine.is_none() {
        return;
    }
    world.stats.fault("crash");
    world.crash(device, rng.percent(50));
    start_later(world, device, rng);
}

fn power_cut(world: &mut World, device: usize, rng: &mut Rng) {
    world.stats.fault("power failure");
    world.power_cut(device, rng);
    start_later(world, device, rng);
}

fn lose_index(world: &mut World, device: usize, rng: &mut Rng) {
    world.stats.fault("index lost");
    world.crash(device, rng.percent(50));
    world.new_index(device);
    start_later(world, device, rng);
}

fn save_or_restore(world: &mut World, device: usize, rng: &mut Rng) {
    if world.devices[device].saved.is_none() {
        let copy = world.devices[device].index.clone();
        world.devices[device].saved = Some(Box::new(copy));
        return world.note(&format!("{device}: a copy of the index is made"));
    }
    world.stats.fault("index restored");
    world.crash(device, rng.percent(50));
    world.restore_index(device);
    start_later(world, device, rng);
}

fn link(world: &mut World, rng: &mut Rng) {
    let link = rng.index(world.links.len());
    if rng.percent(40) {
        world.stats.fault("link broken");
        return world.break_link(link);
    }
    world.stats.fault("link blocked or not");
    let blocked = !world.links[link].blocked;
    world.block(link, blocked);
}

/// Two groups that do not reach each other, or none any more.
fn partition(world: &mut World, rng: &mut Rng) {
    let over = world.links.iter().any(|l| l.blocked);
    let here: Vec<bool> = world.devices.iter().map(|_| rng.percent(50)).collect();
    if !over {
        world.stats.fault("partition");
    }
    for link in 0..world.links.len() {
        let [a, b] = world.links[link].ends;
        let apart = !over && here[a] != here[b];
        if world.links[link].blocked != apart {
            world.block(link, apart);
        }
    }
}

fn delay(world: &mut World, rng: &mut Rng) {
    world.stats.fault("delay");
    let link = rng.index(world.links.len());
    let most = [1000, 100_000, 5_000_000][rng.index(3)];
    world.slow(link, rng.between(200, most));
}

fn set_clock(world: &mut World, device: usize, rng: &mut Rng) {
    let year = 366 * 86_400_000;
    let range = [1000, 60_000, year][rng.index(3)];
    let skew = rng.between(0, 2 * range) as i64 - range as i64;
    let old = world.devices[device].skew_ms;
    world.stats.fault(match skew < old {
        true => "clock set back",
        false => "clock set forward",
    });
    world.note(&format!("{device} clock is wrong by {skew} ms"));
    world.devices[device].skew_ms = skew;
}

/// One thing can not be read any more, or all can again.
fn unreadable(world: &mut World, device: usize, rng: &mut Rng) {
    let disk = &mut world.devices[device].disk;
    let paths: Vec<RelPath> = disk.tree().keys().cloned().collect();
    let path = match rng.pick(&paths) {
        Some(path) if disk.unreadable.is_empty() => path.clone(),
        _ => return readable(world, device),
    };
    disk.unreadable.insert(path.clone());
    world.stats.fault("unreadable");
    world.note(&format!("{device} can not read {path}"));
    world.hint(device, vec![path], 1000);
}

/// All can be read again.
pub fn readable(world: &mut World, device: usize) {
    let paths: Vec<RelPath> = std::mem::take(&mut world.devices[device].disk.unreadable)
        .into_iter()
        .collect();
    world.hint(device, paths, 1000);
}

/// All files vanish, or the folder itself; no user did that. What vanished comes back when the
/// user has seen the alarm.
fn empty(world: &mut World, device: usize, rng: &mut Rng) {
    let d = &world.devices[device];
    let Some(Ok(state)) = d.engine.as_ref().map(|e| e.state(&d.index)) else {
        return;
    };
    if d.deciding || !world.is_usable(device) {
        return;
    }
    if rng.percent(50) {
        world.stats.fault("folder gone");
        world.note(&format!("{device}: the folder is gone"));
        let d = &mut world.devices[device];
        d.missed = d.standing();
        d.disk.gone = true;
        return world.step(device, Event::RootGone("it is not mounted".to_owned()));
    }
    // Of few files a loss is no alarm; and what peers bring meanwhile is not lost with the rest.
    if state.totals.files + state.totals.links < 3 || state.busy {
        return;
    }
    world.stats.fault("all files gone");
    world.note(&format!("{device}: all files are gone"));
    world.isolate(device, true);
    let d = &mut world.devices[device];
    d.missed = d.standing();
    let all = d.index.live().map(|(p, _)| p.clone()).collect();
    d.disk.vanish();
    world.hint(device, all, 1000);
}

fn pause(world: &mut World, device: usize) {
    let paused = !world.devices[device].paused;
    if paused {
        world.stats.fault("paused");
    }
    world.devices[device].paused = paused;
    world.step(device, Event::Pause(paused));
}
