//! Arbitrary messages within their limits.

use left_core::content::{ContentId, MAX_FILE_SIZE, SegmentId, SegmentRef};
use left_core::entry::{Entry, MODE_MASK, Mtime, Node, Stamp};
use left_core::index::Cursor;
use left_core::membership::{Act, Founding, MAX_AFTER, Signed, Statement, StatementId};
use left_core::message::{
    Ask, Control, Have, Hello, HelloReply, IndexBatch, LaneHello, Member, Offer, Parts, Progress,
    Refused, RefusedCode, Role, RollPart, ShareId, Start, TicketProof, Want, Welcome, What,
};
use left_core::path::RelPath;
use left_core::version::{DeviceId, MAX_COUNTER, Version};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::ReadWrite), Just(Role::ReadOnly)]
}

fn device() -> impl Strategy<Value = DeviceId> {
    prop_oneof![
        (0u8..5).prop_map(|n| DeviceId([n; 32])),
        any::<[u8; 32]>().prop_map(DeviceId)
    ]
}

fn content() -> impl Strategy<Value = ContentId> {
    any::<[u8; 32]>().prop_map(ContentId)
}

fn share() -> impl Strategy<Value = ShareId> {
    any::<[u8; 32]>().prop_map(ShareId)
}

fn name() -> impl Strategy<Value = String> {
    "[a-zäö0-9 .-]{0,40}"
}

fn addresses() -> impl Strategy<Value = Vec<String>> {
    vec("[a-z0-9.:]{0,60}", 0..10)
}

fn features() -> impl Strategy<Value = Vec<String>> {
    vec("[a-z]{0,20}", 0..5)
}

fn offer() -> impl Strategy<Value = Offer> {
    let segment = (1..=MAX_FILE_SIZE, any::<[u8; 32]>()).prop_map(|(len, id)| SegmentRef {
        len,
        id: SegmentId(id),
    });
    let parts = (
        content(),
        path(),
        any::<u64>(),
        vec(segment, 0..20),
        0..=MAX_FILE_SIZE,
    );
    parts.prop_map(|(id, path, from, segments, size)| Offer {
        id,
        path,
        from,
        segments,
        size,
    })
}

fn parts() -> impl Strategy<Value = Parts> {
    let bits = vec(any::<u8>(), 0..20);
    (content(), 0..=MAX_FILE_SIZE, bits, any::<bool>()).prop_map(
        |(content, from, bitmap, hello)| Parts {
            content,
            from,
            bitmap,
            hello,
        },
    )
}

pub fn hello() -> impl Strategy<Value = Hello> {
    let proof = any::<([u8; 16], [u8; 32])>().prop_map(|(id, mac)| TicketProof { id, mac });
    let lane = prop_oneof![
        (
            share(),
            any::<[u8; 16]>(),
            name(),
            addresses(),
            option::of(proof)
        )
            .prop_map(|(share, instance, name, addresses, ticket)| {
                LaneHello::Control {
                    share,
                    instance,
                    name,
                    addresses,
                    ticket,
                }
            }),
        any::<([u8; 16], bool, bool)>().prop_map(|(session, dialer_serves, express)| {
            LaneHello::Data {
                session,
                dialer_serves,
                express,
            }
        }),
        (
            any::<[u8; 32]>(),
            option::of(share()),
            any::<[u8; 16]>(),
            name(),
            addresses()
        )
            .prop_map(|(mac, share, instance, name, addresses)| LaneHello::Pair {
                mac,
                share,
                instance,
                name,
                addresses,
            }),
    ];
    (any::<u32>(), name(), features(), lane).prop_map(|(protocol, agent, features, lane)| Hello {
        protocol,
        agent,
        features,
        lane,
    })
}

pub fn reply() -> impl Strategy<Value = HelloReply> {
    let welcome = (
        any::<([u8; 16], [u8; 16], Option<[u8; 32]>)>(),
        name(),
        addresses(),
        option::of(share()),
        role(),
    )
        .prop_map(
            |((session, instance, mac), name, addresses, share, role)| Welcome {
                session,
                instance,
                name,
                addresses,
                mac,
                share,
                role,
            },
        );
    let code = prop_oneof![
        Just(RefusedCode::NotAdmitted),
        Just(RefusedCode::Protocol),
        Just(RefusedCode::Duplicate),
        Just(RefusedCode::Busy),
        Just(RefusedCode::TicketSpent),
        Just(RefusedCode::OtherShare),
    ];
    let refused = (code, "[a-zé ]{0,500}").prop_map(|(code, reason)| Refused { code, reason });
    let outcome = prop_oneof![welcome.prop_map(Ok), refused.prop_map(Err)];
    (any::<u32>(), name(), features(), outcome).prop_map(|(protocol, agent, features, outcome)| {
        HelloReply {
            protocol,
            agent,
            features,
            outcome,
        }
    })
}

fn path() -> impl Strategy<Value = RelPath> {
    vec(vec(prop_oneof![1u8..b'/', b'0'..=255], 1..20), 1..6)
        .prop_filter_map("a path", |parts| RelPath::new(parts.join(&b'/')).ok())
}

fn mtime() -> impl Strategy<Value = Mtime> {
    (any::<i64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Mtime { secs, nanos })
}

