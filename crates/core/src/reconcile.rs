//! One path, ours and theirs: what is to be done.

use std::cmp::Ordering;

use crate::conflict::rank;
use crate::entry::Entry;
use crate::probe::{cover, mutant};
use crate::version::{DeviceId, Relation, Version};

/// What follows from comparing our entry of a path with a peer's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Both know and have the same.
    InSync,
    /// The peer's entry is older; it will take ours.
    Older,
    /// Concurrent, the bytes differ, and ours stays at the path. Only a device that holds the
    /// losing bytes may join the two versions, because joining makes the losing version look
    /// settled everywhere and so must go along with making its conflict copy.
    Await,
    /// What stands on our disk stays; our entry becomes this one.
    Merge(Entry),
    /// Our disk must change so that it shows this entry.
    Take {
        /// Our entry afterwards.
        target: Entry,
        /// The bytes that stand here now lose against a concurrent edit: they become a conflict
        /// copy. Else they are superseded and go to history.
        conflict: bool,
    },
}

/// Compares our entry of a path (`None`: never heard of it) with a peer's.
pub fn reconcile(ours: Option<&Entry>, theirs: &Entry) -> Decision {
    let Some(ours) = ours else {
        return if theirs.node.is_live() {
            cover("reconcile: unknown and live, take");
            take(theirs.clone(), false)
        } else if mutant("tombstone of an unknown path dropped") {
            Decision::Older
        } else {
            // Nothing to delete here, but others may hear of the deletion only through us.
            cover("reconcile: unknown and deleted, record");
            Decision::Merge(theirs.clone())
        };
    };
    let relation = match ours.version.relation(&theirs.version) {
        Relation::After if mutant("older counted as newer") => Relation::Before,
        Relation::Before if mutant("older counted as newer") => Relation::After,
        relation => relation,
    };
    match relation {
        Relation::After => {
            cover("reconcile: ours is newer");
            Decision::Older
        }
        Relation::Before if ours.node == theirs.node => {
            cover("reconcile: theirs is newer, same node");
            Decision::Merge(theirs.clone())
        }
        Relation::Before => {
            cover("reconcile: theirs is newer, take");
            take(theirs.clone(), false)
        }
        Relation::Equal if ours.node == theirs.node => same(ours, theirs),
        // Two nodes under one version: a device re-issued a counter. Both ends see the same pair,
        // so the winner rule alone settles it; the loser's bytes are kept like any other's.
        Relation::Equal => match wins(ours, theirs) {
            true => {
                cover("reconcile: one version for two nodes, ours wins");
                Decision::Older
            }
            false => {
                cover("reconcile: one version for two nodes, theirs wins");
                take(theirs.clone(), both_have_bytes(ours, theirs))
            }
        },
        Relation::Concurrent => concurrent(ours, theirs),
    }
}

/// The same node under the same version. Joined in different orders, it may have got the stamps of
/// different edits; the greater one counts, so that later conflicts are decided alike everywhere.
fn same(ours: &Entry, theirs: &Entry) -> Decision {
    if theirs.stamp > ours.stamp {
        cover("reconcile: same, theirs has the greater stamp");
        Decision::Merge(theirs.clone())
    } else {
        cover("reconcile: same");
        Decision::InSync
    }
}

fn concurrent(ours: &Entry, theirs: &Entry) -> Decision {
    let ours_win = wins(ours, theirs);
    let winner = if ours_win { ours } else { theirs };
    let joined = Entry {
        node: winner.node.clone(),
        version: match mutant("joined version forgets one side") {
            true => winner.version.clone(),
            false => ours.version.join(&theirs.version),
        },
        stamp: winner.stamp,
    };
    let differ = both_have_bytes(ours, theirs);
    match (ours_win, differ) {
        (true, true) if mutant("winner joins before the loser is kept") => Decision::Merge(joined),
        (true, true) => {
            cover("reconcile: concurrent, ours wins, bytes differ, wait");
            Decision::Await
        }
        (true, false) => {
            cover("reconcile: concurrent, ours wins, nothing to keep");
            Decision::Merge(joined)
        }
        (false, _) if ours.node == theirs.node => {
            cover("reconcile: concurrent, theirs wins, same node");
            Decision::Merge(joined)
        }
        (false, true) => {
            cover("reconcile: concurrent, theirs wins, bytes differ, take with copy");
            take(joined, !mutant("loser of a conflict is not kept"))
        }
        (false, false) => {
            cover("reconcile: concurrent, theirs wins, nothing to keep, take");
            take(joined, false)
        }
    }
}

