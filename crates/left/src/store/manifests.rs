//! [`Manifests`]: segments and chunk lists of contents larger than
//! [`WHOLE_MAX`](left_core::content::WHOLE_MAX), so that a file need not be read again to say what it
//! is made of.
//!
//! A cache: everything in it is verified against its hashes when written and read, and can be computed
//! again from the files. So a fault in it is a miss with a line in the log; a damaged file is thrown
//! away and made anew while the program runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use left_core::content::{ChunkId, ChunkRef, ContentId, Segment, SegmentId, SegmentRef};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::StoreError;
use super::codec::{SUM_LEN, sum};
use super::columns::{array, blob, broken, int, sql_limit};
use super::manifest_places;
use super::manifest_writer::{ManifestWriter, WriterIds};
use super::sqlite::{Setup, connect, header_fault, remove_files};

/// "LEFm" in the header's application id.
const APPLICATION: u32 = 0x4c45_466d;
/// The format of tables and rows.
const VERSION: u32 = 1;
/// A segment's rows are at `manifest id << 32 | n`: one manifest is one run of pages.
pub(super) const N_BITS: u32 = 32;
/// Bytes of a chunk in its segment's list: length, id.
pub(super) const CHUNK_LEN: usize = 36;
/// Idle reading connections kept.
const POOL: usize = 8;
/// Segments read at a time where all are (each at most about 9 KiB).
const PAGE: usize = 64;
/// Segments deleted in one transaction.
const DELETE_PAGE: u64 = 2000;

/// `content` is NULL while a manifest is being written or deleted. Segment references and chunk lists
/// are apart: lists of references are compared often and are 50 times smaller.
const SCHEMA: &str = "
CREATE TABLE manifest(id INTEGER PRIMARY KEY AUTOINCREMENT, content BLOB UNIQUE, size INTEGER NOT NULL, segments INTEGER NOT NULL);
CREATE TABLE segment(at INTEGER PRIMARY KEY, start INTEGER NOT NULL, len INTEGER NOT NULL, id BLOB NOT NULL, sum BLOB NOT NULL);
CREATE TABLE chunks(at INTEGER PRIMARY KEY, list BLOB NOT NULL);
";

/// What is known of a content as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ManifestInfo {
    /// Bytes.
    pub size: u64,
    /// Segments.
    pub segments: u64,
}

/// The manifests of one share. Clones share one database; any number of threads may use them, readers
/// and writers without waiting for each other (writers take turns for the milliseconds that a bounded
/// transaction takes).
#[derive(Clone)]
pub struct Manifests {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    /// Held for reading during every use of a connection, for writing to replace a damaged file: SQLite
    /// must not have a file open that is deleted. Nothing else is called under it.
    gate: RwLock<Db>,
}

/// One life of the file.
pub(super) struct Db {
    /// Counts the lives, so that of several threads that meet damage only one replaces the file.
    life: u64,
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    /// Manifests being written, which garbage collection must leave alone.
    pub(super) active: Mutex<WriterIds>,
}

