//! [`IndexDb`]: a share's index in SQLite.

use std::path::{Path, PathBuf};

use left_core::content::ContentId;
use left_core::entry::{Entry, Mtime, Record};
use left_core::index::{Cursor, Epoch, Index, IndexError, Need, Totals, Txn, Walk};
use left_core::path::RelPath;
use left_core::version::DeviceId;

use super::StoreError;
use super::columns::{TOP, broken};
use super::commit::{commit, for_each_need};
use super::head::Head;
use super::journal::Note;
use super::open::{Opened, mark_corrupt, open, open_reader};
use super::reader::IndexReader;
use super::rows::Rows;
use super::sqlite::{is_read_only, no_room};
use super::state::State;
use super::unsynced::Unsynced;

/// A share's index: the one writer of its file. Readers for other threads come from
/// [`reader`](Self::reader).
pub struct IndexDb {
    path: PathBuf,
    rows: Rows,
    /// What the file says, so that counts and numbers cost no read.
    state: State,
    former: Vec<Cursor>,
    head: Head,
    unsynced: Unsynced,
    /// Who is told what each commit changed.
    listener: Option<Listener>,
}

/// Takes what a commit changed, after it.
pub type Listener = Box<dyn FnMut(Vec<Note>) + Send>;

impl IndexDb {
    /// Opens the index of `device` at `path`, making it where there is none. One that can not be used
    /// (no database, corrupt, another version's, another device's, without the log it needs) is set
    /// aside and an empty one with a new epoch is made: see [`Opened::rebuilt`].
    ///
    /// # Errors
    /// When the folder can not be written, the disk is full, or another process holds the file.
    pub fn open(path: &Path, device: DeviceId) -> Result<(IndexDb, Opened), StoreError> {
        let (rows, state, former, opened) = open(path, device)?;
        let db = IndexDb {
            path: path.to_owned(),
            head: Head::open(path, &state),
            unsynced: Unsynced::new(path),
            rows,
            state,
            former,
            listener: None,
        };
        Ok((db, opened))
    }

    /// A reader with its own connection, for another thread.
    ///
    /// # Errors
    /// When the file can not be opened a second time.
    pub fn reader(&self) -> Result<IndexReader, StoreError> {
        Ok(IndexReader::new(&self.path, open_reader(&self.path)?))
    }

    /// For who changes the folder because of what peers told: that has to be on the disk before.
    pub fn unsynced(&self) -> Unsynced {
        self.unsynced.clone()
    }

    /// Lets all reads until [`release`](Self::release) share one look at the file. Each read by itself
    /// takes and gives back the file's locks, which costs more than many of them.
    ///
    /// # Errors
    /// When the file can not be read.
    pub fn hold(&self) -> Result<(), IndexError> {
        self.lift(self.rows.hold())
    }

    /// Ends what [`hold`](Self::hold) began.
    ///
    /// # Errors
    /// When the file can not be read.
    pub fn release(&self) -> Result<(), IndexError> {
        self.lift(self.rows.release())
    }

    /// Gives back the memory of cached pages; what is needed again is read again.
    pub fn rest(&self) {
        self.rows.heard.clear();
        // Nothing depends on it.
        let _ = self.rows.conn.release_memory();
    }

    /// Reads everything: the database's structure, every row's checksum and the counts. About a minute a
    /// million rows.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] with the first fault found; the next open will set the file aside.
    pub fn verify(&self) -> Result<(), IndexError> {
        self.lift(verify(&self.rows, &self.state))
    }

    /// Marks the file for being set aside at the next open, for a fault that only the caller can see.
    pub fn condemn(&self, why: &str) {
        mark_corrupt(&self.path, why);
    }

    /// Has `listener` told from now on what each commit changed, after it is durable. It must not block
    /// for long: the writer waits.
    pub fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
    }

    fn lift<T>(&self, result: Result<T, StoreError>) -> Result<T, IndexError> {
        lift(&self.path, result)
    }
}

/// Leaves a mark when damage was met, tells a full disk from other failures.
pub(super) fn lift<T>(path: &Path, result: Result<T, StoreError>) -> Result<T, IndexError> {
    result.map_err(|e| match e {
        StoreError::Corrupt(why) => {
            mark_corrupt(path, &why);
            IndexError::Corrupt(why)
        }
        StoreError::Failed(why) if no_room(path) => IndexError::Full(why),
        StoreError::Failed(why) if is_read_only(path) => IndexError::Failed(format!(
            "{why}: the file system is read-only. Make it writable, and left goes on"
        )),
        e => e.into(),
    })
}

