//! Bytes that are here under another name do not travel, and what did not change takes no room twice.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{World, bytes, fill, overwrite, settle};

/// A copy of a file with one place overwritten and some bytes put in before it.
fn edited_copy(from: &Path, to: &Path, seed: &str) {
    let mut content = fs::read(from).unwrap();
    let middle = content.len() / 2;
    content[middle..middle + 1000].copy_from_slice(&bytes(seed, 0, 1000));
    content.splice(middle / 3..middle / 3, bytes(seed, 5000, 100));
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::write(to, content).unwrap();
}

#[test]
fn a_copied_folder_of_edited_files_sends_its_edits() {
    let world = World::new();
    let (a, b) = world.pair();
    let sizes = [300_000, 700_000, 3_000_000, 9_000_000, 20_000_000];
    for (n, size) in sizes.iter().enumerate() {
        fill(&a.share.join(format!("one/{n}")), &format!("{n}"), *size);
    }
    settle(&[&a, &b]);
    let (before, _) = b.wire();
    let aside = world.path().join("copy");
    for n in 0..sizes.len() {
        let name = n.to_string();
        edited_copy(&a.share.join("one").join(&name), &aside.join(&name), &name);
    }
    fs::rename(&aside, a.share.join("two")).unwrap();
    settle(&[&a, &b]);
    let (after, _) = b.wire();
    let (sent, all) = (after - before, sizes.iter().sum::<u64>());
    println!("a copied folder with edits: {sent} of {all} bytes");
    assert!(sent < all / 20, "{sent} of {all}");
}

#[test]
fn a_file_that_was_moved_and_edited_sends_its_edit() {
    let world = World::new();
    let (a, b) = world.pair();
    fill(&a.share.join("x/before"), "moved", 12_000_000);
    settle(&[&a, &b]);
    let (before, _) = b.wire();
    let aside = world.path().join("after");
    edited_copy(&a.share.join("x/before"), &aside, "edit");
    fs::remove_file(a.share.join("x/before")).unwrap();
    fs::rename(&aside, a.share.join("after")).unwrap();
    settle(&[&a, &b]);
    let (after, _) = b.wire();
    println!("moved and edited: {} bytes", after - before);
    assert!(after - before < 1_000_000, "{}", after - before);
}

/// On a link that is held back text travels compressed, and random bytes as they are.
#[test]
fn a_slow_link_gets_compressed_bytes() {
    let world = World::new();
    let (a, b) = world.pair();
    settle(&[&a, &b]);
    let limit = ["limit".as_ref(), b.share.as_os_str()];
    b.ok(&[&limit[..], &["--down".as_ref(), "4MB".as_ref()]].concat());
    let line = |n: u32| format!("{n}: the {} of {}\n", n.wrapping_mul(77) % 1009, n / 7);
    let text: String = (0..700_000).map(line).collect();
    let aside = world.path().join("text");
    fs::write(&aside, &text).unwrap();
    fs::rename(&aside, a.share.join("text")).unwrap();
    settle(&[&a, &b]);
    let (sent, _) = b.wire();
    println!("{} bytes of text: {sent} on the wire", text.len());
    assert!(sent < text.len() as u64 * 2 / 3, "{sent} of {}", text.len());
    fill(&a.share.join("noise"), "noise", 2_000_000);
    settle(&[&a, &b]);
    let (more, _) = b.wire();
    assert!(more - sent > 2_000_000);
}

/// A file system in a file, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(dir: &Path, make: &str) -> Option<Self> {
        let (image, at) = (dir.join("image"), dir.join("disk"));
        fs::create_dir_all(&at).unwrap();
        File::create(&image).unwrap().set_len(400 << 20).unwrap();
        let run = |command: &mut Command| command.output().is_ok_and(|o| o.status.success());
        run(Command::new(make).arg("-q").arg(&image)).then_some(())?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(&at))
        .then_some(())?;
        Some(Self(at))
    }

    fn used(&self) -> u64 {
        let dir = File::open(&self.0).unwrap();
        rustix::fs::syncfs(&dir).unwrap();
        let stat = rustix::fs::fstatvfs(&dir).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Best effort: a mount that stays is of no harm to other tests.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The new version shares with the old one, which is in history, all that did not change.
#[test]
fn an_edit_takes_only_its_own_room_where_blocks_can_be_shared() {
    const SIZE: u64 = 60_000_000;
    for make in ["mkfs.btrfs", "mkfs.xfs"] {
        let world = World::new();
        let (mut a, mut b) = (world.device("a"), world.device("b"));
        let Some(disk) = Mounted::new(&world.path().join("fs"), make) else {
            eprintln!("skipped: {make} can not be used here");
            continue;
        };
        b.share = disk.0.join("share");
        fs::create_dir(&b.share).unwrap();
        let ticket = a.share();
        b.join(&ticket);
        fill(&a.share.join("f"), "shared", SIZE);
        settle(&[&a, &b]);
        let before = disk.used();
        overwrite(
            &a.share.join("f"),
            "edit",
            [(1_000_000, 500_000), (41_000_000, 70_000)],
        );
        settle(&[&a, &b]);
        let more = disk.used().saturating_sub(before);
        println!("{make}: an edit of 570 kB took {more} bytes");
        assert!(more < SIZE / 4, "{make}: {more}");
        drop(b);
    }
}
