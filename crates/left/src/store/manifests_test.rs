//! Tests of [`Manifests`].
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use left_core::chunker::CHUNKER_ID;
use left_core::content::{ChunkId, ChunkRef, ContentId, Segment, SegmentId, SegmentRef, TopHasher};

use super::{ManifestInfo, Manifests};

/// `count` segments; every tenth is a hole. Different `seed`s give different contents.
fn segments(seed: u32, count: u32) -> Vec<Segment> {
    (0..count).map(|n| segment(seed, n)).collect()
}

fn segment(seed: u32, n: u32) -> Segment {
    if n % 10 == 3 {
        let sref = SegmentRef {
            len: 1 << 30,
            id: SegmentId::ZEROS,
        };
        return Segment {
            sref,
            chunks: Vec::new(),
        };
    }
    let chunk = |c: u32| ChunkRef {
        len: 4096 + c,
        id: ChunkId::of(&[seed.to_le_bytes(), n.to_le_bytes(), c.to_le_bytes()].concat()),
    };
    let chunks: Vec<_> = (0..8 + n % 57).map(chunk).collect();
    let len = chunks.iter().map(|c| u64::from(c.len)).sum();
    Segment {
        sref: SegmentRef {
            len,
            id: SegmentId::of(&chunks),
        },
        chunks,
    }
}

fn top(list: &[Segment]) -> (ContentId, u64) {
    let mut top = TopHasher::new(CHUNKER_ID);
    list.iter().for_each(|s| top.push(&s.sref));
    (top.finish(), top.size())
}

fn write(m: &Manifests, list: &[Segment]) -> ContentId {
    let (content, size) = top(list);
    let mut w = m.writer();
    list.iter().for_each(|s| w.segment(s).unwrap());
    w.finish(content, size).unwrap();
    content
}

fn opened() -> (tempfile::TempDir, PathBuf, Manifests) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("manifests.db");
    let m = Manifests::open(&path).unwrap();
    (dir, path, m)
}

fn rows(path: &Path) -> (i64, i64, i64) {
    let conn = rusqlite::Connection::open(path).unwrap();
    let count = |t: &str| {
        let sql = format!("SELECT count(*) FROM {t}");
        conn.query_row(&sql, [], |r| r.get(0)).unwrap()
    };
    (count("manifest"), count("segment"), count("chunks"))
}

fn is_whole(m: &Manifests, list: &[Segment]) {
    let (content, size) = top(list);
    let info = ManifestInfo {
        size,
        segments: list.len() as u64,
    };
    assert_eq!(m.info(content), Some(info));
    let mut offset = 0;
    let all: Vec<_> = m.segments(content).collect();
    assert_eq!(all.len(), list.len());
    for ((at, segment), expected) in all.iter().zip(list) {
        assert_eq!((at, segment), (&offset, expected));
        offset += segment.sref.len;
    }
}

#[test]
fn gives_back_what_was_written() {
    let (_dir, path, m) = opened();
    let (a, b) = (segments(1, 1500), segments(2, 3));
    write(&m, &a);
    let content = write(&m, &b);
    is_whole(&m, &a);
    is_whole(&m, &b);
    let a_content = top(&a).0;
    let refs: Vec<_> = a.iter().map(|s| s.sref).collect();
    assert_eq!(m.refs(a_content, 0, usize::MAX), refs);
    assert_eq!(m.refs(a_content, 700, 9), refs[700..709]);
    assert_eq!(m.refs(a_content, 1499, 9), refs[1499..]);
    assert_eq!(m.refs(a_content, 1500, 9), []);
    assert_eq!(m.refs(a_content, u64::MAX, 9), []);
    assert_eq!(
        m.segment(content, 2),
        Some((b[0].sref.len + b[1].sref.len, b[2].clone()))
    );
    assert_eq!(m.segment(content, 3), None);
    drop(m);
    is_whole(&Manifests::open(&path).unwrap(), &a);
}

#[test]
fn unknown_contents_are_empty() {
    let (_dir, _path, m) = opened();
    let none = ContentId([9; 32]);
    assert_eq!(m.info(none), None);
    assert_eq!(m.refs(none, 0, 9), []);
    assert_eq!(m.segment(none, 0), None);
    assert_eq!(m.segments(none).count(), 0);
    m.remove(none).unwrap();
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let (_dir, path, m) = opened();
    let list = segments(1, 1200);
    let mut w = m.writer();
    list.iter().for_each(|s| w.segment(s).unwrap());
    assert!(rows(&path).1 > 0, "was written in parts");
    assert_eq!(m.info(top(&list).0), None);
    drop(w);
    assert_eq!(rows(&path), (0, 0, 0));
}

#[test]
fn only_true_manifests_are_taken() {
    let (_dir, path, m) = opened();
    let list = segments(1, 20);
    let mut lie = list[0].clone();
    lie.chunks[0].id = ChunkId([1; 32]);
    assert!(m.writer().segment(&lie).is_err());
    lie.chunks = Vec::new();
    assert!(m.writer().segment(&lie).is_err());
    let (content, size) = top(&list);
    for (content, size) in [(ContentId([1; 32]), size), (content, size + 1)] {
        let mut w = m.writer();
        list.iter().for_each(|s| w.segment(s).unwrap());
        assert!(w.finish(content, size).is_err());
    }
    assert_eq!(rows(&path), (0, 0, 0));
}

#[test]
fn the_same_content_twice_is_kept_once() {
    let (_dir, path, m) = opened();
    let list = segments(1, 1200);
    write(&m, &list);
    let before = rows(&path);
    write(&m, &list);
    assert_eq!(rows(&path), before);
    is_whole(&m, &list);
}

