//! The part of the contract that is about peers.
#![allow(clippy::unwrap_used)]

use left_core::entry::{Entry, Node};
use left_core::index::{Cursor, Index, Txn, Walk};
use left_core::path::RelPath;
use left_core::version::Version;

use super::contract::{entry, file, file_node, p, ps, put, stat};
use super::model::device;

/// Runs these cases; `make` as for [`contract`](super::contract::contract).
pub(super) fn contract<I: Index>(make: impl Fn() -> I) {
    keeps_what_peers_announced(make());
    walks_needs_both_ways(make());
    counts_needs_by_path(make());
    forgets_before_the_rest(make());
    deletes_before_it_puts(make());
    knows_the_largest_counters(make());
    keeps_cursors(make());
    sets_aside_what_is_not_needed(make());
    remembers_what_was_dropped(make());
}

fn sets_aside_what_is_not_needed(mut i: impl Index) {
    let (one, two) = (entry(file_node(5, 1), 1, 5), entry(file_node(7, 2), 2, 6));
    let away = |path: &str, away| Txn {
        away: vec![(p(path), away)],
        ..Txn::default()
    };
    i.commit(announce(&[
        (1, "d/a", one.clone()),
        (1, "d/b", one.clone()),
    ]))
    .unwrap();
    i.commit(away("d/a", true)).unwrap();
    i.commit(away("nothing", true)).unwrap();
    // What comes later goes with it, though nothing is said.
    i.commit(announce(&[(2, "d/a", two.clone())])).unwrap();
    let all = [(device(1), one.clone()), (device(2), two)];
    assert_eq!(i.theirs(&p("d/a")).unwrap(), all);
    let paths = |list: Vec<left_core::index::Need>| -> Vec<RelPath> {
        list.into_iter().map(|n| n.path).collect()
    };
    assert_eq!(paths(i.needs(Walk::Up, None, 9).unwrap()), [p("d/b")]);
    assert_eq!(i.away(None, 9).unwrap()[0].theirs, all);
    assert_eq!(i.away(Some(&p("d/a")), 9).unwrap(), []);
    let t = i.totals().unwrap();
    let counts = (t.need_files, t.need_bytes, t.away_files, t.away_bytes);
    assert_eq!(counts, (1, 5, 1, 7));
    i.commit(away("d/b", true)).unwrap();
    assert!(!i.needs_below(&p("d")).unwrap());
    i.commit(Txn {
        forget: vec![device(1)],
        ..Txn::default()
    })
    .unwrap();
    let t = i.totals().unwrap();
    assert_eq!((t.need_files, t.away_files, t.away_bytes), (0, 1, 7));
    i.commit(away("d/a", false)).unwrap();
    assert_eq!(paths(i.needs(Walk::Down, None, 9).unwrap()), [p("d/a")]);
    assert_eq!(i.totals().unwrap().away_files, 0);
}

fn remembers_what_was_dropped(mut i: impl Index) {
    i.commit(put(&[("a", file(1, 2, 3)), ("b", file(2, 3, 3))]))
        .unwrap();
    let drop = |paths: &[&str]| Txn {
        drop: paths.iter().map(|path| p(path)).collect(),
        ..Txn::default()
    };
    assert_eq!(i.commit(drop(&["a", "b"])).unwrap(), 4);
    assert_eq!(i.get(&p("a")).unwrap(), None);
    assert_eq!(i.totals().unwrap().files, 0);
    assert_eq!(i.changes_since(0, 9).unwrap(), []);
    let all = [(3, p("a")), (4, p("b"))];
    assert_eq!(i.dropped_since(0, 9).unwrap(), all);
    assert_eq!(i.dropped_since(3, 9).unwrap(), all[1..]);
    assert_eq!(i.dropped_since(0, 1).unwrap(), all[..1]);
    assert_eq!(
        i.by_content(&left_core::content::ContentId([3; 32]), 9)
            .unwrap(),
        []
    );
    i.commit(put(&[("a", file(1, 2, 3))])).unwrap();
    assert_eq!(i.dropped_since(0, 9).unwrap(), all[1..]);
    assert_eq!(i.live_after(None, 9).unwrap(), [(p("a"), file(1, 2, 3))]);
}

