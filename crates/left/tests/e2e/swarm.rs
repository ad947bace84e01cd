//! Several receivers of one big file. What is judged is what leaves its source, not how long it takes.

use std::fs;

use crate::common::{Device, World, bytes, settle, until};

const SIZE: usize = 24 << 20;

/// A source whose uplink is slow, and its receivers; all connected to each other.
fn fleet(world: &World, receivers: &[&str]) -> (Device, Vec<Device>) {
    let (source, all) = meet(world, receivers);
    let words = ["limit".as_ref(), source.share.as_os_str()];
    source.ok(&[&words[..], &["--up".as_ref(), "12MB".as_ref()]].concat());
    (source, all)
}

fn meet(world: &World, receivers: &[&str]) -> (Device, Vec<Device>) {
    let mut source = world.device("source");
    let mut ticket = source.share();
    let mut all = Vec::new();
    for name in receivers {
        let mut device = world.device(name);
        device.join(&ticket);
        all.push(device);
        let more = source.ok(&["ticket".as_ref(), source.share.as_os_str()]);
        let line = more.lines().find(|l| l.starts_with("left1"));
        ticket = line.unwrap().to_owned();
    }
    for device in &all {
        let linked = |p: &serde_json::Value| p["connected"] == true;
        until("all meet", || {
            let status = device.status();
            let peers = status["peers"].as_array().unwrap();
            peers.iter().filter(|p| linked(p)).count() == receivers.len()
        });
    }
    (source, all)
}

/// Puts a file at the source, in one step.
fn put(world: &World, source: &Device, seed: &str) -> Vec<u8> {
    put_of(world, source, seed, SIZE)
}

fn put_of(world: &World, source: &Device, seed: &str, size: usize) -> Vec<u8> {
    let content = bytes(seed, 0, size);
    fs::write(world.path().join("new"), &content).unwrap();
    fs::rename(world.path().join("new"), source.share.join("big")).unwrap();
    content
}

fn times(source: &Device, before: u64) -> f64 {
    (source.wire().1 - before) as f64 / SIZE as f64
}

#[test]
fn four_receivers_get_it_for_little_more_than_one() {
    let world = World::new();
    let (source, all) = fleet(&world, &["a", "b", "c", "d"]);
    let before = source.wire().1;
    let content = put(&world, &source, "one");
    for device in &all {
        until("it is there", || device.share.join("big").exists());
        assert!(fs::read(device.share.join("big")).unwrap() == content);
    }
    let times = times(&source, before);
    println!("left the source {times:.3} times");
    assert!(times < 1.4, "{times}");
}

#[test]
fn a_source_without_a_limit_does_not_send_it_to_each() {
    const LARGE: usize = 3 * SIZE;
    let world = World::new();
    let (source, all) = meet(&world, &["a", "b", "c", "d"]);
    let (start, before) = (std::time::Instant::now(), source.wire().1);
    let content = put_of(&world, &source, "fast", LARGE);
    for device in &all {
        until("it is there", || device.share.join("big").exists());
        assert!(fs::read(device.share.join("big")).unwrap() == content);
    }
    let times = times(&source, before) * SIZE as f64 / LARGE as f64;
    println!("left the source {times:.3} times in {:?}", start.elapsed());
    assert!(times < 1.6, "{times}");
}

#[test]
fn one_of_them_is_killed_and_comes_back() {
    let world = World::new();
    let (source, mut all) = fleet(&world, &["a", "b", "c"]);
    let before = source.wire().1;
    let content = put(&world, &source, "two");
    until("it is on its way", || times(&source, before) > 0.3);
    all[1].kill9();
    until("it goes on", || times(&source, before) > 0.5);
    all[1].restart();
    for device in &all {
        until("it is there", || device.share.join("big").exists());
        assert!(fs::read(device.share.join("big")).unwrap() == content);
    }
    let times = times(&source, before);
    println!("left the source {times:.3} times");
    assert!(times < 1.8, "{times}");
    settle(&[&[&source], &all.iter().collect::<Vec<_>>()[..]].concat());
}
