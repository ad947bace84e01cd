//! Lies on data lanes, and links and folders that are to lead a write out of the share.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use left::transfer::frame::{FrameKind, Header, MAX_PAYLOAD};
use left_core::chunker::content_id;
use left_core::content::{ContentId, MAX_FILE_SIZE};
use left_core::entry::{Entry, Mtime, Node};
use left_core::message::{Control, Want, What};
use left_core::path::RelPath;

use crate::common::{until, write};
use crate::liar::{Liar, Raw, index};
use crate::scene::Scene;

/// A frame that answers a Want's first item and ends the answer.
fn frame(want: &Want, kind: FrameKind, raw: usize, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        want: want.id,
        kind,
        zstd: raw != payload.len(),
        last: true,
        count: 0,
        item: 0,
        raw: raw as u32,
        wire: payload.len() as u32,
    };
    [&header.encode()[..], payload].concat()
}

/// Small contents, told by their ids, each in a frame.
fn whole(want: &Want, contents: &[(ContentId, Vec<u8>)]) -> Vec<u8> {
    let What::Whole(ids) = &want.what else {
        panic!("small contents are asked for whole: {want:?}");
    };
    let mut out = Vec::new();
    for (item, id) in ids.iter().enumerate() {
        let bytes = contents.iter().find(|(c, _)| c == id).map(|(_, b)| b);
        let bytes = bytes.expect("only what was announced is asked for");
        let header = Header {
            want: want.id,
            kind: FrameKind::Data,
            zstd: false,
            last: item + 1 == ids.len(),
            count: 0,
            item: item as u32,
            raw: bytes.len() as u32,
            wire: bytes.len() as u32,
        };
        out.extend(header.encode());
        out.extend(bytes);
    }
    out
}

/// What becomes of one file when its only holder answers so. `size` as announced.
fn lie(scene: &Scene, liar: &Liar, size: u64, answer: impl Fn(&Want) -> Vec<u8>) {
    let (mut control, session) = liar.control();
    let mut lane = liar.data(session, true, false).unwrap();
    control.control(&index(vec![liar.file("lie", size, [9; 32], 1)], 1));
    // It may be asked once more, and may have closed the lane before it read all of an answer.
    for _ in 0..2 {
        let Some(want) = lane.want() else { break };
        if !lane.try_send(&answer(&want)) {
            break;
        }
    }
    assert!(!scene.a.share.join("lie").exists());
}

#[test]
fn contents_are_what_they_are_called_or_nothing() {
    let mut scene = Scene::new();
    let (liar, _) = Liar::joined(&scene.ticket(&[]));
    let before = scene.memory();

    // Wrong bytes, of the right length.
    lie(&scene, &liar, 10, |w| {
        frame(w, FrameKind::Data, 10, &[1; 10])
    });
    scene.logged("a peer sent wrong bytes");
    // Other lengths, other kinds, another question's answer, a frame too long for any.
    lie(&scene, &liar, 10, |w| {
        frame(w, FrameKind::Data, 11, &[1; 11])
    });
    scene.logged("an answer of another length");
    lie(&scene, &liar, 10, |w| {
        frame(w, FrameKind::Refs, 10, &[1; 10])
    });
    scene.logged("an answer of another kind");
    lie(&scene, &liar, 10, |w| {
        let mut bytes = frame(w, FrameKind::Data, 10, &[1; 10]);
        bytes[0] ^= 0x80;
        bytes
    });
    lie(&scene, &liar, 10, |w| {
        let mut bytes = frame(w, FrameKind::Data, 10, &[1; 10]);
        bytes[12..16].copy_from_slice(&(MAX_PAYLOAD as u32 + 1).to_be_bytes());
        bytes[16..20].copy_from_slice(&(MAX_PAYLOAD as u32 + 1).to_be_bytes());
        bytes
    });
    // A bomb: a gigabyte in a few bytes, said to be as long as asked for.
    let bomb = zstd::bulk::compress(&vec![0; 256 << 20], 1).unwrap();
    let bomb = &bomb[..bomb.len().min(99_000)];
    lie(&scene, &liar, 100_000, |w| {
        frame(w, FrameKind::Data, 100_000, bomb)
    });
    scene.logged("zstd payload");

    // A list of segments that does not make the content; a file as long as any may be.
    let segments = |w: &Want, len: u64, count: u64| {
        let mut payload = Vec::new();
        for n in 0..count {
            payload.extend(len.to_be_bytes());
            payload.extend([(n % 255) as u8 + 1; 32]);
        }
        let mut bytes = frame(w, FrameKind::Refs, payload.len(), &payload);
        bytes[6..8].copy_from_slice(&(count as u16).to_be_bytes());
        bytes
    };
    lie(&scene, &liar, 10 << 20, |w| segments(w, 1 << 20, 10));
    lie(&scene, &liar, MAX_FILE_SIZE, |w| {
        segments(w, 4 << 20, 16_384)
    });
    lie(&scene, &liar, MAX_FILE_SIZE, |w| segments(w, 1 << 40, 64));
    lie(&scene, &liar, 10 << 20, |w| {
        frame(w, FrameKind::Gone, 0, &[])
    });
    let log = scene.a.log();
    assert!(log.matches("a peer sent wrong bytes").count() >= 2, "{log}");
    assert!(log.contains("data lane closed: the peer broke the protocol"));
    let grown = scene.memory().saturating_sub(before);
    assert!(grown < 96 * 1024, "{grown} KiB more");
    scene.undisturbed();
}

