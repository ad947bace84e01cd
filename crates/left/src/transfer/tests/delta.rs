use std::sync::Arc;

use left_core::content::ContentId;
use left_core::path::RelPath;

use super::node::{Asker, Node, noise};

const MIB: usize = 1 << 20;

/// Brings `new` to a peer that has `old`; returns the bytes on the wire.
fn update(old: &[u8], new: &[u8]) -> u64 {
    let (server, client) = (Node::new(1), Node::new(2));
    let base = client.add("f", old);
    update_from(&server, &client, base, new)
}

fn update_from(server: &Arc<Node>, client: &Arc<Node>, base: ContentId, new: &[u8]) -> u64 {
    let content = server.add("f", new);
    let asker = Asker::new(client);
    asker.connect(server);
    let mut item = asker.item(content, new.len(), &[server]);
    item.base = Some((RelPath::new("f").unwrap(), base));
    assert!(asker.fetch(item) == new);
    assert_eq!(
        client.manifests.get(&content),
        server.manifests.get(&content)
    );
    server.wire()
}

#[test]
fn one_run_overwritten() {
    let old = noise(1, 64 * MIB);
    let mut new = old.clone();
    let changed = 64 * MIB / 10;
    new[20 * MIB..20 * MIB + changed].copy_from_slice(&noise(2, changed));
    let wire = update(&old, &new);
    assert!(wire < changed as u64 * 104 / 100, "{wire} for {changed}");
}

#[test]
fn scattered_pieces_overwritten() {
    let old = noise(1, 64 * MIB);
    let mut new = old.clone();
    let pieces = 64 * MIB / 10 / 65_536;
    for i in 0..pieces {
        let at = i * 10 * 65_536 + 1234;
        new[at..at + 65_536].copy_from_slice(&noise(100 + i as u64, 65_536));
    }
    let (wire, changed) = (update(&old, &new), (pieces * 65_536) as u64);
    assert!(wire < 2 * changed, "{wire} for {changed}");
}

#[test]
fn inserted_at_the_front() {
    let old = noise(1, 32 * MIB);
    let mut new = noise(2, MIB);
    new.extend_from_slice(&old);
    let wire = update(&old, &new);
    assert!(wire < 3 * MIB as u64 / 2, "{wire}");
}

#[test]
fn appended_and_cut_off() {
    let old = noise(1, 32 * MIB);
    let mut new = old.clone();
    new.extend_from_slice(&noise(2, MIB));
    let wire = update(&old, &new);
    assert!(wire < 3 * MIB as u64 / 2, "{wire}");
    let wire = update(&new, &old);
    assert!(wire < 200_000, "{wire}");
}

#[test]
fn holes_punched_into_an_old_version() {
    let old = noise(1, 16 * MIB);
    let mut new = old.clone();
    new[3 * MIB..9 * MIB].fill(0);
    let wire = update(&old, &new);
    assert!(wire < 300_000, "{wire}");
}

#[test]
fn a_base_that_is_not_what_it_was_does_no_harm() {
    let (server, client) = (Node::new(1), Node::new(2));
    let old = noise(1, 8 * MIB);
    let base = client.add("f", &old);
    let mut edited = old.clone();
    for at in (0..edited.len()).step_by(2 * MIB) {
        edited[at + 77] ^= 1;
    }
    edited.truncate(7 * MIB);
    std::fs::write(client.path("f"), &edited).unwrap();
    let mut new = old;
    new[100..200].fill(7);
    update_from(&server, &client, base, &new);
}

#[test]
fn a_base_without_manifest_or_file_is_passed_over() {
    let (server, client) = (Node::new(1), Node::new(2));
    let bytes = noise(1, 2 * MIB);
    update_from(&server, &client, ContentId([3; 32]), &bytes);
    let (server, client) = (Node::new(1), Node::new(2));
    let base = client.add("f", &noise(2, 2 * MIB));
    std::fs::remove_file(client.path("f")).unwrap();
    update_from(&server, &client, base, &bytes);
}
