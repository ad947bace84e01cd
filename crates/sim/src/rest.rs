//! The end of a run: all faults are healed, the world comes to rest, and what must hold is checked.

use left_core::engine::Event;
use left_core::message::Role;
use left_core::path::RelPath;

use crate::disk::Bytes;
use crate::edits::Written;
use crate::faults::{Faults, Kind};
use crate::rng::Rng;
use crate::steps::{crash, readable};
use crate::world::World;
use crate::{check, chosen};

/// Happenings within which a healed world of two or three devices must come to rest.
pub const REST: u64 = 60_000;

/// Heals all and checks all.
pub fn finish(world: &mut World, seed: u64) {
    world.note("heal");
    let faults = world.faults;
    heal(world);
    rest(world, "after healing");
    check::idle(world);
    if faults.has(Kind::Choose) {
        chosen::same_where_chosen(world);
        check::bytes_kept(world);
        again(world);
        chosen::everything(world);
        rest(world, "with everything chosen");
        check::idle(world);
    }
    check::same_trees(world);
    check::bytes_kept(world);
    check::inside(world);
    check::one_name_for_a_copy(world, faults);
    sends_no_more(world, seed);
    waits(world);
    again(world);
    let mut rng = Rng::part(seed, 4);
    if rng.percent(50) {
        deletions(world, &mut rng);
    }
    if rng.percent(20) {
        damage(world, &mut rng);
    }
}

fn rest(world: &mut World, why: &str) {
    let n = world.devices.len() as u64;
    world.run(REST * n.max(3) / 3, why);
}

/// Ends all faults.
fn heal(world: &mut World) {
    world.faults = Faults::none();
    for device in 0..world.devices.len() {
        let d = &mut world.devices[device];
        d.disk.full = false;
        d.index.fail_in = None;
        if std::mem::take(&mut d.paused) {
            world.step(device, Event::Pause(false));
        }
        world.put_back(device);
        world.start(device);
        readable(world, device);
    }
    for link in 0..world.links.len() {
        world.slow(link, 1000);
        if world.links[link].blocked {
            world.block(link, false);
        }
    }
}

/// A device that only sent takes what it withheld, or wins over it; then it is one like the others.
fn sends_no_more(world: &mut World, seed: u64) {
    let sender = world.devices.iter().position(|d| d.send_only);
    let Some(device) = sender.filter(|_| world.failure.is_none()) else {
        return;
    };
    let before = check::shown(&world.devices[device]);
    let how = Rng::part(seed, 6).below(3);
    match how {
        0 => world.step(device, Event::Take(None)),
        1 => world.step(device, Event::Override(None)),
        _ => {}
    }
    rest(world, "after what was withheld");
    check::idle(world);
    check::same_trees(world);
    if how == 1 {
        world.stats.fault("what was withheld is overridden");
        let all = world.devices.iter().map(check::shown);
        if let Some(other) = all.enumerate().find(|(_, tree)| *tree != before) {
            world.fail(format!(
                "device {} is not as device {device} was, which won over it: {:?}, not {before:?}",
                other.0, other.1
            ));
        }
    }
    world.devices[device].send_only = false;
    world.crash(device, true);
    world.start(device);
    rest(world, "after it only sent");
    check::idle(world);
    check::same_trees(world);
    check::bytes_somewhere(world);
}

/// Everybody waits, and is answered.
fn waits(world: &mut World) {
    if world.failure.is_some() {
        return;
    }
    for device in 0..world.devices.len() {
        world.step(device, Event::Wait(7));
    }
    rest(world, "waiting");
    for device in 0..world.devices.len() {
        if !world.devices[device].waited.contains(&7) {
            world.fail(format!("the wait on device {device} was not answered"));
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
    rest(world, "looking at all again");
    let after = check::work(world);
    if before != after {
        world.fail(format!(
            "a further round did something: {before:?} became {after:?}"
        ));
    }
    check::idle(world);
}

fn writers(world: &World) -> Vec<usize> {
    let all = 0..world.devices.len();
    all.filter(|d| world.devices[*d].role == Role::ReadWrite)
        .collect()
}

/// In a world at rest, one user deletes; all else stays, and what is deleted stays so.
fn deletions(world: &mut World, rng: &mut Rng) {
    if world.failure.is_some() {
        return;
    }
    world.note("deletions");
    world.written = Written::default();
    let mut paths: Vec<_> = world.devices[0].disk.tree().keys().cloned().collect();
    paths.retain(|_| rng.percent(20));
    let writers = writers(world);
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
    rest(world, "after deletions");
    check::idle(world);
    check::same_trees(world);
    let left = paths
        .iter()
        .find(|p| world.devices[0].disk.get(p).is_some());
    if let Some(path) = left {
        world.fail(format!("{path} was deleted and came back"));
    }
}

/// In a world at rest, files on one device get other bytes and nothing shows it: they are brought
/// again from the others, and nothing else changes.
fn damage(world: &mut World, rng: &mut Rng) {
    if world.failure.is_some() {
        return;
    }
    world.note("damage");
    let writers = writers(world);
    let device = writers[rng.index(writers.len())];
    let tree = world.devices[device].disk.tree().clone();
    let files = tree
        .iter()
        .filter(|(_, o)| o.bytes().is_some_and(|b| b != Bytes::EMPTY));
    let mut paths: Vec<RelPath> = files.map(|(p, _)| p.clone()).collect();
    paths.retain(|_| rng.percent(20));
    for path in &paths {
        let bytes = world.written.fresh(rng, false);
        world.devices[device].disk.rot(path, bytes);
    }
    world.stats.fault("silent damage");
    world.step(device, Event::Damaged(paths));
    rest(world, "after damage");
    check::idle(world);
    check::same_trees(world);
}
