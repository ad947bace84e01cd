//! A simple index in maps, and random transactions to compare the real one with it.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use left_core::content::ContentId;
use left_core::entry::{Entry, FileStat, Kind, Mtime, Node, Record, Stamp};
use left_core::index::{Cursor, Epoch, Index, IndexError, Need, Totals, Txn, Walk};
use left_core::path::RelPath;
use left_core::version::{DeviceId, Version};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::{Index as Pick, select};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::IndexDb;
use super::contract::{self, dump};

/// The `n`th device of the tests; 0 is ours.
pub(super) fn device(n: u8) -> DeviceId {
    let mut id = [0x55; 32];
    id[0] = n;
    DeviceId(id)
}

/// The contract's reference: obviously right, and slow.
pub(super) struct Model {
    ours: BTreeMap<RelPath, (u64, Record)>,
    theirs: BTreeMap<(RelPath, DeviceId), Entry>,
    away: BTreeSet<RelPath>,
    dropped: BTreeMap<u64, RelPath>,
    cursors: BTreeMap<DeviceId, Cursor>,
    tops: BTreeMap<DeviceId, u64>,
    head: u64,
    floor: u64,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            ours: BTreeMap::new(),
            theirs: BTreeMap::new(),
            away: BTreeSet::new(),
            dropped: BTreeMap::new(),
            cursors: BTreeMap::new(),
            tops: BTreeMap::new(),
            head: 0,
            floor: 0,
        }
    }

    fn saw(&mut self, entry: &Entry) {
        let stamp = (entry.stamp.device, entry.stamp.counter);
        for (d, c) in entry.version.pairs().iter().copied().chain([stamp]) {
            let top = self.tops.entry(d).or_default();
            *top = c.max(*top);
        }
        self.floor = self
            .floor
            .max(self.tops.get(&device(0)).copied().unwrap_or(0));
    }

    fn live(&self) -> impl Iterator<Item = (RelPath, Record)> {
        self.ours
            .iter()
            .filter(|(_, (_, r))| r.entry.node.is_live())
            .map(|(p, (_, r))| (p.clone(), r.clone()))
    }

    fn files(&self) -> impl Iterator<Item = (RelPath, Record)> {
        self.live()
            .filter(|(_, r)| r.entry.node.kind() == Kind::File)
    }

    fn grouped(&self, away: bool) -> Vec<Need> {
        let mut all = self.all_grouped();
        all.retain(|n| self.away.contains(&n.path) == away);
        all
    }

    fn all_grouped(&self) -> Vec<Need> {
        let mut out: Vec<Need> = Vec::new();
        for ((path, d), e) in &self.theirs {
            match out.last_mut() {
                Some(n) if n.path == *path => n.theirs.push((*d, e.clone())),
                _ => out.push(Need {
                    path: path.clone(),
                    theirs: vec![(*d, e.clone())],
                }),
            }
        }
        out
    }
}

