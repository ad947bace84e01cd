//! Somebody removes LEFT's own folders by hand while it runs, to free space.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::common::{Device, World, assert_same, bytes, fill, settle, until, write};

/// Of a file that is no small content.
const BIG: u64 = 600_000;

fn remove(device: &Device, name: &str) {
    fs::remove_dir_all(device.share.join(".left").join(name)).unwrap();
}

/// A short text as it is, what is long by its hash.
fn said(bytes: &[u8]) -> String {
    match bytes.len() {
        0..100 => String::from_utf8(bytes.to_vec()).unwrap(),
        _ => blake3::hash(bytes).to_string(),
    }
}

/// What the history of a device holds, whatever its batches are called.
fn kept(device: &Device) -> Vec<String> {
    fn below(dir: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.path().is_dir() {
                true => below(&entry.path(), found),
                false if entry.file_name() != "examined" => {
                    found.push(said(&fs::read(entry.path()).unwrap()));
                }
                false => {}
            }
        }
    }
    let mut found = Vec::new();
    below(&device.share.join(".left/history"), &mut found);
    found.sort();
    found
}

#[test]
fn inner_folders_are_made_anew() {
    let world = World::new();
    let (a, b) = world.pair();
    for name in ["deleted", "edited", "deep/down/deleted", "deep/down/edited"] {
        write(&a.share.join(name), format!("{name} 0"));
    }
    settle(&[&a, &b]);
    let rounds = [
        &["history"][..],
        &["stage"],
        &["pack"],
        &["history", "stage", "pack"],
    ];
    for (n, gone) in (1..).zip(rounds) {
        // What is replaced or deleted at b is kept there, before and after.
        let before = kept(&b);
        gone.iter().for_each(|name| remove(&b, name));
        for dir in ["", "deep/down/"] {
            write(
                &a.share.join(format!("{dir}edited")),
                format!("{dir}edited {n}"),
            );
            fs::remove_file(a.share.join(format!("{dir}deleted"))).unwrap();
        }
        fill(&a.share.join("big"), &format!("big {n}"), BIG);
        fs::create_dir_all(a.share.join(format!("dir {n}/in it"))).unwrap();
        symlink("nowhere", a.share.join(format!("link {n}"))).unwrap();
        settle(&[&a, &b]);
        let mut wanted = match gone.contains(&"history") {
            true => Vec::new(),
            false => before,
        };
        if n > 1 {
            let big = bytes(&format!("big {}", n - 1), 0, BIG as usize);
            wanted.push(said(&big));
        }
        for dir in ["", "deep/down/"] {
            wanted.push(format!("{dir}edited {}", n - 1));
            wanted.push(format!("{dir}deleted {}", n - 1));
        }
        wanted.sort();
        assert_eq!(kept(&b), wanted, "{gone:?}\n{}", b.log());
        for dir in ["", "deep/down/"] {
            write(
                &a.share.join(format!("{dir}deleted")),
                format!("{dir}deleted {n}"),
            );
        }
        settle(&[&a, &b]);
    }
    assert!(!b.log().contains("WARN"), "{}", b.log());
    // What went before comes back by the same program.
    b.ok(&["restore".as_ref(), b.share.join("edited").as_os_str()]);
    settle(&[&b, &a]);
    assert_eq!(
        fs::read_to_string(a.share.join("edited")).unwrap(),
        "edited 3"
    );
}

/// A big file is under way, and its part is open.
#[test]
fn the_stage_goes_while_a_file_comes_in() {
    let world = World::new();
    let (a, b) = world.pair();
    settle(&[&a, &b]);
    let limit = |down: &str| {
        b.ok(&[
            "limit".as_ref(),
            b.share.as_os_str(),
            "--down".as_ref(),
            down.as_ref(),
        ])
    };
    limit("64kB");
    fill(&a.share.join("big"), "big", 3_000_000);
    let stage = b.share.join(".left/stage");
    until("a part is staged", || {
        let mut parts = fs::read_dir(&stage).unwrap().flatten();
        parts.any(|e| e.metadata().is_ok_and(|m| m.len() > 0))
    });
    remove(&b, "stage");
    limit("unlimited");
    settle(&[&a, &b]);
    assert_same(&a.share, &b.share);
    assert!(b.share.join("big").exists());
}