impl Manifests {
    /// Opens the manifests at `path`; a file that can not be used is thrown away.
    ///
    /// # Errors
    /// When the folder can not be written.
    pub fn open(path: &Path) -> Result<Manifests, StoreError> {
        let db = match Db::open(path, 0) {
            Err(e @ (StoreError::Corrupt(_) | StoreError::Failed(_))) => Db::anew(path, 0, &e)?,
            other => other?,
        };
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            gate: RwLock::new(db),
        });
        Ok(Manifests { shared })
    }

    /// Starts writing a manifest. It becomes visible with
    /// [`finish`](ManifestWriter::finish); dropped before that it leaves nothing.
    pub fn writer(&self) -> ManifestWriter {
        ManifestWriter::new(self.clone())
    }

    /// Size and number of segments; `None` when the content has no manifest here.
    pub fn info(&self, content: ContentId) -> Option<ManifestInfo> {
        self.read("info", |conn| {
            let mut q =
                conn.prepare_cached("SELECT size, segments FROM manifest WHERE content = ?")?;
            let mut rows = q.query([&content.0])?;
            let Some(row) = rows.next()? else {
                return Ok(None);
            };
            Ok(Some(ManifestInfo {
                size: int(row, 0)?,
                segments: int(row, 1)?,
            }))
        })
        .flatten()
    }

    /// At most `limit` segment references from the `from`th on; empty past the end and for contents
    /// without manifest.
    pub fn refs(&self, content: ContentId, from: u64, limit: usize) -> Vec<SegmentRef> {
        let page = self.page(content, from, limit, false);
        page.into_iter().map(|(_, s)| s.sref).collect()
    }

    /// The `n`th segment with the offset in bytes at which it starts.
    pub fn segment(&self, content: ContentId, n: u64) -> Option<(u64, Segment)> {
        self.page(content, n, 1, true).pop()
    }

    /// The segments of a content in order, each with the offset in bytes at which it starts; fewer when the list
    /// can not be read to its end. Holds a page of them in memory, and no lock between pages.
    pub fn segments(&self, content: ContentId) -> impl Iterator<Item = (u64, Segment)> + '_ {
        let mut n = 0;
        let pages = std::iter::from_fn(move || {
            let page = self.page(content, n, PAGE, true);
            n += page.len() as u64;
            (!page.is_empty()).then_some(page)
        });
        pages.flatten()
    }

    /// Deletes one manifest; none is no error.
    ///
    /// # Errors
    /// When the database can not be written.
    pub fn remove(&self, content: ContentId) -> Result<(), StoreError> {
        self.write(|db| {
            let hidden = db
                .writer()
                .prepare_cached(
                    "UPDATE manifest SET content = NULL WHERE content = ? RETURNING id",
                )?
                .query_row([&content.0], |row| row.get(0))
                .optional()?;
            hidden.map_or(Ok(()), |id| db.erase(id))
        })
    }

    /// Deletes all manifests that `keep` does not want, and what unfinished writers left at a crash.
    /// `keep` is called without any lock held.
    ///
    /// # Errors
    /// When the database can not be read or written.
    pub fn retain(&self, mut keep: impl FnMut(ContentId) -> bool) -> Result<(), StoreError> {
        self.write(|db| db.erase_left_over())?;
        let mut last = 0i64;
        loop {
            let page = self.write(|db| {
                let conn = db.writer();
                let mut q = conn.prepare_cached(
                    "SELECT id, content FROM manifest WHERE id > ? AND content IS NOT NULL \
                     ORDER BY id LIMIT 500",
                )?;
                let mut rows = q.query([last])?;
                let mut page = Vec::new();
                while let Some(row) = rows.next()? {
                    page.push((row.get::<_, i64>(0)?, ContentId(array(row, 1)?)));
                }
                Ok(page)
            })?;
            let Some((id, _)) = page.last() else {
                return Ok(());
            };
            last = *id;
            for (_, content) in page {
                if !keep(content) {
                    self.remove(content)?;
                }
            }
        }
    }

    /// Segments `from..from + limit` with their offsets. One statement, so one state of the file.
    fn page(
        &self,
        content: ContentId,
        from: u64,
        limit: usize,
        chunks: bool,
    ) -> Vec<(u64, Segment)> {
        if limit == 0 || from >> N_BITS != 0 {
            return Vec::new();
        }
        let sql = if chunks {
            "SELECT s.at, start, len, s.id, sum, list FROM manifest m \
             JOIN segment s ON s.at BETWEEN (m.id << 32) + ?2 AND (m.id << 32) + 4294967295 \
             LEFT JOIN chunks c ON c.at = s.at WHERE content = ?1 ORDER BY s.at LIMIT ?3"
        } else {
            "SELECT s.at, start, len, s.id, sum FROM manifest m \
             JOIN segment s ON s.at BETWEEN (m.id << 32) + ?2 AND (m.id << 32) + 4294967295 \
             WHERE content = ?1 ORDER BY s.at LIMIT ?3"
        };
        self.read("segments", |conn| {
            let mut q = conn.prepare_cached(sql)?;
            let mut rows = q.query(params![content.0, from.cast_signed(), sql_limit(limit)])?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                let n = int(row, 0)? & ((1 << N_BITS) - 1);
                if n != from + out.len() as u64 {
                    return Err(broken("a segment is missing"));
                }
                out.push(segment_of(row, chunks)?);
            }
            Ok(out)
        })
        .unwrap_or_default()
    }

    /// Runs `f` on a pooled connection; a fault is `None` and a line in the log.
    pub(super) fn read<T>(
        &self,
        what: &str,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Option<T> {
        let (life, result) = {
            let db = self.gate();
            (db.life, db.with_reader(f))
        };
        self.note(life, &result);
        result
            .inspect_err(|e| tracing::warn!(what, error = %e, "could not read manifests"))
            .ok()
    }

    /// Runs `f` on the database; damage replaces the file.
    pub(super) fn write<T>(
        &self,
        f: impl FnOnce(&Db) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (life, result) = {
            let db = self.gate();
            (db.life, f(&db))
        };
        self.note(life, &result);
        result
    }

    fn gate(&self) -> std::sync::RwLockReadGuard<'_, Db> {
        self.shared
            .gate
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the file if `result` says that it is damaged and nobody did so yet.
    fn note<T>(&self, life: u64, result: &Result<T, StoreError>) {
        let Err(e @ StoreError::Corrupt(_)) = result else {
            return;
        };
        let mut db = self
            .shared
            .gate
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if db.life != life {
            return;
        }
        // All users are out: close before deleting.
        db.readers = Mutex::default();
        match Connection::open_in_memory() {
            Ok(none) => db.writer = Mutex::new(none),
            Err(e) => return tracing::error!(error = %e, "could not close the manifests"),
        }
        match Db::anew(&self.shared.path, life + 1, e) {
            Ok(new) => *db = new,
            Err(e) => tracing::error!(error = %e, "could not replace the damaged manifests"),
        }
    }
}

