//! Lies on the control lane of a member.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use left_core::content::ContentId;
use left_core::entry::Node;
use left_core::membership::{Act, Founding, Signed, Statement};
use left_core::message::{
    Ask, Control, Have, MAX_MESSAGE, MAX_PARTS_BITMAP, Parts, Role, RollPart,
};
use left_core::version::{DeviceId, MAX_COUNTER, MAX_DEVICES, Version};

use crate::common::until;
use crate::liar::{Liar, framed, index, start};
use crate::scene::Scene;

/// An Index with one file at this path, which no [`RelPath`](left_core::path::RelPath) can hold.
fn with_path(liar: &Liar, path: &[u8]) -> Vec<u8> {
    let stand_in = "P".repeat(path.len());
    let mut bytes = index(vec![liar.file(&stand_in, 4, [9; 32], 1)], 1).encode();
    let mut windows = bytes.windows(path.len());
    let at = windows.position(|w| w == stand_in.as_bytes()).unwrap();
    bytes[at..at + path.len()].copy_from_slice(path);
    framed(&bytes)
}

#[test]
fn paths_that_lead_out_are_refused() {
    let mut scene = Scene::new();
    let (liar, _) = Liar::joined(&scene.ticket(&[]));
    let paths: [&[u8]; 12] = [
        b"..",
        b"../out",
        b"a/../../out",
        b"/tmp/out",
        b"a//b",
        b"./a",
        b"a/.",
        b"a/",
        b"a\0b",
        b".left/index.db",
        b".LEFT/share.toml",
        b"d/.Left/x",
    ];
    let told = || scene.a.log().matches("the peer broke the protocol").count();
    for (n, path) in paths.into_iter().enumerate() {
        // A lane may be closed for another reason before the message is read; the line comes after.
        until("it is refused", || {
            let (mut raw, _) = liar.control();
            raw.send(&with_path(&liar, path));
            raw.until_closed();
            let soon = Instant::now() + Duration::from_secs(2);
            while told() <= n && Instant::now() < soon {
                std::thread::sleep(Duration::from_millis(5));
            }
            told() > n
        });
    }
    scene.undisturbed();
}

/// The membership statement by which the liar would let itself in as a founder.
fn forged(liar: &Liar, signed: bool) -> Signed {
    let statement = Statement {
        share: liar.share,
        issuer: liar.id(),
        subject: DeviceId([5; 32]),
        act: Act::Admit(Role::ReadWrite),
        under: None,
        after: Vec::new(),
        time: 1,
    };
    let signature = match signed {
        true => liar.key.sign(&statement.signed_bytes()),
        false => [3; 64],
    };
    Signed {
        statement,
        signature,
    }
}

fn roll(founding: Founding, statements: Vec<Signed>) -> Vec<u8> {
    let part = RollPart {
        founding,
        statements,
    };
    framed(&Control::Roll(part).encode())
}

