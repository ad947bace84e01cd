//! Small cases, exhausted by hand.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

use std::collections::BTreeMap;

use left_core::conflict::copy_path;
use left_core::engine::Event;
use left_core::entry::Node;
use left_core::index::{Index, Txn};
use left_core::message::{Control, IndexBatch, Role};
use left_core::path::RelPath;
use left_sim::disk::{Bytes, Thing};
use left_sim::mutants::Mutant;
use left_sim::rest::REST;
use left_sim::rng::Rng;
use left_sim::scenario::{Scenario, bytes, path};

/// What one user does to the file `p`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Nothing,
    Edit,
    Delete,
    Rename,
    Folder,
    Chmod,
    Link,
}

const ACTS: [Act; 7] = [
    Act::Nothing,
    Act::Edit,
    Act::Delete,
    Act::Rename,
    Act::Folder,
    Act::Chmod,
    Act::Link,
];

/// Does `act` on a device; new files get these bytes.
fn act(s: &mut Scenario, device: usize, act: Act, name: u64) {
    let p = path("p");
    s.edit(device, |user| match act {
        Act::Nothing => {}
        Act::Edit => user.write(&p, bytes(name)),
        Act::Delete => user.remove(&p),
        Act::Rename => {
            let wall = user.wall_ms;
            user.hints.extend([p.clone(), path("q")]);
            user.disk.rename(&p, &path("q"), wall);
        }
        Act::Folder => {
            user.remove(&p);
            user.make(&p, Thing::Dir);
            user.write(&path("p/in"), bytes(name));
        }
        Act::Chmod => {
            let wall = user.wall_ms;
            user.hints.push(p.clone());
            user.disk.set_meta(&p, Some(0o400), None, wall);
        }
        Act::Link => {
            user.remove(&p);
            user.make(&p, Thing::Symlink(b"somewhere".to_vec()));
        }
    });
}

/// What must stand there after `first` on one device and, later but unaware of it, `second` on the
/// other. File 1 was there before.
fn expected(first: Act, second: Act) -> BTreeMap<String, String> {
    let mut tree = BTreeMap::new();
    let mut put = |name: &str, what: &str| {
        tree.insert(name.to_owned(), what.to_owned());
    };
    let acts = [(first, "file 2"), (second, "file 3")];
    if acts.iter().any(|(a, _)| *a == Act::Rename) {
        put("q", "file 1");
    }
    // What each wants to see at `p`; `None` is a deletion.
    let wish = |(act, new): (Act, &'static str)| match act {
        Act::Nothing => None,
        Act::Edit => Some(Some(new)),
        Act::Delete | Act::Rename => Some(None),
        Act::Folder => Some(Some("dir")),
        Act::Chmod => Some(Some("file 1")),
        Act::Link => Some(Some("link")),
    };
    for (act, new) in acts {
        if act == Act::Folder {
            put("p/in", new);
        }
    }
    match acts.map(wish) {
        [None, None] => put("p", "file 1"),
        [Some(one), None] | [None, Some(one)] => one.into_iter().for_each(|w| put("p", w)),
        [Some(None), Some(None)] => {}
        [Some(Some(live)), Some(None)] | [Some(None), Some(Some(live))] => put("p", live),
        [Some(Some(a)), Some(Some(b))] => {
            let (winner, loser) = if a == "dir" { (a, b) } else { (b, a) };
            put("p", winner);
            if winner != loser {
                put("p!", loser);
            }
        }
    }
    tree
}

#[test]
fn two_devices_do_anything_to_one_path() {
    for first in ACTS {
        for second in ACTS {
            for swapped in [false, true] {
                let (a, b) = if swapped { (1, 0) } else { (0, 1) };
                let mut s = Scenario::new(2);
                s.write(0, "p", 1);
                s.settle();
                s.apart();
                act(&mut s, a, first, 2);
                act(&mut s, b, second, 3);
                s.together();
                let mut want = expected(first, second);
                if (first, second) == (Act::Folder, Act::Folder) {
                    // Two files of one name in the two folders.
                    want.insert("p/in!".to_owned(), "file 2".to_owned());
                }
                assert_eq!(s.tree(), want, "{first:?} on {a}, then {second:?} on {b}");
            }
        }
    }
}

