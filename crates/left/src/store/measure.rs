//! Measurements, run by hand in an optimised build: `cargo test --release -p left --lib -- --ignored
//! --nocapture store::measure`. `LEFT_MEASURE_ROWS` sets the number of rows (100,000), `LEFT_MEASURE_BATCH`
//! that of rows in a transaction of the first measurement (1000).
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use left_core::content::ContentId;
use left_core::entry::Node;
use left_core::index::{Index, Txn, Walk};
use left_core::path::RelPath;

use super::contract::{entry, file};
use super::model::device;
use super::{IndexDb, Manifests};

fn path(i: u64) -> RelPath {
    let name = format!(
        "project {:03}/some folder/{:04}/file-{i:07}.dat",
        i / 50_000,
        i / 100 % 500
    );
    RelPath::new(name).unwrap()
}

fn record(i: u64) -> left_core::entry::Record {
    let mut r = file(10_000 + i, 1000 + i % 5000, 0);
    if let Node::File { content: c, .. } = &mut r.entry.node {
        *c = ContentId(*blake3::hash(&i.to_le_bytes()).as_bytes());
    }
    r.entry = entry(r.entry.node, 0, 1_790_000_000_000 + i);
    r
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn timed<T>(what: &str, count: u64, f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let out = f();
    let took = start.elapsed();
    let rate = count as f64 / took.max(Duration::from_nanos(1)).as_secs_f64();
    println!(
        "{what:32} {took:>12.3?} {rate:>12.0}/s   RSS {} KiB",
        rss_kib()
    );
    out
}

#[test]
#[ignore = "a measurement"]
fn index() {
    let rows: u64 = std::env::var("LEFT_MEASURE_ROWS").map_or(100_000, |v| v.parse().unwrap());
    let size: u64 = std::env::var("LEFT_MEASURE_BATCH").map_or(1000, |v| v.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("index.db");
    let mut db = IndexDb::open(&file, device(0)).unwrap().0;
    let batch = |from: u64, step: u64, size: u64| Txn {
        put: (from..(from + size).min(rows))
            .map(|i| i * step % rows)
            .map(|i| (path(i), record(i)))
            .collect(),
        ..Txn::default()
    };
    timed("nothing but making rows", rows, || {
        (0..rows)
            .step_by(1000)
            .for_each(|i| drop(batch(i, 1, 1000)));
    });
    timed("put, in order", rows, || {
        (0..rows)
            .step_by(size as usize)
            .for_each(|i| assert!(db.commit(batch(i, 1, size)).unwrap() > 0));
    });
    timed("put again, in order", rows, || {
        (0..rows)
            .step_by(1000)
            .for_each(|i| assert!(db.commit(batch(i, 1, 1000)).unwrap() > 0));
    });
    timed("put a tenth again, scattered", rows / 10, || {
        (0..rows / 10)
            .step_by(1000)
            .for_each(|i| assert!(db.commit(batch(i, 7919, 1000)).unwrap() > 0));
    });
    timed("commit of one row", 200, || {
        (0..200).for_each(|i| {
            let put = vec![(path(i * 37 % rows), record(i))];
            db.commit(Txn {
                put,
                ..Txn::default()
            })
            .unwrap();
        });
    });
    timed("close", 1, || drop(db));
    let size = std::fs::metadata(&file).unwrap().len();
    println!("{} bytes a row", size / rows);
    let mut db = timed("open", 1, || IndexDb::open(&file, device(0)).unwrap().0);
    timed("get", rows, || {
        (0..rows).for_each(|i| assert!(db.get(&path(i * 7919 % rows)).unwrap().is_some()));
    });
    let reader = db.reader().unwrap();
    timed("live_in_order", rows, || {
        let (mut after, mut seen) = (None, 0);
        loop {
            let page = reader.live_in_order(after.as_ref(), 1000).unwrap();
            seen += page.len() as u64;
            let Some(last) = page.into_iter().last() else {
                break;
            };
            after = Some(last.0);
        }
        assert_eq!(seen, rows);
    });
    let folder = path(0).parent().unwrap();
    timed("children of 100", 100, || {
        for _ in 0..100 {
            assert_eq!(reader.children(Some(&folder)).unwrap().len(), 100);
        }
    });
    timed("changes_since", rows, || {
        let mut seq = 0;
        while let Some(last) = db.changes_since(seq, 1000).unwrap().last() {
            seq = last.0;
        }
    });
    // What a first synchronisation does: all is announced, then each batch is applied.
    let new = |i: u64| path(rows + i);
    timed("theirs_put", rows, || {
        for from in (0..rows).step_by(1000) {
            let theirs_put = (from..from + 1000).map(|i| (device(1), new(i), record(i).entry));
            let theirs_put = theirs_put.collect();
            db.commit(Txn {
                theirs_put,
                ..Txn::default()
            })
            .unwrap();
        }
    });
    timed("needs", rows, || {
        let mut from = None;
        while let Some(last) = db.needs(Walk::Up, from.as_ref(), 1000).unwrap().pop() {
            from = Some(last.path);
        }
    });
    timed("put and theirs_del", rows, || {
        for from in (0..rows).step_by(1000) {
            let all = from..from + 1000;
            let theirs_del = all.clone().map(|i| (device(1), new(i))).collect();
            let put = all.map(|i| (new(i), record(i))).collect();
            db.commit(Txn {
                theirs_del,
                put,
                ..Txn::default()
            })
            .unwrap();
        }
    });
    timed("verify", rows, || db.verify().unwrap());
}

#[test]
#[ignore = "a measurement"]
fn manifests() {
    use left_core::chunker::CHUNKER_ID;
    use left_core::content::{ChunkId, ChunkRef, Segment, SegmentId, SegmentRef, TopHasher};
    const SEGMENTS: u64 = 50_000;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("manifests.db");
    let m = Manifests::open(&file).unwrap();
    let segment = |n: u64| {
        let chunk = |c: u64| ChunkRef {
            len: 16_384,
            id: ChunkId::of(&(n * 64 + c).to_le_bytes()),
        };
        let chunks: Vec<_> = (0..64).map(chunk).collect();
        Segment {
            sref: SegmentRef {
                len: 64 * 16_384,
                id: SegmentId::of(&chunks),
            },
            chunks,
        }
    };
    timed("nothing but making segments", SEGMENTS, || {
        (0..SEGMENTS).for_each(|n| drop(segment(n)))
    });
    let mut top = TopHasher::new(CHUNKER_ID);
    timed("write (segments of 1 MiB)", SEGMENTS, || {
        let mut w = m.writer();
        for n in 0..SEGMENTS {
            let s = segment(n);
            top.push(&s.sref);
            w.segment(&s).unwrap();
        }
        w.finish(top.finish(), top.size()).unwrap();
    });
    println!(
        "{} bytes a segment",
        std::fs::metadata(&file).unwrap().len() / SEGMENTS
    );
    let content = top.finish();
    timed("segments", SEGMENTS, || m.segments(content).count());
    timed("segment", 10_000, || {
        (0..10_000).for_each(|i| drop(m.segment(content, i * 7919 % SEGMENTS).unwrap()));
    });
    timed("remove", SEGMENTS, || m.remove(content).unwrap());
}
