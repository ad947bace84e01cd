//! The index' tables, and how values lie in their columns.

use left_core::content::ContentId;
use left_core::index::Cursor;
use left_core::path::RelPath;
use left_core::version::DeviceId;
use rusqlite::Row;

use super::StoreError;
use super::codec::{SUM_LEN, sum};

/// The tables. A path keeps its `entry.id` when its record is replaced, so that a record that differs
/// in times, mode or version only leaves the indexes on key, content and inode alone. `c4` (the first
/// 4 bytes of the content id) and `ino` stand only for live files and only to find them; the truth is
/// in `rec` (see `codec`). All rows that `theirs` has of a path are `away` (1) or none is (0). Keys are [`RelPath::key`], so byte order is tree order.
pub(super) const SCHEMA: &str = "
CREATE TABLE meta(id INTEGER PRIMARY KEY, device BLOB NOT NULL, epoch INTEGER NOT NULL, head INTEGER NOT NULL, floor INTEGER NOT NULL, clean INTEGER NOT NULL, files INTEGER NOT NULL, dirs INTEGER NOT NULL, links INTEGER NOT NULL, bytes INTEGER NOT NULL, need_files INTEGER NOT NULL, need_bytes INTEGER NOT NULL, away_files INTEGER NOT NULL, away_bytes INTEGER NOT NULL, sum BLOB NOT NULL);
CREATE TABLE former(n INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, head INTEGER NOT NULL, sum BLOB NOT NULL);
CREATE TABLE device(n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, top INTEGER NOT NULL, sum BLOB NOT NULL);
CREATE TABLE cursor(peer INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, sum BLOB NOT NULL);
CREATE TABLE entry(id INTEGER PRIMARY KEY, seq INTEGER NOT NULL UNIQUE, key BLOB NOT NULL UNIQUE, c4 INTEGER, ino INTEGER, rec BLOB NOT NULL);
CREATE INDEX entry_c4 ON entry(c4) WHERE c4 IS NOT NULL;
CREATE INDEX entry_ino ON entry(ino) WHERE ino IS NOT NULL;
CREATE TABLE dropped(seq INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, sum BLOB NOT NULL);
CREATE TABLE theirs(away INTEGER NOT NULL, key BLOB NOT NULL, peer INTEGER NOT NULL, rec BLOB NOT NULL, PRIMARY KEY(away, key, peer)) WITHOUT ROWID;
";

/// Which table a checksum belongs to.
pub(super) mod table {
    pub(in crate::store) const META: u8 = 1;
    pub(in crate::store) const DEVICE: u8 = 2;
    pub(in crate::store) const CURSOR: u8 = 3;
    pub(in crate::store) const ENTRY: u8 = 4;
    pub(in crate::store) const THEIRS: u8 = 5;
    pub(in crate::store) const FORMER: u8 = 6;
    pub(in crate::store) const HEAD: u8 = 7;
    pub(in crate::store) const CHANGE: u8 = 8;
    pub(in crate::store) const AWAY: u8 = 9;
    pub(in crate::store) const DROPPED: u8 = 10;
}

/// Sorts above every key: no name has more than 255 bytes.
pub(super) const TOP: [u8; 256] = [0xff; 256];
/// A device as numbered in this index.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) n: u32,
    /// Largest counter seen.
    pub(super) top: u64,
}

/// The bounds of all keys strictly below the folder with this key (the lower one is never a key).
pub(super) fn below(key: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut from = key.to_vec();
    from.push(0);
    (from, past(key))
}

/// Sorts after the path with this key and all below it, and before all else that follows.
pub(super) fn past(key: &[u8]) -> Vec<u8> {
    let mut to = key.to_vec();
    to.push(1);
    to
}

/// What a content is found by: 4 bytes are enough to leave few false hits among millions, and their
/// index, in which neighbours are far apart, is what a batch of new files writes most of.
pub(super) fn c4(content: &ContentId) -> i64 {
    let [a, b, c, d, ..] = content.0;
    i64::from(i32::from_be_bytes([a, b, c, d]))
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

pub(super) fn check_device(
    id: DeviceId,
    known: Known,
    stored: [u8; SUM_LEN],
) -> Result<(), StoreError> {
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

/// The table of an announcement's checksum.
pub(super) fn theirs_table(away: bool) -> u8 {
    if away { table::AWAY } else { table::THEIRS }
}

/// The checksum of a `dropped` row.
pub(super) fn dropped_sum(seq: u64, key: &[u8]) -> [u8; SUM_LEN] {
    sum(table::DROPPED, &[&seq.to_le_bytes(), key])
}

/// Appends the checksum that [`checked`] takes off. `id` is the sequence number or the peer.
pub(super) fn seal(table: u8, key: &[u8], id: u64, mut body: Vec<u8>) -> Vec<u8> {
    let sum = sum(table, &[key, &id.to_le_bytes(), &body]);
    body.extend_from_slice(&sum);
    body
}

pub(super) fn checked<'a>(
    table: u8,
    key: &[u8],
    id: u64,
    rec: &'a [u8],
) -> Result<&'a [u8], StoreError> {
    rec.split_last_chunk::<SUM_LEN>()
        .filter(|(body, stored)| **stored == sum(table, &[key, &id.to_le_bytes(), body]))
        .map(|(body, _)| body)
        .ok_or_else(|| broken("a record does not match its checksum"))
}

pub(super) fn path(key: &[u8]) -> Result<RelPath, StoreError> {
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
