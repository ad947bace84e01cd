//! The threads that keep a share's past: one writes the log of changes, one thins the history out.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::super::ask::Msg;
use crate::disk::history::{THIN_EVERY, Thinned};
use crate::disk::{History, KEEP_PARTS, Limits, Root, Stage, clean_leftovers};
use crate::store::{Journal, Listener, Note};

/// Transactions that may wait to be written down.
const MAX_WAITING: usize = 256;
/// How often it is seen to that the disk has room.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// How long a flush may take.
const FLUSH: Duration = Duration::from_secs(2);

enum Work {
    Add(u64, Vec<Note>),
    Flush(Sender<()>),
}

/// Writes changes down beside everything else.
#[derive(Clone)]
pub(in crate::daemon) struct Scribe {
    tx: Sender<Work>,
    pub(super) journal: Journal,
}

impl Scribe {
    pub(in crate::daemon) fn start(journal: Journal) -> io::Result<Scribe> {
        let (tx, rx) = bounded(MAX_WAITING);
        let own = journal.clone();
        std::thread::Builder::new()
            .name("left-journal".into())
            .spawn(move || write(&own, &rx))?;
        Ok(Scribe { tx, journal })
    }

    /// What the index is to tell its changes to.
    pub(in crate::daemon) fn listener(&self) -> Listener {
        let tx = self.tx.clone();
        Box::new(move |notes| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let ms = now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
            // Waits only where the log falls behind by many commits; each takes it far less time than
            // the commit itself took.
            let _ = tx.send(Work::Add(ms, notes));
        })
    }

    /// Returns when all that was told is written down, or after two seconds.
    pub(in crate::daemon) fn flush(&self) {
        let (reply, done) = bounded(1);
        if self.tx.send_timeout(Work::Flush(reply), FLUSH).is_ok() {
            let _ = done.recv_timeout(FLUSH);
        }
    }
}

fn write(journal: &Journal, rx: &Receiver<Work>) {
    let mut told = false;
    for work in rx {
        match work {
            Work::Add(at, notes) => {
                if let Err(error) = journal.add(at, &notes)
                    && !std::mem::replace(&mut told, true)
                {
                    tracing::warn!("the log of changes has a gap: {error}");
                }
            }
            // Who asked may have given up.
            Work::Flush(reply) => drop(reply.send(())),
        }
    }
}

/// Which versions are kept; it may change while it is looked at.
pub(in crate::daemon) type SharedLimits = Arc<Mutex<Limits>>;

/// Thins the history out from time to time, and clears the stage of what nobody goes on with.
pub(in crate::daemon) struct Thinner {
    hurry: Option<Sender<()>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Thinner {
    pub(in crate::daemon) fn start(
        root: Arc<Root>,
        stage: Arc<Stage>,
        history: Arc<History>,
        limits: SharedLimits,
        tx: Sender<Msg>,
    ) -> io::Result<Thinner> {
        let (hurry, hurried) = bounded(1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("left-history".into());
        let thread = thread.spawn(move || {
            let tell = |done: io::Result<Thinned>| match done {
                Ok(done) => {
                    if done.versions > 0 {
                        let (n, bytes) = (done.versions, done.bytes);
                        tracing::info!(n, bytes, "old versions were deleted");
                    }
                    if !done.rescued.is_empty() {
                        let paths = done.rescued.into_iter().map(|r| r.path).collect();
                        let _ = tx.send(Msg::Rescued(paths));
                    }
                }
                Err(error) => tracing::warn!("old versions are not cleaned up: {error}"),
            };
            let is_over = || stopped.load(Ordering::Relaxed);
            let mut next = Instant::now();
            loop {
                if Instant::now() >= next {
                    let limits = *limits.lock().unwrap_or_else(PoisonError::into_inner);
                    tell(history.thin(&root, &limits, &is_over));
                    next = Instant::now() + THIN_EVERY;
                    match clean_leftovers(&stage, KEEP_PARTS) {
                        Ok(0) => {}
                        Ok(n) => tracing::info!(
                            n,
                            "parts of files that nobody went on with were deleted"
                        ),
                        Err(error) => tracing::warn!("the stage is not cleaned up: {error}"),
                    }
                }
                tell(history.make_room(&root));
                match hurried.recv_timeout(LOOK_EVERY) {
                    Err(RecvTimeoutError::Disconnected) => return,
                    _ if is_over() => return,
                    _ => {}
                }
            }
        })?;
        Ok(Thinner {
            hurry: Some(hurry),
            stop,
            thread: Some(thread),
        })
    }

    /// The disk is full.
    pub(in crate::daemon) fn hurry(&self) {
        if let Some(hurry) = &self.hurry {
            // One that waits already is enough.
            let _ = hurry.try_send(());
        }
    }
}

impl Drop for Thinner {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.hurry = None;
        if self.thread.take().is_some_and(|t| t.join().is_err()) {
            tracing::error!("the thread that thins the history ended in a panic");
        }
    }
}
