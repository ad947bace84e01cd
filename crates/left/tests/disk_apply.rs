//! Every operation against the state it expects and against others.
#![allow(missing_docs, clippy::unwrap_used)]

mod disk_support;

use std::process::Command;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use disk_support::{Share, file, link, mtime, p};
use left::disk::Limits;
use left_core::entry::Node;
use left_core::path::RelPath;
use left_core::plan::{Expect, Op, OpError};

#[test]
fn a_new_file_gets_bytes_mode_and_time() {
    let s = Share::new();
    s.mkdir("a");
    let done = s
        .apply_one(s.place("a/f", b"new", Expect::Absent, None))
        .unwrap();
    assert_eq!(s.read("a/f"), b"new");
    let stat = done.stat.unwrap();
    assert_eq!(stat, s.stat("a/f"));
    assert_eq!((stat.mode, stat.mtime), (0o640, mtime(1_000_000)));
    assert_eq!(s.stage.names().unwrap(), Vec::<String>::new());
}

#[test]
fn nothing_is_created_over_something() {
    let s = Share::new();
    s.write("f", "user");
    let op = s.place("f", b"new", Expect::Absent, None);
    assert_eq!(s.apply_one(op.clone()), Err(OpError::Unexpected));
    assert_eq!(s.read("f"), b"user");
    assert_eq!(
        s.stage.names().unwrap().len(),
        1,
        "the staged file is still there"
    );
    // And can be used when the plan was made anew, though it has its final mode by now.
    std::fs::remove_file(s.at("f")).unwrap();
    s.apply_one(op).unwrap();
    assert_eq!(s.read("f"), b"new");
}

#[test]
fn a_replaced_file_goes_to_history() {
    let s = Share::new();
    s.mkdir("d/e");
    s.write("d/e/f", "old");
    let done = s
        .apply_one(s.place("d/e/f", b"new", s.expect("d/e/f"), None))
        .unwrap();
    assert_eq!(s.read("d/e/f"), b"new");
    assert_eq!(done.stat.unwrap(), s.stat("d/e/f"));
    assert_eq!(s.all_bytes(".left/history"), [b"old".to_vec()]);
}

#[test]
fn a_loser_becomes_the_conflict_copy_under_a_free_name() {
    let s = Share::new();
    s.write("f.txt", "mine");
    s.write("f.c.txt", "taken");
    let op = s.place("f.txt", b"theirs", s.expect("f.txt"), Some("f.c.txt"));
    let done = s.apply_one(op).unwrap();
    let (copy, stat) = done.loser.unwrap();
    assert_eq!(copy, p("f.c-2.txt"));
    assert_eq!(stat, s.stat("f.c-2.txt"));
    assert_eq!(s.read("f.c-2.txt"), b"mine");
    assert_eq!(s.read("f.c.txt"), b"taken");
    assert_eq!(s.read("f.txt"), b"theirs");
}

#[test]
fn an_edited_file_is_not_replaced_removed_moved_or_changed() {
    let s = Share::new();
    s.write("f", "old");
    let expect = s.expect("f");
    s.write("f", "edited");
    let before = s.stat("f");
    let to = Op::Move {
        from: p("f"),
        expect,
        to: p("g"),
        node: file(b"old"),
    };
    let ops = vec![
        s.place("f", b"new", expect, None),
        Op::Remove {
            path: p("f"),
            expect,
        },
        Op::SetMeta {
            path: p("f"),
            node: file(b"old"),
            expect,
        },
        to,
        s.place("f", b"new", Expect::Absent, None),
    ];
    for result in s.apply(ops) {
        assert_eq!(result, Err(OpError::Unexpected));
    }
    assert_eq!(s.read("f"), b"edited");
    assert_eq!(s.stat("f"), before);
    assert!(!s.exists("g"));
}

