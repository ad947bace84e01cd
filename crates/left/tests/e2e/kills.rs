//! The kill matrix: a process dies by SIGKILL at every named point of a change's way, on either side,
//! for every kind of change; it is started again, and both folders are equal and nothing is lost.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use left::crash::POINTS;

use crate::common::{Device, World, bytes, compare, until, write};

/// Who dies: `a`, whose user edits, or `b`, which brings its folder up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Sender,
    Receiver,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Edit {
    New,
    Replace,
    Delete,
    Rename,
    Swap,
    Conflict,
}

use Edit::{Conflict, Delete, New, Rename, Replace, Swap};
use Victim::{Receiver, Sender};

const EDITS: [Edit; 6] = [New, Replace, Delete, Rename, Swap, Conflict];

/// Where each point is surely passed. The whole matrix tries all the others too.
const SURE: &[(&str, Victim, Edit)] = &[
    ("index-opened", Sender, Conflict),
    ("index-opened", Receiver, Replace),
    ("seen", Sender, New),
    ("seen", Sender, Rename),
    ("index-written", Sender, New),
    ("index-written", Receiver, Replace),
    ("index-committed", Sender, Delete),
    // Between the end of a folder and that of what was in it.
    ("index-committed", Sender, Swap),
    ("index-committed", Receiver, Rename),
    ("announcing", Sender, Replace),
    ("announced", Sender, Rename),
    ("asked", Sender, New),
    ("serving", Sender, Replace),
    ("heard", Receiver, New),
    ("staged-part", Receiver, New),
    ("staged", Receiver, Replace),
    ("pack-written", Receiver, New),
    ("pack-synced", Receiver, New),
    ("files-synced", Receiver, New),
    ("creating", Receiver, New),
    ("created", Receiver, New),
    ("slot-taken", Receiver, Replace),
    ("swapped", Receiver, Replace),
    ("copied", Sender, Conflict),
    ("replaced", Receiver, Replace),
    ("removing", Receiver, Delete),
    ("removed", Receiver, Delete),
    ("moved", Receiver, Rename),
    ("meta-set", Receiver, Replace),
    ("folders-unsynced", Receiver, Delete),
    ("folders-synced", Receiver, Replace),
    ("history-synced", Receiver, Delete),
    ("applied", Receiver, Conflict),
    // At the start: the last run left a pack.
    ("checkpointing", Receiver, New),
    ("pack-retiring", Receiver, New),
];

/// Passed only after a power cut: see `powercut`.
const ELSEWHERE: &[&str] = &["record-written", "repairing", "repaired"];

const SMALL: usize = 3000;
const BIG: usize = 700_000;

/// What one case is about: a folder of its own in the share, and every content it ever had.
struct Case {
    name: String,
    /// Whatever stands in the folder is one of these.
    known: HashSet<blake3::Hash>,
    /// These must be found at the end.
    must: Vec<(String, blake3::Hash)>,
}

impl Case {
    fn new(name: String) -> Self {
        let known = HashSet::from([blake3::hash(b"")]);
        let must = Vec::new();
        Self { name, known, must }
    }

    /// Bytes that no other case and no other file has. `keep`: they must not be lost.
    fn content(&mut self, what: &str, size: usize, keep: bool) -> Vec<u8> {
        let content = bytes(&format!("{} {what}", self.name), 0, size);
        let hash = blake3::hash(&content);
        self.known.insert(hash);
        if keep {
            self.must.push((what.to_owned(), hash));
        }
        content
    }

    /// What stands there before the edit.
    fn base(&mut self, share: &Path, edit: Edit) {
        let dir = share.join(&self.name);
        // Of a file that both users overwrite themselves nobody is to keep anything.
        let keep = edit != Conflict;
        write(&dir.join("small"), self.content("small", SMALL, keep));
        write(&dir.join("big"), self.content("big", BIG, keep));
        write(&dir.join("sub/one"), self.content("one", SMALL, keep));
        write(&dir.join("sub/two"), self.content("two", BIG, true));
    }

