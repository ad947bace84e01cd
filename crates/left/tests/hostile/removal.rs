//! Devices are removed from a share, and do not come back uninvited.

use std::ffi::OsString;
use std::fs;

use crate::common::{Device, World, settle, until, write};

/// A ticket of a running device.
fn ticket(of: &Device, more: &[&str]) -> String {
    let mut args: Vec<OsString> = vec!["ticket".into(), of.share.clone().into()];
    args.extend(more.iter().map(Into::into));
    let out = of.ok(&args);
    out.lines()
        .find(|l| l.starts_with("left1"))
        .unwrap()
        .to_owned()
}

fn remove(on: &Device, who: &str) -> String {
    let args = ["remove-peer".as_ref(), on.share.as_os_str(), who.as_ref()];
    on.ok(&args)
}

/// What a command that must fail says.
fn refused(device: &Device, args: &[OsString]) -> String {
    let out = device.run(args);
    assert!(!out.status.success(), "it went well");
    String::from_utf8(out.stderr).unwrap()
}

fn join(device: &Device, ticket: &str) -> Vec<OsString> {
    vec!["join".into(), ticket.into(), device.share.clone().into()]
}

fn id(device: &Device) -> String {
    device.ok(&["id"]).trim().to_owned()
}

fn knows(device: &Device, id: &str) -> bool {
    let status = device.status();
    let mut peers = status["peers"].as_array().unwrap().iter();
    peers.any(|p| p["device"] == id)
}

#[test]
fn a_removed_device_is_refused_by_all_and_stays_out() {
    let world = World::new();
    let (mut a, mut b, mut c) = (world.device("a"), world.device("b"), world.device("c"));
    let first = a.share();
    b.join(&first);
    let of_c = ticket(&a, &[]);
    c.join(&of_c);
    write(&a.share.join("f"), "all have it");
    settle(&[&a, &b, &c]);
    until("b and c are connected", || knows(&b, &id(&c)));
    // What c might come back with: made before, by one who hears of the removal late.
    let (spare, spare_of_b) = (ticket(&a, &[]), ticket(&b, &[]));
    let c_id = id(&c);

    b.stop();
    let said = remove(&a, "c");
    assert!(said.contains(&c_id[..7]), "{said}");
    // The lane is closed at once, and c is told.
    a.expect("peer_lost", |e| e["device"] == c_id.as_str());
    c.expect("notice", |e| {
        e["text"]
            .as_str()
            .unwrap()
            .contains("removed from the share")
    });
    assert!(!knows(&a, &c_id));
    write(&c.share.join("late"), "of c");
    write(&a.share.join("secret"), "not for c");

    // One who was away hears of it, and passes it on.
    b.restart();
    settle(&[&a, &b]);
    assert!(!knows(&b, &c_id));
    assert_eq!(c.state(), "offline");
    assert!(!c.share.join("secret").exists() && !b.share.join("late").exists());

    // No ticket from before lets it in again: not its own, not one that nobody used.
    for (inviter, old) in [(&a, &of_c), (&a, &spare), (&b, &spare_of_b)] {
        let why = refused(&c, &join(&c, old));
        assert!(why.contains("removed") || why.contains("used"), "{why}");
        inviter.expect("refused", |e| e["device"] == c_id.as_str());
    }
    c.stop();
    c.restart();
    assert_eq!(c.state(), "offline");
    assert!(!c.share.join("secret").exists());

    // A ticket that was made since does.
    let new = ticket(&b, &[]);
    c.ok(&join(&c, &new));
    settle(&[&a, &b, &c]);
    assert_eq!(fs::read(a.share.join("late")).unwrap(), b"of c");
    assert_eq!(fs::read(c.share.join("secret")).unwrap(), b"not for c");
}

#[test]
fn who_is_meant_must_be_clear() {
    let world = World::new();
    let (mut a, mut b, mut c) = (world.device("a"), world.device("b"), world.device("c"));
    let first = a.share();
    b.join(&first);
    c.join(&ticket(&a, &["--read-only"]));
    settle(&[&a, &b]);
    let args = |dir: &Device, who: &str| -> Vec<OsString> {
        vec!["remove-peer".into(), dir.share.clone().into(), who.into()]
    };
    assert!(refused(&a, &args(&a, "nobody")).contains("no member"));
    assert!(refused(&a, &args(&a, &id(&a))).contains("itself"));
    assert!(refused(&a, &args(&a, &id(&b)[..3])).contains("no member"));
    // A read-only member removes nobody.
    until("c knows b", || knows(&c, &id(&b)));
    assert!(refused(&c, &args(&c, "b")).contains("no read-write member"));
    // Nor makes it tickets.
    let ask: Vec<OsString> = vec!["ticket".into(), c.share.clone().into()];
    assert!(refused(&c, &ask).contains("read-write"));
    let said = remove(&a, &id(&b)[..5]);
    assert!(said.contains(&id(&b)[..7]), "{said}");
}

