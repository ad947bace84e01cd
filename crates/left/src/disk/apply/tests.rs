#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

use std::fs;

use super::*;
use crate::disk::init_share;

/// Also in the middle of a batch, which has its folder open.
#[test]
fn a_history_that_is_removed_meanwhile_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    init_share(dir.path(), b"id = 1\n").unwrap();
    let root = Root::open(dir.path()).unwrap();
    let stage = Stage::open(&root).unwrap();
    let history = History::open(&root).unwrap();
    let mut run = Run::new(&root, &stage, &history, How::Each);
    fs::create_dir(at("d")).unwrap();
    // First a whole batch goes, then the folder in it, then everything.
    for (n, gone) in ["", "*", "*/d", ""].into_iter().enumerate() {
        for name in ["d/f", "f"] {
            let path = RelPath::new(name).unwrap();
            fs::write(at(name), format!("{n} {name}")).unwrap();
            let stat = root.stat(&path).unwrap().unwrap().file;
            let slot = run.slot(&path).unwrap();
            drop(slot);
            let batch = format!(".left/history/{}", run.batch.as_ref().unwrap().name());
            match gone {
                "" => fs::remove_dir_all(at(".left/history")).unwrap(),
                "*" => fs::remove_dir_all(at(&batch)).unwrap(),
                _ => {
                    let _ = fs::remove_dir_all(at(&batch).join("d"));
                }
            }
            let expect = Expect::Present(Kind::File, stat);
            simple::remove(&mut run, &path, &expect).unwrap();
            assert!(!at(name).exists());
            let batch = format!(".left/history/{}", run.batch.as_ref().unwrap().name());
            let kept = fs::read_to_string(at(&batch).join(name)).unwrap();
            assert_eq!(kept, format!("{n} {name}"));
        }
    }
    assert!(run.sync().is_empty());
}
