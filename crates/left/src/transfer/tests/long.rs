//! Over a long link: several lanes to one peer, and windows that go by what the link holds.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use left_core::chunker::content_id;
use left_core::content::ContentId;
use left_core::message::{Want, What};

use super::node::{Asker, Cut, Node, frame, noise};
use crate::transfer::frame::{FrameKind, Header};
use crate::transfer::{LaneStream, ServeConfig};

const MIB: usize = 1 << 20;
const FAR: Duration = Duration::from_millis(20);
/// Half a round trip and more of silence after each.
const LUMPS: (u64, Duration) = (256 << 10, Duration::from_millis(20));

/// A stream whose written bytes are counted.
struct Counted {
    stream: Box<dyn LaneStream>,
    count: Arc<AtomicU64>,
    /// After so many bytes nothing goes for so long, as where packets are lost.
    lumps: Option<(u64, Duration)>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf)
    }
}

impl Write for Counted {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let buf = &buf[..buf.len().min(64 << 10)];
        if let Some((lump, wait)) = self.lumps {
            let sent = self.count.load(Ordering::SeqCst);
            if sent / lump != (sent + buf.len() as u64) / lump {
                std::thread::sleep(wait);
            }
        }
        let n = self.stream.write(buf)?;
        self.count.fetch_add(n as u64, Ordering::SeqCst);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A lane to `server` that the test answers.
fn lane_by_hand(asker: &Asker, server: &Node) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let patience = Some(Duration::from_secs(60));
    ours.set_read_timeout(patience).unwrap();
    asker.add_lane(server.id, theirs, false);
    ours
}

/// Reads the next request of a lane, answered by hand.
fn want(lane: &mut UnixStream) -> (u32, Vec<ContentId>) {
    let mut len = [0; 4];
    lane.read_exact(&mut len).unwrap();
    let mut bytes = vec![0; u32::from_be_bytes(len) as usize];
    lane.read_exact(&mut bytes).unwrap();
    let want = Want::decode(&bytes).unwrap();
    match want.what {
        What::Whole(ids) => (want.id, ids),
        other => panic!("{other:?}"),
    }
}

/// Sends these items of the answer to a request.
fn answer(
    lane: &mut UnixStream,
    files: &[Vec<u8>],
    id: u32,
    ids: &[ContentId],
    items: Range<usize>,
) {
    for item in items {
        let bytes = files.iter().find(|b| content_id(b) == ids[item]).unwrap();
        let header = Header {
            want: id,
            kind: FrameKind::Data,
            zstd: false,
            last: item + 1 == ids.len(),
            count: 0,
            item: item as u32,
            raw: bytes.len() as u32,
            wire: bytes.len() as u32,
        };
        lane.write_all(&frame(header, bytes)).unwrap();
    }
}

/// A lane to `server` that breaks after so many bytes, and the count of what went over it.
fn lane(
    asker: &Asker,
    server: &Arc<Node>,
    left: u64,
    lumps: Option<(u64, Duration)>,
) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let wrap = |stream: UnixStream| -> Box<dyn LaneStream> {
        Box::new(Counted {
            stream: Box::new(Cut { stream, left }),
            count: counted,
            lumps,
        })
    };
    let stream = server.lane_with(wrap, ServeConfig::default());
    asker.add_lane(server.id, stream, false);
    count
}

#[test]
fn over_a_lossy_link_a_content_comes_by_two_lanes_and_one_that_dies_gives_its_part_back() {
    let (server, client) = (Node::new(1), Node::new(2));
    let bytes = noise(1, 24 * MIB);
    let content = server.add("f", &bytes);
    let asker = Asker::new(&client);
    asker.fetcher.add_peer(server.id, false);
    asker.fetcher.round_trip(server.id, FAR);
    let dies = MIB as u64 + 5;
    let counts = [u64::MAX, dies].map(|left| lane(&asker, &server, left, Some(LUMPS)));
    let item = asker.item(content, bytes.len(), &[&server]);
    assert!(asker.fetch(item) == bytes);
    assert_eq!(asker.fetcher.suspects(), []);
    let came = counts.map(|count| count.load(Ordering::SeqCst));
    assert_eq!(came[1], dies, "the second brought its part, then died");
    // What the dead one was asked for came by the other.
    assert!(came[0] > (22 * MIB) as u64, "{came:?}");
}

