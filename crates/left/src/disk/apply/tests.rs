#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use left_core::chunker::content_id;
use left_core::entry::{Mtime, Node};

use super::*;
use crate::disk::init_share;

/// New files come into being whole, with or without a name before, and only where nothing stands.
#[test]
fn new_files_are_placed_however_they_get_their_name() {
    for how in [None, Some(Naming::Proc), Stage::naming(&at_home().2)] {
        let (dir, root, stage, history) = at_home();
        stage.force_naming(how);
        let pack = Pack::open(&root).unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::write(at("there"), "a user's").unwrap();
        let op = |n: u64, name: &str| (OpId(n), new_file(&stage, name));
        let ops: Vec<_> = ["new", "there", "no/folder", "last"]
            .into_iter()
            .zip(1..)
            .map(|(name, n)| op(n, name))
            .collect();
        let done = apply_packed(&root, &stage, &history, &pack, None, &ops);
        for (name, done) in [("new", &done[0].1), ("last", &done[3].1)] {
            assert_eq!(fs::read_to_string(at(name)).unwrap(), name, "{how:?}");
            let mode = fs::metadata(at(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o640);
            let seen = root.stat(&RelPath::new(name).unwrap()).unwrap().unwrap();
            assert_eq!(done.as_ref().unwrap().stat, Some(seen.file), "{how:?}");
        }
        assert_eq!(done[1].1.as_ref().unwrap_err(), &OpError::Unexpected);
        assert_eq!(fs::read_to_string(at("there")).unwrap(), "a user's");
        assert_eq!(done[2].1.as_ref().unwrap_err(), &OpError::NoParent);
        // What could not be placed keeps its name there, if it had one.
        let kept = if how.is_none() { 2 } else { 0 };
        assert_eq!(stage.names().unwrap().len(), kept, "{how:?}");
    }
}

/// A small file that is to be made and holds its own path.
fn new_file(stage: &Stage, name: &str) -> Op {
    let staged = stage.unique_name();
    stage.put(&staged, name.as_bytes()).unwrap();
    let node = Node::File {
        mode: 0o640,
        mtime: Mtime { secs: 5, nanos: 6 },
        size: name.len() as u64,
        content: content_id(name.as_bytes()),
    };
    Op::Place {
        path: RelPath::new(name).unwrap(),
        node,
        staged: Some(staged),
        expect: Expect::Absent,
        loser: None,
    }
}

fn new_dir(name: &str) -> Op {
    Op::Place {
        path: RelPath::new(name).unwrap(),
        node: Node::Dir { mode: 0o755 },
        staged: None,
        expect: Expect::Absent,
        loser: None,
    }
}

/// Many at once: each is placed whole, and what can not be is told as it is of one alone.
#[test]
fn many_new_files_get_their_names_side_by_side() {
    let (dir, root, stage, history) = at_home();
    let pack = Pack::open(&root).unwrap();
    let at = |path: &str| dir.path().join(path);
    for folder in ["a", "b"] {
        fs::create_dir(at(folder)).unwrap();
    }
    fs::write(at("b/70"), "a user's").unwrap();
    let mut ops = Vec::new();
    for n in 0..150 {
        let folder = ["a", "b", "none"][n / 50];
        ops.push((OpId(n as u64), new_file(&stage, &format!("{folder}/{n}"))));
        if n == 80 {
            // Not one of them, and what comes after it has to wait for it.
            ops.push((OpId(1000), new_dir("none")));
        }
    }
    let done = apply_packed(&root, &stage, &history, &pack, None, &ops);
    assert_eq!(done.len(), ops.len());
    for ((id, op), (told, done)) in ops.iter().zip(done) {
        assert_eq!(*id, told);
        let path = op.path();
        if path.to_string() == "b/70" {
            assert_eq!(done, Err(OpError::Unexpected));
            continue;
        }
        let seen = root.stat(path).unwrap().unwrap().file;
        let stat = done.unwrap().stat.unwrap();
        assert_eq!(stat.ino, seen.ino, "{path}");
        if let Op::Place {
            node: Node::File { .. },
            ..
        } = op
        {
            assert_eq!(stat, seen);
            assert_eq!(
                fs::read_to_string(at(&path.to_string())).unwrap(),
                path.to_string()
            );
        }
    }
    assert_eq!(fs::read_to_string(at("b/70")).unwrap(), "a user's");
}

/// A folder is to be made while names in the folder above are being synced: its own is not on the disk with
/// those, so who makes something durable in it has to sync above it too.
#[test]
fn a_name_that_is_still_to_come_was_not_synced() {
    let (dir, root, stage, history) = at_home();
    let pack = Pack::open(&root).unwrap();
    fs::create_dir(dir.path().join("above")).unwrap();
    let path = RelPath::new("above/old").unwrap();
    fs::write(dir.path().join("above/old"), "old").unwrap();
    let stat = root.stat(&path).unwrap().unwrap().file;
    let expect = Expect::Present(Kind::File, stat);
    let first = vec![(OpId(1), Op::Remove { path, expect })];
    let second = vec![(OpId(2), new_dir("above/new"))];
    let first = make_ready(&root, &stage, &pack, None, first);
    let second = make_ready(&root, &stage, &pack, None, second);
    for batch in [first, second] {
        for (_, done) in put_in_place(&root, &stage, &history, &pack, batch) {
            done.unwrap();
        }
    }
    let new = RelPath::new("above/new").unwrap();
    let above = pack.unsynced_above(Some(&new));
    assert!(above.contains(&new.parent()), "{above:?}");
}

fn at_home() -> (tempfile::TempDir, Root, Stage, History) {
    let dir = tempfile::tempdir().unwrap();
    init_share(dir.path(), b"id = 1\n").unwrap();
    let root = Root::open(dir.path()).unwrap();
    let stage = Stage::open(&root).unwrap();
    let history = History::open(&root).unwrap();
    (dir, root, stage, history)
}

/// Also in the middle of a batch, which has its folder open.
#[test]
fn a_history_that_is_removed_meanwhile_is_made_anew() {
    let (dir, root, stage, history) = at_home();
    let at = |path: &str| dir.path().join(path);
    let mut run = Run::new(&root, &stage, &history, How::Each);
    fs::create_dir(at("d")).unwrap();
    // First a whole batch goes, then the folder in it, then everything.
    for (n, gone) in ["", "*", "*/d", ""].into_iter().enumerate() {
        for name in ["d/f", "f"] {
            let path = RelPath::new(name).unwrap();
            fs::write(at(name), format!("{n} {name}")).unwrap();
            let stat = root.stat(&path).unwrap().unwrap().file;
            let slot = run.slot(&path).unwrap();
            drop(slot);
            let batch = format!(".left/history/{}", run.batch.as_ref().unwrap().name());
            match gone {
                "" => fs::remove_dir_all(at(".left/history")).unwrap(),
                "*" => fs::remove_dir_all(at(&batch)).unwrap(),
                _ => {
                    let _ = fs::remove_dir_all(at(&batch).join("d"));
                }
            }
            let expect = Expect::Present(Kind::File, stat);
            simple::remove(&mut run, &path, &expect).unwrap();
            assert!(!at(name).exists());
            let batch = format!(".left/history/{}", run.batch.as_ref().unwrap().name());
            let kept = fs::read_to_string(at(&batch).join(name)).unwrap();
            assert_eq!(kept, format!("{n} {name}"));
        }
    }
    assert!(run.sync().is_empty());
}
