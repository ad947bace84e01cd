//! Each limit of each message, from bytes written by hand as a hostile peer would.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

use left_core::content::{ContentId, MAX_FILE_SIZE};
use left_core::entry::{Entry, MAX_TARGET, Node, Stamp};
use left_core::index::MAX_FORMER;
use left_core::membership::{Act, MAX_AFTER, MAX_BODY, MAX_STATEMENTS, Statement, StatementId};
use left_core::message::{
    Control, Hello, HelloReply, INDEX_OVERHEAD, IndexBatch, LaneHello, MAX_ADDRESS, MAX_ADDRESSES,
    MAX_BITMAP, MAX_FEATURES, MAX_HELLO, MAX_INDEX_DEVICES, MAX_INDEX_ENTRIES, MAX_MEMBERS,
    MAX_MESSAGE, MAX_NAME, MAX_PARTS_BITMAP, MAX_REASON, MAX_WANT_CONTENTS, MAX_WANT_SEGMENTS,
    Member, Refused, RefusedCode, ShareId, Want, What, entry_len,
};
use left_core::path::{MAX_PATH, RelPath};
use left_core::version::{DeviceId, MAX_COUNTER, MAX_DEVICES, Version};

/// A writer of protobuf that knows no types.
#[derive(Clone, Default)]
struct Pb(Vec<u8>);

impl Pb {
    fn varint(mut self, mut n: u64) -> Self {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
        self
    }

    fn num(self, tag: u64, n: u64) -> Self {
        self.varint(tag << 3).varint(n)
    }

    fn bytes(self, tag: u64, bytes: impl AsRef<[u8]>) -> Self {
        let mut out = self
            .varint(tag << 3 | 2)
            .varint(bytes.as_ref().len() as u64);
        out.0.extend_from_slice(bytes.as_ref());
        out
    }

    fn many(mut self, count: usize, tag: u64, bytes: impl AsRef<[u8]>) -> Self {
        for _ in 0..count {
            self = self.bytes(tag, bytes.as_ref());
        }
        self
    }

    fn packed(self, tag: u64, all: &[u64]) -> Self {
        let inner = all.iter().fold(Pb::default(), |p, n| p.varint(*n));
        self.bytes(tag, inner)
    }
}