#[test]
fn removal_goes_to_history_and_folders_must_be_empty() {
    let s = Share::new();
    s.mkdir("d");
    s.write("d/f", "bytes");
    symlink("x", s.at("d/l")).unwrap();
    let full = Op::Remove {
        path: p("d"),
        expect: s.expect("d"),
    };
    assert_eq!(s.apply_one(full.clone()), Err(OpError::NotEmpty));
    let ops = vec![
        Op::Remove {
            path: p("d/f"),
            expect: s.expect("d/f"),
        },
        Op::Remove {
            path: p("d/l"),
            expect: s.expect("d/l"),
        },
        full,
    ];
    for result in s.apply(ops) {
        assert_eq!(result.unwrap().stat, None);
    }
    assert!(!s.exists("d"));
    assert_eq!(s.all_bytes(".left/history"), [b"bytes".to_vec()]);
    let absent = Op::Remove {
        path: p("d/f"),
        expect: Expect::Absent,
    };
    assert_eq!(s.apply_one(absent).unwrap().stat, None);
}

#[test]
fn kinds_replace_each_other() {
    let s = Share::new();
    let dir = Node::Dir { mode: 0o750 };
    let place = |node: &Node, expect| Op::Place {
        path: p("x"),
        node: node.clone(),
        staged: None,
        expect,
        loser: None,
    };
    s.apply_one(place(&dir, Expect::Absent)).unwrap();
    assert_eq!(s.stat("x").mode, 0o750);
    s.apply_one(place(&link("nowhere"), s.expect("x"))).unwrap();
    assert_eq!(
        std::fs::read_link(s.at("x")).unwrap().to_str(),
        Some("nowhere")
    );
    assert_eq!(s.stat("x").mtime, mtime(2_000_000));
    s.apply_one(s.place("x", b"file", s.expect("x"), None))
        .unwrap();
    assert_eq!(s.read("x"), b"file");
    let done = s.apply_one(place(&dir, s.expect("x"))).unwrap();
    assert!(s.at("x").is_dir());
    assert_eq!(done.stat.unwrap().mode, 0o750);
    assert_eq!(s.all_bytes(".left/history"), [b"file".to_vec()]);
    s.apply_one(s.place("x", b"again", s.expect("x"), None))
        .unwrap();
    assert_eq!(s.read("x"), b"again");
    assert_eq!(s.stage.names().unwrap(), Vec::<String>::new());
}

#[test]
fn a_full_folder_is_not_replaced() {
    let s = Share::new();
    s.mkdir("x");
    let expect = s.expect("x");
    s.write("x/f", "user");
    let op = s.place("x", b"file", expect, None);
    assert_eq!(s.apply_one(op), Err(OpError::NotEmpty));
    assert_eq!(s.read("x/f"), b"user");
}

#[test]
fn missing_things_are_named() {
    let s = Share::new();
    s.write("plain", "");
    symlink("/tmp", s.at("link")).unwrap();
    for parent in ["none", "plain", "link"] {
        let op = s.place(&format!("{parent}/f"), b"x", Expect::Absent, None);
        assert_eq!(s.apply_one(op), Err(OpError::NoParent), "{parent}");
    }
    let op = s.place("f", b"x", Expect::Absent, None);
    let names = s.stage.names().unwrap();
    s.stage.clean(|_| false).unwrap();
    assert_eq!(names.len(), 4);
    assert_eq!(s.apply_one(op), Err(OpError::NotStaged));
    // Bytes that do not have the announced length are not put in place.
    let wrong = Op::Place {
        path: p("f"),
        node: file(b"longer"),
        staged: Some(s.stage_bytes(b"x")),
        expect: Expect::Absent,
        loser: None,
    };
    assert_eq!(s.apply_one(wrong), Err(OpError::NotStaged));
    assert!(!s.exists("f"));
}

#[test]
fn metadata_is_set_in_place() {
    let s = Share::new();
    s.write("f", "12");
    s.mkdir("d");
    symlink("t", s.at("l")).unwrap();
    let ino = s.stat("f").ino;
    let ops = vec![
        Op::SetMeta {
            path: p("f"),
            node: file(b"12"),
            expect: s.expect("f"),
        },
        Op::SetMeta {
            path: p("d"),
            node: Node::Dir { mode: 0o2700 },
            expect: s.expect("d"),
        },
        Op::SetMeta {
            path: p("l"),
            node: link("t"),
            expect: s.expect("l"),
        },
    ];
    let done: Vec<_> = s
        .apply(ops)
        .into_iter()
        .map(|r| r.unwrap().stat.unwrap())
        .collect();
    assert_eq!(done, [s.stat("f"), s.stat("d"), s.stat("l")]);
    assert_eq!(
        (done[0].ino, done[0].mode, done[0].mtime),
        (ino, 0o640, mtime(1_000_000))
    );
    assert_eq!(done[1].mode, 0o2700);
    assert_eq!(done[2].mtime, mtime(2_000_000));
}

