//! Memory does not grow with the file.

use std::fs;

use crate::common::{Device, World, fill, settle};

/// The most memory a device's process ever had, in MiB.
fn peak(device: &Device) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", device.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib / 1024
}

fn passes(size: u64, limit: u64) {
    let world = World::new();
    let (a, b) = world.pair();
    settle(&[&a, &b]);
    let outside = world.path().join("big");
    fill(&outside, "big", size);
    fs::rename(&outside, a.share.join("big")).unwrap();
    settle(&[&a, &b]);
    println!("{size} bytes: peak {} and {} MiB", peak(&a), peak(&b));
    assert!(peak(&a) < limit && peak(&b) < limit);
}

#[test]
fn a_file_larger_than_the_memory_allowed() {
    passes(250_000_000, 120);
}

/// Takes minutes; run it by name.
#[test]
#[ignore = "3 GiB of random data on both sides"]
fn three_gibibytes() {
    passes(3 << 30, 120);
}
