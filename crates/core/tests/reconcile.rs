//! Properties of reconcile: whatever is delivered in whatever order, all end equal and every byte
//! is at the path, in a conflict copy, or was replaced by somebody who had it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use left_core::content::ContentId;
use left_core::entry::{Entry, Mtime, Node, Stamp};
use left_core::reconcile::{Decision, best, reconcile, reconcile_read_only};
use left_core::version::{DeviceId, Version};
use proptest::collection::vec;
use proptest::prelude::*;

fn device(n: u8) -> DeviceId {
    DeviceId([n + 1; 32])
}

fn file(bytes: u8, mode: u32) -> Node {
    Node::File {
        mode,
        mtime: Mtime::default(),
        size: 1,
        content: ContentId([bytes; 32]),
    }
}

fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        4 => (0u8..3, prop_oneof![Just(0o644), Just(0o600)]).prop_map(|(b, m)| file(b, m)),
        2 => Just(Node::Tombstone),
        1 => prop_oneof![Just(0o755), Just(0o700)].prop_map(|mode| Node::Dir { mode }),
        1 => (0u8..2).prop_map(|t| Node::Symlink { mtime: Mtime::default(), target: vec![b'a' + t] }),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let version = vec((0u8..3, 1u64..4), 1..4);
    (node(), version, 0u8..3, 1u64..4).prop_map(|(node, pairs, by, counter)| Entry {
        node,
        version: Version::from_pairs(pairs.into_iter().map(|(d, c)| (device(d), c))),
        stamp: Stamp {
            counter,
            device: device(by),
        },
    })
}

/// Our entry after a decision was carried out.
fn after(ours: Option<&Entry>, decision: Decision) -> Option<Entry> {
    match decision {
        Decision::Take { target, .. } => Some(target),
        Decision::Merge(entry) => Some(entry),
        Decision::InSync | Decision::Older | Decision::Await => ours.cloned(),
    }
}

proptest! {
    /// Two devices tell each other until nothing changes: both end with the same, after at most
    /// three rounds, and never both give way.
    #[test]
    fn symmetry(a in entry(), b in entry()) {
        let (da, db) = (reconcile(Some(&a), &b), reconcile(Some(&b), &a));
        let takes = |d: &Decision| matches!(d, Decision::Take { .. });
        prop_assert!(!(takes(&da) && takes(&db)), "both take: {da:?} and {db:?}");
        let (mut a, mut b) = (a, b);
        for _ in 0..3 {
            let (x, y) = (reconcile(Some(&a), &b), reconcile(Some(&b), &a));
            (a, b) = (after(Some(&a), x).unwrap(), after(Some(&b), y).unwrap());
        }
        prop_assert_eq!(&a.node, &b.node);
        prop_assert_eq!(&a.version, &b.version);
    }

    /// What was taken in is settled: looked at again, nothing is to be done on disk.
    #[test]
    fn idempotence(a in entry(), b in entry()) {
        prop_assert_eq!(reconcile(Some(&a), &a), Decision::InSync);
        let decision = reconcile(Some(&a), &b);
        let waits = decision == Decision::Await;
        let new = after(Some(&a), decision).unwrap();
        let again = reconcile(Some(&new), &b);
        match again {
            Decision::InSync | Decision::Older => {}
            Decision::Await => prop_assert!(waits),
            // Equal versions of different nodes, of which ours won.
            other => prop_assert!(false, "not settled: {other:?}"),
        }
    }

    /// A deletion that did not know of an edit never wins over it, here or there.
    #[test]
    fn delete_never_beats_edit(mut a in entry(), mut b in entry(), bytes in 0u8..3) {
        if !a.node.is_live() {
            a.node = file(bytes, 0o644);
        }
        b.node = Node::Tombstone;
        // Each did something that the other does not know.
        a.version = a.version.join(&Version::from_pairs([(device(4), 9)]));
        b.version = b.version.join(&Version::from_pairs([(device(5), 9)]));
        let here = after(Some(&a), reconcile(Some(&a), &b)).unwrap();
        let there = after(Some(&b), reconcile(Some(&b), &a)).unwrap();
        prop_assert_eq!(&here, &there);
        prop_assert_eq!(here.node, a.node);
    }

    /// Of several announcements the one looked at first does not depend on who announced it.
    #[test]
    fn best_of_two_is_symmetric(a in entry(), b in entry()) {
        let (x, y) = (device(8), device(9));
        let one = best(&[(x, a.clone()), (y, b.clone())]).unwrap().node.clone();
        let two = best(&[(x, b), (y, a)]).unwrap().node.clone();
        prop_assert_eq!(one, two);
    }

    /// A read-only member ends with what the others have, whatever it did itself.
    #[test]
    fn read_only_follows(ours in proptest::option::of(entry()), theirs in entry()) {
        let us = device(7);
        let own = ours.map(|mut e| {
            e.stamp.device = us;
            e.version = e.version.join(&Version::from_pairs([(us, 5)]));
            e
        });
        let decision = reconcile_read_only(own.as_ref(), &theirs, us);
        if decision != Decision::Older {
            prop_assert_eq!(after(own.as_ref(), decision).unwrap(), theirs);
        }
    }
}

