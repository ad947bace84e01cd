//! Opening an index: make, check, or set aside and make anew.
//!
//! The check is cheap whatever the size: the header, the tables' definitions and the state row with
//! its checksum. A full `PRAGMA quick_check` takes seconds a million rows and is not needed: every row
//! is verified when it is read, and damage met then leaves a mark (`<path>.corrupt`) by which the next
//! open sets the file aside. [`IndexDb::verify`](super::IndexDb::verify) reads everything on demand.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use left_core::index::{Cursor, Totals};
use left_core::version::DeviceId;

use super::StoreError;
use super::columns::{SCHEMA, broken};
use super::head;
use super::rows::Rows;
use super::sqlite::{FILES, Setup, connect, header_fault, remove_files, sync_parent, with_suffix};
use super::state::State;

/// "LEFT" in the header's application id.
const APPLICATION: u32 = 0x4c45_4654;
/// The format of tables and records.
const VERSION: u32 = 3;
/// Pages cached, in KiB.
const CACHE_KIB: u32 = 8 << 10;
/// A reader's.
const READER_CACHE_KIB: u32 = 4 << 10;
/// How many indexes that were set aside are kept.
const KEPT_ASIDE: usize = 3;

/// What opening an index found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Opened {
    /// Why the index that was there could not be used and an empty one with a new epoch took its
    /// place; the old file lies beside it as `<name>.broken-<unix seconds>`. `None` when the index
    /// was opened, or when there was none.
    pub rebuilt: Option<String>,
}

/// Opens the index at `path`, making it where there is none or none that can be used.
pub(super) fn open(
    path: &Path,
    device: DeviceId,
) -> Result<(Rows, State, Vec<Cursor>, Opened), StoreError> {
    let rebuilt = match existing(path, device) {
        Ok(Some((rows, state, former))) => return Ok((rows, state, former, Opened::default())),
        Ok(None) => None,
        Err(StoreError::Corrupt(why)) => Some(why),
        Err(StoreError::Failed(why)) => {
            return Err(StoreError::Failed(format!(
                "{}: {why}. Check that left may read and write it and the files beside it",
                path.display()
            )));
        }
        Err(e) => return Err(e),
    };
    if let Some(why) = &rebuilt {
        tracing::warn!(path = %path.display(), why, "the index is set aside and made anew");
        set_aside(path)?;
    }
    create(path, device)?;
    let (rows, state, former) = existing(path, device)?
        .ok_or_else(|| StoreError::Failed("the index that was just made is gone".into()))?;
    Ok((rows, state, former, Opened { rebuilt }))
}

/// A further connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<Rows, StoreError> {
    let conn = connect(
        path,
        Setup {
            durable: true,
            cache_kib: READER_CACHE_KIB,
            read_only: true,
            create: false,
        },
    )?;
    Ok(Rows::new(conn))
}

/// Leaves the mark by which the next [`open`] sets the index aside. Best effort: without it the same
/// damage is met again.
pub(super) fn mark_corrupt(path: &Path, why: &str) {
    let mark = with_suffix(path, MARK);
    if let Err(e) = fs::write(&mark, why) {
        tracing::warn!(path = %mark.display(), error = %e, "could not mark the index as corrupt");
    }
}

const MARK: &str = ".corrupt";

/// What is open, its state, and the former lives of the index.
type Existing = (Rows, State, Vec<Cursor>);

/// The index at `path`; `None` when there is none, [`StoreError::Corrupt`] when it can not be used.
fn existing(path: &Path, device: DeviceId) -> Result<Option<Existing>, StoreError> {
    let mark = with_suffix(path, MARK);
    if exists(&mark)? {
        let why = fs::read(&mark).map_err(StoreError::io("read", &mark))?;
        let why = String::from_utf8_lossy(&why);
        return Err(broken(&why.chars().take(500).collect::<String>()));
    }
    let log = with_suffix(path, "-wal");
    let has_log = exists(&log)?;
    if has_log && !fs::symlink_metadata(&log).is_ok_and(|m| m.is_file()) {
        return Err(broken("its log is no regular file"));
    }
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound && has_log => {
            return Err(broken("the file is missing, but its log is there"));
        }
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::io("look at", path)(e)),
        Ok(m) if !m.is_file() => return Err(broken("it is no regular file")),
        Ok(_) => {}
    }
    if let Some(fault) = header_fault(path, APPLICATION, VERSION)? {
        return Err(StoreError::Corrupt(fault));
    }
    let rows = Rows::new(connect(path, SETUP)?);
    check_schema(&rows)?;
    let mut state = rows.state()?;
    if state.device != device {
        return Err(broken("it belongs to another device"));
    }
    if !state.clean && !has_log {
        // While the index is open its log exists, also after a crash: somebody took it away, and
        // with it the latest commits. Going on would give out their sequence numbers again.
        return Err(broken("its log is missing"));
    }
    if head::is_behind(path, &state) {
        return Err(broken(
            "its latest commits are missing: its log was damaged, or this is an older copy",
        ));
    }
    state.clean = false;
    begin_life(&rows, &mut state)?;
    // Brings the mark into the file itself, so that it is seen also without the log.
    rows.conn
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    let former = rows.former()?;
    Ok(Some((rows, state, former)))
}