#[test]
fn three_devices_edit_at_once() {
    let mut s = Scenario::new(3);
    s.write(0, "p", 1);
    s.settle();
    s.apart();
    for device in [1, 2, 0] {
        s.write(device, "p", 2 + device as u64);
    }
    s.together();
    let files: Vec<u64> = s.world.devices[1]
        .disk
        .tree()
        .values()
        .filter_map(|o| o.bytes())
        .map(|b| b.name - 1000)
        .collect();
    // The last one stays; the two others are kept.
    assert_eq!(s.tree()["p"], "file 2");
    assert_eq!(files.len(), 3);
    assert!(files.contains(&3) && files.contains(&4));
}

#[test]
fn folder_deleted_here_child_added_there() {
    let mut s = Scenario::new(2);
    s.mkdir(0, "d");
    s.write(0, "d/old", 1);
    s.settle();
    s.apart();
    s.remove(0, "d");
    s.write(1, "d/new", 2);
    s.together();
    let tree = s.tree();
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["d", "d/new"]);
}

#[test]
fn folder_deleted_here_child_edited_there() {
    let mut s = Scenario::new(3);
    s.mkdir(0, "d");
    s.write(0, "d/old", 1);
    s.write(0, "d/other", 2);
    s.settle();
    s.apart();
    s.remove(2, "d");
    s.write(1, "d/old", 3);
    s.together();
    assert_eq!(s.tree()["d/old"], "file 3");
    assert_eq!(s.tree().len(), 2);
}

#[test]
fn folder_becomes_file_here_child_edited_there() {
    let mut s = Scenario::new(2);
    s.mkdir(0, "d");
    s.write(0, "d/a", 1);
    s.settle();
    s.apart();
    s.remove(0, "d");
    s.write(0, "d", 2);
    s.write(1, "d/a", 3);
    s.together();
    let tree = s.tree();
    assert_eq!((&*tree["d"], &*tree["d/a"]), ("dir", "file 3"));
    assert_eq!(tree["d!"], "file 2");
}

#[test]
fn equal_bytes_are_no_conflict() {
    let mut s = Scenario::new(3);
    s.apart();
    for device in 0..3 {
        s.write(device, "p", 1);
    }
    s.together();
    assert_eq!(s.tree().len(), 1);
    assert_eq!(s.world.stats.reports.get("conflict"), None);
    assert_eq!(s.world.stats.ops.get("place: ok"), None);
}

#[test]
fn folder_rename_moves_no_content() {
    let mut s = Scenario::new(2);
    s.mkdir(0, "d");
    s.mkdir(0, "d/e");
    for i in 0..20 {
        s.write(0, &format!("d/e/f{i}"), i);
    }
    s.settle();
    let before = s.world.stats.fetched;
    s.edit(0, |user| {
        let wall = user.wall_ms;
        user.hints.extend([path("d"), path("n")]);
        user.disk.rename(&path("d"), &path("n"), wall);
    });
    s.settle();
    // What is not moved, because its deletion was seen later, is copied.
    assert!(s.world.stats.ops["move: ok"] > 0);
    assert_eq!(s.world.stats.fetched, before);
}

