//! The power is cut while a folder is brought up to date: what the disk holds then is mounted and
//! started. Nothing torn stands there or reaches anybody, nothing is lost, and nothing that was
//! announced is taken back.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use left::disk::{Found, Root, hash_file};
use left::store::IndexDb;
use left_core::index::{Cursor, Index};
use left_core::version::DeviceId;

use crate::common::{Device, Image, World, assert_tree, bytes, settle, snapshot, until, write};

/// Where the power is cut while the process stands still; else at a random moment.
const AT: &[&str] = &[
    "staged-part",
    "swapped",
    "folders-unsynced",
    "applied",
    "created",
    "files-synced",
    "removed",
    "index-written",
    "folders-synced",
    "moved",
    "index-committed",
    "slot-taken",
    "announcing",
];

/// Everything that users wrote.
#[derive(Default)]
struct Log {
    known: HashSet<blake3::Hash>,
    /// What must be found: written and durable somewhere where no user destroyed it.
    must: Vec<(String, blake3::Hash)>,
}

impl Log {
    fn content(&mut self, name: &str, size: usize, must: bool) -> Vec<u8> {
        let content = bytes(name, 0, size);
        let hash = blake3::hash(&content);
        self.known.insert(hash);
        if must {
            self.must.push((name.to_owned(), hash));
        }
        content
    }
}

/// `a` lies on the disk whose power is cut; `b` is another machine.
struct Bed {
    a: Device,
    b: Device,
    log: Log,
    image: Image,
    world: World,
}

impl Bed {
    /// `rounds`: for how many there is to be room.
    fn new(rounds: u32) -> Option<Self> {
        let world = World::new();
        let (mut a, mut b) = (world.device("a"), world.device("b"));
        let room = 100 + u64::from(rounds) * 8;
        let Some(image) = Image::mount(&world.path().join("image"), room) else {
            eprintln!("skipped: no file system can be mounted here");
            return None;
        };
        a.share = image.path().join("share");
        a.home = image.path().join("home");
        fs::create_dir(&a.share).unwrap();
        a.how.crash = Some(world.path().join("a.crash"));
        for n in 0..30 {
            write(&b.share.join(format!("stays/{n}")), format!("stays {n}"));
        }
        let ticket = a.share();
        b.join(&ticket);
        let mut log = Log::default();
        for n in 0..30 {
            log.known
                .insert(blake3::hash(format!("stays {n}").as_bytes()));
        }
        settle(&[&a, &b]);
        Some(Self {
            a,
            b,
            log,
            image,
            world,
        })
    }

    /// What the user of `b` does in one round. All of the round before is on both by now.
    fn edit(&mut self, round: u32) {
        let dir = self.b.share.join("work");
        let new = self.world.path().join("new");
        let mut put = |name: &str, size: usize| {
            let what = format!("{name} {round}");
            fs::write(&new, self.log.content(&what, size, true)).unwrap();
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::rename(&new, path).unwrap();
        };
        // Replaced in every round, what was there before goes to the history of `a`.
        for n in 0..6 {
            put(&format!("small {n}"), 4000 + n);
        }
        put("big", 3_000_000);
        put("deep/er/small", 5000);
        // New in this round; those of the last one are renamed, of the one before deleted.
        for n in 0..6 {
            put(&format!("round {round}/{n}"), 300 + n * 50_000);
        }
        let at = |round: u32| dir.join(format!("round {round}"));
        if round >= 1 {
            fs::rename(at(round - 1), dir.join(format!("old {}", round - 1))).unwrap();
        }
        if round >= 2 {
            fs::remove_dir_all(dir.join(format!("old {}", round - 2))).unwrap();
        }
    }

    /// A program on `a` writes a file and has it made durable.
    fn edit_here(&mut self, round: u32) {
        let path = self.a.share.join(format!("of a {round}"));
        let content = self.log.content(&format!("a {round}"), 100_000, true);
        let aside = self.image.path().join("aside");
        let mut file = File::create(&aside).unwrap();
        file.write_all(&content).unwrap();
        file.sync_all().unwrap();
        fs::rename(aside, path).unwrap();
        File::open(&self.a.share).unwrap().sync_all().unwrap();
    }

    fn round(&mut self, round: u32, at: Option<&str>) {
        if let Some(point) = at {
            self.a.arm(point, 1 + round % 3, true);
        }
        self.edit(round);
        self.edit_here(round);
        match at {
            Some(_) => {
                let (pid, b) = (self.a.pid(), &self.b);
                let mut tries = 0;
                until("the process stands still", || {
                    tries += 1;
                    // A point that is passed less often than asked for.
                    is_stopped(pid) || (tries > 150 && b.state() == "synced")
                });
            }
            None => {
                let random = bytes(&format!("moment {round}"), 0, 2);
                let ms = u64::from(u16::from_le_bytes([random[0], random[1]])) % 700;
                thread::sleep(Duration::from_millis(ms));
            }
        }
        let pid = self.a.pid();
        self.image.cut(|| kill(pid));
        self.a.kill9();
        self.a.disarm();
        let data = ["ordered", "writeback"][round as usize / 2 % 2];
        self.image.restart(data);
        self.is_whole(&self.a.share, "right after the cut");
        self.nothing_is_taken_back();
        self.a.restart();
        self.b.restart();
        settle(&[&self.a, &self.b]);
        self.is_whole(&self.a.share, "a");
        self.is_whole(&self.a.share.join(".left/history"), "the history of a");
        self.is_whole(&self.b.share, "b");
        self.is_whole(&self.b.share.join(".left/history"), "the history of b");
        self.is_all_there();
    }

