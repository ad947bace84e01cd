//! Damage to a user's file in the share.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};

use super::bed::{Bed, Cut, Folder, Gone, NoRights, copies, flip, in_history};
use crate::common::{Device, Image, World, bytes, fill, settle, snapshot, until, write};

/// What shows in size, times or kind looks like an edit of the user's, and is told like one: what was
/// there before is in the history of the others.
#[test]
fn visible() {
    let mut bed = Bed::new();
    for damage in [Cut, Gone, Folder, NoRights] {
        let name = format!("file {damage:?}");
        let text = format!("the text of {name}");
        bed.put(&name, &text);
        settle(&[&bed.a, &bed.b]);
        let (here, there) = (bed.a.share.join(&name), bed.b.share.join(&name));
        damage.to(&here, None);
        if damage == NoRights {
            let a = &bed.a;
            until("it is said", || {
                a.status()["problems"].to_string().contains(&name)
            });
            // Neither its mode nor anything else of it goes anywhere.
            bed.b.wait();
            assert_eq!(fs::read_to_string(&there).unwrap(), text);
            // Also after a restart.
            bed.a.stop();
            assert_eq!(bed.up(), None);
            let a = &bed.a;
            until("it is said again", || {
                a.status()["problems"].to_string().contains(&name)
            });
            fs::set_permissions(&here, Permissions::from_mode(0o644)).unwrap();
            until("it is solved", || {
                !a.status()["problems"].to_string().contains(&name)
            });
        }
        settle(&[&bed.a, &bed.b]);
        match damage {
            Cut => assert_eq!(fs::read(&there).unwrap(), text.as_bytes()[..text.len() / 2]),
            Gone => assert!(!there.exists()),
            Folder => assert!(there.join("something").exists()),
            _ => assert_eq!(fs::read_to_string(&there).unwrap(), text),
        }
        assert_eq!(in_history(&bed.b, &text), damage != NoRights);
        bed.goes_on(&name);
    }
}

/// Where some bytes lie in the image of a disk.
fn find(image: &File, needle: &[u8]) -> u64 {
    let mut all = vec![0; 4 << 20];
    let len = image.metadata().unwrap().len();
    let mut from = 0;
    while from < len {
        let n = image.read_at(&mut all, from).unwrap();
        if let Some(at) = all[..n].windows(needle.len()).position(|w| w == needle) {
            return from + at as u64;
        }
        from += (n - needle.len()) as u64;
    }
    panic!("the file is not in the image");
}

const FILES: [(&str, usize); 2] = [("small", 5000), ("deep/big", 3_000_000)];

/// The bytes change below the file system, as when a disk forgets: size, times and inode are as they
/// were. Whoever asks for such a file never takes it in; `verify` finds it and heals it from a peer.
#[test]
fn silent() {
    let world = World::new();
    let (mut a, mut b, mut c) = (world.device("a"), world.device("b"), world.device("c"));
    let Some(image) = Image::mount(&world.path().join("image"), 64) else {
        eprintln!("skipped: no file system can be mounted here");
        return;
    };
    a.share = image.path().join("share");
    fs::create_dir(&a.share).unwrap();
    let ticket = a.share();
    b.join(&ticket);
    for (name, size) in FILES {
        fill(&a.share.join(name), name, size as u64);
    }
    for n in 0..10 {
        write(&a.share.join(format!("stays/{n}")), format!("{n}"));
    }
    settle(&[&a, &b]);
    let before = snapshot(&b.share);
    // What was not on the disk yet would be looked at after the mount, as after a cut of the power.
    let written = std::time::SystemTime::now();
    until("a has synced its disk since", || {
        let note = fs::metadata(a.share.join(".left/durable")).unwrap();
        note.modified().unwrap() > written + std::time::Duration::from_secs(3)
    });
    a.stop();
    b.stop();
    image.below(|disk| {
        for (n, (name, size)) in FILES.into_iter().enumerate() {
            let at = find(disk, &bytes(name, size as u64 / 4096 * 4096 - 4096, 512));
            match n {
                0 => flip(disk, at + 100),
                _ => disk.write_all_at(&[0; 512], at).unwrap(),
            }
        }
    });
    // Nothing shows that they changed.
    a.restart();
    let out = a.ok(&["ticket".as_ref(), a.share.as_os_str(), "--json".as_ref()]);
    let ticket: serde_json::Value = serde_json::from_str(&out).unwrap();
    c.join(ticket["ticket"].as_str().unwrap());
    until("c has what is sound", || c.share.join("stays/9").exists());
    until("c says that it gets wrong bytes", || {
        let status = c.status();
        status["problems"]
            .as_array()
            .is_some_and(|p| p.len() == FILES.len())
    });
    spread(&c);
    b.restart();
    settle(&[&b, &c]);
    assert!(snapshot(&c.share) == before, "c has not what b has");

    let out = a.run(&["verify", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    println!("{report}");
    for what in ["damaged", "healed"] {
        assert_eq!(
            report[what].as_array().unwrap().len(),
            FILES.len(),
            "{report}"
        );
    }
    assert!(out.status.success());
    settle(&[&a, &b, &c]);
    for device in [&a, &b, &c] {
        assert!(snapshot(&device.share) == before, "{}", device.name);
        assert!(copies(&device.share).is_empty());
    }
    a.stop();
}

/// Nothing of the damaged files is there, in whatever form.
fn spread(device: &Device) {
    for (name, _) in FILES {
        assert!(!device.share.join(name).exists(), "{name} has spread");
    }
    assert!(copies(&device.share).is_empty());
}
