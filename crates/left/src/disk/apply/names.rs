//! New files that need nothing but a name get it side by side: naming is a third of what many small files
//! cost here, and else one core would do it while the other rests.

use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Mutex;

use left_core::path::RelPath;
use left_core::plan::{Expect, Op, OpId};

use super::ready::{Ready, THREADS, in_parallel};
use super::{Did, lock};
use crate::disk::root::{ParentDir, Root};
use crate::disk::sys;

/// Fewer are named one after the other: threads would cost more than they save.
const FEW: usize = 64;
/// Into so many stretches they are cut, each for one thread: where a folder holds many, two threads seldom
/// work in it at once and wait for each other.
const STRETCHES: usize = 4 * THREADS;

/// How many operations from the first on are such files: none of them is in another's way.
pub(super) fn plain_ones(ops: &[(OpId, Op)], ready: &[Ready]) -> usize {
    let all = ops.iter().zip(ready);
    all.take_while(|((_, op), ready)| is_plain(op, ready))
        .count()
}

fn is_plain(op: &Op, ready: &Ready) -> bool {
    let free = matches!(
        op,
        Op::Place {
            expect: Expect::Absent,
            ..
        }
    );
    let unnamed = ready.staged.as_ref().is_some_and(|s| s.unnamed.is_some());
    free && unnamed && ready.waits && ready.failed.is_none()
}

/// Names what can be named without further ado. `None` for all else: who does that alone will say why.
pub(super) fn name_all(root: &Root, ops: &[(OpId, Op)], ready: &[Ready]) -> Vec<Option<Did>> {
    if ops.len() < FEW {
        return ops.iter().map(|_| None).collect();
    }
    let long = ops.len().div_ceil(STRETCHES);
    let stretches: Vec<Range<usize>> = (0..ops.len())
        .step_by(long)
        .map(|from| from..ops.len().min(from + long))
        .collect();
    let done: Vec<Mutex<Vec<Option<Did>>>> = stretches.iter().map(|_| Mutex::default()).collect();
    in_parallel(THREADS, &stretches, |n, stretch| {
        let mut last = None;
        let ops = ops[stretch.clone()].iter();
        let each = ops.zip(&ready[stretch.clone()]);
        let named = each.map(|((_, op), ready)| name(root, &mut last, op, ready));
        *lock(&done[n]) = named.collect();
    });
    let done = done.into_iter();
    done.flat_map(|d| d.into_inner().unwrap_or_else(|e| e.into_inner()))
        .collect()
}

/// A folder and its handle. Should a user rename the folder meanwhile, what is named by the handle goes with
/// it, as if it had been named a moment earlier; so this is for new names only.
type Last<'a> = Option<(Option<RelPath>, ParentDir<'a>)>;

fn name<'a>(root: &'a Root, last: &mut Last<'a>, op: &Op, ready: &Ready) -> Option<Did> {
    let path = op.path();
    let staged = ready.staged.as_ref()?;
    let (file, naming) = staged.unnamed.as_ref()?;
    let kept = last.take().filter(|(dir, _)| path.is_in(dir.as_ref()));
    let (dir, handle) = match kept {
        Some(kept) => kept,
        None => (path.parent(), root.parent_of(path).ok()?),
    };
    crash_point!("creating");
    let named = sys::name_new(file, *naming, handle.as_fd(), path.name());
    *last = Some((dir, handle));
    named.ok()?;
    crash_point!("created");
    Some(Did {
        placed: Some(staged.stat),
        seen: sys::stat_fd(file).ok(),
        loser: None,
    })
}