#[test]
fn a_move_keeps_the_inode() {
    let s = Share::new();
    s.mkdir("b");
    s.write("a", "bytes");
    let ino = s.stat("a").ino;
    let op = |expect| Op::Move {
        from: p("a"),
        expect,
        to: p("b/c"),
        node: file(b"bytes"),
    };
    let done = s.apply_one(op(s.expect("a"))).unwrap();
    assert_eq!(done.stat.unwrap(), s.stat("b/c"));
    assert_eq!(s.stat("b/c").ino, ino);
    assert_eq!(s.stat("b/c").mtime, mtime(1_000_000));
    assert!(!s.exists("a"));
    s.write("a", "other");
    assert_eq!(s.apply_one(op(s.expect("a"))), Err(OpError::Unexpected));
    assert_eq!(
        (s.read("a"), s.read("b/c")),
        (b"other".to_vec(), b"bytes".to_vec())
    );
}

#[test]
fn a_batch_builds_a_tree_and_one_failure_stops_only_its_children() {
    let s = Share::new();
    s.write("bad", "in the way");
    let dir = |path: &str| Op::Place {
        path: p(path),
        node: Node::Dir { mode: 0o555 },
        staged: None,
        expect: Expect::Absent,
        loser: None,
    };
    let ops = vec![
        dir("good"),
        s.place("good/f", b"1", Expect::Absent, None),
        dir("bad"),
        s.place("bad/f", b"2", Expect::Absent, None),
        dir("good/sub"),
        s.place("good/sub/g", b"3", Expect::Absent, None),
    ];
    let got = s.apply(ops);
    assert!(got[0].is_ok() && got[1].is_ok() && got[4].is_ok() && got[5].is_ok());
    assert_eq!(got[2], Err(OpError::Unexpected));
    assert_eq!(got[3], Err(OpError::NoParent));
    assert_eq!(s.read("good/sub/g"), b"3");
    assert_eq!(s.stat("good").mode, 0o555);
    assert_eq!(got[0].as_ref().unwrap().stat.unwrap(), s.stat("good"));
}

#[test]
fn one_path_may_be_removed_and_made_again_in_a_batch() {
    let s = Share::new();
    s.write("a", "one");
    let ops = vec![
        Op::Remove {
            path: p("a"),
            expect: s.expect("a"),
        },
        Op::Place {
            path: p("a"),
            node: Node::Dir { mode: 0o755 },
            staged: None,
            expect: Expect::Absent,
            loser: None,
        },
        s.place("a/b", b"two", Expect::Absent, None),
    ];
    assert!(s.apply(ops).iter().all(|r| r.is_ok()));
    // The history has a file `a` and must now take `a/b`.
    let ops = vec![
        Op::Remove {
            path: p("a/b"),
            expect: s.expect("a/b"),
        },
        Op::Remove {
            path: p("a"),
            expect: s.expect("a"),
        },
        s.place("a", b"three", Expect::Absent, None),
    ];
    assert!(s.apply(ops).iter().all(|r| r.is_ok()));
    assert_eq!(s.read("a"), b"three");
    let mut old = s.all_bytes(".left/history");
    old.sort();
    assert_eq!(old, [b"one".to_vec(), b"two".to_vec()]);
}

