//! Two devices whose processes run as an ordinary user, and ways to damage what they keep.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Device, LEFT, World, fill, settle, until, write};

/// "nobody": permissions stop root not at all.
const USER: u32 = 65_534;

/// What happens to a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// One bit is another.
    Flip,
    /// A block of 512 bytes is zero.
    Zero,
    /// Its second half is missing.
    Cut,
    Gone,
    /// A folder with something in it stands there.
    Folder,
    /// Nobody may read it.
    NoRights,
}

pub use Damage::{Cut, Flip, Folder, Gone, NoRights, Zero};

pub const ALL: [Damage; 6] = [Flip, Zero, Cut, Gone, Folder, NoRights];

impl Damage {
    /// Does it, in the middle of the file or at `at`.
    pub fn to(self, path: &Path, at: Option<u64>) {
        let meta = fs::metadata(path).unwrap();
        let at = at.unwrap_or(meta.len() / 2);
        let open = || File::options().read(true).write(true).open(path).unwrap();
        match self {
            Flip => flip(&open(), at),
            Zero => {
                let content = fs::read(path).unwrap();
                let blocks = content.chunks(512).enumerate().skip(at as usize / 512);
                // One that is zero already would be no damage.
                let (n, block) = blocks
                    .into_iter()
                    .find(|(_, b)| b.iter().any(|x| *x != 0))
                    .unwrap();
                open()
                    .write_all_at(&vec![0; block.len()], n as u64 * 512)
                    .unwrap();
            }
            Cut => open().set_len(meta.len() / 2).unwrap(),
            Gone => fs::remove_file(path).unwrap(),
            Folder => {
                fs::remove_file(path).unwrap();
                write(&path.join("something"), "in a folder");
                own(path, meta.uid());
            }
            NoRights => fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap(),
        }
    }
}

/// Flips the lowest bit of one byte.
pub fn flip(file: &File, at: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Gives a tree to a user.
pub fn own(path: &Path, uid: u32) {
    chown(path, Some(uid), Some(uid)).unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap().flatten() {
            own(&entry.path(), uid);
        }
    }
}

/// `a` is damaged, `b` is another machine.
pub struct Bed {
    pub a: Device,
    pub b: Device,
    pub world: World,
    user: bool,
}

impl Bed {
    /// `None`, with a notice, where permissions would stop nobody.
    pub fn new() -> Self {
        let world = World::new();
        let (mut a, mut b) = (world.device("a"), world.device("b"));
        let user = rustix::process::geteuid().is_root();
        if user {
            fs::set_permissions(world.path(), Permissions::from_mode(0o755)).unwrap();
            let program = world.path().join("left");
            fs::copy(LEFT, &program).unwrap();
            // A process that another test starts just now may hold our copy open for writing for a moment.
            until("the copy can be run", || {
                Command::new(&program).arg("--version").output().is_ok()
            });
            fs::create_dir(&a.home).unwrap();
            for dir in [&a.home, &a.share] {
                own(dir, USER);
            }
            a.how.uid = Some(USER);
            a.how.program = Some(program);
        }
        a.how.crash = Some(world.path().join("a.crash"));
        let ticket = a.share();
        b.join(&ticket);
        let bed = Self { a, b, world, user };
        for n in 0..20 {
            bed.put(&format!("stays/{n}"), &format!("stays {n}"));
        }
        fill(&bed.b.share.join("big"), "big", 600_000);
        settle(&[&bed.a, &bed.b]);
        bed
    }

    /// The user of `a` writes a file.
    pub fn put(&self, name: &str, text: &str) {
        let path = self.a.share.join(name);
        write(&path, text);
        if self.user {
            let top = self.a.share.join(name.split('/').next().unwrap());
            own(&top, USER);
        }
    }

    /// Whose files the process of `a` works on.
    pub fn uid(&self) -> u32 {
        fs::metadata(&self.a.share).unwrap().uid()
    }

    /// A file of LEFT in the share of `a`.
    pub fn inner(&self, name: &str) -> PathBuf {
        self.a.share.join(".left").join(name)
    }

    /// Starts `a`; what it said on stderr, if it ended at once.
    pub fn up(&mut self) -> Option<String> {
        let said = self.a.log().len();
        self.a.start(&["up"]);
        let a = &mut self.a;
        let mut ended = None;
        until("left has started or ended", || {
            ended = a.ended();
            // It answers before it has read what it knows of its shares.
            let shares = fs::read_dir(a.home.join("shares")).unwrap().count();
            let started = !a.events("share_started").is_empty();
            ended.is_some() || started || (shares == 0 && a.answers())
        });
        let code = ended?.code();
        assert!(code.is_some_and(|c| c > 0 && c < 100), "{code:?}");
        Some(self.a.log().split_off(said))
    }

    /// Work goes on: edits of both arrive, both are equal, and nothing was taken for a conflict.
    pub fn goes_on(&self, what: &str) {
        self.put(&format!("then/{what}"), what);
        write(&self.b.share.join(format!("also/{what}")), what);
        fs::remove_file(self.b.share.join("also").join(what)).unwrap();
        write(&self.b.share.join(format!("also/{what} 2")), what);
        settle(&[&self.a, &self.b]);
        settle(&[&self.b, &self.a]);
        assert!(self.b.share.join(format!("then/{what}")).exists());
        assert!(self.a.share.join(format!("also/{what} 2")).exists());
        assert_eq!(copies(&self.a.share), Vec::<PathBuf>::new());
    }

    /// The notices of `a`.
    pub fn notices(&self) -> String {
        self.a.status()["notices"].to_string()
    }

    /// `a` is in alarm and says why.
    pub fn alarm(&self, words: &[&str]) {
        let a = &self.a;
        until("the alarm is in the status", || a.state() == "alarm");
        let text = a.status()["alarm"].to_string();
        for word in words {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
    }
}

/// Conflict copies below a folder.
pub fn copies(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_name().to_string_lossy().contains(".conflict-") {
            found.push(entry.path());
        }
        if entry.file_type().unwrap().is_dir() && entry.file_name() != ".left" {
            found.extend(copies(&entry.path()));
        }
    }
    found
}

/// Whether a file with this text lies somewhere in the history of a device.
pub fn in_history(device: &Device, text: &str) -> bool {
    fn below(dir: &Path, text: &str) -> bool {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|e| e.path()).any(|p| match p.is_dir() {
            true => below(&p, text),
            false => fs::read(&p).is_ok_and(|b| b == text.as_bytes()),
        })
    }
    below(&device.share.join(".left/history"), text)
}
