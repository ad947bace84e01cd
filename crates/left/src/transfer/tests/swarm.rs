//! Several receivers of one content. What is counted is what leaves the source.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, unbounded};
use left_core::content::{ContentId, Segment};
use left_core::message::{Parts, Want, What};
use left_core::plan::FetchError;
use left_core::version::DeviceId;

use super::hostile::header;
use super::node::{Asker, Node, frame, noise, script};
use crate::transfer::frame::{CHUNK_REF_LEN, FrameKind, Header};
use crate::transfer::{FetchConfig, ServeConfig};

const MIB: usize = 1 << 20;

type Told = (DeviceId, DeviceId, Parts);

/// An uplink that all lanes of a node share.
#[derive(Clone)]
struct Uplink {
    free: Arc<Mutex<Instant>>,
    rate: u64,
    cut: Arc<AtomicBool>,
}

impl Uplink {
    fn new(rate: u64) -> Self {
        Self {
            free: Arc::new(Mutex::new(Instant::now())),
            rate,
            cut: Arc::default(),
        }
    }
}

struct Slow(UnixStream, Uplink);

impl Read for Slow {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Slow {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.1.cut.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let piece = &buf[..buf.len().min(32 << 10)];
        let at = {
            let mut free = self.1.free.lock().unwrap();
            let cost = Duration::from_nanos(piece.len() as u64 * 1_000_000_000 / self.1.rate);
            *free = (*free).max(Instant::now()) + cost;
            *free
        };
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        self.0.write(piece)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Receivers that are connected to each other and to a source.
struct Fleet {
    source: Arc<Node>,
    askers: Vec<Arc<Asker>>,
    uplink: Uplink,
    told: Sender<Told>,
}

/// Carries what receivers tell each other.
fn carry(told: &crossbeam_channel::Receiver<Told>, to: &[Weak<Asker>]) {
    for (from, whom, parts) in told {
        let asker = to.iter().filter_map(Weak::upgrade);
        if let Some(asker) = asker.into_iter().find(|a| a.node.id == whom) {
            asker.fetcher.parts(from, &parts);
        }
    }
}

impl Fleet {
    fn new(receivers: u8, rate: u64, config: &FetchConfig) -> Self {
        let source = Node::new(100);
        let (told, rx) = unbounded::<Told>();
        let uplink = Uplink::new(rate);
        let askers: Vec<Arc<Asker>> = (1..=receivers)
            .map(|n| Arc::new(Asker::with(&Node::new(n), config.clone())))
            .collect();
        let weak: Vec<Weak<Asker>> = askers.iter().map(Arc::downgrade).collect();
        std::thread::spawn(move || carry(&rx, &weak));
        let fleet = Self {
            source,
            askers,
            uplink,
            told,
        };
        for asker in &fleet.askers {
            fleet.join(asker);
        }
        fleet
    }

    fn join(&self, asker: &Asker) {
        let me = asker.node.id;
        assert!(asker.node.stock.set(asker.fetcher.stock()).is_ok());
        let told = self.told.clone();
        asker.fetcher.share_work(
            me,
            Box::new(move |all| {
                for (whom, parts) in all.all {
                    let _ = told.send((me, whom, parts));
                }
            }),
        );
        let uplink = self.uplink.clone();
        let wrap = |s| Box::new(Slow(s, uplink)) as _;
        let lane = self.source.lane_with(wrap, ServeConfig::default());
        asker.fetcher.add_peer(self.source.id, true);
        asker.add_lane(self.source.id, lane, false);
        for other in self.askers.iter().filter(|o| o.node.id != me) {
            asker.fetcher.add_peer(other.node.id, true);
            asker.connect(&other.node);
        }
    }

    fn submit(&self, content: ContentId, size: usize) {
        for asker in &self.askers {
            asker.submit(asker.item(content, size, &[&self.source]));
        }
    }

    fn all_have(&self, bytes: &[u8]) {
        for asker in &self.askers {
            let name = asker.one().unwrap();
            assert!(asker.read(&name) == bytes, "{:?}", asker.node.id);
        }
    }