const SETUP: Setup = Setup {
    durable: true,
    cache_kib: CACHE_KIB,
    read_only: false,
    create: false,
};

fn exists(path: &Path) -> Result<bool, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(StoreError::io("look at", path)(e)),
    }
}

/// Whether the tables are exactly those of [`SCHEMA`].
fn check_schema(rows: &Rows) -> Result<(), StoreError> {
    let mut q = rows
        .conn
        .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")?;
    let found = q
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    let wanted = SCHEMA.split(';').map(str::trim).filter(|s| !s.is_empty());
    if wanted.eq(found.iter().map(String::as_str)) {
        Ok(())
    } else {
        Err(broken("its tables are not as this program makes them"))
    }
}

/// Makes an empty index with a new epoch. Nothing may be at `path`. It is made beside and renamed into
/// place, so that a crash leaves no half-made index.
fn create(path: &Path, device: DeviceId) -> Result<(), StoreError> {
    let fresh = with_suffix(path, ".new");
    remove_files(&fresh)?;
    let conn = connect(
        &fresh,
        Setup {
            create: true,
            ..SETUP
        },
    )?;
    conn.execute_batch(&format!(
        "PRAGMA journal_mode=WAL;
         BEGIN; {SCHEMA}
         PRAGMA application_id={APPLICATION};
         PRAGMA user_version={VERSION};
         COMMIT;"
    ))?;
    let rows = Rows::new(conn);
    rows.set_state(&State {
        device,
        epoch: random_epoch()?,
        head: 0,
        floor: 0,
        clean: true,
        totals: Totals::default(),
    })?;
    // Closing brings all of the log into the file (synced) and removes the log.
    rows.conn.close().map_err(|(_, e)| e)?;
    fs::rename(&fresh, path).map_err(StoreError::io("rename", &fresh))?;
    sync_parent(path)
}

/// A new epoch, which continues the former one: should an older copy of this file come back, what it
/// gives out from there on is not taken for what was given out before.
fn begin_life(rows: &Rows, state: &mut State) -> Result<(), StoreError> {
    let txn = rows.conn.unchecked_transaction()?;
    if state.head > 0 {
        rows.add_former(Cursor {
            epoch: state.epoch,
            seq: state.head,
        })?;
    }
    state.epoch = random_epoch()?;
    rows.set_state(state)?;
    Ok(txn.commit()?)
}

/// A new random epoch, never 0.
fn random_epoch() -> Result<u64, StoreError> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| StoreError::Failed("the system gave no random bytes".into()))?;
    Ok(u64::from_le_bytes(bytes).max(1))
}

/// Moves the index and what lies beside it out of the way, removes the mark and the oldest of those
/// set aside earlier.
fn set_aside(path: &Path) -> Result<(), StoreError> {
    let mut secs = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let aside = loop {
        let aside = with_suffix(path, &format!(".broken-{secs}"));
        if !exists(&aside)? && !exists(&with_suffix(&aside, "-wal"))? {
            break aside;
        }
        secs += 1;
    };
    // The log first: a crash between leaves a file that says its log is missing, never a log that
    // would be replayed into a new file.
    for suffix in FILES.iter().rev() {
        let from = with_suffix(path, suffix);
        if exists(&from)? {
            fs::rename(&from, with_suffix(&aside, suffix))
                .map_err(StoreError::io("rename", &from))?;
        }
    }
    sync_parent(path)?;
    let mark = with_suffix(path, MARK);
    if exists(&mark)? {
        fs::remove_file(&mark).map_err(StoreError::io("delete", &mark))?;
    }
    prune(path);
    sync_parent(path)
}

/// Deletes the oldest indexes that were set aside; a failure only costs room.
fn prune(path: &Path) {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return;
    };
    let prefix = format!("{name}.broken-");
    let Ok(list) = fs::read_dir(dir) else { return };
    let mut stamps: Vec<u64> = list
        .filter_map(|e| {
            e.ok()?
                .file_name()
                .to_str()?
                .strip_prefix(&prefix)?
                .parse()
                .ok()
        })
        .collect();
    stamps.sort_unstable();
    for secs in stamps.iter().rev().skip(KEPT_ASIDE) {
        if let Err(e) = remove_files(&with_suffix(path, &format!(".broken-{secs}"))) {
            tracing::warn!(error = %e, "could not delete an old index");
        }
    }
}
