//! `left sync`: both machines run the same command.

use std::ffi::OsString;
use std::fs;

use crate::common::{Device, World, settle, until, write};

fn sync(device: &mut Device, peer: &Device, code: Option<&str>) {
    let mut args: Vec<OsString> = vec!["sync".into(), device.share.clone().into()];
    args.extend(["--peer".into(), peer.address().into()]);
    if let Some(code) = code {
        args.extend(["--code".into(), code.into()]);
    }
    device.start(&args);
}

#[test]
fn the_first_makes_the_code() {
    let world = World::new();
    let (mut a, mut b) = (world.device("a"), world.device("b"));
    write(&a.share.join("from a"), "a");
    write(&b.share.join("from b"), "b");
    sync(&mut a, &b, None);
    let event = a.expect("pairing", |_| true);
    let code = event["code"].as_str().unwrap();
    assert!(
        code.split(['-', ' ']).count() >= 7,
        "77 bits are 7 words: {code}"
    );
    let command = event["command_for_other"].as_str().unwrap();
    assert!(
        command.contains(code) && command.contains(&a.address()),
        "{command}"
    );
    sync(&mut b, &a, Some(code));
    for device in [&a, &b] {
        device.expect("peer_connected", |_| true);
    }
    settle(&[&a, &b]);
    assert_eq!(fs::read(b.share.join("from a")).unwrap(), b"a");

    // From now on the keys are known: the same command without a code, and `left up`.
    a.stop();
    b.stop();
    sync(&mut a, &b, None);
    b.restart();
    write(&b.share.join("later"), "l");
    settle(&[&b, &a]);
}

#[test]
fn both_know_the_code_and_dial_at_once() {
    const CODE: &str = "this-is-made-up";
    let world = World::new();
    let (mut a, b) = (world.device("a"), world.device("b"));
    // A code of the program's own making, since others may be refused as too weak.
    sync(&mut a, &b, None);
    let code = a.expect("pairing", |_| true)["code"]
        .as_str()
        .unwrap_or(CODE)
        .to_owned();
    a.kill9();
    for round in 0..5 {
        let (mut c, mut d) = (
            world.device(&format!("c{round}")),
            world.device(&format!("d{round}")),
        );
        write(&c.share.join("x"), "x");
        sync(&mut c, &d, Some(&code));
        sync(&mut d, &c, Some(&code));
        for device in [&c, &d] {
            device.expect("peer_connected", |_| true);
        }
        settle(&[&c, &d]);
    }
}

#[test]
fn a_wrong_code_is_refused() {
    let world = World::new();
    let (mut a, mut b) = (world.device("a"), world.device("b"));
    write(&a.share.join("secret"), "s");
    sync(&mut a, &b, None);
    let code = a.expect("pairing", |_| true)["code"]
        .as_str()
        .unwrap()
        .to_owned();
    // Another right code.
    let mut other = world.device("other");
    sync(&mut other, &a, None);
    let wrong = other.expect("pairing", |_| true)["code"]
        .as_str()
        .unwrap()
        .to_owned();
    other.stop();
    assert_ne!(code, wrong);
    sync(&mut b, &a, Some(&wrong));
    let event = a.expect("refused", |e| e["why"].as_str().unwrap().contains("code"));
    assert!(event["device"].is_string(), "{event}");
    let seen = |d: &Device| d.log().contains("does not expect this code");
    let told = || {
        b.events("notice")
            .iter()
            .any(|e| e["text"].as_str().unwrap().contains("code"))
    };
    until("b hears of it", || seen(&b) || told());
    assert!(!b.share.join("secret").exists());
    b.stop();
    sync(&mut b, &a, Some(&code));
    b.expect("peer_connected", |_| true);
    settle(&[&a, &b]);

    // A mistyped code.
    let c = world.device("c");
    let args = [
        "sync",
        c.share.to_str().unwrap(),
        "--peer",
        &a.address(),
        "--code",
        "x",
    ];
    let address = c.address();
    let out = c.run(&[&args[..], &["--listen", &address]].concat());
    assert!(!out.status.success());
    assert_eq!(String::from_utf8_lossy(&out.stderr).lines().count(), 1);
}
