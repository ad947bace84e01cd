//! Which contents have a segment or a chunk: a table from the first 8 bytes of ids to places, so that
//! bytes that are here under another name need not be fetched. Of chunks one of eight is noted, chosen by
//! its id, which is the same choice in every file. It takes some 20 bytes for about 80 KiB of content,
//! and no memory. What it says is a hint: whoever follows it compares hashes.

use left_core::content::{ChunkId, ContentId, SegmentId};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::StoreError;
use super::columns::array;
use super::manifests::{CHUNK_LEN, Manifests, N_BITS};

pub(super) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS place(key INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY(key, at)) WITHOUT ROWID;";

/// A chunk is noted when these bits of its id are zero. (The byte beside decides on segments' ends.)
const SAMPLE_MASK: u8 = 7;
/// Most places told of one id.
const FEW: i64 = 8;

fn sampled(id: &[u8]) -> bool {
    id[id.len() - 2] & SAMPLE_MASK == 0
}

fn key(id: &[u8]) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&id[..8]);
    i64::from_be_bytes(first)
}

/// The keys of a segment and of its chunk list as it lies in its row.
fn keys<'a>(segment: &[u8], list: &'a [u8]) -> impl Iterator<Item = i64> + 'a {
    let chunks = list.as_chunks::<CHUNK_LEN>().0.iter().map(|c| &c[4..]);
    std::iter::once(key(segment)).chain(chunks.filter(|id| sampled(id)).map(key))
}

/// Notes a segment that is no run of zero bytes.
pub(super) fn note(
    sql: &Transaction<'_>,
    at: i64,
    segment: &SegmentId,
    list: &[u8],
) -> Result<(), StoreError> {
    let mut insert = sql.prepare_cached("INSERT OR IGNORE INTO place(key, at) VALUES (?, ?)")?;
    for key in keys(&segment.0, list) {
        insert.execute(params![key, at])?;
    }
    Ok(())
}

/// Forgets what was noted of at most `limit` segments with rows in this range, before those go.
pub(super) fn forget(
    conn: &Connection,
    first: i64,
    end: i64,
    limit: i64,
) -> Result<(), StoreError> {
    let mut q = conn.prepare_cached(
        "SELECT s.at, id, list FROM segment s JOIN chunks c ON c.at = s.at \
         WHERE s.at >= ? AND s.at < ? ORDER BY s.at LIMIT ?",
    )?;
    let mut rows = q.query([first, end, limit])?;
    let mut delete = conn.prepare_cached("DELETE FROM place WHERE key = ? AND at = ?")?;
    while let Some(row) = rows.next()? {
        let at: i64 = row.get(0)?;
        let id = array::<32>(row, 1)?;
        let list: Vec<u8> = row.get(2)?;
        for key in keys(&id, &list) {
            delete.execute(params![key, at])?;
        }
    }
    Ok(())
}

impl Manifests {
    /// Contents that have this segment, the newest first, and which of theirs it is: at most a few, and
    /// only hints.
    pub fn having_segment(&self, id: SegmentId) -> Vec<(ContentId, u64)> {
        self.places(key(&id.0))
    }

    /// Contents that have this chunk, and in which of their segments, as
    /// [`having_segment`](Self::having_segment). Of most chunks nothing is known.
    pub fn having_chunk(&self, id: ChunkId) -> Vec<(ContentId, u64)> {
        match sampled(&id.0) {
            true => self.places(key(&id.0)),
            false => Vec::new(),
        }
    }

    /// Whether anything is known of any content.
    pub fn has_places(&self) -> bool {
        let some = self.read("places", |conn| {
            let mut q = conn.prepare_cached("SELECT 1 FROM place LIMIT 1")?;
            Ok(q.query_row([], |_| Ok(())).optional()?.is_some())
        });
        some.unwrap_or(false)
    }

    fn places(&self, key: i64) -> Vec<(ContentId, u64)> {
        self.read("places", |conn| {
            let mut q = conn.prepare_cached(
                "SELECT content, p.at FROM place p JOIN manifest m ON m.id = p.at >> 32 \
                 WHERE key = ? AND content IS NOT NULL ORDER BY p.at DESC LIMIT ?",
            )?;
            let mut rows = q.query([key, FEW])?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                let at: i64 = row.get(1)?;
                let n = at.cast_unsigned() & ((1 << N_BITS) - 1);
                out.push((ContentId(array(row, 0)?), n));
            }
            Ok(out)
        })
        .unwrap_or_default()
    }
}