/// What a winner dropped must be heard again when the winner is replaced.
#[test]
fn a_dropped_loser_wins_over_what_comes_later() {
    let mut s = Scenario::new(2);
    s.apart();
    // Device 0 is far ahead, so its file wins over any later file of device 1.
    s.world.devices[0].skew_ms = 80 * 86_400_000;
    s.write(0, "p", 1);
    s.mkdir(1, "p");
    s.world.run(10_000, "apart");
    s.world.devices[0].disk.full = true;
    for link in 0..s.world.links.len() {
        s.world.block(link, false);
    }
    for _ in 0..200 {
        s.world.happen();
    }
    s.remove(1, "p");
    s.write(1, "p", 2);
    for _ in 0..200 {
        s.world.happen();
    }
    s.world.devices[0].disk.full = false;
    s.settle();
    assert_eq!(s.tree()["p"], "file 1");
    assert_eq!(s.tree()["p!"], "file 2");
}

/// Whatever a reader does to a file, to what is beside it and to what it made itself is taken back,
/// and its bytes are kept; also when the file changes elsewhere meanwhile.
#[test]
fn a_reader_takes_its_edits_back() {
    for (own, elsewhere) in ACTS.iter().flat_map(|a| ACTS.map(|b| (*a, b))) {
        let mut s = Scenario::with_roles(&[Role::ReadWrite, Role::ReadOnly]);
        s.write(0, "p", 1);
        s.mkdir(0, "d");
        s.write(0, "d/a", 5);
        s.settle();
        act(&mut s, 1, own, 3);
        s.mkdir(1, "new");
        s.write(1, "new/one", 6);
        s.write(1, "d/a", 7);
        s.world.run(REST, "a reader's edits");
        act(&mut s, 0, elsewhere, 2);
        let before = s.tree();
        s.world.step(1, Event::Revert(None));
        s.settle();
        assert_eq!(s.tree(), before, "{own:?} here, {elsewhere:?} there");
        let disk = &s.world.devices[1].disk;
        for name in [6, 7] {
            assert!(disk.holds(bytes(name)), "{own:?} here, {elsewhere:?} there");
        }
    }
}

/// A read-only member takes everything, and its own edits reach nobody.
#[test]
fn a_reader_follows() {
    let mut s = Scenario::with_roles(&[Role::ReadWrite, Role::ReadWrite, Role::ReadOnly]);
    s.mkdir(0, "d");
    s.write(0, "d/a", 1);
    s.write(1, "b", 2);
    s.settle();
    s.remove(1, "d");
    s.settle();
    assert_eq!(s.tree().len(), 1);
    // A member with an index announces nothing; deletions must not wait for it (once they did).
    assert!(s.world.devices[2].disk.tree().len() == 1);
    s.write(2, "b", 3);
    s.world.run(10_000, "a reader's edit");
    assert_eq!(
        s.world.devices[0].disk.tree()[&path("b")].bytes(),
        Some(bytes(2))
    );
    s.write(0, "b", 4);
    s.world.run(10_000, "over a reader's edit");
    let reader = &s.world.devices[2].disk;
    assert_eq!(reader.tree()[&path("b")].bytes(), Some(bytes(4)));
    assert!(reader.tree().values().any(|o| o.bytes() == Some(bytes(3))));
}

/// All files vanish at once, a folder that holds none before the others: an alarm, and nothing is
/// taken as deleted, also where an operation finds its folder missing.
#[test]
fn all_files_vanish() {
    let mut s = Scenario::new(2);
    s.mkdir(0, "a");
    s.mkdir(0, "d");
    for i in 0..3 {
        s.write(0, &format!("d/{i}"), i);
    }
    s.settle();
    let all: Vec<_> = s.world.devices[0].disk.tree().keys().cloned().collect();
    s.world.devices[0].disk.vanish();
    // Something is to be put into a folder that is missing now.
    s.write(1, "d/new", 7);
    s.world.hint(0, vec![path("a")], 0);
    s.world.hint(0, all.clone(), 100_000);
    while !s.world.stats.reports.contains_key("alarm") {
        assert!(s.world.happen(), "no alarm");
    }
    for p in &all {
        let entry = s.world.devices[0].index.entry(p);
        assert!(entry.is_some_and(|e| e.node.is_live()), "{p}: {entry:?}");
    }
    s.settle();
    assert_eq!(s.tree().len(), 6);
    assert_eq!(s.world.stats.ops.get("remove: ok"), None);
}

