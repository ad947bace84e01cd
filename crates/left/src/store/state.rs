//! The index' one row of state: identity, numbers given out, counts.

use left_core::entry::{Entry, Kind};
use left_core::index::{Cursor, MAX_FORMER, Totals};
use left_core::version::DeviceId;
use rusqlite::params;

use super::StoreError;
use super::codec::{SUM_LEN, sum};
use super::columns::{array, broken, int, table};
use super::rows::Rows;

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
    fn numbers(&self) -> [u64; 12] {
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
            t.away_files,
            t.away_bytes,
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

    /// Whether anything that peers announced is away.
    pub(super) fn any_away(&self) -> bool {
        self.totals.away_files > 0
    }

    /// Replaces what one path adds to the needs, or to what is away.
    pub(super) fn count_need(&mut self, away: bool, before: Option<u64>, after: Option<u64>) {
        let t = &mut self.totals;
        let (files, bytes) = match away {
            true => (&mut t.away_files, &mut t.away_bytes),
            false => (&mut t.need_files, &mut t.need_bytes),
        };
        for (size, add) in [(before, false), (after, true)] {
            if let Some(size) = size {
                *files = step(*files, 1, add);
                *bytes = step(*bytes, size, add);
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

/// The checksum of a `former` row.
fn former_sum(n: i64, life: Cursor) -> [u8; SUM_LEN] {
    let (epoch, head) = (life.epoch.to_le_bytes(), life.seq.to_le_bytes());
    sum(table::FORMER, &[&n.to_le_bytes(), &epoch, &head])
}

impl Rows {
    /// Former lives of the index with their last numbers, the latest last.
    pub(super) fn former(&self) -> Result<Vec<Cursor>, StoreError> {
        let mut q = self.prepare("SELECT n, epoch, head, sum FROM former ORDER BY n")?;
        let mut rows = q.query([])?;
        let mut out = Vec::new();
        while let Some(row) = rows.next()? {
            let life = Cursor {
                epoch: int(row, 1)?,
                seq: int(row, 2)?,
            };
            if array::<SUM_LEN>(row, 3)? != former_sum(row.get(0)?, life) {
                return Err(broken("a former life does not match its checksum"));
            }
            out.push(life);
        }
        Ok(out)
    }

    /// Adds a former life; the oldest beyond [`MAX_FORMER`] is forgotten.
    pub(super) fn add_former(&self, life: Cursor) -> Result<(), StoreError> {
        let last = self
            .prepare("SELECT max(n) FROM former")?
            .query_row([], |row| row.get::<_, Option<i64>>(0))?;
        let n = last.unwrap_or(0) + 1;
        self.prepare("INSERT INTO former(n, epoch, head, sum) VALUES (?, ?, ?, ?)")?
            .execute(params![
                n,
                life.epoch.cast_signed(),
                life.seq.cast_signed(),
                former_sum(n, life)
            ])?;
        self.prepare("DELETE FROM former WHERE n <= ?")?
            .execute([n - MAX_FORMER as i64])?;
        Ok(())
    }

    pub(super) fn state(&self) -> Result<State, StoreError> {
        let mut q = self.prepare(
            "SELECT device, sum, epoch, head, floor, clean, files, dirs, links, bytes, need_files, \
             need_bytes, away_files, away_bytes FROM meta WHERE id = 1",
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
                away_files: n(10)?,
                away_bytes: n(11)?,
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
            away_files,
            away_bytes,
        ] = s.numbers().map(u64::cast_signed);
        self.prepare(
            "INSERT OR REPLACE INTO meta(id, device, sum, epoch, head, floor, clean, files, dirs, \
             links, bytes, need_files, need_bytes, away_files, away_bytes) \
             VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
            need_bytes,
            away_files,
            away_bytes
        ])?;
        Ok(())
    }
}
