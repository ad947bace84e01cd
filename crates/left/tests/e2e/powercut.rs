//! The power is cut while a folder is brought up to date: what the disk holds then is mounted and
//! started, first with no peer in reach. Then nothing torn stands there, and all that the index says is
//! there; nothing torn reaches anybody, nothing is lost, and nothing that was announced is taken back.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use left::disk::{Found, Root, hash_file};
use left::store::IndexDb;
use left_core::entry::{Kind, Record};
use left_core::index::{Cursor, Index};
use left_core::path::RelPath;
use left_core::version::DeviceId;
use serde_json::Value;

use crate::common::{Device, Image, World, assert_tree, bytes, settle, snapshot, until, write};

/// Where the power is cut while the process stands still; else at a random moment.
const AT: &[&str] = &[
    "staged-part",
    "swapped",
    "folders-unsynced",
    "applied",
    "created",
    "pack-written",
    "pack-synced",
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
        self.comes_back_alone();
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

    /// `a` starts while nobody else can be reached, and ends again.
    fn comes_back_alone(&mut self) {
        self.nothing_is_taken_back();
        assert_eq!(self.faults_alone(), Vec::<String>::new());
    }

    /// What is not as it should be after `a` was started alone.
    fn faults_alone(&mut self) -> Vec<String> {
        self.a.restart();
        let a = &self.a;
        until("the index can be asked", || {
            a.status()["files"].as_u64().is_some_and(|n| n > 0)
        });
        self.a.stop();
        self.faults()
    }

    /// `a` dies at a point of its start, if it comes there.
    fn dies_at(&mut self, point: &str) {
        self.a.arm(point, 1, false);
        self.a.start(&["up"]);
        let a = &mut self.a;
        until("it has died or is up", || {
            // It may die while it is asked.
            let status = a.run(&["status", "--json"]).stdout;
            let status: Value = serde_json::from_slice(&status).unwrap_or_default();
            let files = status["shares"][0]["files"].as_u64();
            a.ended().is_some() || files.is_some_and(|n| n > 0)
        });
        println!("dies at {point}: {}", a.ended().is_some());
        self.a.kill9();
        self.a.disarm();
    }

    /// The power is cut once more at a point of the start after a cut, if it comes there.
    fn is_cut_at(&mut self, point: &str, data: &str) {
        self.a.arm(point, 1, true);
        self.a.start(&["up"]);
        let a = &self.a;
        let pid = a.pid();
        until("it stands still or is up", || {
            if is_stopped(pid) {
                return true;
            }
            // It may come to stand still while it is asked.
            let events = a.events("share_started");
            !events.is_empty()
        });
        println!("cut at {point}: {}", is_stopped(pid));
        self.image.cut(|| kill(pid));
        self.a.kill9();
        self.a.disarm();
        self.image.restart(data);
    }

    /// What `a` had announced, it still has in its index.
    fn nothing_is_taken_back(&mut self) {
        self.b.stop();
        let theirs = self.b.share.join(".left/index.db");
        let (theirs, _) = IndexDb::open(&theirs, id(&self.b)).unwrap();
        let heard = theirs.cursor(id(&self.a)).unwrap();
        self.with_index(|ours| {
            let told = |life: &Cursor| life.epoch == heard.epoch && life.seq >= heard.seq;
            let former = ours.former();
            assert!(
                former.iter().any(told),
                "{heard:?} was taken back: {former:?}"
            );
        });
    }

    /// Looks at a copy of the index of `a`, which must not run.
    fn with_index(&self, look: impl FnOnce(&IndexDb)) {
        let own = self.a.share.join(".left");
        let copy = self.world.path().join("index copy");
        fs::create_dir_all(&copy).unwrap();
        for name in ["index.db", "index.db-wal"] {
            if own.join(name).exists() {
                fs::copy(own.join(name), copy.join(name)).unwrap();
            }
        }
        let (ours, opened) = IndexDb::open(&copy.join("index.db"), id(&self.a)).unwrap();
        assert_eq!(opened.rebuilt, None);
        look(&ours);
        drop(ours);
        fs::remove_dir_all(copy).unwrap();
    }

    /// The user of `b` renamed `round N` to `old N`, `a` did the same, and the power was cut before it
    /// could record that: the very file (by its inode), whole, has its new name. Of that the index has not
    /// heard, or has recorded this very file there: a look tells what is gone last, and may end before.
    /// No other file than those is ever renamed here. The folder goes with them.
    fn is_renamed(&self, root: &Root, ours: &IndexDb, path: &RelPath, record: &Record) -> bool {
        let old = String::from_utf8_lossy(path.as_bytes()).into_owned();
        let Some(rest) = old.strip_prefix("work/round ") else {
            return false;
        };
        let new = RelPath::new(format!("work/old {rest}")).unwrap();
        if record.entry.node.kind() == Kind::Dir {
            // What was in it went first; with the last of that the folder goes, in one batch.
            return matches!(root.look(&new).unwrap(), Some(Found::Dir(_)));
        }
        let heard = ours.get(&new).unwrap();
        let heard = heard.filter(|r| r.entry.node.is_live());
        let Some(Found::File(now, _)) = root.look(&new).unwrap() else {
            return false;
        };
        let content = record.entry.node.content();
        let is_it = |r: &Record| {
            r.entry.node.content() == content && r.stat.is_some_and(|then| then.ino == now.ino)
        };
        let recorded = heard.as_ref().is_none_or(is_it);
        let same = record.stat.is_some_and(|then| then.ino == now.ino);
        let hash = hash_file(root, &new, &now, &mut |_| ControlFlow::Continue(()));
        let whole = Some(hash.unwrap()) == content;
        println!(
            "{path} is {new}: the same file {same}, whole {whole}, heard of {}, as it is {recorded}",
            heard.is_some()
        );
        same && whole && recorded
    }

    /// Where the folder of `a` is not what its index says, or something that nobody wrote. What was done
    /// and not yet recorded is none: a whole newer file, or one that is in the history or renamed by now.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for dir in [self.a.share.clone(), self.a.share.join(".left/history")] {
            for (path, hash) in files(&dir) {
                let own = path.file_name().is_some_and(|n| n == "examined");
                if !own && !self.log.known.contains(&hash) {
                    faults.push(format!("{} is torn", path.display()));
                }
            }
        }
        let kept: Vec<PathBuf> = files(&self.a.share.join(".left/history"))
            .into_iter()
            .map(|(path, _)| path)
            .collect();
        let root = Root::open(&self.a.share).unwrap();
        self.with_index(|ours| {
            for (_, path, record) in ours.changes_since(0, 100_000).unwrap() {
                let node = &record.entry.node;
                let good = match root.look(&path).unwrap() {
                    None if node.is_live() => {
                        let name = Path::new(OsStr::from_bytes(path.as_bytes()));
                        kept.iter().any(|p| p.ends_with(name))
                            || self.is_renamed(&root, ours, &path, &record)
                    }
                    Some(Found::File(now, _)) if node.content().is_some() => {
                        let hash =
                            hash_file(&root, &path, &now, &mut |_| ControlFlow::Continue(()));
                        let newer = record.stat.is_some_and(|then| now.ctime > then.ctime);
                        Some(hash.unwrap()) == node.content() || newer
                    }
                    _ => true,
                };
                if !good {
                    faults.push(format!("{path} is not as recorded"));
                }
            }
        });
        faults
    }

    /// The user of `b` makes many small files, some of them in place of older ones, folders and links.
    fn edit_many(&mut self, round: usize, count: usize) {
        let new = self.world.path().join("new");
        for n in 0..count {
            let size = 100 + n * 37 % 8000;
            let content = self.log.content(&format!("many {round} {n}"), size, true);
            let name = match n % 4 {
                0 => format!("many/replaced/{n}"),
                _ => format!("many/{round}/{}/{n}", n % 7),
            };
            let path = self.b.share.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&new, content).unwrap();
            fs::rename(&new, &path).unwrap();
            if n % 50 == 1 {
                symlink("nowhere", path.with_extension("link")).unwrap();
                fs::create_dir(path.with_extension("empty")).unwrap();
            }
        }
    }

    /// The power is cut when so many files more are in the index of `a`, and a moment later.
    fn cut_among(&mut self, files: u64, wait: Duration, data: &str) {
        let a = &self.a;
        until("some of the files are there", || {
            a.status()["files"].as_u64().is_some_and(|n| n >= files)
        });
        thread::sleep(wait);
        let pid = self.a.pid();
        self.image.cut(|| kill(pid));
        self.a.kill9();
        self.image.restart(data);
    }

    fn packs(&self) -> Vec<PathBuf> {
        let packs = fs::read_dir(self.a.share.join(".left/pack"));
        packs.unwrap().flatten().map(|e| e.path()).collect()
    }
}

