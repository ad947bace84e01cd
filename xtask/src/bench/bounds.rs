//! What LEFT must reach, row by row: the one table to change when a bound changes. A bound that is
//! missed is shown, in the table and in the documents; only counts and bytes fail a run, in `short`.

use super::short::Step;
use super::short::counts::Caps;
use super::short::{LARGE, MOVED, PART, SMALL};

/// What is bounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Seconds; the median.
    Wall,
    /// Seconds; the 99th percentile of the single changes.
    P99,
    /// Bytes on the wire, both ways.
    Wire,
    /// CPU seconds, both ends.
    Cpu,
    /// Bytes of memory, the largest of any process.
    Memory,
    /// Bytes sent twice, as a part of the file.
    Twice,
}

/// How much it may be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Limit {
    /// No more than this.
    Most(f64),
    /// No more than so many times what this tool needs.
    Times(f64, &'static str),
}

/// One bound of a row.
pub struct Bound {
    /// The row.
    pub row: &'static str,
    /// Of what.
    pub what: What,
    /// How much.
    pub limit: Limit,
}

const fn most(row: &'static str, what: What, limit: f64) -> Bound {
    Bound {
        row,
        what,
        limit: Limit::Most(limit),
    }
}

const fn times(row: &'static str, what: What, factor: f64, tool: &'static str) -> Bound {
    Bound {
        row,
        what,
        limit: Limit::Times(factor, tool),
    }
}

const MIB: f64 = 1_048_576.0;
/// A tenth of 512 MiB.
const TENTH: f64 = 512.0 * MIB / 10.0;
/// How long 1 GiB takes at 400 Mbit/s in full packets, their headers included.
const GIB_AT_400: f64 = 1024.0 * MIB * 8.0 / 400e6 * (1514.0 / 1448.0);

/// All bounds.
pub const BOUNDS: &[Bound] = &[
    most("10m", What::Wall, 0.15),
    times("2g", What::Wall, 1.0, "rsync"),
    times("2g", What::Cpu, 1.2, "rsync"),
    most("2g", What::Memory, 100.0 * MIB),
    times("edit-run", What::Wall, 0.6, "rsync"),
    most("edit-run", What::Wire, TENTH * 1.02),
    times("edit-scatter", What::Wall, 1.0, "rsync"),
    times("edit-scatter", What::Wire, 1.0, "rsync"),
    times("insert", What::Wall, 0.6, "rsync"),
    most("insert", What::Wire, 1.4e6),
    times("append", What::Wall, 0.6, "rsync"),
    most("append", What::Wire, 1.4e6),
    times("small", What::Wall, 1.0, "rsync"),
    // 8,000 files a second.
    most("small", What::Wall, 1.25),
    // Read: 52 MiB, of which contents that wait are 4.
    most("small", What::Memory, 60.0 * MIB),
    times("100k", What::Wall, 1.0, "rsync"),
    // Read: 68 MiB.
    most("100k", What::Memory, 78.0 * MIB),
    most("restart", What::Wall, 0.5),
    most("restart-fresh", What::Wall, 0.5),
    most("rename", What::Wall, 0.1),
    most("rename", What::Wire, 50e3),
    most("latency", What::Wall, 0.020),
    most("latency", What::P99, 0.080),
    most("latency-busy", What::Wall, 0.020),
    most("latency-busy", What::P99, 0.080),
    most("plan-kill", What::Wall, 1.5),
    most("plan-nine", What::Wall, 0.3),
    most("idle", What::Memory, 40.0 * MIB),
    // One tick of the kernel's clock.
    most("idle", What::Cpu, 0.01),
    most("half-way", What::Wall, GIB_AT_400 + 1.0),
    most("half-way", What::Twice, 0.006),
];

/// Of a link of 100 Mbit/s and 100 ms round trip, what must be used: row of the lab → part.
pub const LINK_USED: &[(&str, f64)] = &[
    ("lab-file", 0.92),
    ("lab-small", 0.80),
    ("lab-file-loss", 0.70),
    ("lab-small-loss", 0.70),
];

/// `part` of a hundred.
const fn percent(part: u64, of: u64) -> u64 {
    of / 100 * part
}

/// The large file; a MiB or two have come to it by the last edit.
const WHOLE: u64 = LARGE + (3 << 20);