#[test]
fn whom_a_removed_device_let_in_stays_and_is_named() {
    let world = World::new();
    let (mut a, mut b, mut d) = (world.device("a"), world.device("b"), world.device("d"));
    let first = a.share();
    b.join(&first);
    settle(&[&a, &b]);
    d.join(&ticket(&b, &[]));
    until("a knows d", || knows(&a, &id(&d)));
    let peers = a.status()["peers"].clone();
    let mut peers = peers.as_array().unwrap().iter();
    let of_d = peers.find(|p| p["device"] == id(&d).as_str()).unwrap();
    assert_eq!(of_d["admitted_by"], id(&b).as_str());
    let said = remove(&a, "b");
    assert!(said.contains(&id(&d)[..7]), "{said}");
    write(&d.share.join("of d"), "d");
    settle(&[&a, &d]);
    assert!(knows(&a, &id(&d)));
}

#[test]
fn the_founder_can_be_removed_too() {
    let world = World::new();
    let (mut a, mut b, mut c) = (world.device("a"), world.device("b"), world.device("c"));
    let first = a.share();
    b.join(&first);
    c.join(&ticket(&a, &[]));
    settle(&[&a, &b, &c]);
    until("b and c know each other", || {
        knows(&b, &id(&c)) && knows(&c, &id(&b))
    });
    remove(&b, "a");
    a.expect("notice", |e| {
        e["text"]
            .as_str()
            .unwrap()
            .contains("removed from the share")
    });
    write(&b.share.join("g"), "g");
    settle(&[&b, &c]);
    assert!(!a.share.join("g").exists() && !knows(&c, &id(&a)));
}

#[test]
fn the_code_of_a_pairing_lets_a_removed_device_in_no_more() {
    let world = World::new();
    let (mut a, mut b) = (world.device("a"), world.device("b"));
    let sync = |device: &mut Device, peer: String, code: Option<&str>| {
        let mut args: Vec<OsString> = vec!["sync".into(), device.share.clone().into()];
        args.extend(["--peer".into(), peer.into()]);
        args.extend(code.into_iter().flat_map(|c| ["--code".into(), c.into()]));
        device.start(&args);
    };
    let address = b.address();
    sync(&mut a, address, None);
    let event = a.expect("pairing", |_| true);
    let code = event["code"].as_str().unwrap().to_owned();
    let address = a.address();
    sync(&mut b, address.clone(), Some(&code));
    b.expect("peer_connected", |_| true);
    settle(&[&a, &b]);
    remove(&a, "b");
    b.expect("notice", |e| {
        e["text"]
            .as_str()
            .unwrap()
            .contains("removed from the share")
    });
    b.stop();
    sync(&mut b, address, Some(&code));
    a.expect("refused", |e| {
        e["why"]
            .as_str()
            .unwrap()
            .contains("removed since it was paired")
    });
    write(&a.share.join("secret"), "s");
    assert_eq!(b.state(), "offline");
    assert!(!b.share.join("secret").exists());
}

#[test]
fn a_device_that_comes_back_as_a_reader_keeps_its_edits_to_itself() {
    let world = World::new();
    let (mut a, mut b) = (world.device("a"), world.device("b"));
    let first = a.share();
    b.join(&first);
    write(&b.share.join("of b"), "while it might");
    settle(&[&a, &b]);
    let b_id = id(&b);
    remove(&a, "b");
    a.expect("peer_lost", |e| e["device"] == b_id.as_str());
    b.ok(&join(&b, &ticket(&a, &["--read-only"])));
    settle(&[&a, &b]);
    write(&b.share.join("own"), "stays");
    write(&a.share.join("news"), "n");
    settle_but(&a, &b, "own");
    assert!(!a.share.join("own").exists());
    assert_eq!(fs::read(b.share.join("news")).unwrap(), b"n");
    // What it wrote when it might is not taken for its own now.
    assert_eq!(b.status()["role"], "read-only");
}

/// Both have the same but for one file that only the second has.
fn settle_but(a: &Device, b: &Device, file: &str) {
    a.wait();
    b.wait();
    let mut there = crate::common::snapshot(&b.share);
    there.retain(|path, _| path != file.as_bytes());
    crate::common::assert_tree(&there, &a.share);
}
