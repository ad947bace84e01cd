//! Three devices whose users edit everything at once, while processes are killed and cables pulled.
//! A log knows every version that was ever written and which users destroyed it themselves; in each calm
//! all folders are equal, and every version that some user did not destroy is a file, a conflict copy or
//! in the history.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::common::{Device, Net, World, bytes, settle, until, write};
use crate::soak::Dice;

const DEVICES: usize = 3;
/// Every file begins with the name of its version and its size.
const HEAD: usize = 32;
/// How long users edit before a calm.
const STORM: Duration = Duration::from_secs(12);

/// For each version, the devices where it stood and whose user has not destroyed it.
#[derive(Default)]
struct Log {
    held: BTreeMap<String, BTreeSet<usize>>,
    /// Versions ever written.
    written: u64,
}

impl Log {
    fn destroyed(&mut self, device: usize, version: &str) {
        if let Some(held) = self.held.get_mut(version) {
            held.remove(&device);
            if held.is_empty() {
                self.held.remove(version);
            }
        }
    }
}

/// The whole content of a version.
fn content(head: &str) -> Vec<u8> {
    let size = head[HEAD - 8..].trim().parse().unwrap();
    let mut content = head.as_bytes().to_vec();
    content.extend(bytes(head, 0, size));
    content
}

/// The version that an open file holds, whole or not.
fn version(file: &mut File) -> Option<String> {
    let mut head = [0; HEAD];
    file.read_exact(&mut head).ok()?;
    String::from_utf8(head.to_vec()).ok()
}

/// One device's user.
struct User {
    device: usize,
    root: PathBuf,
    /// What this user deletes goes here, so that it is known what it was.
    trash: PathBuf,
    dice: Dice,
    log: Arc<Mutex<Log>>,
    count: u64,
}

impl User {
    fn path(&mut self) -> PathBuf {
        let dice = &mut self.dice;
        let name = match dice.roll(4) {
            0 => format!("f{}", dice.roll(5)),
            1 => format!("d{}", dice.roll(3)),
            2 => format!("d{}/f{}", dice.roll(3), dice.roll(4)),
            _ => format!("d{}/e{}/f{}", dice.roll(3), dice.roll(2), dice.roll(3)),
        };
        self.root.join(name)
    }

    fn new_version(&mut self) -> String {
        self.count += 1;
        let size = [10, 4000, 150_000, 900_000][self.dice.roll(4) as usize];
        let who = ["a", "b", "c"][self.device];
        let head = format!(
            "{:<24}{size:>8}",
            format!("{who} {} {}", self.dice.seed, self.count)
        );
        let head = head[head.len() - HEAD..].to_owned();
        let mut log = self.log.lock().unwrap();
        log.held.insert(head.clone(), BTreeSet::from([self.device]));
        log.written += 1;
        head
    }

    /// Removes whatever stands there, and notes what that was.
    fn delete(&mut self, path: &Path) {
        self.count += 1;
        let to = self.trash.join(self.count.to_string());
        if fs::rename(path, &to).is_ok() {
            self.note_destroyed(&to);
        }
    }

    fn note_destroyed(&self, path: &Path) {
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap().flatten() {
                self.note_destroyed(&entry.path());
            }
        } else if let Some(version) = File::open(path).ok().and_then(|mut f| version(&mut f)) {
            self.log.lock().unwrap().destroyed(self.device, &version);
        }
    }

    /// One edit, as a program does it; it may fail, as it does for users.
    fn edit(&mut self) {
        let path = self.path();
        match self.dice.roll(12) {
            0..4 => {
                // Written aside and moved into place, as good programs do.
                let head = self.new_version();
                let aside = self.trash.join("aside");
                fs::write(&aside, content(&head)).unwrap();
                let _ = fs::create_dir_all(path.parent().unwrap());
                self.delete(&path);
                if renameat_with(CWD, &aside, CWD, &path, RenameFlags::NOREPLACE).is_err() {
                    self.log.lock().unwrap().destroyed(self.device, &head);
                }
            }
            4..7 => {
                // Overwritten in place, through a handle that may be older than what stands there.
                let Ok(mut file) = File::options().read(true).write(true).open(&path) else {
                    return;
                };
                let old = version(&mut file);
                let head = self.new_version();
                if let Some(old) = old {
                    self.log.lock().unwrap().destroyed(self.device, &old);
                }
                let content = content(&head);
                use std::os::unix::fs::FileExt;
                file.write_all_at(&content, 0).unwrap();
                file.set_len(content.len() as u64).unwrap();
                file.flush().unwrap();
            }
            7 | 8 => self.delete(&path),
            9 | 10 => {
                let target = self.path();
                self.delete(&target);
                let _ = renameat_with(CWD, &path, CWD, &target, RenameFlags::NOREPLACE);
            }
            _ => {
                let _ = fs::create_dir_all(&path);
            }
        }
    }
}

/// The versions that are whole below a folder.
fn whole(dir: &Path, found: &mut HashSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (kind, path) = (entry.file_type().unwrap(), entry.path());
        if kind.is_dir() {
            if entry.file_name() != ".left" {
                whole(&path, found);
            }
        } else if let Some(head) = File::open(&path).ok().and_then(|mut f| version(&mut f)) {
            let known = head[HEAD - 8..].trim().parse::<usize>().is_ok();
            if known && !found.contains(&head) && fs::read(&path).unwrap() == content(&head) {
                found.insert(head);
            }
        }
    }
}

struct Storm {
    devices: Vec<Device>,
    net: Option<Net>,
    dice: Dice,
    log: Arc<Mutex<Log>>,
    down: BTreeSet<usize>,
    dead: BTreeSet<usize>,
    kills: u32,
    cuts: u32,
    world: World,
}

