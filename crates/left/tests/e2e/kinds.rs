//! What is synchronised, and what is left alone.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, mkfifoat, utimensat};

use crate::common::{World, fill, settle, snapshot, until, write};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn set_mtime(path: &Path, secs: i64, nanos: i64) {
    let time = Timespec {
        tv_sec: secs,
        tv_nsec: nanos,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn files_folders_and_links_of_all_sorts() {
    let world = World::new();
    let (mut a, mut b) = (world.device("a"), world.device("b"));
    let at = |name: &str| a.share.join(name);
    fs::create_dir_all(at("empty/inner")).unwrap();
    write(&at("zero"), "");
    write(&at(".hidden"), "h");
    write(&at(".hidden dir/.x"), "x");
    symlink("nowhere", at("dangling")).unwrap();
    symlink("/etc/hostname", at("absolute")).unwrap();
    symlink("empty", at("to folder")).unwrap();
    symlink("../../outside", at("upwards")).unwrap();
    set_mtime(&at("dangling"), 1_000_000_000, 123_456_789);
    for mode in [0o444, 0o755, 0o600, 0o4755, 0o640] {
        write(&at(&format!("mode {mode:o}")), "m");
        set_mode(&at(&format!("mode {mode:o}")), mode);
    }
    for mode in [0o700, 0o2775, 0o1777, 0o555] {
        write(&at(&format!("dir {mode:o}/f")), "m");
        set_mode(&at(&format!("dir {mode:o}")), mode);
    }
    for (n, (secs, nanos)) in [
        (0, 1),
        (1_234_567_890, 999_999_999),
        (-5, 500),
        (4_000_000_000, 7),
    ]
    .into_iter()
    .enumerate()
    {
        write(&at(&format!("time {n}")), "t");
        set_mtime(&at(&format!("time {n}")), secs, nanos);
    }
    let longest = "n".repeat(255);
    write(&at(&longest), "long");
    write(&at("deep").join(["d"; 39].join("/")).join("f"), "deep");
    write(&at("caf\u{e9}"), "NFC");
    write(&at("cafe\u{301}"), "NFD");
    write(&at("\u{1f980} \u{65e5}\u{672c}\n\t\"'\\"), "odd");
    write(
        &a.share.join(OsStr::from_bytes(b"not utf8 \xff\xfe")),
        "raw",
    );
    write(&at("Case"), "upper");
    write(&at("case"), "lower");
    fill(&at("big"), "big", 3_000_000);
    let before = snapshot(&a.share);

    let ticket = a.share();
    b.join(&ticket);
    settle(&[&a, &b]);
    assert!(
        before == snapshot(&b.share),
        "something was changed on the way"
    );
    assert_eq!(b.status()["problems"].as_array().unwrap().len(), 0);

    // Modes and times alone are changes too.
    set_mode(&b.share.join("zero"), 0o600);
    set_mode(&b.share.join("empty"), 0o711);
    set_mtime(&b.share.join("big"), 1_111_111_111, 111);
    let (before, _) = a.wire();
    settle(&[&b, &a]);
    assert!(a.wire().0 - before < 10_000, "content was sent again");
}

#[test]
fn one_kind_becomes_another() {
    let world = World::new();
    let (a, b) = world.pair();
    let swaps = ["file", "dir", "link"];
    let make = |path: &Path, kind: &str| match kind {
        "file" => write(path, "a file"),
        "dir" => write(&path.join("inner"), "in a folder"),
        _ => symlink("target", path).unwrap(),
    };
    let names = || {
        swaps
            .iter()
            .flat_map(|f| swaps.iter().map(move |t| (*f, *t)))
    };
    for (from, to) in names() {
        make(&a.share.join(format!("{from} to {to}")), from);
    }
    settle(&[&a, &b]);
    for (from, to) in names().filter(|(f, t)| f != t) {
        let path = b.share.join(format!("{from} to {to}"));
        if from == "dir" {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        make(&path, to);
    }
    settle(&[&b, &a]);
    assert!(a.share.join("file to dir/inner").exists());
    // And two paths change places.
    fs::rename(a.share.join("dir to dir"), a.share.join("x")).unwrap();
    fs::rename(a.share.join("file to file"), a.share.join("dir to dir")).unwrap();
    fs::rename(a.share.join("x"), a.share.join("file to file")).unwrap();
    settle(&[&a, &b]);
}

#[test]
fn holes_are_neither_sent_nor_allocated() {
    const SIZE: u64 = 1 << 30;
    let world = World::new();
    let (a, b) = world.pair();
    let outside = world.path().join("sparse");
    let file = File::create(&outside).unwrap();
    file.set_len(SIZE).unwrap();
    let data = crate::common::bytes("sparse", 0, 1_000_000);
    file.write_all_at(&data, 500_000_000).unwrap();
    file.write_all_at(b"end", SIZE - 3).unwrap();
    drop(file);
    fs::rename(outside, a.share.join("sparse")).unwrap();
    settle(&[&a, &b]);
    let blocks = fs::metadata(b.share.join("sparse")).unwrap().blocks() * 512;
    println!("allocated {blocks}, wire {:?}", b.wire());
    assert!(blocks < 3_000_000, "{blocks} bytes are allocated");
    assert!(b.wire().0 < 3_000_000, "{:?}", b.wire());
}

#[test]
fn renames_and_deletions() {
    let world = World::new();
    let (a, b) = world.pair();
    for n in 0..64 {
        fill(
            &a.share.join(format!("folder/sub/{n}")),
            &format!("{n}"),
            65_536,
        );
    }
    fill(&a.share.join("single"), "single", 5_000_000);
    settle(&[&a, &b]);
    let (before, _) = b.wire();
    fs::rename(a.share.join("folder"), a.share.join("renamed")).unwrap();
    settle(&[&a, &b]);
    fs::rename(a.share.join("single"), a.share.join("renamed/moved")).unwrap();
    settle(&[&a, &b]);
    // Renamed and edited at once.
    fs::rename(a.share.join("renamed"), a.share.join("again")).unwrap();
    fs::write(a.share.join("again/sub/0"), "edited").unwrap();
    settle(&[&a, &b]);
    let wire = b.wire().0 - before;
    println!("renames: {wire} bytes");
    assert!(wire < 50_000, "{wire} bytes were sent for renames");
    // Half of the share, and whole folders.
    fs::remove_dir_all(a.share.join("again/sub")).unwrap();
    settle(&[&a, &b]);
    assert!(!b.share.join("again/sub").exists() && b.share.join("again/moved").exists());
}

#[test]
fn special_files_are_reported_and_left_alone() {
    let world = World::new();
    let (a, b) = world.pair();
    mkfifoat(CWD, a.share.join("pipe"), 0o600.into()).unwrap();
    let _socket = UnixListener::bind(a.share.join("socket")).unwrap();
    write(&a.share.join("file"), "f");
    // The same name is a file there.
    settle(&[&a, &b]);
    until("both are reported", || {
        let status = a.status();
        let problems = status["problems"].as_array().unwrap().clone();
        ["pipe", "socket"]
            .iter()
            .all(|n| problems.iter().any(|p| p["path"] == *n))
    });
    assert!(!b.share.join("pipe").exists() && !b.share.join("socket").exists());
    assert!(a.share.join("pipe").exists());
    let text = a.ok(&["status"]);
    assert!(text.contains("pipe") && text.contains("socket"), "{text}");
    fs::remove_file(a.share.join("pipe")).unwrap();
    until("the problem is gone", || {
        let status = a.status();
        status["problems"]
            .as_array()
            .unwrap()
            .iter()
            .all(|p| p["path"] != "pipe")
    });
}

#[test]
fn what_is_ignored_and_what_is_ours_stays_here() {
    let world = World::new();
    let (a, b) = world.pair();
    write(&a.share.join(".leftignore"), "*.tmp\n/build/\n!keep.tmp\n");
    settle(&[&a, &b]);
    write(&a.share.join("x.tmp"), "no");
    write(&a.share.join("keep.tmp"), "yes");
    write(&a.share.join("build/out"), "no");
    write(&a.share.join("sub/build/out"), "yes");
    // Only at the root it is ours; this one is a folder of the user.
    write(&a.share.join("sub/.left/mine"), "yes");
    write(&a.share.join(".left/stray"), "no");
    write(&b.share.join("y.tmp"), "no");
    a.wait();
    b.wait();
    a.wait();
    for (name, there) in [
        (".leftignore", true),
        ("x.tmp", false),
        ("keep.tmp", true),
        ("build/out", false),
        ("sub/build/out", true),
        (".left/stray", false),
    ] {
        assert_eq!(b.share.join(name).exists(), there, "{name}");
    }
    assert!(!a.share.join("y.tmp").exists() && b.share.join("y.tmp").exists());
    assert!(a.share.join("x.tmp").exists() && a.share.join("build/out").exists());
    // A marker further down would be dangerous as well as useful: either way both agree.
    println!(
        "sub/.left/mine there: {}",
        b.share.join("sub/.left/mine").exists()
    );
}
