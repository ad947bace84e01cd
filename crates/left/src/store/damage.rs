//! What a damaged, foreign or incomplete index does: kind of damage × place.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use left_core::entry::Entry;
use left_core::index::{Cursor, Index, IndexError, MAX_FORMER, Txn, Walk};
use left_core::version::DeviceId;
use rusqlite::Connection;

use super::IndexDb;
use super::contract::{entry, file, file_node, p, put, stat};
use super::model::device;
use super::sqlite::with_suffix;

const ROWS: u64 = 1500;
/// Places that are damaged.
const STEPS: usize = 24;

fn ours() -> DeviceId {
    device(0)
}

/// An index with enough rows for all kinds of pages, closed in order.
fn filled(dir: &Path) -> PathBuf {
    let path = dir.join("index.db");
    let mut db = IndexDb::open(&path, ours()).unwrap().0;
    fill(&mut db);
    path
}

fn fill(db: &mut IndexDb) {
    let path = |i: u64| format!("folder {}/file with a longer name {i}", i % 7);
    let puts = (0..ROWS).map(|i| (p(&path(i)), file(i, i, (i % 251) as u8)));
    let theirs = (0..ROWS / 2).map(|i| (device(1), p(&path(i)), entry(file_node(i, 3), 1, i + 1)));
    db.commit(Txn {
        put: puts.collect(),
        theirs_put: theirs.collect(),
        ..Txn::default()
    })
    .unwrap();
}

/// Everything that reads; the first error.
fn read_all(db: &IndexDb) -> Result<(), IndexError> {
    let ours = db.changes_since(0, usize::MAX)?;
    for (_, path, r) in ours.iter().step_by(50) {
        db.get(path)?;
        db.theirs(path)?;
        if let (Some(content), Some(s)) = (r.entry.node.content(), r.stat) {
            db.by_content(&content, 5)?;
            db.by_inode(s.ino, s.size, s.mtime)?;
        }
    }
    db.needs(Walk::Up, None, usize::MAX)?;
    db.needs(Walk::Down, None, usize::MAX)?;
    db.live_below(&p("folder 3"), None, usize::MAX)?;
    let reader = db.reader().map_err(IndexError::from)?;
    reader.children(None)?;
    reader.children(Some(&p("folder 1")))?;
    reader.live_in_order(None, usize::MAX)?;
    db.verify()
}

/// Opens what must not be usable: an empty index takes its place, the old file is kept.
fn is_rebuilt(path: &Path, why: &str) {
    let (db, opened) = IndexDb::open(path, ours()).unwrap();
    let reason = opened.rebuilt.expect("a notice");
    assert!(reason.contains(why), "{reason:?} should say {why:?}");
    assert_eq!(db.head(), 0);
    read_all(&db).unwrap();
    drop(db);
    assert!(set_aside(path) > 0);
    let (_db, opened) = IndexDb::open(path, ours()).unwrap();
    assert_eq!(opened.rebuilt, None, "once is enough");
}

/// How many indexes lie aside.
fn set_aside(path: &Path) -> usize {
    let stem = |n: &str| {
        n.trim_end_matches("-wal")
            .trim_end_matches("-shm")
            .to_owned()
    };
    fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.contains(".broken-"))
        .map(|n| stem(&n))
        .collect::<HashSet<_>>()
        .len()
}

#[test]
fn a_fresh_one_is_no_rebuild() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.db");
    let (db, opened) = IndexDb::open(&path, ours()).unwrap();
    assert_eq!(opened.rebuilt, None);
    let epoch = db.epoch();
    drop(db);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(
        left.len(),
        2,
        "closing leaves the file and its number: {left:?}"
    );
    let (db, _) = IndexDb::open(&path, ours()).unwrap();
    assert_ne!(db.epoch(), epoch);
    assert_eq!(db.former(), [], "nothing was given out before");
}