#[test]
fn odd_names_and_depths() {
    let s = Share::new();
    let long = "n".repeat(255);
    let deep = vec!["d"; 40].join("/");
    s.mkdir(&deep);
    let raw = RelPath::new(b"\xff\xfe\n name".to_vec()).unwrap();
    let bytes_at = |path: RelPath| Op::Place {
        path,
        node: file(b"x"),
        staged: Some(s.stage_bytes(b"x")),
        expect: Expect::Absent,
        loser: None,
    };
    let paths = [p(&long), p(&format!("{deep}/{long}")), raw];
    for path in &paths {
        let done = s.apply_one(bytes_at(path.clone())).unwrap();
        let expect = Expect::Present(left_core::entry::Kind::File, done.stat.unwrap());
        let loser = Some(path.clone());
        // The name of the loser is taken by the winner itself, and too long for a suffix.
        let again = Op::Place {
            path: path.clone(),
            node: file(b"y"),
            staged: Some(s.stage_bytes(b"y")),
            expect,
            loser,
        };
        let (copy, _) = s.apply_one(again).unwrap().loser.unwrap();
        assert_ne!(copy, *path);
        assert!(s.root.look(&copy).unwrap().is_some());
    }
    let longest = vec!["p".repeat(250); 16].join("/");
    assert_eq!(longest.len(), 4015);
    let path = p(&format!("{longest}/{}", "f".repeat(80)));
    assert_eq!(path.as_bytes().len(), 4096);
    assert_eq!(s.apply_one(bytes_at(path)), Err(OpError::NoParent));
}

#[test]
fn many_files_in_one_batch() {
    let s = Share::new();
    let ops = (0..500)
        .map(|n| {
            s.place(
                &format!("f{n}"),
                format!("{n}").as_bytes(),
                Expect::Absent,
                None,
            )
        })
        .collect();
    assert!(s.apply(ops).iter().all(|r| r.is_ok()));
    assert_eq!(s.read("f321"), b"321");
    assert_eq!(
        std::fs::metadata(s.at("f499")).unwrap().mode() & 0o7777,
        0o640
    );
}

