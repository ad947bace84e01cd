//! What must not be lost: roots that vanish, damaged indexes and files, full disks.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use left::store::IndexDb;
use left_core::index::{Index, Txn};
use left_core::path::RelPath;
use left_core::version::DeviceId;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::common::{
    Device, Small, World, assert_same, assert_tree, fill, overwrite, settle, snapshot, until, write,
};

/// Two devices with `files` small files.
fn with_files(world: &World, files: u32) -> (Device, Device) {
    let (a, b) = world.pair();
    for n in 0..files {
        fill(
            &a.share.join(format!("d{}/f{n}", n % 3)),
            &format!("{n}"),
            2000,
        );
    }
    settle(&[&a, &b]);
    (a, b)
}

fn alarm(device: &Device) -> serde_json::Value {
    until("the alarm is in the status", || device.state() == "alarm");
    let alarm = device.status()["alarm"].clone();
    assert!(!alarm["reason"].as_str().unwrap().is_empty(), "{alarm}");
    assert!(!alarm["todo"].as_str().unwrap().is_empty(), "{alarm}");
    alarm
}

#[test]
fn a_root_that_vanished_is_no_deletion() {
    let world = World::new();
    let (mut a, b) = with_files(&world, 12);
    let before = snapshot(&b.share);
    let aside = world.path().join("aside");
    fs::rename(&a.share, &aside).unwrap();
    alarm(&a);
    // An empty folder in its place, as when a disk is not mounted.
    fs::create_dir(&a.share).unwrap();
    alarm(&a);
    a.kill9();
    a.start(&["up"]);
    alarm(&a);
    assert_eq!(
        fs::read_dir(&a.share).unwrap().count(),
        0,
        "written into a strange folder"
    );
    assert_tree(&before, &b.share);
    write(&b.share.join("meanwhile"), "m");
    // The right one is back.
    fs::remove_dir(&a.share).unwrap();
    fs::rename(&aside, &a.share).unwrap();
    until("the alarm is over", || a.state() != "alarm");
    settle(&[&b, &a]);
    assert!(a.share.join("meanwhile").exists());
}

