//! Several receivers of one big file. What is judged is what leaves its source, not how long it takes.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;

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
        let linked = |p: &Value| p["connected"] == true;
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

/// Two receivers that serve each other parts of a file which is on its way, slowly.
fn both_give(world: &World) -> (Device, [Device; 2], Vec<u8>) {
    let (source, all) = fleet(world, &["a", "b"]);
    let all: [Device; 2] = all.try_into().ok().unwrap();
    limit(&source, "6MB");
    let content = put(world, &source, "still");
    until("both give", || all.iter().all(|d| d.wire().1 > 1 << 20));
    (source, all, content)
}

fn limit(source: &Device, up: &str) {
    let words = ["limit".as_ref(), source.share.as_os_str()];
    source.ok(&[&words[..], &["--up".as_ref(), up.as_ref()]].concat());
}

fn say(device: &Device, command: &str, more: &[&str]) {
    let share = device.share.to_str().unwrap();
    device.ok(&[&[command, share], more].concat());
}

fn arrives(device: &Device, content: &[u8]) {
    until("it is there", || device.share.join("big").exists());
    assert!(fs::read(device.share.join("big")).unwrap() == content);
}

fn peer_of(device: &Device, name: &str) -> Value {
    let status = device.status();
    let peers = status["peers"].as_array().unwrap();
    peers.iter().find(|p| p["name"] == name).unwrap().clone()
}

/// Blocks on disk of what has come.
fn staged(device: &Device) -> u64 {
    let stage = fs::read_dir(device.share.join(".left/stage")).unwrap();
    stage.map(|e| e.unwrap().metadata().unwrap().blocks()).sum()
}

#[test]
fn one_that_is_paused_gets_and_gives_nothing_more() {
    let world = World::new();
    let (source, [a, b], content) = both_give(&world);
    until("half is there", || a.wire().0 > SIZE as u64 / 2);
    say(&a, "pause", &[]);
    let alone = |d: &Device, peer: &str| !peer_of(d, peer)["connected"].as_bool().unwrap();
    until("all let go", || {
        alone(&a, "source") && alone(&a, "b") && alone(&b, "a") && alone(&source, "a")
    });
    let still = staged(&a);
    limit(&source, "unlimited");
    arrives(&b, &content);
    assert!(alone(&a, "source") && alone(&b, "a"), "it was paused");
    assert_eq!(staged(&a), still, "it was paused");
    assert!(!a.share.join("big").exists());
    say(&a, "resume", &[]);
    arrives(&a, &content);
    // What it had when it was paused does not come twice.
    let came = a.wire().0;
    println!("{came} of {SIZE} came in all");
    assert!(came < SIZE as u64 * 5 / 4, "{came}");
    settle(&[&source, &a, &b]);
}

#[test]
fn two_that_do_not_speak_to_each_other_any_more() {
    let world = World::new();
    let (source, [a, b], content) = both_give(&world);
    say(&a, "pause", &["--peer", "b"]);
    limit(&source, "unlimited");
    for (device, other) in [(&a, "b"), (&b, "a")] {
        arrives(device, &content);
        assert!(!peer_of(device, other)["connected"].as_bool().unwrap());
    }
    say(&a, "resume", &["--peer", "b"]);
    settle(&[&source, &a, &b]);
}

#[test]
fn one_that_does_not_want_it_any_more() {
    let world = World::new();
    let (source, [a, b], content) = both_give(&world);
    say(&a, "choose", &["--remove", "big"]);
    limit(&source, "unlimited");
    arrives(&b, &content);
    [&source, &a, &b].into_iter().for_each(Device::wait);
    assert!(!a.share.join("big").exists());
    let came = a.wire().0;
    println!("{came} of {SIZE} came");
    assert!(came < SIZE as u64 * 3 / 4, "{came}");
    say(&a, "choose", &["--all"]);
    arrives(&a, &content);
    settle(&[&source, &a, &b]);
}
