//! One transaction of the index.

use std::collections::{HashMap, HashSet};

use left_core::entry::{Entry, FileStat, Kind, Record};
use left_core::index::{Cursor, Txn, Walk};
use left_core::path::RelPath;
use left_core::version::DeviceId;
use rusqlite::{Transaction, TransactionBehavior, params};

use super::StoreError;
use super::codec::encode;
use super::columns::{
    Known, TOP, broken, c4, cursor_sum, device_sum, dropped_sum, seal, table, theirs_table,
};
use super::journal::{Note, What};
use super::rows::{FoundBy, Rows, Stored};
use super::state::{State, need_size};
use crate::counters::INDEX_COMMITS;

/// Does all of `txn` or nothing, durably if it is more than hearsay; returns the state after it, and what
/// it changed where somebody wants to know. On an error the caller must drop what `rows` knows of devices.
pub(super) fn commit(
    rows: &Rows,
    before: &State,
    txn: &Txn,
    noting: bool,
) -> Result<(State, Vec<Note>), StoreError> {
    rows.set_durable(!txn.is_hearsay())?;
    let sql = Transaction::new_unchecked(&rows.conn, TransactionBehavior::Immediate)?;
    if rows.state()? != *before {
        // Numbers are given out from memory: two writers would give out the same ones.
        return Err(StoreError::Failed(
            "another process writes to this index".into(),
        ));
    }
    let mut work = Work {
        rows,
        state: *before,
        tops: HashMap::new(),
        were_away: HashSet::new(),
        notes: noting.then(Vec::new),
        any_dropped: rows.any_dropped()?,
    };
    work.forget(&txn.forget)?;
    for (peer, path) in &txn.theirs_del {
        work.theirs_del(*peer, path)?;
    }
    let asides: HashMap<&RelPath, bool> = txn.away.iter().map(|(p, away)| (p, *away)).collect();
    for (peer, path, entry) in &txn.theirs_put {
        work.theirs_put(*peer, path, entry, asides.get(path).copied())?;
    }
    for (path, away) in &txn.away {
        work.set_away(path, *away)?;
    }
    for (path, record) in &txn.put {
        work.put(path, record)?;
    }
    for path in &txn.drop {
        work.drop_record(path)?;
    }
    for (path, stat) in &txn.touch {
        work.touch(path, *stat)?;
    }
    for (peer, cursor) in &txn.cursors {
        work.cursor(*peer, *cursor)?;
    }
    work.state.floor = work.state.floor.max(txn.counter_floor.unwrap_or(0));
    work.store_tops()?;
    rows.set_state(&work.state)?;
    crash_point!("index-written");
    sql.commit()?;
    INDEX_COMMITS.add(1);
    crash_point!("index-committed");
    Ok((work.state, work.notes.unwrap_or_default()))
}

/// Whether each path of which peers announced something is away, and what it adds to the counts.
pub(super) fn for_each_need(
    rows: &Rows,
    mut each: impl FnMut(bool, Option<u64>),
) -> Result<(), StoreError> {
    const PAGE: usize = 1000;
    for away in [false, true] {
        let mut from: Option<RelPath> = None;
        loop {
            let page = match away {
                false => rows.needs(Walk::Up, from.as_ref(), PAGE)?,
                true => rows.away(&from.map(|p| p.key()).unwrap_or_default(), &TOP, PAGE)?,
            };
            for need in &page {
                each(away, need_size(need.theirs.iter().map(|(_, e)| e)));
            }
            match page.into_iter().last() {
                Some(last) => from = Some(last.path),
                None => break,
            }
        }
    }
    Ok(())
}

struct Work<'a> {
    rows: &'a Rows,
    state: State,
    /// Largest counter met in this transaction, of each device met.
    tops: HashMap<DeviceId, (Known, u64)>,
    /// Paths that were away and of which nothing is left: what comes in the same transaction is away too.
    were_away: HashSet<Vec<u8>>,
    /// What is changed, for the log; `None` when nobody keeps one.
    notes: Option<Vec<Note>>,
    /// Whether any path is noted as dropped.
    any_dropped: bool,
}

