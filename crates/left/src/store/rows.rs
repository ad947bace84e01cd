//! Reading the index' tables: what [`IndexDb`](super::IndexDb) and
//! [`IndexReader`](super::IndexReader) have in common.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use left_core::content::ContentId;
use left_core::entry::{FileStat, Kind, Mtime, Node, Record};
use left_core::index::Cursor;
use left_core::path::RelPath;
use left_core::version::DeviceId;
use rusqlite::{CachedStatement, Connection, params};

use super::StoreError;
use super::codec::{SUM_LEN, decode, peek};
use super::columns::{
    Known, TOP, array, below, blob, broken, c4, check_device, checked, cursor_sum, int, past, path,
    small, sql_limit, table,
};
use super::heard::Heard;
use super::sqlite::sync_level;

/// Devices kept in memory; beyond that they are looked up again.
const MAX_KNOWN: usize = 4096;

#[derive(Default)]
struct Devices {
    by_id: HashMap<DeviceId, Known>,
    by_n: HashMap<u32, DeviceId>,
}

/// The columns by which a live file is found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundBy {
    pub(super) c4: Option<i64>,
    pub(super) ino: Option<i64>,
}

impl FoundBy {
    /// What a record is found by.
    pub(super) fn of(node: &Node, stat: Option<FileStat>) -> Self {
        let is_file = matches!(node, Node::File { .. });
        Self {
            c4: node.content().as_ref().map(c4),
            ino: stat.filter(|_| is_file).map(|s| s.ino.cast_signed()),
        }
    }
}

/// A stored record, as far as replacing it needs.
pub(super) struct Stored {
    pub(super) id: i64,
    pub(super) found_by: FoundBy,
    pub(super) kind: Kind,
    pub(super) size: u64,
}

/// A connection to an index and the devices it knows.
pub(super) struct Rows {
    pub(super) conn: Connection,
    devices: RefCell<Devices>,
    /// What the writer put into the table of announcements a moment ago; empty for readers.
    pub(super) heard: Heard,
    /// Whether commits wait for the disk.
    durable: Cell<bool>,
}

impl Rows {
    pub(super) fn new(conn: Connection) -> Self {
        Self {
            conn,
            devices: RefCell::default(),
            heard: Heard::default(),
            durable: Cell::new(true),
        }
    }

    /// Whether the next commits wait until they, and all before them, are on the disk. Not inside a
    /// transaction.
    pub(super) fn set_durable(&self, durable: bool) -> Result<(), StoreError> {
        if self.durable.get() != durable {
            self.conn
                .pragma_update(None, "synchronous", sync_level(durable))?;
            self.durable.set(durable);
        }
        Ok(())
    }

    /// Begins to read as of one moment, if that was not begun before.
    pub(super) fn hold(&self) -> Result<(), StoreError> {
        if self.conn.is_autocommit() {
            self.prepare("BEGIN")?.execute([])?;
        }
        Ok(())
    }

    /// Ends what [`hold`](Self::hold) began.
    pub(super) fn release(&self) -> Result<(), StoreError> {
        if !self.conn.is_autocommit() {
            self.prepare("COMMIT")?.execute([])?;
        }
        Ok(())
    }

    pub(super) fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>, StoreError> {
        Ok(self.conn.prepare_cached(sql)?)
    }

    /// Forgets what is in memory only: a transaction that changed it was undone.
    pub(super) fn forget(&self) {
        *self.devices.borrow_mut() = Devices::default();
        self.heard.clear();
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

    /// What replacing our record must know of it.
    pub(super) fn stored(&self, key: &[u8]) -> Result<Option<Stored>, StoreError> {
        let mut q = self.prepare("SELECT id, seq, c4, ino, rec FROM entry WHERE key = ?")?;
        let mut rows = q.query([key])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let (kind, size) = peek(checked(table::ENTRY, key, int(row, 1)?, blob(row, 4)?)?)?;
        Ok(Some(Stored {
            id: int(row, 0)?.cast_signed(),
            found_by: FoundBy {
                c4: row.get(2)?,
                ino: row.get(3)?,
            },
            kind,
            size,
        }))
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
            "SELECT key, seq, rec FROM entry WHERE c4 = ?",
            c4(content),
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
}
