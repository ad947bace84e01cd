//! Scan and watch: what is told, in which order, and what is not read.
#![allow(missing_docs, clippy::unwrap_used)]

mod disk_support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::sync::atomic::Ordering;

use disk_support::{MapIndex, Share, Sink, Watched, brief, file, p};
use left::disk::{Cut, EyeEvent, Near, RootGone, ScanIndex};
use left_core::chunker::content_id;
use left_core::diff::{Observation, Seen};
use left_core::entry::Mtime;
use left_core::ignore::MAX_FOLDER_TEXT;
use left_core::path::RelPath;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn the_first_scan_tells_all_in_order_and_the_next_nothing() {
    let s = Share::new();
    s.mkdir("a/b");
    s.write("a/b/f", "1");
    s.write("a.txt", "2");
    symlink("a", s.at("l")).unwrap();
    s.write("empty", "");
    let mut w = Watched::over(&s, MapIndex::default(), Sink::default());
    let seen = w.scan_done();
    assert_eq!(
        brief(&seen),
        ["+a", "+a/b", "+a/b/f", "+a.txt", "+empty", "+l"]
    );
    assert_eq!(w.index.content("a/b/f"), Some(content_id(b"1")));
    for o in &seen {
        assert!(Near::new(&s.root).still_holds(o), "{o:?}");
    }
    w.eye.scan_all();
    assert!(w.scan_done().is_empty());
    let (index, sink) = (w.index.clone(), w.sink.clone());
    drop(w);
    let mut w = Watched::over(&s, index, sink);
    assert!(w.scan_done().is_empty(), "a restart finds nothing new");
}

