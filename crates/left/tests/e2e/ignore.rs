//! `.leftignore`: rules count at once in both directions and never delete anything.

use std::fs;

use crate::common::{World, settle, until, write};

#[test]
fn rules_count_at_once_in_both_directions() {
    let world = World::new();
    let (a, b) = world.pair();
    write(&a.share.join("x.tmp"), "one");
    write(&a.share.join("cache/deep/y"), "one");
    settle(&[&a, &b]);
    // What is ignored from now on stays where it is, on both sides, and is left alone.
    write(&a.share.join(".leftignore"), "*.tmp\n/cache/\n");
    settle(&[&a, &b]);
    write(&a.share.join("x.tmp"), "two");
    fs::remove_file(a.share.join("cache/deep/y")).unwrap();
    write(&b.share.join("z.tmp"), "of b");
    for _ in 0..2 {
        a.wait();
        b.wait();
    }
    assert_eq!(fs::read(b.share.join("x.tmp")).unwrap(), b"one");
    assert_eq!(fs::read(b.share.join("cache/deep/y")).unwrap(), b"one");
    assert!(!a.share.join("z.tmp").exists());
    // What is ignored no more is told at once.
    write(&a.share.join(".leftignore"), "/cache/\n");
    until("x.tmp is told", || {
        fs::read(b.share.join("x.tmp")).unwrap() == b"two"
    });
    until("z.tmp is told", || a.share.join("z.tmp").exists());
    fs::remove_file(a.share.join(".leftignore")).unwrap();
    settle(&[&a, &b]);
    assert!(a.events("alarm").is_empty() && b.events("alarm").is_empty());
}

#[test]
fn a_deleted_folder_keeps_what_is_ignored_in_it_elsewhere() {
    let world = World::new();
    let (a, b) = world.pair();
    write(&a.share.join(".leftignore"), "*.log\n");
    write(&a.share.join("d/sub/file"), "told");
    write(&a.share.join("other"), "stays");
    settle(&[&a, &b]);
    write(&b.share.join("d/sub/mine.log"), "only on b");
    write(&b.share.join("d/top.log"), "only on b");
    fs::remove_dir_all(a.share.join("d")).unwrap();
    until("the file is gone", || !b.share.join("d/sub/file").exists());
    for _ in 0..2 {
        a.wait();
        b.wait();
    }
    for log in ["d/sub/mine.log", "d/top.log"] {
        assert_eq!(fs::read(b.share.join(log)).unwrap(), b"only on b", "{log}");
        assert!(!a.share.join(log).exists());
    }
}

#[test]
fn included_files_count_as_if_they_stood_there() {
    let world = World::new();
    let (a, b) = world.pair();
    write(&a.share.join("rules/common.txt"), "*.bak\n");
    write(
        &a.share.join(".leftignore"),
        "#include rules/common.txt\n!keep.bak\n",
    );
    settle(&[&a, &b]);
    write(&b.share.join("x.bak"), "b");
    write(&b.share.join("keep.bak"), "b");
    write(&b.share.join("y.old"), "b");
    settle_twice(&a, &b);
    assert!(!a.share.join("x.bak").exists());
    assert!(a.share.join("keep.bak").exists() && a.share.join("y.old").exists());
    // A change of an included file is one of the rules, on the other device too.
    write(&a.share.join("rules/common.txt"), "*.old\n");
    until("x.bak is told", || a.share.join("x.bak").exists());
    write(&b.share.join("z.old"), "b");
    settle_twice(&a, &b);
    assert!(!a.share.join("z.old").exists() && b.share.join("y.old").exists());
    assert!(a.share.join("y.old").exists());
    write(&a.share.join(".leftignore"), "#include rules/none.txt\n");
    a.expect("problem", |e| {
        e["reason"]
            .as_str()
            .unwrap()
            .contains("there is no such file")
    });
    until("z.old is told", || a.share.join("z.old").exists());
}

#[test]
fn a_folders_own_rules_count_in_it_on_every_device() {
    let world = World::new();
    let (a, b) = world.pair();
    write(&a.share.join("p/deep/.leftignore"), "*.o\n/out/\n");
    write(&a.share.join("p/deep/src/main.c"), "1");
    settle(&[&a, &b]);
    for file in ["p/deep/src/x.o", "p/deep/out/big", "p/y.o"] {
        write(&b.share.join(file), "of b");
    }
    settle_twice(&a, &b);
    assert!(a.share.join("p/y.o").exists());
    assert!(!a.share.join("p/deep/src/x.o").exists() && !a.share.join("p/deep/out").exists());
    // Changed there, they count here at once.
    write(&a.share.join("p/deep/.leftignore"), "/out/\n");
    until("x.o is told", || a.share.join("p/deep/src/x.o").exists());
    assert!(!a.share.join("p/deep/out").exists());
    fs::remove_file(b.share.join("p/deep/.leftignore")).unwrap();
    until("out is told", || a.share.join("p/deep/out/big").exists());
    settle(&[&a, &b]);
    assert!(a.events("alarm").is_empty() && b.events("alarm").is_empty());
}

fn settle_twice(a: &crate::common::Device, b: &crate::common::Device) {
    for _ in 0..2 {
        a.wait();
        b.wait();
    }
}
