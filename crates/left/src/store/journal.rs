//! [`Journal`]: what changed in a share, when, and on which device (`.left/journal.db`).
//!
//! Only observations for people: nothing is decided by it that could lose bytes, and what can be brought
//! back is told by the history folder itself. So it is committed without fsync, bounded in rows, and a
//! file that can not be used is thrown away and made anew while the program runs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use left_core::entry::Kind;
use left_core::path::RelPath;
use left_core::version::DeviceId;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::StoreError;
use super::codec::{SUM_LEN, sum};
use super::columns::{array, below, blob, broken, int, path, sql_limit, table};
use super::sqlite::{Setup, connect, header_fault, remove_files};
use crate::counters::JOURNAL_COMMITS;

/// "LEFj" in the header's application id.
const APPLICATION: u32 = 0x4c45_466a;
/// The format of tables and rows.
const VERSION: u32 = 1;
/// Changes that are remembered; the oldest make room.
pub const MAX_CHANGES: u64 = 200_000;
/// How many more there may be before the oldest are deleted, so that it is done rarely.
const SLACK: u64 = 5_000;
/// Changes that one statement adds: each starts and ends at a cost, that of numbering first of all.
const ROWS: usize = 16;
/// Pages cached, in KiB.
const CACHE_KIB: u32 = 1 << 10;

const SCHEMA: &str = "
CREATE TABLE device(n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE);
CREATE TABLE change(id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, key BLOB NOT NULL, what INTEGER NOT NULL, kind INTEGER NOT NULL, size INTEGER NOT NULL, tag INTEGER, device INTEGER NOT NULL, edited INTEGER NOT NULL, sum BLOB NOT NULL);
CREATE INDEX change_key ON change(key, id);
";

/// What happened to a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Nothing stood there before.
    Created,
    /// Other bytes, or another kind of thing.
    Changed,
    /// Nothing stands there any more.
    Deleted,
}

/// One change, as the index took it in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// Where.
    pub path: RelPath,
    /// What happened.
    pub what: What,
    /// What stands there now; of a deletion what stood there.
    pub kind: Kind,
    /// Bytes of the file that `kind` tells of, 0 for all else.
    pub size: u64,
    /// The start of its content id, by which a rename can be told; `None` for all but files.
    pub tag: Option<i64>,
    /// Who made the change.
    pub device: DeviceId,
    /// When that device made it, by its clock: milliseconds since 1970.
    pub edited_ms: u64,
}

/// A remembered change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Grows with time.
    pub id: u64,
    /// When it came into effect here: milliseconds since 1970.
    pub at_ms: u64,
    /// What it was.
    pub note: Note,
}

/// Which changes are asked for.
#[derive(Clone, Copy, Default, Debug)]
pub struct Filter<'a> {
    /// Only of this path and what is below it.
    pub at: Option<&'a RelPath>,
    /// Only those before this one ([`Change::id`]).
    pub before: Option<u64>,
    /// Only those that came into effect later than this, in milliseconds since 1970.
    pub after_ms: Option<u64>,
}

/// The journal of one share. Clones share one connection.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    /// Nothing else is called under it.
    db: Mutex<Db>,
}

struct Db {
    conn: Connection,
    devices: HashMap<DeviceId, i64>,
    /// Changes that are there, at least.
    count: u64,
}

impl Journal {
    /// Opens the journal at `path`; a file that can not be used is thrown away.
    ///
    /// # Errors
    /// When the folder can not be written.
    pub fn open(path: &Path) -> Result<Journal, StoreError> {
        let db = match Db::open(path) {
            Err(e @ (StoreError::Corrupt(_) | StoreError::Failed(_))) => Db::anew(path, &e)?,
            other => other?,
        };
        let path = path.to_owned();
        let db = Mutex::new(db);
        Ok(Journal {
            shared: Arc::new(Shared { path, db }),
        })
    }

    /// Adds changes that came into effect at `at_ms`, in one transaction.
    ///
    /// # Errors
    /// When the file can not be written; nothing of it is there then.
    pub fn add(&self, at_ms: u64, notes: &[Note]) -> Result<(), StoreError> {
        self.with(|db| db.add(at_ms, notes))
    }

    /// At most `limit` changes, the latest first.
    ///
    /// # Errors
    /// When the file is damaged or can not be read; so with all methods here.
    pub fn latest(&self, filter: Filter<'_>, limit: usize) -> Result<Vec<Change>, StoreError> {
        self.with(|db| db.latest(filter, limit))
    }

