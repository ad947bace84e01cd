//! Reading the index' tables: what [`IndexDb`](super::IndexDb) and
//! [`IndexReader`](super::IndexReader) have in common.

use std::cell::RefCell;
use std::collections::HashMap;

use left_core::content::ContentId;
use left_core::entry::{Entry, Kind, Mtime, Node, Record};
use left_core::index::{Cursor, Need, Totals, Walk};
use left_core::path::RelPath;
use left_core::version::DeviceId;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};

use super::StoreError;
use super::codec::{SUM_LEN, decode, peek, sum};

/// The tables. `entry.seq` is the rowid: new records are appended, and
/// [`changes_since`](left_core::index::Index::changes_since) reads one run of pages. `c8` (the first
/// 8 bytes of the content id) and `ino` stand only for live files and only to find them; the truth
/// is in `rec` (see `codec`). Keys are [`RelPath::key`], so byte order is tree order.
pub(super) const SCHEMA: &str = "
CREATE TABLE meta(id INTEGER PRIMARY KEY, device BLOB NOT NULL, epoch INTEGER NOT NULL, head INTEGER NOT NULL, floor INTEGER NOT NULL, clean INTEGER NOT NULL, files INTEGER NOT NULL, dirs INTEGER NOT NULL, links INTEGER NOT NULL, bytes INTEGER NOT NULL, need_files INTEGER NOT NULL, need_bytes INTEGER NOT NULL, sum BLOB NOT NULL);
CREATE TABLE device(n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, top INTEGER NOT NULL, sum BLOB NOT NULL);
CREATE TABLE cursor(peer INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, sum BLOB NOT NULL);
CREATE TABLE entry(seq INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, c8 INTEGER, ino INTEGER, rec BLOB NOT NULL);
CREATE INDEX entry_c8 ON entry(c8) WHERE c8 IS NOT NULL;
CREATE INDEX entry_ino ON entry(ino) WHERE ino IS NOT NULL;
CREATE TABLE theirs(key BLOB NOT NULL, peer INTEGER NOT NULL, rec BLOB NOT NULL, PRIMARY KEY(key, peer)) WITHOUT ROWID;
";

/// Which table a checksum belongs to.
pub(super) mod table {
    pub(in crate::store) const META: u8 = 1;
    pub(in crate::store) const DEVICE: u8 = 2;
    pub(in crate::store) const CURSOR: u8 = 3;
    pub(in crate::store) const ENTRY: u8 = 4;
    pub(in crate::store) const THEIRS: u8 = 5;
}

/// Sorts above every key: no name has more than 255 bytes.
const TOP: [u8; 256] = [0xff; 256];
/// Devices kept in memory; beyond that they are looked up again.
const MAX_KNOWN: usize = 4096;

/// The one row of `meta`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct State {
    pub(super) device: DeviceId,
    pub(super) epoch: u64,
    pub(super) head: u64,
    pub(super) floor: u64,
    /// Whether the database was closed in order; the log may be missing only then.
    pub(super) clean: bool,
    pub(super) totals: Totals,
}

impl State {
    fn numbers(&self) -> [u64; 10] {
        let t = &self.totals;
        [
            self.epoch,
            self.head,
            self.floor,
            u64::from(self.clean),
            t.files,
            t.dirs,
            t.links,
            t.bytes,
            t.need_files,
            t.need_bytes,
        ]
    }

    fn sum(&self) -> [u8; SUM_LEN] {
        let numbers: Vec<u8> = self
            .numbers()
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .collect();
        sum(table::META, &[&self.device.0, &numbers])
    }

    /// Adds (`sign` +1) or takes away (-1) one record of ours.
    pub(super) fn count(&mut self, kind: Kind, size: u64, add: bool) {
        let t = &mut self.totals;
        let slot = match kind {
            Kind::File => &mut t.files,
            Kind::Dir => &mut t.dirs,
            Kind::Symlink => &mut t.links,
            Kind::Tombstone => return,
        };
        *slot = step(*slot, 1, add);
        t.bytes = step(t.bytes, size, add);
    }

    /// Replaces what one path adds to the needs.
    pub(super) fn count_need(&mut self, before: Option<u64>, after: Option<u64>) {
        let t = &mut self.totals;
        for (size, add) in [(before, false), (after, true)] {
            if let Some(size) = size {
                t.need_files = step(t.need_files, 1, add);
                t.need_bytes = step(t.need_bytes, size, add);
            }
        }
    }
}

