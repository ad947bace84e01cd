//! Starts and index batches between core and wire.

use std::collections::{HashMap, HashSet};

use super::wire::{bad, exact};
use super::{DecodeError, IndexBatch, Start, proto};
use crate::content::{ContentId, MAX_FILE_SIZE};
use crate::entry::{Entry, MAX_TARGET, MODE_MASK, Mtime, Node, Stamp};
use crate::index::{Cursor, MAX_FORMER};
use crate::path::RelPath;
use crate::version::{DeviceId, MAX_COUNTER, MAX_DEVICES, Version};

/// Longest part of a path that an error repeats, in characters.
const SHOWN_PATH: usize = 80;

pub(super) fn start_to_wire(s: &Start) -> proto::Start {
    let latest = &s.former[s.former.len().saturating_sub(MAX_FORMER)..];
    let former = |c: &Cursor| proto::Former {
        epoch: c.epoch,
        head: c.seq,
    };
    proto::Start {
        epoch: s.epoch,
        head: s.head,
        known_epoch: s.known.epoch,
        known_seq: s.known.seq,
        your_counter: s.your_counter,
        former: latest.iter().map(former).collect(),
    }
}

pub(super) fn start(s: proto::Start) -> Result<Start, DecodeError> {
    if s.epoch == 0 {
        return Err(bad("epoch 0"));
    }
    if s.your_counter > MAX_COUNTER {
        return Err(bad(format!("counter {} is too large", s.your_counter)));
    }
    Ok(Start {
        epoch: s.epoch,
        head: s.head,
        known: Cursor {
            epoch: s.known_epoch,
            seq: s.known_seq,
        },
        your_counter: s.your_counter,
        former: s.former.into_iter().map(former).collect::<Result<_, _>>()?,
    })
}

fn former(f: proto::Former) -> Result<Cursor, DecodeError> {
    match f.epoch {
        0 => Err(bad("former epoch 0")),
        epoch => Ok(Cursor { epoch, seq: f.head }),
    }
}

/// The devices that a batch names, each once.
#[derive(Default)]
struct Table {
    ids: Vec<Vec<u8>>,
    positions: HashMap<DeviceId, u32>,
}

impl Table {
    fn position(&mut self, device: DeviceId) -> u32 {
        let ids = &mut self.ids;
        *self.positions.entry(device).or_insert_with(|| {
            ids.push(device.0.to_vec());
            (ids.len() - 1) as u32
        })
    }
}

pub(super) fn to_wire(batch: &IndexBatch) -> proto::Index {
    let mut table = Table::default();
    let entries = batch
        .entries
        .iter()
        .map(|(path, entry)| entry_to_wire(path, entry, &mut table))
        .collect();
    proto::Index {
        devices: table.ids,
        entries,
        upto: batch.upto,
        more: batch.more,
        dropped: batch
            .dropped
            .iter()
            .map(|p| p.as_bytes().to_vec())
            .collect(),
    }
}

/// The entries of a question.
pub(super) fn asked_to_wire(entries: &[(RelPath, Entry)]) -> proto::Index {
    let mut table = Table::default();
    let entries = entries
        .iter()
        .map(|(path, entry)| entry_to_wire(path, entry, &mut table))
        .collect();
    proto::Index {
        devices: table.ids,
        entries,
        ..proto::Index::default()
    }
}

fn entry_to_wire(path: &RelPath, entry: &Entry, table: &mut Table) -> proto::Entry {
    let mut out = proto::Entry {
        path: path.as_bytes().to_vec(),
        stamp_device: table.position(entry.stamp.device),
        stamp_counter: entry.stamp.counter,
        ..proto::Entry::default()
    };
    for (device, counter) in entry.version.pairs() {
        out.version_devices.push(table.position(*device));
        out.version_counters.push(*counter);
    }
    let kind = match &entry.node {
        Node::Tombstone => proto::Kind::Tombstone,
        Node::Dir { mode } => {
            out.mode = *mode;
            proto::Kind::Dir
        }
        Node::File {
            mode,
            mtime,
            size,
            content,
        } => {
            out.mode = *mode;
            (out.mtime_secs, out.mtime_nanos) = (mtime.secs, mtime.nanos);
            out.size = *size;
            out.content = content.0.to_vec();
            proto::Kind::File
        }
        Node::Symlink { mtime, target } => {
            (out.mtime_secs, out.mtime_nanos) = (mtime.secs, mtime.nanos);
            out.target = target.clone();
            proto::Kind::Symlink
        }
    };
    out.kind = kind.into();
    out
}