    /// What the user of `a` does; in a conflict what the user of `b` does is the same with other bytes.
    fn edit(&mut self, share: &Path, edit: Edit, who: &str) {
        let dir = share.join(&self.name);
        let mut put = |name: &str, size| {
            let content = self.content(&format!("{name} of {who}"), size, true);
            let new = share.parent().unwrap().join(format!("new-{who}"));
            write(&new, content);
            fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
            fs::rename(new, dir.join(name)).unwrap();
        };
        match edit {
            New => {
                put("new", SMALL);
                put("new dir/big", 3 * BIG);
                put("new dir/small", SMALL);
                fs::create_dir(dir.join("empty")).unwrap();
                symlink("small", dir.join("link")).unwrap();
            }
            Replace => {
                put("small", SMALL + 1);
                put("big", BIG + 1);
                let mode = fs::Permissions::from_mode(0o600);
                fs::set_permissions(dir.join("sub/two"), mode).unwrap();
            }
            Delete => {
                fs::remove_file(dir.join("small")).unwrap();
                fs::remove_file(dir.join("big")).unwrap();
                fs::remove_dir_all(dir.join("sub")).unwrap();
            }
            Rename => {
                fs::rename(dir.join("small"), dir.join("renamed")).unwrap();
                fs::create_dir(dir.join("new dir")).unwrap();
                fs::rename(dir.join("big"), dir.join("new dir/big")).unwrap();
                fs::rename(dir.join("sub"), dir.join("sub 2")).unwrap();
            }
            Swap => {
                // A folder becomes a file, a file a folder, a file a link.
                fs::remove_dir_all(dir.join("sub")).unwrap();
                put("sub", SMALL);
                fs::remove_file(dir.join("small")).unwrap();
                put("small/inner", SMALL);
                fs::remove_file(dir.join("big")).unwrap();
                symlink("sub", dir.join("big")).unwrap();
            }
            Conflict => {
                put("small", SMALL);
                put("big", BIG);
                match who {
                    "a" => fs::remove_file(dir.join("sub/one")).unwrap(),
                    _ => put("sub/one", SMALL),
                }
            }
        }
    }

    /// Every file of the folder is one that somebody wrote, whole.
    fn is_whole(&self, share: &Path) {
        for (path, hash) in files(&share.join(&self.name)) {
            let whole = self.known.contains(&hash);
            assert!(whole, "{} is torn", path.display());
        }
    }

    fn is_all_there(&self, a: &Device, b: &Device) {
        let mut found = HashSet::new();
        for device in [a, b] {
            let history = fs::read_dir(device.share.join(".left/history"));
            let batches = history.into_iter().flatten().flatten().map(|e| e.path());
            for place in batches.chain([device.share.clone()]) {
                found.extend(files(&place.join(&self.name)).into_iter().map(|(_, h)| h));
            }
        }
        for (what, hash) in &self.must {
            assert!(found.contains(hash), "`{what}` is lost");
        }
    }
}

/// The files below a folder, if it is there.
fn files(dir: &Path) -> Vec<(PathBuf, blake3::Hash)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            let hash = blake3::hash(&fs::read(entry.path()).unwrap());
            found.push((entry.path(), hash));
        }
    }
    found
}

/// Two devices, for one case after the other.
struct Bed {
    a: Device,
    b: Device,
    next: u32,
    _world: World,
}

impl Bed {
    fn new() -> Self {
        let world = World::new();
        let (mut a, mut b) = (world.device("a"), world.device("b"));
        for device in [&mut a, &mut b] {
            device.how.crash = Some(device.share.with_extension("crash"));
        }
        let ticket = a.share();
        b.join(&ticket);
        // So that the deletion of a case's files is no alarm.
        for n in 0..40 {
            write(&a.share.join(format!("stays/{n}")), format!("{n}"));
        }
        settle(&a, &b);
        Self {
            a,
            b,
            next: 0,
            _world: world,
        }
    }

    fn victim(&mut self, who: Victim) -> &mut Device {
        match who {
            Sender => &mut self.a,
            Receiver => &mut self.b,
        }
    }

    /// One case; whether the point was reached.
    fn case(&mut self, point: &str, n: u32, who: Victim, edit: Edit) -> bool {
        self.next += 1;
        let mut case = Case::new(format!("case {}", self.next));
        case.base(&self.a.share, edit);
        settle(&self.a, &self.b);
        let starting = matches!(point, "index-opened" | "checkpointing" | "pack-retiring");
        if edit == Conflict {
            let files = self.a.status()["files"].as_u64().unwrap();
            self.a.stop();
            self.b.stop();
            case.edit(&self.a.share, edit, "a");
            case.edit(&self.b.share, edit, "b");
            // An edit is as old as the first look at it. The later one wins, so `a` has the copy to make.
            self.a.restart();
            let a = &self.a;
            until("the deletion is seen", || a.status()["files"] == files - 1);
            let victim = match who {
                Sender => {
                    self.a.stop();
                    self.b.restart();
                    &mut self.a
                }
                Receiver => &mut self.b,
            };
            victim.arm(point, n, false);
            victim.start(&["up"]);
        } else if starting {
            self.victim(who).stop();
            case.edit(&self.a.share, edit, "a");
            self.victim(who).arm(point, n, false);
            self.victim(who).start(&["up"]);
        } else {
            self.victim(who).arm(point, n, false);
            case.edit(&self.a.share, edit, "a");
        }
        let died = ends(self.victim(who));
        self.victim(who).disarm();
        if died {
            case.is_whole(&self.victim(who).share);
            self.victim(who).restart();
        }
        settle(&self.a, &self.b);
        if let Err(why) = compare(
            &self.a.share.join(&case.name),
            &self.b.share.join(&case.name),
        ) {
            panic!("{why}");
        }
        case.is_whole(&self.a.share);
        case.is_all_there(&self.a, &self.b);
        died
    }
}

