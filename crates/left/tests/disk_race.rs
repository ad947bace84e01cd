//! A user and the applier at the same paths at the same time: every byte string the user wrote must be
//! in the tree, in a conflict copy or in history afterwards. Bounded by rounds, not by time.
#![allow(missing_docs, clippy::unwrap_used)]

mod disk_support;

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use disk_support::{Share, file, p};
use left::disk::Found;
use left_core::entry::{Kind, Node};
use left_core::plan::{Expect, Op, OpDone};

const ROUNDS: usize = 400;

/// All bytes below the share but those in the stage, which anybody may throw away.
fn kept(s: &Share) -> Vec<Vec<u8>> {
    let mut all = s.all_bytes(".left/history");
    for entry in fs::read_dir(s.dir.path()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name == ".left" {
            continue;
        }
        if entry.file_type().unwrap().is_file() {
            all.push(fs::read(entry.path()).unwrap());
        } else {
            all.extend(s.all_bytes(&name));
        }
    }
    all
}

/// Ends the user's loop also when a check fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `user` in a loop while `ops` makes and applies operations from what it sees now.
fn race(s: &Share, user: impl Fn(usize) + Sync, mut op: impl FnMut(usize, Expect) -> Op) -> usize {
    let done = AtomicBool::new(false);
    let mut applied = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                user(n);
                n += 1;
            }
        });
        let _ends = Ends(&done);
        for n in 0..ROUNDS {
            let expect = match s.root.look(&p("f")) {
                Ok(Some(Found::File(stat, _))) => Expect::Present(Kind::File, stat),
                Ok(Some(Found::Dir(stat))) => Expect::Present(Kind::Dir, stat),
                _ => Expect::Absent,
            };
            let op = op(n, expect);
            if let Ok(done) = s.apply_one(op.clone()) {
                applied += 1;
                check_record(s, &op, &done);
            }
        }
    });
    applied
}

/// What would be recorded must be true: while the stat is as told, the bytes are those placed.
fn check_record(s: &Share, op: &Op, done: &OpDone) {
    if let (
        Op::Place {
            path,
            node: Node::File { content, .. },
            ..
        },
        Some(stat),
    ) = (op, done.stat)
        && let Ok(got) =
            left::disk::hash_file(&s.root, path, &stat, &mut |_| ControlFlow::Continue(()))
    {
        assert_eq!(got, *content);
    }
}

#[test]
fn saves_by_rename_survive_replacing() {
    let s = Share::new();
    let wrote = std::sync::Mutex::new(HashSet::new());
    let user = |n: usize| {
        // An editor that keeps every old file aside, and never overwrites anything.
        let bytes = format!("user {n}");
        fs::write(s.at("tmp"), &bytes).unwrap();
        let _ = fs::rename(s.at("f"), s.at(&format!("aside-{n}")));
        if fs::hard_link(s.at("tmp"), s.at("f")).is_ok() {
            wrote.lock().unwrap().insert(bytes.into_bytes());
        }
        fs::remove_file(s.at("tmp")).unwrap();
    };
    let applied = race(&s, user, |n, expect| {
        if n % 5 == 4 && expect != Expect::Absent {
            return Op::Remove {
                path: p("f"),
                expect,
            };
        }
        let loser = (n % 2 == 0 && expect != Expect::Absent).then(|| format!("copy-{n}"));
        s.place(
            "f",
            format!("peer {n}").as_bytes(),
            expect,
            loser.as_deref(),
        )
    });
    let kept: HashSet<Vec<u8>> = kept(&s).into_iter().collect();
    let wrote = wrote.into_inner().unwrap();
    assert!(
        wrote.is_subset(&kept),
        "lost: {:?}",
        wrote.difference(&kept).collect::<Vec<_>>()
    );
    assert!(!wrote.is_empty());
    eprintln!("{} user files, {applied} of {ROUNDS} applied", wrote.len());
}

#[test]
fn appends_through_handles_survive_everything() {
    let s = Share::new();
    s.write("f", "");
    let wrote = std::sync::Mutex::new(Vec::new());
    let user = |n: usize| {
        let opened = fs::File::options().append(true).open(s.at("f"));
        let Ok(mut file) = opened else { return };
        if n.is_multiple_of(3) {
            std::thread::yield_now();
        }
        let token = format!("<{n}>");
        file.write_all(token.as_bytes()).unwrap();
        wrote.lock().unwrap().push(token);
    };
    let applied = race(&s, user, |n, expect| match n % 4 {
        0 if expect != Expect::Absent => Op::Remove {
            path: p("f"),
            expect,
        },
        1 if expect != Expect::Absent => Op::Move {
            from: p("f"),
            expect,
            to: p(&format!("moved-{n}")),
            node: file(b""),
        },
        _ => s.place("f", format!("peer {n}").as_bytes(), expect, None),
    });
    let all = String::from_utf8(kept(&s).concat()).unwrap();
    let found: HashSet<&str> = all
        .split_inclusive('>')
        .filter_map(|t| t.rfind('<').map(|at| &t[at..]))
        .collect();
    let wrote = wrote.into_inner().unwrap();
    for token in &wrote {
        assert!(found.contains(token.as_str()), "{token} is lost");
    }
    eprintln!("{} tokens, {applied} of {ROUNDS} applied", wrote.len());
}

