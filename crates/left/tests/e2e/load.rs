//! Much of everything: peers, dead peers, files. All of it is run by name, with the program that
//! `LEFT_PROGRAM` names (a release build) or the one under test, and prints its figures:
//!
//!     LEFT_PROGRAM=target/release/left cargo test -p left --test e2e load -- --ignored --nocapture

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use left::home::{Home, MemberRecord};
use left::net::{DeviceKey, is_signed};
use left_core::membership::{Act, Roll, Signed};
use left_core::message::Role;
use left_core::version::DeviceId;

use crate::common::{Device, Net, World, assert_same, bytes, settle, write};

/// Longest that anything here may take.
const LIMIT: Duration = Duration::from_secs(1800);

/// What a process has used so far.
#[derive(Clone, Copy)]
struct Used {
    cpu: f64,
    peak_mib: u64,
    now_mib: u64,
}

fn used(device: &Device) -> Used {
    let proc = PathBuf::from(format!("/proc/{}", device.pid()));
    let stat = fs::read_to_string(proc.join("stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |n: usize| fields[n].parse::<u64>().unwrap();
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let mib = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib / 1024
    };
    Used {
        cpu: (ticks(11) + ticks(12)) as f64 / rustix::param::clock_ticks_per_second() as f64,
        peak_mib: mib("VmHWM:"),
        now_mib: mib("VmRSS:"),
    }
}

fn tell(what: &str, begun: Instant, devices: &[&Device]) {
    print!("{what}: {:.2} s", begun.elapsed().as_secs_f64());
    for device in devices {
        let u = used(device);
        print!(
            "; {} {:.1} CPU s, {} MiB (peak {})",
            device.name, u.cpu, u.now_mib, u.peak_mib
        );
    }
    println!();
}

fn program(device: &mut Device) {
    if let Some(path) = std::env::var_os("LEFT_PROGRAM") {
        device.how.program = Some(fs::canonicalize(path).unwrap());
    }
}

/// Asks closely, for a time is to be read.
fn at_once(what: &str, mut yes: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !yes() {
        assert!(Instant::now() < end, "in vain waited for: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until all is equal, longer than one command of a test may take.
fn wait(device: &Device) {
    let end = Instant::now() + LIMIT;
    let dir = device.share.as_os_str();
    let wait = ["wait".as_ref(), dir, "--timeout".as_ref(), "60s".as_ref()];
    while !device.run(&wait).status.success() {
        assert!(Instant::now() < end, "{} waits in vain", device.name);
    }
}

fn number(name: &str, or: u64) -> u64 {
    let said = std::env::var(name).ok();
    said.map_or(or, |n| n.parse().unwrap())
}

fn ticket(device: &Device) -> String {
    let dir = device.share.as_os_str();
    let out = device.ok(&["ticket".as_ref(), dir, "--json".as_ref()]);
    let out: serde_json::Value = serde_json::from_str(&out).unwrap();
    out["ticket"].as_str().unwrap().to_owned()
}

/// Sixteen machines share a folder; each has a user who edits all the time.
#[test]
#[ignore = "minutes"]
fn many_peers() {
    let peers = number("LEFT_PEERS", 16) as usize;
    let files = number("LEFT_FILES", 10_000);
    let seconds = number("LEFT_SECONDS", 60);
    let world = World::new();
    let net = Net::new(peers).expect("network namespaces");
    let mut devices: Vec<Device> = (0..peers)
        .map(|n| {
            let mut device = world.device(&format!("m{n}"));
            device.how.wrap = net.wrap(n);
            device.host = Net::address(n);
            program(&mut device);
            device
        })
        .collect();
    for n in 0..files {
        let path = devices[0].share.join(format!("d{}/{n}", n % 100));
        write(&path, bytes("file", n, 1000));
    }
    let begun = Instant::now();
    devices[0].share();
    for n in 1..peers {
        let ticket = ticket(&devices[0]);
        devices[n].join(&ticket);
    }
    devices.iter().for_each(wait);
    tell(
        &format!("{files} files on {peers} peers"),
        begun,
        &[&devices[0], &devices[peers - 1]],
    );

    let end = AtomicBool::new(false);
    let edits: u64 = thread::scope(|scope| {
        let users: Vec<_> = devices
            .iter()
            .map(|device| scope.spawn(|| edit(device, files, &end)))
            .collect();
        thread::sleep(Duration::from_secs(seconds));
        end.store(true, Ordering::Relaxed);
        users.into_iter().map(|u| u.join().unwrap()).sum()
    });
    let begun = Instant::now();
    // What one passes on to the next must have arrived too.
    for _ in 0..2 {
        devices.iter().for_each(wait);
    }
    for pair in devices.windows(2) {
        assert_same(&pair[0].share, &pair[1].share);
    }
    let cpu: f64 = devices.iter().map(|d| used(d).cpu).sum();
    let peak = devices.iter().map(|d| used(d).peak_mib).max().unwrap();
    println!(
        "{edits} edits in {seconds} s; all equal {:.1} s later; CPU of all {cpu:.0} s, highest peak \
         {peak} MiB",
        begun.elapsed().as_secs_f64()
    );
}

/// One user: writes, renames, deletes, at random. How many edits that were.
fn edit(device: &Device, files: u64, end: &AtomicBool) -> u64 {
    let mut count = 0;
    while !end.load(Ordering::Relaxed) {
        let dice = bytes(&format!("edit {}", device.name), count * 8, 8);
        let dice = u64::from_le_bytes(dice.try_into().unwrap());
        let n = dice % files;
        let path = device.share.join(format!("d{}/{n}", n % 100));
        // Another user may have moved or deleted it at the same moment.
        let _ = match (dice >> 32) % 10 {
            0 => fs::remove_file(&path),
            1 => fs::rename(&path, path.with_extension(format!("of-{}", device.name))),
            _ => fs::write(&path, bytes(&device.name, count, 1000)),
        };
        count += 1;
        thread::sleep(Duration::from_millis(100 + (dice >> 40) % 200));
    }
    count
}

/// Members that are not there: some refuse, some never answer.
#[test]
#[ignore = "minutes"]
fn dead_peers() {
    let peers = number("LEFT_PEERS", 1000) as u32;
    let seconds = number("LEFT_SECONDS", 60);
    let world = World::new();
    let net = Net::new(2).expect("network namespaces");
    let mut a = world.device("a");
    let mut b = world.device("b");
    for (n, device) in [&mut a, &mut b].into_iter().enumerate() {
        device.how.wrap = net.wrap(n);
        device.host = Net::address(n);
        program(device);
    }
    write(&a.share.join("file"), "content");
    let ticket = a.share();
    b.join(&ticket);
    settle(&[&a, &b]);
    a.stop();
    admit(&a.home, peers);
    a.restart();
    settle(&[&a, &b]);
    let shown = a.status()["peers"].as_array().unwrap().len();
    assert_eq!(shown, peers as usize + 1);
    // The first tries are over.
    thread::sleep(Duration::from_secs(30));
    let (begun, before) = (Instant::now(), used(&a));
    thread::sleep(Duration::from_secs(seconds));
    let after = used(&a);
    println!(
        "{peers} dead peers: {:.2} CPU s in {:.0} s, {} MiB",
        after.cpu - before.cpu,
        begun.elapsed().as_secs_f64(),
        after.now_mib
    );
    let begun = Instant::now();
    write(&a.share.join("new"), "content");
    at_once("the edit", || b.share.join("new").exists());
    tell("an edit beside them", begun, &[&a, &b]);
}

/// Enters members in a home at rest: keys that nobody has, at addresses where nobody is.
fn admit(home: &Path, count: u32) {
    let home = Home::open(Some(home)).unwrap();
    let key = home.device_key(|| panic!("there is a key"), |_| true);
    let key = DeviceKey::from_pkcs8(&key.unwrap()).unwrap();
    let mut record = home.shares().unwrap().remove(0);
    let mut roll = Roll::new(record.founding.unwrap());
    for signed in record.statements.clone() {
        roll.add(signed, is_signed).unwrap();
    }
    for n in 0..count {
        let device = DeviceId(*blake3::hash(&n.to_le_bytes()).as_bytes());
        let act = Act::Admit(Role::ReadWrite);
        let statement = roll.draft(key.id(), device, act, 1).unwrap();
        let signature = key.sign(&statement.signed_bytes());
        let signed = Signed {
            statement,
            signature,
        };
        roll.add(signed, is_signed).unwrap();
        // The other machine refuses; nobody answers for the other half.
        let host = match n % 2 {
            0 => Ipv4Addr::new(10, 78, 0, 2),
            _ => Ipv4Addr::new(10, 78, 0, 200),
        };
        record.members.push(MemberRecord {
            paused: false,
            device,
            name: format!("dead {n}"),
            addresses: vec![format!("{host}:{}", 1000 + n)],
        });
    }
    record.statements = roll.statements().cloned().collect();
    home.save_share(&record).unwrap();
}

/// A million small files: indexed, brought, a restart, an edit, the rename of a folder of them all.
#[test]
#[ignore = "minutes"]
fn many_files() {
    let files = number("LEFT_FILES", 1_000_000);
    let world = World::new();
    let (mut a, mut b) = (world.device("a"), world.device("b"));
    program(&mut a);
    program(&mut b);
    for n in 0..files {
        let dir = a.share.join(format!("all/{:04}", n / 1000));
        if n % 1000 == 0 {
            fs::create_dir_all(&dir).unwrap();
        }
        fs::write(dir.join(format!("{n}")), format!("{n:0100}")).unwrap();
    }
    let begun = Instant::now();
    let ticket = a.share();
    at_once("the index", || {
        let status = a.status();
        status["state"] == "offline" && status["files"] == files
    });
    tell(&format!("index of {files} files"), begun, &[&a]);

    let begun = Instant::now();
    b.join(&ticket);
    wait(&b);
    tell("all brought", begun, &[&a, &b]);

    let begun = Instant::now();
    fs::write(a.share.join("all/0000/new"), "content").unwrap();
    at_once("the edit", || b.share.join("all/0000/new").exists());
    tell("an edit", begun, &[&a, &b]);

    b.kill9();
    fs::write(a.share.join("all/0000/second"), "content").unwrap();
    let begun = Instant::now();
    b.restart();
    at_once("the edit", || b.share.join("all/0000/second").exists());
    tell("a restart until an edit was there", begun, &[&b]);
    wait(&b);
    tell("a restart until all was looked at", begun, &[&b]);

    let begun = Instant::now();
    fs::rename(a.share.join("all"), a.share.join("renamed")).unwrap();
    at_once("the new name is there", || b.share.join("renamed").exists());
    wait(&b);
    tell("a folder of them all renamed", begun, &[&a, &b]);
    assert!(!b.share.join("all").exists());
    assert_same(&a.share, &b.share);
    for device in [&a, &b] {
        assert!(used(device).peak_mib < 200);
    }
}
