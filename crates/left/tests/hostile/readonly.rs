//! A read-only member's own edits reach nobody, are shown, and can be taken back.

use std::ffi::OsString;
use std::fs;

use crate::common::{Device, World, assert_same, settle, until, write};

fn pair(world: &World) -> (Device, Device) {
    let (mut a, mut b) = (world.device("a"), world.device("b"));
    a.share();
    let args: [OsString; 3] = [
        "ticket".into(),
        a.share.clone().into(),
        "--read-only".into(),
    ];
    let out = a.ok(&args);
    let ticket = out.lines().find(|l| l.starts_with("left1")).unwrap();
    b.join(ticket);
    (a, b)
}

fn edits(of: &Device) -> Vec<String> {
    let status = of.status();
    let list = status["local_edits"].as_array().unwrap();
    assert_eq!(status["local_edit_count"], list.len());
    let mut list: Vec<String> = list.iter().map(|p| p.as_str().unwrap().into()).collect();
    list.sort();
    list
}

/// All bytes that the history of a device keeps.
fn history(of: &Device) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut todo = vec![of.share.join(".left/history")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => todo.push(path),
                false => found.push(fs::read(path).unwrap()),
            }
        }
    }
    found
}

fn edit(a: &Device, b: &Device) {
    for name in ["same", "changed", "deleted", "dir/inner", "moved"] {
        write(&a.share.join(name), format!("{name} of a"));
    }
    settle(&[a, b]);
    assert_eq!(edits(b), Vec::<String>::new());
    write(&b.share.join("changed"), "by b");
    write(&b.share.join("new"), "new of b");
    write(&b.share.join("newdir/sub/file"), "deep of b");
    fs::remove_file(b.share.join("deleted")).unwrap();
    fs::rename(b.share.join("moved"), b.share.join("dir/moved")).unwrap();
    b.wait();
}

const ALL: [&str; 8] = [
    "changed",
    "deleted",
    "dir/moved",
    "moved",
    "new",
    "newdir",
    "newdir/sub",
    "newdir/sub/file",
];

#[test]
fn own_edits_are_shown_and_reach_nobody() {
    let world = World::new();
    let (mut a, mut b) = pair(&world);
    edit(&a, &b);
    until("all edits are seen", || edits(&b) == ALL);
    let text = b.ok(&["status"]);
    assert!(
        text.contains("8 edits here") && text.contains("left revert"),
        "{text}"
    );
    // Neither now, nor after restarts of both.
    for _ in 0..2 {
        a.wait();
        assert_eq!(fs::read(a.share.join("changed")).unwrap(), b"changed of a");
        assert!(a.share.join("deleted").exists() && !a.share.join("new").exists());
        assert_eq!(edits(&b), ALL);
        a.stop();
        b.stop();
        a.restart();
        b.restart();
        b.expect("peer_connected", |_| true);
    }
    // What others change goes on coming, and settles what it touches.
    write(&a.share.join("changed"), "by a once more");
    write(&a.share.join("fresh"), "f");
    until("the share's edit wins", || {
        fs::read(b.share.join("changed")).unwrap() == b"by a once more"
    });
    until("fresh arrives", || b.share.join("fresh").exists());
    assert!(!edits(&b).contains(&"changed".to_owned()));
}

#[test]
fn own_edits_are_taken_back() {
    let world = World::new();
    let (a, b) = pair(&world);
    edit(&a, &b);
    until("all edits are seen", || edits(&b) == ALL);
    let revert = |path: Option<&str>| -> String {
        let mut args: Vec<OsString> = vec!["revert".into(), b.share.clone().into()];
        args.extend(path.map(Into::into));
        b.ok(&args)
    };
    // One path first.
    assert!(revert(Some("changed")).contains("1 edit "));
    until("it is taken back", || {
        fs::read(b.share.join("changed")).unwrap() == b"changed of a"
    });
    until("it is no edit any more", || edits(&b) == ALL[1..]);
    b.wait();
    assert!(history(&b).contains(&b"by b".to_vec()));
    assert!(revert(Some("newdir/sub")).contains("2 edits"));
    until("they are gone", || !b.share.join("newdir/sub").exists());
    until("a peer is back", || b.state() != "offline");
    b.wait();
    assert!(revert(None).contains("5 edits"));
    until("all is as in the share", || edits(&b).is_empty());
    settle(&[&a, &b]);
    assert_same(&a.share, &b.share);
    assert!(history(&b).contains(&b"deep of b".to_vec()));
    assert!(history(&b).contains(&b"new of b".to_vec()));
    assert!(revert(None).contains("nothing to take back"));
    // And it goes on receiving.
    write(&a.share.join("changed"), "later");
    write(&a.share.join("new"), "of a now");
    settle(&[&a, &b]);
    assert_same(&a.share, &b.share);

    // Who may write has nothing to take back.
    let out = a.run(&["revert".as_ref(), a.share.as_os_str()]);
    let why = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && why.contains("may write"), "{why}");
}
