//! The test plan of the student system that LEFT grew from, and its variants.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::common::{Device, World, fill, overwrite, settle, until};

/// What may travel twice of a file when a process is killed.
const TWICE: u64 = 8 << 20;

/// Bytes of the staged file that take room on the disk.
fn staged(device: &Device) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(device.share.join(".left/stage")).unwrap();
    entries
        .flatten()
        .map(|e| e.metadata().map_or(0, |m| m.blocks() * 512))
        .sum()
}

fn small_files(dir: &Path) {
    for n in 0..50 {
        fill(&dir.join(format!("{n}.dat")), &format!("small {n}"), 1000);
    }
}

#[test]
fn the_original_plan() {
    const BIG: u64 = 500_000_000;
    let world = World::new();
    let (mut a, mut b) = (world.device("a"), world.device("b"));

    // Step 1.
    fill(&a.share.join("File_1"), "File_1", 10_000_000);
    let ticket = a.share();
    b.join(&ticket);
    settle(&[&a, &b]);

    // Step 2: both are moved in at once, as a user does it.
    fill(&world.path().join("File_2"), "File_2", BIG);
    small_files(&world.path().join("files"));
    fs::rename(world.path().join("File_2"), b.share.join("File_2")).unwrap();
    fs::rename(world.path().join("files"), b.share.join("files")).unwrap();
    thread::sleep(Duration::from_millis(500));
    a.kill9();
    let there = staged(&a);
    let whole = a.share.join("File_2").exists();
    thread::sleep(Duration::from_secs(1));
    a.restart();
    settle(&[&a, &b]);
    let (came, _) = a.wire();
    let twice = (there + came).saturating_sub(BIG);
    println!("staged at the kill {there} (whole: {whole}), received after it {came}");
    assert!(whole || twice <= TWICE, "{twice} bytes travelled twice");

    // Step 3, in one run; and scattered over the file.
    for (name, run) in [("one run", BIG / 10), ("scattered", 1_000_000)] {
        let (before, _) = b.wire();
        let step = BIG / (BIG / 10 / run);
        let places = (0..BIG / 10 / run).map(|n| (n * step, run));
        overwrite(&a.share.join("File_2"), name, places);
        settle(&[&a, &b]);
        let (after, _) = b.wire();
        println!("{name}: {} bytes on the wire", after - before);
        assert!(after - before <= 2 * BIG / 10, "{name}: {}", after - before);
    }
    a.stop();
    b.stop();
}

/// Killed when a good part is there, the receiver goes on where it was.
#[test]
fn the_receiver_goes_on_where_it_was() {
    const BIG: u64 = 100_000_000;
    let world = World::new();
    let (mut a, b) = world.pair();
    fill(&world.path().join("big"), "resumed", BIG);
    fs::rename(world.path().join("big"), b.share.join("big")).unwrap();
    until("much is there", || {
        staged(&a) > BIG / 4 || a.share.join("big").exists()
    });
    a.kill9();
    let (there, whole) = (staged(&a), a.share.join("big").exists());
    a.restart();
    settle(&[&a, &b]);
    let (came, _) = a.wire();
    println!("staged at the kill {there} (whole: {whole}), received after it {came}");
    let twice = (there + came).saturating_sub(BIG);
    assert!(whole || twice <= TWICE, "{twice} bytes travelled twice");
}

#[test]
fn the_sender_is_killed_and_then_both() {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    settle(&[&a, &b]);
    for (n, both) in [false, true].into_iter().enumerate() {
        let file = b.share.join(format!("big-{n}"));
        fill(&file, &format!("big {n}"), 60_000_000);
        small_files(&b.share.join(format!("small-{n}")));
        until("the transfer is under way", || {
            staged(&a) > 4_000_000 || a.share.join(format!("big-{n}")).exists()
        });
        b.kill9();
        if both {
            a.kill9();
            a.restart();
        }
        b.restart();
        settle(&[&a, &b]);
    }
}

#[test]
fn killed_at_random_moments() {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    settle(&[&a, &b]);
    for n in 0..6_u64 {
        fill(
            &a.share.join(format!("from-a-{n}")),
            &format!("a{n}"),
            7_000_000,
        );
        fill(
            &b.share.join(format!("from-b-{n}")),
            &format!("b{n}"),
            7_000_000,
        );
        small_files(&a.share.join(format!("d{n}")));
        if n > 0 {
            fs::remove_dir_all(a.share.join(format!("d{}", n - 1))).unwrap();
            overwrite(
                &b.share.join("from-a-0"),
                &format!("o{n}"),
                [(n * 500_000, 300_000)],
            );
        }
        // Somewhere within the work.
        let random = crate::common::bytes(&format!("moment {n}"), 0, 2);
        thread::sleep(Duration::from_millis(40 + u64::from(random[0]) * 3));
        let victims = u64::from(random[1]) % 3;
        if victims != 0 {
            a.kill9();
        }
        if victims != 1 {
            b.kill9();
        }
        if victims != 0 {
            a.restart();
        }
        if victims != 1 {
            b.restart();
        }
        settle(&[&a, &b]);
    }
}

#[test]
fn twenty_restarts_on_one_port() {
    let world = World::new();
    let (mut a, b) = world.pair();
    for n in 0..20 {
        fill(&b.share.join("f"), &format!("{n}"), 1000);
        a.kill9();
        a.restart();
    }
    settle(&[&a, &b]);
    assert!(!a.log().contains("in use"), "{}", a.log());
}