fn step(n: u64, by: u64, add: bool) -> u64 {
    if add {
        n.wrapping_add(by)
    } else {
        n.wrapping_sub(by)
    }
}

/// What a path adds to [`Totals::need_bytes`]: the file size of the announcement with the latest
/// stamp (0 if that is no file; the larger one if stamps are equal). `None` without announcements.
pub(super) fn need_size<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Option<u64> {
    entries
        .into_iter()
        .max_by_key(|e| (e.stamp, e.node.size()))
        .map(|e| e.node.size())
}

/// A device as numbered in this index.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) n: u32,
    /// Largest counter seen.
    pub(super) top: u64,
}

#[derive(Default)]
struct Devices {
    by_id: HashMap<DeviceId, Known>,
    by_n: HashMap<u32, DeviceId>,
}

/// A connection to an index and the devices it knows.
pub(super) struct Rows {
    pub(super) conn: Connection,
    devices: RefCell<Devices>,
}

impl Rows {
    pub(super) fn new(conn: Connection) -> Self {
        Self {
            conn,
            devices: RefCell::default(),
        }
    }

    fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>, StoreError> {
        Ok(self.conn.prepare_cached(sql)?)
    }

    pub(super) fn state(&self) -> Result<State, StoreError> {
        let mut q = self.prepare(
            "SELECT device, sum, epoch, head, floor, clean, files, dirs, links, bytes, need_files, \
             need_bytes FROM meta WHERE id = 1",
        )?;
        let mut rows = q.query([])?;
        let row = rows.next()?.ok_or_else(|| broken("its state is missing"))?;
        let n = |at: usize| -> Result<u64, StoreError> { int(row, at + 2) };
        let state = State {
            device: DeviceId(array(row, 0)?),
            epoch: n(0)?,
            head: n(1)?,
            floor: n(2)?,
            clean: n(3)? != 0,
            totals: Totals {
                files: n(4)?,
                dirs: n(5)?,
                links: n(6)?,
                bytes: n(7)?,
                need_files: n(8)?,
                need_bytes: n(9)?,
            },
        };
        if array::<SUM_LEN>(row, 1)? != state.sum() || state.epoch == 0 {
            return Err(broken("its state does not match its checksum"));
        }
        Ok(state)
    }