fn verify(rows: &Rows, state: &State) -> Result<(), StoreError> {
    const PAGE: usize = 1000;
    let check: String = rows
        .conn
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(broken(&check));
    }
    let mut counted = State {
        totals: Totals::default(),
        ..*state
    };
    let mut seq = 0;
    loop {
        let page = rows.changes_since(seq, PAGE)?;
        for (_, path, record) in &page {
            let node = &record.entry.node;
            counted.count(node.kind(), node.size(), true);
            if rows.stored(&path.key())?.is_none() {
                return Err(broken("a record is not found by its path"));
            }
        }
        match page.last() {
            Some((last, ..)) => seq = *last,
            None => break,
        }
    }
    for_each_need(rows, |away, size| counted.count_need(away, None, size))?;
    rows.dropped_since(0, usize::MAX)?;
    if seq > state.head || counted.totals != state.totals {
        return Err(broken("its counts are wrong"));
    }
    Ok(())
}

impl Drop for IndexDb {
    fn drop(&mut self) {
        self.state.clean = true;
        if let Err(e) = self.rows.set_state(&self.state) {
            // Not closed in order is the safe reading.
            tracing::debug!(error = %e, "the index could not be closed in order");
        }
    }
}

impl Index for IndexDb {
    fn epoch(&self) -> Epoch {
        self.state.epoch
    }

    fn former(&self) -> &[Cursor] {
        &self.former
    }

    fn head(&self) -> u64 {
        self.state.head
    }

    fn counter_floor(&self) -> u64 {
        self.state.floor
    }

    fn max_counter(&self, device: DeviceId) -> Result<u64, IndexError> {
        let known = self.lift(self.rows.known(device))?;
        Ok(known.map_or(0, |k| k.top))
    }

    fn get(&self, path: &RelPath) -> Result<Option<Record>, IndexError> {
        let found = self.lift(self.rows.get(&path.key()))?;
        Ok(found.map(|(_, record)| record))
    }

    fn live_after(
        &self,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        self.lift(self.rows.live_in_order(after, limit))
    }

    fn live_below(
        &self,
        dir: &RelPath,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        self.lift(self.rows.live_below(dir, after, limit))
    }

    fn by_content(
        &self,
        content: &ContentId,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        self.lift(self.rows.by_content(content, limit))
    }

    fn by_inode(
        &self,
        ino: u64,
        size: u64,
        mtime: Mtime,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        self.lift(self.rows.by_inode(ino, size, mtime))
    }

    fn changes_since(
        &self,
        seq: u64,
        limit: usize,
    ) -> Result<Vec<(u64, RelPath, Record)>, IndexError> {
        self.lift(self.rows.changes_since(seq, limit))
    }

    fn dropped_since(&self, seq: u64, limit: usize) -> Result<Vec<(u64, RelPath)>, IndexError> {
        self.lift(self.rows.dropped_since(seq, limit))
    }

    fn cursor(&self, peer: DeviceId) -> Result<Cursor, IndexError> {
        self.lift(self.rows.cursor(peer))
    }

    fn theirs(&self, path: &RelPath) -> Result<Vec<(DeviceId, Entry)>, IndexError> {
        self.lift(self.rows.theirs(&path.key(), self.state.any_away()))
    }

    fn needs(
        &self,
        walk: Walk,
        from: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<Need>, IndexError> {
        self.lift(self.rows.needs(walk, from, limit))
    }

    fn needs_below(&self, dir: &RelPath) -> Result<bool, IndexError> {
        self.lift(self.rows.needs_below(dir))
    }

    fn away(&self, after: Option<&RelPath>, limit: usize) -> Result<Vec<Need>, IndexError> {
        let from = after.map(RelPath::key).unwrap_or_default();
        self.lift(self.rows.away(&from, &TOP, limit))
    }

    fn totals(&self) -> Result<Totals, IndexError> {
        Ok(self.state.totals)
    }

    fn commit(&mut self, txn: Txn) -> Result<u64, IndexError> {
        if txn.is_empty() {
            return Ok(self.state.head);
        }
        let held = !self.rows.conn.is_autocommit();
        self.release()?;
        match commit(&self.rows, &self.state, &txn, self.listener.is_some()) {
            Ok((state, notes)) => {
                self.state = state;
                self.unsynced.committed(!txn.is_hearsay());
                self.head.note(&self.state);
                if let Some(listener) = self.listener.as_mut().filter(|_| !notes.is_empty()) {
                    listener(notes);
                }
            }
            Err(e) => {
                self.rows.forget();
                return self.lift(Err(e));
            }
        }
        if held {
            self.hold()?;
        }
        Ok(self.state.head)
    }
}