#[test]
fn one_who_does_not_answer_or_read_holds_nobody_up() {
    let mut scene = Scene::new();
    write(&scene.a.share.join("big"), vec![7; 64 << 20]);
    until("b has it", || scene.b.share.join("big").exists());
    let (liar, _) = Liar::joined(&scene.ticket(&[]));
    let before = scene.memory();
    let (mut control, session) = liar.control();
    let big = control.until(|m| matches!(m, Control::Index(b) if !b.entries.is_empty()));
    let Some(Control::Index(batch)) = big else {
        panic!("no index");
    };
    let of = |name: &str| -> ContentId {
        let mut all = batch.entries.iter();
        let (_, entry) = all.find(|(p, _)| p.as_bytes() == name.as_bytes()).unwrap();
        entry.node.content().unwrap()
    };
    // Asks for much and reads nothing.
    let mut greedy = liar.data(session, false, false).unwrap();
    for id in 0..100 {
        let content = of("big");
        let segments = (0..64).collect();
        let want = Want {
            id,
            what: What::Segments { content, segments },
            rate: 0,
        };
        let bytes = crate::liar::framed(&want.encode());
        if !greedy.offer(&bytes) {
            break;
        }
    }
    // Announces much and serves nothing.
    let lanes = liar.serving(session);
    let files = (0..200).map(|n| liar.file(&format!("never {n}"), 1000, [n as u8; 32], 1));
    control.control(&index(files.collect(), 1));
    scene.undisturbed();
    let grown = scene.memory().saturating_sub(before);
    assert!(grown < 96 * 1024, "{grown} KiB more");
    // Begins a message of nearly a mebibyte and says no more.
    control.send(&[0, 0x0f, 0, 0, 0x12]);
    scene.undisturbed();
    drop((greedy, lanes));
}

#[test]
fn only_contents_of_the_share_are_served() {
    let mut scene = Scene::new();
    // The same left has another share.
    let other = scene.world.path().join("other");
    write(&other.join("secret"), "of another share");
    scene.a.ok(&["share".as_ref(), other.as_os_str()]);
    let secret = content_id(b"of another share");
    let marker = content_id(&fs::read(scene.a.share.join(".left/share.toml")).unwrap());
    let (liar, _) = Liar::joined(&scene.ticket(&[]));
    let (_control, session) = liar.control();
    let there = content_id(b"before the liar came");
    let kinds = |contents: Vec<ContentId>| {
        let mut lane = liar.data(session, false, false).unwrap();
        let count = contents.len();
        let want = Want {
            id: 1,
            what: What::Whole(contents),
            rate: 0,
        };
        lane.send(&crate::liar::framed(&want.encode()));
        let mut kinds = Vec::new();
        for _ in 0..count {
            let header = Header::decode(&lane.read(24).unwrap().try_into().unwrap()).unwrap();
            lane.read(header.wire as usize).unwrap();
            kinds.push(header.kind);
        }
        kinds
    };
    assert_eq!(
        kinds(vec![there, secret, marker, ContentId([3; 32])]),
        [
            FrameKind::Data,
            FrameKind::Gone,
            FrameKind::Gone,
            FrameKind::Gone
        ]
    );
    // Requests that make no sense end the lane with a reason.
    for bytes in [
        &[0, 0, 0, 0][..],
        &[0, 4, 0, 1],
        &[0, 0, 0, 3, 0xff, 0xff, 0xff],
    ] {
        let mut lane = liar.data(session, false, false).unwrap();
        lane.send(bytes);
        while lane.read(1).is_some() {}
    }
    scene.logged("the peer sent a bad request");
    scene.undisturbed();
}