fn node() -> impl Strategy<Value = Node> {
    let mode = 0..=MODE_MASK;
    prop_oneof![
        Just(Node::Tombstone),
        mode.clone().prop_map(|mode| Node::Dir { mode }),
        (mode, mtime(), 0..=MAX_FILE_SIZE, content()).prop_map(|(mode, mtime, size, content)| {
            Node::File {
                mode,
                mtime,
                size,
                content,
            }
        }),
        (mtime(), vec(1u8.., 1..80)).prop_map(|(mtime, target)| Node::Symlink { mtime, target }),
    ]
}

fn counter() -> impl Strategy<Value = u64> {
    prop_oneof![1..=MAX_COUNTER, Just(MAX_COUNTER), Just(1)]
}

pub fn entry() -> impl Strategy<Value = Entry> {
    let version = vec((device(), counter()), 1..6).prop_map(Version::from_pairs);
    let stamp = (counter(), device()).prop_map(|(counter, device)| Stamp { counter, device });
    (node(), version, stamp).prop_map(|(node, version, stamp)| Entry {
        node,
        version,
        stamp,
    })
}

pub fn batch() -> impl Strategy<Value = IndexBatch> {
    (
        btree_map(path(), entry(), 0..12).prop_map(|m| m.into_iter().collect()),
        vec(path(), 0..4),
        any::<u64>(),
        any::<bool>(),
    )
        .prop_map(|(entries, mut dropped, upto, more)| {
            let entries: Vec<(RelPath, Entry)> = entries;
            dropped.sort();
            dropped.dedup();
            dropped.retain(|path| entries.iter().all(|(p, _)| p != path));
            IndexBatch {
                entries,
                dropped,
                upto,
                more,
            }
        })
}

pub fn control() -> impl Strategy<Value = Control> {
    let former = (1u64.., any::<u64>()).prop_map(|(epoch, seq)| Cursor { epoch, seq });
    let former = vec(former, 0..5);
    let start = (any::<[u64; 3]>(), 1u64.., 0..=MAX_COUNTER, former).prop_map(
        |(n, epoch, your_counter, former)| Start {
            epoch,
            former,
            head: n[0],
            known: Cursor {
                epoch: n[1],
                seq: n[2],
            },
            your_counter,
        },
    );
    let progress = any::<([u64; 4], bool)>().prop_map(|(n, busy)| Progress {
        your_seq: n[0],
        head: n[1],
        busy,
        need_files: n[2],
        need_bytes: n[3],
    });
    let member = (device(), name(), addresses()).prop_map(|(device, name, addresses)| Member {
        device,
        name,
        addresses,
    });
    prop_oneof![
        start.prop_map(Control::Start),
        batch().prop_map(Control::Index),
        progress.prop_map(Control::Progress),
        vec(member, 0..8).prop_map(Control::Members),
        roll().prop_map(Control::Roll),
        offer().prop_map(Control::Offer),
        parts().prop_map(Control::Parts),
        any::<u64>().prop_map(Control::Barrier),
        any::<u64>().prop_map(Control::BarrierDone),
        (any::<u64>(), batch()).prop_map(|(token, batch)| {
            let entries = batch.entries;
            Control::Ask(Ask { token, entries })
        }),
        (any::<u64>(), vec(any::<u8>(), 1..20))
            .prop_map(|(token, held)| Control::Have(Have { token, held })),
        Just(Control::Ping),
        Just(Control::Pong),
        "[a-zé ]{0,500}".prop_map(Control::Bye),
    ]
}

fn roll() -> impl Strategy<Value = RollPart> {
    let founding = (device(), any::<[u8; 32]>());
    let founding = founding.prop_map(|(founder, nonce)| Founding { founder, nonce });
    let signed = (statement(), any::<[u8; 64]>());
    let signed = signed.prop_map(|(statement, signature)| Signed {
        statement,
        signature,
    });
    (founding, vec(signed, 0..8)).prop_map(|(founding, statements)| RollPart {
        founding,
        statements,
    })
}

/// Any statement, lawful or not.
pub fn statement() -> impl Strategy<Value = Statement> {
    let id = || any::<[u8; 32]>().prop_map(StatementId);
    let act = prop_oneof![role().prop_map(Act::Admit), Just(Act::Remove)];
    let parts = (
        share(),
        device(),
        device(),
        act,
        option::of(id()),
        vec(id(), 0..=MAX_AFTER),
        any::<u64>(),
    );
    parts.prop_map(
        |(share, issuer, subject, act, under, after, time)| Statement {
            share,
            issuer,
            subject,
            act,
            under,
            after,
            time,
        },
    )
}

pub fn want() -> impl Strategy<Value = Want> {
    let segments = || vec(any::<u64>(), 0..40);
    let what = prop_oneof![
        vec(content(), 0..40).prop_map(What::Whole),
        (content(), any::<u64>()).prop_map(|(content, from)| What::Refs { content, from }),
        (content(), segments()).prop_map(|(content, segments)| What::Lists { content, segments }),
        (content(), segments())
            .prop_map(|(content, segments)| What::Segments { content, segments }),
        (content(), any::<u64>(), vec(any::<u8>(), 0..=32)).prop_map(
            |(content, segment, bitmap)| What::Chunks {
                content,
                segment,
                bitmap,
            }
        ),
    ];
    (any::<u32>(), what, any::<u64>()).prop_map(|(id, what, rate)| Want { id, what, rate })
}
