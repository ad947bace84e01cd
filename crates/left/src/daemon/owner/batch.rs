//! What the applier was given at once, until its results are recorded.

use std::collections::HashSet;
use std::time::Instant;

use left_core::entry::Node;
use left_core::path::RelPath;
use left_core::plan::{Expect, Op, OpId};

use crate::disk::Hold;

/// Operations that were handed over together.
pub(super) struct Batch {
    pub(super) len: usize,
    /// When they were.
    pub(super) since: Instant,
    /// Keeps the eye away from their paths.
    hold: Hold,
    /// Those that make a file where nothing stands.
    makes: Vec<(OpId, RelPath)>,
}

impl Batch {
    pub(super) fn new(ops: &[(OpId, Op)], hold: Hold) -> Batch {
        Batch {
            len: ops.len(),
            since: Instant::now(),
            hold,
            makes: ops.iter().filter_map(makes_file).collect(),
        }
    }

    /// All results are recorded; `good`: operations that were done.
    pub(super) fn end(self, good: &HashSet<OpId>) {
        let made = self.makes.into_iter().filter(|(id, _)| good.contains(id));
        self.hold.end(made.map(|(_, path)| path).collect());
    }
}

fn makes_file((id, op): &(OpId, Op)) -> Option<(OpId, RelPath)> {
    match op {
        Op::Place {
            path,
            node: Node::File { .. },
            expect: Expect::Absent,
            ..
        } => Some((*id, path.clone())),
        _ => None,
    }
}
