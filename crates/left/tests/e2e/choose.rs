//! Devices that hold a part of a share: choose, fetch, drop, and that none of it deletes anything.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{Device, World, assert_same, bytes, settle, snapshot, until, write};

/// Three devices with one share, all equal; `c` is the one that chooses.
fn three(world: &World) -> [Device; 3] {
    let (mut a, mut b, mut c) = (world.device("a"), world.device("b"), world.device("c"));
    for (path, len) in [
        ("old/one", 3000),
        ("old/deep/two", 300_000),
        ("new/three", 4000),
        ("top", 10),
    ] {
        write(&a.share.join(path), bytes(path, 0, len));
    }
    let ticket = a.share();
    b.join(&ticket);
    let ticket = a.ok(&["ticket".as_ref(), a.share.as_os_str()]);
    c.join(ticket.lines().next().unwrap());
    settle(&[&a, &b, &c]);
    [a, b, c]
}

fn choose(device: &Device, args: &[&str]) -> String {
    let mut all = vec!["choose", device.share.to_str().unwrap()];
    all.extend(args);
    device.ok(&all)
}

fn command(device: &Device, what: &str, path: &str) -> (Option<i32>, String) {
    let path = device.share.join(path);
    let out = device.run(&[what.as_ref(), path.as_os_str()]);
    let text = [out.stdout, out.stderr].concat();
    (out.status.code(), String::from_utf8(text).unwrap())
}

fn read(device: &Device, path: &str) -> Option<Vec<u8>> {
    fs::read(device.share.join(path)).ok()
}

fn wait(devices: &[&Device]) {
    for _ in 0..2 {
        devices.iter().for_each(|d| d.wait());
    }
}

/// What `left choose DIR` lists of a name.
fn listed(device: &Device, name: &str) -> Value {
    let dir = device.share.to_str().unwrap();
    let shown: Value = serde_json::from_str(&device.ok(&["choose", dir, "--json"])).unwrap();
    let entries = shown["entries"].as_array().unwrap();
    entries.iter().find(|e| e["name"] == name).cloned().unwrap()
}

#[test]
fn who_joins_with_a_choice_never_brings_the_rest() {
    let world = World::new();
    let (mut a, mut b) = (world.device("a"), world.device("b"));
    for path in ["old/one", "new/three", "new/deep/four", "top"] {
        write(&a.share.join(path), bytes(path, 0, 4000));
    }
    let ticket = a.share();
    write(&b.share.join("old/mine"), "was here");
    let mut args = vec![
        "join".into(),
        ticket.into(),
        b.share.clone().into_os_string(),
    ];
    args.extend(["--choose".into(), "new".into(), "nowhere/yet".into()]);
    b.start(&args);
    b.expect("share_started", |_| true);
    wait(&[&a, &b]);
    assert!(read(&b, "new/three").is_some() && read(&b, "new/deep/four").is_some());
    assert!(read(&b, "old/one").is_none() && read(&b, "top").is_none());
    // What was in the folder counts, and what comes later follows the choice.
    assert_eq!(read(&a, "old/mine").as_deref(), Some(&b"was here"[..]));
    write(&a.share.join("old/later"), "not here");
    write(&a.share.join("nowhere/yet/x"), "here");
    wait(&[&a, &b]);
    assert!(read(&b, "old/later").is_none() && read(&b, "nowhere/yet/x").is_some());
    assert_eq!(listed(&b, "top")["held"], false);
    // Nothing of the rest was ever staged.
    let status: Value = serde_json::from_str(&b.ok(&["status", "--json"])).unwrap();
    assert_eq!(status["shares"][0]["away_files"], 3);
    // A member says it with `left choose`.
    let ticket = a.ok(&["ticket".as_ref(), a.share.as_os_str()]);
    let ticket = ticket.lines().next().unwrap();
    let again = b.run(&["join", ticket, b.share.to_str().unwrap(), "--choose", "old"]);
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("left choose"));
}

