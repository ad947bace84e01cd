//! What one is told when one mistypes, or asks for what cannot be.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::{Device, World, settle, until, write};

/// The exit code, and what was said.
fn said(device: &Device, args: &[&str]) -> (i32, String) {
    let out = device.run(args);
    let text = String::from_utf8(out.stdout).unwrap() + &String::from_utf8(out.stderr).unwrap();
    (out.status.code().unwrap(), text)
}

#[test]
fn a_mistyped_command_line() {
    let world = World::new();
    let device = world.device("a");
    for (args, words) in [
        (&["service"][..], "a word is missing"),
        (&["service"], "left service [OPTIONS] <COMMAND>"),
        (&["statsu"], "'statsu'; tip: a similar subcommand exists"),
        (&["send"], "were not provided: <PATHS>..."),
        (
            &["mode", "x", "sideways"],
            "two-way, send-only, receive-only",
        ),
        (&["log", "-n", "0"], "0 is not in 1.."),
    ] {
        let (code, text) = said(&device, args);
        assert!(code == 2 && text.contains(words), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    }
}

#[test]
fn a_mistyped_name_changes_nothing() {
    let world = World::new();
    let (a, b) = world.pair();
    write(&a.share.join("docs/plan.txt"), "plan");
    settle(&[&a, &b]);
    let share = b.share.to_str().unwrap();
    for how in [&[][..], &["--add"]] {
        let args = [&["choose", share][..], how, &["dosc"]].concat();
        let (code, text) = said(&b, &args);
        let words = "cannot choose dosc: there is no such file or folder";
        assert!(code == 1 && text.contains(words), "{text}");
    }
    assert!(b.share.join("docs/plan.txt").exists());
    assert!(said(&b, &["choose", share]).1.contains("holds everything"));
    // What is to be left out may come later.
    assert_eq!(said(&b, &["choose", share, "--remove", "cache"]).0, 0);
    for what in ["fetch", "drop"] {
        let (code, text) = said(&b, &[what, share]);
        assert!(code == 2 && text.contains("a whole share"), "{text}");
    }
    let (code, text) = said(&b, &["log-level", ""]);
    assert!(code != 0 && text.contains("it is empty"), "{text}");
    let (code, text) = said(&b, &["take", share]);
    assert!(
        code == 1 && text.contains("; to have it only send"),
        "{text}"
    );
}

#[test]
fn an_alarm_and_a_folder_that_is_gone() {
    let world = World::new();
    let (a, b) = world.pair();
    for n in 0..20 {
        write(&a.share.join(format!("docs/{n}")), "plan");
    }
    settle(&[&a, &b]);
    let away = a.share.with_file_name("away");
    fs::rename(&a.share, &away).unwrap();
    until("it is noticed", || a.state() == "alarm");
    let share = a.share.to_str().unwrap();
    let (_, text) = said(&a, &["doctor"]);
    let about = text
        .lines()
        .filter(|l| l.starts_with("BAD") && l.contains(share));
    assert_eq!(about.count(), 1, "{text}");
    fs::rename(&away, &a.share).unwrap();
    until("it goes on", || a.state() == "synced");

    fs::remove_dir_all(a.share.join("docs")).unwrap();
    until("it is noticed", || a.state() == "alarm");
    // That it goes on would not be true.
    let (code, text) = said(&a, &["resume", share]);
    assert!(code == 0 && text.contains("looked at again"), "{text}");
    until("it is noticed again", || a.state() == "alarm");
    let (_, text) = said(&a, &["resume", share, "--accept-deletions"]);
    assert!(text.contains("goes on."), "{text}");
    settle(&[&a, &b]);
    assert!(!b.share.join("docs").exists());
}

/// No ticket for what nobody can be given.
#[test]
fn what_may_not_be_read_is_not_offered() {
    let world = World::new();
    let mut device = world.device("a");
    let program = world.path().join("left");
    fs::copy(crate::common::LEFT, &program).unwrap();
    device.how.program = Some(program);
    device.how.uid = Some(65_534);
    let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    open(&world.path(), 0o777);
    let (dir, file) = (world.path().join("dir"), world.path().join("file"));
    fs::create_dir(&dir).unwrap();
    write(&file, "secret");
    for path in [&dir, &file] {
        open(path, 0o000);
        let (code, text) = said(&device, &["send", path.to_str().unwrap()]);
        assert!(code == 1 && text.contains("permission denied"), "{text}");
        assert!(!text.contains("left1"), "{text}");
    }
}