/// What is given out after an older copy came back is not taken for what was given out before.
#[test]
fn an_older_copy_begins_another_life() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    let (db, _) = IndexDb::open(&path, ours()).unwrap();
    let (head, second) = (db.head(), db.epoch());
    let [first] = *db.former() else {
        panic!("one former life: {:?}", db.former())
    };
    assert_eq!(first.seq, head);
    assert_ne!(first.epoch, second);
    drop(db);
    let copy = dir.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let third = IndexDb::open(&path, ours()).unwrap().0.epoch();
    fs::rename(&copy, &path).unwrap();
    let (db, opened) = IndexDb::open(&path, ours()).unwrap();
    assert_eq!(opened.rebuilt, None);
    let lives: Vec<_> = db.former().iter().map(|c| c.epoch).collect();
    assert_eq!(lives, [first.epoch, second]);
    assert!(![first.epoch, second, third].contains(&db.epoch()));
    drop(db);
    for _ in 0..MAX_FORMER {
        IndexDb::open(&path, ours()).unwrap();
    }
    let (db, _) = IndexDb::open(&path, ours()).unwrap();
    assert_eq!(db.former().len(), MAX_FORMER);
    assert!(db.former().iter().all(|c| c.epoch != first.epoch));
}

#[test]
fn no_database() {
    for (bytes, why) in [
        (&b""[..], "empty"),
        (b"no", "no database"),
        (&[0xaa; 10_000], "no database"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.db");
        fs::write(&path, bytes).unwrap();
        is_rebuilt(&path, why);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.db");
    fs::create_dir(&path).unwrap();
    is_rebuilt(&path, "no regular file");
}

#[test]
fn foreign_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA user_version=99").unwrap();
    drop(conn);
    is_rebuilt(&path, "format 99");

    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA application_id=1").unwrap();
    drop(conn);
    is_rebuilt(&path, "another program");

    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch("DROP INDEX entry_c4").unwrap();
    drop(conn);
    is_rebuilt(&path, "tables");

    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    let old = IndexDb::open(&path, ours()).unwrap().0.epoch();
    let (db, opened) = IndexDb::open(&path, device(5)).unwrap();
    assert!(opened.rebuilt.unwrap().contains("another device"));
    assert_ne!(db.epoch(), old);
}

#[test]
fn a_kill_loses_nothing_committed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.db");
    let mut db = IndexDb::open(&path, ours()).unwrap().0;
    fill(&mut db);
    // What a kill leaves is the files as they are now.
    let after = tempfile::tempdir().unwrap();
    let copy = after.path().join("index.db");
    for suffix in ["", "-wal"] {
        fs::copy(with_suffix(&path, suffix), with_suffix(&copy, suffix)).unwrap();
    }
    let (db, opened) = IndexDb::open(&copy, ours()).unwrap();
    assert_eq!((opened.rebuilt.clone(), db.head()), (None, ROWS));
    read_all(&db).unwrap();
}

#[test]
fn a_log_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.db");
    let mut db = IndexDb::open(&path, ours()).unwrap().0;
    db.commit(put(&[("a", file(1, 2, 3))])).unwrap();
    let after = tempfile::tempdir().unwrap();
    let copy = after.path().join("index.db");
    fs::copy(&path, &copy).unwrap();
    is_rebuilt(&copy, "log is missing");
    // And the other way round.
    let after = tempfile::tempdir().unwrap();
    let copy = after.path().join("index.db");
    fs::copy(with_suffix(&path, "-wal"), with_suffix(&copy, "-wal")).unwrap();
    is_rebuilt(&copy, "file is missing");
}

#[test]
fn a_torn_log_ends_at_a_whole_commit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.db");
    let mut db = IndexDb::open(&path, ours()).unwrap().0;
    for i in 0..20 {
        db.commit(put(&[(&format!("{i}"), file(i, 2, 3))])).unwrap();
    }
    let log = fs::read(with_suffix(&path, "-wal")).unwrap();
    for part in 0..10 {
        let after = tempfile::tempdir().unwrap();
        let copy = after.path().join("index.db");
        fs::copy(&path, &copy).unwrap();
        fs::write(with_suffix(&copy, "-wal"), &log[..log.len() * part / 10]).unwrap();
        let (db, opened) = IndexDb::open(&copy, ours()).unwrap();
        assert_eq!(opened.rebuilt, None);
        assert_eq!(db.changes_since(0, 99).unwrap().len() as u64, db.head());
        db.verify().unwrap();
    }
}

