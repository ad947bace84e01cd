use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use left_core::chunker::content_id;
use left_core::content::ContentId;
use left_core::message::{Want, What};
use left_core::plan::FetchError;

use super::node::{Asker, Node, frame, manifest, noise, script};
use crate::transfer::frame::{FrameKind, HEADER_LEN, Header, MAX_PAYLOAD, MAX_WANT};
use crate::transfer::{ServeConfig, ServeError, ServeStats, serve};

const MIB: usize = 1 << 20;

pub fn header(want: &Want, kind: FrameKind, raw: usize) -> Header {
    Header {
        want: want.id,
        kind,
        zstd: false,
        last: true,
        count: 0,
        item: 0,
        raw: raw as u32,
        wire: raw as u32,
    }
}

/// What becomes of a small and of a big item when the only peer answers so.
fn against(answer: impl Fn(Want) -> Vec<u8> + Send + Sync + Clone + 'static) -> Vec<FetchError> {
    let (liar, client) = (Node::new(1), Node::new(2));
    let mut ends = Vec::new();
    for (content, size) in [(content_id(b"abc"), 3), (manifest(&noise(1, MIB)).0, MIB)] {
        let asker = Asker::new(&client);
        asker.add_lane(liar.id, script(answer.clone()), false);
        asker.submit(asker.item(content, size, &[&liar]));
        ends.push(asker.one().unwrap_err());
        assert!(asker.fetcher.suspects().iter().all(|(p, _)| *p == liar.id));
    }
    ends
}

#[test]
fn garbage_closes_the_lane() {
    assert_eq!(
        against(|_| vec![0xa5; 4096]),
        [const { FetchError::Gone }; 2]
    );
    assert_eq!(
        against(|w| frame(header(&w, FrameKind::Gone, 0), b"")[..9].to_vec()),
        [const { FetchError::Gone }; 2]
    );
}

#[test]
fn lengths_that_were_not_asked_for_close_the_lane() {
    for raw in [MAX_PAYLOAD + 1, u32::MAX as usize, MAX_PAYLOAD, 4] {
        for kind in [FrameKind::Data, FrameKind::Refs, FrameKind::Segment] {
            let ends = against(move |w| frame(header(&w, kind, raw), &[0; 64]));
            assert_eq!(ends, [const { FetchError::Gone }; 2]);
        }
    }
}

#[test]
fn bombs_and_answers_out_of_turn_close_the_lane() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let answer = move |w: Want| {
        let mut h = header(&w, FrameKind::Refs, 40 * 16_000);
        (h.zstd, h.count, h.wire) = (true, 16_000, bomb.len() as u32);
        frame(h, &bomb)
    };
    assert_eq!(against(answer)[1], FetchError::Gone);
    let other = |w: Want| {
        let mut h = header(&w, FrameKind::Gone, 0);
        h.want += 1;
        frame(h, b"")
    };
    assert_eq!(against(other), [const { FetchError::Gone }; 2]);
    let open = |w: Want| {
        let mut h = header(&w, FrameKind::Gone, 0);
        h.last = false;
        frame(h, b"")
    };
    assert_eq!(against(open), [const { FetchError::Gone }; 2]);
}

#[test]
fn wrong_bytes_are_asked_for_once_more_then_named() {
    let (liar, client) = (Node::new(1), Node::new(2));
    for len in [3000, 5 * MIB] {
        let (right, wrong) = (noise(1, len), noise(2, len));
        let content = manifest(&right).0;
        std::fs::write(liar.path("f"), &wrong).unwrap();
        liar.claim("f", content);
        liar.manifests.put(content, manifest(&right).1);
        let asker = Asker::new(&client);
        asker.connect(&liar);
        asker.submit(asker.item(content, len, &[&liar]));
        assert_eq!(asker.one(), Err(FetchError::Corrupt(liar.id)));
        let (who, times) = asker.fetcher.suspects()[0];
        assert!(who == liar.id && times >= 2);
    }
}

#[test]
fn wrong_lists_are_named() {
    let (liar, client) = (Node::new(1), Node::new(2));
    let bytes = noise(1, 2 * MIB);
    let content = liar.add("f", &bytes);
    for wrong in [&liar.manifests.wrong_lists, &liar.manifests.wrong_refs] {
        wrong.store(true, Ordering::SeqCst);
        let asker = Asker::new(&client);
        asker.connect(&liar);
        asker.submit(asker.item(content, bytes.len(), &[&liar]));
        assert_eq!(asker.one(), Err(FetchError::Corrupt(liar.id)));
        wrong.store(false, Ordering::SeqCst);
    }
}

