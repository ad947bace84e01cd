//! What was placed without waiting for the disk comes back from the pack, and from nothing else.
#![allow(missing_docs, clippy::unwrap_used)]

mod disk_support;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use disk_support::{Share, file, link, p};
use left::disk::{Before, Cut, Pack, Placed, Repaired, apply_packed, repair};
use left_core::content::ContentId;
use left_core::entry::{Entry, Mtime, Node, Record, Stamp};
use left_core::index::IndexError;
use left_core::path::RelPath;
use left_core::plan::{Expect, Op, OpError, OpId};
use left_core::version::{DeviceId, Version};

/// A share on a file system where also a swap may wait.
fn share() -> Share {
    let memory = Path::new("/dev/shm");
    let dir = match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    };
    Share::of(dir)
}

fn share_in(dir: &Path) -> Share {
    Share::of(tempfile::tempdir_in(dir).unwrap())
}

#[derive(Default)]
struct Index(HashMap<RelPath, Record>);

impl Placed for Index {
    fn get(&self, path: &RelPath) -> Result<Option<Record>, IndexError> {
        Ok(self.0.get(path).cloned())
    }

    fn places(&self, contents: &[ContentId]) -> Result<Vec<(RelPath, Record)>, IndexError> {
        let has = |r: &Record| {
            r.entry
                .node
                .content()
                .is_some_and(|c| contents.contains(&c))
        };
        let found = self.0.iter().filter(|(_, r)| has(r));
        Ok(found.map(|(p, r)| (p.clone(), r.clone())).collect())
    }
}

struct Bed {
    s: Share,
    pack: Pack,
    index: Index,
    began: Mtime,
}

fn now() -> Mtime {
    let t = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let t = t.unwrap();
    Mtime {
        secs: t.as_secs() as i64,
        nanos: t.subsec_nanos(),
    }
}

impl Bed {
    fn new() -> Bed {
        Bed::over(share())
    }

    fn over(s: Share) -> Bed {
        let mut began = now();
        began.secs -= 1;
        Bed {
            pack: Pack::open(&s.root).unwrap(),
            s,
            index: Index::default(),
            began,
        }
    }

    /// Where the history keeps a file, in its only batch.
    fn kept(&self, name: &str) -> PathBuf {
        let batch = fs::read_dir(self.s.at(".left/history")).unwrap().next();
        batch.unwrap().unwrap().path().join(name)
    }

    /// Applies and, where that is wanted, records.
    fn apply(&mut self, ops: Vec<Op>, record: bool) {
        let ops: Vec<(OpId, Op)> = (0..).map(OpId).zip(ops).collect();
        let s = &self.s;
        let done = apply_packed(&s.root, &s.stage, &s.history, &self.pack, None, &ops);
        for ((_, op), (_, done)) in ops.into_iter().zip(done) {
            let done = done.unwrap();
            if let (true, Op::Place { path, node, .. }) = (record, op) {
                self.record(path, node, done.stat);
            }
        }
    }

    fn record(&mut self, path: RelPath, node: Node, stat: Option<left_core::entry::FileStat>) {
        let entry = Entry {
            node,
            version: Version::default(),
            stamp: Stamp {
                counter: 1,
                device: DeviceId([1; 32]),
            },
        };
        self.index.0.insert(path, Record { entry, stat });
    }

    fn place(&self, path: &str, bytes: &[u8]) -> Op {
        self.s.place(path, bytes, self.s.expect(path), None)
    }

    /// A new start after a cut.
    fn repair(&mut self) -> Repaired {
        self.pack = Pack::open(&self.s.root).unwrap();
        let cut = Cut {
            since: self.began,
            found: now(),
        };
        let s = &self.s;
        repair(&s.root, &s.stage, &s.history, &self.pack, &self.index, cut).unwrap()
    }

    fn packs(&self) -> Vec<std::path::PathBuf> {
        let dir = fs::read_dir(self.s.at(".left/pack")).unwrap();
        dir.flatten().map(|e| e.path()).collect()
    }
}