/// All files vanish just after one of them was seen at a new place, and before it was missed at the old one: the
/// move does not make the loss look like deletions.
#[test]
fn what_was_moved_vanishes_too() {
    move_and_vanish(&["f0", "f1", "f2", "moved"], &[]);
}

/// The same where the old place is looked at later than all others.
#[test]
fn half_a_move_vanishes() {
    move_and_vanish(&["f1", "f2", "moved"], &["f0"]);
}

fn move_and_vanish(first: &[&str], then: &[&str]) {
    let mut s = Scenario::new(2);
    for i in 0..3 {
        s.write(0, &format!("f{i}"), i);
    }
    s.settle();
    s.edit(0, |user| {
        let wall = user.wall_ms;
        user.disk.rename(&path("f0"), &path("moved"), wall);
    });
    s.world.hint(0, vec![path("moved")], 0);
    while s.world.devices[0].index.entry(&path("moved")).is_none() {
        assert!(s.world.happen(), "the move is not seen");
    }
    s.world.devices[0].disk.vanish();
    let paths = |all: &[&str]| all.iter().map(|p| path(p)).collect();
    s.world.hint(0, paths(first), 0);
    let looked = s.world.now_us + 100_000;
    while s.world.now_us < looked && s.world.happen() {}
    s.world.hint(0, paths(then), 0);
    while !s.world.stats.reports.contains_key("alarm") {
        assert!(s.world.happen(), "no alarm");
    }
    for i in 0..3 {
        let entry = s.world.devices[1].index.entry(&path(&format!("f{i}")));
        assert!(entry.is_some_and(|e| e.node.is_live()), "f{i}: {entry:?}");
    }
    let moved = s.world.devices[0].index.entry(&path("moved"));
    assert!(moved.is_some_and(|e| e.node.is_live()), "{moved:?}");
    s.settle();
    assert_eq!(s.tree().len(), 3);
}

/// A folder vanishes with all files, and has the inode of one that came and went a moment before: it was not moved there.
#[test]
fn a_folder_with_an_inode_of_old_vanishes() {
    let mut s = Scenario::new(2);
    for i in 0..3 {
        s.write(0, &format!("f{i}"), i);
    }
    s.settle();
    s.mkdir(0, "came");
    let is_live = |s: &Scenario, p: &str| {
        let entry = s.world.devices[0].index.entry(&path(p));
        entry.map(|e| e.node.is_live())
    };
    while is_live(&s, "came").is_none() {
        assert!(s.world.happen(), "the folder is not seen");
    }
    s.remove(0, "came");
    while is_live(&s, "came") == Some(true) {
        assert!(s.world.happen(), "its end is not seen");
    }
    s.mkdir(1, "a");
    while is_live(&s, "a").is_none() {
        assert!(s.world.happen(), "the other folder does not come");
    }
    let all: Vec<_> = s.world.devices[0].disk.tree().keys().cloned().collect();
    s.world.devices[0].disk.vanish();
    s.world.hint(0, all, 0);
    while !s.world.stats.reports.contains_key("alarm") {
        assert!(s.world.happen(), "no alarm");
    }
    assert_eq!(is_live(&s, "a"), Some(true));
    s.settle();
    assert_eq!(s.tree().len(), 4);
}

