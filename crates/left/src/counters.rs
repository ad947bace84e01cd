//! What this process has done since it started, counted where it is done. `/metrics` shows it, and
//! so it can be seen when work is done twice: that costs nothing but time, and times are not judged.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug)]
pub struct Counter {
    /// Name, without prefix and unit's suffix.
    pub name: &'static str,
    /// What it counts, for people.
    pub help: &'static str,
    count: AtomicU64,
}

impl Counter {
    const fn new(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            count: AtomicU64::new(0),
        }
    }

    /// Adds `more`.
    pub fn add(&self, more: u64) {
        self.count.fetch_add(more, Ordering::Relaxed);
    }

    /// So far.
    pub fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Bytes of content that went through BLAKE3 to learn or to prove what they are.
pub static HASHED: Counter = Counter::new(
    "hashed_bytes",
    "Bytes of content hashed, to learn or to prove what they are",
);
/// Transactions of the index, which are durable.
pub static INDEX_COMMITS: Counter =
    Counter::new("index_commits", "Durable transactions of the index");
/// Transactions of the manifests, which are not.
pub static MANIFEST_COMMITS: Counter =
    Counter::new("manifest_commits", "Transactions of the manifests");
/// Transactions of the log of changes, which are not.
pub static JOURNAL_COMMITS: Counter =
    Counter::new("journal_commits", "Transactions of the log of changes");

/// All of them.
pub static ALL: [&Counter; 4] = [&HASHED, &INDEX_COMMITS, &MANIFEST_COMMITS, &JOURNAL_COMMITS];