/// Each commit was durable when the next one began, so a log that has fewer was damaged.
#[test]
fn a_log_that_lost_commits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.db");
    let mut db = IndexDb::open(&path, ours()).unwrap().0;
    for i in 0..20 {
        db.commit(put(&[(&format!("{i}"), file(i, 2, 3))])).unwrap();
    }
    let log = fs::read(with_suffix(&path, "-wal")).unwrap();
    for part in 0..=10 {
        let at = log.len() * part / 10;
        let cut = log[..at].to_vec();
        let mut flipped = log.clone();
        if let Some(byte) = flipped.get_mut(at) {
            *byte ^= 4;
        }
        for bytes in [cut, flipped] {
            let after = tempfile::tempdir().unwrap();
            let copy = after.path().join("index.db");
            for suffix in ["", "-head"] {
                fs::copy(with_suffix(&path, suffix), with_suffix(&copy, suffix)).unwrap();
            }
            let whole = bytes == log;
            fs::write(with_suffix(&copy, "-wal"), bytes).unwrap();
            if whole {
                assert_eq!(IndexDb::open(&copy, ours()).unwrap().1.rebuilt, None);
            } else {
                is_rebuilt(&copy, "latest commits");
            }
        }
    }
    // Another index' number means nothing, and neither does a damaged one.
    let after = tempfile::tempdir().unwrap();
    let copy = filled(after.path());
    fs::copy(with_suffix(&path, "-head"), with_suffix(&copy, "-head")).unwrap();
    assert_eq!(IndexDb::open(&copy, ours()).unwrap().1.rebuilt, None);
    fs::write(with_suffix(&copy, "-head"), [0xff; 20]).unwrap();
    assert_eq!(IndexDb::open(&copy, ours()).unwrap().1.rebuilt, None);
}

/// What peers told is committed without waiting for the disk. A power cut may take back the last of it, with
/// how far it was taken in, and nothing else; and the next commit of ours makes it durable.
#[test]
fn hearsay_may_be_lost_and_is_heard_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.db");
    let mut db = IndexDb::open(&path, ours()).unwrap().0;
    let unsynced = db.unsynced();
    let heard = |seq: u64| Txn {
        theirs_put: vec![(
            device(1),
            p(&format!("theirs {seq}")),
            entry(file_node(2, 3), 1, seq),
        )],
        cursors: vec![(device(1), Cursor { epoch: 7, seq })],
        ..Txn::default()
    };
    db.commit(put(&[("a", file(1, 2, 3))])).unwrap();
    assert!(!unsynced.any());
    let copied = |at: usize| {
        let after = tempfile::tempdir().unwrap();
        let copy = after.path().join("index.db");
        for suffix in ["", "-head"] {
            fs::copy(with_suffix(&path, suffix), with_suffix(&copy, suffix)).unwrap();
        }
        let log = fs::read(with_suffix(&path, "-wal")).unwrap();
        fs::write(with_suffix(&copy, "-wal"), &log[..at]).unwrap();
        let (db, opened) = IndexDb::open(&copy, ours()).unwrap();
        assert_eq!(opened.rebuilt, None);
        let heard = db.needs(Walk::Up, None, 99).unwrap().len() as u64;
        assert_eq!(db.cursor(device(1)).unwrap().seq, heard);
        assert_eq!(db.changes_since(0, 99).unwrap().len() as u64, db.head());
        (db.head(), heard)
    };
    let len = || fs::metadata(with_suffix(&path, "-wal")).unwrap().len() as usize;
    let sure = len();
    for seq in 1..=3 {
        db.commit(heard(seq)).unwrap();
        assert!(unsynced.any());
    }
    assert_eq!(copied(sure), (1, 0));
    assert_eq!(copied((sure + len()) / 2).0, 1);
    assert_eq!(copied(len()), (1, 3));
    unsynced.sync().unwrap();
    assert!(!unsynced.any());
    // Beside it, or with it, all is durable.
    db.commit(heard(4)).unwrap();
    assert!(unsynced.any());
    db.commit(put(&[("b", file(1, 2, 3))])).unwrap();
    assert!(!unsynced.any());
    let both = Txn {
        touch: vec![(p("a"), stat(5, 2))],
        ..heard(5)
    };
    db.commit(both).unwrap();
    assert!(!unsynced.any());
    assert_eq!(copied(len()), (2, 5));
}