/// Whether ours stays at the path; a live node always beats a deletion.
fn wins(ours: &Entry, theirs: &Entry) -> bool {
    match (ours.node.is_live(), theirs.node.is_live()) {
        (true, false) => !mutant("edit loses to deletion"),
        (false, true) => mutant("edit loses to deletion"),
        _ => rank(ours, theirs) != Ordering::Less,
    }
}

/// Both hold something, and it is not the same.
fn both_have_bytes(ours: &Entry, theirs: &Entry) -> bool {
    ours.node.is_live() && theirs.node.is_live() && !ours.node.same_bytes(&theirs.node)
}

fn take(target: Entry, conflict: bool) -> Decision {
    Decision::Take { target, conflict }
}

/// Of what several peers announced for one path, the entry to compare ours with first; the others
/// are looked at again once that one is settled. `None` for an empty slice.
pub fn best(theirs: &[(DeviceId, Entry)]) -> Option<&Entry> {
    theirs
        .iter()
        .map(|(_, e)| e)
        .reduce(|a, b| match a.version.relation(&b.version) {
            Relation::After => {
                cover("best: the first is newer");
                a
            }
            Relation::Before => {
                cover("best: the second is newer");
                b
            }
            Relation::Equal | Relation::Concurrent if wins(a, b) => {
                cover("best: neither is newer, the first wins");
                a
            }
            Relation::Equal | Relation::Concurrent => {
                cover("best: neither is newer, the second wins");
                b
            }
        })
}

/// The version of an edit that the read-only member `us` takes back: it forgot on what it was based,
/// and whatever others have is newer. (Real counters are times in milliseconds.)
pub fn forgotten(us: DeviceId) -> Version {
    Version::from_pairs([(us, 1)])
}

/// As the read-only member `us`: our own edits never reach others, so theirs always stands at the
/// path, and what we changed is kept as a conflict copy here. Of what others announced, the winner
/// stands, exactly as announced: versions are joined and conflict copies made by them.
pub fn reconcile_read_only(ours: Option<&Entry>, theirs: &Entry, us: DeviceId) -> Decision {
    let Some(ours) = ours else {
        return reconcile(None, theirs);
    };
    let own = ours.stamp.device == us;
    if own && ours.version == forgotten(us) {
        return match ours.node == theirs.node {
            true => Decision::Merge(theirs.clone()),
            false => take(theirs.clone(), false),
        };
    }
    match ours.version.relation(&theirs.version) {
        Relation::After => {
            cover("reader: ours is newer");
            Decision::Older
        }
        Relation::Equal if ours.node == theirs.node => same(ours, theirs),
        _ if ours.node == theirs.node => {
            cover("reader: same node");
            Decision::Merge(theirs.clone())
        }
        Relation::Before => {
            cover("reader: theirs is newer, take");
            take(theirs.clone(), false)
        }
        _ if own => {
            cover("reader: over an edit of its own, take");
            take(theirs.clone(), both_have_bytes(ours, theirs))
        }
        _ if !wins(ours, theirs) => {
            // Others hold the bytes too, and make the copy; ours would reach nobody.
            cover("reader: another's wins over another's, take");
            take(theirs.clone(), false)
        }
        Relation::Equal => {
            cover("reader: one version for two nodes, ours wins");
            Decision::Older
        }
        Relation::Concurrent => {
            cover("reader: concurrent, ours wins");
            Decision::Await
        }
    }
}