#[test]
fn collects_garbage_but_no_unfinished_writer() {
    let (_dir, path, m) = opened();
    let lists: Vec<_> = (0..5).map(|seed| segments(seed, 600)).collect();
    let contents: Vec<_> = lists.iter().map(|l| write(&m, l)).collect();
    let late = segments(77, 900);
    let mut w = m.writer();
    late[..600].iter().for_each(|s| w.segment(s).unwrap());
    // What a crash left.
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(
            "INSERT INTO manifest VALUES (900, NULL, 0, 0);
             INSERT INTO segment VALUES (900 << 32, 0, 1, x'00', x'00');",
        )
        .unwrap();
    let keep: HashSet<_> = [contents[1], contents[4]].into();
    m.retain(|c| keep.contains(&c)).unwrap();
    for (list, content) in lists.iter().zip(&contents) {
        if keep.contains(content) {
            is_whole(&m, list);
        } else {
            assert_eq!((m.info(*content), m.refs(*content, 0, 1)), (None, vec![]));
        }
    }
    late[600..].iter().for_each(|s| w.segment(s).unwrap());
    let (content, size) = top(&late);
    w.finish(content, size).unwrap();
    is_whole(&m, &late);
    m.retain(|_| false).unwrap();
    assert_eq!(rows(&path), (0, 0, 0));
}

#[test]
fn threads_share_it() {
    let (_dir, _path, m) = opened();
    let known = segments(1000, 800);
    write(&m, &known);
    std::thread::scope(|s| {
        for seed in 0..4 {
            let writer = m.clone();
            s.spawn(move || {
                let m = writer;
                let list = segments(seed, 1500);
                let content = write(&m, &list);
                is_whole(&m, &list);
                if seed % 2 == 0 {
                    m.remove(content).unwrap();
                }
            });
            let (m, known) = (m.clone(), &known);
            s.spawn(move || (0..5).for_each(|_| is_whole(&m, known)));
        }
        s.spawn(|| m.retain(|c| c != ContentId([0; 32])).unwrap());
    });
    assert!((0..4).all(|seed| m.info(top(&segments(seed, 1500)).0).is_some() == (seed % 2 == 1)));
}

#[test]
fn what_can_not_be_used_is_thrown_away() {
    let list = segments(1, 600);
    for bytes in [&b""[..], b"junk", &[0xaa; 30_000]] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifests.db");
        fs::write(&path, bytes).unwrap();
        let m = Manifests::open(&path).unwrap();
        write(&m, &list);
        is_whole(&m, &list);
    }
}

/// Damage all over the file: what is read is right or missing; when it is met, the file is replaced
/// while in use, and then works.
#[test]
fn damage_is_a_miss() {
    let (dir, path, m) = opened();
    let list = segments(1, 600);
    let content = write(&m, &list);
    drop(m);
    let good = fs::read(&path).unwrap();
    let mut missed = 0;
    for step in 0..60 {
        let mut bytes = good.clone();
        let at = good.len() * step / 60 + 13 * step;
        match step % 3 {
            0 => bytes[at] ^= 4,
            1 => bytes.truncate(at),
            _ => bytes[at..(at + 3000).min(good.len())].fill(0x5a),
        }
        let copy = dir.path().join(format!("{step}.db"));
        fs::write(&copy, bytes).unwrap();
        let m = Manifests::open(&copy).unwrap();
        let mut w = m.writer();
        let other = segments(2, 1000);
        other[..600].iter().for_each(|s| drop(w.segment(s)));
        let seen: Vec<_> = m.segments(content).map(|(_, s)| s).collect();
        assert_eq!(seen, list[..seen.len()]);
        missed += u32::from(seen.len() < 600);
        // A writer from before the replacement fails; a new one works.
        let (top, size) = top(&other);
        other[600..].iter().for_each(|s| drop(w.segment(s)));
        if w.finish(top, size).is_err() {
            write(&m, &other);
        }
        is_whole(&m, &other);
    }
    assert!(missed > 30, "{missed}");
}

#[test]
fn segments_and_some_chunks_are_found_by_their_ids() {
    let (_dir, _, m) = opened();
    assert!(!m.has_places());
    let (one, two) = (segments(1, 40), segments(2, 40));
    let (a, b) = (write(&m, &one), write(&m, &two));
    assert!(m.has_places());
    for (n, s) in one.iter().enumerate().filter(|(_, s)| !s.sref.is_zeros()) {
        assert_eq!(m.having_segment(s.sref.id), [(a, n as u64)]);
    }
    let chunks = one.iter().enumerate();
    let known = chunks.flat_map(|(n, s)| s.chunks.iter().map(move |c| (n, c.id)));
    let found = known.filter(|(n, id)| match &m.having_chunk(*id)[..] {
        [] => false,
        places => {
            assert_eq!(places, [(a, *n as u64)]);
            true
        }
    });
    let all: usize = one.iter().map(|s| s.chunks.len()).sum();
    let found = found.count();
    assert!((all / 16..all / 4).contains(&found), "{found} of {all}");
    // The newest of equal ones first; nothing is left of what is removed.
    let both = [&one[..3], &two[..3]].concat();
    let c = write(&m, &both);
    assert_eq!(m.having_segment(one[0].sref.id), [(c, 0), (a, 0)]);
    assert_eq!(m.having_segment(two[1].sref.id), [(c, 4), (b, 1)]);
    m.remove(a).unwrap();
    assert_eq!(m.having_segment(one[0].sref.id), [(c, 0)]);
    assert_eq!(m.having_segment(one[5].sref.id), []);
    m.remove(b).unwrap();
    m.remove(c).unwrap();
    assert!(!m.has_places(), "all is forgotten");
}