#[test]
fn an_emptied_root_is_an_alarm_until_it_is_meant() {
    let world = World::new();
    let (a, b) = with_files(&world, 12);
    let before = snapshot(&b.share);
    for entry in fs::read_dir(&a.share).unwrap().flatten() {
        if entry.file_name() != ".left" {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    let alarm = alarm(&a);
    assert!(
        alarm["todo"]
            .as_str()
            .unwrap()
            .contains("--accept-deletions"),
        "{alarm}"
    );
    a.expect("alarm", |_| true);
    assert_tree(&before, &b.share);
    let text = a.ok(&["status"]);
    assert!(text.contains("--accept-deletions"), "{text}");
    a.ok(&[
        "resume".as_ref(),
        a.share.as_os_str(),
        "--accept-deletions".as_ref(),
    ]);
    a.expect("alarm_over", |_| true);
    settle(&[&a, &b]);
    assert!(
        snapshot(&b.share).is_empty(),
        "{:?}",
        snapshot(&b.share).keys()
    );
}

#[test]
fn emptied_while_left_was_off_and_brought_back() {
    let world = World::new();
    let (mut a, b) = with_files(&world, 12);
    let before = snapshot(&b.share);
    a.stop();
    let aside = world.path().join("aside");
    fs::create_dir(&aside).unwrap();
    for n in 0..3 {
        fs::rename(a.share.join(format!("d{n}")), aside.join(format!("d{n}"))).unwrap();
    }
    a.restart();
    alarm(&a);
    assert_tree(&before, &b.share);
    for n in 0..3 {
        fs::rename(aside.join(format!("d{n}")), a.share.join(format!("d{n}"))).unwrap();
    }
    a.ok(&["resume".as_ref(), a.share.as_os_str()]);
    settle(&[&a, &b]);
    assert_tree(&before, &a.share);
}

#[test]
fn what_changed_while_left_was_off_is_found() {
    let world = World::new();
    let (mut a, b) = with_files(&world, 30);
    fill(&a.share.join("big"), "big", 20_000_000);
    settle(&[&a, &b]);
    a.stop();
    write(&a.share.join("d0/f0"), "edited");
    fs::remove_file(a.share.join("d1/f1")).unwrap();
    fs::rename(a.share.join("d2"), a.share.join("d3")).unwrap();
    write(&a.share.join("new/file"), "new");
    // Same size and mtime, other bytes: only ctime tells.
    let meta = fs::metadata(a.share.join("d1/f4")).unwrap();
    overwrite(&a.share.join("d1/f4"), "sly", [(100, 50)]);
    set_mtime_of(&a.share.join("d1/f4"), &meta);
    let wanted = snapshot(&a.share);
    a.restart();
    settle(&[&a, &b]);
    assert_tree(&wanted, &b.share);
    // Nothing was read again that did not change: what was read since then is far less than `big`.
    let read = bytes_read(a.pid());
    assert!(read < 10_000_000, "{read} bytes were read");
}

fn set_mtime_of(path: &Path, meta: &fs::Metadata) {
    let time = Timespec {
        tv_sec: meta.mtime(),
        tv_nsec: meta.mtime_nsec(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
}

/// Bytes that a process has read with system calls.
fn bytes_read(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = io.lines().find_map(|l| l.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_corrupt_index_is_made_anew_and_nothing_moves() {
    let world = World::new();
    let (mut a, mut b) = with_files(&world, 40);
    fill(&a.share.join("big"), "big", 10_000_000);
    settle(&[&a, &b]);
    let before = snapshot(&a.share);
    for device in [&mut a, &mut b] {
        device.stop();
        let own = device.share.join(".left");
        let index = own.join("index.db");
        let size = fs::metadata(&index).unwrap().len();
        // All but the first page of the file, then the first one as well.
        let from = if device.name == "a" {
            4096.min(size / 2)
        } else {
            0
        };
        overwrite(&index, "garbage", [(from, size - from)]);
        for beside in ["index.db-wal", "index.db-shm"] {
            let _ = fs::remove_file(own.join(beside));
        }
        device.restart();
    }
    settle(&[&a, &b]);
    assert_tree(&before, &b.share);
    for device in [&a, &b] {
        let status = device.status();
        let notices = status["notices"].to_string();
        assert!(notices.contains("index"), "{}: {notices}", device.name);
        let wire = device.wire();
        assert!(wire.0 + wire.1 < 100_000, "content travelled: {wire:?}");
    }
    // And it works on.
    fs::remove_file(a.share.join("d0/f0")).unwrap();
    write(&b.share.join("d1/f1"), "edited");
    settle(&[&a, &b]);
    settle(&[&b, &a]);
    assert!(!b.share.join("d0/f0").exists());
}

#[test]
fn a_lost_index_does_not_bring_back_what_was_deleted_nor_lose_edits() {
    let world = World::new();
    let (mut a, b) = with_files(&world, 12);
    a.stop();
    write(&a.share.join("d0/f0"), "edited while off");
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = fs::remove_file(a.share.join(".left").join(name));
    }
    write(&b.share.join("d1/f1"), "edited on b");
    a.restart();
    settle(&[&a, &b]);
    // Without its index a cannot know which of both is newer, so both are kept.
    let all: Vec<_> = snapshot(&a.share).into_keys().collect();
    let text = |prefix: &str| -> Vec<String> {
        all.iter()
            .map(|p| String::from_utf8_lossy(p).into_owned())
            .filter(|p| p.starts_with(prefix))
            .map(|p| String::from_utf8_lossy(&fs::read(a.share.join(p)).unwrap()).into_owned())
            .collect()
    };
    assert!(text("d0/f0").contains(&"edited while off".into()));
    assert!(text("d1/f1").contains(&"edited on b".into()));
}

#[test]
fn verify_finds_and_heals_silent_damage() {
    let world = World::new();
    let (mut a, b) = with_files(&world, 6);
    fill(&a.share.join("big"), "big", 9_000_000);
    settle(&[&a, &b]);
    let before = snapshot(&a.share);
    let clean: serde_json::Value = serde_json::from_str(&a.ok(&["verify", "--json"])).unwrap();
    assert_eq!(
        (
            clean["files"].as_u64(),
            clean["damaged"].as_array().map(Vec::len)
        ),
        (Some(7), Some(0))
    );

    // As a disk damages a file: the bytes change below the file system. A test cannot do that, but
    // it can tell the index that the file has always looked as it does after the damage.
    a.stop();
    for name in ["big", "d0/f0"] {
        let path = a.share.join(name);
        let meta = fs::metadata(&path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"rotten", 500).unwrap();
        drop(file);
        set_mtime_of(&path, &meta);
        forge_ctime(&a, name, &path);
    }
    a.restart();
    a.wait();
    let out = a.run(&["verify", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    println!("{report}");
    assert_eq!(report["damaged"].as_array().unwrap().len(), 2, "{report}");
    assert_eq!(report["healed"].as_array().unwrap().len(), 2, "{report}");
    assert!(out.status.success());
    assert_tree(&before, &a.share);
    assert_tree(&before, &b.share);
}

/// Makes the index believe that a file has had its present ctime all along.
fn forge_ctime(device: &Device, name: &str, path: &Path) {
    let id = DeviceId::parse(device.ok(&["id"]).trim()).unwrap();
    let (mut index, opened) = IndexDb::open(&device.share.join(".left/index.db"), id).unwrap();
    assert_eq!(opened.rebuilt, None);
    let key = RelPath::new(name).unwrap();
    let mut stat = index.get(&key).unwrap().unwrap().stat.unwrap();
    let meta = fs::metadata(path).unwrap();
    stat.ctime.secs = meta.ctime();
    stat.ctime.nanos = meta.ctime_nsec() as u32;
    let txn = Txn {
        touch: vec![(key, stat)],
        ..Txn::default()
    };
    index.commit(txn).unwrap();
}

#[test]
fn a_full_disk_pauses_and_goes_on() {
    let world = World::new();
    let (mut a, mut b) = (world.device("a"), world.device("b"));
    let Some(_small) = Small::mount(&b.share, "24m") else {
        eprintln!("skipped: no file system can be mounted here");
        return;
    };
    fill(&b.share.join("in the way"), "filler", 14_000_000);
    write(&b.share.join(".leftignore"), "in the way\n");
    let ticket = a.share();
    b.join(&ticket);
    b.wait();
    fill(&a.share.join("big"), "big", 16_000_000);
    write(&a.share.join("small"), "s");
    b.expect("notice", |e| e["text"].as_str().unwrap().contains("room"));
    until("the status says so", || {
        let status = b.status();
        assert_ne!(status["state"], "synced", "{status}");
        status["notices"].to_string().contains("room")
    });
    assert!(!b.share.join("big").exists());
    fs::remove_file(b.share.join("in the way")).unwrap();
    a.wait();
    b.wait();
    assert_same(&a.share, &b.share);
    until("the status says nothing of it", || {
        !b.status()["notices"].to_string().contains("room")
    });
    b.stop();
}

/// What is older by its time wins all the same when it was written later.
#[test]
fn a_newer_edit_with_an_older_time_goes_before() {
    let world = World::new();
    let (a, b) = with_files(&world, 3);
    let path = a.share.join("d0/f0");
    write(&path, "newer, with an old time");
    let meta = fs::metadata("/").unwrap();
    set_mtime_of(&path, &meta);
    settle(&[&a, &b]);
    assert_eq!(
        fs::read(b.share.join("d0/f0")).unwrap(),
        b"newer, with an old time"
    );
}
