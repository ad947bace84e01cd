//! Damage to what LEFT keeps in the share's folder.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use left_core::chunker::content_id;

use super::bed::{ALL, Bed, Cut, Damage, Flip, Folder, Gone, NoRights, Zero, in_history};
use crate::common::{assert_same, bytes, fill, settle, until, write};

/// Where a text stands in a file.
fn find(path: &Path, text: &[u8]) -> u64 {
    let all = fs::read(path).unwrap();
    let at = all.windows(text.len()).position(|w| w == text);
    at.expect("the text is in the file") as u64
}

fn restore_rights(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// Set aside and made anew; nothing moves, nothing is a conflict.
#[test]
fn index() {
    let mut bed = Bed::new();
    for damage in ALL {
        bed.a.stop();
        let index = bed.inner("index.db");
        // In the record of a file, where only a checksum can tell a flipped bit: its content id.
        // Elsewhere nothing may be read for long.
        let at = matches!(damage, Flip | Zero).then(|| find(&index, &content_id(b"stays 7").0));
        damage.to(&index, at);
        assert_eq!(bed.up(), None);
        if damage == NoRights {
            bed.alarm(&["index.db"]);
            restore_rights(&index);
        }
        settle(&[&bed.a, &bed.b]);
        let text = bed.notices();
        let anew = text.contains("the index was made anew");
        println!("{damage:?}: {text}");
        // One that is not there at all is made without a word; one that may not be read is not made anew.
        assert_eq!(anew, !matches!(damage, Gone | NoRights), "{text}");
        let wire = bed.a.wire();
        assert!(wire.0 + wire.1 < 100_000, "content travelled: {wire:?}");
        bed.goes_on(&format!("{damage:?}"));
    }
}

/// The log holds what was committed last and announced: an index without it may not go on.
#[test]
fn index_log() {
    let mut bed = Bed::new();
    for damage in ALL {
        // Closed and opened anew, so that the log has only these.
        bed.a.stop();
        bed.a.restart();
        for n in 0..10 {
            bed.put(
                &format!("logged/{damage:?} {n}"),
                &format!("{damage:?} {n}"),
            );
            write(
                &bed.b.share.join(format!("logged/{damage:?} of b {n}")),
                "b",
            );
        }
        settle(&[&bed.a, &bed.b]);
        bed.a.kill9();
        let log = bed.inner("index.db-wal");
        damage.to(&log, None);
        // While a was down: as many changes as were lost, so that their numbers are given out again.
        for n in 0..10 {
            bed.put(
                &format!("logged/{damage:?} {n}"),
                &format!("{damage:?} {n} edited"),
            );
        }
        assert_eq!(bed.up(), None);
        if damage == NoRights {
            bed.alarm(&["index.db"]);
            restore_rights(&log);
        }
        settle(&[&bed.a, &bed.b]);
        let text = bed.notices();
        println!("{damage:?}: {text}");
        let anew = text.contains("the index was made anew");
        assert_eq!(anew, damage != NoRights, "{text}");
        for n in 0..10 {
            let path = format!("logged/{damage:?} {n}");
            let edited = format!("{damage:?} {n} edited");
            assert_eq!(fs::read_to_string(bed.b.share.join(path)).unwrap(), edited);
        }
        bed.goes_on(&format!("log {damage:?}"));
    }
}

/// The note of what is on the disk: without it more is looked at, and nothing is torn or told anew.
#[test]
fn durable() {
    let mut bed = Bed::new();
    for damage in ALL {
        bed.a.stop();
        let path = bed.inner("durable");
        damage.to(&path, None);
        assert_eq!(bed.up(), None);
        if matches!(damage, Folder | NoRights) {
            bed.alarm(&["durable"]);
            match damage {
                Folder => fs::remove_dir_all(&path).unwrap(),
                _ => restore_rights(&path),
            }
        }
        settle(&[&bed.a, &bed.b]);
        assert_same(&bed.a.share, &bed.b.share);
        bed.goes_on(&format!("durable {damage:?}"));
    }
}

/// Only a cache.
#[test]
fn manifests() {
    let mut bed = Bed::new();
    for damage in ALL {
        bed.a.stop();
        let path = bed.inner("manifests.db");
        damage.to(&path, None);
        assert_eq!(bed.up(), None);
        settle(&[&bed.a, &bed.b]);
        let name = format!("big {damage:?}");
        fill(&bed.b.share.join(&name), &name, 700_000);
        // What the damaged file told of is asked for.
        fs::copy(
            bed.b.share.join("big"),
            bed.b.share.join(format!("copy of {name}")),
        )
        .unwrap();
        bed.goes_on(&name);
    }
}

/// Nothing is done in a folder whose marker is not as it was, also while it runs.
#[test]
fn marker() {
    let mut bed = Bed::new();
    let path = bed.inner("share.toml");
    let good = fs::read(&path).unwrap();
    for running in [true, false] {
        for damage in ALL {
            println!("{damage:?}, running: {running}");
            if !running {
                bed.a.stop();
            }
            // In the id, and before it where a block is zero.
            damage.to(&path, matches!(damage, Flip).then_some(12));
            // What happens to the files in such a folder means nothing.
            fs::rename(bed.a.share.join("stays"), bed.world.path().join("aside")).unwrap();
            if !running {
                assert_eq!(bed.up(), None);
            }
            bed.alarm(&[]);
            let alarm = bed.a.status()["alarm"].clone();
            println!("    {alarm}");
            assert!(!alarm["todo"].as_str().unwrap().is_empty(), "{alarm}");
            assert!(bed.b.share.join("stays/3").exists());
            // Put back, it goes on by itself.
            fs::rename(bed.world.path().join("aside"), bed.a.share.join("stays")).unwrap();
            if damage == Folder {
                fs::remove_dir_all(&path).unwrap();
            }
            fs::write(&path, &good).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            let a = &bed.a;
            until("the alarm is over", || a.state() != "alarm");
            bed.goes_on(&format!("{damage:?} {running}"));
        }
    }
}

/// What is damaged in the stage is fetched again; the rest of it is used.
#[cfg(debug_assertions)]
#[test]
fn staged() {
    const SIZE: u64 = 12_000_000;
    let mut bed = Bed::new();
    for damage in ALL {
        bed.a.arm("staged-part", 4, false);
        let name = format!("incoming {damage:?}");
        fill(&bed.world.path().join("new"), &name, SIZE);
        fs::rename(bed.world.path().join("new"), bed.b.share.join(&name)).unwrap();
        let a = &mut bed.a;
        until("the receiver dies", || a.ended().is_some());
        bed.a.disarm();
        let stage = fs::read_dir(bed.inner("stage")).unwrap();
        let file = stage
            .flatten()
            .map(|e| e.path())
            .find(|p| p.metadata().unwrap().len() == SIZE)
            .expect("a staged file");
        damage.to(&file, Some(1_000_000));
        assert_eq!(bed.up(), None);
        settle(&[&bed.a, &bed.b]);
        assert!(fs::read(bed.a.share.join(&name)).unwrap() == bytes(&name, 0, SIZE as usize));
        println!("{damage:?}: {:?} on the wire", bed.a.wire());
        assert_eq!(bed.a.status()["problems"], serde_json::json!([]));
    }
}

/// What lies in the history is the user's: LEFT neither reads nor mends it, and damage there
/// reaches nobody.
#[test]
fn history() {
    let mut bed = Bed::new();
    for damage in ALL {
        let name = format!("old {damage:?}");
        write(&bed.b.share.join(&name), format!("first {name}"));
        settle(&[&bed.a, &bed.b]);
        write(&bed.b.share.join(&name), format!("second {name}"));
        settle(&[&bed.a, &bed.b]);
        assert!(in_history(&bed.a, &format!("first {name}")));
        let batches = fs::read_dir(bed.inner("history")).unwrap().flatten();
        let kept = batches
            .map(|e| e.path().join(&name))
            .find(|p| p.exists())
            .unwrap();
        damage.to(&kept, None);
        bed.a.stop();
        assert_eq!(bed.up(), None);
        bed.goes_on(&name);
        assert_same(&bed.a.share, &bed.b.share);
    }
    // The folder as a whole.
    for damage in [Gone, Folder] {
        bed.a.stop();
        let path = bed.inner("history");
        fs::remove_dir_all(&path).unwrap();
        if damage == Folder {
            fs::write(&path, "a file in its place").unwrap();
        }
        assert_eq!(bed.up(), None);
        if damage == Folder {
            bed.alarm(&["history"]);
            fs::remove_file(&path).unwrap();
        }
        settle(&[&bed.a, &bed.b]);
        bed.goes_on(&format!("whole {damage:?}"));
    }
}

#[test]
fn kinds_of_damage_are_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let content = bytes("f", 0, 2000);
    let after = |damage: Damage| {
        fs::write(&path, &content).unwrap();
        damage.to(&path, None);
        fs::read(&path).unwrap()
    };
    assert_eq!(after(Flip)[1000], content[1000] ^ 1);
    assert_eq!(after(Zero)[512..1024], [0; 512]);
    assert_eq!(after(Cut), content[..1000]);
}
