use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use left_core::content::{ContentId, Segment, SegmentId};
use left_core::message::What;
use left_core::path::RelPath;
use left_core::plan::{FetchError, FetchItem};

use super::hostile::header;
use super::node::{Asker, Node, frame, manifest, noise, script};
use crate::transfer::fileio::reflink;
use crate::transfer::frame::{CHUNK_REF_LEN, FrameKind, Header};
use crate::transfer::{FetchConfig, Offered};

const MIB: usize = 1 << 20;
const OFFER: ContentId = ContentId([7; 32]);

/// A server that still reads "f": asked for by the offer's id only.
fn reading(bytes: &[u8]) -> (Arc<Node>, ContentId, Vec<Segment>) {
    let server = Node::new(1);
    std::fs::write(server.path("f"), bytes).unwrap();
    let (content, segments) = manifest(bytes);
    server.manifests.put(OFFER, segments.clone());
    server.claim("f", OFFER);
    (server, content, segments)
}

fn offer(asker: &Asker, server: &Node, size: usize, from: usize, segments: &[Segment]) {
    asker.fetcher.offer(
        server.id,
        Offered {
            id: OFFER,
            path: RelPath::new("x").unwrap(),
            size: size as u64,
            from: from as u64,
            segments: segments.iter().map(|s| s.sref).collect(),
            base: None,
        },
    );
}

fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn staged(asker: &Asker) -> u64 {
    asker.fetcher.stats().fetched.load(Ordering::SeqCst)
}

/// Bytes of these segments.
fn bytes_of(segments: &[Segment]) -> u64 {
    segments.iter().map(|s| s.sref.len).sum()
}

/// Fetches the content of which segments were offered: no more than the list and `rest` bytes travel.
fn is_settled_for(asker: &Asker, server: &Arc<Node>, bytes: &[u8], content: ContentId, rest: u64) {
    server.index("f", bytes);
    let before = server.wire();
    let item = asker.item(content, bytes.len(), &[server]);
    assert!(asker.fetch(item) == bytes);
    assert!(server.wire() - before < rest + 64 * 1024);
}

#[test]
fn what_was_offered_is_not_brought_again() {
    let bytes = noise(1, 24 * MIB + 77);
    let (server, content, segments) = reading(&bytes);
    let client = Node::new(2);
    let asker = Asker::new(&client);
    asker.connect(&server);
    let (first, rest) = segments.split_at(segments.len() / 2);
    offer(&asker, &server, bytes.len(), 0, first);
    until("the first half", || staged(&asker) == bytes_of(first));
    offer(&asker, &server, bytes.len(), first.len(), rest);
    until("all", || staged(&asker) == bytes.len() as u64);

    is_settled_for(&asker, &server, &bytes, content, 0);
    assert_eq!(
        client.manifests.get(&content),
        server.manifests.get(&content)
    );
}

/// Who reads, or we, may stand still while the disk does: more of an offer keeps it, however late.
#[test]
fn more_of_an_offer_keeps_it() {
    let bytes = noise(9, 12 * MIB);
    let (server, content, segments) = reading(&bytes);
    let client = Node::new(2);
    let idle = Duration::from_millis(50);
    let config = FetchConfig {
        offer_idle: idle,
        ..FetchConfig::default()
    };
    let asker = Asker::with(&client, config);
    asker.connect(&server);
    let (first, rest) = segments.split_at(segments.len() / 2);
    offer(&asker, &server, bytes.len(), 0, first);
    until("the first half", || staged(&asker) == bytes_of(first));
    std::thread::sleep(2 * idle);
    offer(&asker, &server, bytes.len(), first.len(), rest);
    until("all", || staged(&asker) == bytes.len() as u64);

    is_settled_for(&asker, &server, &bytes, content, 0);
}

