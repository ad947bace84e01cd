//! What both databases share: opening with the same settings, files beside the database, syncing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::StoreError;

/// How a connection is set up.
#[derive(Clone, Copy)]
pub(super) struct Setup {
    /// Whether a commit is durable when it returns (`synchronous=FULL`), or only safe from
    /// corruption (`NORMAL`).
    pub(super) durable: bool,
    /// Page cache in KiB. Fixed, so that memory does not grow with the database.
    pub(super) cache_kib: u32,
    /// Whether the connection must not write.
    pub(super) read_only: bool,
    /// Whether a missing file is made.
    pub(super) create: bool,
}

/// Pages in the log after which it is copied back into the database.
const CHECKPOINT_PAGES: u32 = 4000;
/// The log file is cut back to this many bytes once it was larger.
const WAL_LIMIT: u32 = 32 << 20;
/// How long to wait for another connection's lock. Writers of one file share one connection, so
/// this is only met at a checkpoint.
const BUSY: Duration = Duration::from_secs(10);

/// SQLite's way to the files: it keeps other processes out, and the index of the log in memory instead
/// of a mapped file beside it. On a disk without any room the kernel ends a program that writes to
/// such a mapping (SIGBUS), and no error can be returned.
const VFS: &str = "unix-excl";

/// Opens `path` with the settings all our connections share. The file must be in WAL mode already,
/// or become so by the caller.
pub(super) fn connect(path: &Path, setup: Setup) -> Result<Connection, StoreError> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if setup.create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let conn = Connection::open_with_flags_and_vfs(path, flags, VFS)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(64);
    // Else a statement whose LIMIT is a parameter is compiled anew each time it is bound.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    let sync = sync_level(setup.durable);
    // A reader opens for writing too, only then can the last one out tidy up the log.
    let query_only = u8::from(setup.read_only);
    conn.execute_batch(&format!(
        "PRAGMA synchronous={sync};
         PRAGMA temp_store=MEMORY;
         PRAGMA cache_size=-{};
         PRAGMA mmap_size=0;
         PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES};
         PRAGMA journal_size_limit={WAL_LIMIT};
         PRAGMA trusted_schema=OFF;
         PRAGMA cell_size_check=ON;
         PRAGMA query_only={query_only};",
        setup.cache_kib
    ))?;
    Ok(conn)
}

/// The value of `PRAGMA synchronous`. In WAL mode the one only leaves out to sync the log at a commit.
pub(super) fn sync_level(durable: bool) -> &'static str {
    if durable { "FULL" } else { "NORMAL" }
}

/// `path` with `suffix` after its last character.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut s = path.as_os_str().to_owned();
    s.push(suffix);
    PathBuf::from(s)
}

/// The database file and what SQLite keeps beside it.
pub(super) const FILES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Deletes a database and what lies beside it. What is not there is no error.
pub(super) fn remove_files(path: &Path) -> Result<(), StoreError> {
    for suffix in FILES {
        let p = with_suffix(path, suffix);
        match fs::symlink_metadata(&p) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(StoreError::io("look at", &p)(e)),
            Ok(m) if m.is_dir() => fs::remove_dir_all(&p),
            Ok(_) => fs::remove_file(&p),
        }
        .map_err(StoreError::io("delete", &p))?;
    }
    Ok(())
}

/// Makes the names in `path`'s folder durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let dir = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(StoreError::io("sync", dir))
}

/// Whether the file system of `path` has no room left to speak of. SQLite reports a failed write
/// to its shared memory or over a quota as a plain I/O error; this tells which it was.
pub(super) fn no_room(path: &Path) -> bool {
    const TIGHT: u64 = 1 << 20;
    rustix::fs::statvfs(path).is_ok_and(|s| {
        s.f_bavail.saturating_mul(s.f_frsize) < TIGHT || s.f_favail == 0 && s.f_files > 0
    })
}

/// Whether nothing can be written beside `path` because of its file system. Tried out, for one that
/// became so after an error need not say so.
pub(super) fn is_read_only(path: &Path) -> bool {
    let probe = with_suffix(path, ".probe");
    let made = File::options().write(true).create_new(true).open(&probe);
    match made {
        Ok(_) => {
            // Empty, and in the way of nobody.
            let _ = fs::remove_file(&probe);
            false
        }
        Err(e) => e.kind() == std::io::ErrorKind::ReadOnlyFilesystem,
    }
}

/// The first 100 bytes of an SQLite file that we look at before SQLite may: opening replays a
/// log, which must not happen to a file that is not ours.
pub(super) fn header_fault(
    path: &Path,
    application: u32,
    version: u32,
) -> Result<Option<String>, StoreError> {
    use std::io::Read;
    let mut head = Vec::with_capacity(100);
    File::open(path)
        .and_then(|f| f.take(100).read_to_end(&mut head))
        .map_err(StoreError::io("read", path))?;
    if head.is_empty() {
        return Ok(Some("the file is empty".into()));
    }
    if head.len() < 100 || &head[..16] != b"SQLite format 3\0" {
        return Ok(Some("the file is no database".into()));
    }
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if word(68) != application {
        return Ok(Some("the file is another program's database".into()));
    }
    if word(60) != version {
        return Ok(Some(format!(
            "the file has format {}, this program writes {version}",
            word(60)
        )));
    }
    Ok(None)
}
