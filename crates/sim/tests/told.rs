//! How a device tells its index: in few entries at first, but what goes with what comes.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

use left_core::entry::{Entry, Node, Record, Stamp};
use left_core::index::{Cursor, Index, Txn};
use left_core::message::{Control, Progress, Role, Start};
use left_core::path::RelPath;
use left_core::session::Session;
use left_core::version::{DeviceId, Version};
use left_sim::index::FakeIndex;

const US: DeviceId = DeviceId([1; 32]);
const PEER: DeviceId = DeviceId([2; 32]);

fn record(node: Node, counter: u64) -> Record {
    Record {
        entry: Entry {
            node,
            version: Version::from_pairs([(US, counter)]),
            stamp: Stamp {
                counter,
                device: US,
            },
        },
        stat: None,
    }
}

/// Adds paths `name0`, `name1` … of which all stand there, or none does any more.
fn add(index: &mut FakeIndex, name: &str, count: usize, live: bool) {
    let at = index.head();
    let put = (0..count).map(|n| {
        let path = RelPath::new(format!("{name}{n}")).unwrap();
        let node = match live {
            true => Node::Dir { mode: 0o755 },
            false => Node::Tombstone,
        };
        (path, record(node, at + n as u64 + 1))
    });
    let txn = Txn {
        put: put.collect(),
        ..Txn::default()
    };
    index.commit(txn).unwrap();
}

/// A session with a peer that knows nothing.
fn session(index: &FakeIndex) -> Session {
    let (mut session, _) = Session::open(PEER, Role::ReadWrite, index.head(), index).unwrap();
    let start = Start {
        epoch: 9,
        former: Vec::new(),
        head: 0,
        known: Cursor::default(),
        your_counter: 0,
    };
    session.start(&start, index);
    session
}

/// The numbers of entries in the messages that tell all there is.
fn told(session: &mut Session, index: &FakeIndex) -> Vec<usize> {
    let mut counts = Vec::new();
    while let Some(told) = session.next_index(index).unwrap() {
        let Control::Index(batch) = told else {
            panic!("not an Index: {told:?}")
        };
        assert_eq!(batch.more, batch.upto < index.head());
        counts.push(batch.entries.len());
        session.ready();
    }
    counts
}

#[test]
fn the_first_message_is_short_and_each_that_follows_twice_as_long() {
    let mut index = FakeIndex::new(US, 1);
    add(&mut index, "a", 4000, true);
    let mut session = session(&index);
    assert_eq!(
        told(&mut session, &index),
        [100, 200, 400, 800, 1000, 1000, 500]
    );
    // As long as something is under way the next one is as long as it may be.
    add(&mut index, "b", 1500, true);
    assert_eq!(told(&mut session, &index), [1000, 500]);
    session.progress = Some(Progress {
        your_seq: index.head(),
        ..Progress::default()
    });
    add(&mut index, "c", 250, true);
    assert_eq!(told(&mut session, &index), [100, 150]);
}

#[test]
fn what_goes_is_told_with_what_comes() {
    let mut index = FakeIndex::new(US, 1);
    add(&mut index, "a", 300, true);
    let mut session = session(&index);
    add(&mut index, "b", 300, true);
    add(&mut index, "a", 300, false);
    assert_eq!(told(&mut session, &index), [600]);
}