    /// No file is anything but what somebody wrote, whole.
    fn is_whole(&self, dir: &Path, what: &str) {
        for (path, hash) in files(dir) {
            // Noted by the history itself.
            let own = path.file_name().is_some_and(|n| n == "examined");
            let known = self.log.known.contains(&hash) || own;
            assert!(known, "{what}: {} is torn", path.display());
        }
    }

    fn is_all_there(&self) {
        let mut found = HashSet::new();
        for device in [&self.a, &self.b] {
            for dir in [device.share.clone(), device.share.join(".left/history")] {
                found.extend(files(&dir).into_iter().map(|(_, hash)| hash));
            }
        }
        for (what, hash) in &self.log.must {
            assert!(found.contains(hash), "`{what}` is lost");
        }
    }

    /// What `a` had announced, it still has in its index; and what its index says of a file that looks
    /// as it did then, that file holds.
    fn nothing_is_taken_back(&mut self) {
        let id = |device: &Device| DeviceId::parse(device.ok(&["id"]).trim()).unwrap();
        self.b.stop();
        let theirs = self.b.share.join(".left/index.db");
        let (theirs, _) = IndexDb::open(&theirs, id(&self.b)).unwrap();
        let heard = theirs.cursor(id(&self.a)).unwrap();

        let own = self.a.share.join(".left");
        let copy = self.world.path().join("index copy");
        fs::create_dir_all(&copy).unwrap();
        for name in ["index.db", "index.db-wal"] {
            fs::copy(own.join(name), copy.join(name)).unwrap();
        }
        let (ours, opened) = IndexDb::open(&copy.join("index.db"), id(&self.a)).unwrap();
        assert_eq!(opened.rebuilt, None);
        let told = |life: &Cursor| life.epoch == heard.epoch && life.seq >= heard.seq;
        let former = ours.former();
        assert!(
            former.iter().any(told),
            "{heard:?} was taken back: {former:?}"
        );

        let root = Root::open(&self.a.share).unwrap();
        for (_, path, record) in ours.changes_since(0, 100_000).unwrap() {
            let (Some(content), Some(stat)) = (record.entry.node.content(), record.stat) else {
                continue;
            };
            if matches!(root.look(&path), Ok(Some(Found::File(now, _))) if now == stat) {
                let found = hash_file(&root, &path, &stat, &mut |_| ControlFlow::Continue(()));
                assert_eq!(found.unwrap(), content, "{path}");
            }
        }
        drop(ours);
        fs::remove_dir_all(copy).unwrap();
    }
}

/// The regular files below a folder but for `.left`.
fn files(dir: &Path) -> Vec<(PathBuf, blake3::Hash)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && entry.file_name() != ".left" {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            let hash = blake3::hash(&fs::read(entry.path()).unwrap());
            found.push((entry.path(), hash));
        }
    }
    found
}

fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().trim().starts_with('T')
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn rounds(count: u32) {
    let Some(mut bed) = Bed::new(count) else {
        return;
    };
    for round in 0..count {
        let at = (round % 2 == 0).then(|| AT[round as usize / 2 % AT.len()]);
        println!("round {round}, at {}", at.unwrap_or("a random moment"));
        bed.round(round, at);
    }
}

/// What users of `a` write is not made durable by anybody, is announced, and taken back by the cut: it
/// comes back from `b`, which never hears of the torn state.
#[test]
fn announced_edits_come_back() {
    let Some(mut bed) = Bed::new(8) else {
        return;
    };
    let dir = bed.a.share.join("own");
    for round in 0..4 {
        let mut put = |name: &str, size: usize| {
            let content = bed.log.content(&format!("{name} {round}"), size, true);
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            (path, content)
        };
        // Written over in place, moved over, new in a new folder, and one that is cut into segments.
        let (path, content) = put("over", 100_000 + 1000 * round);
        fs::write(path, content).unwrap();
        let (path, content) = put("moved over", 3000 + round);
        let aside = bed.image.path().join("aside");
        fs::write(&aside, content).unwrap();
        fs::rename(aside, path).unwrap();
        let (path, content) = put(&format!("new {round}/file"), 30_000);
        fs::write(path, content).unwrap();
        let (path, content) = put("big", 5_000_000 + 10_000 * round);
        fs::write(path, content).unwrap();
        settle(&[&bed.a, &bed.b]);
        let before = snapshot(&bed.b.share);
        let pid = bed.a.pid();
        bed.image.cut(|| kill(pid));
        bed.a.kill9();
        bed.image.restart(["ordered", "writeback"][round % 2]);
        bed.a.restart();
        settle(&[&bed.a, &bed.b]);
        assert_tree(&before, &bed.b.share);
        bed.is_whole(&bed.b.share.join(".left/history"), "the history of b");
        bed.is_all_there();
    }
}

#[test]
fn a_few_cuts() {
    rounds(6);
}

/// `LEFT_CUTS` says how many, else 60.
#[test]
#[ignore = "minutes"]
fn many_cuts() {
    let count = std::env::var("LEFT_CUTS").ok().and_then(|n| n.parse().ok());
    rounds(count.unwrap_or(60));
}
