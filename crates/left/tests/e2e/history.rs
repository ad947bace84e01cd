//! Old versions: what is kept, bringing it back, conflicts.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::common::{Device, World, assert_tree, fill, settle, snapshot, write};

/// A command about a path in the device's share, with `--json`: its exit code and its answers.
fn ask(device: &Device, command: &str, path: &str, more: &[&str]) -> (i32, Vec<Value>) {
    let whole = device.share.join(path);
    let mut args: Vec<&OsStr> = vec![command.as_ref(), whole.as_os_str(), "--json".as_ref()];
    args.extend(more.iter().map(OsStr::new));
    let out = device.run(&args);
    let text = String::from_utf8(out.stdout).unwrap();
    let answers = text.lines().map(|l| serde_json::from_str(l).unwrap());
    (out.status.code().unwrap(), answers.collect())
}

/// One that must succeed.
fn ok(device: &Device, command: &str, path: &str, more: &[&str]) -> Vec<Value> {
    let (code, answers) = ask(device, command, path, more);
    assert_eq!(code, 0, "{command} {path}: {answers:?}\n{}", device.log());
    answers
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// A moment that lies after all that was done and before all that follows, as a version.
fn moment() -> String {
    let pause = std::time::Duration::from_millis(5);
    std::thread::sleep(pause);
    let ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    std::thread::sleep(pause);
    let time = jiff::Timestamp::from_millisecond(ms.as_millis() as i64).unwrap();
    time.to_string()
}

/// The conflict copies in a folder.
fn copies(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().flatten().map(|e| e.path());
    entries
        .filter(|p| p.to_string_lossy().contains(".conflict-"))
        .collect()
}

#[test]
fn a_version_comes_back_and_goes_to_the_peers() {
    let world = World::new();
    let (mut a, b) = world.pair();
    write(&a.share.join("d/f@home.txt"), "one\ntwo\n");
    settle(&[&a, &b]);
    write(&a.share.join("d/f@home.txt"), "one\n2\n");
    settle(&[&a, &b]);
    write(&a.share.join("d/f@home.txt"), "one\nthree\nand more\n");
    settle(&[&a, &b]);
    let name = "d/f@home.txt";
    let log = ok(&b, "log", name, &[]);
    let versions: Vec<_> = log.iter().filter(|v| v["n"].is_u64()).collect();
    assert_eq!(versions.len(), 2, "{log:?}");
    assert_eq!(
        (&versions[0]["size"], &versions[1]["size"]),
        (&6.into(), &8.into())
    );
    let changes: Vec<_> = log.iter().filter(|v| v["what"].is_string()).collect();
    let whats: Vec<_> = changes
        .iter()
        .map(|c| c["what"].as_str().unwrap())
        .collect();
    assert_eq!(whats, ["changed", "changed", "created"]);
    assert!(changes.iter().all(|c| c["by"] == "a"), "{changes:?}");
    assert_eq!(changes[0]["kept"], versions[0]["id"]);
    assert_eq!(changes[2]["kept"], Value::Null);
    // Where it was edited nothing is kept, and that is said.
    let (code, answers) = ask(&a, "restore", name, &[]);
    assert_eq!(code, 1);
    assert!(
        answers[0]["why"].as_str().unwrap().contains("no version"),
        "{answers:?}"
    );

    let diff = ok(&b, "diff", name, &[]);
    let text = diff[0]["text"].as_str().unwrap();
    assert!(text.contains("-2\n+three\n+and more\n"), "{text}");
    let diff = ok(&b, "diff", &format!("{name}@2"), &["--to", "1"]);
    assert!(diff[0]["text"].as_str().unwrap().contains("-two\n+2\n"));

    let would = ok(&b, "restore", &format!("{name}@2"), &["--dry-run"]);
    assert_eq!(
        (&would[0]["restored"], &would[0]["dry_run"]),
        (&1.into(), &true.into())
    );
    assert_eq!(read(&b.share.join(name)), "one\nthree\nand more\n");
    ok(&b, "restore", &format!("{name}@2"), &[]);
    settle(&[&b, &a]);
    assert_eq!(read(&a.share.join(name)), "one\ntwo\n");
    // What stood there is kept on both, so that this can be taken back too.
    ok(&a, "restore", name, &[]);
    settle(&[&a, &b]);
    assert_eq!(read(&b.share.join(name)), "one\nthree\nand more\n");
    // A number in a name of its own is no version.
    write(&b.share.join("d/f@2"), "mine");
    b.wait();
    assert_eq!(ask(&b, "restore", "d/f@2", &[]).0, 1);
    assert_eq!(ask(&b, "restore", "d/f", &["--at", "nonsense"]).0, 2);
    a.stop();
    // The same with nothing running.
    write(&a.share.join(name), "late");
    ok(&a, "restore", &format!("{name}@2"), &[]);
    assert!(["one\ntwo\n", "one\nthree\nand more\n"].contains(&read(&a.share.join(name)).as_str()));
    let kept = ok(&a, "log", name, &[]);
    let size = |v: &&Value| v["n"] == 1 && v["size"] == 4;
    assert!(
        kept.iter().any(|v| size(&v)),
        "what was written meanwhile is kept: {kept:?}"
    );
}

#[test]
fn a_deletion_is_taken_back_with_one_command() {
    let world = World::new();
    let (a, b) = world.pair();
    for n in 0..120 {
        write(
            &a.share.join(format!("photos/{}/{n}.jpg", n % 7)),
            format!("photo {n}"),
        );
        write(&a.share.join(format!("docs/{n}.txt")), format!("text {n}"));
    }
    fill(&a.share.join("photos/film.bin"), "film", 3_000_000);
    fs::create_dir(a.share.join("photos/empty")).unwrap();
    symlink("film.bin", a.share.join("photos/link")).unwrap();
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(a.share.join("photos/film.bin"), private).unwrap();
    settle(&[&a, &b]);
    let before = snapshot(&b.share);
    // Renamed meanwhile: not gone.
    fs::rename(a.share.join("docs/7.txt"), a.share.join("docs/seven.txt")).unwrap();
    settle(&[&a, &b]);
    fs::rename(a.share.join("docs/seven.txt"), a.share.join("docs/7.txt")).unwrap();
    settle(&[&a, &b]);
    fs::remove_dir_all(a.share.join("photos")).unwrap();
    settle(&[&a, &b]);
    assert!(!b.share.join("photos").exists());

    let would = &ok(&b, "restore", "", &["--deleted-since", "10m", "--dry-run"])[0];
    assert_eq!(
        would["restored"], 123,
        "120 photos, film, link, empty folder: {would}"
    );
    assert!(!b.share.join("photos").exists());
    let report = &ok(&b, "restore", "", &["--deleted-since", "10m"])[0];
    assert_eq!(report["missing_count"], 0, "{report}");
    settle(&[&b, &a]);
    assert_tree(&before, &b.share);
    assert_tree(&before, &a.share);
    assert_eq!(report["restored"], 123, "{report}");
    let again = &ok(&b, "restore", "", &["--deleted-since", "10m"])[0];
    assert_eq!(again["restored"], 0, "{again}");
    // A deletion by hand on this device is the others' to take back, and that is said.
    fs::remove_file(b.share.join("docs/1.txt")).unwrap();
    settle(&[&b, &a]);
    let (code, answers) = ask(&b, "restore", "docs", &["--deleted-since", "10m"]);
    assert_eq!(
        (code, &answers[0]["missing"][0]["path"]),
        (1, &"docs/1.txt".into())
    );
    ok(&a, "restore", "docs", &["--deleted-since", "10m"]);
    settle(&[&a, &b]);
    assert_tree(&before, &b.share);
}

#[test]
fn a_folder_as_of_a_time() {
    let world = World::new();
    let (a, b) = world.pair();
    write(&a.share.join("d/changed"), "old");
    write(&a.share.join("d/sub/deleted"), "gone");
    write(&a.share.join("d/same"), "same");
    write(&a.share.join("d/here"), "before b's edit");
    write(&a.share.join("other"), "old");
    settle(&[&a, &b]);
    let time = moment();
    write(&a.share.join("d/changed"), "new");
    fs::remove_dir_all(a.share.join("d/sub")).unwrap();
    write(&a.share.join("d/new"), "new");
    write(&a.share.join("other"), "new");
    settle(&[&a, &b]);
    write(&a.share.join("d/changed"), "newer");
    write(&b.share.join("d/here"), "after b's edit");
    settle(&[&a, &b]);
    write(&a.share.join("d/new"), "changed since");
    settle(&[&a, &b]);
    let (code, answers) = ask(&b, "restore", &format!("d@{time}"), &[]);
    let report = &answers[0];
    // What b edited itself is not kept at b; all else is as it was.
    assert_eq!((code, &report["missing_count"]), (1, &1.into()), "{report}");
    assert_eq!(report["missing"][0]["path"], "d/here");
    settle(&[&b, &a]);
    for (path, text) in [
        ("d/changed", "old"),
        ("d/sub/deleted", "gone"),
        ("d/same", "same"),
        ("d/new", "changed since"),
        ("d/here", "after b's edit"),
        ("other", "new"),
    ] {
        assert_eq!(read(&a.share.join(path)), text, "{path}");
    }
    // The device that has it brings it.
    ok(&a, "restore", &format!("d/here@{time}"), &[]);
    settle(&[&a, &b]);
    assert_eq!(read(&b.share.join("d/here")), "before b's edit");
    // A folder without a time, a time when it was not there, a place that is no share.
    assert_eq!(ask(&b, "restore", "d", &[]).0, 2);
    assert_eq!(ask(&b, "restore", &format!("d/new@{time}"), &[]).0, 1);
    assert_eq!(ask(&b, "restore", "typo", &[]).0, 1);
    assert_eq!(ask(&b, "restore", "typo", &["--deleted-since", "1h"]).0, 1);
    let out = b.run(&["restore", "/", "--deleted-since", "1h"]);
    assert_eq!(out.status.code(), Some(2));
}

/// Edits both folders while neither device runs.
fn apart(a: &mut Device, b: &mut Device, edit: impl FnOnce(&Path, &Path)) {
    a.stop();
    b.stop();
    edit(&a.share, &b.share);
    a.restart();
    b.restart();
    settle(&[a, b]);
}

#[test]
fn conflicts_end_as_one_says() {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    for name in [
        "ours.txt",
        "theirs.txt",
        "both.txt",
        "merge.txt",
        "marks.txt",
    ] {
        write(&a.share.join(name), "first\n");
    }
    settle(&[&a, &b]);
    for name in ["merge.txt", "marks.txt"] {
        write(&a.share.join(name), "1\n2\n3\n4\n5\n");
    }
    settle(&[&a, &b]);
    write(&a.share.join("merge.txt"), "1\n2\n3\n4\n5\n6\n");
    settle(&[&a, &b]);
    apart(&mut a, &mut b, |a, b| {
        for (dir, by) in [(a, "a"), (b, "b")] {
            for name in ["ours.txt", "theirs.txt", "both.txt"] {
                write(&dir.join(name), format!("by {by}\n"));
            }
            write(&dir.join("marks.txt"), format!("1 by {by}\n2\n3\n4\n5\n"));
        }
        write(&a.join("merge.txt"), "one\n2\n3\n4\n5\n6\n");
        write(&b.join("merge.txt"), "1\n2\n3\nfour\n5\n6\n");
    });
    let listed = ok(&b, "conflicts", "", &[]);
    assert_eq!(listed.len(), 5, "{listed:?}");
    // The file and its copy: one of them is b's own, and it is known which.
    for c in &listed {
        if c["path"] == "both.txt" {
            let copy = read(&b.share.join(c["copy"].as_str().unwrap()));
            let own = if c["copy_is_ours"] == true {
                "by b\n"
            } else {
                "by a\n"
            };
            assert_eq!(copy, own);
        }
    }
    ok(&b, "resolve", "ours.txt", &["--keep", "ours"]);
    ok(&b, "resolve", "theirs.txt", &["--keep", "theirs"]);
    let both = &ok(&b, "resolve", "both.txt", &["--keep", "both"])[0];
    ok(
        &b,
        "resolve",
        "merge.txt",
        &["--keep", "merge", "--base", "1"],
    );
    let (code, marked) = ask(&b, "resolve", "marks.txt", &["--keep", "merge"]);
    assert_eq!((code, &marked[0]["done"]), (1, &false.into()));
    settle(&[&b, &a]);
    assert_eq!(read(&a.share.join("ours.txt")), "by b\n");
    assert_eq!(read(&a.share.join("theirs.txt")), "by a\n");
    assert_eq!(read(&a.share.join("merge.txt")), "one\n2\n3\nfour\n5\n6\n");
    let mut two = [
        read(&a.share.join("both.txt")),
        read(&a.share.join(both["written"].as_str().unwrap())),
    ];
    two.sort();
    assert_eq!(two, ["by a\n", "by b\n"]);
    let marks = read(&a.share.join(marked[0]["written"].as_str().unwrap()));
    for line in ["1 by a\n", "1 by b\n", "<<<<<<<", ">>>>>>>"] {
        assert!(marks.contains(line), "{marks}");
    }
    // Only the one that was not decided is left; by its copy's name, offline.
    assert_eq!(copies(&a.share).len(), 1);
    let copy = copies(&a.share)[0].file_name().unwrap().to_owned();
    a.stop();
    ok(&a, "resolve", copy.to_str().unwrap(), &["--keep", "file"]);
    assert!(copies(&a.share).is_empty());
    // Dropped is not gone.
    assert_eq!(ok(&a, "log", copy.to_str().unwrap(), &[])[0]["n"], 1);
    assert_eq!(ask(&a, "resolve", "marks.txt", &["--keep", "file"]).0, 1);
}

#[test]
fn old_versions_go_with_time() {
    let world = World::new();
    let mut a = world.device("a");
    a.share();
    a.stop();
    let keep = |stamp: &str, path: &str, text: &str| {
        write(
            &a.share
                .join(".left/history")
                .join(format!("{stamp}-000000"))
                .join(path),
            text,
        );
    };
    let now = jiff::Timestamp::now();
    let ago = |hours: i64| {
        let t = now - std::time::Duration::from_secs(hours as u64 * 3600);
        let t = t.to_zoned(jiff::tz::TimeZone::UTC);
        // The first and the last minute of that hour.
        ["00", "58"].map(|minute| t.strftime(&format!("%Y%m%dT%H{minute}00.000Z")).to_string())
    };
    keep("20200101T000000.000Z", "very/old", "x");
    for stamp in ago(3) {
        keep(&stamp, "today", "x");
    }
    let [first, last] = ago(50);
    keep(&first, "hour", "1");
    keep(&first, "alone", "1");
    keep(&last, "hour", "2");
    let [first, last] = ago(20 * 24);
    keep(&first, "day", "1");
    keep(&last, "day", "2");
    a.restart();
    let sizes = |path: &str| {
        ok(&a, "log", path, &[])
            .iter()
            .filter(|v| v["n"].is_u64())
            .count()
    };
    crate::common::until("the old ones are gone", || {
        sizes("very/old") == 0 && sizes("day") == 1
    });
    crate::common::until("thinned", || sizes("hour") == 1);
    assert_eq!((sizes("today"), sizes("alone")), (2, 1));
    let text = a.ok(&["diff".as_ref(), a.share.join("hour@1").as_os_str()]);
    assert!(text.contains("-2"), "the last one stays: {text}");
    let b = world.device("b");
    fs::create_dir_all(&b.home).unwrap();
    write(&b.home.join("config.toml"), "[history]\ndays = 0\n");
    let out = b.run(&["up"]);
    let err = String::from_utf8(out.stderr).unwrap();
    assert!(!out.status.success() && err.contains("days"), "{err}");
}

#[test]
fn a_version_that_others_keep_is_told_with_their_names() {
    let world = World::new();
    let (a, b) = world.pair();
    write(&a.share.join("plan"), "one");
    settle(&[&a, &b]);
    write(&a.share.join("plan"), "another");
    settle(&[&a, &b]);
    let out = a.run(&["restore".as_ref(), a.share.join("plan").as_os_str()]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("run the same on b"), "{said}");
    b.ok(&["restore".as_ref(), b.share.join("plan").as_os_str()]);
    settle(&[&a, &b]);
    assert_eq!(fs::read(a.share.join("plan")).unwrap(), b"one");
    // What is asked about a file names its share.
    let out = b.ok(&[
        "log".as_ref(),
        b.share.join("plan").as_os_str(),
        "--json".as_ref(),
    ]);
    let first: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!(first["share"].as_str(), b.share.to_str());
}
