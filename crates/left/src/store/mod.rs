//! What LEFT keeps in databases; the only place with SQL.
//!
//! - [`IndexDb`]: a share's index (`.left/index.db`), durable at every commit but those of what peers
//!   tell ([`Unsynced`]); [`IndexReader`] reads the same file from another thread.
//! - [`Manifests`]: chunk lists of large files (`.left/manifests.db`), a cache that can be computed
//!   again from the files.
//! - [`Journal`]: what changed, when, on which device (`.left/journal.db`), for people.
//!
//! Whatever a database file holds, nothing here panics: every row carries a checksum and every
//! decoded value is validated, so that a flipped bit is an error and never a wrong entry.

mod codec;
mod columns;
mod commit;
mod head;
mod heard;
mod index_db;
mod journal;
mod manifest_places;
mod manifest_writer;
mod manifests;
mod open;
mod reader;
mod rows;
mod sqlite;
mod state;
mod theirs;
mod unsynced;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod contract_theirs;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod manifests_test;
#[cfg(test)]
mod measure;
#[cfg(test)]
mod model;

use std::io;
use std::path::{Path, PathBuf};

use left_core::index::IndexError;

pub use index_db::{IndexDb, Listener};
pub use journal::{Change, Filter, Journal, MAX_CHANGES, Note, What};
pub use manifest_writer::ManifestWriter;
pub use manifests::{ManifestInfo, Manifests};
pub use open::Opened;
pub use reader::IndexReader;
pub use unsynced::Unsynced;

/// A database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The stored data can not be trusted.
    #[error("the database is corrupt: {0}")]
    Corrupt(String),
    /// No room to write; nothing of the change was done.
    #[error("no room on the disk for the database: {0}")]
    Full(String),
    /// A file operation beside the database failed.
    #[error("{}: {op}: {source}", path.display())]
    Io {
        /// What was being done.
        op: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Any other failure; nothing of the change was done.
    #[error("the database failed: {0}")]
    Failed(String),
}

impl StoreError {
    /// An [`StoreError::Io`], for `map_err`.
    fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        move |source| StoreError::Io {
            op,
            path: path.to_owned(),
            source,
        }
    }
}

impl From<StoreError> for IndexError {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::Corrupt(why) => IndexError::Corrupt(why),
            StoreError::Full(why) => IndexError::Full(why),
            StoreError::Io { .. } => IndexError::Failed(e.to_string()),
            StoreError::Failed(why) => IndexError::Failed(why),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        let text = e.to_string();
        match &e {
            rusqlite::Error::SqliteFailure(inner, _) => match inner.code {
                // A broken uniqueness can only come from a damaged b-tree: all that is written
                // was looked up in the same transaction.
                ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ConstraintViolation => StoreError::Corrupt(text),
                ErrorCode::DiskFull => StoreError::Full(text),
                _ => StoreError::Failed(text),
            },
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::QueryReturnedNoRows => StoreError::Corrupt(text),
            _ => StoreError::Failed(text),
        }
    }
}

impl From<rusqlite::types::FromSqlError> for StoreError {
    fn from(e: rusqlite::types::FromSqlError) -> Self {
        StoreError::Corrupt(e.to_string())
    }
}
