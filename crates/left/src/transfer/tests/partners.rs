//! Other receivers that are slow, silent or lie: a file is held up by them for a moment at most, and
//! the next one not again.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use left_core::content::{ContentId, Segment};
use left_core::message::{Parts, Want, What};
use left_core::path::RelPath;
use left_core::plan::FetchError;
use left_core::version::DeviceId;

use super::hostile::header;
use super::node::{Asker, Node, frame, manifest, noise, script};
use super::swarm::{FAST, Fleet};
use crate::transfer::frame::{CHUNK_REF_LEN, FrameKind, Header, put_list};
use crate::transfer::{FetchConfig, Offered};

const MIB: usize = 1 << 20;
const LIAR: DeviceId = DeviceId([66; 32]);
/// Each of these files is here in a fraction of that without partners.
const SOON: Duration = Duration::from_secs(6);

fn all_of(content: ContentId) -> Parts {
    Parts {
        content,
        from: 0,
        bitmap: vec![0xff; 1024],
        hello: true,
    }
}

/// A receiver, a source, and somebody who says that it has everything of each of `files` files and
/// answers so.
fn liar(files: u64, answer: impl Fn(&Want, &[Segment]) -> Vec<u8> + Send + 'static) -> Fleet {
    let fleet = Fleet::new(1, 200 << 20, &FetchConfig::default());
    let asker = &fleet.askers[0];
    asker.fetcher.add_peer(LIAR, true);
    let manifests = Arc::clone(&fleet.source.manifests);
    let lane = script(move |want| {
        let What::Segments { content, .. } = &want.what else {
            return frame(header(&want, FrameKind::Gone, 0), &[]);
        };
        let (_, segments) = manifests.get(content).unwrap();
        answer(&want, &segments)
    });
    asker.add_lane(LIAR, lane, false);
    let (start, mut known) = (Instant::now(), None);
    for n in 0..files {
        let bytes = noise(n, 24 * MIB);
        let content = fleet.source.add(&format!("f{n}"), &bytes);
        asker.submit(asker.item(content, bytes.len(), &[&fleet.source]));
        // Again and again, and of contents that nobody knows.
        for n in 0..500u64 {
            asker.fetcher.parts(LIAR, &all_of(content));
            let unknown = Parts {
                from: n << 20,
                ..all_of(ContentId(*blake3::hash(&n.to_le_bytes()).as_bytes()))
            };
            asker.fetcher.parts(LIAR, &unknown);
        }
        let name = asker.one().unwrap();
        assert!(asker.read(&name) == bytes);
        // Who lied is not asked in vain for each file.
        let suspects = asker.fetcher.suspects();
        assert_eq!(*known.get_or_insert(suspects.clone()), suspects);
    }
    let took = start.elapsed();
    println!("{took:?}");
    assert!(took < SOON, "{took:?}");
    fleet
}

/// The right answer.
fn right(want: &Want, all: &[Segment], bytes: &dyn Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let What::Segments { segments, .. } = &want.what else {
        panic!("{want:?}");
    };
    let mut out = Vec::new();
    for (at, n) in segments.iter().enumerate() {
        let chunks = &all[*n as usize].chunks;
        let mut payload = vec![0; chunks.len() * CHUNK_REF_LEN];
        put_list(&mut payload, chunks);
        payload.extend(bytes(*n as usize));
        let form = Header {
            item: at as u32,
            last: at + 1 == segments.len(),
            count: chunks.len() as u16,
            ..header(want, FrameKind::Segment, payload.len())
        };
        out.extend(frame(form, &payload));
    }
    out
}

fn segment_of(bytes: &[u8], all: &[Segment], n: usize) -> Vec<u8> {
    let from: u64 = all[..n].iter().map(|s| s.sref.len).sum();
    let len = all[n].sref.len as usize;
    bytes[from as usize..][..len].to_vec()
}

#[test]
fn who_has_nothing_of_what_it_says_does_no_harm() {
    let fleet = liar(3, |want, _| frame(header(want, FrameKind::Gone, 0), &[]));
    assert!(fleet.askers[0].fetcher.suspects().is_empty());
}

#[test]
fn who_sends_other_bytes_does_no_harm() {
    let fleet = liar(3, |want, all| {
        right(want, all, &|n| vec![1; all[n].sref.len as usize])
    });
    let suspects = fleet.askers[0].fetcher.suspects();
    assert!(suspects.len() == 1 && suspects[0].0 == LIAR, "{suspects:?}");
}

#[test]
fn who_never_answers_is_not_waited_for() {
    liar(3, |_, _| {
        std::thread::sleep(Duration::from_secs(3600));
        Vec::new()
    });
}

#[test]
fn who_answers_now_and_then_is_not_waited_for() {
    let all: Vec<Vec<u8>> = (0..2).map(|n| noise(n, 24 * MIB)).collect();
    let ids: Vec<Vec<Segment>> = all.iter().map(|bytes| manifest(bytes).1).collect();
    liar(2, move |want, segments| {
        std::thread::sleep(Duration::from_millis(600));
        let file = ids.iter().position(|list| list == segments).unwrap();
        right(want, segments, &|n| segment_of(&all[file], segments, n))
    });
}