fn id(device: &Device) -> DeviceId {
    DeviceId::parse(device.ok(&["id"]).trim()).unwrap()
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

/// A cut at a random moment while so many small files are being put in place, with nobody in reach
/// afterwards: what the pack has is there again.
fn among_many(rounds: usize, count: usize) {
    let Some(mut bed) = Bed::new(rounds as u32 * 4) else {
        return;
    };
    for round in 0..rounds {
        let before = bed.a.status()["files"].as_u64().unwrap();
        bed.edit_many(round, count);
        let random = bytes(&format!("among {round} {count}"), 0, 2);
        let (part, ms) = (u64::from(random[0]), u64::from(random[1]));
        let data = ["ordered", "writeback"][round % 2];
        let more = count as u64 * 3 / 4 * part / 256;
        println!("round {round}: {more} files and {ms} ms, {data}");
        bed.cut_among(before + more, Duration::from_millis(ms), data);
        for (n, point) in ["repairing", "repaired"]
            .into_iter()
            .enumerate()
            .skip(round % 3)
        {
            match (n + round / 3) % 2 {
                0 => bed.is_cut_at(point, data),
                _ => bed.dies_at(point),
            }
        }
        bed.comes_back_alone();
        bed.a.restart();
        bed.b.restart();
        settle(&[&bed.a, &bed.b]);
        bed.is_all_there();
        assert_eq!(
            bed.packs().len().min(1),
            bed.packs().len(),
            "{:?}",
            bed.packs()
        );
    }
}

#[test]
fn among_many_small_files() {
    among_many(3, 700);
}

/// `LEFT_CUTS` says how many, else 60.
#[test]
#[ignore = "minutes"]
fn among_many_small_files_again_and_again() {
    let rounds = std::env::var("LEFT_CUTS").ok().and_then(|n| n.parse().ok());
    among_many(rounds.unwrap_or(60), 3000);
}

/// Without its packs, or with damaged ones, a device finds itself torn, which shows what they are for;
/// it says so, takes nothing of it for an edit, and is healed by its peer.
fn damaged_packs(kinds: &[&str]) {
    /// A cut may come so late, on a busy machine, that all had reached the disk by itself.
    const CUTS: usize = 8;
    let Some(mut bed) = Bed::new(30) else {
        return;
    };
    // So many that what vanishes is no alarm.
    bed.edit_many(0, 240);
    settle(&[&bed.a, &bed.b]);
    for (n, kind) in kinds.iter().copied().enumerate() {
        let mut cuts = 1..=CUTS;
        let torn = cuts.any(|cut| bed.is_torn_without(n * CUTS + cut, kind));
        assert!(torn, "{kind}: {CUTS} cuts, and no pack was needed");
    }
}

impl Bed {
    /// A cut among small files, after which the packs are damaged. Whether something was torn, and its
    /// pack would have brought it back.
    fn is_torn_without(&mut self, round: usize, kind: &str) -> bool {
        self.a.wait();
        // A version that is whole in its pack only is lost with that, when its user replaced it since.
        rustix::fs::syncfs(File::open(&self.a.share).unwrap()).unwrap();
        self.edit_many(round, 120);
        // What is in place and not recorded is told from a user's file by the packs alone.
        settle(&[&self.a, &self.b]);
        self.cut_among(0, Duration::ZERO, "ordered");
        self.nothing_is_taken_back();
        let mut packs = self.packs();
        // The folder of before is left alone.
        packs.retain(|p| p.is_file());
        for pack in &packs {
            damage(pack, kind);
        }
        let mut faults = self.faults_alone();
        // What peers healed in the cuts before lies in the history, torn as it was.
        faults.retain(|fault| !fault.contains("/.left/history/"));
        println!("{kind}: {} packs, {} faults", packs.len(), faults.len());
        let tree = snapshot(&self.b.share);
        self.a.restart();
        self.b.restart();
        settle(&[&self.a, &self.b]);
        assert_tree(&tree, &self.b.share);
        self.is_all_there();
        // Root reads also what it has no right to.
        !packs.is_empty() && (!faults.is_empty() || kind == "no rights")
    }
}

#[test]
fn damaged_packs_are_healed_by_peers() {
    damaged_packs(&["gone", "flipped"]);
}

#[test]
#[ignore = "a minute"]
fn packs_damaged_in_all_ways() {
    damaged_packs(&["gone", "cut", "flipped", "zeroed", "a folder", "no rights"]);
}

fn damage(pack: &Path, kind: &str) {
    let file = File::options().read(true).write(true).open(pack).unwrap();
    let len = file.metadata().unwrap().len();
    // In every block: heads, tables and contents.
    let places = (0..len).step_by(1500);
    match kind {
        "gone" => fs::remove_file(pack).unwrap(),
        "cut" => file.set_len(len / 3).unwrap(),
        "flipped" => {
            for at in places {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            }
        }
        "zeroed" => {
            for at in places {
                file.write_all_at(&[0; 512], at).unwrap();
            }
        }
        "a folder" => {
            fs::remove_file(pack).unwrap();
            fs::create_dir(pack).unwrap();
        }
        _ => fs::set_permissions(pack, Permissions::from_mode(0o000)).unwrap(),
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
