//! What a system refuses: reading, writing, room, watches.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::common::{
    Device, Image, Node, World, assert_same, fill, settle, snapshot, until, write,
};
use crate::damage::Bed;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Nothing that cannot be seen for lack of permission is taken for deleted.
#[test]
fn a_share_that_cannot_be_read() {
    let mut bed = Bed::new();
    let before = snapshot(&bed.b.share);
    let history = bed.b.share.join(".left/history");
    // A file that was seen before its bytes were written left an empty one there.
    let kept_before = snapshot(&history);
    let holds_bytes = |node: &Node| matches!(node, Node::File { size: 1.., .. });
    assert!(!kept_before.values().any(holds_bytes), "{kept_before:?}");
    for (name, running) in [("", true), ("", false), ("stays", false)] {
        let path = bed.a.share.join(name);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        if !running {
            bed.a.stop();
        }
        set_mode(&path, 0o000);
        if !running {
            assert_eq!(bed.up(), None);
        }
        let a = &bed.a;
        until("it is said", || {
            let status = a.status();
            let said = status["alarm"].to_string() + &status["problems"].to_string();
            said.contains("ermission")
        });
        println!(
            "{name} {running}: {} {}",
            a.status()["alarm"],
            a.status()["problems"]
        );
        // Not even a look at everything finds a deletion.
        let _ = bed.b.run(&["wait", "--timeout", "1s"]);
        set_mode(&path, mode & 0o7777);
        settle(&[&bed.a, &bed.b]);
        assert!(snapshot(&bed.b.share) == before, "something was deleted");
        let kept = snapshot(&history);
        assert!(
            kept == kept_before,
            "replaced or deleted: {:?}",
            kept.keys()
        );
    }
    bed.goes_on("readable again");
}

#[test]
fn a_folder_that_cannot_be_shared() {
    let bed = Bed::new();
    let dir = bed.a.share.with_file_name("unreadable");
    fs::create_dir(&dir).unwrap();
    set_mode(&dir, 0o000);
    let out = bed.a.run(&["share".as_ref(), dir.as_os_str()]);
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success());
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.contains("unreadable") && text.contains("permission"),
        "{text}"
    );
}

/// A disk that becomes read-only under a running left: what ext4 does when it meets an error.
#[test]
fn a_disk_that_cannot_be_written() {
    let world = World::new();
    let (mut a, mut b) = (world.device("a"), world.device("b"));
    let Some(image) = Image::mount(&world.path().join("image"), 64) else {
        eprintln!("skipped: no file system can be mounted here");
        return;
    };
    b.share = image.path().join("share");
    fs::create_dir(&b.share).unwrap();
    write(&a.share.join("first"), "f");
    let ticket = a.share();
    b.join(&ticket);
    settle(&[&a, &b]);
    image.become_read_only();
    write(&a.share.join("then"), "t");
    fs::remove_file(a.share.join("first")).unwrap();
    let says = |b: &Device| b.status().to_string().contains("read-only");
    until("it is said while it runs", || says(&b));
    println!("{}", b.status());
    b.kill9();
    b.start(&["up"]);
    until("it is said after a start", || says(&b));
    println!("{}", b.status());
    assert!(b.share.join("first").exists());
    assert!(!b.share.join("then").exists());
    b.kill9();
    image.below(|_| ());
    b.restart();
    settle(&[&a, &b]);
    assert!(!says(&b), "{}", b.status());
    b.stop();
}

/// Not a byte is left, also not for the index; and then there is room again.
#[test]
fn a_disk_filled_to_the_last_byte() {
    let world = World::new();
    let (mut a, mut b) = (world.device("a"), world.device("b"));
    let Some(image) = Image::mount(&world.path().join("image"), 64) else {
        eprintln!("skipped: no file system can be mounted here");
        return;
    };
    b.share = image.path().join("share");
    fs::create_dir(&b.share).unwrap();
    write(&b.share.join(".leftignore"), "in the way\n");
    for n in 0..10 {
        write(&a.share.join(format!("old/{n}")), format!("old {n}"));
    }
    let ticket = a.share();
    b.join(&ticket);
    settle(&[&a, &b]);
    fill_up(&b.share.join("in the way"));
    fill(&a.share.join("big"), "big", 9_000_000);
    for n in 0..300 {
        write(&a.share.join(format!("new/{n}")), format!("new {n}"));
    }
    write(&a.share.join("old/3"), "replaced");
    fs::remove_file(a.share.join("old/4")).unwrap();
    until("it is said", || is_said(&b));
    assert!(!b.share.join("big").exists());
    // The program is killed and started without room, too.
    b.kill9();
    b.start(&["up"]);
    until("it is said after a start", || {
        is_said(&b) || b.state() == "alarm"
    });
    println!("{}", b.status());
    fs::remove_file(b.share.join("in the way")).unwrap();
    settle(&[&a, &b]);
    assert_same(&a.share, &b.share);
    until("nothing is said of it any more", || {
        !b.status().to_string().contains("room")
    });
    b.stop();
}

/// Whether a device says that it lacks room.
fn is_said(device: &Device) -> bool {
    device.status().to_string().contains("room")
}

fn fill_up(path: &Path) {
    use std::io::Write;
    let mut file = File::create(path).unwrap();
    for size in [1 << 20, 4096, 512] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
}

/// Without watches the share is looked through now and then, and whenever somebody waits.
#[test]
fn no_more_watches() {
    let world = World::new();
    let limit = "echo 5 > /proc/sys/user/max_inotify_watches && exec \"$@\"";
    let wrap = ["unshare", "-U", "-r", "sh", "-c", limit, "sh"];
    let mut try_it = Command::new(wrap[0]);
    if !try_it
        .args(&wrap[1..])
        .arg("true")
        .status()
        .is_ok_and(|s| s.success())
    {
        eprintln!("skipped: the limit cannot be set here");
        return;
    }
    let (mut a, mut b) = (world.device("a"), world.device("b"));
    for n in 0..20 {
        write(&a.share.join(format!("d{n}/f")), format!("{n}"));
    }
    a.how.wrap = wrap.map(str::to_owned).to_vec();
    let ticket = a.share();
    // Only the running left is limited.
    a.how.wrap.clear();
    b.join(&ticket);
    settle(&[&a, &b]);
    let said = |a: &Device| a.status()["notices"].to_string();
    until("it is said", || said(&a).contains("max_user_watches"));
    write(&a.share.join("d17/f"), "edited where nobody watches");
    fs::remove_file(a.share.join("d18/f")).unwrap();
    settle(&[&a, &b]);
    assert!(!b.share.join("d18/f").exists());
}