#[test]
fn writes_of_equal_length_are_never_recorded_as_ours() {
    let s = Share::new();
    s.write("f", "peer 000");
    let user = |n: usize| {
        if let Ok(mut file) = fs::File::options().write(true).open(s.at("f")) {
            file.write_all(format!("user {:03}", n % 1000).as_bytes())
                .unwrap();
        }
    };
    let applied = race(&s, user, |n, expect| {
        s.place("f", format!("peer {n:03}").as_bytes(), expect, None)
    });
    eprintln!("{applied} of {ROUNDS} applied");
}

#[test]
fn files_made_in_a_folder_survive_its_replacement() {
    let s = Share::new();
    s.mkdir("f");
    let wrote = std::sync::Mutex::new(HashSet::new());
    let user = |n: usize| {
        let name = format!("f/u{n}");
        let bytes = format!("user {n}");
        if fs::File::create_new(s.at(&name))
            .and_then(|mut f| f.write_all(bytes.as_bytes()))
            .is_ok()
        {
            wrote.lock().unwrap().insert(bytes.into_bytes());
            // Then it is moved out again, so that the folder is empty at times.
            let _ = fs::rename(s.at(&name), s.at(&format!("out{n}")));
        }
        if n.is_multiple_of(50) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    };
    let applied = race(&s, user, |n, expect| match expect {
        Expect::Present(Kind::Dir, _) if n % 3 == 0 => Op::Remove {
            path: p("f"),
            expect,
        },
        Expect::Present(Kind::Dir, _) => s.place("f", b"peer", expect, None),
        expect => Op::Place {
            path: p("f"),
            node: Node::Dir { mode: 0o755 },
            staged: None,
            expect,
            loser: None,
        },
    });
    let kept: HashSet<Vec<u8>> = kept(&s).into_iter().collect();
    let wrote = wrote.into_inner().unwrap();
    assert!(
        wrote.is_subset(&kept),
        "lost: {:?}",
        wrote.difference(&kept).collect::<Vec<_>>()
    );
    eprintln!("{} user files, {applied} of {ROUNDS} applied", wrote.len());
}

#[test]
fn a_link_swapped_in_for_a_folder_never_leads_outside() {
    let s = Share::new();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("sub")).unwrap();
    fs::write(outside.path().join("g"), "outside").unwrap();
    s.mkdir("d/sub");
    symlink(outside.path(), s.at("link")).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // The folder and the link change places.
                let _ = fs::rename(s.at("d"), s.at("x"));
                let _ = fs::rename(s.at("link"), s.at("d"));
                let _ = fs::rename(s.at("d"), s.at("link"));
                let _ = fs::rename(s.at("x"), s.at("d"));
            }
        });
        let _ends = Ends(&done);
        for n in 0..ROUNDS {
            let expect = |path: &str| match s.root.look(&p(path)) {
                Ok(Some(Found::File(stat, _))) => Expect::Present(Kind::File, stat),
                _ => Expect::Absent,
            };
            let _ = s.apply(vec![
                s.place(&format!("d/f{n}"), b"peer", Expect::Absent, None),
                s.place(&format!("d/sub/f{n}"), b"peer", Expect::Absent, None),
                s.place(
                    "d/g",
                    format!("{n}").as_bytes(),
                    expect("d/g"),
                    Some("d/copy"),
                ),
                Op::Remove {
                    path: p("d/g"),
                    expect: expect("d/g"),
                },
            ]);
            if let Ok((mut file, _)) = s.root.open_file(&p("d/g")) {
                let mut text = String::new();
                std::io::Read::read_to_string(&mut file, &mut text).unwrap();
                assert_ne!(text, "outside");
            }
        }
    });
    let names: Vec<_> = fs::read_dir(outside.path())
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(fs::read(outside.path().join("g")).unwrap(), b"outside");
    assert_eq!(fs::read_dir(outside.path().join("sub")).unwrap().count(), 0);
}