fn announce(list: &[(u8, &str, Entry)]) -> Txn {
    let all = list
        .iter()
        .map(|(d, path, e)| (device(*d), p(path), e.clone()));
    Txn {
        theirs_put: all.collect(),
        ..Txn::default()
    }
}

fn keeps_what_peers_announced(mut i: impl Index) {
    let (one, two) = (entry(file_node(1, 1), 1, 5), entry(Node::Tombstone, 2, 6));
    i.commit(announce(&[(2, "a", two.clone()), (1, "a", one.clone())]))
        .unwrap();
    assert_eq!(
        i.theirs(&p("a")).unwrap(),
        [(device(1), one), (device(2), two.clone())]
    );
    assert_eq!(i.get(&p("a")).unwrap(), None);
    assert_eq!(i.head(), 0, "announcements of peers are not ours");
    let newer = entry(file_node(3, 3), 1, 8);
    i.commit(announce(&[(1, "a", newer.clone())])).unwrap();
    assert_eq!(
        i.theirs(&p("a")).unwrap(),
        [(device(1), newer), (device(2), two.clone())]
    );
    let theirs_del = vec![
        (device(1), p("a")),
        (device(1), p("x")),
        (device(9), p("a")),
    ];
    i.commit(Txn {
        theirs_del,
        ..Txn::default()
    })
    .unwrap();
    assert_eq!(i.theirs(&p("a")).unwrap(), [(device(2), two)]);
}

fn walks_needs_both_ways(mut i: impl Index) {
    let e = entry(file_node(1, 1), 1, 5);
    let all = ["a", "a/b", "a/b/c", "a-b", "c"];
    let list: Vec<_> = all.iter().map(|path| (1, *path, e.clone())).collect();
    i.commit(announce(&list)).unwrap();
    i.commit(announce(&[(2, "a/b", e)])).unwrap();
    let walk = |way, from: Option<&str>, limit| -> Vec<RelPath> {
        let needs = i.needs(way, from.map(p).as_ref(), limit).unwrap();
        needs.into_iter().map(|n| n.path).collect()
    };
    assert_eq!(walk(Walk::Up, None, 9), ps(&all));
    assert_eq!(walk(Walk::Up, Some("a/b"), 2), ps(&["a/b/c", "a-b"]));
    assert_eq!(walk(Walk::Up, Some("a/b/b"), 1), ps(&["a/b/c"]));
    assert_eq!(walk(Walk::Down, None, 2), ps(&["c", "a-b"]));
    assert_eq!(walk(Walk::Down, Some("a-b"), 9), ps(&["a/b/c", "a/b", "a"]));
    assert_eq!(walk(Walk::Down, None, 0), []);
    let both = i.needs(Walk::Down, Some(&p("a/b/c")), 1).unwrap();
    let devices: Vec<_> = both[0].theirs.iter().map(|(d, _)| *d).collect();
    assert_eq!(devices, [device(1), device(2)]);
    for (path, want) in [
        ("a", true),
        ("a/b", true),
        ("a/b/c", false),
        ("c", false),
        ("b", false),
    ] {
        assert_eq!(i.needs_below(&p(path)).unwrap(), want, "{path}");
    }
}

fn counts_needs_by_path(mut i: impl Index) {
    let file = |n, counter, size| entry(file_node(size, 1), n, counter);
    let needs = |i: &dyn Index| {
        let t = i.totals().unwrap();
        (t.need_files, t.need_bytes)
    };
    i.commit(announce(&[
        (1, "a", file(1, 5, 10)),
        (2, "a", file(2, 6, 20)),
        (1, "b", file(1, 5, 1)),
    ]))
    .unwrap();
    assert_eq!(needs(&i), (2, 21), "the latest stamp counts");
    i.commit(announce(&[(1, "a", entry(Node::Tombstone, 1, 9))]))
        .unwrap();
    assert_eq!(needs(&i), (2, 1));
    let theirs_del = vec![
        (device(1), p("a")),
        (device(1), p("b")),
        (device(1), p("b")),
    ];
    i.commit(Txn {
        theirs_del,
        ..Txn::default()
    })
    .unwrap();
    assert_eq!(needs(&i), (1, 20));
    i.commit(Txn {
        forget: vec![device(2), device(8)],
        ..Txn::default()
    })
    .unwrap();
    assert_eq!(needs(&i), (0, 0));
}