impl Db {
    fn open(path: &Path, life: u64) -> Result<Db, StoreError> {
        if path.exists() {
            // Whatever stands there and is no file that we may read is of no use as a cache either.
            let fault = match header_fault(path, APPLICATION, VERSION) {
                Err(StoreError::Io { source, .. }) => Some(source.to_string()),
                other => other?,
            };
            if let Some(fault) = fault {
                return Err(StoreError::Corrupt(fault));
            }
        }
        let conn = connect(
            path,
            Setup {
                durable: false,
                cache_kib: 4 << 10,
                read_only: false,
                create: true,
            },
        )?;
        let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
        if tables == 0 {
            conn.execute_batch(&format!(
                "PRAGMA page_size=8192; PRAGMA journal_mode=WAL;
                 BEGIN; {SCHEMA}
                 PRAGMA application_id={APPLICATION}; PRAGMA user_version={VERSION};
                 COMMIT; PRAGMA wal_checkpoint(TRUNCATE);"
            ))?;
        }
        // A file from before this table was thought of gets it now.
        conn.execute_batch(manifest_places::SCHEMA)?;
        // Fails when a table is missing or another.
        conn.prepare("SELECT m.content, s.start, c.list, p.key, p.at FROM manifest m, segment s, chunks c, place p")
            .map_err(|e| StoreError::Corrupt(e.to_string()))?;
        Ok(Db {
            life,
            path: path.to_owned(),
            writer: Mutex::new(conn),
            readers: Mutex::default(),
            active: Mutex::default(),
        })
    }

    fn anew(path: &Path, life: u64, why: &StoreError) -> Result<Db, StoreError> {
        tracing::warn!(path = %path.display(), %why, "the manifests are thrown away and made anew");
        remove_files(path)?;
        Db::open(path, life)
    }

    /// Which life of the file; ids of another one mean nothing in this.
    pub(super) fn life(&self) -> u64 {
        self.life
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn active(&self) -> MutexGuard<'_, WriterIds> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readers(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_reader<T>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let pooled = self.readers().pop();
        let conn = match pooled {
            Some(conn) => conn,
            None => connect(
                &self.path,
                Setup {
                    durable: false,
                    cache_kib: 2 << 10,
                    read_only: true,
                    create: false,
                },
            )?,
        };
        let result = f(&conn);
        let mut pool = self.readers();
        if pool.len() < POOL {
            pool.push(conn);
        }
        result
    }