/// As a cut leaves a file whose name and times are there, and whose bytes are not.
fn tear(path: &Path) {
    let mtime = path.metadata().unwrap().modified().unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(0).unwrap();
    file.set_modified(mtime).unwrap();
}

fn dir() -> Node {
    Node::Dir { mode: 0o755 }
}

fn put(path: &str, node: Node) -> Op {
    Op::Place {
        path: p(path),
        node,
        staged: None,
        expect: Expect::Absent,
        loser: None,
    }
}

#[test]
fn what_is_torn_or_missing_comes_back() {
    let mut bed = Bed::new();
    bed.apply(
        vec![
            put("d", dir()),
            put("d/empty", dir()),
            put("d/link", link("there")),
        ],
        true,
    );
    let op = bed.place("d/gone", b"gone");
    let ops = vec![
        op,
        bed.place("d/torn", b"torn"),
        bed.place("stays", b"stays"),
    ];
    bed.apply(ops, true);
    let op = bed.place("unrecorded", b"not in the index yet");
    bed.apply(vec![op], false);
    let op = bed.place("lost", b"not in the index and not there");
    bed.apply(vec![op], false);
    tear(&bed.s.at("d/torn"));
    tear(&bed.s.at("unrecorded"));
    fs::remove_file(bed.s.at("lost")).unwrap();
    let done = bed.repair();
    // The stat of the torn one is not that of its record any more, and it is told by its inode.
    assert_eq!((done.count, done.failed), (2, 0));
    fs::remove_dir_all(bed.s.at("d")).unwrap();
    assert_eq!(bed.repair().count, 0, "the pack was retired");

    let mut bed = Bed::new();
    bed.apply(
        vec![
            put("d", dir()),
            put("d/empty", dir()),
            put("d/link", link("there")),
        ],
        true,
    );
    let op = bed.place("d/gone", b"gone");
    bed.apply(vec![op], true);
    fs::remove_dir_all(bed.s.at("d")).unwrap();
    let done = bed.repair();
    assert_eq!((done.count, done.failed), (4, 0));
    assert_eq!(bed.s.read("d/gone"), b"gone");
    assert!(bed.s.at("d/empty").is_dir());
    assert_eq!(
        fs::read_link(bed.s.at("d/link")).unwrap(),
        Path::new("there")
    );
    for (path, stat) in done.placed {
        if !bed.s.at(&path.to_string()).is_dir() {
            assert_eq!(stat, bed.s.stat(&path.to_string()));
        }
    }
    assert!(bed.packs().is_empty());
    assert_eq!(bed.s.all_bytes(".left/history"), Vec::<Vec<u8>>::new());
}

#[test]
fn what_users_did_stays() {
    let mut bed = Bed::new();
    let ops = vec![
        bed.place("edited", b"ours"),
        bed.place("deleted", b"deleted since"),
        bed.place("moved", b"moved away and torn"),
    ];
    bed.apply(ops, true);
    bed.s.write("edited", "a user's");
    bed.index.0.remove(&p("deleted"));
    fs::remove_file(bed.s.at("deleted")).unwrap();
    // The index has not heard of it.
    fs::rename(bed.s.at("moved"), bed.s.at("elsewhere")).unwrap();
    tear(&bed.s.at("elsewhere"));
    bed.repair();
    assert_eq!(bed.s.read("edited"), b"a user's");
    assert!(!bed.s.exists("deleted"));
    assert_eq!(bed.s.read("elsewhere"), b"moved away and torn");
}

