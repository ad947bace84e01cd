//! What a scanner finds: where the disk differs from the index.

use std::collections::BTreeSet;

use left_core::diff::{Look, Observation, Seen, look_at_file};
use left_core::entry::{Kind, Mtime, Record};
use left_core::index::Index;
use left_core::path::RelPath;

use crate::disk::{FakeDisk, Object};
use crate::index::FakeIndex;

/// Differences at `path` and below: what is there (parents first), then what is gone (children
/// first).
pub fn differences(disk: &FakeDisk, index: &FakeIndex, path: &RelPath) -> Vec<Observation> {
    if disk.gone {
        return Vec::new();
    }
    let mut found: Vec<Observation> = std::iter::once(path.clone())
        .chain(disk.below(path))
        .filter_map(|p| present(disk, index, &p))
        .collect();
    found.extend(gone(disk, index, Some(path)));
    found
}

/// What stands at `path`, if it differs from the index.
pub fn present(disk: &FakeDisk, index: &FakeIndex, path: &RelPath) -> Option<Observation> {
    let object = disk.get(path).filter(|_| !disk.gone)?;
    let record = index.get(path).ok().flatten();
    if disk.barrier(path).is_some_and(|b| b != path) {
        // The folder above tells of its trouble.
        return None;
    }
    let trouble = object.kind() == Kind::Dir && !disk.is_readable(path);
    (trouble || differs(object, record.as_ref())).then(|| Observation {
        path: path.clone(),
        seen: match went_back(disk, object, record.as_ref()) {
            true => Seen::Torn(Some(object.stat())),
            false => disk.look(path),
        },
    })
}

/// Records of what no longer stands at or below `path` (of the whole tree for `None`).
pub fn gone(disk: &FakeDisk, index: &FakeIndex, path: Option<&RelPath>) -> Vec<Observation> {
    let mut gone: Vec<Observation> = index
        .live()
        .map(|(p, _)| p)
        .filter(|p| path.is_none_or(|dir| *p == dir || p.is_below(dir)))
        .filter(|p| !disk.gone && disk.get(p).is_none())
        .filter(|p| disk.barrier(p).is_none_or(|b| disk.get(b).is_none()))
        .map(|p| {
            let torn = disk.cut.as_ref().is_some_and(|c| c.vanished.contains(p));
            Observation {
                path: p.clone(),
                seen: if torn { Seen::Torn(None) } else { Seen::Absent },
            }
        })
        .collect();
    gone.reverse();
    gone
}

/// A file is older than its record, and a power cut is why.
fn went_back(disk: &FakeDisk, object: &Object, record: Option<&Record>) -> bool {
    let (Some(cut), Some(record)) = (&disk.cut, record) else {
        return false;
    };
    let time = |t: Mtime| (t.secs, t.nanos);
    let old = record
        .stat
        .filter(|_| record.entry.node.content().is_some());
    object.kind() == Kind::File
        && time(object.ctime) <= time(cut.found)
        && old.is_some_and(|old| time(object.ctime) <= time(old.ctime))
}

/// What a power cut took away as a whole, judged when the device starts again.
pub fn vanished(disk: &FakeDisk, index: &FakeIndex) -> BTreeSet<RelPath> {
    let Some(cut) = &disk.cut else {
        return BTreeSet::new();
    };
    let time = |t: Mtime| (t.secs, t.nanos);
    let unsure = |r: &Record| r.stat.is_some_and(|s| time(s.ctime) >= time(cut.since));
    index
        .live()
        .filter(|(path, record)| disk.get(path).is_none() && unsure(record))
        .map(|(path, _)| path.clone())
        .collect()
}

fn differs(object: &Object, record: Option<&Record>) -> bool {
    let stat = object.stat();
    let Some(record) = record else { return true };
    match object.kind() {
        Kind::File => look_at_file(Some(record), &stat) == Look::Read,
        kind => {
            kind != record.entry.node.kind()
                || record.stat.is_none_or(|old| {
                    old.ino != stat.ino
                        || old.mode != stat.mode
                        || (kind == Kind::Symlink && old != stat)
                })
        }
    }
}

/// Whether what was seen is still so, right before it is handed on.
pub fn holds(disk: &FakeDisk, observation: &Observation) -> bool {
    if disk.gone {
        return false;
    }
    match (&observation.seen, disk.look(&observation.path)) {
        // A folder's times follow from what is put into it.
        (Seen::Dir(old), Seen::Dir(new)) => old.ino == new.ino && old.mode == new.mode,
        (Seen::Torn(None), new) => new == Seen::Absent,
        (Seen::Torn(Some(stat)), Seen::File { stat: new, .. }) => *stat == new,
        (old, new) => *old == new,
    }
}