#[test]
fn messages_out_of_range_close_the_lane() {
    let mut scene = Scene::new();
    let (liar, _) = Liar::joined(&scene.ticket(&[]));
    let (mut raw, _) = liar.control();
    let message = raw.until(|m| matches!(m, Control::Roll(_))).unwrap();
    let Control::Roll(part) = message else {
        panic!("no list");
    };
    let founder = |founder| Founding {
        founder,
        ..part.founding
    };
    let other = Founding {
        nonce: [1; 32],
        ..part.founding
    };
    // What the founder is to have said, by the liar's signature.
    let mut in_its_name = forged(&liar, true);
    in_its_name.statement.issuer = part.founding.founder;
    drop(raw);

    let one = |counter| framed(&index(vec![liar.file("f", 4, [9; 32], counter)], 1).encode());
    let many = (0..=MAX_DEVICES as u64).map(|n| {
        let mut id = [1; 32];
        id[..8].copy_from_slice(&n.to_le_bytes());
        (DeviceId(id), 1)
    });
    let mut crowded = liar.file("f", 4, [9; 32], 1);
    crowded.1.version = Version::from_pairs(many);
    let twice = vec![liar.file("f", 4, [9; 32], 1), liar.file("f", 4, [9; 32], 2)];
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("size of 2^63", {
            framed(&index(vec![liar.file("f", 1 << 63, [9; 32], 1)], 1).encode())
        }),
        ("a counter past the largest", one(MAX_COUNTER + 1)),
        ("the largest counter", one(MAX_COUNTER)),
        ("more devices than a version has", {
            framed(&index(vec![crowded], 1).encode())
        }),
        ("a path twice", framed(&index(twice, 2).encode())),
        ("4,097 entries", {
            // An empty entry is two bytes.
            let body = [&[0x12, 0][..]; 4097].concat();
            let mut message = vec![0x12, 0x82, 0x40];
            message.extend(body);
            framed(&message)
        }),
        ("a second Start", framed(&start().encode())),
        ("no protobuf", framed(&[0xff; 40])),
        ("no message", framed(&[])),
        ("too long", (MAX_MESSAGE as u32 + 1).to_be_bytes().to_vec()),
        ("far too long", vec![0xff; 4]),
        ("another founder", roll(founder(liar.id()), Vec::new())),
        ("another share", roll(other, Vec::new())),
        ("unlawful", roll(part.founding, vec![forged(&liar, true)])),
        ("unsigned", roll(part.founding, vec![in_its_name])),
    ];
    let before = scene.memory();
    for (what, bytes) in &cases {
        let (mut raw, _) = liar.control();
        raw.send(bytes);
        raw.until_closed();
        assert!(!scene.a.share.join("f").exists(), "{what}");
    }
    // Index before Start, and one that goes back.
    let mut raw = liar.connect();
    raw.open(&liar.hello(None)).unwrap();
    raw.control(&index(Vec::new(), 1));
    raw.until_closed();
    let (mut raw, _) = liar.control();
    raw.control(&index(Vec::new(), 5));
    raw.control(&index(Vec::new(), 4));
    raw.until_closed();

    for words in [
        "the peer broke the protocol",
        "more than ten years ahead",
        "it started twice",
        "out of order",
        "another share",
        "its signature is wrong",
        "its issuer was not a read-write member",
    ] {
        scene.logged(words);
    }
    assert!(scene.memory() < before + 64 * 1024);
    scene.undisturbed();
}

#[test]
fn a_flood_takes_no_memory_and_no_turn() {
    let mut scene = Scene::new();
    let (liar, _) = Liar::joined(&scene.ticket(&[]));
    let before = scene.memory();
    let (mut raw, _) = liar.control();
    // One name, over and over.
    for n in 1..=500 {
        let gone = liar.entry("one name", Node::Tombstone, n);
        raw.control(&index(vec![gone], n));
    }
    // Many names.
    for n in 0..20 {
        let page = (0..1000).map(|i| liar.entry(&format!("p{n}/{i}"), Node::Tombstone, 1));
        raw.control(&index(page.collect(), 501 + n));
    }
    scene.undisturbed();
    assert!(raw.settled());
    // Questions: most are dropped, none is kept.
    for token in 0..5000 {
        raw.control(&Control::Barrier(token));
        raw.control(&Control::Ping);
    }
    scene.undisturbed();
    raw.until(|m| *m == Control::Pong).unwrap();
    let grown = scene.memory().saturating_sub(before);
    assert!(grown < 96 * 1024, "{grown} KiB more");
}

#[test]
fn questions_and_answers_that_nobody_asked_for() {
    let mut scene = Scene::new();
    let (liar, _) = Liar::joined(&scene.ticket(&[]));
    let before = scene.memory();
    let (mut raw, _) = liar.control();
    // One question of a peer is kept at a time.
    for token in 1..=300 {
        let page = (0..500).map(|i| liar.entry(&format!("{token}/{i}"), Node::Tombstone, 1));
        let entries = page.collect();
        raw.control(&Control::Ask(Ask { token, entries }));
    }
    let held = vec![0xff; 500];
    for token in 0..1000 {
        let held = held.clone();
        raw.control(&Control::Have(Have { token, held }));
        raw.control(&Control::BarrierDone(token));
    }
    scene.undisturbed();
    let answer = |m: &Control| matches!(m, Control::BarrierDone(1) | Control::Have(_));
    let first = raw.until(answer).unwrap();
    assert_eq!(first, Control::BarrierDone(1), "nothing of it is held");
    let grown = scene.memory().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more");
    // An answer to more than can be asked.
    let held = vec![0xff; 513];
    raw.control(&Control::Have(Have { token: 1, held }));
    raw.until_closed();
    scene.undisturbed();
}

