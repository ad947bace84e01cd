//! Tests of what is sent.

use std::fs;
use std::sync::Mutex;

use super::*;

fn tree(dir: &Path, names: &[&str]) -> Result<Tree, UserError> {
    let paths: Vec<PathBuf> = names.iter().map(|n| dir.join(n)).collect();
    let manifests = Manifests::open(&dir.join("m.db")).unwrap();
    Tree::new(&paths, manifests, Stop::default())
}

fn listed(tree: &Tree) -> Vec<(String, bool)> {
    let state = tree.read();
    let live = |i: &Item| (shown(&i.path), i.node.is_live());
    state.items.iter().map(live).collect()
}

#[test]
fn every_way_to_name_a_thing_gives_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().canonicalize().unwrap();
    fs::create_dir_all(at.join("a/b")).unwrap();
    std::os::unix::fs::symlink("a", at.join("link")).unwrap();
    let name = |path: &str| {
        let (parent, name) = place_of(&at.join(path)).unwrap();
        (parent, String::from_utf8(name).unwrap())
    };
    assert_eq!(name("a/b"), (at.join("a"), "b".into()));
    assert_eq!(name("a/b/.."), (at.clone(), "a".into()));
    assert_eq!(name("link"), (at.clone(), "link".into()));
    assert_eq!(name("link/"), (at.clone(), "a".into()));
    assert!(place_of(Path::new("/")).is_err());
    assert!(place_of(&at.join("none/x")).is_err());
}

#[test]
fn what_cannot_be_sent_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("d/.left")).unwrap();
    fs::write(dir.path().join("f"), "1").unwrap();
    fs::write(dir.path().join("d/f"), "2").unwrap();
    let error = |names: &[&str]| tree(dir.path(), names).err().unwrap().to_string();
    assert!(error(&["none"]).contains("none: it does not exist"));
    assert!(error(&["f", "d/f"]).contains("two of the paths"));
    assert!(error(&["d/.left"]).contains("reserved"));
}

#[test]
fn a_second_look_lists_only_what_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/a"), "a").unwrap();
    fs::write(at("d/b"), "b").unwrap();
    let tree = tree(dir.path(), &["d"]).unwrap();
    let skipped = Mutex::new(Vec::new());
    let look = || {
        tree.look(&|told| {
            if let Told::Skipped(path, _) = told {
                lock(&skipped).push(shown(&path));
            }
        });
    };
    assert!(tree.progress().busy);
    look();
    assert!(!tree.progress().busy);
    let live = |n: &str| (n.to_owned(), true);
    assert_eq!(listed(&tree), [live("d"), live("d/a"), live("d/b")]);
    let old = tree.read().items[1].node.content().unwrap();
    let (path, stat) = tree.locate(&old).pop().unwrap();
    assert!(tree.open(&path, &stat).is_ok());

    fs::write(at("d/a"), "new").unwrap();
    fs::remove_file(at("d/b")).unwrap();
    std::os::unix::net::UnixListener::bind(at("d/socket")).unwrap();
    // The old bytes are nowhere any more, so they are not given out under their name.
    assert!(tree.open(&path, &stat).is_err());
    look();
    let news = [live("d/a"), ("d/b".to_owned(), false)];
    assert_eq!(listed(&tree)[3..], news);
    assert_eq!(*lock(&skipped), ["d/socket"]);
    let batch = tree.batch(0, DeviceId([1; 32])).unwrap();
    // A path stands once in a message, so its later entry waits for the next.
    assert_eq!((batch.upto, batch.more), (3, true));
    let batch = tree.batch(3, DeviceId([1; 32])).unwrap();
    assert_eq!((batch.upto, batch.more), (5, false));
    assert!(tree.batch(5, DeviceId([1; 32])).is_none());
    assert_eq!(tree.size(), (1, 3));
}
