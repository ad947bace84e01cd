#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use left_core::chunker::content_id;
use left_core::content::{ContentId, Segment, TopHasher};
use left_core::entry::{Kind, Mtime, Node};
use left_core::path::RelPath;
use left_core::plan::{Expect, Op, OpDone, OpError, OpId};

use super::root::{Root, RootError, RootGone, init_share};
use super::{Found, HashError, History, Stage, hash_file, sys};

struct Share {
    dir: tempfile::TempDir,
    root: Root,
    stage: Stage,
    history: History,
}

fn share_in(dir: tempfile::TempDir) -> Share {
    init_share(dir.path(), b"x").unwrap();
    let root = Root::open(dir.path()).unwrap();
    let stage = Stage::open(&root).unwrap();
    let history = History::open_with_grace(&root, Duration::ZERO).unwrap();
    Share {
        dir,
        root,
        stage,
        history,
    }
}

fn share() -> Share {
    share_in(tempfile::tempdir().unwrap())
}

fn p(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

impl Share {
    fn expect(&self, path: &str) -> Expect {
        match self.root.look(&p(path)).unwrap() {
            None => Expect::Absent,
            Some(Found::Dir(s)) => Expect::Present(Kind::Dir, s),
            Some(Found::File(s, _)) => Expect::Present(Kind::File, s),
            Some(Found::Symlink(s, _)) => Expect::Present(Kind::Symlink, s),
            Some(Found::Special(what)) => panic!("{what}"),
        }
    }

    fn place(&self, path: &str, bytes: &[u8], expect: Expect) -> Op {
        let name = self.stage.unique_name();
        self.stage.create(&name).unwrap().write_all(bytes).unwrap();
        Op::Place {
            path: p(path),
            node: Node::File {
                mode: 0o644,
                mtime: Mtime::default(),
                size: bytes.len() as u64,
                content: content_id(bytes),
            },
            staged: Some(name),
            expect,
            loser: None,
        }
    }

    fn apply(&self, op: Op) -> Result<OpDone, OpError> {
        let ops = [(OpId(1), op)];
        super::apply(&self.root, &self.stage, &self.history, &ops)
            .remove(0)
            .1
    }

    fn hash(&self, path: &str) -> (Result<ContentId, HashError>, Vec<Segment>) {
        let Ok(Some(Found::File(stat, _))) = self.root.look(&p(path)) else {
            panic!("no file {path}");
        };
        let mut segments = Vec::new();
        let content = hash_file(&self.root, &p(path), &stat, &mut |s| {
            segments.push(s.clone());
            ControlFlow::Continue(())
        });
        (content, segments)
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }
}

/// Bytes that look random and are always the same.
fn noise(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

#[test]
fn any_layout_of_holes_hashes_like_the_same_bytes() {
    let s = share();
    let data = noise(3_000_000);
    // (hole, data) pairs; holes around the limits of a chunk and of what is worth skipping.
    let layouts: [&[(usize, usize)]; 8] = [
        &[(0, 200_000), (10_000_000, 5)],
        &[(10_000_000, 0)],
        &[(65_536, 1), (65_537, 70_000), (131_072, 0)],
        &[
            (4096, 4096),
            (61_440, 100),
            (1_000_000, 300_000),
            (12_288, 77),
        ],
        &[(0, 3_000_000)],
        &[(8 * 1024 * 1024, 1_048_577), (8 * 1024 * 1024, 0)],
        &[(0, 1), (200_000, 1), (200_000, 1), (200_000, 0)],
        &[(0, 131_072), (4096, 131_072), (65_536, 0)],
    ];
    for (n, layout) in layouts.iter().enumerate() {
        let name = format!("f{n}");
        let file = File::create(s.at(&name)).unwrap();
        let mut at = 0;
        let mut taken = 0;
        for (hole, len) in *layout {
            at += hole;
            file.write_all_at(&data[taken..taken + len], at as u64)
                .unwrap();
            at += len;
            taken += len;
        }
        file.set_len(at as u64).unwrap();
        let bytes = std::fs::read(s.at(&name)).unwrap();
        let (content, segments) = s.hash(&name);
        assert_eq!(content.unwrap(), content_id(&bytes), "layout {n}");
        let total: u64 = segments.iter().map(|s| s.sref.len).sum();
        assert_eq!(total, at as u64);
        let mut top = TopHasher::new(left_core::chunker::CHUNKER_ID);
        segments.iter().for_each(|s| top.push(&s.sref));
        assert_eq!(top.finish(), content_id(&bytes));
        // Written out in full, it has the same id.
        std::fs::write(s.at("dense"), &bytes).unwrap();
        assert_eq!(s.hash("dense").0.unwrap(), content_id(&bytes), "layout {n}");
    }
}

#[test]
fn a_huge_hole_is_not_read() {
    let s = share();
    File::create(s.at("f")).unwrap().set_len(1 << 40).unwrap();
    // Reading a tebibyte would take minutes.
    assert!(s.hash("f").0.is_ok());
}

#[test]
fn sizes_around_the_limits_hash_like_their_bytes() {
    let s = share();
    let data = noise(2_300_000);
    for len in [
        0, 1, 131_071, 131_072, 131_073, 1_048_575, 1_048_576, 1_114_113, 2_300_000,
    ] {
        std::fs::write(s.at("f"), &data[..len]).unwrap();
        let (content, segments) = s.hash("f");
        assert_eq!(content.unwrap(), content_id(&data[..len]), "{len}");
        assert_eq!(segments.is_empty(), len <= 131_072);
    }
}

#[test]
fn a_changed_file_has_no_hash() {
    let s = share();
    std::fs::write(s.at("f"), "one").unwrap();
    let Ok(Some(Found::File(stat, _))) = s.root.look(&p("f")) else {
        panic!();
    };
    std::fs::write(s.at("f"), "two").unwrap();
    let go = &mut |_: &Segment| ControlFlow::Continue(());
    assert!(matches!(
        hash_file(&s.root, &p("f"), &stat, go),
        Err(HashError::Changed)
    ));
    std::fs::remove_file(s.at("f")).unwrap();
    assert!(matches!(
        hash_file(&s.root, &p("f"), &stat, go),
        Err(HashError::Gone)
    ));
    std::os::unix::fs::symlink("/etc/passwd", s.at("f")).unwrap();
    assert!(matches!(
        hash_file(&s.root, &p("f"), &stat, go),
        Err(HashError::Gone)
    ));
    std::fs::write(s.at("big"), noise(9_000_000)).unwrap();
    let Ok(Some(Found::File(stat, _))) = s.root.look(&p("big")) else {
        panic!();
    };
    let stop = &mut |_: &Segment| ControlFlow::Break(());
    assert!(matches!(
        hash_file(&s.root, &p("big"), &stat, stop),
        Err(HashError::Stopped)
    ));
}

#[test]
fn a_hash_is_of_bytes_that_were_written_and_the_stat_moves_on() {
    let s = share();
    std::fs::write(s.at("f"), "0000").unwrap();
    let done = AtomicBool::new(false);
    let mut recorded = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options().write(true).open(s.at("f")).unwrap();
            for n in 0..10_000 {
                file.write_all_at(format!("{n:04}").as_bytes(), 0).unwrap();
                if n % 100 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            if let Ok(Some(Found::File(stat, _))) = s.root.look(&p("f")) {
                let go = &mut |_: &Segment| ControlFlow::Continue(());
                if let Ok(content) = hash_file(&s.root, &p("f"), &stat, go) {
                    recorded.push((stat, content));
                }
            }
        }
    });
    // A write moves the time first and the bytes then, so of one stat there may be two contents (the
    // eye reads again when it is told of the write), but never one that nobody wrote.
    let written: HashSet<_> = (0..10_000)
        .map(|n| content_id(format!("{n:04}").as_bytes()))
        .collect();
    assert!(recorded.iter().all(|(_, id)| written.contains(id)));
    let stats: HashSet<_> = recorded.iter().map(|(stat, _)| stat.mtime).collect();
    let contents: HashSet<_> = recorded.iter().map(|(_, id)| id).collect();
    assert!(contents.len() <= 1 || stats.len() > 1);
}