#[test]
fn a_slow_receiver_does_not_hold_up_the_others() {
    let fleet = Fleet::with(&[FAST, FAST, 100_000], 60 << 20, &FetchConfig::default());
    let bytes = noise(3, 32 * MIB);
    let content = fleet.source.add("f", &bytes);
    let start = Instant::now();
    fleet.submit(content, bytes.len());
    fleet.all_have(&bytes);
    let (took, times) = (start.elapsed(), fleet.times(&bytes));
    println!("{took:?}, {times:.3} times");
    assert!(took < SOON && times < 2.2, "{took:?} {times}");
    let suspects = fleet.askers.iter().flat_map(|a| a.fetcher.suspects());
    assert_eq!(suspects.count(), 0);
}

#[test]
fn a_lane_that_comes_and_goes_leaves_no_file_standing() {
    let fleet = Fleet::new(1, FAST, &FetchConfig::default());
    let asker = &fleet.askers[0];
    asker.fetcher.add_peer(LIAR, true);
    let start = Instant::now();
    for n in 0..5 {
        let bytes = noise(n, 16 * MIB);
        let content = fleet.source.add(&format!("f{n}"), &bytes);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        asker.add_lane(LIAR, ours, false);
        let soon = Some(Duration::from_millis(1));
        theirs.set_read_timeout(soon).unwrap();
        asker.submit(asker.item(content, bytes.len(), &[&fleet.source]));
        // It is asked for something; then its lane is lost, and it goes on talking of nothing.
        while theirs.read(&mut [0; 64]).is_err() {
            asker.fetcher.parts(LIAR, &all_of(content));
        }
        drop(theirs);
        let nothing = Parts {
            bitmap: Vec::new(),
            hello: false,
            ..all_of(content)
        };
        let result = loop {
            if let Ok(mut all) = asker.results.recv_timeout(Duration::from_millis(1)) {
                break all.remove(0).1;
            }
            asker.fetcher.parts(LIAR, &nothing);
            assert!(start.elapsed() < SOON * 2, "file {n} stands still");
        };
        assert!(asker.read(&result.unwrap()) == bytes);
    }
}

#[test]
fn what_its_source_has_not_any_more_is_not_gone_on_with_for_long() {
    let config = FetchConfig {
        stuck_after: Duration::from_millis(500),
        ..FetchConfig::default()
    };
    let fleet = Fleet::new(1, FAST, &config);
    let asker = &fleet.askers[0];
    let bytes = noise(5, 32 * MIB);
    let content = fleet.source.add("f", &bytes);
    let (_, segments) = manifest(&bytes);
    asker.fetcher.add_peer(LIAR, true);
    let trickle = script(move |want| {
        std::thread::sleep(Duration::from_millis(400));
        right(&want, &segments, &|n| segment_of(&bytes, &segments, n))
    });
    asker.add_lane(LIAR, trickle, false);
    let talk = || asker.fetcher.parts(LIAR, &all_of(content));
    asker.submit(asker.item(content, 32 * MIB, &[&fleet.source]));
    talk();
    let start = Instant::now();
    while asker.fetcher.progress().big[0].done == 0 {
        talk();
        std::thread::sleep(Duration::from_millis(1));
    }
    std::fs::write(fleet.source.path("f"), b"another").unwrap();
    assert_eq!(asker.one(), Err(FetchError::Gone));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

/// What an offer says to two receivers need not be the same.
#[test]
fn of_two_lists_of_an_offer_no_receiver_is_to_blame() {
    const OFFER: ContentId = ContentId([7; 32]);
    let bytes = noise(6, 16 * MIB);
    let (content, right) = manifest(&bytes);
    let mut ids = right.clone();
    ids.iter_mut().for_each(|s| s.sref.id.0[0] ^= 1);
    let (_, lengths) = manifest(&noise(7, 16 * MIB));
    for wrong in [ids, lengths] {
        // One has taken it all, as it is.
        let honest = Node::new(3);
        honest.add("f", &bytes);
        honest.manifests.put(OFFER, right.clone());
        honest.claim("f", OFFER);
        // The other is told something else, and its part of it is never sent.
        let asker = Asker::new(&Node::new(2));
        asker.fetcher.share_work(asker.node.id, Box::new(drop));
        asker.connect(&honest);
        asker.fetcher.add_peer(honest.id, true);
        let (silent, _theirs) = UnixStream::pair().unwrap();
        asker.add_lane(LIAR, silent, false);
        let offer = Offered {
            id: OFFER,
            path: RelPath::new("x").unwrap(),
            size: bytes.len() as u64,
            from: 0,
            segments: wrong.iter().map(|s| s.sref).collect(),
            base: None,
        };
        asker.fetcher.offer(LIAR, offer);
        let told = Parts {
            bitmap: vec![0xff; right.len() / 8],
            ..all_of(OFFER)
        };
        while honest.wire() == 0 {
            asker.fetcher.parts(honest.id, &told);
            std::thread::sleep(Duration::from_millis(1));
        }
        // Its lane is still up, and it gives the content.
        asker.fetcher.drop_peer(LIAR);
        let item = asker.item(content, bytes.len(), &[&honest]);
        assert!(asker.fetch(item) == bytes);
        assert_eq!(asker.fetcher.suspects(), []);
    }
}