impl Storm {
    fn new(seed: &str) -> Self {
        let world = World::new();
        let net = Net::new(DEVICES);
        if net.is_none() {
            eprintln!("no network namespaces here: no cable is pulled");
        }
        let mut devices: Vec<Device> = ["a", "b", "c"].map(|n| world.device(n)).into();
        for (n, device) in devices.iter_mut().enumerate() {
            fs::create_dir(world.path().join(format!("trash-{}", device.name))).unwrap();
            if let Some(net) = &net {
                device.how.wrap = net.wrap(n);
                device.host = Net::address(n);
            }
        }
        let ticket = devices[0].share();
        devices[1].join(&ticket);
        let share = devices[0].share.clone();
        let out = devices[0].ok(&["ticket".as_ref(), share.as_os_str(), "--json".as_ref()]);
        let ticket: serde_json::Value = serde_json::from_str(&out).unwrap();
        devices[2].join(ticket["ticket"].as_str().unwrap());
        // So that no burst of deletions takes most of it.
        for n in 0..60 {
            write(&share.join(format!("stays/{n}")), format!("{n}"));
        }
        Self {
            devices,
            net,
            dice: Dice {
                seed: seed.into(),
                at: 0,
            },
            log: Arc::default(),
            down: BTreeSet::new(),
            dead: BTreeSet::new(),
            kills: 0,
            cuts: 0,
            world,
        }
    }

    /// Users edit while processes and links come and go.
    fn rage(&mut self, round: u32) {
        let end = Arc::new(AtomicBool::new(false));
        let users: Vec<_> = (0..DEVICES)
            .map(|n| {
                let mut user = User {
                    device: n,
                    root: self.devices[n].share.clone(),
                    trash: self
                        .world
                        .path()
                        .join(format!("trash-{}", self.devices[n].name)),
                    dice: Dice {
                        seed: format!("{round} {}", self.dice.seed),
                        at: n as u64 * (1 << 32),
                    },
                    log: self.log.clone(),
                    count: u64::from(round) << 20,
                };
                let end = end.clone();
                thread::spawn(move || {
                    while !end.load(Ordering::Relaxed) {
                        user.edit();
                        thread::sleep(Duration::from_millis(user.dice.roll(60)));
                    }
                })
            })
            .collect();
        let until = Instant::now() + STORM;
        while Instant::now() < until {
            thread::sleep(Duration::from_millis(100 + self.dice.roll(900)));
            self.strike();
        }
        end.store(true, Ordering::Relaxed);
        for user in users {
            user.join().unwrap();
        }
    }

    fn strike(&mut self) {
        let n = self.dice.roll(DEVICES as u64) as usize;
        match (self.dice.roll(2), &self.net) {
            (0, Some(net)) => {
                let up = self.down.remove(&n);
                net.link(n, up);
                if !up {
                    self.down.insert(n);
                    self.cuts += 1;
                }
            }
            _ if self.dead.remove(&n) => self.devices[n].restart(),
            _ => {
                self.devices[n].kill9();
                self.dead.insert(n);
                self.kills += 1;
            }
        }
    }

    /// All is up again: all folders become equal, and nothing is lost.
    fn calm(&mut self) {
        for n in std::mem::take(&mut self.dead) {
            self.devices[n].restart();
        }
        if let Some(net) = &self.net {
            std::mem::take(&mut self.down)
                .iter()
                .for_each(|n| net.link(*n, true));
        }
        for device in &self.devices {
            until("all are connected", || {
                let status = device.status();
                let peers = status["peers"].as_array().unwrap();
                peers.len() == DEVICES - 1 && peers.iter().all(|p| p["connected"] == true)
            });
        }
        settle(&self.devices.iter().collect::<Vec<_>>());
        let (mut here, mut kept) = (HashSet::new(), HashSet::new());
        whole(&self.devices[0].share, &mut here);
        for device in &self.devices {
            whole(&device.share.join(".left/history"), &mut kept);
        }
        let mut log = self.log.lock().unwrap();
        for (version, held) in &log.held {
            let found = here.contains(version) || kept.contains(version);
            assert!(found, "lost `{version}`, which stood on {held:?}");
        }
        // What stands there stands everywhere now. What is in the history is nobody's to destroy.
        for version in here {
            log.held.insert(version, (0..DEVICES).collect());
        }
        for version in kept {
            log.held.entry(version).or_default().insert(DEVICES);
        }
    }
}

fn storm(seed: &str, how_long: Duration) {
    let mut storm = Storm::new(seed);
    storm.calm();
    let begun = Instant::now();
    let mut round = 0;
    while begun.elapsed() < how_long {
        storm.rage(round);
        storm.calm();
        round += 1;
        let log = storm.log.lock().unwrap();
        println!(
            "seed {seed}, round {round}, {} s: {} versions written, {} found, {} kills, {} cables pulled",
            begun.elapsed().as_secs(),
            log.written,
            log.held.len(),
            storm.kills,
            storm.cuts,
        );
    }
}

#[test]
fn a_short_one() {
    storm("short", Duration::from_secs(1));
}

/// `LEFT_SOAK_SECONDS` says how long (else ten minutes), `LEFT_SOAK` the seed.
#[test]
#[ignore = "as long as asked"]
fn a_long_one() {
    let seconds = std::env::var("LEFT_SOAK_SECONDS").ok();
    let seconds = seconds.and_then(|s| s.parse().ok()).unwrap_or(600);
    let seed = std::env::var("LEFT_SOAK").unwrap_or_else(|_| "long".into());
    storm(&seed, Duration::from_secs(seconds));
}
