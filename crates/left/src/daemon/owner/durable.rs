//! What users write is brought to the disk behind them, so that a power cut takes little back, and
//! what one took back is watched until it is healed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Msg, Owner};
use crate::disk::Durable;

/// After a change the file system is synced so much later, once for all changes of that time.
const SYNC_AFTER: Duration = Duration::from_secs(5);

/// When the file system is synced next.
pub(super) struct Checkpoints {
    durable: Arc<Durable>,
    due: Option<Instant>,
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
    pub(super) fn new(durable: Durable, cut: bool) -> Self {
        Self {
            durable: Arc::new(durable),
            due: None,
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
        if self.running {
            self.again = true;
        } else if self.due.is_none() {
            self.due = Some(Instant::now() + SYNC_AFTER);
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A sync ended, well or not; who is to be told that all is on the disk.
    pub(super) fn synced(&mut self, well: bool) -> Vec<u64> {
        self.running = false;
        self.first &= !well;
        if std::mem::take(&mut self.again) {
            self.changed();
        }
        if !self.asking.is_empty() {
            self.due = Some(Instant::now());
        }
        let told = std::mem::take(&mut self.running_for);
        if well { told } else { Vec::new() }
    }
}

impl Owner {
    /// Starts a sync that is due. It may take seconds, so it has a thread of its own.
    pub(super) fn checkpoint(&mut self) {
        if self.checkpoints.due.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.checkpoints.due = None;
        let durable = self.checkpoints.durable.clone();
        let tx = self.tx.clone();
        let thread = std::thread::Builder::new().name("left-sync".into());
        let spawned = thread.spawn(move || {
            let done = durable.checkpoint();
            if let Err(error) = &done {
                tracing::warn!("the file system could not be synced: {error}");
            }
            // The share may be stopping.
            let _ = tx.send(Msg::Synced(done.is_ok()));
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
