use left_core::chunker::content_id;
use left_core::plan::FetchError;

use super::node::{Asker, Cut, Node, manifest, noise};
use crate::transfer::ServeConfig;

const MIB: usize = 1 << 20;

#[test]
fn of_two_peers_one_lies_and_the_other_gives() {
    for (len, rounds) in [(3000, 1), (12 * MIB, 3)] {
        for round in 0..rounds {
            let (liar, honest, client) = (Node::new(1), Node::new(3), Node::new(2));
            let bytes = noise(1, len);
            let content = honest.add("f", &bytes);
            liar.add("f", &bytes);
            match round {
                0 => {
                    std::fs::write(liar.path("f"), noise(2, len)).unwrap();
                    liar.forget(&content);
                    liar.claim("f", content);
                }
                1 => (liar.manifests.wrong_lists).store(true, std::sync::atomic::Ordering::SeqCst),
                _ => (liar.manifests.wrong_refs).store(true, std::sync::atomic::Ordering::SeqCst),
            }
            let asker = Asker::new(&client);
            asker.connect(&liar);
            asker.fetcher.add_peer(honest.id, false);
            asker.submit(asker.item(content, len, &[&liar, &honest]));
            // The honest peer comes when the liar has had its turn.
            while asker.fetcher.suspects().is_empty() {
                std::thread::yield_now();
            }
            asker.connect(&honest);
            let name = asker.one().unwrap();
            assert!(asker.read(&name) == bytes);
            assert!(asker.fetcher.suspects().iter().all(|(p, _)| *p == liar.id));
        }
    }
}

#[test]
fn a_lost_lane_s_work_goes_to_the_others() {
    let (a, b, client) = (Node::new(1), Node::new(3), Node::new(2));
    let bytes = noise(1, 40 * MIB);
    let content = a.add("f", &bytes);
    b.add("f", &bytes);
    let asker = Asker::new(&client);
    let mut items = vec![asker.item(content, bytes.len(), &[&a, &b])];
    for i in 0..2000 {
        let small = noise(1000 + i, 500);
        let content = a.add(&format!("s{i}"), &small);
        b.add(&format!("s{i}"), &small);
        items.push(asker.item(content, small.len(), &[&a, &b]));
    }
    for left in [MIB as u64 / 2, 5 * MIB as u64 + 5] {
        let cut = |stream| Box::new(Cut { stream, left }) as _;
        asker.add_lane(a.id, a.lane_with(cut, ServeConfig::default()), false);
    }
    asker.fetcher.add_peer(b.id, false);
    let count = items.len();
    asker.fetcher.submit(items);
    asker.connect(&b);
    let results = asker.collect(count);
    assert!(results.values().all(Result::is_ok));
    let name = results[&left_core::plan::OpId(1)].clone().unwrap();
    assert!(asker.read(&name) == bytes);
    assert_eq!(asker.fetcher.suspects(), []);
}

#[test]
fn items_go_to_peers_that_announced_them_only() {
    let (a, b, client) = (Node::new(1), Node::new(3), Node::new(2));
    let asker = Asker::new(&client);
    asker.connect(&a);
    let small = noise(1, 100);
    let big = noise(2, MIB);
    for bytes in [small, big] {
        let content = a.add("f", &bytes);
        asker.submit(asker.item(content, bytes.len(), &[&b]));
        assert_eq!(asker.one(), Err(FetchError::Gone));
    }
    assert_eq!(a.wire(), 0);
}

#[test]
fn an_expected_peer_is_waited_for_until_it_is_dropped() {
    let (server, client) = (Node::new(1), Node::new(2));
    let asker = Asker::new(&client);
    asker.fetcher.add_peer(server.id, false);
    let bytes = noise(1, 100);
    let content = server.add("f", &bytes);
    asker.submit(asker.item(content, 100, &[&server]));
    asker.submit(asker.item(content_id(b"none"), 4, &[&server]));
    let id = asker.submit(asker.item(manifest(b"x").0, MIB, &[&server]));
    asker.fetcher.cancel(&[id]);
    assert_eq!(asker.collect(1)[&id], Err(FetchError::Cancelled));
    asker.fetcher.drop_peer(server.id);
    let ends = asker.collect(2);
    assert!(ends.values().all(|r| *r == Err(FetchError::Gone)));
}

#[test]
fn small_files_pass_a_big_one() {
    let (server, client) = (Node::new(1), Node::new(2));
    let bytes = noise(1, 60 * MIB);
    let big = server.add("big", &bytes);
    let little = server.add("little", b"little");
    for express in [false, true] {
        let client_lanes = Asker::new(&client);
        client_lanes.connect(&server);
        if express {
            client_lanes.add_lane(server.id, server.lane(), true);
        }
        let big = client_lanes.submit(client_lanes.item(big, bytes.len(), &[&server]));
        let little = client_lanes.submit(client_lanes.item(little, 6, &[&server]));
        let first = client_lanes.results.recv().unwrap();
        assert_eq!(first[0].0, little);
        assert!(client_lanes.one().is_ok(), "{big:?}");
        std::fs::remove_dir_all(client.dir.path().join("stage")).unwrap();
        std::fs::create_dir(client.dir.path().join("stage")).unwrap();
    }
}