/// A file is seen to be gone, and before that is taken for a deletion a peer tells that it went away and came
/// back: that was not deleted.
#[test]
fn what_is_gone_comes_back_elsewhere() {
    let mut s = Scenario::new(2);
    s.write(0, "f", 1);
    s.settle();
    let peer = s.world.devices[0].id;
    let head = s.world.devices[0].index.head();
    let mut record = s.world.devices[0].index.get(&path("f")).unwrap().unwrap();
    record.entry.version = record.entry.version.bump(peer, 0, 0);
    let txn = Txn {
        put: vec![(path("f"), record.clone())],
        ..Txn::default()
    };
    s.remove(1, "f");
    let looked = s.world.now_us + 100_000;
    while s.world.now_us < looked && s.world.happen() {}
    let batch = IndexBatch {
        entries: vec![(path("f"), record.entry)],
        upto: head + 1,
        ..IndexBatch::default()
    };
    s.world.devices[0].index.commit(txn).unwrap();
    let message = Control::Index(batch);
    s.world.step(1, Event::Message { peer, message });
    s.settle();
    assert_eq!(s.tree().get("f"), Some(&"file 1".to_owned()));
}

/// An older copy of an index comes back: a deletion that was told since, and waits at the peer, is
/// void with all else that the copy does not know.
#[test]
fn an_older_index_comes_back() {
    let mut s = Scenario::new(2);
    s.write(0, "a", 1);
    s.settle();
    let copy = s.world.devices[0].index.clone();
    s.world.devices[0].saved = Some(Box::new(copy));
    s.mkdir(0, "d");
    s.settle();
    s.world.devices[1].disk.full = true;
    s.remove(0, "d");
    s.write(0, "b", 2);
    for _ in 0..200 {
        s.world.happen();
    }
    assert!(!s.world.devices[1].index.unsettled().is_empty());
    s.world.crash(0, true);
    s.world.restore_index(0);
    // Before the peer hears of it, the copy gives out more numbers than were given out before.
    s.world.block(0, true);
    s.world.start(0);
    for i in 0..8 {
        s.write(0, &format!("new{i}"), 10 + i);
    }
    for _ in 0..100 {
        s.world.happen();
    }
    s.world.block(0, false);
    for _ in 0..200 {
        s.world.happen();
    }
    s.world.devices[1].disk.full = false;
    s.settle();
    assert_eq!(s.tree()["a"], "file 1");
    assert_eq!(s.tree()["b"], "file 2");
}

/// An older copy of an index comes back under a clock set back: the versions of edits that the copy does
/// not know are given to other edits. The peer may have the first ones already.
#[test]
fn versions_are_given_out_twice() {
    let mut s = Scenario::new(2);
    let all: Vec<String> = (0..8).map(|i| format!("p{i}")).collect();
    let write = |s: &mut Scenario, name: u64| {
        s.edit(0, |user| {
            for (i, at) in all.iter().enumerate() {
                user.write(&path(at), bytes(name + i as u64));
            }
        });
    };
    write(&mut s, 10);
    s.settle();
    let copy = s.world.devices[0].index.clone();
    s.world.devices[0].saved = Some(Box::new(copy));
    s.world.devices[0].skew_ms = -3_600_000;
    write(&mut s, 20);
    s.settle();
    s.world.crash(0, true);
    s.world.restore_index(0);
    write(&mut s, 30);
    s.world.start(0);
    s.settle();
    let tree = s.tree();
    for (i, at) in all.iter().enumerate() {
        assert_eq!(tree[at], format!("file {}", 30 + i));
    }
    assert_eq!(tree.len(), all.len(), "{tree:?}");
}

/// A whole machine goes back to an older state, again and again: it is brought up to date, and what
/// others deleted or edited meanwhile stays so.
#[test]
fn a_machine_goes_back_in_time() {
    let mut s = Scenario::new(2);
    s.write(0, "deleted", 1);
    s.write(0, "edited", 2);
    s.settle();
    let then = (
        s.world.devices[0].index.clone(),
        s.world.devices[0].disk.clone(),
    );
    s.write(0, "later", 3);
    s.settle();
    s.remove(1, "deleted");
    s.write(1, "edited", 4);
    s.settle();
    for round in 0..3 {
        s.world.crash(0, true);
        let d = &mut s.world.devices[0];
        d.saved = Some(Box::new(then.0.clone()));
        d.disk = then.1.clone();
        s.world.restore_index(0);
        s.world.start(0);
        s.settle();
        let tree = s.tree();
        assert_eq!(tree["edited"], "file 4");
        assert_eq!(tree["later"], "file 3");
        assert_eq!(tree.len(), 2 + round, "{tree:?}");
        s.write(0, &format!("round{round}"), 10 + round as u64);
        s.settle();
    }
}