#[test]
fn what_is_not_chosen_goes_here_only_and_comes_back() {
    let world = World::new();
    let [mut a, b, mut c] = three(&world);
    let whole = snapshot(&a.share);
    choose(&c, &["new", "top"]);
    assert!(!c.share.join("old").exists());
    let entry = listed(&c, "old");
    assert_eq!(
        (&entry["held"], &entry["away_bytes"], &entry["away_files"]),
        (&false.into(), &303_000.into(), &2.into())
    );
    assert_eq!(listed(&c, "new")["held"], true);
    wait(&[&a, &b, &c]);
    assert_eq!(snapshot(&a.share), whole);
    assert_same(&a.share, &b.share);
    assert_eq!(read(&c, "new/three"), read(&a, "new/three"));

    // An edit, a new file, a rename over the border and a deletion elsewhere are followed without bytes.
    write(&a.share.join("old/one"), bytes("again", 0, 5000));
    write(&b.share.join("old/more"), bytes("more", 0, 7));
    fs::rename(a.share.join("old/deep/two"), a.share.join("new/two")).unwrap();
    wait(&[&a, &b, &c]);
    fs::remove_file(b.share.join("old/more")).unwrap();
    wait(&[&a, &b, &c]);
    assert!(!c.share.join("old").exists());
    assert_eq!(read(&c, "new/two"), read(&a, "new/two"));
    let entry = listed(&c, "old");
    assert_eq!(
        (&entry["away_bytes"], &entry["away_files"]),
        (&5000.into(), &1.into())
    );

    // So it stays over restarts, also of the one that holds it.
    c.stop();
    a.stop();
    a.restart();
    c.restart();
    wait(&[&a, &b, &c]);
    assert!(!c.share.join("old").exists());
    choose(&c, &["--all"]);
    settle(&[&a, &b, &c]);
    assert_eq!(read(&c, "old/one"), Some(bytes("again", 0, 5000)));
    choose(&c, &["--remove", "old"]);
    assert!(!c.share.join("old").exists());
    choose(&c, &["--add", "old"]);
    settle(&[&a, &b, &c]);
    assert!(c.events("alarm").is_empty() && a.events("alarm").is_empty());
}

#[test]
fn a_drop_needs_somebody_who_has_it() {
    let world = World::new();
    let [mut a, mut b, mut c] = three(&world);
    let (code, said) = command(&c, "drop", "old/one");
    assert_eq!(
        (code, c.share.join("old/one").exists()),
        (Some(0), false),
        "{said}"
    );
    wait(&[&a, &b, &c]);
    assert!(a.share.join("old/one").exists() && b.share.join("old/one").exists());
    let (code, said) = command(&c, "fetch", "old/one");
    assert_eq!(code, Some(0), "{said}");
    settle(&[&a, &b, &c]);

    // What only this device has, and an edit that nobody was told of yet.
    a.stop();
    b.stop();
    until("nobody is connected", || c.state() == "offline");
    write(&c.share.join("mine"), "only here");
    for path in ["old/one", "old", "mine"] {
        let (code, said) = command(&c, "drop", path);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("no other connected device"), "{said}");
        assert!(c.share.join(path).exists());
    }
    let (code, said) = command(&c, "drop", "nothing");
    assert_eq!(code, Some(1), "{said}");
    a.restart();
    b.restart();
    settle(&[&a, &b, &c]);
    // A refused drop leaves no rule behind.
    let dir = c.share.to_str().unwrap();
    assert!(c.ok(&["choose", dir]).contains("holds everything"));

    // Both drop the same at once: one of them keeps it.
    a.stop();
    until("a is gone", || {
        c.status()["peers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| p["connected"] == true)
            .count()
            == 1
    });
    std::thread::scope(|s| {
        s.spawn(|| command(&b, "drop", "old/deep/two"));
        s.spawn(|| command(&c, "drop", "old/deep/two"));
    });
    let held = [&b, &c]
        .map(|d| read(d, "old/deep/two"))
        .into_iter()
        .flatten();
    assert!(held.count() >= 1);
    c.stop();
}

