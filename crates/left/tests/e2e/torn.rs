//! A file that is being written arrives only as states that it really had.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::{World, bytes, settle};

#[test]
fn a_file_that_grows() {
    let world = World::new();
    let (a, b) = world.pair();
    settle(&[&a, &b]);
    let (source, target) = (a.share.join("log"), b.share.join("log"));
    // Before each piece is written its state is known; the file may be seen between two of them
    // only in whole pieces, since each is one write.
    let states: Arc<Mutex<HashSet<blake3::Hash>>> = Arc::default();
    states.lock().unwrap().insert(blake3::hash(b""));
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (states, done) = (states.clone(), done.clone());
        thread::spawn(move || {
            let mut file = File::create(source).unwrap();
            let mut all = blake3::Hasher::new();
            for n in 0..40 {
                let piece = bytes(&format!("piece {n}"), 0, 50_000);
                all.update(&piece);
                states.lock().unwrap().insert(all.finalize());
                file.write_all(&piece).unwrap();
                thread::sleep(Duration::from_millis(25));
            }
            done.store(true, Ordering::SeqCst);
        })
    };
    let mut seen = HashSet::new();
    while !done.load(Ordering::SeqCst) {
        if let Ok(content) = fs::read(&target) {
            let hash = blake3::hash(&content);
            let known = states.lock().unwrap().contains(&hash);
            assert!(known, "{} bytes that the file never had", content.len());
            seen.insert(hash);
        }
        thread::sleep(Duration::from_millis(5));
    }
    writer.join().unwrap();
    settle(&[&a, &b]);
    println!("the peer saw {} states on the way", seen.len());
}

#[test]
fn a_file_that_is_replaced_again_and_again() {
    let world = World::new();
    let (a, b) = world.pair();
    settle(&[&a, &b]);
    let target = b.share.join("config");
    let version = |n: usize| bytes(&format!("version {n}"), 0, 300_000 + n * 1000);
    let known: HashSet<blake3::Hash> = (0..60).map(|n| blake3::hash(&version(n))).collect();
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (dir, done) = (a.share.clone(), done.clone());
        thread::spawn(move || {
            for n in 0..60 {
                fs::write(dir.join("config.new"), version(n)).unwrap();
                fs::rename(dir.join("config.new"), dir.join("config")).unwrap();
                thread::sleep(Duration::from_millis(15));
            }
            done.store(true, Ordering::SeqCst);
        })
    };
    let mut gone = false;
    let mut was_there = false;
    while !done.load(Ordering::SeqCst) {
        match fs::read(&target) {
            Ok(content) => {
                was_there = true;
                let hash = blake3::hash(&content);
                assert!(
                    known.contains(&hash),
                    "{} bytes, never written",
                    content.len()
                );
            }
            Err(_) => gone |= was_there,
        }
    }
    writer.join().unwrap();
    assert!(!gone, "the file was missing for a moment");
    settle(&[&a, &b]);
    assert!(fs::read(&target).unwrap() == version(59));
}
