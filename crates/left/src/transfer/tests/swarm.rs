//! Several receivers of one content. What is counted is what leaves the source.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, unbounded};
use left_core::content::ContentId;
use left_core::message::Parts;
use left_core::plan::FetchError;
use left_core::version::DeviceId;

use super::node::{Asker, Node, noise};
use crate::transfer::{FetchConfig, ServeConfig};

const MIB: usize = 1 << 20;

type Told = (DeviceId, DeviceId, Parts);

/// An uplink that all lanes of a node share.
#[derive(Clone)]
pub struct Uplink {
    free: Arc<Mutex<Instant>>,
    rate: u64,
    pub cut: Arc<AtomicBool>,
}

/// Bytes a second that are no limit.
pub const FAST: u64 = u64::MAX;

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
pub struct Fleet {
    pub source: Arc<Node>,
    pub askers: Vec<Arc<Asker>>,
    pub uplink: Uplink,
    /// Of the askers.
    uplinks: Vec<Uplink>,
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
    pub fn new(receivers: u8, rate: u64, config: &FetchConfig) -> Self {
        Self::with(&vec![FAST; usize::from(receivers)], rate, config)
    }

    /// `rates`: of the receivers' uplinks.
    pub fn with(rates: &[u64], rate: u64, config: &FetchConfig) -> Self {
        let source = Node::new(100);
        let (told, rx) = unbounded::<Told>();
        let uplink = Uplink::new(rate);
        let uplinks = rates.iter().map(|rate| Uplink::new(*rate)).collect();
        let askers: Vec<Arc<Asker>> = (1..=rates.len() as u8)
            .map(|n| Arc::new(Asker::with(&Node::new(n), config.clone())))
            .collect();
        let weak: Vec<Weak<Asker>> = askers.iter().map(Arc::downgrade).collect();
        std::thread::spawn(move || carry(&rx, &weak));
        let fleet = Self {
            source,
            askers,
            uplink,
            uplinks,
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
        for (n, other) in self.askers.iter().enumerate() {
            if other.node.id != me {
                self.meet(asker, n);
            }
        }
    }

    /// Connects an asker to the `n`th one.
    pub fn meet(&self, asker: &Asker, n: usize) {
        let (other, uplink) = (&self.askers[n].node, self.uplinks[n].clone());
        asker.fetcher.add_peer(other.id, true);
        let wrap = |s| Box::new(Slow(s, uplink)) as _;
        let lane = other.lane_with(wrap, ServeConfig::default());
        asker.add_lane(other.id, lane, false);
    }

    pub fn submit(&self, content: ContentId, size: usize) {
        for asker in &self.askers {
            asker.submit(asker.item(content, size, &[&self.source]));
        }
    }

    pub fn all_have(&self, bytes: &[u8]) {
        for asker in &self.askers {
            let name = asker.one().unwrap();
            assert!(asker.read(&name) == bytes, "{:?}", asker.node.id);
        }
    }

    /// How often the source sent the file.
    pub fn times(&self, bytes: &[u8]) -> f64 {
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
    let fleet = Fleet::new(8, FAST, &FetchConfig::default());
    let bytes = noise(6, 128 * MIB + 5);
    let content = fleet.source.add("f", &bytes);
    let start = Instant::now();
    fleet.submit(content, bytes.len());
    fleet.all_have(&bytes);
    let times = fleet.times(&bytes);
    println!("{times:.3} times in {:?}", start.elapsed());
    assert!(times < 1.5, "{times}");
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
fn who_lost_each_other_share_it_again() {
    let fleet = Fleet::new(2, 12 << 20, &FetchConfig::default());
    let bytes = noise(7, 32 * MIB);
    let content = fleet.source.add("f", &bytes);
    fleet.submit(content, bytes.len());
    for asker in &fleet.askers {
        while asker.fetcher.progress().big[0].done < 4 << 20 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let (a, b) = (&fleet.askers[0], &fleet.askers[1]);
    a.fetcher.drop_peer(b.node.id);
    b.fetcher.drop_peer(a.node.id);
    fleet.meet(a, 1);
    fleet.meet(b, 0);
    fleet.all_have(&bytes);
    let times = fleet.times(&bytes);
    println!("{times:.3} times");
    assert!(times < 1.5, "{times}");
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