#[test]
fn endless_segment_lists_end() {
    // The content is said to have 1 GiB; every answer is a full page of the shortest segments.
    let (liar, client) = (Node::new(1), Node::new(2));
    let asker = Asker::new(&client);
    let pages = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = Arc::clone(&pages);
    let lane = script(move |want| {
        counted.fetch_add(1, Ordering::SeqCst);
        let mut page = Vec::new();
        for i in 0..16_384u32 {
            page.extend_from_slice(&32_768u64.to_be_bytes());
            page.extend_from_slice(&noise(u64::from(i), 32));
        }
        let mut h = header(&want, FrameKind::Refs, page.len());
        h.count = 16_384;
        frame(h, &page)
    });
    asker.add_lane(liar.id, lane, false);
    asker.submit(asker.item(ContentId([5; 32]), 1 << 30, &[&liar]));
    assert_eq!(asker.one(), Err(FetchError::Corrupt(liar.id)));
    // 1 GiB is used up after two pages, and it was asked twice.
    assert_eq!(pages.load(Ordering::SeqCst), 4);
}

#[test]
fn a_silent_peer_is_left_when_its_lane_is_closed() {
    let (silent, client) = (Node::new(1), Node::new(2));
    let asker = Asker::new(&client);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    asker.add_lane(silent.id, ours, false);
    asker.submit(asker.item(content_id(b"abc"), 3, &[&silent]));
    asker.submit(asker.item(ContentId([5; 32]), MIB, &[&silent]));
    // Both requests are there, so the lane waits for answers.
    let mut byte = [0];
    theirs.read_exact(&mut byte).unwrap();
    asker.fetcher.drop_peer(silent.id);
    let ends = asker.collect(2);
    assert!(ends.values().all(|r| *r == Err(FetchError::Gone)));
}

#[test]
fn dropping_a_fetcher_does_not_wait_for_silent_peers() {
    let (silent, client) = (Node::new(1), Node::new(2));
    let asker = Asker::new(&client);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    asker.add_lane(silent.id, ours, false);
    asker.submit(asker.item(ContentId([5; 32]), MIB, &[&silent]));
    theirs.read_exact(&mut [0]).unwrap();
    drop(asker);
}

fn ask(bytes: &[u8]) -> Result<(), ServeError> {
    let server = Node::new(1);
    server.add("f", &noise(1, MIB));
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(bytes).unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    let stats = ServeStats::default();
    serve(
        Box::new(ours),
        Arc::clone(&server) as _,
        ServeConfig::default(),
        &stats,
    )
}

fn request(what: What) -> Vec<u8> {
    let bytes = Want {
        id: 1,
        what,
        rate: 0,
    }
    .encode();
    let mut out = (bytes.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(&bytes);
    out
}

#[test]
fn bad_requests_close_the_lane() {
    let content = manifest(&noise(1, MIB)).0;
    let bad = |bytes: &[u8]| assert!(matches!(ask(bytes), Err(ServeError::BadWant(_))));
    bad(&[0; 4]);
    bad(&(MAX_WANT as u32 + 1).to_be_bytes());
    bad(&[0, 0, 0, 3, 0xff, 0xff, 0xff]);
    bad(&request(What::Whole(Vec::new())));
    bad(&request(What::Whole(vec![content])));
    bad(&request(What::Refs {
        content,
        from: 1 << 40,
    }));
    bad(&request(What::Segments {
        content,
        segments: vec![u64::MAX],
    }));
    bad(&request(What::Chunks {
        content,
        segment: 0,
        bitmap: vec![0],
    }));
    assert!(matches!(ask(&[0, 0, 1, 0, 5]), Err(ServeError::Io(_))));
    assert!(ask(&[]).is_ok());
    let nobody_has_it = What::Whole(vec![ContentId([1; 32])]);
    assert!(ask(&request(nobody_has_it)).is_ok());
}

#[test]
fn every_single_bit_flip_of_an_answer_is_noticed() {
    let (server, client) = (Node::new(1), Node::new(2));
    let bytes = noise(1, 40);
    let content = server.add("f", &bytes);
    let mut lane = server.lane();
    lane.write_all(&request(What::Whole(vec![content])))
        .unwrap();
    let mut answer = vec![0; HEADER_LEN + bytes.len()];
    lane.read_exact(&mut answer).unwrap();
    for bit in 0..answer.len() * 8 {
        let mut answer = answer.clone();
        answer[bit / 8] ^= 1 << (bit % 8);
        let asker = Asker::new(&client);
        let lane = script(move |want| {
            // The id that this asker chose, with the flip where it falls into it.
            let mut bytes = answer.clone();
            let flipped = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) ^ 1;
            bytes[..4].copy_from_slice(&(want.id ^ flipped).to_be_bytes());
            bytes
        });
        asker.add_lane(server.id, lane.try_clone().unwrap(), false);
        asker.submit(asker.item(content, bytes.len(), &[&server]));
        let reserved = (20 * 8..24 * 8).contains(&bit) || (6 * 8..8 * 8).contains(&bit);
        if reserved {
            assert!(asker.one().is_ok());
            continue;
        }
        // A longer length makes the asker wait for bytes that never come: the lane is closed.
        lane.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(asker.one().is_err(), "bit {bit}");
    }
}