impl Index for Model {
    fn epoch(&self) -> Epoch {
        1
    }
    fn former(&self) -> &[Cursor] {
        &[]
    }
    fn head(&self) -> u64 {
        self.head
    }
    fn counter_floor(&self) -> u64 {
        self.floor
    }
    fn max_counter(&self, device: DeviceId) -> Result<u64, IndexError> {
        Ok(self.tops.get(&device).copied().unwrap_or(0))
    }
    fn get(&self, path: &RelPath) -> Result<Option<Record>, IndexError> {
        Ok(self.ours.get(path).map(|(_, r)| r.clone()))
    }
    fn live_after(
        &self,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        let beyond = |p: &RelPath| after.is_none_or(|a| p > a);
        Ok(self.live().filter(|(p, _)| beyond(p)).take(limit).collect())
    }
    fn live_below(
        &self,
        dir: &RelPath,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        Ok(self
            .live()
            .filter(|(p, _)| p.is_below(dir) && after.is_none_or(|a| p > a))
            .take(limit)
            .collect())
    }
    fn by_content(
        &self,
        content: &ContentId,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        Ok(self
            .files()
            .filter(|(_, r)| r.entry.node.content() == Some(*content))
            .take(limit)
            .collect())
    }
    fn by_inode(
        &self,
        ino: u64,
        size: u64,
        mtime: Mtime,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        let hit = |s: FileStat| s.ino == ino && s.size == size && s.mtime == mtime;
        Ok(self
            .files()
            .filter(|(_, r)| r.stat.is_some_and(hit))
            .collect())
    }
    fn changes_since(
        &self,
        seq: u64,
        limit: usize,
    ) -> Result<Vec<(u64, RelPath, Record)>, IndexError> {
        let mut all: Vec<_> = self
            .ours
            .iter()
            .filter(|(_, (s, _))| *s > seq)
            .map(|(p, (s, r))| (*s, p.clone(), r.clone()))
            .collect();
        all.sort_by_key(|(s, ..)| *s);
        all.truncate(limit);
        Ok(all)
    }
    fn dropped_since(&self, seq: u64, limit: usize) -> Result<Vec<(u64, RelPath)>, IndexError> {
        let beyond = self.dropped.range(seq.saturating_add(1)..).take(limit);
        Ok(beyond.map(|(n, p)| (*n, p.clone())).collect())
    }
    fn cursor(&self, peer: DeviceId) -> Result<Cursor, IndexError> {
        Ok(self.cursors.get(&peer).copied().unwrap_or_default())
    }
    fn theirs(&self, path: &RelPath) -> Result<Vec<(DeviceId, Entry)>, IndexError> {
        let mine = self.theirs.iter().filter(|((p, _), _)| p == path);
        Ok(mine.map(|((_, d), e)| (*d, e.clone())).collect())
    }
    fn needs(
        &self,
        walk: Walk,
        from: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<Need>, IndexError> {
        let mut all = self.grouped(false);
        match walk {
            Walk::Up => all.retain(|n| from.is_none_or(|f| n.path > *f)),
            Walk::Down => {
                all.reverse();
                all.retain(|n| from.is_none_or(|f| n.path < *f));
            }
        }
        all.truncate(limit);
        Ok(all)
    }
    fn needs_below(&self, dir: &RelPath) -> Result<bool, IndexError> {
        Ok(self.grouped(false).iter().any(|n| n.path.is_below(dir)))
    }
    fn away(&self, after: Option<&RelPath>, limit: usize) -> Result<Vec<Need>, IndexError> {
        let mut all = self.grouped(true);
        all.retain(|n| after.is_none_or(|a| n.path > *a));
        all.truncate(limit);
        Ok(all)
    }
    fn totals(&self) -> Result<Totals, IndexError> {
        let count = |k| {
            self.live()
                .filter(|(_, r)| r.entry.node.kind() == k)
                .count() as u64
        };
        let needs = self.grouped(false);
        let away = self.grouped(true);
        let latest = |n: &Need| {
            let last = n
                .theirs
                .iter()
                .max_by_key(|(_, e)| (e.stamp, e.node.size()));
            last.map_or(0, |(_, e)| e.node.size())
        };
        Ok(Totals {
            files: count(Kind::File),
            dirs: count(Kind::Dir),
            links: count(Kind::Symlink),
            bytes: self.live().map(|(_, r)| r.entry.node.size()).sum(),
            need_files: needs.len() as u64,
            need_bytes: needs.iter().map(latest).sum(),
            away_files: away.len() as u64,
            away_bytes: away.iter().map(latest).sum(),
        })
    }
    fn commit(&mut self, txn: Txn) -> Result<u64, IndexError> {
        for peer in &txn.forget {
            self.theirs.retain(|(_, d), _| d != peer);
            self.cursors.remove(peer);
        }
        let theirs = &self.theirs;
        self.away
            .retain(|p| theirs.keys().any(|(known, _)| known == p));
        for (peer, path) in txn.theirs_del {
            self.theirs.remove(&(path, peer));
        }
        for (peer, path, entry) in txn.theirs_put {
            self.saw(&entry);
            self.theirs.insert((path, peer), entry);
        }
        for (path, away) in txn.away {
            match away {
                true => self.away.insert(path),
                false => self.away.remove(&path),
            };
        }
        let theirs = &self.theirs;
        self.away
            .retain(|p| theirs.keys().any(|(known, _)| known == p));
        for (path, record) in txn.put {
            self.saw(&record.entry);
            self.head += 1;
            self.dropped.retain(|_, p| *p != path);
            self.ours.insert(path, (self.head, record));
        }
        for path in txn.drop {
            self.head += 1;
            self.ours.remove(&path);
            self.dropped.retain(|_, p| *p != path);
            self.dropped.insert(self.head, path);
        }
        for (path, stat) in txn.touch {
            if let Some((_, r)) = self.ours.get_mut(&path)
                && r.entry.node.is_live()
            {
                r.stat = Some(stat);
            }
        }
        self.cursors.extend(txn.cursors);
        self.floor = self.floor.max(txn.counter_floor.unwrap_or(0));
        Ok(self.head)
    }
}

/// Paths from a small alphabet, so that they meet; with bytes next to `/` and beyond UTF-8.
pub(super) fn arb_path() -> impl Strategy<Value = RelPath> {
    let name = select(vec![&b"a"[..], b"b", b"a\x01", b"a.b", b"\xff", b"a b"]);
    vec(name, 1..4).prop_map(|parts| RelPath::new(parts.join(&b'/')).unwrap())
}

fn arb_time() -> impl Strategy<Value = Mtime> {
    let secs = prop_oneof![Just(0), -5i64..5, any::<i64>()];
    (secs, 0u32..1_000_000_000).prop_map(|(secs, nanos)| Mtime { secs, nanos })
}

fn arb_content() -> impl Strategy<Value = ContentId> {
    // Some agree in the first 8 bytes, by which they are looked up.
    (0u8..3, 0u8..2).prop_map(|(a, b)| {
        let mut id = [a; 32];
        id[31] = b;
        ContentId(id)
    })
}

fn arb_node() -> impl Strategy<Value = Node> {
    let mode = 0u32..0o10000;
    prop_oneof![
        Just(Node::Tombstone),
        mode.clone().prop_map(|mode| Node::Dir { mode }),
        (arb_time(), vec(any::<u8>(), 1..20))
            .prop_map(|(mtime, target)| Node::Symlink { mtime, target }),
        (mode, arb_time(), 0u64..1 << 46, arb_content()).prop_map(
            |(mode, mtime, size, content)| Node::File {
                mode,
                mtime,
                size,
                content
            }
        ),
    ]
}

fn arb_entry() -> impl Strategy<Value = Entry> {
    let pair = || (0u8..5, 1u64..1 << 56).prop_map(|(d, c)| (device(d), c));
    (arb_node(), vec(pair(), 0..4), pair()).prop_map(|(node, pairs, (d, counter))| Entry {
        node,
        version: Version::from_pairs(pairs),
        stamp: Stamp { counter, device: d },
    })
}

fn arb_stat() -> impl Strategy<Value = FileStat> {
    let ino = prop_oneof![1u64..4, any::<u64>()];
    (ino, 0u64..3, arb_time(), arb_time(), 0u32..0o10000).prop_map(
        |(ino, size, mtime, ctime, mode)| FileStat {
            ino,
            size,
            mtime,
            ctime,
            mode,
        },
    )
}

/// Any record; half of those of files have the stat that follows from the node.
pub(super) fn arb_record() -> impl Strategy<Value = Record> {
    (arb_entry(), arb_stat(), any::<bool>()).prop_map(|(entry, mut stat, agree)| {
        if let (
            true,
            Node::File {
                mode, mtime, size, ..
            },
        ) = (agree, &entry.node)
        {
            (stat.mode, stat.mtime, stat.size) = (*mode, *mtime, *size);
        }
        let stat = entry.node.is_live().then_some(stat);
        Record { entry, stat }
    })
}

fn arb_txn() -> impl Strategy<Value = Txn> {
    let peer = || (1u8..4).prop_map(device);
    let cursor = (any::<u64>(), any::<u64>()).prop_map(|(epoch, seq)| Cursor { epoch, seq });
    (
        vec((arb_path(), arb_record()), 0..6),
        vec((arb_path(), arb_stat()), 0..3),
        vec((peer(), arb_path(), arb_entry()), 0..6),
        vec((peer(), arb_path()), 0..4),
        vec((peer(), cursor), 0..2),
        option::weighted(0.1, peer()),
        option::of(0u64..1 << 56),
        (
            vec(arb_path(), 0..3),
            vec((arb_path(), any::<bool>()), 0..4),
        ),
    )
        .prop_map(
            |(mut put, touch, theirs_put, theirs_del, cursors, forget, floor, (mut drop, away))| {
                drop.sort();
                drop.dedup();
                drop.retain(|p| put.iter().all(|(q, _)| p != q));
                let counter_floor = floor;
                put.sort_by(|a, b| a.0.cmp(&b.0));
                put.dedup_by(|a, b| a.0 == b.0);
                Txn {
                    put,
                    drop,
                    away,
                    touch,
                    theirs_put,
                    theirs_del,
                    cursors,
                    forget: forget.into_iter().collect(),
                    counter_floor,
                }
            },
        )
}

/// A commit, or closing and opening again.
fn arb_steps() -> impl Strategy<Value = Vec<Option<Txn>>> {
    vec(option::weighted(0.9, arb_txn()), 1..12)
}

#[test]
fn the_model_keeps_the_contract() {
    contract::contract(Model::new);
}

#[test]
fn agrees_with_the_model() {
    let mut runner = TestRunner::new(Config::with_cases(60));
    let paths: Vec<RelPath> = ["a", "b", "a/a", "a.b", "a/b/a", "a\u{1}", "a/a\u{1}/b"]
        .map(|p| RelPath::new(p).unwrap())
        .to_vec();
    runner
        .run(&(arb_steps(), any::<Pick>()), |(steps, pick)| {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("index.db");
            let mut db = IndexDb::open(&file, device(0)).unwrap().0;
            let mut model = Model::new();
            for step in steps {
                match step {
                    Some(txn) => {
                        let head = model.commit(txn.clone()).unwrap();
                        assert_eq!(db.commit(txn).unwrap(), head);
                    }
                    None => {
                        drop(db);
                        let (again, opened) = IndexDb::open(&file, device(0)).unwrap();
                        assert_eq!(opened.rebuilt, None);
                        db = again;
                    }
                }
                let devices = [0, 1, 2, 3, 4].map(device);
                assert_eq!(dump(&db, &devices), dump(&model, &devices));
                same_walks(&db, &model, pick.get(&paths));
            }
            db.verify().unwrap();
            Ok::<(), TestCaseError>(())
        })
        .unwrap();
}

/// The walks below, from and around one path, with small limits; and those of a reader.
fn same_walks(db: &IndexDb, model: &Model, path: &RelPath) {
    for limit in [0, 1, 2, 100] {
        for after in [None, Some(path)] {
            let dir = path.parent();
            if let Some(dir) = &dir {
                assert_eq!(
                    db.live_below(dir, after, limit).unwrap(),
                    model.live_below(dir, after, limit).unwrap()
                );
            }
            for walk in [Walk::Up, Walk::Down] {
                assert_eq!(
                    db.needs(walk, after, limit).unwrap(),
                    model.needs(walk, after, limit).unwrap()
                );
            }
            let reader = db.reader().unwrap();
            let beyond = |p: &RelPath| after.is_none_or(|a| p > a);
            let all: Vec<_> = model
                .live()
                .filter(|(p, _)| beyond(p))
                .take(limit)
                .collect();
            assert_eq!(reader.live_in_order(after, limit).unwrap(), all);
            for dir in [None, dir, Some(path.clone())] {
                // `after` of `children_after` is a child of the folder.
                let after = after.filter(|a| a.parent() == dir);
                let beyond = |p: &RelPath| after.is_none_or(|a| p > a);
                let all: Vec<_> = model
                    .live()
                    .filter(|(p, _)| p.parent() == dir && beyond(p))
                    .take(limit)
                    .collect();
                assert_eq!(
                    reader.children_after(dir.as_ref(), after, limit).unwrap(),
                    all
                );
            }
        }
    }
    assert_eq!(
        db.needs_below(path).unwrap(),
        model.needs_below(path).unwrap()
    );
}
