//! A device that only sends, by hand.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use left_core::engine::{Event, Theirs};
use left_sim::mutants::Mutant;
use left_sim::scenario::{Scenario, path};

fn tree(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    all.iter().map(own).collect()
}

/// Device 1 only sends; what it withholds.
fn withheld(s: &Scenario) -> Vec<(String, Theirs)> {
    let d = &s.world.devices[1];
    let all = d.engine.as_ref().unwrap().withheld(&d.index, 100).unwrap();
    let show = |w: left_core::engine::Withheld| (w.path.to_string(), w.change);
    all.into_iter().map(show).collect()
}

/// Two devices with some files; device 1 only sends, and device 0 changed, deleted and added.
fn differing() -> Scenario {
    let mut s = Scenario::new(2);
    s.write(0, "changed", 1);
    s.write(0, "deleted", 2);
    s.mkdir(0, "dir");
    s.write(0, "dir/file", 3);
    s.settle();
    s.sends_only(1, true);
    s.write(0, "changed", 11);
    s.remove(0, "deleted");
    s.mkdir(0, "new");
    s.write(0, "new/file", 4);
    s.settle();
    s
}

const OLD: [(&str, &str); 4] = [
    ("changed", "file 1"),
    ("deleted", "file 2"),
    ("dir", "dir"),
    ("dir/file", "file 3"),
];

#[test]
fn what_others_change_is_shown_and_not_done() {
    let s = differing();
    assert_eq!(s.tree_of(1), tree(&OLD));
    let all = [
        ("changed", Theirs::Changed),
        ("deleted", Theirs::Deleted),
        ("new", Theirs::New),
        ("new/file", Theirs::New),
    ];
    let all: Vec<_> = all.iter().map(|(p, c)| ((*p).to_owned(), *c)).collect();
    assert_eq!(withheld(&s), all);
    let state = s.world.devices[1].engine.as_ref().unwrap();
    let state = state.state(&s.world.devices[1].index).unwrap();
    assert_eq!((state.withheld_files, state.totals.need_files), (4, 0));
}

#[test]
fn local_edits_are_told() {
    let mut s = differing();
    s.write(1, "dir/file", 33);
    s.remove(1, "dir");
    s.write(1, "mine", 5);
    s.settle();
    assert_eq!(s.tree().get("mine"), Some(&"file 5".to_owned()));
    assert!(!s.tree().contains_key("dir"));
}

#[test]
fn a_part_is_taken() {
    let mut s = differing();
    s.world.step(1, Event::Take(Some(path("new/file"))));
    s.settle();
    s.world.step(1, Event::Take(Some(path("deleted"))));
    s.settle();
    assert_eq!(s.tree_of(1).get("new/file"), Some(&"file 4".to_owned()));
    assert!(!s.tree_of(1).contains_key("deleted"));
    assert_eq!(withheld(&s), [("changed".to_owned(), Theirs::Changed)]);
    // That is over: what comes now is withheld again.
    s.write(0, "new/file", 44);
    s.settle();
    assert_eq!(s.tree_of(1).get("new/file"), Some(&"file 4".to_owned()));
    s.world.step(1, Event::Take(None));
    s.settle();
    assert_eq!(s.tree_of(1), s.tree());
    assert!(withheld(&s).is_empty());
}

#[test]
fn its_state_wins_when_asked() {
    let mut s = differing();
    s.world.step(1, Event::Override(Some(path("new"))));
    s.settle();
    assert!(!s.tree().contains_key("new"));
    assert_eq!(s.tree().get("changed"), Some(&"file 11".to_owned()));
    s.world.step(1, Event::Override(None));
    s.settle();
    assert_eq!(s.tree(), tree(&OLD));
    assert!(withheld(&s).is_empty());
    // What was theirs is in their history.
    let kept = |name| {
        let disk = &s.world.devices[0].disk;
        disk.holds(left_sim::scenario::bytes(name))
    };
    assert!(kept(11) && kept(4));
    // No conflict comes of it when it takes part again.
    s.sends_only(1, false);
    assert_eq!(s.tree(), tree(&OLD));
}

/// Both edit, theirs wins: the sender's bytes stay where they are until it takes theirs.
#[test]
fn a_conflict_is_kept_until_it_is_taken() {
    let mut s = differing();
    s.apart();
    s.write(1, "dir/file", 31);
    s.write(0, "dir/file", 32);
    s.together();
    assert_eq!(s.tree_of(1).get("dir/file"), Some(&"file 31".to_owned()));
    assert_eq!(s.tree().get("dir/file"), Some(&"file 32".to_owned()));
    s.world.step(1, Event::Take(Some(path("dir"))));
    s.settle();
    assert_eq!(s.tree_of(1).get("dir/file"), Some(&"file 32".to_owned()));
    // The copy is an edit of the sender, and told.
    assert_eq!(s.tree().get("dir/file!"), Some(&"file 31".to_owned()));
}