    /// How often the source sent the file.
    fn times(&self, bytes: &[u8]) -> f64 {
        self.source.wire() as f64 / bytes.len() as f64
    }
}

#[test]
fn each_chunk_leaves_the_source_about_once() {
    for receivers in [2, 4] {
        let fleet = Fleet::new(receivers, 40 << 20, &FetchConfig::default());
        let bytes = noise(1, 32 * MIB + 5);
        let content = fleet.source.add("f", &bytes);
        fleet.submit(content, bytes.len());
        fleet.all_have(&bytes);
        let times = fleet.times(&bytes);
        println!("{receivers} receivers: {times:.3} times");
        assert!(times < 1.3, "{receivers} receivers: {times}");
        for asker in &fleet.askers {
            assert!(asker.fetcher.suspects().is_empty());
            let stored = asker.node.manifests.get(&content);
            assert_eq!(stored, fleet.source.manifests.get(&content));
        }
    }
}

#[test]
fn a_source_without_a_limit_is_not_drawn_from_by_all_of_them() {
    let mib = std::env::var("SWARM_MIB").map_or(64, |s| s.parse().unwrap());
    let fleet = Fleet::new(8, u64::MAX, &FetchConfig::default());
    let bytes = noise(6, mib * MIB + 5);
    let content = fleet.source.add("f", &bytes);
    let start = Instant::now();
    fleet.submit(content, bytes.len());
    fleet.all_have(&bytes);
    let times = fleet.times(&bytes);
    println!("{times:.3} times in {:?}", start.elapsed());
    assert!(times < 2.0, "{times}");
}

#[test]
fn who_comes_late_gets_it_from_the_others() {
    let fleet = Fleet::new(3, 30 << 20, &FetchConfig::default());
    let bytes = noise(2, 32 * MIB);
    let content = fleet.source.add("f", &bytes);
    let (last, first) = fleet.askers.split_last().unwrap();
    for asker in first {
        asker.submit(asker.item(content, bytes.len(), &[&fleet.source]));
    }
    while first[0].fetcher.progress().big[0].done < 16 << 20 {
        std::thread::sleep(Duration::from_millis(5));
    }
    last.submit(last.item(content, bytes.len(), &[&fleet.source]));
    fleet.all_have(&bytes);
    let times = fleet.times(&bytes);
    assert!(times < 1.35, "{times}");
}

#[test]
fn they_finish_without_the_source_when_they_have_it_all_together() {
    let fleet = Fleet::new(3, 60 << 20, &FetchConfig::default());
    let bytes = noise(3, 24 * MIB);
    let content = fleet.source.add("f", &bytes);
    fleet.submit(content, bytes.len());
    let whole = fleet.askers[0].one().unwrap();
    assert!(fleet.askers[0].read(&whole) == bytes);
    // One has all of it; the source goes.
    fleet.uplink.cut.store(true, Ordering::SeqCst);
    for asker in &fleet.askers[1..] {
        asker.fetcher.drop_peer(fleet.source.id);
        let name = asker.one().unwrap();
        assert!(asker.read(&name) == bytes);
    }
}

#[test]
fn what_nobody_has_any_more_fails() {
    let fleet = Fleet::new(2, 20 << 20, &FetchConfig::default());
    let bytes = noise(4, 48 * MIB);
    let content = fleet.source.add("f", &bytes);
    fleet.submit(content, bytes.len());
    while fleet.askers[0].fetcher.progress().big[0].done < 8 << 20 {
        std::thread::sleep(Duration::from_millis(5));
    }
    fleet.uplink.cut.store(true, Ordering::SeqCst);
    for asker in &fleet.askers {
        asker.fetcher.drop_peer(fleet.source.id);
    }
    for asker in &fleet.askers {
        assert_eq!(asker.one(), Err(FetchError::Gone));
    }
}

/// A receiver and somebody who says that it has everything.
fn liar(answer: impl Fn(&Want, &[Segment]) -> Vec<u8> + Send + 'static) {
    let config = FetchConfig {
        stuck_after: Duration::from_millis(300),
        ..FetchConfig::default()
    };
    let fleet = Fleet::new(1, 100 << 20, &config);
    let bytes = noise(5, 24 * MIB);
    let content = fleet.source.add("f", &bytes);
    let (_, segments) = fleet.source.manifests.get(&content).unwrap();
    let (asker, liar) = (&fleet.askers[0], DeviceId([66; 32]));
    asker.fetcher.add_peer(liar, true);
    let answer = script(move |want| answer(&want, &segments));
    asker.add_lane(liar, answer, false);
    asker.submit(asker.item(content, bytes.len(), &[&fleet.source]));
    let all = Parts {
        content,
        from: 0,
        bitmap: vec![0xff; 8192],
        hello: true,
    };
    // Again and again, and of contents that nobody knows.
    for n in 0..2000u64 {
        asker.fetcher.parts(liar, &all);
        let unknown = Parts {
            content: ContentId(*blake3::hash(&n.to_le_bytes()).as_bytes()),
            from: n << 20,
            ..all.clone()
        };
        asker.fetcher.parts(liar, &unknown);
    }
    let name = asker.one().unwrap();
    assert!(asker.read(&name) == bytes);
}

#[test]
fn who_has_nothing_of_what_it_says_does_no_harm() {
    liar(|want, _| frame(header(want, FrameKind::Gone, 0), &[]));
}

#[test]
fn who_sends_other_bytes_does_no_harm() {
    liar(|want, all| {
        let What::Segments { segments, .. } = &want.what else {
            panic!("{want:?}");
        };
        let mut out = Vec::new();
        for (at, n) in segments.iter().enumerate() {
            let bytes = vec![1; CHUNK_REF_LEN + all[*n as usize].sref.len as usize];
            let form = Header {
                item: at as u32,
                last: at + 1 == segments.len(),
                count: 1,
                ..header(want, FrameKind::Segment, bytes.len())
            };
            out.extend(frame(form, &bytes));
        }
        out
    });
}

#[test]
fn who_never_answers_is_not_waited_for() {
    liar(|_, _| {
        std::thread::sleep(Duration::from_secs(3600));
        Vec::new()
    });
}
