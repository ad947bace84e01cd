//! [`DiskEye`]: one thread that watches a share's folder, looks at what may have changed and reports
//! what differs from the index.
//!
//! It only reports; every observation was true when it was looked at, and the one who takes it must
//! ask [`Near::still_holds`](super::Near::still_holds) in the same breath in which it is recorded.

mod hear;
mod hints;
mod judge;
mod pool;
mod rules;
mod run;
mod sweep;
mod tell;
mod told;
mod torn;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use left_core::content::{ContentId, Segment};
use left_core::diff::Observation;
use left_core::entry::{FileStat, Mtime, Record};
use left_core::index::IndexError;
use left_core::path::RelPath;
use rustix::event::EventfdFlags;

use super::durable::Cut;
use super::root::{Root, RootGone};

/// What the eye asks of the index: our own records as they are committed now.
pub trait ScanIndex {
    /// The record of a path, live or tombstone.
    fn get(&self, path: &RelPath) -> Result<Option<Record>, IndexError>;
    /// The live records directly in a folder (`None`: the root), sorted.
    fn children(&self, dir: Option<&RelPath>) -> Result<Vec<(RelPath, Record)>, IndexError>;
    /// Live files that had this inode, size and mtime when last seen.
    fn by_inode(
        &self,
        ino: u64,
        size: u64,
        mtime: Mtime,
    ) -> Result<Vec<(RelPath, Record)>, IndexError>;
}

/// Takes the manifests of files longer than [`WHOLE_MAX`](left_core::content::WHOLE_MAX), segment by
/// segment while they are read. Used by several threads at once.
pub trait ManifestSink: Send + Sync {
    /// A file begins.
    fn begin(&self, path: &RelPath, stat: &FileStat) -> Box<dyn ManifestOut + '_>;
    /// The segments of a content in order; none or not all when they are not stored.
    fn segments(&self, content: ContentId) -> Box<dyn Iterator<Item = Segment> + '_>;
    /// Whether the manifest of this content is stored already.
    fn has(&self, content: &ContentId) -> bool;
}

/// One manifest on its way. Dropped without [`finish`](Self::finish) it is forgotten.
pub trait ManifestOut {
    /// The next segment.
    fn segment(&mut self, segment: &Segment);
    /// The file was read to its end and had not changed.
    fn finish(self: Box<Self>, content: ContentId, size: u64) -> Result<(), IndexError>;
}

/// What the eye says.
#[derive(Debug)]
pub enum EyeEvent {
    /// What was seen and differs from the index. Within one sweep, what is new or changed comes before
    /// what is gone.
    Observed(Vec<Observation>),
    /// The whole tree was looked at since the start or since [`DiskEye::scan_all`].
    ScanDone,
    /// All that had changed before [`DiskEye::barrier`] was observed.
    Barrier(u64),
    /// Something that no observation can say.
    Problem {
        /// What it is about: a name or path for people, or the share as a whole.
        what: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The index could not be read, so what differs from it can not be said. Told once: who owns the
    /// index has to open it, and start an eye, anew.
    IndexFailed(IndexError),
    /// The root can not be trusted: nothing is observed until [`EyeEvent::RootBack`].
    RootGone(RootGone),
    /// The root is as it was; all is being looked at again.
    RootBack,
    /// Not all folders could be watched; the share is looked through now and then instead.
    WatchLimit {
        /// What to do about it.
        reason: String,
    },
    /// How far the work at hand is; sent now and then, and dropped when nobody takes it.
    Activity {
        /// Paths looked at since the eye was started.
        looked: u64,
        /// Bytes of large files read since the eye was started.
        read: u64,
        /// Whether a sweep is running.
        scanning: bool,
    },
}

pub(crate) enum Command {
    Rescan(Vec<RelPath>),
    ScanAll,
    Barrier(u64),
    /// What stands on the disk counts, whatever a power cut took back.
    AcceptTorn,
    /// A hold ended.
    Released,
}

/// What is held, and what came of it.
#[derive(Default)]
struct Held {
    /// How many hold each path.
    paths: HashMap<RelPath, usize>,
    /// Files that were made under a hold that ended, and recorded, which the eye has not heard yet. Said together
    /// with the end of the hold, so that whoever sees a path free sees this too.
    made: Vec<RelPath>,
}

type Holds = Arc<Mutex<Held>>;

/// Sends commands to the eye and wakes it.
#[derive(Clone)]
struct Bell {
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
}

impl Bell {
    fn send(&self, command: Command) {
        // The eye may have ended: nobody is left to look.
        let _ = self.commands.send(command);
        ring(&self.wake);
    }
}

pub(crate) fn ring(wake: &OwnedFd) {
    let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
}

/// A running eye. Dropping it stops it.
pub struct DiskEye {
    bell: Bell,
    stop: Arc<AtomicBool>,
    holds: Holds,
    taken: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl DiskEye {
    /// Starts watching, and looks at the whole tree once. After a power cut, what it took back is
    /// told as [`Seen::Torn`](left_core::diff::Seen::Torn).
    pub fn start(
        root: Arc<Root>,
        index: Box<dyn ScanIndex + Send>,
        manifests: Arc<dyn ManifestSink>,
        cut: Option<Cut>,
        out: Sender<EyeEvent>,
    ) -> io::Result<DiskEye> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        let wake = Arc::new(rustix::event::eventfd(0, flags)?);
        let (commands, inbox): (_, Receiver<Command>) = unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let holds = Holds::default();
        let taken = Arc::new(AtomicU64::new(0));
        let pool = pool::HashPool::start(&root, &manifests, &wake, &stop)?;
        let eye = run::Eye::new(run::Parts {
            root,
            index,
            manifests,
            cut,
            out,
            inbox,
            wake: Arc::clone(&wake),
            stop: Arc::clone(&stop),
            holds: Arc::clone(&holds),
            told: told::Told::new(Arc::clone(&taken)),
            pool,
        });
        let thread = std::thread::Builder::new()
            .name("disk-eye".into())
            .spawn(move || eye.run())?;
        Ok(DiskEye {
            bell: Bell { commands, wake },
            stop,
            holds,
            taken,
            thread: Some(thread),
        })
    }

