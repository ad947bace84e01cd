//! Reading what peers announced and differs from ours, and what is not held here: more of [`Rows`].

use left_core::entry::Entry;
use left_core::index::{Need, Walk};
use left_core::path::RelPath;
use left_core::version::DeviceId;
use rusqlite::{CachedStatement, OptionalExtension, Row, params};

use super::StoreError;
use super::codec::{SUM_LEN, decode};
use super::columns::{
    TOP, array, below, blob, broken, checked, dropped_sum, int, past, path, small, sql_limit,
    theirs_table,
};
use super::rows::Rows;

impl Rows {
    fn announced(&self, row: &Row<'_>, away: bool) -> Result<(DeviceId, Entry), StoreError> {
        let (key, peer) = (blob(row, 0)?, small(row, 1)?);
        let body = checked(theirs_table(away), key, u64::from(peer), blob(row, 2)?)?;
        let record = decode(body, |n| self.device(n))?;
        Ok((self.device(peer)?, record.entry))
    }

    /// What peers announced for a path; `any_away`: whether anything is away at all.
    pub(super) fn theirs(
        &self,
        key: &[u8],
        any_away: bool,
    ) -> Result<Vec<(DeviceId, Entry)>, StoreError> {
        if let Some(all) = self.heard.get(key) {
            return Ok(all);
        }
        // Asked with `away IN (0, 1)` it would make a table of the two numbers, each time.
        let mut q = self.prepare(match any_away {
            false => "SELECT key, peer, rec, 0 FROM theirs WHERE away = 0 AND key = ?1",
            true => {
                "SELECT key, peer, rec, 0 FROM theirs WHERE away = 0 AND key = ?1 \
                 UNION ALL SELECT key, peer, rec, 1 FROM theirs WHERE away = 1 AND key = ?1"
            }
        })?;
        let mut rows = q.query([key])?;
        let mut out = Vec::new();
        while let Some(row) = rows.next()? {
            out.push(self.announced(row, int(row, 3)? != 0)?);
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
                "SELECT key, peer, rec FROM theirs WHERE away = 0 AND key > ? ORDER BY key",
                Vec::new(),
            ),
            Walk::Down => (
                "SELECT key, peer, rec FROM theirs WHERE away = 0 AND key < ? ORDER BY key DESC",
                TOP.to_vec(),
            ),
        };
        let q = self.prepare(sql)?;
        self.grouped(q, &[from.map_or(edge, RelPath::key)], false, limit)
    }

    /// Paths that are away, strictly between these keys.
    pub(super) fn away(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Need>, StoreError> {
        let q = self.prepare(
            "SELECT key, peer, rec FROM theirs WHERE away = 1 AND key > ? AND key < ? ORDER BY key",
        )?;
        self.grouped(q, &[from.to_vec(), to.to_vec()], true, limit)
    }

    /// Paths directly in `dir` that are away, after the child `after`, in order.
    pub(super) fn away_children(
        &self,
        dir: Option<&RelPath>,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<Need>, StoreError> {
        let (start, to) = dir.map_or((Vec::new(), TOP.to_vec()), |d| below(&d.key()));
        let depth = start.len();
        let mut from = match after {
            Some(a) => past(&a.key()).max(start),
            None => start,
        };
        let mut out = Vec::new();
        while out.len() < limit {
            let Some(next) = self.away(&from, &to, 1)?.pop() else {
                break;
            };
            let key = next.path.key();
            let tail = key.get(depth..).unwrap_or_default();
            match tail.iter().position(|b| *b == 0) {
                // Below a folder that is here.
                Some(end) => from = past(&key[..depth + end]),
                None => {
                    from = past(&key);
                    out.push(next);
                }
            }
        }
        Ok(out)
    }

    /// Whether what peers announced of a path is away.
    pub(super) fn is_away(&self, key: &[u8]) -> Result<bool, StoreError> {
        let mut q = self.prepare("SELECT 1 FROM theirs WHERE away = 1 AND key = ? LIMIT 1")?;
        Ok(q.query_row([key], |_| Ok(())).optional()?.is_some())
    }

    /// Whether any path is noted as dropped.
    pub(super) fn any_dropped(&self) -> Result<bool, StoreError> {
        let mut q = self.prepare("SELECT 1 FROM dropped LIMIT 1")?;
        Ok(q.query_row([], |_| Ok(())).optional()?.is_some())
    }

    pub(super) fn dropped_since(
        &self,
        seq: u64,
        limit: usize,
    ) -> Result<Vec<(u64, RelPath)>, StoreError> {
        let mut out = Vec::new();
        let Ok(seq) = i64::try_from(seq) else {
            return Ok(out);
        };
        let mut q =
            self.prepare("SELECT seq, key, sum FROM dropped WHERE seq > ? ORDER BY seq LIMIT ?")?;
        let mut rows = q.query(params![seq, sql_limit(limit)])?;
        while let Some(row) = rows.next()? {
            let (seq, key) = (int(row, 0)?, blob(row, 1)?);
            if array::<SUM_LEN>(row, 2)? != dropped_sum(seq, key) {
                return Err(broken("a dropped path does not match its checksum"));
            }
            out.push((seq, path(key)?));
        }
        Ok(out)
    }

    /// At most `limit` paths with all that was announced of each, from rows in the order of paths.
    fn grouped(
        &self,
        mut q: CachedStatement<'_>,
        bounds: &[Vec<u8>],
        away: bool,
        limit: usize,
    ) -> Result<Vec<Need>, StoreError> {
        let mut out: Vec<Need> = Vec::new();
        // Whether all of the last path is known without reading on.
        let mut is_heard = false;
        let mut rows = q.query(rusqlite::params_from_iter(bounds))?;
        while let Some(row) = rows.next()? {
            let key = blob(row, 0)?;
            let path = path(key)?;
            let full = out.len() == limit;
            match out.last_mut() {
                Some(last) if last.path == path => {
                    if !is_heard {
                        last.theirs.push(self.announced(row, away)?);
                    }
                }
                _ if full => break,
                _ => {
                    let heard = self.heard.get(key);
                    is_heard = heard.is_some();
                    let theirs = match heard {
                        Some(all) => all,
                        None => vec![self.announced(row, away)?],
                    };
                    out.push(Need { path, theirs });
                }
            }
        }
        for need in &mut out {
            need.theirs.sort_by_key(|(d, _)| *d);
        }
        Ok(out)
    }

    pub(super) fn needs_below(&self, dir: &RelPath) -> Result<bool, StoreError> {
        let (from, to) = below(&dir.key());
        let mut q =
            self.prepare("SELECT 1 FROM theirs WHERE away = 0 AND key > ? AND key < ? LIMIT 1")?;
        Ok(q.query_row([from, to], |_| Ok(())).optional()?.is_some())
    }
}