/// A cut leaves a file empty whose times somebody set: what he did not write is not his edit.
#[test]
fn what_users_touched_is_no_edit_when_it_is_empty() {
    for recorded in [true, false] {
        let mut bed = Bed::new();
        let ops = vec![
            bed.place("touched", b"came from a peer"),
            bed.place("zeros", b"came too"),
            bed.place("written", b"came as well"),
        ];
        bed.apply(ops, recorded);
        bed.s.write("touched", "");
        bed.s.write("zeros", "\0\0\0\0");
        bed.s.write("written", "\0\0 and a user's");
        assert_eq!(bed.repair().count, 2);
        assert_eq!(bed.s.read("touched"), b"came from a peer");
        assert_eq!(bed.s.read("zeros"), b"came too");
        assert_eq!(bed.s.read("written"), b"\0\0 and a user's");
        assert_eq!(bed.s.all_bytes(".left/history"), [b"came as well".to_vec()]);
    }
}

/// A cut took back what had come, and a user went on with the older state before LEFT ran again: the
/// pack may be all that has what came.
#[test]
fn what_a_user_wrote_over_before_the_repair_is_kept() {
    let mut bed = Bed::new();
    let names = ["edited", "linked", "a folder", "dir/below", "same"];
    bed.s.mkdir("dir");
    names.iter().for_each(|name| bed.s.write(name, "older"));
    let ops = names.map(|name| bed.place(name, name.as_bytes())).to_vec();
    bed.apply(ops, true);
    let replace = |name: &str| {
        fs::remove_file(bed.s.at(name)).unwrap();
        bed.s.at(name)
    };
    fs::write(replace("edited"), "older, and a user's").unwrap();
    std::os::unix::fs::symlink("edited", replace("linked")).unwrap();
    fs::create_dir(replace("a folder")).unwrap();
    fs::remove_dir_all(bed.s.at("dir")).unwrap();
    bed.s.write("dir", "a file");
    fs::write(replace("same"), "same").unwrap();
    let done = bed.repair();
    assert_eq!((done.count, done.kept, done.failed), (0, 4, 0));
    assert_eq!(bed.s.read("edited"), b"older, and a user's");
    assert_eq!(bed.s.read("dir"), b"a file");
    let mut kept = bed.s.all_bytes(".left/history");
    kept.retain(|bytes| bytes != b"older");
    kept.sort();
    assert_eq!(
        kept,
        ["a folder", "dir/below", "edited", "linked"].map(|b| b.as_bytes().to_vec())
    );
    assert!(
        bed.packs().is_empty(),
        "what is in the history needs no pack"
    );
}

/// The index was lost with the power, or had not heard of what was placed: what is not there any more is in
/// the history, and nowhere else, as it may have been deleted elsewhere.
#[test]
fn what_the_index_knows_nothing_of_is_kept() {
    let mut bed = Bed::new();
    let names = ["gone", "stands", "torn", "replaced"];
    let ops = names.map(|name| bed.place(name, name.as_bytes())).to_vec();
    bed.apply(ops, false);
    fs::remove_file(bed.s.at("gone")).unwrap();
    tear(&bed.s.at("torn"));
    fs::remove_file(bed.s.at("replaced")).unwrap();
    bed.s.write("replaced", "a user's");
    let done = bed.repair();
    assert_eq!((done.count, done.kept, done.failed), (1, 2, 0));
    assert!(!bed.s.exists("gone"));
    assert_eq!(bed.s.read("torn"), b"torn");
    assert_eq!(bed.s.read("replaced"), b"a user's");
    let mut kept = bed.s.all_bytes(".left/history");
    kept.sort();
    assert_eq!(kept, [b"gone".to_vec(), b"replaced".to_vec()]);
}