#[test]
fn what_is_made_where_nothing_is_held_is_an_edit() {
    let world = World::new();
    let [a, b, c] = three(&world);
    choose(&c, &["top"]);
    assert!(!c.share.join("old").exists() && !c.share.join("new").exists());
    // New, equal and different. Each whole at once: an empty file would be an edit of its own.
    let put = |path: &str, content: &[u8]| {
        let (whole, place) = (world.path().join("whole"), c.share.join(path));
        write(&whole, content);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::rename(whole, place).unwrap();
    };
    put("new/fresh", b"fresh");
    put("old/one", &bytes("old/one", 0, 3000));
    put("new/three", b"another three");
    wait(&[&a, &b, &c]);
    assert_same(&a.share, &b.share);
    assert_eq!(read(&a, "new/fresh"), Some(b"fresh".to_vec()));
    assert_eq!(read(&a, "new/three"), Some(b"another three".to_vec()));
    assert_eq!(read(&a, "old/one"), Some(bytes("old/one", 0, 3000)));
    let names = |dir: &Path| -> Vec<String> {
        let list = fs::read_dir(dir).unwrap();
        list.map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.contains(".conflict-"))
            .collect()
    };
    let copies = names(&a.share.join("new"));
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(names(&a.share.join("old")), Vec::<String>::new());
    assert_eq!(
        fs::read(a.share.join("new").join(&copies[0])).unwrap(),
        bytes("new/three", 0, 4000)
    );
    // Its deletion is one.
    fs::remove_file(c.share.join("new/fresh")).unwrap();
    until("the deletion came", || !a.share.join("new/fresh").exists());
}

/// Whenever a device dies while it drops, nothing is deleted elsewhere, and nothing is lost.
#[cfg(debug_assertions)]
#[test]
fn a_kill_while_dropping_deletes_nothing() {
    let world = World::new();
    let [a, b, mut c] = three(&world);
    let whole = snapshot(&a.share);
    c.stop();
    c.how.crash = Some(world.path().join("crash"));
    for point in [
        "chosen",
        "index-written",
        "index-committed",
        "forgotten",
        "removing",
        "removed",
        "folders-unsynced",
        "applied",
    ] {
        c.restart();
        choose(&c, &["--all"]);
        settle(&[&a, &b, &c]);
        c.arm(point, 1, false);
        let dir = c.share.clone();
        let _ = c.run(&[
            "choose".as_ref(),
            dir.as_os_str(),
            "--remove".as_ref(),
            "old".as_ref(),
        ]);
        until("it died", || c.ended().is_some());
        c.disarm();
        c.restart();
        wait(&[&a, &b, &c]);
        assert_eq!(snapshot(&a.share), whole, "{point}");
        assert_same(&a.share, &b.share);
        // What is still here is what it was, and goes when that is said again.
        choose(&c, &["--remove", "old"]);
        wait(&[&a, &b, &c]);
        assert!(!c.share.join("old").exists(), "{point}");
        assert_eq!(snapshot(&a.share), whole, "{point}");
        c.stop();
    }
}

#[test]
fn a_lost_index_and_a_reader() {
    let world = World::new();
    let [a, b, mut c] = three(&world);
    choose(&c, &["--remove", "old"]);
    c.stop();
    for name in ["index.db", "index.db-wal", "index.db-head", "index.db-shm"] {
        let _ = fs::remove_file(c.share.join(".left").join(name));
    }
    let whole = snapshot(&a.share);
    c.restart();
    wait(&[&a, &b, &c]);
    assert!(!c.share.join("old").exists());
    assert_eq!(snapshot(&a.share), whole);
    let ticket = a.ok(&[
        "ticket".as_ref(),
        a.share.as_os_str(),
        "--read-only".as_ref(),
    ]);
    let mut reader = world.device("reader");
    reader.join(ticket.lines().next().unwrap());
    wait(&[&a, &reader]);
    choose(&reader, &["new"]);
    assert!(!reader.share.join("old").exists() && !reader.share.join("top").exists());
    write(&a.share.join("new/three"), "three again");
    wait(&[&a, &b, &reader]);
    assert_eq!(read(&reader, "new/three"), Some(b"three again".to_vec()));
    choose(&reader, &["--all"]);
    settle(&[&a, &b, &reader]);
}
