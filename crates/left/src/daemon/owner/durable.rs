//! What users write is brought to the disk behind them, so that a power cut takes little back, and
//! what one took back is watched until it is healed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use left_core::index::{Index, Txn};

use super::{Msg, Owner};
use crate::daemon::adapt::Scan;
use crate::disk::{Cut, Durable, History, Pack, Root, Stage, repair};
use crate::store::IndexDb;

/// After a change the file system is synced so much later, once for all changes of that time.
const SYNC_AFTER: Duration = Duration::from_secs(5);

/// After a sync that failed the next one waits so long.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// When the file system is synced next.
pub(super) struct Checkpoints {
    durable: Arc<Durable>,
    /// What is durable there only until it is synced.
    pack: Arc<Pack>,
    due: Option<Instant>,
    not_before: Instant,
    running: bool,
    /// Something changed while a sync was running.
    again: bool,
    /// A power cut took something back, or may have.
    cut: bool,
    /// Nothing is known yet of what an earlier run left.
    first: bool,
    /// Who asks to be told of the next sync, and of the one that runs.
    asking: Vec<u64>,
    running_for: Vec<u64>,
}

impl Checkpoints {
    pub(super) fn new(durable: Durable, pack: Arc<Pack>, cut: bool) -> Self {
        let now = Instant::now();
        Self {
            durable: Arc::new(durable),
            due: pack.wants_checkpoint().then_some(now),
            pack,
            not_before: now,
            running: false,
            again: false,
            cut,
            first: true,
            asking: Vec::new(),
            running_for: Vec::new(),
        }
    }

    /// Somebody has to know that all is on the disk; whether it is so already.
    pub(super) fn ask(&mut self, token: u64) -> bool {
        if self.due.is_none() && !self.running && !self.first {
            return true;
        }
        self.asking.push(token);
        match self.running {
            true => self.again = true,
            false => self.due = Some(Instant::now()),
        }
        false
    }

    /// Something changed in the folder.
    pub(super) fn changed(&mut self) {
        let now = Instant::now();
        if self.running {
            self.again = true;
        } else if self.pack.wants_checkpoint() {
            self.due = Some(now.max(self.not_before));
        } else if self.due.is_none() {
            self.due = Some((now + SYNC_AFTER).max(self.not_before));
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A sync ended, well or not; who is to be told that all is on the disk. What was packed stays so
    /// until one went well.
    pub(super) fn synced(&mut self, well: bool) -> Vec<u64> {
        self.running = false;
        self.first &= !well;
        if !well {
            self.not_before = Instant::now() + AFTER_FAILURE;
        }
        if std::mem::take(&mut self.again) || !well {
            self.changed();
        }
        if !self.asking.is_empty() {
            self.due = Some(Instant::now());
        }
        let told = std::mem::take(&mut self.running_for);
        if well { told } else { Vec::new() }
    }
}

/// After a power cut: brings back what had been placed here and recorded, before anything of the folder
/// is looked at or shown. Says how much that was.
pub(super) fn bring_back(
    root: &Root,
    stage: &Stage,
    history: &History,
    pack: &Pack,
    index: &mut IndexDb,
    cut: Cut,
) -> Result<Option<String>, String> {
    let reader = Scan(index.reader().map_err(|e| e.to_string())?);
    let done = repair(root, stage, history, pack, &reader, cut).map_err(|e| e.to_string())?;
    drop(reader);
    let txn = Txn {
        touch: done.placed,
        ..Txn::default()
    };
    index.commit(txn).map_err(|e| e.to_string())?;
    let mut said = Vec::new();
    if done.count > 0 {
        said.push(format!(
            "a power cut took back {} files that had just come from peers; they were brought back \
             from what LEFT keeps of such files, and nothing of them is lost",
            done.count
        ));
    }
    if done.kept > 0 {
        said.push(format!(
            "of {} files that had just come from peers, and were changed here before LEFT ran again or are not \
             known any more, what had come is in the history: `left log PATH` shows it, `left restore` brings it back",
            done.kept
        ));
    }
    Ok((!said.is_empty()).then(|| said.join(". ")))
}

impl Owner {
    /// Starts a sync that is due. It may take seconds, so it has a thread of its own.
    pub(super) fn checkpoint(&mut self) {
        if self.checkpoints.due.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.checkpoints.due = None;
        let durable = self.checkpoints.durable.clone();
        let pack = self.checkpoints.pack.clone();
        let tx = self.tx.clone();
        let thread = std::thread::Builder::new().name("left-sync".into());
        let spawned = thread.spawn(move || {
            pack.seal();
            crash_point!("checkpointing");
            let synced = durable.checkpoint();
            match &synced {
                Ok(whole) => pack.retire(*whole),
                Err(error) => {
                    pack.doubt();
                    tracing::warn!("the file system could not be synced: {error}");
                }
            }
            // The share may be stopping.
            let _ = tx.send(Msg::Synced(synced.map(|_| ()).map_err(|e| e.to_string())));
        });
        match spawned {
            Ok(_) => {
                self.checkpoints.running = true;
                self.checkpoints.running_for = std::mem::take(&mut self.checkpoints.asking);
            }
            Err(error) => tracing::warn!("the file system is not synced: {error}"),
        }
    }

    /// Notes when all that a power cut took back is there again.
    pub(super) fn watch_healing(&mut self) {
        if !self.checkpoints.cut || !self.engine.has_scanned() || self.engine.is_healing() {
            return;
        }
        self.checkpoints.cut = false;
        match self.checkpoints.durable.healed() {
            Ok(()) => self.checkpoints.changed(),
            Err(error) => tracing::warn!("cannot note that the folder is whole: {error}"),
        }
    }
}
