//! [`ManifestWriter`]: takes a manifest in, a segment at a time.

use std::collections::HashSet;

use left_core::chunker::CHUNKER_ID;
use left_core::content::{ContentId, Segment, SegmentId, SegmentRef, TopHasher};
use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};

use super::StoreError;
use super::manifest_places;
use super::manifests::{Db, MAX_SEGMENTS, Manifests, pack, ref_sum, row_of};
use crate::counters::MANIFEST_COMMITS;

/// Ids of manifests being written.
pub(super) type WriterIds = HashSet<i64>;

/// Segments are written when this many wait, or this many bytes of chunk lists.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

struct Waiting {
    n: u64,
    start: u64,
    sref: SegmentRef,
    /// Empty for a run of zero bytes.
    list: Vec<u8>,
}

/// Writes one manifest; see [`Manifests::writer`]. Holds at most about 1 MiB, whatever the file's size.
pub struct ManifestWriter {
    manifests: Manifests,
    /// The manifest's id and the life of the file it is in, once something was written.
    id: Option<(u64, i64)>,
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
    top: TopHasher,
    segments: u64,
}

impl ManifestWriter {
    pub(super) fn new(manifests: Manifests) -> Self {
        Self {
            manifests,
            id: None,
            waiting: Vec::new(),
            waiting_bytes: 0,
            top: TopHasher::new(CHUNKER_ID),
            segments: 0,
        }
    }

    /// Adds the file's next segment.
    ///
    /// # Errors
    /// When the database can not be written, or the chunk list does not match the segment. The writer
    /// is of no use afterwards.
    pub fn segment(&mut self, segment: &Segment) -> Result<(), StoreError> {
        let Segment { sref, chunks } = segment;
        let fits = if sref.is_zeros() {
            chunks.is_empty() && sref.len > 0
        } else {
            let len: u64 = chunks.iter().map(|c| u64::from(c.len)).sum();
            len == sref.len && SegmentId::of(chunks) == sref.id
        };
        if !fits || self.segments >= MAX_SEGMENTS {
            return Err(StoreError::Failed("a segment does not match its id".into()));
        }
        let list = pack(chunks);
        self.waiting_bytes += list.len();
        self.waiting.push(Waiting {
            n: self.segments,
            start: self.top.size(),
            sref: *sref,
            list,
        });
        self.top.push(sref);
        self.segments += 1;
        if self.waiting.len() >= BATCH || self.waiting_bytes >= BATCH_BYTES {
            self.flush(None)?;
        }
        Ok(())
    }

    /// Makes the manifest visible as that of `content` of `size` bytes. One that is there already
    /// stays.
    ///
    /// # Errors
    /// When the segments do not make up this content, or the database can not be written.
    pub fn finish(mut self, content: ContentId, size: u64) -> Result<(), StoreError> {
        if self.top.size() != size || self.top.finish() != content {
            return Err(StoreError::Failed(
                "the segments do not make up the content".into(),
            ));
        }
        self.flush(Some(content))
    }

    /// Writes what waits, and with `done` the manifest's name, in one transaction.
    fn flush(&mut self, done: Option<ContentId>) -> Result<(), StoreError> {
        let manifests = self.manifests.clone();
        let leave = manifests.write(|db| {
            let id = self.enroll(db)?;
            let mut conn = db.writer();
            let sql = Transaction::new(&mut conn, TransactionBehavior::Immediate)?;
            for w in &self.waiting {
                let at = row_of(id, w.n);
                sql.prepare_cached(
                    "INSERT INTO segment(at, start, len, id, sum) VALUES (?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    at,
                    w.start.cast_signed(),
                    w.sref.len.cast_signed(),
                    w.sref.id.0,
                    ref_sum(at, w.start, &w.sref)
                ])?;
                if !w.list.is_empty() {
                    sql.prepare_cached("INSERT INTO chunks(at, list) VALUES (?, ?)")?
                        .execute(params![at, w.list])?;
                    manifest_places::note(&sql, at, &w.sref.id, &w.list)?;
                }
            }
            let mut named = false;
            if let Some(content) = done {
                let there = sql
                    .prepare_cached("SELECT 1 FROM manifest WHERE content = ?")?
                    .query_row([&content.0], |_| Ok(()))
                    .optional()?;
                if there.is_some() {
                    return Ok(false);
                }
                sql.prepare_cached(
                    "UPDATE manifest SET content = ?, size = ?, segments = ? WHERE id = ?",
                )?
                .execute(params![
                    content.0,
                    self.top.size().cast_signed(),
                    self.segments.cast_signed(),
                    id
                ])?;
                named = true;
            }
            sql.commit()?;
            MANIFEST_COMMITS.add(1);
            if named {
                drop(conn);
                db.active().remove(&id);
            }
            Ok(named)
        })?;
        if leave {
            // Nothing left for drop to erase.
            self.id = None;
        }
        self.waiting.clear();
        self.waiting_bytes = 0;
        Ok(())
    }

    /// The manifest's row id; made now if need be.
    fn enroll(&mut self, db: &Db) -> Result<i64, StoreError> {
        match self.id {
            Some((life, id)) if life == db.life() => return Ok(id),
            Some(_) => {
                return Err(StoreError::Failed(
                    "the manifests were made anew while this one was written".into(),
                ));
            }
            None => {}
        }
        // Both locks, so that garbage collection never sees a row that is not known as active.
        let mut active = db.active();
        let conn = db.writer();
        conn.prepare_cached("INSERT INTO manifest(content, size, segments) VALUES (NULL, 0, 0)")?
            .execute([])?;
        let id = conn.last_insert_rowid();
        active.insert(id);
        self.id = Some((db.life(), id));
        Ok(id)
    }
}

impl Drop for ManifestWriter {
    fn drop(&mut self) {
        let Some((life, id)) = self.id.take() else {
            return;
        };
        let erased = self.manifests.write(|db| {
            if db.life() != life {
                return Ok(());
            }
            let erased = db.erase(id);
            db.active().remove(&id);
            erased
        });
        if let Err(e) = erased {
            // Garbage collection will.
            tracing::debug!(error = %e, "could not erase an unfinished manifest");
        }
    }
}