/// A program may write and set the time back. What it wrote has no trace of ours, so it is his.
#[test]
fn what_users_wrote_under_the_old_time_is_kept() {
    let keep_time = |path: &Path, bytes: &[u8]| {
        let mtime = path.metadata().unwrap().modified().unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_len(0).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.set_modified(mtime).unwrap();
    };
    let mut bed = Bed::new();
    let ops = vec![
        bed.place("edited", b"came from a peer"),
        bed.place("heard", b"came too"),
    ];
    bed.apply(ops, true);
    let op = bed.place("early", b"came, and was not recorded yet");
    bed.apply(vec![op], false);
    for name in ["edited", "heard", "early"] {
        keep_time(&bed.s.at(name), format!("a user's {name}").as_bytes());
    }
    // The index has heard of this one.
    let stat = bed.s.stat("heard");
    bed.record(p("heard"), file(b"a user's heard"), Some(stat));
    let done = bed.repair();
    assert_eq!(bed.s.read("edited"), b"a user's edited");
    assert_eq!(bed.s.read("heard"), b"a user's heard");
    assert_eq!(bed.s.stat("heard"), stat, "not touched");
    // Nobody but the pack knows what was to stand here: both are somewhere.
    assert_eq!((done.count, done.failed), (1, 0));
    assert_eq!(bed.s.read("early"), b"came, and was not recorded yet");
    assert_eq!(done.kept, 1);
    let mut kept = bed.s.all_bytes(".left/history");
    kept.sort();
    assert_eq!(
        kept,
        [b"a user's early".to_vec(), b"came from a peer".to_vec()]
    );
}

/// A program writes in place and syncs its data only, which need not make the file's times durable: after the
/// cut the file looks as it is recorded, and what it holds is the program's.
#[test]
fn what_users_wrote_and_only_its_time_was_lost_is_kept() {
    let mut bed = Bed::new();
    let op = bed.place("f", b"came from a peer");
    bed.apply(vec![op], true);
    let file = File::options().write(true).open(bed.s.at("f")).unwrap();
    file.write_all_at(b"a user's", 0).unwrap();
    let stat = bed.s.stat("f");
    if let Some(record) = bed.index.0.get_mut(&p("f")) {
        record.stat = Some(stat);
    }
    assert_eq!(bed.repair().failed, 0);
    assert_eq!(bed.s.read("f"), b"came from a peer");
    assert_eq!(
        bed.s.all_bytes(".left/history"),
        [b"a user'sm a peer".to_vec()]
    );
}

/// What the index heard of later than the pack is for the eye to judge: peers have it, and an older
/// version in its place would look like an edit.
#[test]
fn what_the_index_heard_of_later_is_left_to_the_eye() {
    let mut bed = Bed::new();
    let op = bed.place("f", b"came from a peer");
    bed.apply(vec![op], true);
    tear(&bed.s.at("f"));
    let mut later = bed.s.stat("f");
    later.ctime.secs += 1;
    bed.record(p("f"), file(b"a user's, announced and lost"), Some(later));
    assert_eq!(bed.repair().count, 0);
    assert_eq!(bed.s.read("f"), b"");
}

/// What reached the disk in part is no version of anybody's.
#[test]
fn what_is_half_there_is_thrown_away() {
    let mut bed = Bed::new();
    let whole: Vec<u8> = (0..5000).map(|n| n as u8 | 1).collect();
    let op = bed.place("f", &whole);
    bed.apply(vec![op], false);
    let path = bed.s.at("f");
    let mtime = path.metadata().unwrap().modified().unwrap();
    let half = File::options().write(true).open(&path).unwrap();
    half.write_all_at(&[0; 4096], 512).unwrap();
    half.set_modified(mtime).unwrap();
    assert_eq!(bed.repair().count, 1);
    assert_eq!(bed.s.read("f"), whole);
    assert_eq!(bed.s.all_bytes(".left/history"), Vec::<Vec<u8>>::new());
}

/// The disk failed once: what could not be written is in the packs only, whatever it says later.
#[test]
fn after_a_failed_sync_nothing_is_retired_or_packed() {
    let mut bed = Bed::new();
    let op = bed.place("one", b"first");
    bed.apply(vec![op], true);
    bed.pack.seal();
    bed.pack.doubt();
    bed.pack.seal();
    bed.pack.retire(true);
    let packs = bed.packs();
    assert_eq!(packs.len(), 1);
    let op = bed.place("two", b"second");
    bed.apply(vec![op], true);
    assert_eq!(bed.packs(), packs);
    assert_eq!(bed.s.read("two"), b"second");
    tear(&bed.s.at("one"));
    assert_eq!(bed.repair().count, 1);
    assert_eq!(bed.s.read("one"), b"first");
    assert!(bed.packs().is_empty());
}

