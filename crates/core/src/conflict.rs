//! Concurrent edits: which one stays at the path, and what the other's copy is called.

use std::cmp::Ordering;

use crate::diff::age;
use crate::entry::{Entry, Kind, Node, Stamp};
use crate::path::{MAX_NAME, RelPath};
use crate::probe::{cover, mutant};
use crate::version::Version;

/// Orders two live entries of one path: the greater one stays. Total, the same on every device,
/// and independent of versions, so that joining in any order ends in the same place.
///
/// A folder beats all else (what is in it must stay reachable), then the later edit, then the
/// device, then the node itself.
pub fn rank(a: &Entry, b: &Entry) -> Ordering {
    if mutant("mtime decides the winner") {
        let by_time = age(&a.node).cmp(&age(&b.node));
        return by_time.then_with(|| node_order(&a.node, &b.node));
    }
    if a.stamp == b.stamp && a.node != b.node {
        cover("conflict: two nodes under one stamp");
    }
    let dir = |e: &Entry| e.node.kind() == Kind::Dir;
    dir(a)
        .cmp(&dir(b))
        .then_with(|| a.stamp.cmp(&b.stamp))
        .then_with(|| node_order(&a.node, &b.node))
}

/// An arbitrary total order of nodes, for edits that share even their stamp (a device whose clock
/// and index were both set back).
fn node_order(a: &Node, b: &Node) -> Ordering {
    fn key(n: &Node) -> (Kind, &[u8], i64, u32, u32) {
        match n {
            Node::Tombstone => (Kind::Tombstone, &[], 0, 0, 0),
            Node::Dir { mode } => (Kind::Dir, &[], 0, 0, *mode),
            Node::Symlink { mtime, target } => (Kind::Symlink, target, mtime.secs, mtime.nanos, 0),
            Node::File {
                mode,
                mtime,
                content,
                ..
            } => (Kind::File, &content.0, mtime.secs, mtime.nanos, *mode),
        }
    }
    key(a).cmp(&key(b))
}

/// The entry of a conflict copy that keeps `loser`: the same on whichever device makes it.
pub fn copy_entry(loser: &Entry) -> Entry {
    Entry {
        node: loser.node.clone(),
        version: Version::from_pairs([(loser.stamp.device, loser.stamp.counter)]),
        stamp: loser.stamp,
    }
}

/// Where the loser of a conflict at `path` is kept: `name.conflict-20261122-165552123-ABCDEFG.ext`
/// with the time (UTC, to the millisecond) and the device of the edit. `None` only when the path
/// is so long that no such name fits.
pub fn copy_path(path: &RelPath, stamp: Stamp) -> Option<RelPath> {
    let name = path.name();
    let (stem, ext) = split_extension(name);
    let tag = format!(
        ".conflict-{}-{}",
        utc_tag(stamp.counter),
        stamp.device.short()
    );
    let room = MAX_NAME.checked_sub(tag.len() + ext.len())?;
    let mut new = truncate_utf8(stem, room).to_vec();
    new.extend_from_slice(tag.as_bytes());
    new.extend_from_slice(ext);
    path.with_name(&new).ok()
}

/// Whether the name is one that [`copy_path`] gives.
pub fn is_copy(path: &RelPath) -> bool {
    const TAG: &[u8] = b".conflict-";
    let name = path.name();
    let Some(at) = name.windows(TAG.len()).position(|w| w == TAG) else {
        return false;
    };
    let rest = &name[at + TAG.len()..];
    let digits = |s: &[u8]| s.iter().all(u8::is_ascii_digit);
    rest.len() >= 26 && digits(&rest[..8]) && rest[8] == b'-' && digits(&rest[9..18])
}

/// What the name of a conflict copy tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopyOf {
    /// The file that it was made beside (where the name was not shortened).
    pub path: RelPath,
    /// The start of the id of the device whose edit it is; `None` for bytes that a program wrote after
    /// its file had been replaced.
    pub device: Option<String>,
}

