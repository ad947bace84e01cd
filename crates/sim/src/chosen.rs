//! Devices that hold a part of the share only: users choose, fetch and drop; and what must hold then.

use std::collections::{BTreeMap, BTreeSet};

use left_core::engine::Event;
use left_core::entry::Entry;
use left_core::index::Index;
use left_core::message::Role;
use left_core::path::RelPath;
use left_core::reconcile::best;
use left_core::select::Selection;

use crate::rng::Rng;
use crate::world::{Device, World};

/// A user changes what a device holds; mostly what is not to be held any more goes at once.
pub fn choose(world: &mut World, device: usize, rng: &mut Rng) {
    let d = &world.devices[device];
    let known: BTreeSet<RelPath> = d
        .index
        .live()
        .map(|(p, _)| p.clone())
        .chain(d.index.unsettled().keys().cloned())
        .collect();
    let known: Vec<RelPath> = known.into_iter().collect();
    let path = rng.pick(&known).cloned();
    let mut selection = d.selection.clone();
    let hold = rng.percent(40);
    let at = match rng.below(10) {
        0 => None,
        1..4 => path.and_then(|p| p.parent()),
        _ => path,
    };
    if selection.set(at.as_ref(), hold).is_err() {
        return;
    }
    world.stats.fault("chosen");
    world.note(&format!("{device} holds {at:?}: {hold}"));
    set(world, device, selection);
    if !hold && rng.percent(80) {
        drop_rest(world, device, at.clone());
        if rng.percent(40) {
            // Somebody else has the same idea.
            let other = rng.index(world.devices.len());
            let mut selection = world.devices[other].selection.clone();
            if selection.set(at.as_ref(), false).is_ok() {
                world.note(&format!("{other} does not hold {at:?} either"));
                set(world, other, selection);
                drop_rest(world, other, at);
            }
        }
    }
}

fn set(world: &mut World, device: usize, selection: Selection) {
    world.devices[device].selection = selection.clone();
    world.step(device, Event::Choose(selection));
}

fn drop_rest(world: &mut World, device: usize, at: Option<RelPath>) {
    world.stats.fault("dropped");
    world.step(device, Event::Drop { id: 1, at });
}

/// Everybody holds all again.
pub fn everything(world: &mut World) {
    world.note("everything is chosen");
    for device in 0..world.devices.len() {
        set(world, device, Selection::everything());
    }
}

/// In a world at rest: whoever holds a path shows the same there; who does not has not chosen it, and
/// knows of it; and what is known is held by somebody.
pub fn same_where_chosen(world: &mut World) {
    if world.failure.is_some() {
        return;
    }
    let mut all: BTreeMap<RelPath, (usize, String)> = BTreeMap::new();
    for (i, d) in world.devices.iter().enumerate() {
        if d.role == Role::ReadWrite && !d.send_only {
            for (path, object) in d.disk.tree() {
                all.entry(path.clone())
                    .or_insert_with(|| (i, object.shown()));
            }
        }
    }
    for i in 0..world.devices.len() {
        let d = &world.devices[i];
        if d.send_only || d.role == Role::ReadOnly && world.readers_differ {
            continue;
        }
        if let Some(wrong) = all
            .iter()
            .find_map(|(path, want)| differs(d, path, want))
            .or_else(|| beyond(world, d, &all))
        {
            return world.fail(format!("device {i}: {wrong}"));
        }
    }
}

fn differs(d: &Device, path: &RelPath, (holder, want): &(usize, String)) -> Option<String> {
    match d.disk.get(path) {
        Some(object) if object.shown() == *want => None,
        Some(object) => Some(format!(
            "{path} is {}, and {want} on {holder}; {:?}",
            object.shown(),
            d.index.unsettled().get(path)
        )),
        None if d.selection.wants(path) => Some(format!(
            "{path} is chosen and not here; {want} on {holder}; {:?}, {:?}",
            d.index.entry(path),
            d.index.unsettled().get(path)
        )),
        None if !d.index.is_away(path) => Some(format!(
            "{path} is {want} on {holder} and not known here; {:?}",
            d.index.entry(path)
        )),
        None => None,
    }
}

/// What this device has, or says that others have, though nobody has it.
fn beyond(world: &World, d: &Device, all: &BTreeMap<RelPath, (usize, String)>) -> Option<String> {
    if let Some(path) = d.disk.tree().keys().find(|p| !all.contains_key(*p)) {
        return Some(format!("{path} is here only"));
    }
    let away = d.index.away(None, usize::MAX).unwrap_or_default();
    let lost = away.into_iter().find(|need| {
        let best = best(&need.theirs).filter(|e| e.node.is_live());
        best.is_some_and(|e| !all.contains_key(&need.path) && !sender_has(world, &need.path, e))
    })?;
    Some(format!(
        "{} is said to be elsewhere: {:?}",
        lost.path, lost.theirs
    ))
}

/// Who only sends may be the only one who holds what it told of: all others need not have chosen it.
fn sender_has(world: &World, path: &RelPath, entry: &Entry) -> bool {
    let mut senders = world.devices.iter().filter(|d| d.send_only);
    senders.any(|d| d.disk.get(path).is_some() && d.index.entry(path) == Some(entry))
}