/// Without a peer nobody has the same: a wait whose last peer goes is answered when it is back.
#[test]
fn a_wait_outlives_its_peer() {
    let mut s = Scenario::new(2);
    s.apart();
    s.write(0, "f", 1);
    s.world.step(0, Event::Wait(9));
    s.world.run(REST, "alone");
    assert!(!s.world.devices[0].waited.contains(&9));
    s.together();
    assert!(s.world.devices[0].waited.contains(&9));
}

/// Two files of one big content are damaged: both are brought again, one after the other.
#[test]
fn two_damaged_files_of_one_content() {
    let mut s = Scenario::new(2);
    let big = Bytes {
        name: 77,
        size: 300_000,
    };
    for name in ["a", "b"] {
        s.edit(0, |user| user.write(&path(name), big));
    }
    s.settle();
    for name in ["a", "b"] {
        s.world.devices[0].disk.rot(&path(name), bytes(1));
    }
    let damaged = Event::Damaged(vec![path("a"), path("b")]);
    s.world.step(0, damaged);
    s.settle();
    assert_eq!(s.tree().len(), 2);
}

fn take_and_write(s: &mut Scenario, device: usize, at: &RelPath, name: u64) {
    s.edit(device, |user| user.write(at, bytes(name)));
}

/// Where no name for a conflict copy fits, the loser is in history.
#[test]
fn no_name_fits() {
    let mut s = Scenario::new(2);
    // A folder's path of 4,082 bytes: the file's fits, with 36 bytes more it does not.
    let mut at = path("l");
    for len in [250; 15].into_iter().chain([255, 59]) {
        let dir = at.with_name(&vec![b'l'; len]).unwrap();
        s.edit(0, |user| user.make(&dir, Thing::Dir));
        at = dir.join(b"l").unwrap();
    }
    s.settle();
    s.apart();
    take_and_write(&mut s, 0, &at, 1);
    take_and_write(&mut s, 1, &at, 2);
    s.together();
    let history = &s.world.devices[0].disk.history;
    assert!(history.iter().any(|(_, o)| o.bytes() == Some(bytes(1))));
    let stands = s.world.devices[0].disk.get(&at).and_then(|o| o.bytes());
    assert_eq!(stands, Some(bytes(2)));
}

/// Something else had the name of a conflict copy once: the loser is kept there all the same.
#[test]
fn the_copy_s_name_was_taken() {
    let mut s = Scenario::new(3);
    s.apart();
    s.write(0, "p", 1);
    s.write(1, "p", 2);
    s.world.run(20_000, "apart");
    let stamp = s.world.devices[0].index.entry(&path("p")).unwrap().stamp;
    let taken = copy_path(&path("p"), stamp).unwrap();
    // Only 0 and 2 hear of each other.
    s.world.block(1, false);
    take_and_write(&mut s, 2, &taken, 3);
    s.world.run(20_000, "two of three");
    s.edit(2, |user| user.remove(&taken));
    s.world.run(20_000, "two of three");
    s.together();
    let kept = s.world.devices[1].disk.get(&taken);
    assert_eq!(kept.and_then(|o| o.bytes()), Some(bytes(1)));
    assert_eq!(s.tree().len(), 2);
}