/// Announces these and serves them until `done`.
fn offer(liar: &Liar, files: Vec<(&str, Node, Vec<u8>)>, done: impl Fn() -> bool) {
    let (mut control, session) = liar.control();
    let mut lane = liar.data(session, true, false).unwrap();
    let mut entries: Vec<(RelPath, Entry)> = Vec::new();
    let mut contents = Vec::new();
    for (name, node, bytes) in files {
        contents.push((content_id(&bytes), bytes));
        entries.push(liar.entry(name, node, 1_900_000_000_000));
    }
    control.control(&index(entries, 1));
    let serving = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            while let Some(want) = lane.want() {
                if !lane.try_send(&whole(&want, &contents)) {
                    break;
                }
            }
            serving.store(false, Ordering::Relaxed);
        });
        until("it is done", &done);
        // Ends its data lanes too.
        drop::<Raw<'_>>(control);
    });
    assert!(!serving.load(Ordering::Relaxed));
}

fn file(bytes: &[u8]) -> Node {
    Node::File {
        mode: 0o644,
        mtime: Mtime {
            secs: 1_700_000_000,
            nanos: 0,
        },
        size: bytes.len() as u64,
        content: content_id(bytes),
    }
}

fn link(to: &Path) -> Node {
    Node::Symlink {
        mtime: Mtime {
            secs: 1_700_000_000,
            nanos: 0,
        },
        target: to.as_os_str().as_bytes().to_vec(),
    }
}

#[test]
fn no_link_leads_a_write_out() {
    let mut scene = Scene::new();
    let outside = scene.world.path().join("outside");
    fs::create_dir(&outside).unwrap();
    write(&outside.join("mine"), "not the share's");
    let (liar, _) = Liar::joined(&scene.ticket(&[]));
    let evil = b"evil".to_vec();
    // A link that it makes itself, and files below it; a link in place of a file that is there.
    offer(
        &liar,
        vec![
            ("out", link(&outside), Vec::new()),
            ("out/evil", file(&evil), evil.clone()),
            ("out/mine", file(&evil), evil.clone()),
            ("through", link(&outside.join("mine")), Vec::new()),
            ("last", file(&evil), evil.clone()),
        ],
        || scene.a.share.join("last").exists() && scene.a.share.join("through").is_symlink(),
    );
    // Then bytes for the link's own name: they replace the link, not what it points to.
    offer(
        &liar,
        vec![
            ("through", file(b"bytes"), b"bytes".to_vec()),
            ("after", file(&evil), evil.clone()),
        ],
        || scene.a.share.join("after").exists(),
    );
    let names: Vec<_> = fs::read_dir(&outside).unwrap().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(fs::read(outside.join("mine")).unwrap(), b"not the share's");
    scene.undisturbed();
}

#[test]
fn a_folder_that_becomes_a_link_while_it_is_written_to_leads_nowhere() {
    let mut scene = Scene::new();
    let outside = scene.world.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let (liar, _) = Liar::joined(&scene.ticket(&[]));
    let names: Vec<String> = (0..300).map(|n| format!("d/{n}")).collect();
    let mut files = vec![("d", Node::Dir { mode: 0o755 }, Vec::new())];
    for name in &names {
        let bytes = name.clone().into_bytes();
        files.push((name, file(&bytes), bytes));
    }
    files.push(("zz", file(b"the last"), b"the last".to_vec()));
    // Somebody here swaps the folder for a link and back, as fast as they can.
    let (dir, aside) = (scene.a.share.join("d"), scene.a.share.join("aside"));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if fs::rename(&dir, &aside).is_ok() {
                    let _ = symlink(&outside, &dir);
                    thread::yield_now();
                    let _ = fs::remove_file(&dir);
                    let _ = fs::rename(&aside, &dir);
                }
            }
        });
        offer(&liar, files, || scene.a.share.join("zz").exists());
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    scene.undisturbed();
}

#[test]
fn names_that_look_alike_are_different_files() {
    let mut scene = Scene::new();
    let (liar, _) = Liar::joined(&scene.ticket(&[]));
    // Composed and decomposed, letters of other scripts, cases, what other systems ignore.
    let names = [
        "caf\u{e9}",
        "cafe\u{301}",
        "A",
        "a",
        "\u{410}",
        ".l\u{200c}eft",
        "\u{ff0e}left",
        ".left ",
        ".left.",
        "left:stream",
        "con",
    ];
    let files = names.map(|name| (name, file(name.as_bytes()), name.as_bytes().to_vec()));
    let share = scene.a.share.clone();
    let all = || names.iter().all(|n| share.join(n).exists());
    offer(&liar, files.to_vec(), all);
    for name in names {
        assert_eq!(fs::read(share.join(name)).unwrap(), name.as_bytes());
    }
    assert!(share.join(".left/share.toml").exists());
    scene.undisturbed();
}
