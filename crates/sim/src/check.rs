//! What must hold when a healed world has come to rest.

use std::collections::BTreeMap;

use left_core::index::Index;
use left_core::message::Role;
use left_core::path::RelPath;

use crate::disk::Bytes;
use crate::faults::{Faults, Kind};
use crate::world::World;

/// All trees are equal: paths, kinds, bytes, modes, and times of files and links.
pub fn same_trees(world: &mut World) {
    if world.failure.is_some() {
        return;
    }
    let trees: Vec<BTreeMap<String, String>> = world.devices.iter().map(shown).collect();
    for (i, tree) in trees.iter().enumerate().skip(1) {
        let device = &world.devices[i];
        if world.readers_differ && device.role == Role::ReadOnly || device.send_only {
            continue;
        }
        let all = trees[0].keys().chain(tree.keys());
        let mut differ: Vec<&String> = all.filter(|p| trees[0].get(*p) != tree.get(*p)).collect();
        differ.sort();
        differ.dedup();
        if let Some(path) = differ.first() {
            let entries: Vec<String> = world
                .devices
                .iter()
                .map(|d| {
                    let path = d.disk.tree().keys().find(|p| p.to_string() == **path);
                    let entry = path.and_then(|p| d.index.entry(p));
                    format!("{entry:?}, unsettled {:?}", d.index.unsettled())
                })
                .collect();
            world.fail(format!(
                "{} paths differ between 0 and {i}; {path}: {:?} and {:?}\n  entries {entries:#?}",
                differ.len(),
                trees[0].get(*path),
                tree.get(*path)
            ));
            return;
        }
    }
}

/// What a device shows.
pub fn shown(device: &crate::world::Device) -> BTreeMap<String, String> {
    let tree = device.disk.tree().iter();
    tree.map(|(p, o)| (p.to_string(), o.shown())).collect()
}

/// Whatever a user wrote and no user overwrote or deleted is a file; and what was overwritten or
/// deleted is kept in some history, unless a user destroyed its only file.
pub fn bytes_kept(world: &mut World) {
    if world.failure.is_some() {
        return;
    }
    if world.devices.iter().any(|d| d.disk.holds(Bytes::TORN)) {
        return world.fail("what a power cut had torn is in a folder or a history".to_owned());
    }
    let tree: Vec<Bytes> = world
        .devices
        .iter()
        .filter(|d| d.role == Role::ReadWrite)
        .flat_map(|d| d.disk.tree().values())
        .filter_map(|o| o.bytes())
        .collect();
    for (bytes, (device, path)) in world.written.all.clone() {
        if tree.contains(&bytes) {
            continue;
        }
        let somewhere = world.devices.iter().any(|d| d.disk.holds(bytes));
        if !somewhere && !world.written.destroyed.contains(&bytes) {
            world.fail(format!("{bytes:?} of {path} on {device} are nowhere"));
        }
        if !world.written.superseded.contains(&bytes) {
            world.fail(format!(
                "{bytes:?} of {path} on {device} are in no file though no user replaced them"
            ));
        }
    }
}

/// Whatever a user wrote and no user destroyed is on some disk, if only in a history.
pub fn bytes_somewhere(world: &mut World) {
    if world.failure.is_some() {
        return;
    }
    for (bytes, (device, path)) in world.written.all.clone() {
        let somewhere = world.devices.iter().any(|d| d.disk.holds(bytes));
        if !somewhere && !world.written.destroyed.contains(&bytes) {
            world.fail(format!("{bytes:?} of {path} on {device} are nowhere"));
        }
    }
}

/// All engines rest, and all connected peers agree that they have the same.
pub fn idle(world: &mut World) {
    if world.failure.is_some() {
        return;
    }
    let mut wrong = Vec::new();
    for (i, d) in world.devices.iter().enumerate() {
        let Some(engine) = &d.engine else {
            wrong.push(format!("device {i} is off"));
            continue;
        };
        if let Some(at) = engine.next_tick(world.now(i)) {
            wrong.push(format!("device {i} wants a tick at {at}"));
        }
        match engine.state(&d.index) {
            Ok(state) => {
                let calm = !state.busy && state.alarm.is_none() && !state.full && state.scanned;
                if !calm || state.peers.iter().any(|p| !p.in_sync) {
                    let unsettled = d.index.unsettled();
                    wrong.push(format!("device {i} is not idle: {state:?}, {unsettled:?}"));
                }
            }
            Err(error) => wrong.push(format!("device {i}: {error}")),
        }
    }
    if !wrong.is_empty() {
        world.fail(wrong.join("\n  "));
    }
}

/// How much was done until now: heads of the indexes, operations, fetches, entries sent.
pub fn work(world: &World) -> (Vec<u64>, u64) {
    let heads = world.devices.iter().map(|d| d.index.head()).collect();
    (heads, world.stats.work)
}

/// A conflict copy has the same name everywhere: where it has not, the same bytes stand twice
/// beside the path. (A device that lost its index, or crashed before it recorded the copy, takes the
/// file for a new edit, and what users copied may stand anywhere.)
pub fn one_name_for_a_copy(world: &mut World, faults: Faults) {
    let lost = [
        Kind::Lost,
        Kind::Restored,
        Kind::Index,
        Kind::Power,
        Kind::Crash,
        Kind::Effect,
    ];
    if world.failure.is_some() || lost.iter().any(|kind| faults.has(*kind)) {
        return;
    }
    let mut copies: BTreeMap<(RelPath, Bytes), RelPath> = BTreeMap::new();
    for (path, object) in world.devices[0].disk.tree() {
        let text = path.to_string();
        let (Some((of, _)), Some(bytes)) = (text.split_once(".conflict-"), object.bytes()) else {
            continue;
        };
        let unique =
            world.written.all.contains_key(&bytes) && !world.written.copied.contains(&bytes);
        let Ok(of) = RelPath::new(of) else { continue };
        if let Some(other) = copies.insert((of, bytes), path.clone()).filter(|_| unique) {
            let text = format!("{path} and {other} are copies of one loser, {bytes:?}");
            return world.fail(text);
        }
    }
}

/// No operation reached for anything outside a folder.
pub fn inside(world: &mut World) {
    let escaped = world.devices.iter().find_map(|d| d.disk.escaped.first());
    if let Some(path) = escaped.cloned()
        && world.failure.is_none()
    {
        world.fail(format!("an operation at {path} went outside the folder"));
    }
}