/// A small file system of its own, if this test may mount one.
struct Mount(std::path::PathBuf);

impl Mount {
    fn new(at: &Path, size: &str) -> Option<Mount> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "left-pack"]);
        let mounted = mount.arg(at).stderr(Stdio::null()).status();
        if !mounted.is_ok_and(|s| s.success()) {
            eprintln!("skipped: nothing can be mounted here");
            return None;
        }
        Some(Mount(at.to_path_buf()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Where there is no room for a content twice it is synced in its place.
#[test]
fn a_full_disk_packs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::new(dir.path(), "500k") else {
        return;
    };
    let mut bed = Bed::over(share_in(dir.path()));
    for n in 0..3 {
        let bytes = vec![n; 90_000];
        let op = bed.place(&n.to_string(), &bytes);
        bed.apply(vec![op], true);
        assert_eq!(bed.s.read(&n.to_string()), bytes);
    }
    let packed: u64 = bed
        .packs()
        .iter()
        .map(|p| p.metadata().unwrap().len())
        .sum();
    assert!((180_000..200_000).contains(&packed), "{packed}");
    for n in 0..3 {
        tear(&bed.s.at(&n.to_string()));
    }
    // What had been synced is not in the pack; the eye finds that.
    fs::remove_file(bed.s.at("2")).unwrap();
    assert_eq!(bed.repair().count, 2);
}

/// A pack on another disk is none: that may be there, or keep its order, when ours is not.
#[test]
fn packs_on_another_disk_are_not_used() {
    let s = share();
    fs::create_dir_all(s.at(".left/pack")).unwrap();
    let Some(_mount) = Mount::new(&s.at(".left/pack"), "1m") else {
        return;
    };
    let mut bed = Bed::over(s);
    let op = bed.place("f", b"bytes");
    bed.apply(vec![op], true);
    assert_eq!(bed.s.read("f"), b"bytes");
    assert!(bed.packs().is_empty());
}

/// A version that had come before it, and not reached the disk by itself, is in the history afterwards.
#[test]
fn what_was_replaced_before_the_cut_is_kept() {
    let mut bed = Bed::new();
    let op = bed.place("f", b"first");
    bed.apply(vec![op], true);
    let op = bed.place("f", b"second");
    bed.apply(vec![op], true);
    // The journal has the name of the first, and not the swap.
    fs::rename(bed.kept("f"), bed.s.at("f")).unwrap();
    let mut record = bed.index.0[&p("f")].clone();
    if let Some(stat) = &mut record.stat {
        stat.ctime = now();
    }
    bed.index.0.insert(p("f"), record);
    assert_eq!(bed.repair().failed, 0);
    assert_eq!(bed.s.read("f"), b"second");
    assert_eq!(bed.s.all_bytes(".left/history"), [b"first".to_vec()]);
}

/// Neither the old nor the new one is lost, whichever of them the disk has, or if it has neither whole.
#[test]
fn a_swap_that_was_lost_is_done_again() {
    for torn in [false, true] {
        let mut bed = Bed::new();
        bed.s.write("f", "a user's old one");
        let op = bed.place("f", b"the new one");
        bed.apply(vec![op], true);
        if torn {
            tear(&bed.s.at("f"));
        } else {
            // The user's file had its old times before the swap.
            let mut record = bed.index.0[&p("f")].clone();
            fs::rename(bed.kept("f"), bed.s.at("f")).unwrap();
            if let Some(stat) = &mut record.stat {
                stat.ctime = now();
            }
            bed.index.0.insert(p("f"), record);
        }
        assert_eq!(bed.repair().failed, 0);
        assert_eq!(bed.s.read("f"), b"the new one");
        assert_eq!(
            bed.s.all_bytes(".left/history"),
            [b"a user's old one".to_vec()]
        );
    }
}

/// What is left of a file of ours in the history is nobody's version.
#[test]
fn no_remnant_stays_in_the_history() {
    let mut bed = Bed::new();
    bed.s.write("f", "old");
    let op = bed.place("f", b"the new one");
    bed.apply(vec![op], false);
    // As if the cut had come when it was in its slot.
    let slot = bed.kept("f");
    fs::rename(&slot, bed.s.at("old")).unwrap();
    fs::rename(bed.s.at("f"), &slot).unwrap();
    fs::rename(bed.s.at("old"), bed.s.at("f")).unwrap();
    tear(&slot);
    bed.repair();
    assert_eq!(bed.s.read("f"), b"old");
    assert!(!slot.exists());
}

/// What is damaged is passed over; all else comes back, and the pack stays for the next time.
#[test]
fn a_damaged_content_is_none() {
    let mut bed = Bed::new();
    let ops = vec![
        bed.place("one", b"first content"),
        bed.place("two", b"second content"),
    ];
    bed.apply(ops, true);
    let packs = bed.packs();
    let bytes = fs::read(&packs[0]).unwrap();
    let at = bytes.windows(5).position(|w| w == b"first").unwrap();
    let damaged = File::options().write(true).open(&packs[0]).unwrap();
    damaged.write_all_at(b"F", at as u64).unwrap();
    for name in ["one", "two"] {
        fs::remove_file(bed.s.at(name)).unwrap();
    }
    let done = bed.repair();
    assert_eq!((done.count, done.failed), (1, 1));
    assert!(!bed.s.exists("one"));
    assert_eq!(bed.s.read("two"), b"second content");
    assert!(bed.packs().contains(&packs[0]));
    // Peers have healed it.
    bed.pack.seal();
    bed.pack.retire(true);
    assert!(bed.packs().is_empty());
}

#[test]
fn a_checkpoint_retires_what_was_sealed_before_it() {
    let mut bed = Bed::new();
    assert!(!bed.pack.wants_checkpoint());
    let op = bed.place("one", b"1");
    bed.apply(vec![op], true);
    bed.pack.seal();
    let op = bed.place("two", b"2");
    bed.apply(vec![op], true);
    assert_eq!(bed.packs().len(), 2);
    bed.pack.retire(true);
    assert_eq!(bed.packs().len(), 1);
    // What an earlier run left is not known to be on the disk.
    bed.pack = Pack::open(&bed.s.root).unwrap();
    assert!(bed.pack.wants_checkpoint());
    bed.pack.seal();
    bed.pack.retire(true);
    assert!(!bed.pack.wants_checkpoint());
    assert!(bed.packs().is_empty());
}

/// Modes that no new file can have, and contents that are held in memory.
/// Nobody would find there after a cut what is written to a pack without a name.
#[test]
fn a_pack_that_was_removed_is_noticed() {
    let mut bed = Bed::new();
    for whole in [true, false] {
        let op = bed.place("before", b"before");
        bed.apply(vec![op], true);
        assert_eq!(bed.packs().len(), 1);
        assert!(!bed.pack.wants_checkpoint());
        match whole {
            true => fs::remove_dir_all(bed.s.at(".left/pack")).unwrap(),
            false => fs::remove_file(&bed.packs()[0]).unwrap(),
        }
        // Synced by itself; what the pack told of waits for nothing else any more.
        let op = bed.place("meanwhile", b"meanwhile");
        bed.apply(vec![op], true);
        assert!(bed.pack.wants_checkpoint());
        assert!(bed.packs().is_empty());
        bed.pack.seal();
        bed.pack.retire(true);
        assert!(!bed.pack.wants_checkpoint());
        let name = format!("after {whole}");
        let op = bed.place(&name, b"after");
        bed.apply(vec![op], true);
        assert_eq!(bed.packs().len(), 1);
        tear(&bed.s.at(&name));
        assert_eq!(bed.repair().count, 1);
        assert_eq!(bed.s.read(&name), b"after");
    }
}

#[test]
fn held_contents_become_files() {
    let mut bed = Bed::new();
    for mode in [0o444, 0o666, 0o4711, 0] {
        let name = format!("{mode:o}");
        let staged = bed.s.stage.unique_name();
        bed.s.stage.put(&staged, b"held").unwrap();
        let Node::File {
            mtime,
            size,
            content,
            ..
        } = file(b"held")
        else {
            unreachable!()
        };
        let node = Node::File {
            mode,
            mtime,
            size,
            content,
        };
        let op = Op::Place {
            path: p(&name),
            node,
            staged: Some(staged),
            expect: Expect::Absent,
            loser: None,
        };
        bed.apply(vec![op], true);
        let stat = bed.s.stat(&name);
        assert_eq!((stat.mode, stat.mtime, stat.size), (mode, mtime, 4));
        assert_eq!(bed.index.0[&p(&name)].stat, Some(stat));
    }
    assert_eq!(bed.s.stage.names().unwrap(), Vec::<String>::new());
}

/// What finds no room in memory, and nobody makes any, is a file in the stage; it is placed all the same.
#[test]
fn contents_beyond_the_room_in_memory_become_files() {
    const COUNT: usize = 50;
    let mut bed = Bed::new();
    let began = std::time::Instant::now();
    let mut ops = Vec::new();
    for n in 0..COUNT {
        let bytes = vec![n as u8; 100_000];
        let staged = bed.s.stage.unique_name();
        bed.s.stage.put(&staged, &bytes).unwrap();
        ops.push(Op::Place {
            path: p(&n.to_string()),
            node: file(&bytes),
            staged: Some(staged),
            expect: Expect::Absent,
            loser: None,
        });
    }
    // Only the first of them waited.
    assert!(began.elapsed() < Duration::from_secs(2));
    let held = COUNT - bed.s.stage.names().unwrap().len();
    assert_eq!(held, (4 << 20) / 100_000);
    bed.apply(ops, true);
    for n in 0..COUNT {
        assert_eq!(bed.s.read(&n.to_string()), vec![n as u8; 100_000]);
    }
    assert_eq!(bed.s.stage.names().unwrap(), Vec::<String>::new());
}

/// What peers told of the files has to be on the disk before the folder shows them.
#[test]
fn what_goes_before_a_batch_is_done_before_any_name_changes() {
    let b = Bed::new();
    let s = &b.s;
    fs::write(s.at("old"), "old").unwrap();
    let expect = s.expect("old");
    let batch = |before: Before<'_>| {
        let new = b.place("new", b"new");
        let over = s.place("old", b"newer", expect, None);
        let ops: Vec<(OpId, Op)> = (0..).map(OpId).zip([new, over]).collect();
        let done = apply_packed(&s.root, &s.stage, &s.history, &b.pack, Some(before), &ops);
        done.into_iter().map(|(_, d)| d).collect::<Vec<_>>()
    };
    let untouched = || !s.at("new").exists() && fs::read(s.at("old")).unwrap() == b"old";
    let asked = AtomicBool::new(false);
    let done = batch(&|| {
        asked.store(untouched(), Ordering::Relaxed);
        Err(io::Error::other("index.db-wal can not be synced"))
    });
    assert!(asked.load(Ordering::Relaxed) && untouched());
    for done in done {
        assert!(matches!(done, Err(OpError::Io(why)) if why.contains("index.db-wal")));
    }
    let done = batch(&|| {
        // Also when all else is ready long before.
        thread::sleep(Duration::from_millis(50));
        asked.store(untouched(), Ordering::Relaxed);
        Ok(())
    });
    assert!(asked.load(Ordering::Relaxed));
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    assert_eq!(fs::read(s.at("old")).unwrap(), b"newer");
}