/// One path on several devices.
struct Share {
    ours: Vec<Option<Entry>>,
    clocks: Vec<u64>,
    next: u8,
    written: BTreeSet<u8>,
    /// Bytes that somebody replaced or deleted who had them.
    replaced: BTreeSet<u8>,
    copies: BTreeSet<u8>,
}

fn bytes(entry: Option<&Entry>) -> Option<u8> {
    entry.and_then(|e| e.node.content()).map(|c| c.0[0])
}

#[derive(Debug, Clone)]
enum Step {
    /// A device writes new bytes, deletes, makes a folder or changes the mode.
    Edit(usize, u8),
    /// A device hears of another's entry.
    Tell(usize, usize),
    /// A clock jumps.
    Clock(usize, u64),
}

fn step(n: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..n, 0u8..8).prop_map(|(d, what)| Step::Edit(d, what)),
        4 => (0..n, 0..n).prop_map(|(a, b)| Step::Tell(a, b)),
        1 => (0..n, 1u64..50).prop_map(|(d, ms)| Step::Clock(d, ms)),
    ]
}

impl Share {
    fn new(n: usize) -> Self {
        Self {
            ours: vec![None; n],
            clocks: vec![10; n],
            next: 0,
            written: BTreeSet::new(),
            replaced: BTreeSet::new(),
            copies: BTreeSet::new(),
        }
    }

    fn edit(&mut self, d: usize, what: u8) {
        let old = self.ours[d].clone();
        let live = old.as_ref().is_some_and(|e| e.node.is_live());
        let node = match (what, old.as_ref().map(|e| &e.node)) {
            (0 | 1, _) if live => Node::Tombstone,
            (2, _) => Node::Dir { mode: 0o755 },
            (
                3,
                Some(Node::File {
                    mode,
                    mtime,
                    size,
                    content,
                }),
            ) => Node::File {
                mode: mode ^ 0o044,
                mtime: *mtime,
                size: *size,
                content: *content,
            },
            _ => {
                self.next += 1;
                self.written.insert(self.next);
                file(self.next, 0o644)
            }
        };
        let had = bytes(old.as_ref());
        if node.content().map(|c| c.0[0]) != had {
            self.replaced.extend(had);
        }
        let version =
            old.map(|e| e.version)
                .unwrap_or_default()
                .bump(device(d as u8), self.clocks[d], 0);
        self.clocks[d] += 1;
        let counter = version.counter(device(d as u8));
        self.ours[d] = Some(Entry {
            node,
            version,
            stamp: Stamp {
                counter,
                device: device(d as u8),
            },
        });
    }

    /// `to` hears of the entry of `from`; whether anything changed.
    fn tell(&mut self, from: usize, to: usize) -> bool {
        let Some(theirs) = self.ours[from].clone() else {
            return false;
        };
        let decision = reconcile(self.ours[to].as_ref(), &theirs);
        if let Decision::Take { conflict: true, .. } = decision {
            self.copies.extend(bytes(self.ours[to].as_ref()));
        }
        let new = after(self.ours[to].as_ref(), decision);
        let changed = new != self.ours[to];
        self.ours[to] = new;
        changed
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Any edits, any order of delivery, three or four devices: all end with the same entry, and
    /// no bytes are lost.
    #[test]
    fn convergence(
        (n, steps, order) in (3usize..5).prop_flat_map(|n| {
            (Just(n), vec(step(n), 0..40), vec((0..n, 0..n), 0..40))
        })
    ) {
        let mut share = Share::new(n);
        for step in steps {
            match step {
                Step::Edit(d, what) => share.edit(d, what),
                Step::Tell(a, b) => {
                    share.tell(a, b);
                }
                Step::Clock(d, ms) => share.clocks[d] = ms,
            }
        }
        for (a, b) in order {
            share.tell(a, b);
        }
        let mut rounds = 0;
        loop {
            let mut changed = false;
            for a in 0..n {
                for b in 0..n {
                    changed |= share.tell(a, b);
                }
            }
            if !changed {
                break;
            }
            rounds += 1;
            prop_assert!(rounds < 30, "no rest: {:?}", share.ours);
        }
        for d in 1..n {
            prop_assert_eq!(&share.ours[0], &share.ours[d]);
        }
        let last = bytes(share.ours[0].as_ref());
        for b in &share.written {
            let kept = last == Some(*b) || share.copies.contains(b) || share.replaced.contains(b);
            prop_assert!(kept, "bytes {} are lost; {:?}", b, share.ours[0]);
        }
    }
}