    /// To be called after each [`EyeEvent::Observed`], when the index shows what it said.
    pub fn recorded(&self) {
        self.taken.fetch_add(1, Ordering::Release);
    }

    /// Looks at these paths and all below them now.
    pub fn rescan(&self, paths: Vec<RelPath>) {
        self.bell.send(Command::Rescan(paths));
    }

    /// Looks at the whole tree, then says [`EyeEvent::ScanDone`].
    pub fn scan_all(&self) {
        self.bell.send(Command::ScanAll);
    }

    /// Takes what stands on the disk for meant from now on, though a power cut may have made it so.
    pub fn accept_torn(&self) {
        self.bell.send(Command::AcceptTorn);
    }

    /// Observes all that changed until now, also files that are still being written, then says
    /// [`EyeEvent::Barrier`].
    pub fn barrier(&self, token: u64) {
        self.bell.send(Command::Barrier(token));
    }

    /// Until the answer is dropped, hints about these paths are put off: for whoever changes them on
    /// disk and records that in the index, so that the change is not read back in between.
    #[must_use]
    pub fn hold(&self, paths: Vec<RelPath>) -> Hold {
        let mut holds = lock(&self.holds);
        for path in &paths {
            *holds.paths.entry(path.clone()).or_default() += 1;
        }
        drop(holds);
        Hold {
            paths,
            made: Vec::new(),
            holds: Arc::clone(&self.holds),
            bell: self.bell.clone(),
        }
    }

    /// Ends the eye and waits for its threads.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        ring(&self.bell.wake);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watches the folder had ended in a panic");
        }
    }
}

impl Drop for DiskEye {
    fn drop(&mut self) {
        self.end();
    }
}

/// See [`DiskEye::hold`].
pub struct Hold {
    paths: Vec<RelPath>,
    made: Vec<RelPath>,
    holds: Holds,
    bell: Bell,
}

impl Hold {
    /// The paths of `made` are files of the index now, which were put, whole, where nothing was. The system's
    /// word that each was made is no hint then.
    pub fn end(mut self, made: Vec<RelPath>) {
        self.made = made;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holds = lock(&self.holds);
        for path in &self.paths {
            if let Some(n) = holds.paths.get_mut(path) {
                *n -= 1;
                if *n == 0 {
                    holds.paths.remove(path);
                }
            }
        }
        holds.made.append(&mut self.made);
        drop(holds);
        self.bell.send(Command::Released);
    }
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}
