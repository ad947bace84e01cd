//! The commands around the synchronising itself.

use std::fs;
use std::process::Stdio;

use crate::common::{Small, World, assert_tree, fill, left, settle, snapshot, until, write};

#[test]
fn a_read_only_member_receives_only() {
    let world = World::new();
    let (mut a, mut b) = (world.device("a"), world.device("b"));
    write(&a.share.join("f"), "of a");
    a.share();
    let dir = a.share.as_os_str();
    let out = a.ok(&[
        "ticket".as_ref(),
        dir,
        "--read-only".as_ref(),
        "--json".as_ref(),
    ]);
    let ticket: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(ticket["role"], "read-only");
    b.join(ticket["ticket"].as_str().unwrap());
    settle(&[&a, &b]);
    assert_eq!(b.status()["role"], "read-only");
    let before = snapshot(&a.share);
    write(&b.share.join("mine"), "of b");
    write(&b.share.join("f"), "changed by b");
    fs::create_dir(b.share.join("dir")).unwrap();
    b.wait();
    a.wait();
    assert_tree(&before, &a.share);
    // And a restart changes nothing of that.
    b.kill9();
    b.restart();
    write(&a.share.join("later"), "l");
    a.wait();
    assert_eq!(fs::read(b.share.join("later")).unwrap(), b"l");
    assert!(!a.share.join("mine").exists() && b.share.join("mine").exists());
    // Nor may it let others in.
    let out = b.run(&["ticket".as_ref(), b.share.as_os_str()]);
    assert!(!out.status.success());
}

#[test]
fn leaving_deletes_nothing() {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    write(&a.share.join("dir/f"), "f");
    settle(&[&a, &b]);
    let before = snapshot(&b.share);
    b.ok(&["leave".as_ref(), b.share.as_os_str()]);
    assert_tree(&before, &b.share);
    assert!(!b.share.join(".left").exists());
    write(&a.share.join("later"), "l");
    let text = b.ok(&["status"]);
    assert!(text.contains("No shares"), "{text}");
    assert!(!b.share.join("later").exists());
    b.stop();
    // It comes back with a new ticket, and merges.
    let out = a.ok(&["ticket".as_ref(), a.share.as_os_str()]);
    b.join(out.lines().find(|l| l.starts_with("left1")).unwrap());
    settle(&[&a, &b]);
    assert!(b.share.join("later").exists());
    a.stop();
}

#[test]
fn pausing_holds_still_over_a_restart() {
    let world = World::new();
    let (a, mut b) = world.pair();
    settle(&[&a, &b]);
    b.ok(&["pause".as_ref(), b.share.as_os_str()]);
    until("it is paused", || b.state() == "paused");
    write(&a.share.join("f"), "f");
    let out = a.run(&["wait", "--timeout", "1s"]);
    assert_eq!(out.status.code(), Some(3), "a paused peer is not in sync");
    let out = b.run(&["wait", "--timeout", "100ms"]);
    let err = String::from_utf8(out.stderr).unwrap();
    assert!(err.contains("left resume"), "{err}");
    b.stop();
    b.restart();
    until("it is paused still", || b.state() == "paused");
    assert!(!b.share.join("f").exists());
    b.ok(&["resume".as_ref(), b.share.as_os_str()]);
    settle(&[&a, &b]);
}

#[test]
fn a_limit_holds_data_back_and_nothing_else() {
    let world = World::new();
    let (a, mut b) = world.pair();
    settle(&[&a, &b]);
    let limit = |b: &crate::common::Device, down: &str| {
        b.ok(&[
            "limit".as_ref(),
            b.share.as_os_str(),
            "--down".as_ref(),
            down.as_ref(),
        ])
    };
    let text = limit(&b, "64kB");
    assert!(text.contains("up unlimited, down 64 kB/s"), "{text}");
    // Alone it would take minutes; the test waits for one at most.
    fill(&a.share.join("big.bin"), "big", 12_000_000);
    until("it is on its way", || b.status()["need_files"] == 1);
    fs::create_dir(a.share.join("dir")).unwrap();
    until("what needs no data comes at once", || {
        b.share.join("dir").is_dir()
    });
    assert!(!b.share.join("big.bin").exists());
    // It stays over a restart.
    b.stop();
    b.restart();
    let text = b.ok(&["limit".as_ref(), b.share.as_os_str()]);
    assert!(text.contains("down 64 kB/s"), "{text}");
    limit(&b, "unlimited");
    settle(&[&a, &b]);
    let out = b.run(&[
        "limit".as_ref(),
        b.share.as_os_str(),
        "--up".as_ref(),
        "fast".as_ref(),
    ]);
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn waiting_for_nobody_is_in_vain() {
    let world = World::new();
    let (a, mut b) = world.pair();
    settle(&[&a, &b]);
    b.stop();
    until("the peer is gone", || a.state() == "offline");
    let out = a.run(&["wait", "--timeout", "300ms"]);
    assert_eq!(out.status.code(), Some(3));
    let err = String::from_utf8(out.stderr).unwrap();
    assert!(err.lines().count() == 1 && err.contains("offline"), "{err}");
}

#[test]
fn several_shares_of_one_device() {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    let (more_a, more_b) = (world.path().join("more a"), world.path().join("more b"));
    // Through the left that runs already.
    let out = a.ok(&["share".as_ref(), more_a.as_os_str()]);
    let ticket = out.lines().find(|l| l.starts_with("left1")).unwrap();
    b.ok(&["join".as_ref(), ticket.as_ref(), more_b.as_os_str()]);
    write(&more_a.join("x"), "x");
    write(&a.share.join("y"), "y");
    settle(&[&a, &b]);
    a.kill9();
    b.stop();
    a.restart();
    b.restart();
    write(&more_b.join("z"), "z");
    settle(&[&b, &a]);
    for path in [more_b.join("x"), b.share.join("y"), more_a.join("z")] {
        assert!(path.exists(), "{}", path.display());
    }
    assert_eq!(a.ok(&["status"]).matches("synced").count(), 2);
}

#[test]
fn a_disk_that_is_read_only() {
    let world = World::new();
    let a = world.device("a");
    let Some(small) = Small::mount(&a.share, "4m") else {
        eprintln!("skipped: no file system can be mounted here");
        return;
    };
    small.read_only();
    let address = a.address();
    let out = a.run(&["share", a.share.to_str().unwrap(), "--listen", &address]);
    let err = String::from_utf8(out.stderr).unwrap();
    assert!(!out.status.success());
    assert!(
        err.lines().count() == 1 && err.contains("read-only"),
        "{err}"
    );
}

#[test]
fn the_demo_succeeds() {
    let world = World::new();
    let out = left(&world.path().join("home"))
        .args(["demo", "--quick"])
        .env("TMPDIR", world.path())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert_eq!(
        fs::read_dir(world.path()).unwrap().count(),
        0,
        "something is left behind"
    );
}