/// What a device is about to drop stays while only a liar's wrong answers speak for it.
#[test]
fn an_answer_to_another_question_drops_nothing() {
    let mut scene = Scene::new();
    let (liar, _) = Liar::joined(&scene.ticket(&[]));
    scene.b.stop();
    let (mut raw, _) = liar.control();
    let share = scene.a.share.clone();
    let there = share.join("there");
    let args = [OsString::from("drop"), there.clone().into()];
    let out = std::thread::scope(|s| {
        let drop = s.spawn(|| scene.a.run(&args));
        let Some(Control::Ask(ask)) = raw.until(|m| matches!(m, Control::Ask(_))) else {
            panic!("it was not asked");
        };
        for token in (ask.token + 1)..(ask.token + 50) {
            let held = vec![0xff];
            raw.control(&Control::Have(Have { token, held }));
        }
        raw.control(&Control::BarrierDone(ask.token));
        let held = vec![0xff];
        // Too late: a question is answered once.
        let token = ask.token;
        raw.control(&Control::Have(Have { token, held }));
        drop.join().unwrap()
    });
    assert!(!out.status.success());
    assert!(there.exists());
}

#[test]
fn who_may_only_read_changes_nothing() {
    let mut scene = Scene::new();
    let (liar, _) = Liar::joined(&scene.ticket(&["--read-only"]));
    let (mut raw, _) = liar.control();
    raw.control(&index(
        vec![
            liar.entry("made", Node::Dir { mode: 0o755 }, 1_900_000_000_000),
            liar.entry("there", Node::Tombstone, 1_900_000_000_000),
        ],
        2,
    ));
    // It was taken in, and did nothing.
    assert!(raw.settled());
    assert!(scene.a.share.join("there").exists() && !scene.a.share.join("made").exists());
    scene.undisturbed();
    // Nor does it let anybody in, itself with more rights included.
    let message = liar.control().0.until(|m| matches!(m, Control::Roll(_)));
    let Some(Control::Roll(part)) = message else {
        panic!("no list");
    };
    let mut own = part.statements.iter().map(|s| &s.statement);
    let own = own.rfind(|s| s.subject == liar.id()).unwrap();
    let after = part.statements.last().unwrap().statement.id();
    let statement = Statement {
        issuer: liar.id(),
        act: Act::Admit(Role::ReadWrite),
        under: Some(own.id()),
        after: vec![after, own.id()],
        ..own.clone()
    };
    let signature = liar.key.sign(&statement.signed_bytes());
    let signed = Signed {
        statement,
        signature,
    };
    let (mut raw, _) = liar.control();
    raw.send(&roll(part.founding, vec![signed]));
    raw.until_closed();
    scene.logged("its issuer was not a read-write member");
    until("it reads only", || {
        let status = scene.a.status();
        let mut peers = status["peers"].as_array().unwrap().iter();
        peers.any(|p| p["name"] == "liar" && p["role"] == "read-only")
    });
    scene.undisturbed();
}

#[test]
fn who_says_that_it_has_parts_of_everything_disturbs_nobody() {
    let mut scene = Scene::new();
    let (liar, _) = Liar::joined(&scene.ticket(&[]));
    let before = scene.memory();
    let (mut raw, _) = liar.control();
    for n in 0..3000u64 {
        raw.control(&Control::Parts(Parts {
            content: ContentId(*blake3::hash(&n.to_le_bytes()).as_bytes()),
            from: n << 30,
            bitmap: vec![0xff; MAX_PARTS_BITMAP],
            hello: true,
        }));
    }
    scene.undisturbed();
    let grown = scene.memory().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB");
}