#[test]
fn exactly_the_differences_made_while_nobody_watched() {
    let s = Share::new();
    for n in 0..50 {
        s.mkdir(&format!("d{}", n % 5));
        s.write(&format!("d{}/f{n}", n % 5), format!("{n}"));
    }
    let w = Watched::start(&s);
    let index = w.index.clone();
    drop(w);
    s.write("d0/f5", "changed");
    fs::set_permissions(s.at("d1"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::remove_dir_all(s.at("d2")).unwrap();
    fs::remove_file(s.at("d3/f3")).unwrap();
    s.write("d3/new", "n");
    fs::rename(s.at("d4/f4"), s.at("d4/renamed")).unwrap();
    let mut w = Watched::over(&s, index, Sink::default());
    let seen = brief(&w.scan_done());
    let (there, gone): (Vec<_>, Vec<_>) = seen.iter().partition(|o| o.starts_with('+'));
    assert_eq!(there, ["+d0/f5", "+d1", "+d3/new", "+d4/renamed"]);
    assert!(
        seen[..there.len()].iter().all(|o| o.starts_with('+')),
        "deletions come last"
    );
    assert_eq!(gone.len(), 10 + 1 + 1 + 1);
    let d2 = gone.iter().position(|o| *o == "-d2").unwrap();
    let inside = gone.iter().position(|o| *o == "-d2/f2").unwrap();
    assert!(inside < d2, "what is in a folder goes before it");
}

#[test]
fn a_file_read_too_soon_is_read_again_at_the_next_hint() {
    let s = Share::new();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    s.write("old", vec![1u8; 300_000]);
    let file = fs::File::options().write(true).open(s.at("old")).unwrap();
    file.set_modified(old).unwrap();
    drop(file);
    let mut w = Watched::start(&s);
    s.write("fresh", vec![2u8; 300_000]);
    w.barrier();
    let begun = w.sink.begun.load(Ordering::SeqCst);
    assert_eq!(w.index.paths().len(), 2);
    // Opened for writing and closed: a hint, and the same stat.
    let touch = |name: &str| drop(fs::File::options().write(true).open(s.at(name)).unwrap());
    touch("fresh");
    w.barrier();
    assert_eq!(w.sink.begun.load(Ordering::SeqCst), begun + 1);
    touch("old");
    w.barrier();
    assert_eq!(w.sink.begun.load(Ordering::SeqCst), begun + 1);
}

#[test]
fn a_renamed_file_or_folder_is_not_read() {
    let s = Share::new();
    s.mkdir("old/sub");
    let big = vec![7u8; 300_000];
    s.write("old/sub/big", &big);
    s.write("old/small", "small");
    let mut w = Watched::start(&s);
    assert_eq!(w.sink.begun.load(Ordering::SeqCst), 1);
    let content = w.index.content("old/sub/big").unwrap();
    fs::rename(s.at("old"), s.at("new")).unwrap();
    let seen = w.barrier();
    let got = brief(&seen);
    assert_eq!(got[..4], ["+new", "+new/small", "+new/sub", "+new/sub/big"]);
    assert_eq!(got[4..], ["-old/small", "-old/sub/big", "-old/sub", "-old"]);
    assert_eq!(w.index.content("new/sub/big"), Some(content));
    assert_eq!(
        w.sink.begun.load(Ordering::SeqCst),
        1,
        "nothing large was read again"
    );
    // The watches moved along.
    s.write("new/sub/fresh", "x");
    assert_eq!(brief(&w.until_path("new/sub/fresh")), ["+new/sub/fresh"]);
}

/// As what an operation puts into a folder that is being walked.
#[test]
fn what_is_recorded_while_its_folder_is_walked_is_not_read() {
    let s = Share::new();
    s.mkdir("dir");
    s.write("dir/big", vec![7u8; 300_000]);
    let w = Watched::start(&s);
    let (index, sink) = (w.index.clone(), w.sink.clone());
    drop(w);
    index.late.lock().unwrap().insert(p("dir/big"));
    let mut w = Watched::over(&s, index, sink);
    w.scan_done();
    assert_eq!(w.sink.begun.load(Ordering::SeqCst), 1);
    // One that is not as recorded is.
    s.write("dir/big", vec![8u8; 300_000]);
    w.barrier();
    assert_eq!(w.sink.begun.load(Ordering::SeqCst), 2);
    assert_eq!(
        w.index.content("dir/big"),
        Some(content_id(&[8u8; 300_000]))
    );
}

#[test]
fn a_new_file_in_a_used_inode_is_read_though_size_and_time_agree() {
    let s = Share::new();
    s.write("a", "first");
    let time = fs::metadata(s.at("a")).unwrap().modified().unwrap();
    let w = Watched::start(&s);
    let index = w.index.clone();
    drop(w);
    fs::remove_file(s.at("a")).unwrap();
    // Whether the file system gives the inode again or not: the content must be right.
    s.write("b", "other");
    fs::File::options()
        .write(true)
        .open(s.at("b"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    let mut w = Watched::over(&s, index, Sink::default());
    w.scan_done();
    assert_eq!(w.index.content("b"), Some(content_id(b"other")));
}

#[test]
fn hard_links_are_read() {
    let s = Share::new();
    s.write("a", "bytes");
    let mut w = Watched::start(&s);
    fs::hard_link(s.at("a"), s.at("b")).unwrap();
    let seen = w.until_path("b");
    assert!(brief(&seen).contains(&"+b".to_string()));
    assert_eq!(w.index.content("b"), Some(content_id(b"bytes")));
    assert_eq!(w.index.content("a"), Some(content_id(b"bytes")));
}

#[test]
fn live_changes_are_told_without_asking() {
    let s = Share::new();
    s.mkdir("d");
    let mut w = Watched::start(&s);
    s.write("d/f", "one");
    w.until_path("d/f");
    assert_eq!(w.index.content("d/f"), Some(content_id(b"one")));
    s.write("d/f", "two");
    w.until(|_| true);
    w.barrier();
    assert_eq!(w.index.content("d/f"), Some(content_id(b"two")));
    fs::rename(s.at("d/f"), s.at("d/g")).unwrap();
    assert_eq!(brief(&w.until_path("d/f")), ["+d/g", "-d/f"]);
    symlink("x", s.at("d/l")).unwrap();
    w.until_path("d/l");
    fs::remove_file(s.at("d/g")).unwrap();
    assert_eq!(brief(&w.until_path("d/g")), ["-d/g"]);
    fs::create_dir_all(s.at("d/x/y/z")).unwrap();
    s.write("d/x/y/z/deep", "deep");
    w.until_path("d/x/y/z/deep");
    fs::set_permissions(s.at("d/x"), fs::Permissions::from_mode(0o700)).unwrap();
    w.until_path("d/x");
    fs::remove_dir_all(s.at("d")).unwrap();
    w.until_path("d");
    assert_eq!(w.index.paths(), Vec::<String>::new());
}

#[test]
fn a_folder_moved_out_of_the_share_is_gone_and_no_longer_watched() {
    let s = Share::new();
    let elsewhere = tempfile::tempdir_in(s.dir.path().parent().unwrap()).unwrap();
    s.mkdir("d/e");
    s.write("d/e/f", "1");
    let mut w = Watched::start(&s);
    fs::rename(s.at("d"), elsewhere.path().join("d")).unwrap();
    assert_eq!(brief(&w.until_path("d")), ["-d/e/f", "-d/e", "-d"]);
    fs::write(elsewhere.path().join("d/e/g"), "outside").unwrap();
    assert!(w.barrier().is_empty());
    fs::rename(elsewhere.path().join("d"), s.at("back")).unwrap();
    w.until_path("back/e/g");
    assert_eq!(w.index.paths(), ["back", "back/e", "back/e/f", "back/e/g"]);
}

#[test]
fn a_file_that_is_still_open_is_told_when_quiet_or_at_a_barrier() {
    let s = Share::new();
    let mut w = Watched::start(&s);
    let mut open = fs::File::create(s.at("f")).unwrap();
    open.write_all(b"part").unwrap();
    w.until_path("f");
    assert_eq!(w.index.content("f"), Some(content_id(b"part")));
    open.write_all(b" and more").unwrap();
    w.barrier();
    assert_eq!(w.index.content("f"), Some(content_id(b"part and more")));
}

/// As with `cp -r`: the folder is new, so the file was made before anybody could hear of it.
#[test]
fn a_file_made_in_a_new_folder_is_not_told_as_empty_before_it_is_written() {
    let s = Share::new();
    let elsewhere = tempfile::tempdir_in(s.dir.path().parent().unwrap()).unwrap();
    let mut w = Watched::start(&s);
    let tries = (0..50).any(|n| {
        let (out, dir, path) = (elsewhere.path(), format!("d{n}"), format!("d{n}/f"));
        fs::create_dir(out.join(&dir)).unwrap();
        let made = std::time::Instant::now();
        let mut open = fs::File::create(out.join(&path)).unwrap();
        fs::rename(out.join(&dir), s.at(&dir)).unwrap();
        // A file beside it, later in order, is told: so this one has been passed by.
        s.write(&format!("{dir}/g"), "g");
        let first = w.until_path(&format!("{dir}/g"));
        open.write_all(b"bytes").unwrap();
        drop(open);
        // A slow machine may have left it alone for so long that it counts as finished.
        let in_time = made.elapsed() < std::time::Duration::from_millis(200);
        if in_time {
            assert!(first.iter().all(|o| o.path != p(&path)), "{first:?}");
        }
        w.barrier();
        assert_eq!(w.index.content(&path), Some(content_id(b"bytes")));
        in_time
    });
    assert!(tries, "this machine is too slow for this test");
    // One that stays empty is told without asking, and at once where somebody asks.
    fs::create_dir(elsewhere.path().join("e")).unwrap();
    fs::write(elsewhere.path().join("e/f"), "").unwrap();
    fs::rename(elsewhere.path().join("e"), s.at("e")).unwrap();
    w.until_path("e/f");
    fs::create_dir(elsewhere.path().join("h")).unwrap();
    fs::write(elsewhere.path().join("h/f"), "").unwrap();
    fs::rename(elsewhere.path().join("h"), s.at("h")).unwrap();
    w.barrier();
    assert_eq!(w.index.content("h/f"), Some(content_id(b"")));
}

#[test]
fn a_barrier_waits_for_large_files() {
    let s = Share::new();
    let mut w = Watched::start(&s);
    let big = vec![3u8; 20_000_000];
    s.write("big", &big);
    w.barrier();
    assert_eq!(w.index.content("big"), Some(content_id(&big)));
    assert_eq!(w.sink.done.lock().unwrap().len(), 1);
}

#[test]
fn special_files_and_refused_names_are_told_and_left_alone() {
    let s = Share::new();
    let socket = UnixListener::bind(s.at("socket")).unwrap();
    s.mkdir("sub/.left");
    s.write("sub/.LEFT", "");
    s.write("ok", "");
    let mut w = Watched::start(&s);
    let named: Vec<String> = w
        .other
        .iter()
        .filter_map(|e| match e {
            EyeEvent::Problem { what, .. } => Some(what.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(named, ["sub/.LEFT", "sub/.left"]);
    assert_eq!(w.index.paths(), ["ok", "sub"]);
    w.eye.rescan(vec![p("socket")]);
    assert_eq!(brief(&w.until_path("socket")), ["?socket"]);
    drop(socket);
    fs::remove_file(s.at("socket")).unwrap();
    assert_eq!(
        brief(&w.until_path("socket")),
        ["-socket"],
        "its trouble is over"
    );
}

#[test]
fn what_can_not_be_read_is_told_and_nothing_below_is_deleted() {
    if is_root() {
        return; // Root may read everything.
    }
    let s = Share::new();
    s.mkdir("d/e");
    s.write("d/e/f", "1");
    s.write("g", "2");
    let mut w = Watched::start(&s);
    let set = |path: &str, mode| {
        fs::set_permissions(s.at(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    set("d/e", 0);
    set("g", 0);
    w.eye.scan_all();
    let seen = w.scan_done();
    assert!(brief(&seen).contains(&"?d/e".into()) && brief(&seen).contains(&"?g".into()));
    assert!(!seen.iter().any(|o| o.seen == Seen::Absent));
    set("d/e", 0o755);
    set("g", 0o644);
    let seen = w.barrier();
    assert!(brief(&seen).contains(&"+d/e".into()) && brief(&seen).contains(&"+g".into()));
}

#[test]
fn ignored_paths_are_not_observed_at_all() {
    let s = Share::new();
    s.write(".leftignore", "*.tmp\n/build/\n");
    s.write("a.tmp", "");
    s.mkdir("build/x");
    s.write("kept", "");
    let mut w = Watched::start(&s);
    assert_eq!(w.index.paths(), [".leftignore", "kept"]);
    s.write("b.tmp", "");
    s.write("build/x/new", "");
    assert!(w.barrier().is_empty());
    // A known path that becomes ignored is left alone, also when it goes.
    s.write(".leftignore", "kept\n");
    w.until_path("build/x/new");
    fs::remove_file(s.at("kept")).unwrap();
    s.write("marker", "");
    w.until_path("marker");
    w.barrier();
    let paths = w.index.paths();
    assert!(
        paths.contains(&"kept".into()) && paths.contains(&"a.tmp".into()),
        "{paths:?}"
    );
    fs::remove_file(s.at(".leftignore")).unwrap();
    w.until_path("kept");
    assert!(!w.index.paths().contains(&"kept".into()));
}

#[test]
fn a_folders_own_rules_are_read_before_anything_in_it() {
    let s = Share::new();
    s.write(".leftignore", "*.tmp\n/shut/\n");
    s.mkdir("a/b/c");
    s.mkdir("shut");
    s.write("a/b/.leftignore", "*.log\n!keep.tmp\n");
    s.write("a/b/keep.tmp", "");
    s.write("a/b/c/x.log", "");
    s.write("a/x.log", "");
    s.write("shut/.leftignore", "!*\n");
    let w = Watched::start(&s);
    let live = [
        ".leftignore",
        "a",
        "a/b",
        "a/b/.leftignore",
        "a/b/c",
        "a/b/keep.tmp",
        "a/x.log",
    ];
    assert_eq!(w.index.paths(), live);
}

#[test]
fn a_folders_own_rules_change_at_once_and_move_with_it() {
    let s = Share::new();
    s.mkdir("a/b");
    s.write("a/b/x.log", "1");
    let mut w = Watched::start(&s);
    // They come: what is there stays known and is left alone, also when it goes.
    s.write("a/.leftignore", "*.log\n");
    w.until_path("a/.leftignore");
    fs::remove_file(s.at("a/b/x.log")).unwrap();
    s.write("a/b/new.log", "2");
    w.barrier();
    assert!(w.index.paths().contains(&"a/b/x.log".into()));
    assert!(!w.index.paths().contains(&"a/b/new.log".into()));
    // They change: what counts again is told, there or gone.
    s.write("a/.leftignore", "*.old\n");
    w.until_path("a/b/new.log");
    w.barrier();
    assert!(!w.index.paths().contains(&"a/b/x.log".into()));
    // They move with their folder.
    s.write("a/b/y.old", "3");
    fs::rename(s.at("a"), s.at("z")).unwrap();
    w.until_path("z/b/new.log");
    s.write("z/b/w.old", "4");
    w.barrier();
    let paths = w.index.paths();
    assert_eq!(paths, ["z", "z/.leftignore", "z/b", "z/b/new.log"]);
    // They go.
    fs::remove_file(s.at("z/.leftignore")).unwrap();
    w.until_path("z/b/w.old");
    // A new folder has them from the start, however they come.
    s.mkdir("later");
    s.write("later/.leftignore", "deep/*.log\n");
    w.until_path("later/.leftignore");
    s.mkdir("later/deep");
    s.write("later/deep/x.log", "");
    s.write("later/x.log", "");
    w.until_path("later/x.log");
    w.barrier();
    assert!(!w.index.paths().contains(&"later/deep/x.log".into()));
}

#[test]
fn too_large_rules_of_a_folder_are_told_and_not_used() {
    let s = Share::new();
    s.mkdir("a");
    s.write("a/.leftignore", "x\n".repeat(MAX_FOLDER_TEXT));
    s.write("a/x", "");
    let mut w = Watched::start(&s);
    assert!(w.index.paths().contains(&"a/x".into()));
    w.eye.scan_all();
    s.write("a/.leftignore", "y\n");
    s.write("a/y", "");
    w.barrier();
    assert!(!w.index.paths().contains(&"a/y".into()));
}

#[test]
fn held_paths_are_put_off() {
    let s = Share::new();
    let mut w = Watched::start(&s);
    let hold = w.eye.hold(vec![p("held")]);
    s.write("held", "1");
    s.write("free", "2");
    assert_eq!(brief(&w.until_path("free")), ["+free"]);
    w.eye.rescan(vec![p("held")]);
    s.write("free2", "3");
    assert_eq!(brief(&w.until_path("free2")), ["+free2"]);
    drop(hold);
    assert_eq!(brief(&w.until_path("held")), ["+held"]);
}

/// Who holds a path and makes a file there knows what it made: that alone is not read back. Anything more is.
#[test]
fn what_was_made_under_a_hold_is_not_looked_at_unless_more_happened() {
    let s = Share::new();
    let mut w = Watched::start(&s);
    let make = |path: &str| {
        let new = s.at(".left/stage/new");
        fs::write(&new, "new").unwrap();
        fs::hard_link(&new, s.at(path)).unwrap();
        fs::remove_file(&new).unwrap();
    };
    let append = |path: &str| {
        let mut file = File::options().append(true).open(s.at(path)).unwrap();
        file.write_all(b"more").unwrap();
    };
    let paths = ["a", "b", "c", "d", "e", "new/f"].map(p);
    let hold = w.eye.hold(paths.to_vec());
    s.mkdir("new");
    ["a", "b", "c", "d", "new/f"].into_iter().for_each(make);
    append("b");
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(s.at("c"), mode).unwrap();
    fs::rename(s.at("d"), s.at("e")).unwrap();
    make("d");
    // Looks at all of the above, and puts it off.
    s.write("g", "");
    assert!(brief(&w.until_path("g")).contains(&"+g".into()));
    hold.end(paths.to_vec());
    let told = brief(&w.barrier());
    // `new` is walked, before or after its file is made.
    let expected = ["+b", "+c", "+d", "+e"];
    let besides: Vec<_> = told.iter().filter(|t| !t.starts_with("+new")).collect();
    assert_eq!(besides, expected);
    // Once the hold is over everything counts.
    append("a");
    assert_eq!(brief(&w.barrier()), ["+a"]);
}

/// It is watched from its first moment, or nearly so; what came before that is found by walking it.
#[test]
fn a_folder_that_was_made_under_a_hold_is_walked_when_that_ends() {
    let s = Share::new();
    let mut w = Watched::start(&s);
    for round in 0..20 {
        let dir = format!("d{round}");
        let hold = w.eye.hold(vec![p(&dir)]);
        s.mkdir(&dir);
        s.write(&format!("{dir}/at once"), "1");
        s.write("seen", format!("{round}"));
        w.until_path("seen");
        s.write(&format!("{dir}/later"), "2");
        // Its holder records it.
        w.index.take(&[Observation {
            path: p(&dir),
            seen: Seen::Dir(s.stat(&dir)),
        }]);
        hold.end(Vec::new());
        w.barrier();
        let here = w.index.paths();
        for name in ["", "/at once", "/later"] {
            assert!(here.contains(&format!("{dir}{name}")), "{dir}{name}");
        }
    }
}

#[test]
fn what_was_made_under_a_hold_is_looked_at_where_its_holder_failed_or_rules_are_in_it() {
    let s = Share::new();
    s.write("x", "new");
    let mut w = Watched::start(&s);
    let hold = w.eye.hold(vec![p("a"), p("b")]);
    for path in ["a", "b"] {
        fs::hard_link(s.at("x"), s.at(path)).unwrap();
    }
    hold.end(vec![p("a")]);
    assert_eq!(brief(&w.barrier()), ["+b"]);
    let hold = w.eye.hold(vec![p(".leftignore")]);
    fs::hard_link(s.at("x"), s.at(".leftignore")).unwrap();
    hold.end(vec![p(".leftignore")]);
    s.write("new", "");
    let told = brief(&w.barrier());
    assert!(told.contains(&"+.leftignore".into()), "{told:?}");
    assert!(!told.contains(&"+new".into()), "{told:?}");
}

#[test]
fn a_root_that_vanished_is_no_deletion() {
    let s = Share::new();
    s.mkdir("d");
    s.write("d/f", "1");
    let mut w = Watched::start(&s);
    let away = s.dir.path().with_extension("away");
    fs::rename(s.dir.path(), &away).unwrap();
    let seen = w.until(|e| matches!(e, EyeEvent::RootGone(RootGone::Vanished(_))));
    assert!(seen.is_empty());
    fs::remove_file(away.join("d/f")).unwrap();
    fs::rename(&away, s.dir.path()).unwrap();
    let seen = w.until(|e| matches!(e, EyeEvent::ScanDone));
    assert!(w.other.iter().any(|e| matches!(e, EyeEvent::RootBack)));
    assert_eq!(brief(&seen), ["-d/f"]);
}

#[test]
fn a_root_without_its_marker_is_no_deletion() {
    let s = Share::new();
    s.write("f", "1");
    let mut w = Watched::start(&s);
    fs::rename(s.at(".left"), s.at("left-was-here")).unwrap();
    fs::remove_file(s.at("f")).unwrap();
    w.until(|e| matches!(e, EyeEvent::RootGone(RootGone::MarkerGone(_))));
    assert_eq!(w.index.paths(), ["f"]);
    assert!(s.root.check().is_err());
    fs::rename(s.at("left-was-here"), s.at(".left")).unwrap();
    assert_eq!(brief(&w.scan_done()), ["-f"]);
}

#[test]
fn a_flood_beyond_the_queue_is_found_by_looking() {
    let s = Share::new();
    let channel = crossbeam_channel::bounded(1);
    let mut w = Watched::through(&s, MapIndex::default(), Sink::default(), channel);
    w.scan_done();
    // Nobody takes what the eye says, so it soon takes no events either.
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let files = (limit / 3 + 2_000).min(30_000);
    for n in 0..files {
        s.write(&format!("f{n}"), format!("{n}"));
    }
    w.barrier();
    let scans = w.other.iter().filter(|e| matches!(e, EyeEvent::ScanDone));
    assert!(
        scans.count() >= 2,
        "the queue overflowed, so all was looked at again"
    );
    assert_eq!(w.index.paths().len(), files);
    assert_eq!(w.index.content("f77"), Some(content_id(b"77")));
}

#[test]
fn odd_names_are_seen() {
    use std::os::unix::ffi::OsStrExt;
    let s = Share::new();
    let raw = std::ffi::OsStr::from_bytes(b"\xff\xfe\nname");
    let long = "n".repeat(255);
    let deep = vec!["d"; 40].join("/");
    s.mkdir(&deep);
    let mut w = Watched::start(&s);
    fs::write(s.dir.path().join(raw), "raw").unwrap();
    s.write(&long, "long");
    s.write(&format!("{deep}/x"), "deep");
    let seen = w.barrier();
    assert_eq!(seen.len(), 3);
    let raw = RelPath::new(raw.as_bytes()).unwrap();
    assert!(seen.iter().any(|o| o.path == raw));
}

#[test]
fn what_replaces_a_folder_is_told_with_what_was_in_it() {
    let s = Share::new();
    s.mkdir("x/y");
    s.write("x/y/f", "1");
    s.write("z", "file");
    let w = Watched::start(&s);
    let index = w.index.clone();
    drop(w);
    fs::remove_dir_all(s.at("x")).unwrap();
    s.write("x", "file now");
    fs::remove_file(s.at("z")).unwrap();
    s.mkdir("z/in");
    let mut w = Watched::over(&s, index, Sink::default());
    assert_eq!(
        brief(&w.scan_done()),
        ["+x", "+z", "+z/in", "-x/y/f", "-x/y"]
    );
}

/// A share on which the power was cut after `old` had reached the disk, and its index.
fn cut_share() -> (Share, MapIndex) {
    let mut s = Share::new();
    s.write("old", "old");
    let later = |a: Mtime, b: Mtime| (a.secs, a.nanos) > (b.secs, b.nanos);
    while !s.exists("torn") || !later(s.stat("torn").ctime, s.stat("old").ctime) {
        s.write("torn", "torn");
    }
    for name in ["same", "edited", "vanished"] {
        s.write(name, name);
    }
    let w = Watched::start(&s);
    let index = w.index.clone();
    drop(w);
    let since = s.stat("torn").ctime;
    let found = Mtime {
        secs: since.secs + 1000,
        ..since
    };
    s.cut = Some(Cut { since, found });
    index.change("torn", |record| {
        record.stat.as_mut().unwrap().size = 100;
        record.entry.node = file(b"what was announced");
    });
    for looks_as_recorded in ["same", "old"] {
        index.change(looks_as_recorded, |record| {
            record.entry.node = file(b"what was announced");
        });
    }
    fs::remove_file(s.at("vanished")).unwrap();
    s.write("edited", "after the machine was back");
    (s, index)
}

/// A file that looks older than its record is told of like any other change, with what stands there.
#[test]
fn what_is_older_than_its_record_is_told() {
    let s = Share::new();
    s.write("file", "under a wrong clock");
    let w = Watched::start(&s);
    let index = w.index.clone();
    drop(w);
    index.change("file", |record| {
        record.stat.as_mut().unwrap().ctime.secs += 1000;
    });
    s.write("file", "under a right one");
    let mut w = Watched::over(&s, index, Sink::default());
    assert_eq!(brief(&w.scan_done()), ["+file"]);
}

#[test]
fn what_a_power_cut_took_back_is_no_edit() {
    let (s, index) = cut_share();
    let mut w = Watched::over(&s, index.clone(), Sink::default());
    // What was on the disk before is not read again.
    let seen = brief(&w.scan_done());
    assert_eq!(seen, ["+edited", "!same", "!torn", "!vanished"]);
    w.eye.scan_all();
    // And whoever was busy the first time hears of it when he looks again.
    let seen = brief(&w.scan_done());
    assert_eq!(seen, ["!torn", "!vanished"], "never taken for an edit");
    s.write("torn", "written anew");
    w.until_path("torn");
    assert_eq!(index.content("torn"), Some(content_id(b"written anew")));
}

#[test]
fn what_a_power_cut_took_back_can_be_taken_for_meant() {
    let (s, index) = cut_share();
    let mut w = Watched::over(&s, index, Sink::default());
    w.scan_done();
    w.eye.accept_torn();
    w.eye.scan_all();
    let seen = brief(&w.scan_done());
    assert!(seen.contains(&"+torn".into()), "{seen:?}");
    assert!(seen.contains(&"-vanished".into()), "{seen:?}");
}

#[test]
fn without_a_power_cut_an_old_file_is_an_edit() {
    let (mut s, index) = cut_share();
    s.cut = None;
    let mut w = Watched::over(&s, index, Sink::default());
    let seen = brief(&w.scan_done());
    assert!(seen.contains(&"+torn".into()), "{seen:?}");
    assert!(seen.contains(&"-vanished".into()), "{seen:?}");
}

/// What changes again before its last change is recorded is told all the same, though the index says what
/// there is now.
#[test]
fn what_was_told_and_is_not_recorded_yet_is_told_again() {
    let s = Share::new();
    s.mkdir("d");
    s.mkdir("full");
    symlink("a", s.at("l")).unwrap();
    let mut w = Watched::start(&s);
    let mut late = Vec::new();
    let mut tell = |change: &dyn Fn(), expected: &[&str]| {
        change();
        let mut missing = expected.to_vec();
        // Until it is recorded a path may be told of more than once.
        while !missing.is_empty() {
            let seen = w.unrecorded();
            for told in brief(&seen) {
                missing.retain(|m| *m != told);
            }
            late.extend(seen);
        }
    };
    // New and gone again.
    tell(&|| s.write("f", "1"), &["+f"]);
    tell(&|| fs::remove_file(s.at("f")).unwrap(), &["-f"]);
    // Gone and there again.
    tell(&|| fs::remove_dir(s.at("d")).unwrap(), &["-d"]);
    tell(&|| s.mkdir("d"), &["+d"]);
    tell(
        &|| fs::rename(s.at("l"), s.at("d/l")).unwrap(),
        &["+d/l", "-l"],
    );
    tell(
        &|| fs::rename(s.at("d/l"), s.at("l")).unwrap(),
        &["+l", "-d/l"],
    );
    // In a folder that is walked.
    tell(&|| s.write("full/f", "2"), &["+full/f"]);
    tell(
        &|| {
            fs::rename(s.at("full"), s.at("gone")).unwrap();
            fs::remove_file(s.at("gone/f")).unwrap();
            fs::rename(s.at("gone"), s.at("full")).unwrap();
        },
        &["-full/f"],
    );
    w.index.take(&late);
    late.iter().for_each(|_| w.eye.recorded());
    w.barrier();
    assert!(w.barrier().is_empty());
    for gone in ["f", "d/l", "full/f"] {
        assert!(w.index.get(&p(gone)).unwrap().is_none(), "{gone}");
    }
    for there in ["d", "l", "full"] {
        assert!(w.index.get(&p(there)).unwrap().is_some(), "{there}");
    }
}
