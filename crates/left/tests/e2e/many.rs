//! Three devices.

use std::fs;

use crate::common::{Device, World, fill, overwrite, settle, write};

/// `c` joins with a ticket of `b`; whether it also reaches `a` directly.
fn three(world: &World) -> (Device, Device, Device) {
    let (a, b) = world.pair();
    let mut c = world.device("c");
    let out = b.ok(&["ticket".as_ref(), b.share.as_os_str(), "--json".as_ref()]);
    let ticket: serde_json::Value = serde_json::from_str(&out).unwrap();
    c.join(ticket["ticket"].as_str().unwrap());
    (a, b, c)
}

#[test]
fn a_triangle_converges() {
    let world = World::new();
    let (mut a, b, c) = three(&world);
    write(&a.share.join("from a"), "a");
    write(&b.share.join("from b"), "b");
    write(&c.share.join("from c"), "c");
    fill(&c.share.join("big"), "big", 10_000_000);
    settle(&[&a, &b, &c]);
    // Members tell each other of one another, so that a and c are connected directly.
    let peer = |e: &serde_json::Value| e["name"] == "c";
    a.expect("peer_connected", peer);

    // Everyone edits the same file while a is away.
    a.kill9();
    for (device, text) in [(&a, "a again"), (&b, "b again"), (&c, "c again")] {
        write(&device.share.join("all"), text);
    }
    fs::remove_file(b.share.join("from a")).unwrap();
    a.restart();
    settle(&[&a, &b, &c]);
    let mut texts: Vec<_> = fs::read_dir(&a.share)
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("all"))
        .map(|e| fs::read_to_string(e.path()).unwrap())
        .collect();
    texts.sort();
    // b and c were connected: one may have seen the other's before it wrote.
    assert!(
        texts.contains(&"a again".into()) && texts.len() >= 2,
        "{texts:?}"
    );
    assert!(!c.share.join("from a").exists());
}

#[test]
fn a_chain_converges() {
    let world = World::new();
    let (mut a, mut b, mut c) = three(&world);
    fill(&a.share.join("from a"), "a", 3_000_000);
    settle(&[&a, &b, &c]);
    // a and c never meet: only b runs with each of them.
    for round in 0..3 {
        c.stop();
        overwrite(
            &a.share.join("from a"),
            &format!("a{round}"),
            [(round * 1000, 1000)],
        );
        write(&a.share.join(format!("d{round}/x")), format!("{round}"));
        settle(&[&a, &b]);
        a.stop();
        c.restart();
        write(&c.share.join(format!("c{round}")), "from c");
        settle(&[&b, &c]);
        b.stop();
        b.restart();
        a.restart();
    }
    settle(&[&a, &b, &c]);
    assert!(a.share.join("c2").exists() && c.share.join("d2/x").exists());
}