#[test]
fn over_a_good_link_the_second_lane_is_a_reserve() {
    let (server, client) = (Node::new(1), Node::new(2));
    let bytes = noise(1, 16 * MIB);
    let content = server.add("f", &bytes);
    let asker = Asker::new(&client);
    asker.fetcher.add_peer(server.id, false);
    asker.fetcher.round_trip(server.id, FAR);
    let counts = [5 * MIB as u64, u64::MAX].map(|left| lane(&asker, &server, left, None));
    let item = asker.item(content, bytes.len(), &[&server]);
    assert!(asker.fetch(item) == bytes);
    let came = counts.map(|count| count.load(Ordering::SeqCst));
    assert_eq!(came[0], 5 * MIB as u64, "the first was asked until it died");
    assert!(came[1] > (10 * MIB) as u64, "{came:?}");
}

#[test]
fn small_contents_and_big_ones_come_over_a_long_link() {
    let (server, client) = (Node::new(1), Node::new(2));
    let asker = Asker::new(&client);
    asker.fetcher.add_peer(server.id, false);
    asker.fetcher.round_trip(server.id, FAR);
    let files: Vec<_> = (0..3)
        .map(|i| noise(i, 3 * MIB))
        .chain((100..1500).map(|i| noise(i, 4096)))
        .collect();
    let items = asker.submit_all(&server, &files);
    for _ in 0..2 {
        asker.connect(&server);
    }
    asker.add_lane(server.id, server.lane(), true);
    asker.all_come(&items, &files);
}

/// Else the link would be idle for a round trip after each answer.
#[test]
fn over_a_long_link_more_is_asked_for_in_the_midst_of_an_answer() {
    const FILES: usize = 100;
    let (server, client) = (Node::new(1), Node::new(2));
    let asker = Asker::new(&client);
    asker.fetcher.add_peer(server.id, false);
    asker.fetcher.round_trip(server.id, FAR);
    let mut lane = lane_by_hand(&asker, &server);
    let files: Vec<_> = (0..2 * FILES as u64).map(|i| noise(i, 4096)).collect();
    let items = |files: &[Vec<u8>]| -> Vec<_> {
        let item = |b: &Vec<u8>| asker.item(content_id(b), b.len(), &[&server]);
        files.iter().map(item).collect()
    };
    let (first, second) = files.split_at(FILES);
    asker.fetcher.submit(items(first));
    let (id, ids) = want(&mut lane);
    asker.fetcher.submit(items(second));
    // What is asked for at first may be less than all; of that a large part, then the next request.
    let part = ids.len() * 3 / 4;
    answer(&mut lane, &files, id, &ids, 0..part);
    let mut asked = ids.len();
    let mut rest = part..ids.len();
    let mut request = (id, ids);
    while asked < files.len() {
        let next = want(&mut lane);
        answer(&mut lane, &files, request.0, &request.1, rest);
        asked += next.1.len();
        rest = 0..next.1.len();
        request = next;
    }
    answer(&mut lane, &files, request.0, &request.1, rest);
    assert!(asker.collect(files.len()).values().all(Result::is_ok));
}

/// Else all would wait at the end for what one lane, on which TCP has only begun, was asked for.
#[test]
fn a_lane_that_begins_is_asked_for_a_few_small_contents() {
    const LEN: usize = 4096;
    let (server, client) = (Node::new(1), Node::new(2));
    let asker = Asker::new(&client);
    asker.fetcher.add_peer(server.id, false);
    asker.fetcher.round_trip(server.id, FAR);
    let mut slow = lane_by_hand(&asker, &server);
    let files: Vec<_> = (0..2000).map(|i| noise(i, LEN)).collect();
    asker.submit_all(&server, &files);
    let (id, ids) = want(&mut slow);
    assert!(
        (1..=(256 << 10) / LEN).contains(&ids.len()),
        "{}",
        ids.len()
    );
    asker.connect(&server);
    let others = asker.collect(files.len() - ids.len());
    assert!(others.values().all(Result::is_ok));
    slow.set_nonblocking(true).unwrap();
    let more = slow.read(&mut [0]).map_err(|e| e.kind());
    assert_eq!(more, Err(ErrorKind::WouldBlock), "asked for more meanwhile");
    slow.set_nonblocking(false).unwrap();
    answer(&mut slow, &files, id, &ids, 0..ids.len());
    assert!(asker.collect(ids.len()).values().all(Result::is_ok));
}