impl AsRef<[u8]> for Pb {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn pb() -> Pb {
    Pb::default()
}

/// A file's entry whose fields the cases below set again: of a field that stands twice, protobuf
/// takes the last.
fn file() -> Pb {
    pb().bytes(1, "a/b")
        .num(2, 2)
        .num(3, 0o644)
        .num(6, 5)
        .bytes(7, [7; 32])
        .packed(9, &[0])
        .packed(10, &[3])
        .num(12, 3)
}

fn link(target: &[u8]) -> Pb {
    file().num(2, 4).bytes(8, target)
}

fn index(entries: &[Pb]) -> Pb {
    let devices = pb().bytes(1, [1; 32]).bytes(1, [2; 32]);
    pb().bytes(2, entries.iter().fold(devices, |p, e| p.bytes(2, e)))
}

#[track_caller]
fn refused(wire: Pb, why: &str) {
    let error = Control::decode(&wire.0).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn an_entry_written_by_hand_is_read() {
    let Control::Index(batch) = Control::decode(&index(&[file()]).0).unwrap() else {
        panic!("no index");
    };
    let (path, entry) = &batch.entries[0];
    assert_eq!(path.as_bytes(), b"a/b");
    assert_eq!(entry.node.content(), Some(ContentId([7; 32])));
    assert_eq!(entry.stamp.device, DeviceId([1; 32]));
    assert_eq!(entry.version.counter(DeviceId([1; 32])), 3);
    Control::decode(&index(&[link(&[b'x'; MAX_TARGET])]).0).unwrap();
    Control::decode(&index(&[file().num(6, MAX_FILE_SIZE).num(3, 0o7777)]).0).unwrap();
}

#[test]
fn entries_out_of_range_are_refused() {
    let cases: Vec<(Pb, &str)> = vec![
        (file().num(6, MAX_FILE_SIZE + 1), "too large a file"),
        (file().num(3, 0o10000), "mode 10000"),
        (file().num(2, 3).num(3, 0o100_644), "mode 100644"),
        (file().num(5, 1_000_000_000), "nanoseconds"),
        (file().bytes(7, [7; 31]), "content id of 31 bytes"),
        (file().bytes(7, []), "content id of 0 bytes"),
        (file().num(2, 0), "kind 0"),
        (file().num(2, 5), "kind 5"),
        (file().num(12, 0), "counter 0"),
        (file().num(12, MAX_COUNTER + 1), "out of range"),
        (file().num(11, 2), "no device at position 2"),
        (file().packed(9, &[1]).packed(10, &[0]), "counter 0"),
        (
            file().packed(9, &[1]).packed(10, &[MAX_COUNTER + 1]),
            "out of range",
        ),
        (
            file().packed(9, &[2]).packed(10, &[1]),
            "no device at position 2",
        ),
        (
            file().packed(9, &[0]).packed(10, &[9]),
            "names a device twice",
        ),
        (file().packed(9, &[1]), "unequal numbers"),
        (file().packed(10, &[1]), "unequal numbers"),
        (
            file()
                .packed(9, &[1; MAX_DEVICES])
                .packed(10, &[1; MAX_DEVICES]),
            "a version of 1025 devices",
        ),
        (link(b""), "symlink target"),
        (link(b"a\0b"), "symlink target"),
        (link(&[b'x'; MAX_TARGET + 1]), "symlink target"),
        (link(b"x").num(5, u64::from(u32::MAX)), "nanoseconds"),
        (file().bytes(1, ""), "path is empty"),
        (file().bytes(1, "/a"), "absolute"),
        (file().bytes(1, "a/../b"), "`..`"),
        (file().bytes(1, "x/.left/y"), "reserved"),
        (file().bytes(1, "a\0b"), "NUL"),
        (
            file().bytes(1, vec![b'x'; MAX_PATH + 1]),
            "longer than 4096",
        ),
    ];
    for (entry, why) in cases {
        refused(index(&[entry]), why);
    }
    let without_version = pb().bytes(1, "a").num(2, 1).num(12, 3);
    refused(index(&[without_version]), "a version of 0 devices");
    let tombstone = pb()
        .bytes(1, "a")
        .num(2, 1)
        .packed(9, &[0])
        .packed(10, &[1])
        .num(12, 3);
    Control::decode(&index(&[tombstone]).0).unwrap();
}

#[test]
fn errors_show_little_of_a_path() {
    let path = [&b"\xff\x1b"[..], &[b'x'; 3000]].concat();
    let error = Control::decode(&index(&[file().bytes(1, path)]).0).unwrap_err();
    assert!(error.0.len() < 300, "{error}");
    assert!(!error.0.chars().any(char::is_control), "{error}");
}

#[test]
fn a_path_stands_once() {
    let (a, b) = (file().bytes(1, "a"), file().bytes(1, "b"));
    Control::decode(&index(&[a.clone(), b.clone()]).0).unwrap();
    refused(index(&[a.clone(), b, a]), "\"a\" stands twice");
}

#[test]
fn a_device_id_has_32_bytes() {
    refused(
        pb().bytes(2, pb().bytes(1, [1; 33])),
        "device id of 33 bytes",
    );
    refused(
        pb().bytes(4, pb().bytes(1, pb().bytes(2, "n"))),
        "device id of 0 bytes",
    );
}

#[test]
fn lists_are_counted_before_they_are_built() {
    let most = MAX_INDEX_ENTRIES;
    refused(
        pb().bytes(2, pb().many(most + 1, 2, [])),
        "more than 4096 entries",
    );
    // As many as fit into a message, all empty.
    refused(
        pb().bytes(2, pb().many(MAX_MESSAGE / 2 - 8, 2, [])),
        "more than 4096 entries",
    );
    refused(
        pb().bytes(1, pb().many(MAX_FORMER + 1, 6, [])),
        "more than 256 former lives",
    );
    // Spread over two Index messages that protobuf would join.
    let half = pb().many(most / 2 + 1, 2, []);
    refused(pb().bytes(2, &half).bytes(2, &half), "more than 1 index");
    refused(
        pb().bytes(2, pb().many(MAX_INDEX_DEVICES + 1, 1, [])),
        "more than 5120 devices",
    );
    refused(
        pb().bytes(4, pb().many(MAX_MEMBERS + 1, 1, [])),
        "more than 1024 members",
    );
    let member = pb().bytes(1, [1; 32]);
    let crowd = pb().many(MAX_MEMBERS, 1, &member);
    Control::decode(&pb().bytes(4, crowd).0).unwrap();
    refused(
        pb().bytes(
            4,
            pb().bytes(1, member.clone().many(MAX_ADDRESSES + 1, 3, "a")),
        ),
        "more than 64 addresses",
    );
    refused(
        pb().bytes(4, pb().bytes(1, member.bytes(3, [b'a'; MAX_ADDRESS + 1]))),
        "an address of more than 300 bytes",
    );
}

#[test]
fn other_control_messages_have_limits() {
    let start = |p: Pb| Control::decode(&pb().bytes(1, p).0);
    let epoch = pb().varint(1 << 3 | 1).0;
    let epoch = Pb([&epoch[..], &9u64.to_le_bytes()].concat());
    start(epoch.clone().num(5, MAX_COUNTER)).unwrap();
    assert!(start(epoch.num(5, MAX_COUNTER + 1)).is_err());
    assert!(start(pb()).is_err());
    let statement = |body: &[u8], signature: usize| {
        let statement = pb().bytes(1, body).bytes(2, vec![1; signature]);
        let roll = pb().bytes(1, [1; 32]).bytes(2, [2; 32]);
        Control::decode(&pb().bytes(11, roll.bytes(3, statement)).0)
    };
    let body = Statement {
        share: ShareId([1; 32]),
        issuer: DeviceId([1; 32]),
        subject: DeviceId([2; 32]),
        act: Act::Remove,
        under: None,
        after: vec![StatementId([3; 32]); MAX_AFTER],
        time: 0,
    }
    .encode();
    statement(&body, 64).unwrap();
    assert!(statement(&body, 63).is_err());
    assert!(statement(&body[..body.len() - 1], 64).is_err());
    assert!(statement(&[&body[..], &[0]].concat(), 64).is_err());
    assert!(statement(&vec![1; MAX_BODY + 1], 64).is_err());
    let roll = |founder: usize, nonce: usize, statements: usize| {
        let founding = pb().bytes(1, vec![1; founder]).bytes(2, vec![2; nonce]);
        Control::decode(&pb().bytes(11, founding.many(statements, 3, "")).0)
    };
    roll(32, 32, 0).unwrap();
    assert!(roll(31, 32, 0).is_err());
    assert!(roll(32, 0, 0).is_err());
    let many = roll(32, 32, MAX_STATEMENTS + 1).unwrap_err().to_string();
    assert!(many.contains("more than"), "{many}");
    // A kind of message from the future.
    assert!(Control::decode(&pb().bytes(40, "x").0).is_err());
    // Not protobuf: cut off, an endless number, a group.
    for bytes in [&[0x12, 5][..], &[0xff; 11], &[0x0b, 0x0c], &[0x09, 1]] {
        assert!(Control::decode(bytes).is_err());
    }
}

fn control_hello(fields: Pb) -> Pb {
    pb().num(1, 1)
        .bytes(4, pb().bytes(1, [1; 32]).bytes(2, [2; 16]).bytes(3, "n"))
        .bytes(9, fields)
}

#[test]
fn hellos_have_limits() {
    let hello = |p: &Pb| Hello::decode(&p.0);
    hello(&control_hello(pb())).unwrap();
    let lane = |share: usize, instance: usize| {
        pb().bytes(4, pb().bytes(1, vec![1; share]).bytes(2, vec![2; instance]))
    };
    hello(&lane(32, 16)).unwrap();
    for (share, instance) in [(0, 16), (31, 16), (33, 16), (32, 0), (32, 17)] {
        assert!(hello(&lane(share, instance)).is_err());
    }
    let with = |p: Pb| pb().bytes(4, Pb([lane(32, 16).0[2..].to_vec(), p.0].concat()));
    hello(&with(pb().many(MAX_ADDRESSES, 4, "a:1"))).unwrap();
    assert!(hello(&with(pb().many(MAX_ADDRESSES + 1, 4, "a:1"))).is_err());
    assert!(hello(&with(pb().bytes(4, [b'a'; MAX_ADDRESS + 1]))).is_err());
    assert!(hello(&with(pb().bytes(4, "a\n:1"))).is_err());
    assert!(hello(&with(pb().bytes(4, [0xff]))).is_err());
    hello(&with(
        pb().bytes(5, pb().bytes(1, [1; 16]).bytes(2, [2; 32])),
    ))
    .unwrap();
    assert!(hello(&with(pb().bytes(5, pb().bytes(1, [1; 16])))).is_err());
    assert!(
        hello(&with(
            pb().bytes(5, pb().bytes(1, [1; 15]).bytes(2, [2; 32]))
        ))
        .is_err()
    );
    let some = lane(32, 16);
    hello(&some.clone().many(MAX_FEATURES, 3, "f")).unwrap();
    assert!(hello(&some.clone().many(MAX_FEATURES + 1, 3, "f")).is_err());
    assert!(hello(&some.bytes(3, [b'f'; MAX_NAME + 1])).is_err());
    assert!(hello(&pb().bytes(5, pb().bytes(1, [1; 15]))).is_err());
    let pair = |mac: usize, share: usize| {
        pb().bytes(
            6,
            pb().bytes(1, vec![1; mac])
                .bytes(2, vec![1; share])
                .bytes(3, [1; 16]),
        )
    };
    hello(&pair(32, 32)).unwrap();
    hello(&pair(32, 0)).unwrap();
    assert!(hello(&pair(31, 0)).is_err());
    assert!(hello(&pair(32, 31)).is_err());
}

#[test]
fn replies_have_limits() {
    let welcome = |role: u64, mac: usize| {
        let w = pb()
            .bytes(1, [1; 16])
            .bytes(2, [1; 16])
            .bytes(5, vec![1; mac])
            .num(7, role);
        HelloReply::decode(&pb().bytes(4, w).0)
    };
    welcome(1, 0).unwrap();
    welcome(2, 32).unwrap();
    assert!(welcome(0, 0).is_err());
    assert!(welcome(1, 5).is_err());
    let refused = HelloReply::decode(&pb().bytes(5, pb().num(1, 99).bytes(2, "why")).0).unwrap();
    let expected = Refused {
        code: RefusedCode::NotAdmitted,
        reason: "why".into(),
    };
    assert_eq!(refused.outcome, Err(expected));
}

#[test]
fn names_and_reasons_are_cut_and_cleaned() {
    let long = format!("a\u{1b}[31m\n{}", "é".repeat(1000));
    let wire = pb()
        .bytes(2, &long)
        .bytes(4, pb().bytes(1, [1; 32]).bytes(2, [2; 16]).bytes(3, &long));
    let hello = Hello::decode(&wire.0).unwrap();
    let LaneHello::Control { name, .. } = hello.lane else {
        panic!("no control lane");
    };
    for text in [&name, &hello.agent] {
        assert!(text.starts_with("a[31mé") && text.len() <= MAX_NAME && text.len() > MAX_NAME - 2);
    }
    let Control::Bye(reason) = Control::decode(&pb().bytes(9, pb().bytes(1, &long)).0).unwrap()
    else {
        panic!("no bye");
    };
    assert_eq!(reason.chars().count(), MAX_REASON);
    assert!(!reason.chars().any(char::is_control));
}

#[test]
fn wants_have_limits() {
    let want = |tag: u64, p: Pb| Want::decode(&pb().num(1, 1).bytes(tag, p).0);
    let content = pb().bytes(1, [1; 32]);
    want(2, pb().many(MAX_WANT_CONTENTS, 1, [1; 32])).unwrap();
    assert!(want(2, pb().many(MAX_WANT_CONTENTS + 1, 1, [1; 32])).is_err());
    assert!(want(2, pb().bytes(1, [1; 31])).is_err());
    want(3, content.clone().num(2, u64::MAX)).unwrap();
    assert!(want(3, pb().bytes(1, [1; 33])).is_err());
    for tag in [4, 5] {
        want(tag, content.clone().packed(2, &[9; MAX_WANT_SEGMENTS])).unwrap();
        assert!(want(tag, content.clone().packed(2, &[9; MAX_WANT_SEGMENTS + 1])).is_err());
        assert!(want(tag, pb()).is_err());
    }
    want(6, content.clone().bytes(3, [255; MAX_BITMAP])).unwrap();
    assert!(want(6, content.bytes(3, [255; MAX_BITMAP + 1])).is_err());
    assert!(Want::decode(&pb().num(1, 1).0).is_err());
}

fn big_entry(at: usize) -> (RelPath, Entry) {
    let part = "x".repeat(200);
    let path = RelPath::new(format!("{}/{at}", vec![part; 19].join("/"))).unwrap();
    let pairs = (0..MAX_DEVICES).map(|n| {
        let mut id = [0xff; 32];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        (DeviceId(id), MAX_COUNTER)
    });
    let entry = Entry {
        node: Node::Symlink {
            mtime: left_core::entry::Mtime {
                secs: i64::MIN,
                nanos: 999_999_999,
            },
            target: vec![b'x'; MAX_TARGET],
        },
        version: Version::from_pairs(pairs),
        stamp: Stamp {
            counter: MAX_COUNTER,
            device: DeviceId([0; 32]),
        },
    };
    (path, entry)
}

#[test]
fn the_estimate_of_a_batch_holds_for_the_largest_entries() {
    let batch = |n: usize| IndexBatch {
        entries: (0..n).map(big_entry).collect(),
        dropped: (9..9 + n).map(|i| big_entry(i).0).collect(),
        upto: u64::MAX,
        more: true,
    };
    for n in [1, 5] {
        let batch = batch(n);
        let len = Control::Index(batch.clone()).encode().len();
        assert!(len <= batch.approx_len(), "{len} of {}", batch.approx_len());
    }
    let (path, entry) = big_entry(0);
    assert!(entry_len(&path, &entry) + INDEX_OVERHEAD < MAX_MESSAGE);
    let (path, mut entry) = big_entry(1);
    entry.node = Node::File {
        mode: 0o7777,
        mtime: left_core::entry::Mtime {
            secs: i64::MIN,
            nanos: 999_999_999,
        },
        size: MAX_FILE_SIZE,
        content: ContentId([1; 32]),
    };
    entry.version = Version::from_pairs([(DeviceId([9; 32]), MAX_COUNTER)]);
    let batch = IndexBatch {
        entries: vec![(path, entry)],
        dropped: Vec::new(),
        upto: u64::MAX,
        more: true,
    };
    assert!(Control::Index(batch.clone()).encode().len() <= batch.approx_len());
}

#[test]
fn what_is_dropped_and_asked_for_is_counted() {
    let path = |n: usize| left_core::path::RelPath::new(format!("f{n}")).unwrap();
    let dropped = |n: usize| {
        Control::Index(IndexBatch {
            dropped: (0..n).map(path).collect(),
            ..IndexBatch::default()
        })
    };
    let asked = |n: usize| {
        let entries = (0..n).map(|n| {
            let device = DeviceId([1; 32]);
            let entry = Entry {
                node: Node::Tombstone,
                version: Version::from_pairs([(device, 1)]),
                stamp: Stamp { counter: 1, device },
            };
            (path(n), entry)
        });
        Control::Ask(left_core::message::Ask {
            token: 1,
            entries: entries.collect(),
        })
    };
    let held = |n: usize| {
        let held = vec![1; n];
        Control::Have(left_core::message::Have { token: 1, held })
    };
    let is_ok = |m: &Control| Control::decode(&m.encode()).is_ok_and(|got| got == *m);
    assert!(is_ok(&dropped(4096)) && !is_ok(&dropped(4097)));
    let shown = |m: &Control| Control::decode(&m.encode()).map(|_| ()).map_err(|e| e.0);
    assert_eq!(shown(&asked(4096)), Ok(()));
    assert!(shown(&asked(4097)).is_err());
    assert!(is_ok(&held(512)) && !is_ok(&held(513)));
    let twice = Control::Index(IndexBatch {
        dropped: vec![path(1), path(1)],
        ..IndexBatch::default()
    });
    assert!(!is_ok(&twice));
}

#[test]
fn what_we_send_is_within_the_limits() {
    let addresses: Vec<String> = (0..200)
        .map(|n| format!("{n}:{}", "a".repeat(290)))
        .collect();
    let mut too_long = addresses.clone();
    too_long.insert(0, "b".repeat(MAX_ADDRESS + 1));
    let hello = Hello {
        protocol: 1,
        agent: "left\n".repeat(100),
        features: vec!["zstd".into()],
        lane: LaneHello::Control {
            share: ShareId([1; 32]),
            instance: [1; 16],
            name: "n".repeat(1000),
            addresses: too_long,
            ticket: None,
        },
    };
    let bytes = hello.encode();
    assert!(bytes.len() <= MAX_HELLO);
    let LaneHello::Control { addresses: got, .. } = Hello::decode(&bytes).unwrap().lane else {
        panic!("no control lane");
    };
    assert!(got.len() > 10 && addresses.starts_with(&got));

    let member = Member {
        device: DeviceId([1; 32]),
        name: "n".repeat(1000),
        addresses,
    };
    let bytes = Control::Members(vec![member; MAX_MEMBERS + 5]).encode();
    assert!(bytes.len() <= MAX_MESSAGE);
    let Control::Members(got) = Control::decode(&bytes).unwrap() else {
        panic!("no members");
    };
    assert_eq!(got.len(), MAX_MEMBERS);
    assert!(got.iter().all(|m| !m.addresses.is_empty()));

    let want = Want {
        id: u32::MAX,
        what: What::Whole(vec![ContentId([1; 32]); MAX_WANT_CONTENTS]),
        rate: u64::MAX,
    };
    assert!(want.encode().len() <= MAX_MESSAGE);
}

#[test]
fn parts_of_a_content_are_bounded() {
    let parts = |id: usize, from: u64, bits: usize| {
        let body = Pb::default().bytes(1, vec![7; id]).num(2, from);
        let body = body.bytes(3, vec![1; bits]).num(4, 1);
        Control::decode(&Pb::default().bytes(12, body).0)
    };
    assert!(parts(32, MAX_FILE_SIZE, MAX_PARTS_BITMAP).is_ok());
    assert!(parts(31, 0, 1).is_err());
    assert!(parts(32, 0, MAX_PARTS_BITMAP + 1).is_err());
    assert!(parts(32, MAX_FILE_SIZE + 1, 1).is_err());
}