    /// The first change of a path that came into effect later than `after_ms`.
    pub fn first_after(&self, path: &RelPath, after_ms: u64) -> Result<Option<Change>, StoreError> {
        self.with(|db| {
            let mut q = db.conn.prepare_cached(
                "SELECT c.id, at, key, what, kind, size, tag, edited, sum, d.id FROM change c \
                 JOIN device d ON d.n = c.device WHERE key = ?1 AND at > ?2 ORDER BY c.id LIMIT 1",
            )?;
            let mut rows = q.query(params![path.key(), after_ms.cast_signed()])?;
            rows.next()?.map(change).transpose()
        })
    }

    /// Whether anything is known of a path.
    pub fn knows(&self, path: &RelPath) -> Result<bool, StoreError> {
        let filter = Filter {
            at: Some(path),
            ..Filter::default()
        };
        Ok(!self.latest(filter, 1)?.is_empty())
    }

    fn with<T>(&self, f: impl FnOnce(&mut Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut db: MutexGuard<'_, Db> = self
            .shared
            .db
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let result = f(&mut db);
        if let Err(e @ StoreError::Corrupt(_)) = &result {
            // Closed before it is deleted.
            db.conn = Connection::open_in_memory()?;
            *db = Db::anew(&self.shared.path, e)?;
        }
        result
    }
}

impl Db {
    fn open(path: &Path) -> Result<Db, StoreError> {
        let setup = Setup {
            durable: false,
            cache_kib: CACHE_KIB,
            read_only: false,
            create: true,
        };
        let fresh = !path.exists();
        if !fresh {
            let fault = match header_fault(path, APPLICATION, VERSION) {
                // Whatever stands there and is no file that we may read is of no use either.
                Err(StoreError::Io { source, .. }) => Some(source.to_string()),
                other => other?,
            };
            if let Some(fault) = fault {
                return Err(StoreError::Corrupt(fault));
            }
        }
        let conn = connect(path, setup)?;
        if fresh {
            conn.execute_batch(&format!(
                "PRAGMA journal_mode=WAL;
                 BEGIN; {SCHEMA}
                 PRAGMA application_id={APPLICATION};
                 PRAGMA user_version={VERSION};
                 COMMIT;"
            ))?;
            // Into the file itself, whose header tells whose it is.
            conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        }
        let count = conn.query_row(
            "SELECT coalesce(max(id) - min(id) + 1, 0) FROM change",
            [],
            |row| row.get::<_, i64>(0),
        )?;
        let mut devices = HashMap::new();
        {
            let mut q = conn.prepare("SELECT n, id FROM device")?;
            let mut rows = q.query([])?;
            while let Some(row) = rows.next()? {
                devices.insert(DeviceId(array(row, 1)?), row.get(0)?);
            }
        }
        Ok(Db {
            conn,
            devices,
            count: count.unsigned_abs(),
        })
    }

    fn anew(path: &Path, why: &StoreError) -> Result<Db, StoreError> {
        tracing::warn!(path = %path.display(), %why, "the log of changes is made anew");
        remove_files(path)?;
        Db::open(path)
    }

    fn add(&mut self, at_ms: u64, notes: &[Note]) -> Result<(), StoreError> {
        let result = self.add_all(at_ms, notes);
        if result.is_err() {
            // Numbers that were given out in what was taken back are not there.
            self.devices.clear();
        }
        result
    }

    fn add_all(&mut self, at_ms: u64, notes: &[Note]) -> Result<(), StoreError> {
        let txn = rusqlite::Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
        {
            let (many, rest) = notes.as_chunks::<ROWS>();
            let many = many.iter().map(<[Note; ROWS]>::as_slice);
            for notes in many.chain(rest.chunks(1)) {
                let mut q = txn.prepare_cached(&insert(notes.len()))?;
                let mut at = 0;
                for note in notes {
                    let n = match self.devices.get(&note.device) {
                        Some(n) => *n,
                        None => {
                            let n = enroll(&txn, note.device)?;
                            self.devices.insert(note.device, n);
                            n
                        }
                    };
                    let key = note.path.key();
                    let row = params![
                        at_ms.cast_signed(),
                        key,
                        what_code(note.what),
                        kind_code(note.kind),
                        note.size.cast_signed(),
                        note.tag,
                        n,
                        note.edited_ms.cast_signed(),
                        row_sum(at_ms, &key, note),
                    ];
                    for value in row {
                        at += 1;
                        q.raw_bind_parameter(at, value)?;
                    }
                }
                q.raw_execute()?;
            }
        }
        let count = self.count + notes.len() as u64;
        let full = count > MAX_CHANGES + SLACK;
        if full {
            txn.execute(
                "DELETE FROM change WHERE id <= (SELECT max(id) FROM change) - ?",
                [MAX_CHANGES.cast_signed()],
            )?;
        }
        txn.commit()?;
        JOURNAL_COMMITS.add(1);
        self.count = if full { MAX_CHANGES } else { count };
        Ok(())
    }