/// A user's edit that others have heard of is taken back by a power cut: it comes back from them.
#[test]
fn a_power_cut_takes_back_an_announced_edit() {
    for seed in 0..40 {
        let mut s = Scenario::new(2);
        s.world.devices[0].disk.journaled = true;
        s.mkdir(0, "d");
        s.write(0, "d/over", 1);
        s.settle();
        s.world.devices[0].disk.sync();
        s.write(0, "d/over", 2);
        s.mkdir(0, "new");
        s.write(0, "new/file", 3);
        s.settle();
        let before = s.tree();
        s.world.power_cut(0, &mut Rng::new(seed));
        s.world.start(0);
        s.settle();
        assert_eq!(s.tree(), before, "{seed}");
        assert!(s.world.devices[0].disk.cut.is_none());
    }
}

/// The same where nobody has it any more: the user takes what is there, and all agree.
#[test]
fn what_nobody_can_give_back_is_given_up() {
    for seed in 0..40 {
        let mut s = Scenario::new(2);
        s.world.devices[0].disk.journaled = true;
        s.write(0, "over", 1);
        s.settle();
        s.world.devices[0].disk.sync();
        s.apart();
        s.write(0, "over", 2);
        s.write(0, "new", 3);
        s.world.run(REST, "apart");
        s.world.power_cut(0, &mut Rng::new(seed));
        s.world.start(0);
        s.together();
        assert!(s.world.devices[0].disk.cut.is_none());
    }
}

/// More files than are under way at once: those that find no place are looked for once, however many
/// messages tell of them.
#[test]
fn what_waits_for_a_place_is_walked_once() {
    const FILES: u64 = 4300;
    let mut s = Scenario::new(2);
    s.edit(0, |user| {
        for n in 0..FILES {
            user.write(&path(&format!("f{n:04}")), bytes(n));
        }
    });
    s.settle();
    assert_eq!(s.tree().len() as u64, FILES);
    let walked = s.world.devices[1].index.walked.get();
    assert!(walked < 2 * FILES, "{walked}");
}

/// A deletion that is told while more is on its way waits for that, and is done then, whatever comes.
#[test]
fn a_deletion_waits_for_the_rest_of_an_index() {
    let mut s = Scenario::new(2);
    s.write(0, "gone", 1);
    s.settle();
    let index = &s.world.devices[0].index;
    let (peer, head) = (s.world.devices[0].id, index.head());
    let mut gone = index.get(&path("gone")).unwrap().unwrap().entry;
    gone.node = Node::Tombstone;
    gone.version = gone.version.bump(peer, 0, 0);
    let mut tell = |entries, upto, more| {
        let batch = IndexBatch {
            entries,
            upto,
            more,
            ..IndexBatch::default()
        };
        let message = Control::Index(batch);
        s.world.step(1, Event::Message { peer, message });
        s.world.run(100, "told");
        s.tree_of(1).len()
    };
    assert_eq!(tell(vec![(path("gone"), gone)], head + 1, true), 1);
    assert_eq!(tell(vec![], head + 2, false), 0);
}

/// Histories of faults that were found once notice when the fault comes back.
#[test]
fn histories_notice_their_fault() {
    let cases: [(&str, fn()); 9] = [
        (
            "what is gone is settled by its record",
            what_is_gone_comes_back_elsewhere,
        ),
        ("an older place counts as a move", half_a_move_vanishes),
        (
            "a folder that arrived and left counts as a move",
            a_folder_with_an_inode_of_old_vanishes,
        ),
        (
            "what was put off is forgotten",
            a_deletion_waits_for_the_rest_of_an_index,
        ),
        (
            "who waits is not told again",
            a_dropped_loser_wins_over_what_comes_later,
        ),
        ("a folder's deletion is not held", all_files_vanish),
        (
            "what moved and vanished counts as moved",
            what_was_moved_vanishes_too,
        ),
        (
            "edits of a common past are versioned again",
            a_machine_goes_back_in_time,
        ),
        (
            "an older index goes on under its old epoch",
            an_older_index_comes_back,
        ),
    ];
    for (name, history) in cases {
        let mutant = Mutant { name, within: 0 };
        let noticed = std::panic::catch_unwind(|| mutant.with(history)).is_err();
        assert!(noticed, "{name}");
    }
}
