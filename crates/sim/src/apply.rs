//! Does operations on the fake disk as [`left_core::plan`] demands it of the real one: swap, look
//! at what came out, put it back when it is not what was expected.

use left_core::entry::{FileStat, Kind, Mtime, Node};
use left_core::path::RelPath;
use left_core::plan::{Expect, Op, OpDone, OpError, OpId};
use left_core::probe::mutant;

use crate::disk::{FakeDisk, Object, Thing};
use crate::rng::Rng;

/// Does one operation at this wall clock.
pub fn apply(disk: &mut FakeDisk, op: &Op, wall_ms: u64) -> Result<OpDone, OpError> {
    if disk.full {
        return Err(OpError::Full);
    }
    if disk.gone {
        return Err(OpError::Io("the folder is gone".to_owned()));
    }
    for path in paths(op) {
        if path.parent().is_some_and(|p| !disk.is_readable(&p)) {
            return Err(OpError::Io(format!("{path}: no permission")));
        }
    }
    disk.log();
    match op {
        Op::Place {
            path,
            node,
            staged,
            expect,
            loser,
        } => {
            let thing = match (node, staged) {
                (Node::File { .. }, Some(name)) => {
                    let bytes = disk.stage.get(name).ok_or(OpError::NotStaged)?;
                    Thing::File(*bytes)
                }
                (Node::Dir { .. }, None) => Thing::Dir,
                (Node::Symlink { target, .. }, None) => Thing::Symlink(target.clone()),
                _ => panic!("{path}: a stage name goes with files, and only with them: {op:?}"),
            };
            check(disk, path, expect)?;
            check_empty(disk, path)?;
            let loser = put_away(disk, path, loser.as_ref(), wall_ms);
            let (mode, mtime) = meta(node);
            let mtime = mtime.unwrap_or_else(|| disk.stamp(wall_ms));
            disk.make(path, thing, mode.unwrap_or(0o644), mtime, wall_ms);
            if let Some(name) = staged {
                disk.stage.remove(name);
            }
            Ok(done(disk, path, loser))
        }
        Op::SetMeta { path, node, expect } => {
            check(disk, path, expect)?;
            let kind = disk.get(path).map(Object::kind);
            assert_eq!(kind, Some(node.kind()), "{path}: metadata of another kind");
            let (mode, mtime) = meta(node);
            disk.set_meta(path, mode, mtime, wall_ms);
            Ok(done(disk, path, None))
        }
        Op::Remove { path, expect } => {
            check(disk, path, expect)?;
            check_empty(disk, path)?;
            put_away(disk, path, None, wall_ms);
            Ok(done(disk, path, None))
        }
        Op::Drop { path, expect } => {
            check(disk, path, expect)?;
            check_empty(disk, path)?;
            // Freed at once: nobody may need what lies here.
            disk.take(path, wall_ms);
            Ok(done(disk, path, None))
        }
        Op::Move {
            from,
            expect,
            to,
            node,
        } => {
            check(disk, from, expect)?;
            check(disk, to, &Expect::Absent)?;
            let content = disk.get(from).and_then(Object::bytes).map(|b| b.id());
            assert_eq!(content, node.content(), "{to}: moved other bytes");
            disk.rename(from, to, wall_ms);
            let (mode, mtime) = meta(node);
            disk.set_meta(to, mode, mtime, wall_ms);
            Ok(done(disk, to, None))
        }
    }
}

/// All paths that an operation names.
pub fn paths(op: &Op) -> Vec<&RelPath> {
    match op {
        Op::Place { path, loser, .. } => std::iter::once(path).chain(loser).collect(),
        Op::SetMeta { path, .. } | Op::Remove { path, .. } | Op::Drop { path, .. } => vec![path],
        Op::Move { from, to, .. } => vec![from, to],
    }
}