#[test]
fn stage_names_can_not_lead_elsewhere() {
    let s = Share::new();
    for bad in ["", ".", "..", "../x", "a/b", "a\0b"] {
        let name = left_core::plan::StageName(bad.into());
        assert!(s.stage.create(&name).is_err(), "{bad:?}");
        assert!(s.stage.open_existing(&name).is_err(), "{bad:?}");
        assert!(s.stage.remove(&name).is_err(), "{bad:?}");
    }
    let mode = std::fs::metadata(s.at(".left/stage"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o700);
    assert!(s.stage.free_space().unwrap() > 0);
}

#[test]
fn late_writes_to_what_went_to_history_are_rescued() {
    use std::io::Write;
    let s = Share::new();
    s.mkdir("d");
    s.write("d/log.txt", "start ");
    s.write("d/quiet.txt", "quiet");
    let mut open = std::fs::File::options()
        .append(true)
        .open(s.at("d/log.txt"))
        .unwrap();
    let ops = vec![
        s.place("d/log.txt", b"theirs", s.expect("d/log.txt"), None),
        Op::Remove {
            path: p("d/quiet.txt"),
            expect: s.expect("d/quiet.txt"),
        },
    ];
    assert!(s.apply(ops).iter().all(|r| r.is_ok()));
    open.write_all(b"late").unwrap();
    let rescued = s.history.look_again(&s.root);
    assert_eq!(rescued.len(), 1);
    let copy = rescued[0].copy.to_string();
    assert!(
        copy.starts_with("d/log.conflict-") && copy.ends_with("-late.txt"),
        "{copy}"
    );
    assert_eq!(s.read(&copy), b"start late");
    assert_eq!(s.read("d/log.txt"), b"theirs");
    assert!(s.history.look_again(&s.root).is_empty());
}

#[test]
fn a_restart_still_finds_late_writes_and_only_them() {
    use std::io::Write;
    let s = Share::new();
    s.write("a", "a ");
    s.write("b", "b");
    let mut open = std::fs::File::options()
        .append(true)
        .open(s.at("a"))
        .unwrap();
    let ops = ["a", "b"].map(|f| Op::Remove {
        path: p(f),
        expect: s.expect(f),
    });
    assert!(s.apply(ops.into()).iter().all(|r| r.is_ok()));
    open.write_all(b"late").unwrap();
    let again = left::disk::History::open_with_grace(&s.root, std::time::Duration::ZERO).unwrap();
    let rescued = again.look_again(&s.root);
    assert_eq!(rescued.len(), 1);
    assert_eq!(s.read(&rescued[0].copy.to_string()), b"a late");
    let third = left::disk::History::open_with_grace(&s.root, std::time::Duration::ZERO).unwrap();
    assert!(
        third.look_again(&s.root).is_empty(),
        "what was examined is not examined again"
    );
}

/// What others hold takes no room once it was looked at again; what was written late comes back, also
/// when left was started anew in between.
#[test]
fn what_is_dropped_is_freed_after_the_second_look() {
    use std::io::Write;
    let s = Share::new();
    for restart in [false, true] {
        s.mkdir("d");
        s.write("d/f", "held elsewhere");
        s.write("d/log", "start ");
        s.write("kept", "an old version");
        let file = std::fs::File::options();
        let mut open = file.clone().append(true).open(s.at("d/log")).unwrap();
        let drop = |path: &str| Op::Drop {
            path: p(path),
            expect: s.expect(path),
        };
        let remove = Op::Remove {
            path: p("kept"),
            expect: s.expect("kept"),
        };
        let ops = vec![drop("d/f"), remove, drop("d/log")];
        assert!(s.apply(ops).iter().all(|r| r.is_ok()));
        assert!(!s.exists("d/f") && !s.exists("d/log"));
        open.write_all(b"late").unwrap();
        let again = left::disk::History::open_with_grace(&s.root, std::time::Duration::ZERO);
        let rescued = match restart {
            true => again.unwrap().look_again(&s.root),
            false => s.history.look_again(&s.root),
        };
        let copies: Vec<String> = rescued.iter().map(|r| r.copy.to_string()).collect();
        assert_eq!(copies.len(), 1, "{copies:?}");
        assert_eq!(s.read(&copies[0]), b"start late");
        let mut left = s.all_bytes(".left/history");
        // (The name of the last batch that was looked at lies there too.)
        left.retain(|bytes| !bytes.starts_with(b"20"));
        assert_eq!(
            left,
            vec![b"an old version".to_vec(); 1 + usize::from(restart)]
        );
        // An edit that the index does not know goes nowhere.
        s.write("edited", "one");
        let op = drop("edited");
        s.write("edited", "another");
        assert_eq!(s.apply_one(op), Err(OpError::Unexpected));
        assert_eq!(s.read("edited"), b"another");
        for path in [&copies[0], "edited"] {
            std::fs::remove_file(s.at(path)).unwrap();
        }
        std::fs::remove_dir(s.at("d")).unwrap();
    }
}

#[test]
fn history_expires() {
    let s = Share::new();
    s.mkdir("d");
    s.write("d/f", "old");
    let op = Op::Remove {
        path: p("d/f"),
        expect: s.expect("d/f"),
    };
    s.apply_one(op).unwrap();
    let thin = || {
        let done = s.history.thin(&s.root, &Limits::default(), &|| false);
        done.unwrap().versions
    };
    assert_eq!(thin(), 0);
    assert_eq!(s.all_bytes(".left/history").len(), 1);
    let batch = std::fs::read_dir(s.at(".left/history"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let old = s.at(".left/history/20200101T000000.000Z-000000");
    std::fs::rename(batch.path(), &old).unwrap();
    assert_eq!(thin(), 1);
    assert!(!old.exists());
}

/// On a disk that has room and hardly an inode the oldest versions go.
#[test]
fn history_makes_room_for_files() {
    const FILES: u64 = 1000;
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("small");
    std::fs::create_dir(&at).unwrap();
    let options = format!("size=16m,nr_inodes={FILES}");
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &options, "none"]).arg(&at);
    if !mount.status().is_ok_and(|s| s.success()) {
        eprintln!("skipped: nothing can be mounted here");
        return;
    }
    let s = Share::of(tempfile::tempdir_in(&at).unwrap());
    for name in ["20200101T000000.000Z-000000", "20200102T000000.000Z-000000"] {
        let batch = s.at(".left/history").join(name);
        std::fs::create_dir(&batch).unwrap();
        for n in 0..100 {
            std::fs::write(batch.join(n.to_string()), "old").unwrap();
        }
    }
    let make_room = || s.history.make_room(&s.root).unwrap().versions;
    assert_eq!(make_room(), 0);
    let mut n = 0;
    while std::fs::write(s.at(&format!("new{n}")), "").is_ok() {
        n += 1;
    }
    assert!(n > 700 && make_room() == 100, "{n}");
    assert_eq!(make_room(), 0);
    std::fs::write(s.at("one more"), "").unwrap();
    drop(s);
    let unmounted = Command::new("umount").arg("-l").arg(&at).status();
    assert!(unmounted.unwrap().success());
}
