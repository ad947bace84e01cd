use std::sync::atomic::Ordering;

use left_core::chunker::content_id;
use left_core::content::WHOLE_MAX;
use left_core::path::RelPath;
use left_core::plan::FetchError;

use super::node::{Asker, Node, noise};

#[test]
fn ten_thousand_small_files_travel_in_batches() {
    let (server, client) = (Node::new(1), Node::new(2));
    let asker = Asker::new(&client);
    let mut wanted = Vec::new();
    let mut items = Vec::new();
    for i in 0..10_000u64 {
        let bytes = noise(i, (i % 700) as usize + 1);
        let content = server.add(&format!("f{i}"), &bytes);
        let item = asker.item(content, bytes.len(), &[&server]);
        wanted.push((item.id, bytes));
        items.push(item);
    }
    asker.connect(&server);
    asker.fetcher.submit(items);
    let results = asker.collect(wanted.len());
    for (id, bytes) in wanted {
        let name = results[&id].clone().unwrap();
        assert_eq!(asker.read(&name), bytes);
    }
    let wants = server.stats.wants.load(Ordering::SeqCst);
    assert!(wants <= 25, "{wants} round trips for 10,000 files");
}

#[test]
fn empty_files_need_no_peer() {
    let client = Node::new(2);
    let asker = Asker::new(&client);
    let item = asker.item(content_id(&[]), 0, &[]);
    assert!(asker.fetch(item).is_empty());
}

#[test]
fn the_same_content_is_fetched_once_and_written_twice() {
    let (server, client) = (Node::new(1), Node::new(2));
    for len in [5_000, WHOLE_MAX as usize + 70_000] {
        let bytes = noise(1, len);
        let content = server.add("f", &bytes);
        let asker = Asker::new(&client);
        let items = vec![
            asker.item(content, len, &[&server]),
            asker.item(content, len, &[&server]),
        ];
        asker.fetcher.add_peer(server.id, false);
        asker.fetcher.submit(items);
        let before = server.wire();
        asker.connect(&server);
        let results = asker.collect(2);
        let names: Vec<_> = results.into_values().map(|r| r.unwrap()).collect();
        assert_ne!(names[0], names[1]);
        names.iter().for_each(|n| assert_eq!(asker.read(n), bytes));
        assert!(server.wire() - before < len as u64 * 11 / 10);
    }
}

#[test]
fn local_copies_spare_the_wire_and_wrong_ones_do_not_harm() {
    let (server, client) = (Node::new(1), Node::new(2));
    for len in [9_000, 3_000_000] {
        let bytes = noise(2, len);
        let content = server.add("f", &bytes);
        let mut other = bytes.clone();
        other[len / 2] ^= 1;
        client.add("wrong", &other);
        client.add("right", &bytes);
        let asker = Asker::new(&client);
        asker.connect(&server);
        let path = |name: &str| RelPath::new(name).unwrap();
        let mut item = asker.item(content, len, &[&server]);
        item.copies = vec![path("none"), path("wrong"), path("right")];
        let before = server.wire();
        assert_eq!(asker.fetch(item), bytes);
        assert_eq!(server.wire(), before);
        let mut item = asker.item(content, len, &[&server]);
        item.copies = vec![path("wrong")];
        assert_eq!(asker.fetch(item), bytes);
        assert!(server.wire() > before);
    }
}

#[test]
fn what_the_peer_has_not_is_gone() {
    let (server, client) = (Node::new(1), Node::new(2));
    let asker = Asker::new(&client);
    let small = asker.item(content_id(b"none"), 4, &[&server]);
    let big = asker.item(content_id(b"some"), 1 << 20, &[&server]);
    asker.submit(small.clone());
    assert_eq!(asker.one(), Err(FetchError::Gone), "no lane at all");
    asker.connect(&server);
    for item in [small, big] {
        asker.submit(item);
        assert_eq!(asker.one(), Err(FetchError::Gone));
    }
}

#[test]
fn a_file_that_changed_is_gone_and_its_twin_is_served() {
    let (server, client) = (Node::new(1), Node::new(2));
    let bytes = noise(3, 1000);
    let content = server.add("a", &bytes);
    std::fs::write(server.path("a"), b"edited").unwrap();
    let asker = Asker::new(&client);
    asker.connect(&server);
    asker.submit(asker.item(content, 1000, &[&server]));
    assert_eq!(asker.one(), Err(FetchError::Gone));
    server.add("b", &bytes);
    let item = asker.item(content, 1000, &[&server]);
    assert_eq!(asker.fetch(item), bytes);
}

#[test]
fn no_room_is_said() {
    let (server, client) = (Node::new(1), Node::new(2));
    let asker = Asker::new(&client);
    asker.connect(&server);
    client.room.store(0, Ordering::SeqCst);
    for len in [100, 500_000] {
        let bytes = noise(4, len);
        let content = server.add("f", &bytes);
        asker.submit(asker.item(content, len, &[&server]));
        assert_eq!(asker.one(), Err(FetchError::Full));
    }
}
