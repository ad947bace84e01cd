//! What failed is tried again, and not for ever in the same way.

#![allow(clippy::unwrap_used)]

use left_core::engine::Event;
use left_sim::mutants::Mutant;
use left_sim::rng::Rng;
use left_sim::scenario::{Scenario, bytes, path};

/// A user deletes something on device 1, and nothing tells of it.
fn remove_unseen(s: &mut Scenario, at: &str) {
    s.edit(1, |user| {
        user.remove(&path(at));
        user.hints.clear();
    });
}

fn rename(s: &mut Scenario, from: &str, to: &str) {
    s.edit(0, |user| {
        let wall = user.wall_ms;
        user.hints.extend([path(from), path(to)]);
        user.disk.rename(&path(from), &path(to), wall);
    });
}

/// How often this kind of operation on device 0 or 1 ended so.
fn count(s: &Scenario, what: &str) -> u64 {
    s.world.stats.ops.get(what).copied().unwrap_or(0)
}

/// The folder of the old name is gone and nobody knows: it is looked at, and the file is brought.
#[test]
fn a_rename_from_a_folder_that_is_gone() {
    for to in ["new", "there/new"] {
        let mut s = Scenario::new(2);
        s.mkdir(0, "dir");
        s.write(0, "dir/old", 1);
        s.mkdir(0, "there");
        s.settle();
        remove_unseen(&mut s, "dir");
        rename(&mut s, "dir/old", to);
        s.settle();
        assert_eq!(s.tree().get(to), Some(&"file 1".to_owned()));
        assert!(!s.tree().contains_key("dir"));
        assert_eq!(count(&s, "move: no parent"), 1);
    }
}

/// The folder of the old name can not be entered: the file is brought under its new name all the same.
#[test]
fn a_rename_from_a_folder_that_can_not_be_read() {
    let mut s = Scenario::new(2);
    s.mkdir(0, "dir");
    s.write(0, "dir/old", 1);
    s.settle();
    s.world.devices[1].disk.unreadable.insert(path("dir"));
    rename(&mut s, "dir/old", "new");
    for _ in 0..500 {
        s.world.happen();
    }
    assert_eq!(s.tree_of(1).get("new"), Some(&"file 1".to_owned()));
    s.world.devices[1].disk.unreadable.clear();
    s.settle();
    assert!(!s.tree().contains_key("dir/old"));
}

/// The folder of a new file is gone and nobody knows: it is looked at once and made again. A look at
/// the file, which is not there of course, is no reason to try at once.
#[test]
fn a_file_for_a_folder_that_is_gone() {
    let mut s = Scenario::new(2);
    s.mkdir(0, "dir");
    s.settle();
    remove_unseen(&mut s, "dir");
    s.write(0, "dir/new", 1);
    s.settle();
    assert_eq!(s.tree().get("dir/new"), Some(&"file 1".to_owned()));
    assert_eq!(count(&s, "place: no parent"), 1);
}

/// A power cut took a folder with a file in it, which a peer renamed meanwhile.
#[test]
fn a_rename_of_what_a_power_cut_took() {
    for keep in [true, false] {
        let mut s = Scenario::new(2);
        s.unsynced(1);
        s.mkdir(1, "dir");
        s.write(1, "dir/old", 1);
        s.settle();
        s.power_cut(1, "dir");
        rename(&mut s, "dir/old", "new");
        if !keep {
            s.remove(0, "dir");
        }
        s.world.start(1);
        s.settle();
        assert_eq!(s.tree().get("new"), Some(&"file 1".to_owned()));
        assert_eq!(s.tree().len(), if keep { 2 } else { 1 });
    }
}