impl Work<'_> {
    /// The number of a device, given now if need be; takes note of the counter.
    fn number(&mut self, id: DeviceId, counter: u64) -> Result<u32, StoreError> {
        if id == self.state.device {
            self.state.floor = self.state.floor.max(counter);
        }
        if let Some((known, top)) = self.tops.get_mut(&id) {
            *top = counter.max(*top);
            return Ok(known.n);
        }
        let known = match self.rows.known(id)? {
            Some(known) => known,
            None => self.enroll(id)?,
        };
        self.tops.insert(id, (known, counter));
        Ok(known.n)
    }

    fn enroll(&self, id: DeviceId) -> Result<Known, StoreError> {
        let conn = &self.rows.conn;
        let n = conn
            .prepare_cached("SELECT coalesce(max(n), 0) + 1 FROM device")?
            .query_row([], |row| row.get(0))?;
        let known = Known { n, top: 0 };
        conn.prepare_cached("INSERT INTO device(n, id, top, sum) VALUES (?, ?, 0, ?)")?
            .execute(params![n, id.0, device_sum(id, known)])?;
        self.rows.remember(id, known);
        Ok(known)
    }

    fn store_tops(&mut self) -> Result<(), StoreError> {
        for (id, (known, top)) in self.tops.drain() {
            if top <= known.top {
                continue;
            }
            let known = Known { top, ..known };
            self.rows
                .conn
                .prepare_cached("UPDATE device SET top = ?, sum = ? WHERE n = ?")?
                .execute(params![top.cast_signed(), device_sum(id, known), known.n])?;
            self.rows.remember(id, known);
        }
        Ok(())
    }

    fn forget(&mut self, peers: &[DeviceId]) -> Result<(), StoreError> {
        let conn = &self.rows.conn;
        let mut gone = 0;
        for peer in peers {
            let Some(known) = self.rows.known(*peer)? else {
                continue;
            };
            // Reads all of `theirs`: a peer loses its index rarely, an index on the peer would cost
            // every announcement.
            gone += conn
                .prepare_cached("DELETE FROM theirs WHERE peer = ?")?
                .execute([known.n])?;
            conn.prepare_cached("DELETE FROM cursor WHERE peer = ?")?
                .execute([known.n])?;
        }
        if gone > 0 {
            self.rows.heard.clear();
            self.recount_needs()?;
        }
        Ok(())
    }

    fn recount_needs(&mut self) -> Result<(), StoreError> {
        let t = &mut self.state.totals;
        (t.need_files, t.need_bytes, t.away_files, t.away_bytes) = (0, 0, 0, 0);
        for_each_need(self.rows, |away, size| {
            self.state.count_need(away, None, size);
        })
    }

    /// What peers announced of a path.
    fn theirs(&self, key: &[u8]) -> Result<Vec<(DeviceId, Entry)>, StoreError> {
        self.rows.theirs(key, self.state.any_away())
    }

    /// Whether what peers announced of a path is away.
    fn is_away(&self, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.state.any_away() && self.rows.is_away(key)?)
    }

    fn theirs_del(&mut self, peer: DeviceId, path: &RelPath) -> Result<(), StoreError> {
        let Some(known) = self.rows.known(peer)? else {
            return Ok(());
        };
        let key = path.key();
        let mut all = self.theirs(&key)?;
        let before = need_size(all.iter().map(|(_, e)| e));
        all.retain(|(d, _)| *d != peer);
        let after = need_size(all.iter().map(|(_, e)| e));
        let away = self.is_away(&key)?;
        self.rows
            .conn
            .prepare_cached("DELETE FROM theirs WHERE away = ? AND key = ? AND peer = ?")?
            .execute(params![away, key, known.n])?;
        self.state.count_need(away, before, after);
        self.rows.heard.set(&key, all);
        if away && after.is_none() {
            self.were_away.insert(key);
        }
        Ok(())
    }

    /// `aside`: what becomes of the path in the same transaction, if that is said.
    fn theirs_put(
        &mut self,
        peer: DeviceId,
        path: &RelPath,
        entry: &Entry,
        aside: Option<bool>,
    ) -> Result<(), StoreError> {
        let key = path.key();
        let mut all = self.theirs(&key)?;
        let away = match (all.is_empty(), aside) {
            (true, Some(away)) => away,
            (true, None) => self.were_away.contains(&key),
            (false, _) => self.is_away(&key)?,
        };
        let before = need_size(all.iter().map(|(_, e)| e));
        match all.binary_search_by_key(&peer, |(d, _)| *d) {
            Ok(at) => all[at].1 = entry.clone(),
            Err(at) => all.insert(at, (peer, entry.clone())),
        }
        let after = need_size(all.iter().map(|(_, e)| e));
        self.insert_theirs(peer, &key, entry, away)?;
        self.rows.heard.set(&key, all);
        self.state.count_need(away, before, after);
        Ok(())
    }

    fn insert_theirs(
        &mut self,
        peer: DeviceId,
        key: &[u8],
        entry: &Entry,
        away: bool,
    ) -> Result<(), StoreError> {
        let n = self.number(peer, 0)?;
        let body = encode(entry, None, |d, c| self.number(d, c))?;
        let rec = seal(theirs_table(away), key, u64::from(n), body);
        self.rows
            .conn
            .prepare_cached(
                "INSERT OR REPLACE INTO theirs(away, key, peer, rec) VALUES (?, ?, ?, ?)",
            )?
            .execute(params![away, key, n, rec])?;
        Ok(())
    }

    fn set_away(&mut self, path: &RelPath, away: bool) -> Result<(), StoreError> {
        let key = path.key();
        let all = self.theirs(&key)?;
        if all.is_empty() || self.is_away(&key)? == away {
            return Ok(());
        }
        self.rows
            .conn
            .prepare_cached("DELETE FROM theirs WHERE away = ? AND key = ?")?
            .execute(params![!away, key])?;
        let size = need_size(all.iter().map(|(_, e)| e));
        for (peer, entry) in &all {
            self.insert_theirs(*peer, &key, entry, away)?;
        }
        self.state.count_need(!away, size, None);
        self.state.count_need(away, None, size);
        Ok(())
    }

    /// Forgets a record; its place in the numbers says that it was dropped.
    fn drop_record(&mut self, path: &RelPath) -> Result<(), StoreError> {
        let key = path.key();
        if let Some(old) = self.rows.stored(&key)? {
            self.state.count(old.kind, old.size, false);
            self.rows
                .prepare("DELETE FROM entry WHERE id = ?")?
                .execute([old.id])?;
        }
        self.state.head += 1;
        let seq = self.state.head;
        self.any_dropped = true;
        self.rows
            .prepare("INSERT OR REPLACE INTO dropped(seq, key, sum) VALUES (?, ?, ?)")?
            .execute(params![seq.cast_signed(), key, dropped_sum(seq, &key)])?;
        Ok(())
    }

    fn put(&mut self, path: &RelPath, record: &Record) -> Result<(), StoreError> {
        let key = path.key();
        let node = &record.entry.node;
        let old = self.rows.stored(&key)?;
        if let Some(old) = &old {
            self.state.count(old.kind, old.size, false);
        }
        self.state.count(node.kind(), node.size(), true);
        if self.notes.is_some() {
            self.note(path, record, old.as_ref())?;
        }
        self.state.head += 1;
        let seq = self.state.head;
        let found_by = FoundBy::of(node, record.stat);
        let body = encode(&record.entry, record.stat.as_ref(), |d, c| {
            self.number(d, c)
        })?;
        let rec = seal(table::ENTRY, &key, seq, body);
        match old {
            Some(old) => self.replace(&old, Some(seq), found_by, &rec),
            None => {
                if self.any_dropped {
                    self.rows
                        .prepare("DELETE FROM dropped WHERE key = ?")?
                        .execute([&key])?;
                }
                self.rows
                    .prepare("INSERT INTO entry(seq, key, c4, ino, rec) VALUES (?, ?, ?, ?, ?)")?
                    .execute(params![
                        seq.cast_signed(),
                        key,
                        found_by.c4,
                        found_by.ino,
                        rec
                    ])?;
                Ok(())
            }
        }
    }

    /// Notes what a new record changes; nothing where the bytes stay as they are.
    fn note(
        &mut self,
        path: &RelPath,
        record: &Record,
        old: Option<&Stored>,
    ) -> Result<(), StoreError> {
        let entry = &record.entry;
        let (node, was) = (&entry.node, old.map_or(Kind::Tombstone, |old| old.kind));
        let tag = node.content().map(|c| c4(&c));
        let old_tag = old.and_then(|old| old.found_by.c4);
        let note = |what, kind, size, tag| Note {
            path: path.clone(),
            what,
            kind,
            size,
            tag,
            device: entry.stamp.device,
            edited_ms: entry.stamp.counter,
        };
        let old_size = old.map_or(0, |old| old.size);
        let new = match (was, node.kind()) {
            (Kind::Tombstone, Kind::Tombstone) | (Kind::Dir, Kind::Dir) => return Ok(()),
            (Kind::Tombstone, kind) => note(What::Created, kind, node.size(), tag),
            (kind, Kind::Tombstone) => note(What::Deleted, kind, old_size, old_tag),
            (Kind::File, Kind::File) if tag == old_tag && node.size() == old_size => return Ok(()),
            (Kind::Symlink, Kind::Symlink) => {
                let before = self.rows.get(&path.key())?;
                if before.is_some_and(|(_, r)| r.entry.node.same_bytes(node)) {
                    return Ok(());
                }
                note(What::Changed, Kind::Symlink, 0, None)
            }
            (_, kind) => note(What::Changed, kind, node.size(), tag),
        };
        self.notes.get_or_insert_default().push(new);
        Ok(())
    }

    /// Writes over a record. Names only columns that change: SQLite writes the index of each column
    /// that a statement names. Without `seq` that stays.
    fn replace(
        &self,
        old: &Stored,
        seq: Option<u64>,
        found_by: FoundBy,
        rec: &[u8],
    ) -> Result<(), StoreError> {
        let (id, seq) = (old.id, seq.map(u64::cast_signed));
        let FoundBy { c4, ino } = found_by;
        let rows = self.rows;
        let changed = match (seq, old.found_by == found_by) {
            (None, true) => rows
                .prepare("UPDATE entry SET rec = ? WHERE id = ?")?
                .execute(params![rec, id])?,
            (None, false) => rows
                .prepare("UPDATE entry SET rec = ?, c4 = ?, ino = ? WHERE id = ?")?
                .execute(params![rec, c4, ino, id])?,
            (Some(seq), true) => rows
                .prepare("UPDATE entry SET rec = ?, seq = ? WHERE id = ?")?
                .execute(params![rec, seq, id])?,
            (Some(seq), false) => rows
                .prepare("UPDATE entry SET rec = ?, seq = ?, c4 = ?, ino = ? WHERE id = ?")?
                .execute(params![rec, seq, c4, ino, id])?,
        };
        if changed == 1 {
            Ok(())
        } else {
            Err(broken("a record is listed but missing"))
        }
    }

    /// A path without a live record is passed over: there is nothing that `lstat` could have seen.
    fn touch(&mut self, path: &RelPath, stat: FileStat) -> Result<(), StoreError> {
        let key = path.key();
        let Some((seq, Record { entry, .. })) = self.rows.get(&key)? else {
            return Ok(());
        };
        if !entry.node.is_live() {
            return Ok(());
        }
        let Some(old) = self.rows.stored(&key)? else {
            return Err(broken("a record is there and not there"));
        };
        let body = encode(&entry, Some(&stat), |d, c| self.number(d, c))?;
        let rec = seal(table::ENTRY, &key, seq, body);
        self.replace(&old, None, FoundBy::of(&entry.node, Some(stat)), &rec)
    }

    fn cursor(&mut self, peer: DeviceId, cursor: Cursor) -> Result<(), StoreError> {
        let n = self.number(peer, 0)?;
        self.rows
            .conn
            .prepare_cached(
                "INSERT OR REPLACE INTO cursor(peer, epoch, seq, sum) VALUES (?, ?, ?, ?)",
            )?
            .execute(params![
                n,
                cursor.epoch.cast_signed(),
                cursor.seq.cast_signed(),
                cursor_sum(n, cursor)
            ])?;
        Ok(())
    }
}
