//! What every [`Index`] must do, whatever it is made of.
#![allow(clippy::unwrap_used, clippy::type_complexity)]

use std::collections::BTreeSet;

use left_core::content::ContentId;
use left_core::entry::{Entry, FileStat, Mtime, Node, Record, Stamp};
use left_core::index::{Cursor, Index, Need, Totals, Txn, Walk};
use left_core::path::RelPath;
use left_core::version::{DeviceId, Version};

use super::model::device;
use super::{IndexDb, contract_theirs};

/// Runs all cases; `make` gives a new empty index of `device(0)`.
pub(super) fn contract<I: Index>(make: impl Fn() -> I) {
    starts_empty(make());
    an_empty_transaction_does_nothing(make());
    put_numbers_in_order(make());
    put_again_moves_to_the_end(make());
    touch_keeps_the_number(make());
    touch_of_nothing_is_passed_over(make());
    walks_are_in_tree_order(make());
    finds_by_content(make());
    finds_by_inode(make());
    counts_what_is_live(make());
    contract_theirs::contract(make);
}

pub(super) fn p(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

pub(super) fn ps(paths: &[&str]) -> Vec<RelPath> {
    paths.iter().map(|x| p(x)).collect()
}

pub(super) fn entry(node: Node, n: u8, counter: u64) -> Entry {
    Entry {
        node,
        version: Version::from_pairs([(device(n), counter)]),
        stamp: Stamp {
            counter,
            device: device(n),
        },
    }
}

pub(super) fn file_node(size: u64, content: u8) -> Node {
    Node::File {
        mode: 0o644,
        mtime: Mtime {
            secs: 1_700_000_000,
            nanos: 123_456_789,
        },
        size,
        content: ContentId([content; 32]),
    }
}

pub(super) fn stat(ino: u64, size: u64) -> FileStat {
    FileStat {
        ino,
        size,
        mtime: Mtime {
            secs: 1_700_000_000,
            nanos: 123_456_789,
        },
        ctime: Mtime {
            secs: 1_700_000_001,
            nanos: 5,
        },
        mode: 0o644,
    }
}

pub(super) fn file(ino: u64, size: u64, content: u8) -> Record {
    Record {
        entry: entry(file_node(size, content), 0, 100 + ino % 64),
        stat: Some(stat(ino, size)),
    }
}

fn dir() -> Record {
    Record {
        entry: entry(Node::Dir { mode: 0o755 }, 0, 7),
        stat: Some(stat(1, 4096)),
    }
}

fn gone() -> Record {
    Record {
        entry: entry(Node::Tombstone, 0, 9),
        stat: None,
    }
}

pub(super) fn put(list: &[(&str, Record)]) -> Txn {
    Txn {
        put: list.iter().map(|(path, r)| (p(path), r.clone())).collect(),
        ..Txn::default()
    }
}

fn paths<T>(list: Vec<(RelPath, T)>) -> Vec<RelPath> {
    list.into_iter().map(|(path, _)| path).collect()
}

/// All that an index shows, to compare two of them.
#[derive(PartialEq, Debug)]
pub(super) struct Dump {
    ours: Vec<(u64, RelPath, Record)>,
    needs: Vec<Need>,
    needs_down: Vec<Need>,
    away: Vec<Need>,
    dropped: Vec<(u64, RelPath)>,
    per_path: Vec<(RelPath, Option<Record>, Vec<(DeviceId, Entry)>)>,
    found: Vec<(BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>)>,
    peers: Vec<(u64, Cursor)>,
    numbers: (u64, u64, Totals),
}

pub(super) fn dump(index: &impl Index, devices: &[DeviceId]) -> Dump {
    let ours = index.changes_since(0, usize::MAX).unwrap();
    let needs = index.needs(Walk::Up, None, usize::MAX).unwrap();
    let away = index.away(None, usize::MAX).unwrap();
    let all: BTreeSet<RelPath> = ours
        .iter()
        .map(|(_, path, _)| path.clone())
        .chain(needs.iter().map(|n| n.path.clone()))
        .chain(away.iter().map(|n| n.path.clone()))
        .collect();
    let keys =
        |list: Vec<(RelPath, Record)>| list.into_iter().map(|(path, _)| path.key()).collect();
    let found = ours.iter().map(|(.., r)| {
        let content = r.entry.node.content().unwrap_or(ContentId([0; 32]));
        let s = r.stat.unwrap_or_default();
        (
            keys(index.by_content(&content, usize::MAX).unwrap()),
            keys(index.by_inode(s.ino, s.size, s.mtime).unwrap()),
        )
    });
    let per_path = all.into_iter().map(|path| {
        let (record, theirs) = (index.get(&path).unwrap(), index.theirs(&path).unwrap());
        (path, record, theirs)
    });
    let peer = |d: &DeviceId| (index.max_counter(*d).unwrap(), index.cursor(*d).unwrap());
    Dump {
        found: found.collect(),
        per_path: per_path.collect(),
        needs_down: index.needs(Walk::Down, None, usize::MAX).unwrap(),
        peers: devices.iter().map(peer).collect(),
        numbers: (index.head(), index.counter_floor(), index.totals().unwrap()),
        ours,
        needs,
        away,
        dropped: index.dropped_since(0, usize::MAX).unwrap(),
    }
}

fn starts_empty(i: impl Index) {
    assert_ne!(i.epoch(), 0);
    assert_eq!((i.head(), i.counter_floor()), (0, 0));
    assert_eq!(i.max_counter(device(1)).unwrap(), 0);
    assert_eq!(i.cursor(device(1)).unwrap(), Cursor::default());
    assert_eq!(i.get(&p("a")).unwrap(), None);
    assert_eq!(i.changes_since(0, 9).unwrap(), []);
    assert_eq!(i.changes_since(u64::MAX, 9).unwrap(), []);
    assert_eq!(i.needs(Walk::Down, None, 9).unwrap(), []);
    assert!(!i.needs_below(&p("a")).unwrap());
    assert_eq!(i.totals().unwrap(), Totals::default());
}

fn an_empty_transaction_does_nothing(mut i: impl Index) {
    i.commit(put(&[("a", file(1, 2, 3))])).unwrap();
    let before = dump(&i, &[device(0)]);
    assert_eq!(i.commit(Txn::default()).unwrap(), 1);
    assert_eq!(dump(&i, &[device(0)]), before);
}

fn put_numbers_in_order(mut i: impl Index) {
    let head = i
        .commit(put(&[("z", dir()), ("a", gone()), ("z/y", file(1, 2, 3))]))
        .unwrap();
    assert_eq!((head, i.head()), (3, 3));
    let all = i.changes_since(0, 9).unwrap();
    let order: Vec<_> = all
        .iter()
        .map(|(seq, path, _)| (*seq, path.clone()))
        .collect();
    assert_eq!(order, [(1, p("z")), (2, p("a")), (3, p("z/y"))]);
    assert_eq!(all[2].2, file(1, 2, 3));
    assert_eq!(i.changes_since(0, 2).unwrap(), all[..2]);
    assert_eq!(i.changes_since(2, 9).unwrap(), all[2..]);
    assert_eq!(i.get(&p("a")).unwrap(), Some(gone()));
}

fn put_again_moves_to_the_end(mut i: impl Index) {
    i.commit(put(&[("a", file(1, 2, 3)), ("b", file(2, 2, 3))]))
        .unwrap();
    i.commit(put(&[("a", file(1, 5, 4))])).unwrap();
    let all = i.changes_since(0, 9).unwrap();
    let order: Vec<_> = all
        .iter()
        .map(|(seq, path, _)| (*seq, path.clone()))
        .collect();
    assert_eq!(order, [(2, p("b")), (3, p("a"))]);
    assert_eq!(i.get(&p("a")).unwrap(), Some(file(1, 5, 4)));
}

fn touch_keeps_the_number(mut i: impl Index) {
    i.commit(put(&[("a", file(1, 2, 3)), ("b", file(2, 2, 3))]))
        .unwrap();
    let touch = vec![(p("a"), stat(77, 8))];
    assert_eq!(
        i.commit(Txn {
            touch,
            ..Txn::default()
        })
        .unwrap(),
        2
    );
    let all = i.changes_since(0, 9).unwrap();
    assert_eq!((all[0].0, &all[0].1), (1, &p("a")));
    assert_eq!(all[0].2.stat, Some(stat(77, 8)));
    assert_eq!(all[0].2.entry, file(1, 2, 3).entry);
    assert_eq!(
        paths(i.by_inode(77, 8, stat(0, 0).mtime).unwrap()),
        ps(&["a"])
    );
    assert_eq!(paths(i.by_inode(1, 2, stat(0, 0).mtime).unwrap()), []);
}

fn touch_of_nothing_is_passed_over(mut i: impl Index) {
    i.commit(put(&[("a", gone())])).unwrap();
    let touch = vec![(p("a"), stat(7, 8)), (p("b"), stat(7, 8))];
    i.commit(Txn {
        touch,
        ..Txn::default()
    })
    .unwrap();
    assert_eq!(i.get(&p("a")).unwrap(), Some(gone()));
    assert_eq!(i.get(&p("b")).unwrap(), None);
}

fn walks_are_in_tree_order(mut i: impl Index) {
    // `.` and `-` sort before `/` as bytes, but not in tree order.
    let all = ["d", "d/a", "d/a/x", "d/a-b", "d/a.c", "d/gone", "d-x", "e"];
    let record = |path: &str| match path {
        "d/gone" => gone(),
        "d" | "d/a" => dir(),
        _ => file(3, 1, 1),
    };
    let list: Vec<_> = all.iter().rev().map(|path| (*path, record(path))).collect();
    i.commit(put(&list)).unwrap();
    let below = ps(&["d/a", "d/a/x", "d/a-b", "d/a.c"]);
    assert_eq!(paths(i.live_below(&p("d"), None, 9).unwrap()), below);
    assert_eq!(paths(i.live_below(&p("d"), None, 2).unwrap()), below[..2]);
    assert_eq!(
        paths(i.live_below(&p("d"), Some(&p("d/a/x")), 9).unwrap()),
        below[2..]
    );
    assert_eq!(
        paths(i.live_below(&p("d"), Some(&p("a")), 9).unwrap()),
        below
    );
    assert_eq!(paths(i.live_below(&p("d"), Some(&p("e")), 9).unwrap()), []);
    assert_eq!(paths(i.live_below(&p("e"), None, 9).unwrap()), []);
    assert_eq!(paths(i.live_below(&p("d"), None, 0).unwrap()), []);
}

fn finds_by_content(mut i: impl Index) {
    i.commit(put(&[
        ("b", file(1, 2, 3)),
        ("a", file(2, 2, 3)),
        ("c", file(3, 2, 4)),
    ]))
    .unwrap();
    let three = ContentId([3; 32]);
    assert_eq!(paths(i.by_content(&three, 9).unwrap()), ps(&["a", "b"]));
    assert_eq!(i.by_content(&three, 1).unwrap().len(), 1);
    i.commit(put(&[("a", gone()), ("b", file(1, 2, 4))]))
        .unwrap();
    assert_eq!(paths(i.by_content(&three, 9).unwrap()), []);
    assert_eq!(
        paths(i.by_content(&ContentId([4; 32]), 9).unwrap()),
        ps(&["b", "c"])
    );
    // Only the first bytes agree.
    let mut near = [4; 32];
    near[31] = 5;
    assert_eq!(paths(i.by_content(&ContentId(near), 9).unwrap()), []);
}

fn finds_by_inode(mut i: impl Index) {
    let huge = u64::MAX - 1;
    i.commit(put(&[
        ("d", dir()),
        ("a", file(huge, 2, 3)),
        ("b", file(5, 2, 3)),
    ]))
    .unwrap();
    let t = stat(0, 0).mtime;
    assert_eq!(paths(i.by_inode(huge, 2, t).unwrap()), ps(&["a"]));
    assert_eq!(paths(i.by_inode(5, 3, t).unwrap()), []);
    assert_eq!(paths(i.by_inode(5, 2, Mtime::default()).unwrap()), []);
    assert_eq!(
        paths(i.by_inode(1, 4096, t).unwrap()),
        [],
        "folders are not found"
    );
    i.commit(put(&[("b", gone())])).unwrap();
    assert_eq!(paths(i.by_inode(5, 2, t).unwrap()), []);
}

fn counts_what_is_live(mut i: impl Index) {
    let link = Node::Symlink {
        mtime: Mtime::default(),
        target: b"\xff/..".to_vec(),
    };
    let link = Record {
        entry: entry(link, 0, 4),
        stat: Some(stat(9, 4)),
    };
    i.commit(put(&[
        ("d", dir()),
        ("d/a", file(1, 10, 3)),
        ("b", file(2, 5, 3)),
        ("l", link),
    ]))
    .unwrap();
    let want = Totals {
        files: 2,
        dirs: 1,
        links: 1,
        bytes: 15,
        ..Totals::default()
    };
    assert_eq!(i.totals().unwrap(), want);
    i.commit(put(&[
        ("d/a", gone()),
        ("b", file(2, 7, 3)),
        ("l", gone()),
        ("d", gone()),
    ]))
    .unwrap();
    assert_eq!(
        i.totals().unwrap(),
        Totals {
            files: 1,
            bytes: 7,
            ..Totals::default()
        }
    );
}

#[test]
fn the_database_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    contract(|| {
        count.set(count.get() + 1);
        let file = dir.path().join(format!("{}.db", count.get()));
        IndexDb::open(&file, device(0)).unwrap().0
    });
}