/// A power cut took a file of which a peer has a newer one; it is deleted there while it is fetched.
/// The edit that the cut took counts again, and is asked for until the user says what is meant.
#[test]
fn what_is_newer_goes_before_it_comes() {
    let mut s = Scenario::new(2);
    s.unsynced(1);
    s.apart();
    s.write(1, "file", 1);
    s.write(0, "file", 2);
    s.world.run(1000, "both see their own");
    // Device 1 hears of it and does nothing yet.
    s.world.step(1, Event::Pause(true));
    s.world.block(0, false);
    s.world.run(1000, "told");
    s.power_cut(1, "file");
    s.world.start(1);
    let fetching = |s: &Scenario| {
        let engine = s.world.devices[1].engine.as_ref().unwrap();
        engine.is_healing() && engine.is_path_busy(&path("file"))
    };
    while !fetching(&s) {
        assert!(s.world.happen());
    }
    s.remove(0, "file");
    s.settle();
    assert!(s.tree().is_empty());
}

/// A file of a clock that went wrong stands below two later ones, which a power cut takes away. It looks later than both,
/// and is no edit.
#[test]
fn what_a_wrong_clock_wrote_comes_back() {
    for seed in 0..20 {
        let mut s = Scenario::new(2);
        s.world.devices[0].skew_ms = 80 * 86_400_000;
        s.write(0, "file", 1);
        s.settle();
        s.unsynced(0);
        s.world.devices[0].skew_ms = 0;
        let shows = |s: &Scenario, device: usize, name: u64| {
            let object = s.world.devices[device].disk.get(&path("file"));
            object.and_then(|o| o.bytes()) == Some(bytes(name))
        };
        s.write(0, "file", 2);
        while !shows(&s, 1, 2) {
            assert!(s.world.happen());
        }
        s.write(1, "file", 3);
        while !shows(&s, 0, 3) {
            assert!(s.world.happen());
        }
        // Its record follows.
        pass(&mut s, 100);
        s.world.power_cut(0, &mut Rng::new(seed));
        s.world.start(0);
        s.settle();
        assert_eq!(s.tree().get("file"), Some(&"file 3".to_owned()), "{seed}");
    }
}

/// Lets things happen for so many of device 1's milliseconds.
fn pass(s: &mut Scenario, ms: u64) {
    let end = s.world.now(1).mono_ms + ms;
    while s.world.now(1).mono_ms < end && s.world.happen() {}
}

/// Each try of what found no room walks all needs, so a disk that stays full is tried less and less
/// often; as soon as something fitted, it is tried soon again.
#[test]
fn a_disk_that_stays_full() {
    let mut s = Scenario::new(2);
    s.settle();
    let found_full = |s: &Scenario| s.world.stats.reports.get("full").copied().unwrap_or(0) / 2;
    s.world.devices[1].disk.full = true;
    s.write(0, "file", 1);
    pass(&mut s, 300_000);
    let tries = found_full(&s);
    assert!((8..=12).contains(&tries), "{tries}");
    s.world.devices[1].disk.full = false;
    pass(&mut s, 45_000);
    assert_eq!(s.tree_of(1).get("file"), Some(&"file 1".to_owned()));
    s.world.devices[1].disk.full = true;
    s.write(0, "more", 2);
    while found_full(&s) == tries {
        assert!(s.world.happen());
    }
    s.world.devices[1].disk.full = false;
    pass(&mut s, 6000);
    assert_eq!(s.tree_of(1).get("more"), Some(&"file 2".to_owned()));
}

/// These tests notice when the rule is broken.
#[test]
fn they_notice_their_fault() {
    let cases: [(&str, fn()); 4] = [
        (
            "what is older than its record is not synced",
            what_a_wrong_clock_wrote_comes_back,
        ),
        (
            "a rename that failed is tried again",
            a_rename_from_a_folder_that_can_not_be_read,
        ),
        (
            "a look forgets what failed",
            a_file_for_a_folder_that_is_gone,
        ),
        (
            "what is newer is sure to come",
            what_is_newer_goes_before_it_comes,
        ),
    ];
    for (name, history) in cases {
        let mutant = Mutant { name, within: 0 };
        let noticed = std::panic::catch_unwind(|| mutant.with(history)).is_err();
        assert!(noticed, "{name}");
    }
}