    fn latest(&self, filter: Filter<'_>, limit: usize) -> Result<Vec<Change>, StoreError> {
        const COLUMNS: &str = "SELECT c.id, at, key, what, kind, size, tag, edited, sum, d.id \
                               FROM change c JOIN device d ON d.n = c.device";
        let before = filter
            .before
            .map_or(i64::MAX, |b| i64::try_from(b).unwrap_or(i64::MAX));
        let after = filter.after_ms.map_or(-1, u64::cast_signed);
        let limit = sql_limit(limit);
        let mut out = Vec::new();
        let mut take = |rows: &mut rusqlite::Rows<'_>| -> Result<(), StoreError> {
            while let Some(row) = rows.next()? {
                out.push(change(row)?);
            }
            Ok(())
        };
        match filter.at {
            None => {
                let mut q = self.conn.prepare_cached(&format!(
                    "{COLUMNS} WHERE c.id < ?1 AND at > ?2 ORDER BY c.id DESC LIMIT ?3"
                ))?;
                take(&mut q.query(params![before, after, limit])?)?;
            }
            Some(at) => {
                let key = at.key();
                let (from, to) = below(&key);
                // `+` keeps SQLite from walking all ids for one path.
                let mut q = self.conn.prepare_cached(&format!(
                    "{COLUMNS} WHERE (key = ?1 OR key > ?2 AND key < ?3) AND +c.id < ?4 \
                     AND at > ?5 ORDER BY +c.id DESC LIMIT ?6"
                ))?;
                take(&mut q.query(params![key, from, to, before, after, limit])?)?;
            }
        }
        Ok(out)
    }
}

/// The statement that adds so many changes.
fn insert(rows: usize) -> String {
    let values = ["(?, ?, ?, ?, ?, ?, ?, ?, ?)"].repeat(rows).join(", ");
    format!(
        "INSERT INTO change(at, key, what, kind, size, tag, device, edited, sum) VALUES {values}"
    )
}

fn enroll(conn: &Connection, id: DeviceId) -> Result<i64, StoreError> {
    let known = conn
        .prepare_cached("SELECT n FROM device WHERE id = ?")?
        .query_row([id.0], |row| row.get(0))
        .optional()?;
    if let Some(n) = known {
        return Ok(n);
    }
    let n = conn
        .prepare_cached("INSERT INTO device(id) VALUES (?) RETURNING n")?
        .query_row([id.0], |row| row.get(0))?;
    Ok(n)
}

fn change(row: &Row<'_>) -> Result<Change, StoreError> {
    let key = blob(row, 2)?;
    let note = Note {
        path: path(key)?,
        what: what_of(int(row, 3)?)?,
        kind: kind_of(int(row, 4)?)?,
        size: int(row, 5)?,
        tag: row.get(6)?,
        device: DeviceId(array(row, 9)?),
        edited_ms: int(row, 7)?,
    };
    let at_ms = int(row, 1)?;
    if array::<SUM_LEN>(row, 8)? != row_sum(at_ms, key, &note) {
        return Err(broken("a change does not match its checksum"));
    }
    Ok(Change {
        id: int(row, 0)?,
        at_ms,
        note,
    })
}

fn row_sum(at_ms: u64, key: &[u8], note: &Note) -> [u8; SUM_LEN] {
    let codes = [what_code(note.what), kind_code(note.kind)];
    let tag = note.tag.unwrap_or(-1).to_le_bytes();
    sum(
        table::CHANGE,
        &[
            &at_ms.to_le_bytes(),
            key,
            &codes,
            &note.size.to_le_bytes(),
            &tag,
            &note.device.0,
            &note.edited_ms.to_le_bytes(),
        ],
    )
}

fn what_code(what: What) -> u8 {
    match what {
        What::Created => 1,
        What::Changed => 2,
        What::Deleted => 3,
    }
}

fn what_of(code: u64) -> Result<What, StoreError> {
    Ok(match code {
        1 => What::Created,
        2 => What::Changed,
        3 => What::Deleted,
        _ => return Err(broken("an unknown kind of change")),
    })
}

fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Tombstone => 0,
        Kind::Symlink => 1,
        Kind::File => 2,
        Kind::Dir => 3,
    }
}

fn kind_of(code: u64) -> Result<Kind, StoreError> {
    Ok(match code {
        0 => Kind::Tombstone,
        1 => Kind::Symlink,
        2 => Kind::File,
        3 => Kind::Dir,
        _ => return Err(broken("an unknown kind of thing")),
    })
}

#[cfg(test)]
mod tests;