#[test]
fn holding_changes_nothing_but_the_price() {
    let dir = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    contract(|| {
        count.set(count.get() + 1);
        let file = dir.path().join(format!("{}.db", count.get()));
        let db = IndexDb::open(&file, device(0)).unwrap().0;
        db.hold().unwrap();
        db
    });
    // What is committed meanwhile is seen by others at once, and survives.
    let file = dir.path().join("held.db");
    let mut db = IndexDb::open(&file, device(0)).unwrap().0;
    let reader = db.reader().unwrap();
    db.hold().unwrap();
    db.hold().unwrap();
    assert_eq!(db.get(&p("a")).unwrap(), None);
    let record = Record {
        entry: entry(Node::Dir { mode: 0o755 }, 0, 1),
        stat: None,
    };
    let txn = Txn {
        put: vec![(p("a"), record.clone())],
        ..Txn::default()
    };
    db.commit(txn).unwrap();
    assert_eq!(reader.get(&p("a")).unwrap(), Some(record.clone()));
    assert_eq!(db.get(&p("a")).unwrap(), Some(record.clone()));
    db.release().unwrap();
    db.release().unwrap();
    drop(db);
    let again = IndexDb::open(&file, device(0)).unwrap().0;
    assert_eq!(again.get(&p("a")).unwrap(), Some(record));
}
