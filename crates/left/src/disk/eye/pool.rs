//! Threads that read large files, so that small fresh changes need not wait for them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use left_core::content::ContentId;
use left_core::entry::FileStat;
use left_core::path::RelPath;

use super::{ManifestSink, ring};
use crate::disk::hash::{self, HashError};
use crate::disk::root::Root;

const THREADS: usize = 2;
/// Files that wait before a sweep must.
const MAX_WAITING: usize = 1024;

/// A file to be read.
#[derive(Clone, Copy)]
pub(super) struct Task {
    pub(super) stat: FileStat,
    /// What it held before.
    pub(super) former: Option<ContentId>,
}

struct Job {
    seq: u64,
    path: RelPath,
    task: Task,
}

/// One file was read, or not.
pub(super) struct Done {
    seq: u64,
    pub(super) path: RelPath,
    pub(super) stat: FileStat,
    pub(super) result: Result<ContentId, HashError>,
}

pub(super) struct HashPool {
    jobs: Option<Sender<Job>>,
    done: Receiver<Done>,
    threads: Vec<JoinHandle<()>>,
    read: Arc<AtomicU64>,
    /// Files that wait for a thread, in the order they came, each path once.
    queue: VecDeque<(u64, RelPath)>,
    queued: BTreeMap<RelPath, Task>,
    /// Every job that is queued or being done.
    open: BTreeSet<u64>,
    next: u64,
}

impl HashPool {
    pub(super) fn start(
        root: &Arc<Root>,
        manifests: &Arc<dyn ManifestSink>,
        wake: &Arc<OwnedFd>,
        stop: &Arc<AtomicBool>,
    ) -> io::Result<HashPool> {
        let (jobs, inbox) = bounded::<Job>(1);
        let (results, done) = unbounded();
        let read = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        for n in 0..THREADS {
            let worker = Worker {
                root: Arc::clone(root),
                manifests: Arc::clone(manifests),
                wake: Arc::clone(wake),
                stop: Arc::clone(stop),
                read: Arc::clone(&read),
                inbox: inbox.clone(),
                results: results.clone(),
            };
            let builder = std::thread::Builder::new().name(format!("disk-hash-{n}"));
            threads.push(builder.spawn(move || worker.run())?);
        }
        Ok(HashPool {
            jobs: Some(jobs),
            done,
            threads,
            read,
            queue: VecDeque::new(),
            queued: BTreeMap::new(),
            open: BTreeSet::new(),
            next: 0,
        })
    }

    /// Has a file read. One that waits already is not queued twice, but read in its newest state.
    pub(super) fn push(&mut self, path: RelPath, task: Task) {
        if self.queued.insert(path.clone(), task).is_none() {
            let seq = self.next;
            self.next += 1;
            self.open.insert(seq);
            self.queue.push_back((seq, path));
        }
        self.feed();
    }

    /// Takes one result.
    pub(super) fn take(&mut self) -> Option<Done> {
        let done = self.done.try_recv().ok()?;
        self.open.remove(&done.seq);
        self.feed();
        Some(done)
    }

    fn feed(&mut self) {
        let Some(jobs) = &self.jobs else { return };
        // Nobody else sends, so there is room when it says so.
        while !jobs.is_full() {
            let Some((seq, path)) = self.queue.pop_front() else {
                return;
            };
            // From here on another change means another reading.
            let Some(task) = self.queued.remove(&path) else {
                continue;
            };
            if jobs.try_send(Job { seq, path, task }).is_err() {
                return;
            }
        }
    }

    /// Whether a sweep should wait before it finds more.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= MAX_WAITING
    }

    /// Whether nothing is being read or waits to be.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Marks the present: all jobs pushed until now are done once [`reached`](Self::reached) says so.
    pub(super) fn mark(&self) -> u64 {
        self.next
    }

    pub(super) fn reached(&self, mark: u64) -> bool {
        self.open.first().is_none_or(|seq| *seq >= mark)
    }

    /// Bytes read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub(super) fn join(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that reads files had ended in a panic");
            }
        }
    }
}

struct Worker {
    root: Arc<Root>,
    manifests: Arc<dyn ManifestSink>,
    wake: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    read: Arc<AtomicU64>,
    inbox: Receiver<Job>,
    results: Sender<Done>,
}

impl Worker {
    fn run(self) {
        for job in &self.inbox {
            let result = self.read_one(&job);
            let done = Done {
                seq: job.seq,
                path: job.path,
                stat: job.task.stat,
                result,
            };
            if self.results.send(done).is_err() {
                break;
            }
            ring(&self.wake);
        }
    }

    fn read_one(&self, job: &Job) -> Result<ContentId, HashError> {
        let Task { stat, former } = &job.task;
        let mut out = self.manifests.begin(&job.path, stat);
        let former = (former.iter()).flat_map(|content| self.manifests.segments(*content));
        let content = hash::hash_again(&self.root, &job.path, stat, former, &mut |segment| {
            self.read.fetch_add(segment.sref.len, Ordering::Relaxed);
            out.segment(segment);
            if self.stop.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        out.finish(content, stat.size)
            .map_err(|e| HashError::Io(io::Error::other(e)))?;
        Ok(content)
    }
}
