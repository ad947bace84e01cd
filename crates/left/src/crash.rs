//! Named points of the way of a change, at which a test has the process die or stand still.
//!
//! Only in builds with debug assertions: in a release build this module is not there and `crash_point!`
//! is nothing at all. A cargo feature would do the same, but every developer would build the crate twice.
//!
//! `LEFT_CRASH_FILE` names a file; while it holds `<point> <n>`, the n-th passage of that point, counted
//! since the text is there, ends the process by SIGKILL. With `<point> <n> stop` it is stopped (SIGSTOP)
//! and goes on when it is told to: for a cut of the power to the disk alone.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// Every point, in the order in which a change passes them.
pub const POINTS: &[&str] = &[
    // Starting.
    "record-written",
    "index-opened",
    // After a power cut.
    "repairing",
    "repaired",
    // Whoever sees the change on its disk.
    "seen",
    // Every transaction of the index, on both sides.
    "index-written",
    "index-committed",
    "announcing",
    "announced",
    // Whoever is asked for bytes.
    "asked",
    "serving",
    // Whoever brings its folder up to date.
    "heard",
    "staged-part",
    "staged",
    "pack-written",
    "pack-synced",
    "files-synced",
    "creating",
    "created",
    "slot-taken",
    "swapped",
    "copied",
    "replaced",
    "removing",
    "removed",
    "moved",
    "meta-set",
    "folders-unsynced",
    "folders-synced",
    "history-synced",
    "applied",
    // Behind it.
    "checkpointing",
    "pack-retiring",
];

/// Points of a device that drops what others hold, in their order.
pub const DROP_POINTS: &[&str] = &["chosen", "forgotten", "dropping"];

/// Passes a point.
pub fn pass(point: &'static str) {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    static PASSED: Mutex<(String, u64)> = Mutex::new((String::new(), 0));
    let listed = POINTS.contains(&point) || DROP_POINTS.contains(&point);
    debug_assert!(listed, "{point} is not in the list");
    let file = FILE.get_or_init(|| std::env::var_os("LEFT_CRASH_FILE").map(PathBuf::from));
    let Some(Ok(armed)) = file.as_ref().map(std::fs::read_to_string) else {
        return;
    };
    let mut words = armed.split_whitespace();
    if words.next() != Some(point) {
        return;
    }
    let n = words.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let passed = {
        let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
        if passed.0 != armed {
            *passed = (armed.clone(), 0);
        }
        passed.1 += 1;
        passed.1
    };
    if passed != n {
        return;
    }
    let signal = match words.next() {
        Some("stop") => Signal::STOP,
        _ => Signal::KILL,
    };
    if kill_process(getpid(), signal).is_err() || signal == Signal::KILL {
        std::process::abort();
    }
    // Another thread may be the one that takes the signal: this one goes no further before.
    std::thread::sleep(Duration::from_millis(50));
}