    /// Deletes the rows of a manifest without content, a bounded transaction at a time.
    pub(super) fn erase(&self, id: i64) -> Result<(), StoreError> {
        let (first, end) = (id << N_BITS, (id + 1) << N_BITS);
        loop {
            let conn = self.writer();
            let mut gone = 0;
            manifest_places::forget(&conn, first, end, DELETE_PAGE.cast_signed())?;
            for table in ["chunks", "segment"] {
                gone += conn.execute(
                    &format!(
                        "DELETE FROM {table} WHERE at IN (SELECT at FROM {table} \
                         WHERE at >= ? AND at < ? LIMIT ?)"
                    ),
                    params![first, end, DELETE_PAGE.cast_signed()],
                )?;
            }
            if gone == 0 {
                conn.execute("DELETE FROM manifest WHERE id = ?", [id])?;
                return Ok(());
            }
        }
    }

    fn erase_left_over(&self) -> Result<(), StoreError> {
        let ids: Vec<i64> = {
            // Both locks in the order that starting a writer takes them.
            let active = self.active();
            let conn = self.writer();
            let mut q = conn.prepare("SELECT id FROM manifest WHERE content IS NULL")?;
            let ids = q
                .query_map([], |row| row.get(0))?
                .collect::<Result<Vec<_>, _>>()?;
            ids.into_iter().filter(|id| !active.contains(id)).collect()
        };
        ids.into_iter().try_for_each(|id| self.erase(id))
    }
}

/// The row number of a segment.
pub(super) fn row_of(manifest: i64, n: u64) -> i64 {
    (manifest << N_BITS) | n.cast_signed()
}

/// Most segments of a manifest.
pub(super) const MAX_SEGMENTS: u64 = 1 << N_BITS;

/// The checksum of a segment's row; the chunk list is covered by the segment's id.
pub(super) fn ref_sum(at: i64, start: u64, sref: &SegmentRef) -> [u8; SUM_LEN] {
    const SEGMENT: u8 = 6;
    sum(
        SEGMENT,
        &[
            &at.to_le_bytes(),
            &start.to_le_bytes(),
            &sref.len.to_le_bytes(),
            &sref.id.0,
        ],
    )
}

fn segment_of(row: &Row<'_>, chunks: bool) -> Result<(u64, Segment), StoreError> {
    let (at, start) = (int(row, 0)?.cast_signed(), int(row, 1)?);
    let sref = SegmentRef {
        len: int(row, 2)?,
        id: SegmentId(array(row, 3)?),
    };
    if array::<SUM_LEN>(row, 4)? != ref_sum(at, start, &sref) {
        return Err(broken("a segment does not match its checksum"));
    }
    let chunks = if chunks && !sref.is_zeros() {
        unpack(blob(row, 5)?, &sref)?
    } else {
        Vec::new()
    };
    Ok((start, Segment { sref, chunks }))
}

/// A chunk list as it lies in its row.
pub(super) fn pack(chunks: &[ChunkRef]) -> Vec<u8> {
    let mut out = Vec::with_capacity(chunks.len() * CHUNK_LEN);
    for c in chunks {
        out.extend_from_slice(&c.len.to_le_bytes());
        out.extend_from_slice(&c.id.0);
    }
    out
}

fn unpack(list: &[u8], sref: &SegmentRef) -> Result<Vec<ChunkRef>, StoreError> {
    let (parts, []) = list.as_chunks::<CHUNK_LEN>() else {
        return Err(broken("a chunk list has the wrong length"));
    };
    let chunks: Vec<ChunkRef> = parts
        .iter()
        .map(|p| {
            let (mut len, mut id) = ([0; 4], [0; 32]);
            len.copy_from_slice(&p[..4]);
            id.copy_from_slice(&p[4..]);
            ChunkRef {
                len: u32::from_le_bytes(len),
                id: ChunkId(id),
            }
        })
        .collect();
    if SegmentId::of(&chunks) != sref.id {
        return Err(broken("a chunk list does not match its segment's id"));
    }
    Ok(chunks)
}