/// What peers announced is kept in memory for a while: not what an undone transaction said of it.
#[test]
fn an_undone_announcement_was_never_heard() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.db");
    let mut db = IndexDb::open(&path, ours()).unwrap().0;
    let (old, new) = (entry(file_node(2, 3), 1, 5), entry(file_node(7, 4), 1, 6));
    let heard = |entry: &Entry| Txn {
        theirs_put: vec![(device(1), p("a"), entry.clone())],
        ..Txn::default()
    };
    db.commit(heard(&old)).unwrap();
    assert_eq!(db.get(&p("a")).unwrap(), None);
    let breaker = Connection::open(&path).unwrap();
    breaker
        .execute_batch(
            "CREATE TRIGGER no BEFORE INSERT ON entry BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .unwrap();
    let both = Txn {
        put: vec![(p("a"), file(1, 2, 3)), (p("b"), file(1, 2, 3))],
        ..heard(&new)
    };
    db.commit(both.clone()).unwrap_err();
    assert_eq!(db.get(&p("a")).unwrap(), None);
    assert_eq!(db.theirs(&p("a")).unwrap(), [(device(1), old)]);
    breaker.execute_batch("DROP TRIGGER no").unwrap();
    db.commit(both).unwrap();
    assert_eq!(db.get(&p("a")).unwrap(), Some(file(1, 2, 3)));
    let all = [(device(1), new)];
    assert_eq!(db.theirs(&p("a")).unwrap(), all);
    assert_eq!(db.needs(Walk::Up, None, 9).unwrap()[0].theirs, all);
    db.rest();
    assert_eq!(db.theirs(&p("a")).unwrap(), all);
}

/// Damage of each kind all over the file: it is found at open or at the first read of what it hit, is
/// never a panic, and never shows a row that was not written.
#[test]
fn damage_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let good = fs::read(filled(dir.path())).unwrap();
    let whole = {
        let db = IndexDb::open(&dir.path().join("index.db"), ours())
            .unwrap()
            .0;
        (0..ROWS)
            .zip(db.changes_since(0, usize::MAX).unwrap())
            .collect::<Vec<_>>()
    };
    let mut found = 0;
    let mut tried = 0;
    for step in 0..STEPS {
        let at = good.len() * step / STEPS + 17 * step;
        for kind in ["cut", "flip", "zero", "noise"] {
            let mut bytes = good.clone();
            match kind {
                "cut" => bytes.truncate(at),
                "flip" => bytes[at] ^= 0x10,
                _ => {
                    let end = (at + 600).min(bytes.len());
                    let fill = if kind == "zero" { 0 } else { 0xd7 };
                    bytes[at..end].fill(fill);
                }
            }
            let after = tempfile::tempdir().unwrap();
            let copy = after.path().join("index.db");
            fs::write(&copy, bytes).unwrap();
            tried += 1;
            let (mut db, opened) = IndexDb::open(&copy, ours()).unwrap();
            if opened.rebuilt.is_some() {
                found += 1;
                continue;
            }
            for (seq, path, record) in db.changes_since(0, usize::MAX).unwrap_or_default() {
                let (_, was) = &whole[usize::try_from(seq).unwrap() - 1];
                assert_eq!((&was.1, &was.2), (&path, &record), "{kind} at {at}");
            }
            let read = read_all(&db);
            let written = db.commit(put(&[("folder 3/new", file(1, 2, 3))]));
            if let Err(e) = read.and(written.map(drop)) {
                assert!(matches!(e, IndexError::Corrupt(_)), "{kind} at {at}: {e}");
                found += 1;
                drop(db);
                is_rebuilt(&copy, "");
            }
        }
    }
    assert!(
        found * 10 > tried * 8,
        "found {found} of {tried}: the rest hit free space"
    );
}

#[test]
fn a_condemned_index_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    let db = IndexDb::open(&path, ours()).unwrap().0;
    db.condemn("a peer knows more of it");
    drop(db);
    is_rebuilt(&path, "a peer knows more");
}

#[test]
fn only_a_few_are_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.db");
    for _ in 0..6 {
        fs::write(&path, b"junk").unwrap();
        drop(IndexDb::open(&path, ours()).unwrap());
    }
    assert_eq!(set_aside(&path), 3);
}

#[test]
fn a_second_writer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    let mut one = IndexDb::open(&path, ours()).unwrap().0;
    let mut two = IndexDb::open(&path, ours()).unwrap().0;
    two.commit(put(&[("x", file(1, 2, 3))])).unwrap();
    let refused = one.commit(put(&[("y", file(1, 2, 3))]));
    assert!(matches!(refused, Err(IndexError::Failed(_))), "{refused:?}");
    assert_eq!(one.head(), ROWS);
}

#[test]
fn an_unwritable_place_is_an_error_and_not_a_rebuild() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("no folder/index.db");
    assert!(IndexDb::open(&missing, ours()).is_err());
}
