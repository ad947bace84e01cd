//! Damage to what a device keeps in its home.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::bed::{ALL, Bed, Cut, Damage, Flip, Folder, Gone, NoRights, Zero, own};
use crate::common::snapshot;

/// Damages a file while `a` does not run; what `left up` says; then the file is put back and all goes on.
fn cell(bed: &mut Bed, path: &Path, damage: Damage, at: Option<u64>) -> Option<String> {
    let good = fs::read(path).unwrap();
    let before = snapshot(&bed.a.share);
    let ours = bed.a.run(&["id"]).stdout;
    bed.a.stop();
    damage.to(path, at);
    let said = bed.up();
    println!("{damage:?}: {said:?}");
    match &said {
        Some(text) => {
            // One line, which names the file and says what to do.
            let line = text.lines().last().unwrap();
            assert!(line.starts_with("left: ") && line.contains("; "), "{line}");
            let name = path.file_name().unwrap().to_string_lossy();
            assert!(line.contains(&*name), "{line}");
        }
        None => bed.a.stop(),
    }
    assert!(snapshot(&bed.a.share) == before, "something was done");
    if damage == Folder {
        fs::remove_dir_all(path).unwrap();
    }
    fs::write(path, &good).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    own(path, bed.uid());
    assert_eq!(bed.up(), None);
    assert_eq!(bed.a.run(&["id"]).stdout, ours);
    bed.goes_on(&format!("{damage:?}"));
    said
}

#[test]
fn config() {
    let mut bed = Bed::new();
    let path = bed.a.home.join("config.toml");
    fs::write(&path, "# settings\nname = \"a machine\"\nadvertise = []\n").unwrap();
    own(&path, bed.uid());
    for damage in ALL {
        // The `=` of the name becomes `<`; half of the file ends within the text.
        let said = cell(&mut bed, &path, damage, (damage == Flip).then_some(16));
        // A file that is not there means defaults.
        assert_eq!(said.is_some(), damage != Gone, "{said:?}");
    }
}

/// A damaged key is never replaced: that would be another device.
#[test]
fn key() {
    let mut bed = Bed::new();
    let path = bed.a.home.join("device.key");
    let good = fs::read(&path).unwrap();
    for damage in [Flip, Zero, Cut, Folder, NoRights] {
        let said = cell(&mut bed, &path, damage, None);
        assert!(said.is_some());
        assert_eq!(fs::read(&path).unwrap(), good);
    }
    // Without its key the machine is another device, which no member admits; its folder stays as it is.
    bed.a.stop();
    Gone.to(&path, None);
    assert_eq!(bed.up(), None);
    let event = bed.b.expect("refused", |_| true);
    assert!(
        event["why"].as_str().unwrap().contains("no member"),
        "{event}"
    );
    bed.a.stop();
    fs::write(&path, &good).unwrap();
    own(&path, bed.uid());
    assert_eq!(bed.up(), None);
    bed.goes_on("key");
}

/// Whatever single bit of the key is flipped, it is no key any more.
#[test]
fn every_bit_of_the_key() {
    let bed = Bed::new();
    let good = fs::read(bed.a.home.join("device.key")).unwrap();
    let key = |bytes: &[u8]| left::net::DeviceKey::from_pkcs8(bytes).map(|k| k.id());
    let ours = key(&good).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        match key(&bad) {
            Err(_) => {}
            Ok(id) => assert_eq!(id, ours, "bit {bit} makes another device"),
        }
    }
}

/// What the device knows of a share: its folder and its members.
#[test]
fn record() {
    let mut bed = Bed::new();
    let path = the_record(&bed);
    let text = fs::read_to_string(&path).unwrap();
    for damage in ALL {
        // The `=` after the id.
        let at = text.find('=').unwrap() as u64;
        let said = cell(&mut bed, &path, damage, (damage == Flip).then_some(at));
        // Without its record the share is none of this device; its folder and marker are still there.
        assert_eq!(said.is_some(), damage != Gone, "{said:?}");
    }
}

fn the_record(bed: &Bed) -> PathBuf {
    let shares = fs::read_dir(bed.a.home.join("shares")).unwrap().flatten();
    let mut files = shares.map(|e| e.path());
    files
        .find(|p| p.extension().is_some_and(|e| e == "toml"))
        .unwrap()
}