fn forgets_before_the_rest(mut i: impl Index) {
    let e = entry(file_node(1, 1), 1, 5);
    let cursor = |epoch| vec![(device(1), Cursor { epoch, seq: 4 })];
    i.commit(Txn {
        cursors: cursor(1),
        ..announce(&[(1, "a", e.clone()), (2, "b", e.clone())])
    })
    .unwrap();
    let txn = announce(&[(1, "c", e.clone())]);
    i.commit(Txn {
        forget: vec![device(1)],
        cursors: cursor(2),
        ..txn
    })
    .unwrap();
    assert_eq!(i.theirs(&p("a")).unwrap(), []);
    assert_eq!(i.theirs(&p("b")).unwrap(), [(device(2), e.clone())]);
    assert_eq!(i.theirs(&p("c")).unwrap(), [(device(1), e)]);
    assert_eq!(i.cursor(device(1)).unwrap(), Cursor { epoch: 2, seq: 4 });
    i.commit(Txn {
        forget: vec![device(1)],
        ..Txn::default()
    })
    .unwrap();
    assert_eq!(i.cursor(device(1)).unwrap(), Cursor::default());
}

fn deletes_before_it_puts(mut i: impl Index) {
    let e = entry(file_node(1, 1), 1, 5);
    let theirs_del = vec![(device(1), p("a"))];
    let touch = vec![(p("a"), stat(42, 2))];
    let txn = announce(&[(1, "a", e.clone())]);
    let put = put(&[("a", file(1, 2, 3))]).put;
    i.commit(Txn {
        theirs_del,
        put,
        touch,
        ..txn
    })
    .unwrap();
    assert_eq!(i.theirs(&p("a")).unwrap(), [(device(1), e)]);
    assert_eq!(
        i.get(&p("a")).unwrap().unwrap().stat,
        Some(stat(42, 2)),
        "touch follows put"
    );
}

fn knows_the_largest_counters(mut i: impl Index) {
    let mut e = entry(file_node(1, 1), 1, 50);
    e.version = Version::from_pairs([(device(0), 33), (device(3), 1 << 56)]);
    i.commit(announce(&[(2, "a", e)])).unwrap();
    let top = |i: &dyn Index, n| i.max_counter(device(n)).unwrap();
    assert_eq!([0, 1, 2, 3].map(|n| top(&i, n)), [33, 50, 0, 1 << 56]);
    assert_eq!(i.counter_floor(), 33, "our own counter at a peer");
    i.commit(put(&[("b", file(1, 1, 1))])).unwrap();
    assert_eq!((i.counter_floor(), top(&i, 0)), (101, 101));
    i.commit(Txn {
        counter_floor: Some(90),
        ..Txn::default()
    })
    .unwrap();
    assert_eq!(i.counter_floor(), 101, "never lower");
    i.commit(Txn {
        counter_floor: Some(900),
        ..Txn::default()
    })
    .unwrap();
    assert_eq!(i.counter_floor(), 900);
    let theirs_del = vec![(device(2), p("a"))];
    i.commit(Txn {
        theirs_del,
        forget: vec![device(2)],
        ..Txn::default()
    })
    .unwrap();
    assert_eq!(
        top(&i, 3),
        1 << 56,
        "counters outlive the entries that showed them"
    );
}

fn keeps_cursors(mut i: impl Index) {
    let cursor = Cursor {
        epoch: u64::MAX,
        seq: u64::MAX,
    };
    i.commit(Txn {
        cursors: vec![(device(4), cursor)],
        ..Txn::default()
    })
    .unwrap();
    assert_eq!(i.cursor(device(4)).unwrap(), cursor);
    assert_eq!(i.cursor(device(3)).unwrap(), Cursor::default());
}