/// The counts of devices and entries were checked before they were built.
pub(super) fn from_wire(wire: proto::Index) -> Result<IndexBatch, DecodeError> {
    let devices: Vec<DeviceId> = wire
        .devices
        .into_iter()
        .map(|d| exact(d, "device id").map(DeviceId))
        .collect::<Result<_, _>>()?;
    let mut entries = Vec::with_capacity(wire.entries.len());
    for mut e in wire.entries {
        let raw = std::mem::take(&mut e.path);
        let shown = |why: String| bad(format!("entry {:?}: {why}", show(&raw)));
        let path = RelPath::new(raw.as_slice()).map_err(|why| shown(why.to_string()))?;
        let entry = entry_from_wire(e, &devices).map_err(|why| shown(why.0))?;
        entries.push((path, entry));
    }
    let dropped = wire
        .dropped
        .into_iter()
        .map(|raw| {
            let wrong = |why| bad(format!("dropped {:?}: {why}", show(&raw)));
            RelPath::new(raw.as_slice()).map_err(wrong)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut seen = HashSet::with_capacity(entries.len() + dropped.len());
    for path in entries.iter().map(|(path, _)| path).chain(&dropped) {
        if !seen.insert(path) {
            return Err(bad(format!(
                "entry {:?} stands twice",
                show(path.as_bytes())
            )));
        }
    }
    drop(seen);
    Ok(IndexBatch {
        entries,
        dropped,
        upto: wire.upto,
        more: wire.more,
    })
}

fn entry_from_wire(e: proto::Entry, devices: &[DeviceId]) -> Result<Entry, DecodeError> {
    let version = version(&e, devices)?;
    let stamp = Stamp {
        counter: counter(e.stamp_counter)?,
        device: device(e.stamp_device, devices)?,
    };
    let node = match proto::Kind::try_from(e.kind) {
        Ok(proto::Kind::Tombstone) => Node::Tombstone,
        Ok(proto::Kind::Dir) => Node::Dir {
            mode: mode(e.mode)?,
        },
        Ok(proto::Kind::File) => {
            if e.size > MAX_FILE_SIZE {
                return Err(bad(format!("{} bytes are too large a file", e.size)));
            }
            Node::File {
                mode: mode(e.mode)?,
                mtime: mtime(&e)?,
                size: e.size,
                content: ContentId(exact(e.content, "content id")?),
            }
        }
        Ok(proto::Kind::Symlink) => {
            if e.target.is_empty() || e.target.len() > MAX_TARGET || e.target.contains(&0) {
                return Err(bad("no valid symlink target"));
            }
            Node::Symlink {
                mtime: mtime(&e)?,
                target: e.target,
            }
        }
        Ok(proto::Kind::Unspecified) | Err(_) => {
            return Err(bad(format!("kind {} is not known here", e.kind)));
        }
    };
    Ok(Entry {
        node,
        version,
        stamp,
    })
}

fn version(e: &proto::Entry, devices: &[DeviceId]) -> Result<Version, DecodeError> {
    let count = e.version_devices.len();
    if count != e.version_counters.len() {
        return Err(bad(
            "a version with unequal numbers of devices and counters",
        ));
    }
    if count == 0 || count > MAX_DEVICES {
        return Err(bad(format!("a version of {count} devices")));
    }
    let pairs = e.version_devices.iter().zip(&e.version_counters);
    let pairs: Vec<(DeviceId, u64)> = pairs
        .map(|(at, c)| Ok((device(*at, devices)?, counter(*c)?)))
        .collect::<Result<_, DecodeError>>()?;
    let version = Version::from_pairs(pairs);
    if version.pairs().len() != count {
        return Err(bad("a version that names a device twice"));
    }
    Ok(version)
}

fn device(position: u32, devices: &[DeviceId]) -> Result<DeviceId, DecodeError> {
    devices
        .get(position as usize)
        .copied()
        .ok_or_else(|| bad(format!("no device at position {position}")))
}

fn counter(counter: u64) -> Result<u64, DecodeError> {
    if counter == 0 || counter > MAX_COUNTER {
        return Err(bad(format!("counter {counter} is out of range")));
    }
    Ok(counter)
}

fn mode(mode: u32) -> Result<u32, DecodeError> {
    if mode & !MODE_MASK != 0 {
        return Err(bad(format!("mode {mode:o} has unknown bits")));
    }
    Ok(mode)
}

fn mtime(e: &proto::Entry) -> Result<Mtime, DecodeError> {
    if e.mtime_nanos >= 1_000_000_000 {
        return Err(bad(format!("{} nanoseconds", e.mtime_nanos)));
    }
    Ok(Mtime {
        secs: e.mtime_secs,
        nanos: e.mtime_nanos,
    })
}

fn show(path: &[u8]) -> String {
    // A character is at most 4 bytes.
    String::from_utf8_lossy(&path[..path.len().min(4 * SHOWN_PATH)])
        .chars()
        .take(SHOWN_PATH)
        .collect()
}