#[test]
fn slow_clocks_are_waited_for() {
    let mut s = share();
    s.root.force_coarse();
    std::fs::write(s.at("f"), "fresh").unwrap();
    let Ok(Some(Found::File(stat, _))) = s.root.look(&p("f")) else {
        panic!();
    };
    assert_eq!(s.hash("f").0.unwrap(), content_id(b"fresh"));
    let age = sys::nanos_between(stat.mtime, sys::now());
    assert!(age >= 20_000_000, "read too early: {age} ns old");
}

#[test]
fn roots_that_are_none_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("file"), "").unwrap();
    std::fs::create_dir(at("plain")).unwrap();
    assert!(matches!(
        Root::open(&at("none")),
        Err(RootError::Missing(_))
    ));
    assert!(matches!(
        Root::open(&at("file")),
        Err(RootError::NotAFolder(_))
    ));
    assert!(matches!(
        Root::open(&at("plain")),
        Err(RootError::NotAShare(_))
    ));
    init_share(&at("plain"), b"one").unwrap();
    assert!(matches!(
        init_share(&at("plain"), b"two"),
        Err(RootError::AlreadyAShare(_))
    ));
    let root = Root::open(&at("plain")).unwrap();
    assert_eq!(root.marker(), b"one");
    root.check().unwrap();
    std::fs::write(at("plain/.left/share.toml"), "other").unwrap();
    assert!(matches!(root.check(), Err(RootGone::MarkerChanged(_))));
    std::fs::remove_file(at("plain/.left/share.toml")).unwrap();
    assert!(matches!(root.check(), Err(RootGone::MarkerGone(_))));
    std::fs::rename(at("plain"), at("moved")).unwrap();
    assert!(matches!(root.check(), Err(RootGone::Vanished(_))));
    std::fs::create_dir(at("plain")).unwrap();
    init_share(&at("plain"), b"one").unwrap();
    assert!(matches!(root.check(), Err(RootGone::Replaced(_))));
}