/// Both edit, the sender's wins: the other keeps its own as a copy.
#[test]
fn a_conflict_that_the_sender_wins_is_settled_by_the_other() {
    let mut s = differing();
    s.apart();
    s.write(0, "dir/file", 32);
    s.write(1, "dir/file", 31);
    s.together();
    assert_eq!(s.tree().get("dir/file"), Some(&"file 31".to_owned()));
    assert_eq!(s.tree().get("dir/file!"), Some(&"file 32".to_owned()));
}

#[test]
fn all_is_taken_when_it_takes_part_again() {
    let mut s = differing();
    s.sends_only(1, false);
    assert_eq!(s.tree_of(1), s.tree());
}

/// Device 1 only sends and told of an edit that a power cut then took back; device 0 had got it and
/// changed the file again. Device 1 has found that, and asked
/// for it in vain.
fn torn() -> Scenario {
    let mut s = Scenario::new(2);
    s.sends_only(1, true);
    s.unsynced(1);
    s.write(1, "file", 1);
    s.settle();
    s.write(0, "file", 2);
    s.settle();
    s.power_cut(1, "file");
    s.world.start(1);
    let found = |s: &Scenario| {
        let d = &s.world.devices[1];
        let engine = d.engine.as_ref().unwrap();
        let connected = !engine.state(&d.index).unwrap().peers.is_empty();
        connected && engine.is_healing() && !engine.is_path_busy(&path("file"))
    };
    while !found(&s) {
        assert!(s.world.happen());
    }
    s
}

/// Somebody still has what the cut took, and that is what is to stand here.
#[test]
fn what_a_power_cut_took_comes_back_though_something_newer_is_withheld() {
    let mut s = Scenario::new(3);
    s.sends_only(1, true);
    s.unsynced(1);
    s.write(1, "file", 1);
    s.settle();
    // Devices 0 and 2 do not hear of each other.
    s.world.block(1, true);
    s.write(0, "file", 2);
    s.world.run(10_000, "told");
    s.power_cut(1, "file");
    s.world.start(1);
    s.world.run(10_000, "healed");
    assert_eq!(s.tree_of(1), tree(&[("file", "file 1")]));
    s.world.block(1, false);
    s.settle();
    assert_eq!(s.tree_of(1), tree(&[("file", "file 1")]));
    assert_eq!(withheld(&s), [("file".to_owned(), Theirs::Changed)]);
}

/// What nobody has any more is asked for again and again, until the user says what is meant.
#[test]
fn what_a_power_cut_took_is_asked_for_until_the_user_says_what_is_meant() {
    let mut s = torn();
    s.settle();
    assert_eq!(withheld(&s), [("file".to_owned(), Theirs::New)]);
    s.world.step(1, Event::Take(None));
    s.settle();
    assert_eq!(s.tree_of(1), tree(&[("file", "file 2")]));
}

#[test]
fn what_a_power_cut_took_is_replaced_when_what_is_newer_is_taken() {
    let mut s = torn();
    s.world.step(1, Event::Take(None));
    s.settle();
    assert_eq!(s.tree_of(1), tree(&[("file", "file 2")]));
}

/// What is not there wins over nothing: nobody could get it.
#[test]
fn what_a_power_cut_took_does_not_win() {
    let mut s = torn();
    s.world.step(1, Event::Override(None));
    s.settle();
    assert_eq!(s.tree(), tree(&[("file", "file 2")]));
}

/// These tests notice when the rule is broken.
#[test]
fn they_notice_their_fault() {
    let cases: [(&str, fn()); 4] = [
        (
            "who only sends takes all the same",
            what_others_change_is_shown_and_not_done,
        ),
        (
            "an override does not know of theirs",
            its_state_wins_when_asked,
        ),
        (
            "what is damaged waits for what is withheld",
            what_a_power_cut_took_comes_back_though_something_newer_is_withheld,
        ),
        (
            "an override announces what is not there",
            what_a_power_cut_took_does_not_win,
        ),
    ];
    for (name, history) in cases {
        let mutant = Mutant { name, within: 0 };
        let noticed = std::panic::catch_unwind(|| mutant.with(history)).is_err();
        assert!(noticed, "{name}");
    }
}