/// A sender leaves out what finds no room in its lane, and a receiver what it can not heed at the moment.
#[test]
fn what_came_before_a_gap_is_not_brought_again() {
    let bytes = noise(10, 12 * MIB);
    let (server, content, segments) = reading(&bytes);
    let client = Node::new(2);
    let asker = Asker::new(&client);
    asker.connect(&server);
    let third = segments.len() / 3;
    let first = &segments[..third];
    offer(&asker, &server, bytes.len(), 0, first);
    until("the first third", || staged(&asker) == bytes_of(first));
    offer(
        &asker,
        &server,
        bytes.len(),
        2 * third,
        &segments[2 * third..],
    );

    is_settled_for(
        &asker,
        &server,
        &bytes,
        content,
        bytes.len() as u64 - bytes_of(first),
    );
}

#[test]
fn an_item_takes_over_in_the_middle() {
    let bytes = noise(2, 16 * MIB);
    let (server, content, segments) = reading(&bytes);
    let client = Node::new(2);
    let asker = Asker::new(&client);
    asker.connect(&server);
    offer(&asker, &server, bytes.len(), 0, &segments[..3]);
    server.index("f", &bytes);
    let item = asker.item(content, bytes.len(), &[&server]);
    assert!(asker.fetch(item) == bytes);
    assert!(server.wire() < bytes.len() as u64 * 102 / 100);
}

#[test]
fn an_offer_of_something_else_does_no_harm() {
    let bytes = noise(3, 16 * MIB);
    let (server, _, segments) = reading(&bytes);
    let client = Node::new(2);
    let asker = Asker::new(&client);
    asker.connect(&server);
    offer(&asker, &server, bytes.len(), 0, &segments);
    until("all", || staged(&asker) == bytes.len() as u64);

    // The same size, one MiB of it other bytes.
    let mut new = bytes.clone();
    new[5 * MIB..6 * MIB].copy_from_slice(&noise(4, MIB));
    let content = server.add("g", &new);
    let before = server.wire();
    let item = asker.item(content, new.len(), &[&server]);
    assert!(asker.fetch(item) == new);
    assert!(
        server.wire() - before < 8 * MIB as u64,
        "what was right of it stays"
    );
}

#[test]
fn a_part_is_found_after_a_restart() {
    let bytes = noise(5, 16 * MIB);
    let (server, content, segments) = reading(&bytes);
    let client = Node::new(2);
    let asker = Asker::new(&client);
    asker.connect(&server);
    let half = &segments[..segments.len() / 2];
    offer(&asker, &server, bytes.len(), 0, half);
    until("half", || staged(&asker) == bytes_of(half));
    drop(asker);

    let asker = Asker::new(&client);
    server.index("f", &bytes);
    asker.connect(&server);
    let before = server.wire();
    let item = asker.item(content, bytes.len(), &[&server]);
    assert!(asker.fetch(item) == bytes);
    let rest = bytes.len() as u64 - bytes_of(half);
    assert!(server.wire() - before < rest + 64 * 1024);
}

#[test]
fn nonsense_is_forgotten() {
    let bytes = noise(6, 16 * MIB);
    let (server, content, segments) = reading(&bytes);
    let client = Node::new(2);
    let asker = Asker::new(&client);
    asker.connect(&server);
    let mut wrong = segments.clone();
    wrong[1].sref.len = u64::MAX;
    offer(&asker, &server, bytes.len(), 0, &wrong);
    offer(&asker, &server, bytes.len(), 5, &segments[5..]);
    offer(&asker, &server, 0, 0, &segments);
    // Segments that do not exist: the peer gets no second chance with this offer.
    wrong.clone_from(&segments);
    wrong[0].sref.id = SegmentId([1; 32]);
    offer(&asker, &server, bytes.len(), 0, &wrong);
    server.index("f", &bytes);
    let item = asker.item(content, bytes.len(), &[&server]);
    assert!(asker.fetch(item) == bytes);
}