fn settle(a: &Device, b: &Device) {
    for device in [a, b, a, b] {
        device.wait();
    }
}

/// Waits until the device has died at its point, or has all, or it is clear that it never will.
fn ends(victim: &mut Device) -> bool {
    let mut in_sync = false;
    until("the victim is in sync or dead", || {
        if let Some(status) = victim.ended() {
            assert_eq!(status.signal(), Some(9), "{status}: {}", victim.log());
            return true;
        }
        if in_sync {
            return true;
        }
        // Fails when the process dies meanwhile; waits for one that is not up yet, also when that is dead.
        in_sync = victim.run(&["wait", "--timeout", "1s"]).status.success();
        false
    });
    victim.ended().is_some()
}

#[test]
fn at_every_point_once() {
    let named: HashSet<_> = SURE.iter().map(|s| s.0).collect();
    for point in POINTS.iter().filter(|p| !ELSEWHERE.contains(p)) {
        assert!(named.contains(point), "{point} is tried nowhere");
    }
    let mut bed = Bed::new();
    for (point, who, edit) in SURE {
        let begun = Instant::now();
        let died = bed.case(point, 1, *who, *edit);
        println!("{point}, {who:?}, {edit:?}: {:?}", begun.elapsed());
        assert!(died, "{point} is not passed by {who:?} at {edit:?}");
    }
}

/// Each point × passage × victim × edit. Takes some minutes; run it by name.
#[test]
#[ignore = "minutes"]
fn the_whole_matrix() {
    let mut bed = Bed::new();
    let mut table = Vec::new();
    for point in POINTS.iter().filter(|p| !ELSEWHERE.contains(p)) {
        let mut hits = 0;
        for (who, edit) in [Sender, Receiver]
            .iter()
            .flat_map(|w| EDITS.map(|e| (*w, e)))
        {
            for n in [1, 2, 4] {
                let died = bed.case(point, n, who, edit);
                println!("{point} {n}, {who:?}, {edit:?}: {died}");
                hits += u32::from(died);
                if !died {
                    break;
                }
            }
        }
        assert!(hits > 0, "{point} was never passed");
        table.push((point, hits));
    }
    let all: u32 = table.iter().map(|t| t.1).sum();
    println!("{all} kills: {table:?}");
}

/// Whoever is killed while it joins, or while it admits somebody, goes on where it was.
#[test]
fn while_joining() {
    for (n, who) in [1, 2, 3]
        .into_iter()
        .flat_map(|n| [(n, Sender), (n, Receiver)])
    {
        let world = World::new();
        let (mut a, mut b) = (world.device("a"), world.device("b"));
        for device in [&mut a, &mut b] {
            device.how.crash = Some(device.share.with_extension("crash"));
        }
        write(&a.share.join("of a"), "a");
        write(&b.share.join("of b"), "b");
        let ticket = a.share();
        let victim = match who {
            Sender => &mut a,
            Receiver => &mut b,
        };
        victim.arm("record-written", n, false);
        let dir = b.share.clone();
        b.start(&["join".as_ref(), ticket.as_ref(), dir.as_os_str()]);
        let victim = match who {
            Sender => &mut a,
            Receiver => &mut b,
        };
        let died = ends_joining(victim);
        victim.disarm();
        println!("{n}, {who:?}: {died}");
        if died && who == Sender {
            a.restart();
        }
        if b.ended().is_some() {
            b.kill9();
            b.join(&ticket);
        }
        settle(&a, &b);
        assert!(a.share.join("of b").exists() && b.share.join("of a").exists());
    }
}

/// Like [`ends`], for a process whose share may not be up yet.
fn ends_joining(victim: &mut Device) -> bool {
    let end = Instant::now() + std::time::Duration::from_secs(3);
    while Instant::now() < end {
        if let Some(status) = victim.ended() {
            assert_eq!(status.signal(), Some(9), "{status}: {}", victim.log());
            return true;
        }
        let wait = victim.run(&["wait", "--timeout", "1s"]);
        let peers = victim.status()["peers"].as_array().map_or(0, Vec::len);
        if wait.status.success() && peers > 0 {
            return victim.ended().is_some();
        }
    }
    victim.ended().is_some()
}
