//! Users who edit everything at once, while processes are killed: all ends equal, and what
//! somebody wrote and did not replace himself is kept somewhere.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::common::{Device, World, bytes, settle, write};

/// Random numbers that are the same in every run.
pub struct Dice {
    pub seed: String,
    pub at: u64,
}

impl Dice {
    pub fn roll(&mut self, below: u64) -> u64 {
        self.at += 8;
        let random = bytes(&self.seed, self.at, 8);
        u64::from_le_bytes(random.try_into().unwrap()) % below
    }
}

/// What a user has written and not touched since, by path.
type Own = BTreeMap<PathBuf, String>;

const NAME: usize = 24;

fn path(dice: &mut Dice) -> PathBuf {
    match dice.roll(4) {
        0 => format!("f{}", dice.roll(4)).into(),
        1 => format!("d{}", dice.roll(3)).into(),
        2 => format!("d{}/f{}", dice.roll(3), dice.roll(4)).into(),
        _ => format!("d{}/e{}/f{}", dice.roll(3), dice.roll(2), dice.roll(3)).into(),
    }
}

/// The edit is forgotten with everything at or below the path.
fn forget(own: &mut Own, path: &Path) {
    own.retain(|p, _| !p.starts_with(path));
}

/// One edit, as a program does it; it may fail, as it does for users.
fn edit(root: &Path, who: &str, dice: &mut Dice, own: &mut Own) {
    let relative = path(dice);
    let full = root.join(&relative);
    match dice.roll(10) {
        0..5 => {
            let name = format!("{who:<3} {:>20}", dice.at);
            assert_eq!(name.len(), NAME);
            let mut content = name.clone().into_bytes();
            let size = [10, 3000, 200_000][dice.roll(3) as usize];
            content.extend(bytes(&name, 0, size));
            if fs::create_dir_all(full.parent().unwrap()).is_ok() {
                forget(own, &relative);
                if fs::write(&full, content).is_ok() {
                    own.insert(relative, name);
                }
            }
        }
        5 => {
            forget(own, &relative);
            let _ = fs::remove_file(&full);
        }
        6 => {
            forget(own, &relative);
            let _ = fs::remove_dir_all(&full);
        }
        7 | 8 => {
            let target = path(dice);
            forget(own, &target);
            if fs::rename(&full, root.join(&target)).is_ok() {
                // It has another place now: only that nothing is lost is asked, not where it is.
                let moved: Vec<_> = own
                    .keys()
                    .filter(|p| p.starts_with(&relative))
                    .cloned()
                    .collect();
                for old in moved {
                    let name = own.remove(&old).unwrap();
                    let rest = old.strip_prefix(&relative).unwrap();
                    let new = if rest.as_os_str().is_empty() {
                        target.clone()
                    } else {
                        target.join(rest)
                    };
                    own.insert(new, name);
                }
            }
        }
        _ => {
            let _ = fs::create_dir_all(&full);
        }
    }
}

/// The first bytes of every file below.
fn names(dir: &Path, found: &mut HashSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            names(&entry.path(), found);
        } else if kind.is_file() {
            let mut start = vec![0; NAME];
            if File::open(entry.path())
                .and_then(|mut f| f.read_exact(&mut start))
                .is_ok()
            {
                found.insert(String::from_utf8_lossy(&start).into_owned());
            }
        }
    }
}

fn rounds(seed: &str, count: u32, kill: bool) {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    let mut dice = Dice {
        seed: seed.into(),
        at: 0,
    };
    // So that no burst of deletions takes most of it.
    for n in 0..40 {
        write(&a.share.join(format!("stays/{n}")), format!("{n}"));
    }
    settle(&[&a, &b]);
    for round in 0..count {
        println!("seed {seed}, round {round}");
        let mut users = Vec::new();
        for (who, device) in [("a", &a), ("b", &b)] {
            let mut dice = Dice {
                seed: format!("{seed} {who} {round}"),
                at: 0,
            };
            let (who, root) = (format!("{who}{round}"), device.share.clone());
            users.push(thread::spawn(move || {
                let mut own = Own::new();
                for _ in 0..25 {
                    edit(&root, &who, &mut dice, &mut own);
                    thread::sleep(Duration::from_millis(dice.roll(12)));
                }
                own
            }));
        }
        if kill {
            thread::sleep(Duration::from_millis(dice.roll(200)));
            let victim: &mut Device = if dice.roll(2) == 0 { &mut a } else { &mut b };
            victim.kill9();
            victim.restart();
        }
        let own: Vec<Own> = users.into_iter().map(|u| u.join().unwrap()).collect();
        settle(&[&a, &b]);
        let mut kept = HashSet::new();
        names(&a.share, &mut kept);
        names(&b.share.join(".left/history"), &mut kept);
        for (path, name) in own.iter().flatten() {
            assert!(
                kept.contains(name),
                "seed {seed}, round {round}: lost `{name}`, last at {}",
                path.display()
            );
        }
    }
}

#[test]
fn everybody_edits_everything() {
    rounds("one", 6, false);
}

#[test]
fn everybody_edits_and_processes_die() {
    rounds("two", 6, true);
}

/// More of it, by name. `LEFT_SOAK=SEED` runs that seed alone; `LEFT_TEST_KEEP=1` keeps the folders,
/// `LEFT_TEST_LOG=debug` has the processes say more.
#[test]
#[ignore = "minutes"]
fn long() {
    if let Ok(seed) = std::env::var("LEFT_SOAK") {
        return rounds(&seed, 10, true);
    }
    for n in 0..20 {
        rounds(&format!("long {n}"), 10, n % 2 == 1);
    }
}

/// A peer whose process hangs delays nobody for ever, and nothing is lost when it goes on.
#[test]
fn a_peer_that_hangs() {
    let world = World::new();
    let (a, b) = world.pair();
    settle(&[&a, &b]);
    b.freeze(true);
    for n in 0..200 {
        write(
            &a.share.join(format!("d{n}/f")),
            bytes("hang", n * 50_000, 50_000),
        );
    }
    let out = a.run(&["wait", "--timeout", "1s"]);
    assert_eq!(out.status.code(), Some(3));
    b.freeze(false);
    settle(&[&a, &b]);
}