/// A batch in another order that is as good: operations on paths of which neither is the other or
/// above it may be done in any order.
pub fn shuffled(batch: Vec<(OpId, Op)>, rng: &mut Rng) -> Vec<(OpId, Op)> {
    let mut left = batch;
    let mut out = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let free: Vec<usize> = (0..left.len())
            .filter(|at| !left[..*at].iter().any(|(_, op)| touch(op, &left[*at].1)))
            .collect();
        // The first one is always free.
        let at = rng.pick(&free).copied().unwrap_or(0);
        out.push(left.remove(at));
    }
    out
}

fn touch(a: &Op, b: &Op) -> bool {
    let on = |p: &RelPath, q: &RelPath| p == q || p.is_below(q) || q.is_below(p);
    let b = paths(b);
    paths(a).into_iter().any(|p| b.iter().any(|q| on(p, q)))
}

fn meta(node: &Node) -> (Option<u32>, Option<Mtime>) {
    match node {
        Node::Dir { mode } => (Some(*mode), None),
        Node::File { mode, mtime, .. } => (Some(*mode), Some(*mtime)),
        Node::Symlink { mtime, .. } => (None, Some(*mtime)),
        Node::Tombstone => (None, None),
    }
}

/// Whether the disk shows what is expected.
fn check(disk: &mut FakeDisk, path: &RelPath, expect: &Expect) -> Result<(), OpError> {
    if !disk.has_parent(path) {
        if mutant("links on the way are followed") && is_behind_link(disk, path) {
            disk.escaped.push(path.clone());
        }
        return Err(OpError::NoParent);
    }
    let (kind, want, there) = match (expect, disk.get(path)) {
        (Expect::Absent, None) => return Ok(()),
        (Expect::Present(kind, stat), Some(there)) => (*kind, stat, there),
        _ => return Err(OpError::Unexpected),
    };
    let stat = there.stat();
    let as_expected = kind == there.kind()
        && match kind {
            Kind::File => {
                stat.ino == want.ino
                    && stat.size == want.size
                    && stat.mtime == want.mtime
                    && stat.mode == want.mode
            }
            Kind::Symlink => stat.ino == want.ino && stat.mtime == want.mtime,
            Kind::Dir => true,
            Kind::Tombstone => false,
        };
    let swapped = kind == Kind::File && there.kind() == Kind::File;
    if as_expected || (swapped && mutant("the look after the swap is skipped")) {
        Ok(())
    } else {
        Err(OpError::Unexpected)
    }
}

/// Whether a folder on the way to a path has become a link.
fn is_behind_link(disk: &FakeDisk, path: &RelPath) -> bool {
    std::iter::successors(path.parent(), RelPath::parent)
        .any(|p| disk.get(&p).is_some_and(|o| o.kind() == Kind::Symlink))
}

fn done(disk: &FakeDisk, path: &RelPath, loser: Option<(RelPath, FileStat)>) -> OpDone {
    OpDone {
        stat: disk.get(path).map(Object::stat),
        loser,
    }
}

/// A folder that goes away must be empty.
fn check_empty(disk: &FakeDisk, path: &RelPath) -> Result<(), OpError> {
    if disk.below(path).is_empty() {
        Ok(())
    } else {
        Err(OpError::NotEmpty)
    }
}

/// Moves what stands at a path to its conflict copy, or to history.
fn put_away(
    disk: &mut FakeDisk,
    path: &RelPath,
    loser: Option<&RelPath>,
    wall_ms: u64,
) -> Option<(RelPath, FileStat)> {
    let object = disk.take(path, wall_ms)?;
    let Some(copy) = loser else {
        disk.history.push((path.clone(), object));
        return None;
    };
    let stat = object.stat();
    let copy = free_name(disk, copy);
    disk.put(&copy, object, wall_ms);
    Some((copy, stat))
}

/// The name asked for, or one like it where nothing stands.
fn free_name(disk: &FakeDisk, copy: &RelPath) -> RelPath {
    let mut name = copy.clone();
    for n in 1u32.. {
        if disk.get(&name).is_none() {
            break;
        }
        let mut bytes = copy.name().to_vec();
        bytes.truncate(240);
        bytes.extend_from_slice(format!("-{n}").as_bytes());
        name = copy
            .with_name(&bytes)
            .expect("a name of at most 255 bytes beside a valid one");
    }
    name
}