    pub(super) fn set_state(&self, s: &State) -> Result<(), StoreError> {
        let [
            epoch,
            head,
            floor,
            clean,
            files,
            dirs,
            links,
            bytes,
            need_files,
            need_bytes,
        ] = s.numbers().map(u64::cast_signed);
        self.prepare(
            "INSERT OR REPLACE INTO meta(id, device, sum, epoch, head, floor, clean, files, dirs, \
             links, bytes, need_files, need_bytes) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            s.device.0,
            s.sum(),
            epoch,
            head,
            floor,
            clean,
            files,
            dirs,
            links,
            bytes,
            need_files,
            need_bytes
        ])?;
        Ok(())
    }

    /// Forgets the numbering: a transaction that gave out numbers was undone.
    pub(super) fn forget_devices(&self) {
        *self.devices.borrow_mut() = Devices::default();
    }

    pub(super) fn remember(&self, id: DeviceId, known: Known) {
        let mut d = self.devices.borrow_mut();
        if d.by_n.len() >= MAX_KNOWN {
            *d = Devices::default();
        }
        d.by_id.insert(id, known);
        d.by_n.insert(known.n, id);
    }

    /// The number of a device, if it has one.
    pub(super) fn known(&self, id: DeviceId) -> Result<Option<Known>, StoreError> {
        if let Some(k) = self.devices.borrow().by_id.get(&id) {
            return Ok(Some(*k));
        }
        let mut q = self.prepare("SELECT n, top, sum FROM device WHERE id = ?")?;
        let mut rows = q.query([&id.0])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let known = Known {
            n: small(row, 0)?,
            top: int(row, 1)?,
        };
        check_device(id, known, array(row, 2)?)?;
        self.remember(id, known);
        Ok(Some(known))
    }

    /// The device with this number.
    pub(super) fn device(&self, n: u32) -> Result<DeviceId, StoreError> {
        if let Some(id) = self.devices.borrow().by_n.get(&n) {
            return Ok(*id);
        }
        let mut q = self.prepare("SELECT id, top, sum FROM device WHERE n = ?")?;
        let mut rows = q.query([n])?;
        let row = rows.next()?.ok_or_else(|| broken("a device is missing"))?;
        let id = DeviceId(array(row, 0)?);
        let known = Known {
            n,
            top: int(row, 1)?,
        };
        check_device(id, known, array(row, 2)?)?;
        self.remember(id, known);
        Ok(id)
    }

    fn record(&self, key: &[u8], seq: u64, rec: &[u8]) -> Result<Record, StoreError> {
        let body = checked(table::ENTRY, key, seq, rec)?;
        decode(body, |n| self.device(n))
    }

    /// Our record with its sequence number.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<(u64, Record)>, StoreError> {
        let mut q = self.prepare("SELECT seq, rec FROM entry WHERE key = ?")?;
        let mut rows = q.query([key])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let seq = int(row, 0)?;
        Ok(Some((seq, self.record(key, seq, blob(row, 1)?)?)))
    }

    /// Sequence number, kind and size of our record.
    pub(super) fn peek(&self, key: &[u8]) -> Result<Option<(u64, Kind, u64)>, StoreError> {
        let mut q = self.prepare("SELECT seq, rec FROM entry WHERE key = ?")?;
        let mut rows = q.query([key])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let seq = int(row, 0)?;
        let (kind, size) = peek(checked(table::ENTRY, key, seq, blob(row, 1)?)?)?;
        Ok(Some((seq, kind, size)))
    }

    /// Live records with `from < key < to`, in order.
    fn live_between(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, StoreError> {
        let mut out = Vec::new();
        if limit == 0 {
            return Ok(out);
        }
        let mut q =
            self.prepare("SELECT key, seq, rec FROM entry WHERE key > ? AND key < ? ORDER BY key")?;
        let mut rows = q.query([from, to])?;
        while let Some(row) = rows.next()? {
            let (key, rec) = (blob(row, 0)?, blob(row, 2)?);
            if peek(rec)?.0 == Kind::Tombstone {
                continue;
            }
            out.push((path(key)?, self.record(key, int(row, 1)?, rec)?));
            if out.len() == limit {
                break;
            }
        }
        Ok(out)
    }

    pub(super) fn live_below(
        &self,
        dir: &RelPath,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, StoreError> {
        let (from, to) = below(&dir.key());
        let from = after.map(RelPath::key).unwrap_or_default().max(from);
        self.live_between(&from, &to, limit)
    }

    pub(super) fn live_in_order(
        &self,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, StoreError> {
        self.live_between(&after.map(RelPath::key).unwrap_or_default(), &TOP, limit)
    }

    /// Live records directly in `dir` after the child `after`, in order. Skips the subtree of each
    /// child with one seek instead of reading it.
    pub(super) fn children(
        &self,
        dir: Option<&RelPath>,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, StoreError> {
        let (start, to) = dir.map_or((Vec::new(), TOP.to_vec()), |d| below(&d.key()));
        // Where a child's name starts in its key.
        let depth = start.len();
        let mut from = match after {
            Some(a) => past(&a.key()).max(start),
            None => start,
        };
        let mut out = Vec::new();
        let mut q = self
            .prepare("SELECT key, seq, rec FROM entry WHERE key >= ? AND key < ? ORDER BY key")?;
        'seek: while out.len() < limit {
            let mut rows = q.query([&from, &to])?;
            while let Some(row) = rows.next()? {
                let (key, rec) = (blob(row, 0)?, blob(row, 2)?);
                let tail = key
                    .get(depth..)
                    .ok_or_else(|| broken("keys are out of order"))?;
                if let Some(end) = tail.iter().position(|b| *b == 0) {
                    from = past(&key[..depth + end]);
                    continue 'seek;
                }
                let kind = peek(rec)?.0;
                if kind != Kind::Tombstone {
                    out.push((path(key)?, self.record(key, int(row, 1)?, rec)?));
                }
                if kind == Kind::Dir {
                    from = past(key);
                    continue 'seek;
                }
                if out.len() >= limit {
                    break;
                }
            }
            break;
        }
        Ok(out)
    }

    /// Up to `limit` live files that `pick` accepts among the rows that `sql` finds for `value`;
    /// in order.
    fn find(
        &self,
        sql: &str,
        value: i64,
        limit: usize,
        pick: impl Fn(&Record) -> bool,
    ) -> Result<Vec<(RelPath, Record)>, StoreError> {
        let mut out = Vec::new();
        let mut q = self.prepare(sql)?;
        let mut rows = q.query([value])?;
        while out.len() < limit
            && let Some(row) = rows.next()?
        {
            let key = blob(row, 0)?;
            let record = self.record(key, int(row, 1)?, blob(row, 2)?)?;
            if matches!(record.entry.node, Node::File { .. }) && pick(&record) {
                out.push((path(key)?, record));
            }
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(out)
    }

    pub(super) fn by_content(
        &self,
        content: &ContentId,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, StoreError> {
        self.find(
            "SELECT key, seq, rec FROM entry WHERE c8 = ?",
            c8(content),
            limit,
            |r| r.entry.node.content() == Some(*content),
        )
    }

    pub(super) fn by_inode(
        &self,
        ino: u64,
        size: u64,
        mtime: Mtime,
    ) -> Result<Vec<(RelPath, Record)>, StoreError> {
        self.find(
            "SELECT key, seq, rec FROM entry WHERE ino = ?",
            ino.cast_signed(),
            usize::MAX,
            |r| {
                r.stat
                    .is_some_and(|s| s.ino == ino && s.size == size && s.mtime == mtime)
            },
        )
    }

    pub(super) fn changes_since(
        &self,
        seq: u64,
        limit: usize,
    ) -> Result<Vec<(u64, RelPath, Record)>, StoreError> {
        let mut out = Vec::new();
        let Ok(seq) = i64::try_from(seq) else {
            return Ok(out);
        };
        let mut q =
            self.prepare("SELECT seq, key, rec FROM entry WHERE seq > ? ORDER BY seq LIMIT ?")?;
        let mut rows = q.query(params![seq, sql_limit(limit)])?;
        while let Some(row) = rows.next()? {
            let (seq, key) = (int(row, 0)?, blob(row, 1)?);
            out.push((seq, path(key)?, self.record(key, seq, blob(row, 2)?)?));
        }
        Ok(out)
    }

    pub(super) fn cursor(&self, peer: DeviceId) -> Result<Cursor, StoreError> {
        let Some(known) = self.known(peer)? else {
            return Ok(Cursor::default());
        };
        let mut q = self.prepare("SELECT epoch, seq, sum FROM cursor WHERE peer = ?")?;
        let mut rows = q.query([known.n])?;
        let Some(row) = rows.next()? else {
            return Ok(Cursor::default());
        };
        let cursor = Cursor {
            epoch: int(row, 0)?,
            seq: int(row, 1)?,
        };
        if array::<SUM_LEN>(row, 2)? != cursor_sum(known.n, cursor) {
            return Err(broken("a cursor does not match its checksum"));
        }
        Ok(cursor)
    }

    fn announced(&self, row: &Row<'_>) -> Result<(DeviceId, Entry), StoreError> {
        let (key, peer) = (blob(row, 0)?, small(row, 1)?);
        let body = checked(table::THEIRS, key, u64::from(peer), blob(row, 2)?)?;
        let record = decode(body, |n| self.device(n))?;
        Ok((self.device(peer)?, record.entry))
    }

    pub(super) fn theirs(&self, key: &[u8]) -> Result<Vec<(DeviceId, Entry)>, StoreError> {
        let mut q = self.prepare("SELECT key, peer, rec FROM theirs WHERE key = ?")?;
        let mut rows = q.query([key])?;
        let mut out = Vec::new();
        while let Some(row) = rows.next()? {
            out.push(self.announced(row)?);
        }
        out.sort_by_key(|(d, _)| *d);
        Ok(out)
    }

    pub(super) fn needs(
        &self,
        walk: Walk,
        from: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<Need>, StoreError> {
        let (sql, edge) = match walk {
            Walk::Up => (
                "SELECT key, peer, rec FROM theirs WHERE key > ? ORDER BY key",
                Vec::new(),
            ),
            Walk::Down => (
                "SELECT key, peer, rec FROM theirs WHERE key < ? ORDER BY key DESC",
                TOP.to_vec(),
            ),
        };
        let mut out: Vec<Need> = Vec::new();
        let mut q = self.prepare(sql)?;
        let mut rows = q.query([from.map_or(edge, RelPath::key)])?;
        while let Some(row) = rows.next()? {
            let path = path(blob(row, 0)?)?;
            let full = out.len() == limit;
            match out.last_mut() {
                Some(last) if last.path == path => last.theirs.push(self.announced(row)?),
                _ if full => break,
                _ => out.push(Need {
                    path,
                    theirs: vec![self.announced(row)?],
                }),
            }
        }
        for need in &mut out {
            need.theirs.sort_by_key(|(d, _)| *d);
        }
        Ok(out)
    }

    pub(super) fn needs_below(&self, dir: &RelPath) -> Result<bool, StoreError> {
        let (from, to) = below(&dir.key());
        let mut q = self.prepare("SELECT 1 FROM theirs WHERE key > ? AND key < ? LIMIT 1")?;
        Ok(q.query_row([from, to], |_| Ok(())).optional()?.is_some())
    }
}

/// The bounds of all keys strictly below the folder with this key (the lower one is never a key).
fn below(key: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut from = key.to_vec();
    from.push(0);
    (from, past(key))
}

/// Sorts after the path with this key and all below it, and before all else that follows.
fn past(key: &[u8]) -> Vec<u8> {
    let mut to = key.to_vec();
    to.push(1);
    to
}

/// What a content is found by.
pub(super) fn c8(content: &ContentId) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&content.0[..8]);
    i64::from_be_bytes(first)
}

/// A limit as SQLite takes it.
pub(super) fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The checksum of a `device` row.
pub(super) fn device_sum(id: DeviceId, known: Known) -> [u8; SUM_LEN] {
    sum(
        table::DEVICE,
        &[&id.0, &known.n.to_le_bytes(), &known.top.to_le_bytes()],
    )
}

fn check_device(id: DeviceId, known: Known, stored: [u8; SUM_LEN]) -> Result<(), StoreError> {
    if stored == device_sum(id, known) {
        Ok(())
    } else {
        Err(broken("a device does not match its checksum"))
    }
}

/// The checksum of a `cursor` row.
pub(super) fn cursor_sum(peer: u32, c: Cursor) -> [u8; SUM_LEN] {
    sum(
        table::CURSOR,
        &[
            &peer.to_le_bytes(),
            &c.epoch.to_le_bytes(),
            &c.seq.to_le_bytes(),
        ],
    )
}

/// Appends the checksum that [`checked`] takes off. `id` is the sequence number or the peer.
pub(super) fn seal(table: u8, key: &[u8], id: u64, mut body: Vec<u8>) -> Vec<u8> {
    let sum = sum(table, &[key, &id.to_le_bytes(), &body]);
    body.extend_from_slice(&sum);
    body
}

fn checked<'a>(table: u8, key: &[u8], id: u64, rec: &'a [u8]) -> Result<&'a [u8], StoreError> {
    rec.split_last_chunk::<SUM_LEN>()
        .filter(|(body, stored)| **stored == sum(table, &[key, &id.to_le_bytes(), body]))
        .map(|(body, _)| body)
        .ok_or_else(|| broken("a record does not match its checksum"))
}

fn path(key: &[u8]) -> Result<RelPath, StoreError> {
    RelPath::from_key(key).map_err(|e| broken(&format!("a stored path is none: {e}")))
}

pub(super) fn broken(why: &str) -> StoreError {
    StoreError::Corrupt(why.to_owned())
}

/// A column that is a blob.
pub(super) fn blob<'a>(row: &'a Row<'_>, at: usize) -> Result<&'a [u8], StoreError> {
    Ok(row.get_ref(at)?.as_blob()?)
}

/// A column that is a blob of exactly `N` bytes.
pub(super) fn array<const N: usize>(row: &Row<'_>, at: usize) -> Result<[u8; N], StoreError> {
    blob(row, at)?
        .try_into()
        .map_err(|_| broken("a value has the wrong length"))
}

/// A column that is a number; all 64 bits are used.
pub(super) fn int(row: &Row<'_>, at: usize) -> Result<u64, StoreError> {
    Ok(row.get_ref(at)?.as_i64()?.cast_unsigned())
}

/// A column that is a number below 2^32.
pub(super) fn small(row: &Row<'_>, at: usize) -> Result<u32, StoreError> {
    u32::try_from(int(row, at)?).map_err(|_| broken("a number is too large"))
}