#[test]
fn a_wrong_offer_is_not_held_against_the_content() {
    let bytes = noise(9, 16 * MIB);
    let (content, mut segments) = manifest(&bytes);
    let (liar, client) = (Node::new(1), Node::new(2));
    let asker = Asker::new(&client);
    segments.truncate(1);
    let len = segments[0].sref.len as usize;
    let (go, gate) = crossbeam_channel::bounded(0);
    let (at, reached) = crossbeam_channel::bounded(1);
    let mut asked = 0;
    // The offer's only segment is asked for twice; the second answer comes when its content is
    // known already.
    let lane = script(move |want| {
        let gone = !matches!(&want.what, What::Segments { content, .. } if *content == OFFER);
        if !gone {
            asked += 1;
            if asked == 2 {
                at.send(()).unwrap();
                gate.recv().unwrap();
            }
        }
        let (kind, count, raw) = match gone {
            true => (FrameKind::Gone, 0, 0),
            false => (FrameKind::Segment, 1, CHUNK_REF_LEN + len),
        };
        let header = Header {
            count,
            ..header(&want, kind, raw)
        };
        frame(header, &vec![0; raw])
    });
    asker.add_lane(liar.id, lane, false);
    offer(&asker, &liar, bytes.len(), 0, &segments);
    reached.recv().unwrap();
    assert_eq!(asker.fetcher.suspects(), [(liar.id, 1)]);
    asker.submit(asker.item(content, bytes.len(), &[&liar]));
    go.send(()).unwrap();
    assert_eq!(asker.one(), Err(FetchError::Gone));
    assert_eq!(asker.fetcher.suspects(), [(liar.id, 2)]);
}

#[test]
fn who_offered_may_go() {
    let bytes = noise(8, 16 * MIB);
    let (server, content, segments) = reading(&bytes);
    let other = Node::new(3);
    other.add("f", &bytes);
    let client = Node::new(2);
    let asker = Asker::new(&client);
    asker.connect(&server);
    asker.connect(&other);
    let half = &segments[..segments.len() / 2];
    offer(&asker, &server, bytes.len(), 0, half);
    until("half", || staged(&asker) == bytes_of(half));
    asker.fetcher.drop_peer(server.id);
    let item = asker.item(content, bytes.len(), &[&other]);
    assert!(asker.fetch(item) == bytes);
    let rest = bytes.len() as u64 - bytes_of(half);
    assert!(other.wire() < rest + 64 * 1024);
}

fn local(asker: &Asker) -> u64 {
    asker.fetcher.stats().local.load(Ordering::SeqCst)
}

/// "x" is offered, and all of it is staged already, from the file "other" of the share; and the item that
/// then wants it, as a copy of that file.
fn offered_and_here(bytes: &[u8]) -> (Arc<Node>, Arc<Node>, Asker, FetchItem) {
    let (server, content, segments) = reading(bytes);
    let client = Node::new(2);
    client.add("other", bytes);
    let asker = Asker::new(&client);
    asker.connect(&server);
    offer(&asker, &server, bytes.len(), 0, &segments);
    until("all", || local(&asker) == bytes.len() as u64);
    let mut item = asker.item(content, bytes.len(), &[&server]);
    item.copies = vec![RelPath::new("other").unwrap()];
    (server, client, asker, item)
}

/// The other file is not copied besides, unless that takes no writing.
#[test]
fn what_was_offered_and_is_here_is_not_copied_again() {
    let bytes = noise(11, 12 * MIB);
    let (server, client, asker, item) = offered_and_here(&bytes);
    server.index("f", &bytes);
    assert!(asker.fetch(item) == bytes);
    let file = std::fs::File::open(client.path("other")).unwrap();
    let clone = std::fs::File::create(client.stage("clone")).unwrap();
    if !reflink(&file, &clone) {
        assert_eq!(local(&asker), bytes.len() as u64);
    }
}

/// What was offered can not be confirmed when nobody is there who has it.
#[test]
fn what_was_offered_is_copied_where_its_peer_left() {
    let bytes = noise(12, 12 * MIB);
    let (server, _client, asker, item) = offered_and_here(&bytes);
    asker.fetcher.drop_peer(server.id);
    assert!(asker.fetch(item) == bytes);
}

/// Nor is it waited for without an end.
#[test]
fn what_was_offered_ends_where_its_peer_left_before_it_was_wanted() {
    let bytes = noise(13, 12 * MIB);
    let (server, _client, asker, mut item) = offered_and_here(&bytes);
    item.copies.clear();
    asker.fetcher.drop_peer(server.id);
    asker.submit(item);
    assert_eq!(asker.one(), Err(FetchError::Gone));
}