/// Every kind of file system call below links that lead out, with and without `openat2`.
#[test]
fn no_link_is_followed_either_way() {
    for by_hand in [false, true] {
        let s = share();
        if by_hand {
            s.root.force_by_hand();
        }
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(outside.path().join("sub")).unwrap();
        std::fs::write(outside.path().join("sub/f"), "out").unwrap();
        std::fs::create_dir_all(s.at("real/sub")).unwrap();
        std::fs::write(s.at("real/sub/f"), "in").unwrap();
        std::os::unix::fs::symlink(outside.path(), s.at("link")).unwrap();
        std::os::unix::fs::symlink("real", s.at("inner")).unwrap();
        assert!(matches!(
            s.root.look(&p("real/sub/f")),
            Ok(Some(Found::File(..)))
        ));
        for through in ["link/sub/f", "inner/sub/f", "link/sub", "real/sub/f/x"] {
            assert_eq!(s.root.look(&p(through)).unwrap(), None, "{through}");
            assert!(s.root.open_file(&p(through)).is_err(), "{through}");
        }
        assert!(s.root.open_file(&p("link")).is_err());
        for path in ["link/sub/new", "link/new", "inner/new"] {
            let got = s.apply(s.place(path, b"x", Expect::Absent));
            assert_eq!(got, Err(OpError::NoParent), "{path}");
        }
        let expect = s.expect("real/sub/f");
        assert!(s.apply(s.place("real/sub/f", b"new", expect)).is_ok());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}

#[test]
fn without_swapping_renames_the_weaker_order_does_the_same() {
    let s = share();
    s.root.renamer.force_weak();
    assert!(s.root.is_weak());
    let read = |path: &Path| std::fs::read(path).unwrap();
    s.apply(s.place("f", b"one", Expect::Absent)).unwrap();
    assert_eq!(
        s.apply(s.place("f", b"x", Expect::Absent)),
        Err(OpError::Unexpected)
    );
    let old = s.expect("f");
    s.apply(s.place("f", b"two", old)).unwrap();
    assert_eq!(read(&s.at("f")), b"two");
    assert_eq!(s.apply(s.place("f", b"x", old)), Err(OpError::Unexpected));
    let dir = |expect| Op::Place {
        path: p("f"),
        node: Node::Dir { mode: 0o755 },
        staged: None,
        expect,
        loser: None,
    };
    s.apply(dir(s.expect("f"))).unwrap();
    assert!(s.at("f").is_dir());
    std::fs::write(s.at("f/in"), "user").unwrap();
    assert_eq!(
        s.apply(s.place("f", b"x", s.expect("f"))),
        Err(OpError::NotEmpty)
    );
    std::fs::remove_file(s.at("f/in")).unwrap();
    s.apply(s.place("f", b"three", s.expect("f"))).unwrap();
    assert_eq!(read(&s.at("f")), b"three");
    let expect = s.expect("f");
    s.apply(Op::Remove {
        path: p("f"),
        expect,
    })
    .unwrap();
    assert!(!s.at("f").exists());
    let mut kept: Vec<_> = std::fs::read_dir(s.at(".left/history"))
        .unwrap()
        .flatten()
        .filter(|e| e.path().join("f").exists())
        .map(|e| read(&e.path().join("f")))
        .collect();
    kept.sort();
    assert_eq!(kept, [b"one".to_vec(), b"three".to_vec(), b"two".to_vec()]);
}

/// Somebody removes the stage while it is used.
#[test]
fn a_stage_that_is_removed_is_made_anew() {
    let s = share();
    let gone = || std::fs::remove_dir_all(s.at(".left/stage")).unwrap();
    let op = s.place("f", b"one", Expect::Absent);
    gone();
    // Fetched anew: what was staged is gone with it.
    assert_eq!(s.apply(op), Err(OpError::NotStaged));
    s.apply(s.place("f", b"one", Expect::Absent)).unwrap();
    gone();
    let old = s.expect("f");
    s.apply(s.place("f", b"two", old)).unwrap();
    assert_eq!(std::fs::read(s.at("f")).unwrap(), b"two");
    for node in [
        Node::Dir { mode: 0o750 },
        Node::Symlink {
            mtime: Mtime::default(),
            target: b"f".to_vec(),
        },
    ] {
        gone();
        let path = format!("{:?}", node.kind());
        let op = Op::Place {
            path: p(&path),
            node,
            staged: None,
            expect: Expect::Absent,
            loser: None,
        };
        s.apply(op).unwrap();
        assert!(s.at(&path).symlink_metadata().is_ok());
    }
    gone();
    assert!(s.stage.names().unwrap().is_empty());
    assert_eq!(s.stage.clean(|_| false).unwrap(), 0);
    gone();
    assert!(s.stage.free_space().is_ok());
    let name = s.stage.unique_name();
    assert!(s.stage.open_existing(&name).unwrap().is_none());
    s.stage.remove(&name).unwrap();
}

/// What stands in the place of a removed history is named, and nothing goes where it leads.
#[test]
fn what_stands_in_the_place_of_the_history_is_named() {
    let s = share();
    std::fs::write(s.at("f"), "user").unwrap();
    std::fs::create_dir(s.at("elsewhere")).unwrap();
    let history = s.at(".left/history");
    std::fs::remove_dir_all(&history).unwrap();
    std::os::unix::fs::symlink("../elsewhere", &history).unwrap();
    let remove = || Op::Remove {
        path: p("f"),
        expect: s.expect("f"),
    };
    let words = "f: .left/history was removed and cannot be made anew: something else stands there; \
                 move it away, and left goes on";
    assert_eq!(s.apply(remove()), Err(OpError::Io(words.to_owned())));
    assert_eq!(std::fs::read_dir(s.at("elsewhere")).unwrap().count(), 0);
    assert!(s.at("f").exists());
    std::fs::remove_file(&history).unwrap();
    s.apply(remove()).unwrap();
    assert!(!s.at("f").exists());
    let batch = std::fs::read_dir(&history).unwrap().flatten().next();
    assert!(batch.unwrap().path().join("f").exists());
}

/// The same on a second file system, where there is one.
#[test]
fn memory_file_systems_work_alike() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    let s = share_in(dir);
    s.apply(s.place("f", b"one", Expect::Absent)).unwrap();
    s.apply(s.place("f", b"two", s.expect("f"))).unwrap();
    assert_eq!(std::fs::read(s.at("f")).unwrap(), b"two");
    assert!(!s.root.is_weak());
    let file = File::create(s.at("holes")).unwrap();
    file.write_all_at(&noise(100_000), 5_000_000).unwrap();
    let bytes = std::fs::read(s.at("holes")).unwrap();
    assert_eq!(s.hash("holes").0.unwrap(), content_id(&bytes));
}

#[test]
fn times_before_1970_and_far_ahead_are_kept() {
    let s = share();
    for secs in [-1_000_000, 0, 4_000_000_000] {
        std::fs::write(s.at("f"), "x").unwrap();
        let mtime = Mtime {
            secs,
            nanos: 999_999_999,
        };
        let fd = s.root.open_dir(None).unwrap();
        sys::set_mtime_at(&fd, b"f", mtime).unwrap();
        assert_eq!(sys::stat_at(&fd, b"f").unwrap().unwrap().file.mtime, mtime);
    }
}
