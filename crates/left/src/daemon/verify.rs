//! Reads and hashes everything again, and has what is damaged healed by peers.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use left_core::content::Segment;
use left_core::entry::Record;
use left_core::path::RelPath;

use super::ask::Msg;
use super::handle::{Problem, UserError, VerifyReport};
use super::snapshot::Board;
use crate::disk::{Found, HashError, Root, hash_file};
use crate::home::{MARKER_DIR, clean};
use crate::store::IndexReader;

/// Records read at a time.
const PAGE: usize = 1000;
/// How long healing one file may take beyond its share of the bytes.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often damaged files are looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Verifies the share in `dir` and adds to the report.
pub(super) fn verify(
    dir: &Path,

    tx: &Sender<Msg>,
    board: &Board,
    report: &mut VerifyReport,
) -> Result<(), UserError> {
    let what = format!("cannot verify {}", clean(dir));
    let fail =
        |e: &dyn std::fmt::Display| UserError::new(&what, e, "`left doctor` looks for the cause");
    let root = Root::open(dir).map_err(|e| fail(&e))?;
    let reader = IndexReader::open(&dir.join(MARKER_DIR).join("index.db")).map_err(|e| fail(&e))?;
    let name = |path: &RelPath| format!("{}/{path}", clean(dir));
    let mut after: Option<RelPath> = None;
    let mut damaged = Vec::new();
    loop {
        let page = match reader.live_in_order(after.as_ref(), PAGE) {
            Ok(page) => page,
            Err(error) => {
                let said = UserError::new(
                    &what,
                    &error,
                    "the index is made anew now; run `left verify` again in a moment",
                );
                // The share may be stopping.
                let _ = tx.send(Msg::IndexFailed(error));
                return Err(said);
            }
        };
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (path, record) in page {
            match check(&root, &path, &record, report) {
                Health::Good => {}
                Health::Damaged => {
                    report.damaged.push(name(&path));
                    damaged.push((path, record));
                }
                Health::Unreadable(reason) => {
                    report.damaged.push(name(&path));
                    report.not_healed.push(Problem {
                        path: name(&path),
                        reason,
                    });
                }
            }
        }
    }
    heal(&root, damaged, tx, board, report, &name);
    Ok(())
}

enum Health {
    Good,
    Damaged,
    Unreadable(String),
}

/// Whether a file has the bytes that were recorded when it looked as it looks now. A file that looks
/// otherwise was edited, which is no damage.
fn check(root: &Root, path: &RelPath, record: &Record, report: &mut VerifyReport) -> Health {
    let (Some(content), Some(stat)) = (record.entry.node.content(), record.stat) else {
        return Health::Good;
    };
    match root.look(path) {
        Ok(Some(Found::File(now, ..))) if now == stat => {}
        Ok(_) => return Health::Good,
        Err(e) => return Health::Unreadable(e.to_string()),
    }
    report.files += 1;
    report.bytes += stat.size;
    match hash_file(root, path, &stat, &mut to_the_end) {
        Ok(found) if found == content => Health::Good,
        Ok(_) => Health::Damaged,
        Err(HashError::Changed) => Health::Good,
        Err(e) => Health::Unreadable(e.to_string()),
    }
}

fn to_the_end(_: &Segment) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Asks for the damaged files and waits until they are whole, as long as it goes on.
fn heal(
    root: &Root,
    mut damaged: Vec<(RelPath, Record)>,
    tx: &Sender<Msg>,
    board: &Board,
    report: &mut VerifyReport,
    name: &impl Fn(&RelPath) -> String,
) {
    if damaged.is_empty() {
        return;
    }
    let connected = board
        .read()
        .is_some_and(|s| s.peers.iter().any(|p| p.connected));
    let paths = damaged.iter().map(|(p, _)| p.clone()).collect();
    let asked = connected && tx.send(Msg::Damaged(paths)).is_ok();
    let mut until = Instant::now() + PATIENCE;
    while asked && !damaged.is_empty() && Instant::now() < until {
        std::thread::sleep(LOOK_EVERY);
        damaged.retain(|(path, record)| {
            // Replaced at least: only then is it worth reading again.
            let healed = match root.look(path) {
                Ok(Some(Found::File(now, ..))) if Some(now) != record.stat => {
                    hash_file(root, path, &now, &mut to_the_end).ok() == record.entry.node.content()
                }
                _ => false,
            };
            if healed {
                report.healed.push(name(path));
                until = Instant::now() + PATIENCE;
            }
            !healed
        });
    }
    let reason = if connected {
        "no connected peer sent the right bytes; try again when another one is connected"
    } else {
        "no peer is connected; run `left verify` again when one is"
    };
    for (path, _) in damaged {
        report.not_healed.push(Problem {
            path: name(&path),
            reason: reason.into(),
        });
    }
}
