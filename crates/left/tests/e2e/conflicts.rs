//! Concurrent edits, and folders that hold files before they are joined.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::common::{Device, World, bytes, fill, overwrite, settle, write};

/// Conflict copies in a folder.
fn copies(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().flatten().map(|e| e.path());
    let mut found: Vec<_> = entries
        .filter(|p| p.to_string_lossy().contains(".conflict-"))
        .collect();
    found.sort();
    found
}

/// Edits both folders while neither device runs.
fn apart(a: &mut Device, b: &mut Device, edit: impl FnOnce(&Path, &Path)) {
    a.stop();
    b.stop();
    edit(&a.share, &b.share);
    a.restart();
    b.restart();
    settle(&[a, b]);
}

#[test]
fn both_edits_are_kept_the_same_way_on_both() {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    write(&a.share.join("note.txt"), "first");
    fill(&a.share.join("big.bin"), "big", 5_000_000);
    settle(&[&a, &b]);
    apart(&mut a, &mut b, |a, b| {
        write(&a.join("note.txt"), "from a");
        write(&b.join("note.txt"), "from b");
        overwrite(&a.join("big.bin"), "a", [(1_000_000, 500_000)]);
        overwrite(&b.join("big.bin"), "b", [(1_000_000, 500_000)]);
    });
    // That both trees are equal is known by now; so the winner and the names are the same.
    let copies = copies(&a.share);
    assert_eq!(copies.len(), 2, "{copies:?}");
    let mut texts = vec![fs::read(a.share.join("note.txt")).unwrap()];
    texts.push(
        fs::read(
            copies
                .iter()
                .find(|c| c.extension().unwrap() == "txt")
                .unwrap(),
        )
        .unwrap(),
    );
    texts.sort();
    assert_eq!(texts, [b"from a", b"from b"]);
    let mut seen: Vec<_> = [&a.share.join("big.bin"), &copies[0]]
        .map(|p| fs::read(p).unwrap()[1_000_000..1_500_000].to_vec())
        .into();
    seen.sort();
    let mut wanted = ["a", "b"].map(|seed| bytes(seed, 1_000_000, 500_000));
    wanted.sort();
    assert!(seen == wanted, "a version of big.bin is lost");
    assert_eq!(a.status()["conflicts"].as_array().unwrap().len(), 2);
    assert_eq!(a.status()["conflicts"], b.status()["conflicts"]);
}

#[test]
fn a_living_conflict_keeps_both_too() {
    let world = World::new();
    let (a, b) = world.pair();
    settle(&[&a, &b]);
    for n in 0..20 {
        let name = format!("f{n}");
        // As near to each other as two writers come.
        let (one, two) = (a.share.join(&name), b.share.join(&name));
        let writer = std::thread::spawn(move || write(&one, format!("a{n}")));
        write(&two, format!("b{n}"));
        writer.join().unwrap();
    }
    settle(&[&a, &b]);
    let mut all: Vec<String> = fs::read_dir(&a.share)
        .unwrap()
        .flatten()
        .filter(|e| e.file_type().unwrap().is_file())
        .map(|e| fs::read_to_string(e.path()).unwrap())
        .collect();
    all.sort();
    let mut wanted: Vec<_> = (0..20)
        .flat_map(|n| [format!("a{n}"), format!("b{n}")])
        .collect();
    // One that saw the other's version before it wrote its own has replaced it, which is no
    // conflict: then the history holds it.
    wanted.sort();
    for text in wanted.iter().filter(|t| !all.contains(t)) {
        let kept = [&a, &b]
            .iter()
            .any(|d| in_history(&d.share.join(".left/history"), text));
        assert!(kept, "{text} is lost; there are {all:?}");
    }
}

fn in_history(dir: &Path, text: &str) -> bool {
    let Ok(entries) = fs::read_dir(dir) else {
        return false;
    };
    entries.flatten().any(|e| {
        if e.file_type().unwrap().is_dir() {
            in_history(&e.path(), text)
        } else {
            fs::read(e.path()).is_ok_and(|b| b == text.as_bytes())
        }
    })
}

#[test]
fn an_edit_beats_a_deletion() {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    for name in ["one", "two", "dir/three", "stays", "stays too"] {
        write(&a.share.join(name), "first");
    }
    settle(&[&a, &b]);
    apart(&mut a, &mut b, |a, b| {
        fs::remove_file(a.join("one")).unwrap();
        write(&b.join("one"), "edited on b");
        write(&a.join("two"), "edited on a");
        fs::remove_file(b.join("two")).unwrap();
        // A whole folder deleted here, a file in it edited there.
        fs::remove_dir_all(a.join("dir")).unwrap();
        write(&b.join("dir/three"), "edited on b");
    });
    assert_eq!(fs::read(a.share.join("one")).unwrap(), b"edited on b");
    assert_eq!(fs::read(b.share.join("two")).unwrap(), b"edited on a");
    assert_eq!(fs::read(a.share.join("dir/three")).unwrap(), b"edited on b");
    assert!(copies(&a.share).is_empty());
}

#[test]
fn equal_bytes_are_no_conflict() {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    write(&a.share.join("f"), "first");
    settle(&[&a, &b]);
    apart(&mut a, &mut b, |a, b| {
        for dir in [a, b] {
            write(&dir.join("f"), "the same");
            write(&dir.join("new"), "the same");
            fs::create_dir(dir.join("dir")).unwrap();
            std::os::unix::fs::symlink("f", dir.join("link")).unwrap();
        }
        // The same bytes, another mode.
        fs::set_permissions(a.join("f"), fs::Permissions::from_mode(0o600)).unwrap();
    });
    assert!(copies(&a.share).is_empty());
    assert_eq!(a.status()["conflicts"].as_array().unwrap().len(), 0);
}

#[test]
fn a_folder_with_files_is_merged() {
    let world = World::new();
    let (mut a, mut b) = (world.device("a"), world.device("b"));
    fill(&a.share.join("equal"), "equal", 20_000_000);
    fill(&b.share.join("equal"), "equal", 20_000_000);
    write(&a.share.join("different"), "of a");
    write(&b.share.join("different"), "of b");
    write(&a.share.join("sub/only a"), "a");
    write(&b.share.join("sub/only b"), "b");
    // A folder here, a file there.
    write(&a.share.join("mixed/inner"), "in a folder");
    write(&b.share.join("mixed"), "a file");
    let ticket = a.share();
    b.join(&ticket);
    settle(&[&a, &b]);
    let wire = b.wire();
    assert!(wire.0 + wire.1 < 100_000, "equal bytes travelled: {wire:?}");
    assert_eq!(fs::read(b.share.join("sub/only a")).unwrap(), b"a");
    assert_eq!(fs::read(a.share.join("sub/only b")).unwrap(), b"b");
    assert_eq!(
        fs::read(b.share.join("mixed/inner")).unwrap(),
        b"in a folder"
    );
    let kept: Vec<_> = copies(&b.share)
        .iter()
        .map(|c| fs::read(c).unwrap())
        .collect();
    assert_eq!(kept.len(), 2, "{:?}", copies(&b.share));
    assert!(kept.contains(&b"a file".to_vec()));
    let mut texts = [
        fs::read(a.share.join("different")).unwrap(),
        kept[0].clone(),
    ];
    texts.sort();
    assert_eq!(texts, [b"of a", b"of b"]);
}