/// Reads the name of a conflict copy: one that [`copy_path`] gives, or one of bytes that were written
/// late (`name.conflict-20260131T235959-late.ext`), numbered (`-2` before the extension) or not.
/// `None` for any other name.
pub fn copy_of(path: &RelPath) -> Option<CopyOf> {
    const TAG: &[u8] = b".conflict-";
    let name = path.name();
    let at = name.windows(TAG.len()).rposition(|w| w == TAG)?;
    let rest = &name[at + TAG.len()..];
    let digits = |range: std::ops::Range<usize>| {
        rest.get(range)
            .is_some_and(|s| s.iter().all(u8::is_ascii_digit))
    };
    let late = digits(0..8) && rest.get(8) == Some(&b'T') && digits(9..15);
    let (device, end) = if late && rest[15..].starts_with(b"-late") {
        (None, 20)
    } else if digits(0..8)
        && rest.get(8) == Some(&b'-')
        && digits(9..18)
        && rest.get(18) == Some(&b'-')
    {
        let short = rest.get(19..26)?;
        let base32 = |b: &u8| b.is_ascii_uppercase() || (b'2'..=b'7').contains(b);
        let short = short.iter().all(base32).then_some(short)?;
        (Some(String::from_utf8(short.to_vec()).ok()?), 26)
    } else {
        return None;
    };
    let ext = match rest[end..].split_first() {
        Some((b'-', more)) => {
            let number = more.iter().take_while(|b| b.is_ascii_digit()).count();
            if number == 0 {
                return None;
            }
            &more[number..]
        }
        _ => &rest[end..],
    };
    if !(ext.is_empty() || ext[0] == b'.') {
        return None;
    }
    let original = [&name[..at], ext].concat();
    let path = path.with_name(&original).ok()?;
    Some(CopyOf { path, device })
}

/// `("photo", ".jpg")`; a leading dot starts no extension, and one longer than 16 bytes is none.
fn split_extension(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|b| *b == b'.') {
        Some(at) if at > 0 && name.len() - at <= 16 => name.split_at(at),
        _ => (name, &[]),
    }
}

/// At most `room` bytes, not cutting through a UTF-8 character where the name is UTF-8.
fn truncate_utf8(name: &[u8], room: usize) -> &[u8] {
    if name.len() <= room {
        return name;
    }
    let mut end = room;
    while end > 0 && room - end < 4 && (name[end] & 0xC0) == 0x80 {
        end -= 1;
    }
    &name[..end]
}

/// `20261122-165552123` for milliseconds since 1970, UTC.
fn utc_tag(ms: u64) -> String {
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    let (y, m, d) = civil_from_days(days);
    let (h, min, s, milli) = (
        in_day / 3_600_000,
        in_day / 60_000 % 60,
        in_day / 1000 % 60,
        in_day % 1000,
    );
    format!("{y:04}{m:02}{d:02}-{h:02}{min:02}{s:02}{milli:03}")
}

/// Days since 1970-01-01 to year, month, day in the Gregorian calendar.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", for days >= 0.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let d = doy - (153 * mp + 2) / 5 + 1;
    let m = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(m <= 2), m, d)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::version::DeviceId;

    #[test]
    fn names() {
        let stamp = Stamp {
            counter: 1_795_366_552_123,
            device: DeviceId([7; 32]),
        };
        let tag = ".conflict-20261122-165552123-A4DQOBY";
        for (name, want) in [
            ("a/b.txt", format!("a/b{tag}.txt")),
            ("b", format!("b{tag}")),
            (".hidden", format!(".hidden{tag}")),
            (
                "x.averyveryverylongextension",
                format!("x.averyveryverylongextension{tag}"),
            ),
        ] {
            let got = copy_path(&RelPath::new(name).unwrap(), stamp).unwrap();
            assert_eq!(got.to_string(), want);
            assert!(is_copy(&got) && !is_copy(&RelPath::new(name).unwrap()));
        }
        for name in ["a/b.txt", "b", ".hidden", "a.conflict-x.c"] {
            let path = RelPath::new(name).unwrap();
            let copy = copy_path(&path, stamp).unwrap();
            let of = copy_of(&copy).unwrap();
            assert_eq!(
                (of.path, of.device.as_deref()),
                (path.clone(), Some("A4DQOBY"))
            );
            assert_eq!(copy_of(&path), None);
        }
        for (name, original, device) in [
            (
                "b.conflict-20261122-165552123-A4DQOBY-12.txt",
                "b.txt",
                Some("A4DQOBY"),
            ),
            ("b.conflict-20260131T235959-late.txt", "b.txt", None),
            ("b.conflict-20260131T235959-late-2", "b", None),
        ] {
            let of = copy_of(&RelPath::new(name).unwrap()).unwrap();
            assert_eq!(
                (of.path.to_string().as_str(), of.device.as_deref()),
                (original, device)
            );
        }
        for name in [
            "b.conflict-20261122-165552123-A4DQOB.txt",
            "b.conflict-20261122-165552123-a4dqoby.txt",
            "b.conflict-20261122-165552123",
            "b.conflict-20260131T235959-later",
            "b.conflict-20261122-165552123-A4DQOBY-.txt",
            "b.conflict-",
        ] {
            assert_eq!(copy_of(&RelPath::new(name).unwrap()), None, "{name}");
        }
        let long = "ü".repeat(127);
        let got = copy_path(&RelPath::new(long.as_str()).unwrap(), stamp).unwrap();
        assert!(got.name().len() <= MAX_NAME);
        assert!(std::str::from_utf8(got.name()).is_ok());
    }
}
