//! What the index had given out at its last commit, in a small file beside it.
//!
//! SQLite reads its log up to the first damaged frame and takes the rest for a commit that was never
//! finished: commits that peers have heard of would be gone without a word, and their sequence numbers
//! given out again for other changes. The same when an older copy of the file is put in its place. So
//! the last number is kept outside as well. It is written after the commit and not synced: after a kill
//! it is exact, after a cut of the power at most too low, and so never a reason for a false alarm.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::codec::{SUM_LEN, sum};
use super::columns::table;
use super::sqlite::with_suffix;
use super::state::State;

/// Epoch, last sequence number, checksum.
const LEN: usize = 16 + SUM_LEN;
const SUFFIX: &str = "-head";

/// The open file; `None` where it can not be written, which only costs the protection.
pub(super) struct Head {
    file: Option<File>,
    written: u64,
}

impl Head {
    /// Opens or makes the file beside the index at `path` and notes where that is now.
    pub(super) fn open(path: &Path, state: &State) -> Head {
        let path = with_suffix(path, SUFFIX);
        let mut options = File::options();
        let opened = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .inspect_err(|error| tracing::debug!(%error, "the index's last number is not kept"));
        let mut head = Head {
            file: opened.ok(),
            written: u64::MAX,
        };
        head.note(state);
        head
    }

    /// Notes a commit that is durable.
    pub(super) fn note(&mut self, state: &State) {
        let Some(file) = self.file.as_ref().filter(|_| self.written != state.head) else {
            return;
        };
        if let Err(error) = file.write_all_at(&record(state.epoch, state.head), 0) {
            tracing::debug!(%error, "the index's last number could not be written");
        }
        self.written = state.head;
    }
}

/// Whether more was committed to the index at `path` than `state`, which was read from it, knows of.
pub(super) fn is_behind(path: &Path, state: &State) -> bool {
    let mut bytes = [0; LEN];
    let read = File::open(with_suffix(path, SUFFIX)).and_then(|f| f.read_exact_at(&mut bytes, 0));
    let (epoch, head) = (word(&bytes, 0), word(&bytes, 8));
    read.is_ok() && bytes == record(epoch, head) && epoch == state.epoch && head > state.head
}

fn record(epoch: u64, head: u64) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..8].copy_from_slice(&epoch.to_le_bytes());
    bytes[8..16].copy_from_slice(&head.to_le_bytes());
    let sum = sum(table::HEAD, &[&bytes[..16]]);
    bytes[16..].copy_from_slice(&sum);
    bytes
}

fn word(bytes: &[u8; LEN], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