/// An edit of the large file, which is read and hashed once at each end.
const fn edit(step: Step, changed: u64, wire: u64) -> Caps {
    Caps {
        step,
        wire,
        read: [WHOLE + changed * 2, WHOLE],
        hashed: [WHOLE, WHOLE],
        fsyncs: [8, 16],
        index_commits: [6, 6],
        manifest_commits: [3, 3],
        memory: MEMORY,
    }
}

/// Files of at most this many bytes are durable in the receiver's pack, a batch by one sync.
const PACKED: u64 = 128 << 10;

/// New files: read once to be hashed and once to be sent, written once.
const fn files(step: Step, (count, len): (u64, u64), wire: u64) -> Caps {
    let bytes = percent(101, count * len);
    let synced = if len > PACKED { count } else { count / 20 };
    Caps {
        step,
        wire,
        read: [bytes * 2 + (2 << 20), 2 << 20],
        hashed: [bytes, bytes],
        // At the receiver one a large file, and some for each batch.
        fsyncs: [count / 20 + 50, synced + synced / 10 + 80],
        index_commits: [count / 20 + 50, count / 20 + 50],
        manifest_commits: [2 * count, 2 * count],
        memory: MEMORY,
    }
}

/// Nothing is read or hashed but, at most, a note of 1 KiB.
const fn little(step: Step, wire: u64) -> Caps {
    Caps {
        step,
        wire,
        read: [400_000, 400_000],
        hashed: [1024, 1024],
        fsyncs: [30, 40],
        index_commits: [20, 20],
        manifest_commits: [0, 0],
        memory: MEMORY,
    }
}

const MEMORY: u64 = 100 << 20;

/// What the short form allows, at A, which makes the changes, and at B: the bound of the row that a
/// step is the small form of, with some room where counts depend on how changes fall into batches.
pub const SHORT: [Caps; 11] = [
    files(Step::File, (1, LARGE), percent(102, LARGE)),
    // What does not grow with the file (a list of its segments, records, acknowledgements) weighs
    // more here than in the row of 512 MiB.
    edit(Step::Run, PART, percent(102, PART) + (1 << 17)),
    // As rsync in the row of 512 MiB: 73.2 MB for 53.7.
    Caps {
        // A chunk that changed is hashed at the length it had, in vain, and again as it is cut now: that is
        // known only then, and costs less than to look for all cuts.
        hashed: [WHOLE + percent(140, PART), WHOLE],
        ..edit(Step::Scatter, PART, percent(136, PART))
    },
    edit(Step::Insert, 1 << 20, 1_400_000),
    edit(Step::Append, 1 << 20, 1_400_000),
    files(Step::Small, SMALL, percent(110, SMALL.0 * SMALL.1)),
    little(Step::Note, 6_000),
    files(Step::Folder, MOVED, percent(102, MOVED.0 * MOVED.1)),
    little(Step::Rename, 50_000),
    Caps {
        // Two programs that start, and their databases.
        read: [4 << 20, 4 << 20],
        fsyncs: [60, 60],
        ..little(Step::Restart, 80_000)
    },
    Caps {
        step: Step::Idle,
        // Pings, and what devices say of themselves on the local network.
        wire: 8_000,
        read: [4096, 4096],
        hashed: [0, 0],
        // What is synced 5 s after a change.
        fsyncs: [4, 4],
        index_commits: [0, 0],
        manifest_commits: [0, 0],
        memory: 40 << 20,
    },
];

/// The bounds of one row.
pub fn of(row: &str) -> impl Iterator<Item = &'static Bound> {
    BOUNDS.iter().filter(move |bound| bound.row == row)
}

#[cfg(test)]
mod tests {
    use super::super::lab;
    use super::super::rows::ROWS;
    use super::{BOUNDS, LINK_USED};

    #[test]
    fn every_bound_is_of_a_row() {
        for bound in BOUNDS {
            assert!(
                ROWS.iter().any(|row| row.name == bound.row),
                "{}",
                bound.row
            );
        }
        for (name, part) in LINK_USED {
            assert!(lab::ROWS.iter().any(|row| row.name == *name), "{name}");
            assert!((0.0..1.0).contains(part));
        }
    }
}
