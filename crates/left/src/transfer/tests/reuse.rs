//! Bytes that other files of the share have are not asked for.

use std::sync::Arc;

use super::node::{Asker, Node, noise};

const MIB: usize = 1 << 20;

/// Brings `new` to a peer that has none of its versions; returns the bytes on the wire.
fn fetch(server: &Arc<Node>, client: &Arc<Node>, name: &str, new: &[u8]) -> u64 {
    let before = server.wire();
    let content = server.add(name, new);
    let asker = Asker::new(client);
    asker.connect(server);
    assert!(asker.fetch(asker.item(content, new.len(), &[server])) == new);
    assert_eq!(
        client.manifests.get(&content),
        server.manifests.get(&content)
    );
    server.wire() - before
}

/// A copy with some bytes overwritten in the middle and some put in.
fn edited(old: &[u8], seed: u64) -> Vec<u8> {
    let mut new = old.to_vec();
    let middle = new.len() / 2;
    new[middle..middle + 500].copy_from_slice(&noise(seed, 500));
    new.splice(middle / 2..middle / 2, noise(seed + 1, 300));
    new
}

#[test]
fn a_copy_that_was_edited() {
    let (server, client) = (Node::new(1), Node::new(2));
    let old = noise(1, 24 * MIB);
    client.add("old", &old);
    client.add("other", &noise(9, 3 * MIB));
    let wire = fetch(&server, &client, "copy", &edited(&old, 2));
    assert!(wire < 200_000, "{wire}");
}

#[test]
fn a_copy_of_few_segments_that_was_edited() {
    let (server, client) = (Node::new(1), Node::new(2));
    for n in 0..8 {
        let old = noise(n, 400_000);
        client.add(&format!("old{n}"), &old);
        let wire = fetch(&server, &client, &format!("new{n}"), &edited(&old, 100 + n));
        assert!(wire < 150_000, "{wire}");
    }
}

#[test]
fn one_file_made_of_many() {
    let (server, client) = (Node::new(1), Node::new(2));
    let mut all = Vec::new();
    for n in 0..12 {
        let part = noise(n, 3 * MIB);
        client.add(&format!("part{n}"), &part);
        all.extend_from_slice(&part);
    }
    let wire = fetch(&server, &client, "all", &all);
    // At each seam the segments on both sides are others; of most of them all chunks are asked for.
    assert!(wire < all.len() as u64 * 7 / 10, "{wire}");
}

#[test]
fn other_files_that_are_not_what_they_were_do_no_harm() {
    let (server, client) = (Node::new(1), Node::new(2));
    let old = noise(1, 8 * MIB);
    client.add("old", &old);
    let mut damaged = old.clone();
    for at in (0..damaged.len()).step_by(MIB) {
        damaged[at + 77] ^= 1;
    }
    damaged.truncate(6 * MIB);
    std::fs::write(client.path("old"), &damaged).unwrap();
    fetch(&server, &client, "copy", &old);
    std::fs::remove_file(client.path("old")).unwrap();
    fetch(&server, &client, "again", &edited(&old, 5));
}
