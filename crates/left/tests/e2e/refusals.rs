//! Bad input: one clear line, a non-zero exit, nothing lost.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use crate::common::{Device, World, left, settle, snapshot, write};

/// The command failed with one line on stderr that has these words.
#[track_caller]
fn refused(out: &Output, words: &[&str]) {
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success(), "it went well");
    assert!(
        out.status.code().is_some_and(|c| c < 100),
        "{:?}: {err}",
        out.status
    );
    assert_eq!(err.lines().count(), 1, "not one line:\n{err}");
    assert!(err.starts_with("left: "), "{err}");
    for word in words {
        assert!(err.contains(word), "`{word}` is not in: {err}");
    }
}

fn join(device: &Device, ticket: &str, dir: &Path) -> Output {
    let address = device.address();
    device.run(&[
        "join".as_ref(),
        ticket.as_ref(),
        dir.as_os_str(),
        "--listen".as_ref(),
        address.as_ref(),
    ])
}

fn share(device: &Device, dir: &Path) -> Output {
    let address = device.address();
    device.run(&[
        "share".as_ref(),
        dir.as_os_str(),
        "--listen".as_ref(),
        address.as_ref(),
    ])
}

#[test]
fn tickets() {
    let world = World::new();
    let (mut a, mut b, c) = (world.device("a"), world.device("b"), world.device("c"));
    write(&a.share.join("f"), "of a");
    write(&c.share.join("mine"), "of c");
    let ticket = a.share();

    // One character mistyped, at every eighth place.
    for at in (0..ticket.len()).step_by(8) {
        let old = ticket.as_bytes()[at];
        let new = if old == b'7' { 'Q' } else { '7' };
        let mut wrong = ticket.clone();
        wrong.replace_range(at..=at, &new.to_string());
        refused(&join(&c, &wrong, &c.share), &["ticket"]);
    }
    assert!(!c.share.join(".left").exists());

    // Expired.
    let ticket_for = |expires: &str| {
        let dir = a.share.as_os_str();
        let out = a.ok(&[
            "ticket".as_ref(),
            dir,
            "--expires".as_ref(),
            expires.as_ref(),
        ]);
        out.lines()
            .find(|l| l.starts_with("left1"))
            .unwrap()
            .to_owned()
    };
    let short = ticket_for("1s");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    refused(&join(&c, &short, &c.share), &["expired"]);

    // Used.
    b.join(&ticket);
    settle(&[&a, &b]);
    refused(&join(&c, &ticket, &c.share), &["ticket", "used"]);
    a.expect("refused", |e| e["why"].as_str().unwrap().contains("used"));
    // The same device may say it again.
    b.stop();
    b.join(&ticket);
    settle(&[&a, &b]);

    // A folder that is another share.
    let mut d = world.device("d");
    d.share();
    d.stop();
    refused(&join(&d, &ticket_for("1h"), &d.share), &["another share"]);

    // Nothing came of all that.
    assert_eq!(
        fs::read_dir(&c.share).unwrap().count(),
        1,
        "{:?}",
        snapshot(&c.share)
    );
    assert!(
        c.run(&["status", "--json"])
            .stdout
            .windows(11)
            .any(|w| w == b"\"shares\":[]")
    );
}

#[test]
fn a_ticket_tried_while_left_runs() {
    let world = World::new();
    let (mut a, mut b, mut c) = (world.device("a"), world.device("b"), world.device("c"));
    let ticket = a.share();
    b.join(&ticket);
    settle(&[&a, &b]);
    c.share();
    let dir = world.path().join("other");
    let out = c.run(&["join".as_ref(), ticket.as_ref(), dir.as_os_str()]);
    refused(&out, &["used"]);
    assert_eq!(c.status()["path"], c.share.to_str().unwrap());
}

#[test]
fn folders() {
    let world = World::new();
    let (mut a, b) = (world.device("a"), world.device("b"));
    write(&world.path().join("file"), "f");
    refused(&share(&b, &world.path().join("file")), &["not a folder"]);
    refused(
        &share(&b, &world.path().join("no/such")),
        &["does not exist"],
    );
    fs::create_dir(a.share.join("inner")).unwrap();
    a.share();
    refused(&share(&b, &a.share.join("inner")), &["inside the share"]);
    refused(&share(&b, &world.path()), &["share"]);
    // Another left works on it already.
    refused(&share(&b, &a.share), &["process"]);
    for command in ["ticket", "verify", "pause", "resume", "leave"] {
        let dir = world.path().join("unknown");
        let out = b.run(&[command.as_ref(), dir.as_os_str()]);
        refused(&out, &["is not a share"]);
        assert!(!dir.exists());
    }
    assert!(a.ok(&["status"]).contains("offline"));
}

#[test]
fn a_port_in_use() {
    let world = World::new();
    let a = world.device("a");
    let _other = TcpListener::bind(a.address()).unwrap();
    refused(&share(&a, &a.share), &[&a.port.to_string(), "in use"]);
}

#[test]
fn a_key_that_others_can_read() {
    let world = World::new();
    let mut a = world.device("a");
    a.share();
    a.stop();
    let key = fs::read_dir(&a.home)
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .find(|p| p.file_name().unwrap().to_string_lossy().contains("key"))
        .unwrap();
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    refused(&share(&a, &a.share), &["key", "chmod 600"]);
}

#[test]
fn unknown_devices_learn_nothing() {
    let world = World::new();
    let (mut a, mut b) = (world.device("a"), world.device("b"));
    let ticket = a.share();
    b.join(&ticket);
    settle(&[&a, &b]);
    // b's share is copied to another device, with the list of members but without b's key.
    b.stop();
    let mut c = world.device("c");
    fs::create_dir(&c.home).unwrap();
    for name in ["config.toml", "shares"] {
        let from = b.home.join(name);
        if from.exists() {
            let to = c.home.join(name);
            assert!(left_cp(&from, &to), "{}", from.display());
        }
    }
    c.share = b.share.clone();
    c.restart();
    let event = a.expect("refused", |_| true);
    assert!(
        event["why"].as_str().unwrap().contains("no member"),
        "{event}"
    );
    assert!(event["address"].as_str().unwrap().starts_with("127.0.0.1"));
    write(&a.share.join("secret"), "s");
    assert_eq!(c.state(), "offline");
    assert!(!c.share.join("secret").exists());
    c.stop();

    // Garbage on the port hurts nobody.
    for text in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x16, 3, 1, 255, 255],
        &[0; 70_000],
    ] {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(a.address()).unwrap();
        let _ = stream.write_all(text);
    }
    b.restart();
    settle(&[&a, &b]);
}

fn left_cp(from: &Path, to: &Path) -> bool {
    std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .is_ok_and(|s| s.success())
}

#[test]
fn a_clean_line_without_a_command_that_makes_sense() {
    let world = World::new();
    for args in [
        &["fly"][..],
        &[],
        &["wait", "--timeout", "soon"],
        &["sync", "x"],
    ] {
        let out = left(&world.path().join("home"))
            .args(args)
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(!out.stderr.is_empty() && out.stdout.is_empty(), "{args:?}");
    }
}
