//! Shares that go one way by choice, and peers that are held still: with real processes.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{Device, World, settle, until, write};

/// Each has heard all that the others told and does nothing more; their folders may differ.
fn calm(devices: &[&Device]) {
    for _ in 0..2 {
        devices.iter().for_each(|d| d.wait());
    }
}

fn mode(device: &Device, mode: &str) {
    device.ok(&[Path::new("mode"), &device.share, Path::new(mode)]);
    until("the mode", || device.status()["mode"] == mode);
}

fn withheld(device: &Device) -> Vec<(String, String)> {
    let status = device.status();
    let all = status["withheld"].as_array().unwrap().iter();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    all.map(|w| (text(&w["path"]), text(&w["change"])))
        .collect()
}

fn read(device: &Device, path: &str) -> Option<String> {
    fs::read_to_string(device.share.join(path)).ok()
}

#[test]
fn a_device_that_only_sends() {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    for (path, text) in [("kept", "1"), ("changed", "2"), ("deleted", "3")] {
        write(&a.share.join(path), text);
    }
    settle(&[&a, &b]);
    mode(&b, "send-only");
    write(&a.share.join("changed"), "22");
    fs::remove_file(a.share.join("deleted")).unwrap();
    write(&a.share.join("dir/new"), "4");
    write(&b.share.join("mine"), "5");
    calm(&[&a, &b]);
    let all = [
        ("changed", "changed"),
        ("deleted", "deleted"),
        ("dir", "new"),
        ("dir/new", "new"),
    ];
    let all = all.map(|(p, c)| (p.to_owned(), c.to_owned()));
    assert_eq!(withheld(&b), all);
    assert_eq!(read(&b, "changed").as_deref(), Some("2"));
    assert_eq!(read(&a, "mine").as_deref(), Some("5"));
    let shown = b.ok(&["status"]);
    assert!(shown.contains("deleted there: deleted"), "{shown}");

    // It stays so over a restart. What has to come from others is not taken while they are away; a
    // part is when they are back.
    a.stop();
    let alone = || b.status()["peers"][0]["connected"] == false;
    until("a is away", alone);
    let out = b.run(&[Path::new("take"), &b.share, Path::new("changed")]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("none is connected"), "{said}");
    b.stop();
    a.restart();
    b.restart();
    calm(&[&a, &b]);
    assert_eq!(withheld(&b).len(), 4);
    b.ok(&["take".as_ref(), b.share.as_os_str(), "changed".as_ref()]);
    until("the change", || {
        read(&b, "changed").as_deref() == Some("22")
    });
    assert_eq!(withheld(&b).len(), 3);

    // Its own state wins over the rest.
    b.ok(&[Path::new("override"), &b.share]);
    settle(&[&a, &b]);
    assert_eq!(read(&a, "deleted").as_deref(), Some("3"));
    assert!(!a.share.join("dir").exists());
    assert!(withheld(&b).is_empty());
    let out = a.ok(&["log".as_ref(), a.share.join("dir/new").as_os_str()]);
    assert!(out.contains("dir/new"), "their version is kept: {out}");

    mode(&b, "two-way");
    write(&a.share.join("more"), "6");
    settle(&[&a, &b]);
    assert_eq!(read(&b, "more").as_deref(), Some("6"));
}

#[test]
fn a_device_that_only_receives() {
    let world = World::new();
    let (a, b) = world.pair();
    write(&a.share.join("file"), "1");
    settle(&[&a, &b]);
    mode(&b, "receive-only");
    settle(&[&a, &b]);
    write(&b.share.join("file"), "mine");
    write(&b.share.join("new"), "mine");
    write(&a.share.join("other"), "2");
    calm(&[&a, &b]);
    until("the edits", || b.status()["local_edit_count"] == 2);
    assert_eq!(read(&a, "file").as_deref(), Some("1"));
    assert!(!a.share.join("new").exists());
    assert_eq!(read(&b, "other").as_deref(), Some("2"));
    b.ok(&[Path::new("revert"), &b.share, Path::new("file")]);
    until("the share's", || read(&b, "file").as_deref() == Some("1"));
    // What is left of it is told when it goes both ways again.
    mode(&b, "two-way");
    settle(&[&a, &b]);
    assert_eq!(read(&a, "new").as_deref(), Some("mine"));
}

#[test]
fn one_peer_is_held_still() {
    let world = World::new();
    let (mut a, b) = world.pair();
    let mut c = world.device("c");
    let ticket = a.ok(&["ticket".as_ref(), a.share.as_os_str(), "--json".as_ref()]);
    let ticket: Value = serde_json::from_str(&ticket).unwrap();
    c.join(ticket["ticket"].as_str().unwrap());
    settle(&[&a, &b, &c]);
    // It would bring the edit to b all the same.
    c.stop();
    let peer = |of: &Device, name: &str| {
        let status = of.status();
        let peers = status["peers"].as_array().unwrap();
        peers.iter().find(|p| p["name"] == name).unwrap().clone()
    };
    let pause = |a: &Device, what: &str, who: &str| {
        a.ok(&[
            what.as_ref(),
            a.share.as_os_str(),
            "--peer".as_ref(),
            who.as_ref(),
        ]);
    };
    pause(&a, "pause", "b");
    until("it is gone", || peer(&a, "b")["connected"] == false);
    a.stop();
    a.restart();
    write(&a.share.join("file"), "1");
    c.restart();
    pause(&c, "pause", "b");
    until("the file", || c.share.join("file").exists());
    let b_of_a = peer(&a, "b");
    assert_eq!(
        (&b_of_a["paused"], &b_of_a["connected"]),
        (&true.into(), &false.into())
    );
    assert!(!b.share.join("file").exists());
    assert!(a.ok(&["status"]).contains(", paused"));
    pause(&a, "resume", "b");
    until("the file", || b.share.join("file").exists());
    let wrong = a.run(&[
        "pause".as_ref(),
        a.share.as_os_str(),
        "--peer".as_ref(),
        "x".as_ref(),
    ]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("cannot pause `x`"));
}
