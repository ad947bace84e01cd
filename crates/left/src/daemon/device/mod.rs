//! The running left of one device: its shares, its network, and what one can ask of it.

pub(super) mod address;
mod choose;
mod enter;
mod fellow;
mod keeper;
mod limit;
mod mode;
mod pair;
mod past;
mod reload;
mod roam;
mod start;
mod wait;

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded, unbounded};
use left_core::message::{Role, ShareId};
use left_core::path::RelPath;
use tokio::runtime::Runtime;
use tokio::sync::broadcast;

use super::ask::Msg;
use super::browse;
use super::gate::Door;
use super::handle::{Change, Choice, Choosing, Chosen};
use super::handle::{
    Daemon, DaemonEvent, Decided, Discovery, Folder, ModeInfo, OpenFile, Options, PeerPaused,
    Reloaded, Removed, Reverted, ShareInfo, ShareStatus, Status, SyncInfo, TicketInfo, UserError,
    VerifyReport, WaitResult,
};
use super::history::{Past, SharedLimits};
use super::limits::Limiter;
use super::members::Members;
use super::snapshot::{Board, split_todo};
use crate::home::{Home, Lock, Mode, Rate, ShareRecord, clean, lock_share, read_share};
use crate::net::{DeviceKey, Net};
use enter::{Adopt, remove_marker};
use keeper::{Keeper, starting, waiting};
pub use start::start;

/// How long `status` waits for shares to say how they are.
const REFRESH: Duration = Duration::from_millis(300);

type Routes = Arc<Mutex<HashMap<ShareId, Sender<Msg>>>>;

/// A share with its owner thread.
struct Running {
    tx: Sender<Msg>,
    thread: JoinHandle<()>,
    members: Members,
    board: Arc<Board>,
    limiter: Arc<Limiter>,
    path: PathBuf,
}

/// See the module's text.
pub(super) struct Device {
    home: Home,
    key: Arc<DeviceKey>,
    _lock: Lock,
    options: Options,
    net: Option<Arc<Net>>,
    door: Arc<Door>,
    shares: Mutex<HashMap<ShareId, Running>>,
    routes: Routes,
    events: broadcast::Sender<DaemonEvent>,
    /// Held while somebody chooses.
    choosing: Mutex<()>,
    stopped: AtomicBool,
    /// Which versions all shares keep.
    keep: SharedLimits,
    /// Looks for others on the network, where there is one.
    roamer: Mutex<Option<Arc<roam::Roamer>>>,
    me: Weak<Device>,
    /// Dropped last: everything above runs on it.
    runtime: Mutex<Option<Runtime>>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(what: &str, why: impl std::fmt::Display) -> UserError {
    UserError::new(
        what,
        why,
        "try again; if it stays so, start left anew and see its log",
    )
}

/// A path as it stands below a share's folder.
fn rel_path(what: &str, path: Option<&Path>) -> Result<Option<RelPath>, UserError> {
    let at = path.map(|path| RelPath::new(path.as_os_str().as_bytes()));
    at.transpose()
        .map_err(|e| UserError::usage(what, e, "name it as it stands below the share's folder"))
}

impl Device {
    fn members_of(&self, record: ShareRecord) -> Members {
        Members::new(self.home.clone(), self.key.clone(), record)
    }

    /// The running or recorded share of a folder.
    fn record_of(&self, dir: &Path) -> Result<Members, UserError> {
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
        if let Some(running) = lock(&self.shares).values().find(|r| r.path == dir) {
            return Ok(running.members.clone());
        }
        match self.home.shares()?.into_iter().find(|r| r.path == dir) {
            Some(record) => Ok(self.members_of(record)),
            None if !dir.exists() => Err(UserError::new(
                format!("{} is not a share of this device", clean(&dir)),
                "it does not exist",
                "check the path; `left status` lists the shares",
            )),
            None => Err(UserError::new(
                format!("{} is not a share of this device", clean(&dir)),
                "left does not know it",
                format!(
                    "run `left share {}` to make it one, or `left status` to see them all",
                    clean(&dir)
                ),
            )),
        }
    }

    fn send(&self, dir: &Path, msg: Msg) -> Result<(), UserError> {
        let members = self.record_of(dir)?;
        let shares = lock(&self.shares);
        match shares.get(&members.id()) {
            Some(running) => running
                .tx
                .send(msg)
                .map_err(|_| failed("cannot reach the share", "it stops just now")),
            None => Err(UserError::new(
                format!("{} does not run", clean(dir)),
                "no left works on it now",
                "start it with `left up`",
            )),
        }
    }

    /// Runs a share, unless it runs.
    fn run(
        &self,
        members: Members,
        joined: Option<Sender<Result<(), String>>>,
        must: bool,
    ) -> Result<(), UserError> {
        let record = members.record();
        let mut shares = lock(&self.shares);
        if shares.contains_key(&record.id) {
            return Ok(());
        }
        let share_lock = match lock_share(&record.path) {
            Ok(lock) => Some(lock),
            Err(error) if must => return Err(error),
            Err(_) => None,
        };
        let (id, path) = (record.id, record.path.clone());
        lock(&self.door.shares).insert(id, members.clone());
        let (tx, rx) = unbounded();
        lock(&self.routes).insert(id, tx.clone());
        let board = Arc::new(Board::default());
        let limiter = Arc::new(Limiter::default());
        limiter.set(record.limit);
        let keeper = Keeper {
            device: self.door.device,
            path: path.clone(),
            members: members.clone(),
            door: self.door.clone(),
            net: self.net.clone(),
            events: self.events.clone(),
            board: board.clone(),
            limits: self.keep.clone(),
            limiter: limiter.clone(),
            joined,
            share_lock,
        };
        let own = tx.clone();
        let thread = std::thread::Builder::new()
            .name("left-share".into())
            .spawn(move || keeper.keep(&own, &rx))
            .map_err(|e| failed("cannot run the share", e))?;
        shares.insert(
            id,
            Running {
                tx,
                thread,
                members,
                board,
                limiter,
                path,
            },
        );
        if must {
            self.door.starting.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    fn info(&self, record: &ShareRecord, new: bool) -> ShareInfo {
        let info = ShareInfo {
            id: record.id,
            path: record.path.clone(),
            role: record.role,
            new,
        };
        let _ = self.events.send(DaemonEvent::ShareStarted(info.clone()));
        info
    }

    /// Has every share put its state on its board, as far as it is not busy.
    fn refresh(&self) {
        let asked: Vec<_> = lock(&self.shares)
            .values()
            .filter_map(|r| {
                let (reply, done) = bounded(1);
                r.tx.send(Msg::Publish(reply)).ok()?;
                Some(done)
            })
            .collect();
        let until = Instant::now() + REFRESH;
        for done in asked {
            // A busy share's last state will do.
            let _ = done.recv_deadline(until);
        }
    }

    fn ids(&self, dir: Option<&Path>) -> Result<Vec<ShareId>, UserError> {
        match dir {
            Some(dir) => Ok(vec![self.record_of(dir)?.id()]),
            None => {
                let shares = lock(&self.shares);
                let mut all: Vec<_> = shares.iter().map(|(id, r)| (r.path.clone(), *id)).collect();
                all.sort();
                Ok(all.into_iter().map(|(_, id)| id).collect())
            }
        }
    }

    fn stop_share(&self, id: ShareId) {
        let running = lock(&self.shares).remove(&id);
        lock(&self.routes).remove(&id);
        lock(&self.door.shares).remove(&id);
        if let Some(running) = running {
            let _ = running.tx.send(Msg::Stop);
            if running.thread.join().is_err() {
                tracing::error!("the thread of a share ended in a panic");
            }
        }
    }
}

impl Daemon for Device {
    fn share(&self, dir: &Path) -> Result<ShareInfo, UserError> {
        let dir = self.home.prepare_folder(dir)?;
        let (record, new) = self.adopt(&dir, Adopt::Found)?;
        self.run(self.members_of(record.clone()), None, true)?;
        Ok(self.info(&record, new))
    }

    fn ticket(&self, dir: &Path, role: Role, expires: Duration) -> Result<TicketInfo, UserError> {
        let members = self.record_of(dir)?;
        let info = self.make_ticket(&members, role, expires)?;
        Ok(info)
    }

    fn join(&self, ticket: &str, dir: &Path, only: &[PathBuf]) -> Result<ShareInfo, UserError> {
        self.enter(ticket, dir, only)
    }

    fn sync(&self, dir: &Path, peer: &str, code: Option<&str>) -> Result<SyncInfo, UserError> {
        self.pair(dir, peer, code)
    }

    fn run_all(&self) -> Result<Vec<ShareInfo>, UserError> {
        let mut all = Vec::new();
        for record in self.home.shares()? {
            self.run(self.members_of(record.clone()), None, false)?;
            all.push(self.info(&record, false));
        }
        self.door.starting.store(false, Ordering::Relaxed);
        Ok(all)
    }

    fn status(&self) -> Status {
        self.refresh();
        let shares = lock(&self.shares);
        let mut all: Vec<ShareStatus> = shares
            .values()
            .map(|r| {
                let record = r.members.record();
                let mut status = r.board.read().unwrap_or_else(|| starting(&record));
                // It may have been set since.
                status.limit = record.limit;
                status
            })
            .collect();
        drop(shares);
        for pending in self.door.pairings.waiting() {
            if pending.share.is_none() {
                all.push(waiting(&pending));
            }
        }
        all.sort_by(|a, b| a.path.cmp(&b.path));
        let listen = self
            .net
            .iter()
            .flat_map(|n| n.local_addrs())
            .map(ToString::to_string);
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: Some(std::process::id()),
            device: Some(self.door.device),
            name: lock(&self.door.me).name.clone(),
            listen: listen.collect(),
            discovery: self.door.sightings.reach().map(|r| Discovery {
                interfaces: r.interfaces,
                problems: r.problems,
            }),
            shares: all,
        }
    }

    fn wait(&self, dir: Option<&Path>, timeout: Duration) -> Result<WaitResult, UserError> {
        let deadline = Instant::now() + timeout;
        if dir.is_none() {
            self.wait_for_start(deadline)?;
        }
        let mut missing = Vec::new();
        for id in self.ids(dir)? {
            missing.extend(self.wait_one(id, deadline)?);
        }
        Ok(WaitResult {
            in_sync: missing.is_empty(),
            missing,
        })
    }

    fn verify(&self, dir: Option<&Path>) -> Result<VerifyReport, UserError> {
        let mut report = VerifyReport::default();
        for id in self.ids(dir)? {
            let shares = lock(&self.shares);
            let Some(r) = shares.get(&id) else { continue };
            let (path, tx, board) = (r.path.clone(), r.tx.clone(), r.board.clone());
            drop(shares);
            super::verify::verify(&path, &tx, &board, &mut report)?;
        }
        Ok(report)
    }

    fn resume(&self, dir: &Path, accept_deletions: bool) -> Result<(), UserError> {
        self.record_of(dir)?.update(|r| r.paused = false)?;
        self.send(dir, Msg::Resume { accept_deletions })
    }

    fn pause(&self, dir: &Path) -> Result<(), UserError> {
        self.record_of(dir)?.update(|r| r.paused = true)?;
        self.send(dir, Msg::Pause(true))
    }

    fn revert(&self, dir: &Path, path: Option<&Path>) -> Result<Reverted, UserError> {
        let what = "cannot take edits back";
        let at = rel_path(what, path)?;
        let (reply, done) = bounded(1);
        self.send(dir, Msg::Revert(at, reply))?;
        match done.recv() {
            Ok(Ok(edits)) => Ok(Reverted { edits }),
            Ok(Err(why)) => {
                let (why, todo) = split_todo(&why);
                Err(UserError::new(what, why, todo))
            }
            Err(_) => Err(failed(what, "the share stops just now")),
        }
    }

    fn mode(&self, dir: &Path, mode: Option<Mode>) -> Result<ModeInfo, UserError> {
        self.set_mode(dir, mode)
    }

    fn take(&self, dir: &Path, path: Option<&Path>) -> Result<Decided, UserError> {
        self.decide(dir, path, true)
    }

    fn override_theirs(&self, dir: &Path, path: Option<&Path>) -> Result<Decided, UserError> {
        self.decide(dir, path, false)
    }

    fn pause_peer(&self, dir: &Path, who: &str, paused: bool) -> Result<PeerPaused, UserError> {
        self.pause_fellow(dir, who, paused)
    }

    fn choice(&self, dir: &Path) -> Result<Choice, UserError> {
        self.choice_of(dir)
    }

    fn choose(&self, dir: &Path, how: Choosing, paths: &[PathBuf]) -> Result<Chosen, UserError> {
        self.choose_in(dir, how, paths)
    }

    fn limit(&self, dir: &Path, up: Change, down: Change) -> Result<Rate, UserError> {
        self.set_limit(dir, up, down)
    }

    fn remove_peer(&self, dir: &Path, who: &str) -> Result<Removed, UserError> {
        self.remove_fellow(dir, who)
    }

    fn past(&self, path: &Path) -> Result<(Past, PathBuf), UserError> {
        self.past_of(path)
    }

    fn reload(&self, options: &Options) -> Result<Reloaded, UserError> {
        self.take_settings(options)
    }

    fn leave(&self, dir: &Path) -> Result<(), UserError> {
        let members = self.record_of(dir)?;
        let record = members.record();
        self.stop_share(record.id);
        self.door.pairings.remove(&record.path);
        // Taken so that no other process works on the folder while its .left goes.
        let share_lock = if read_share(&record.path).is_ok() {
            Some(lock_share(&record.path)?)
        } else {
            None
        };
        self.home.forget_share(record.id)?;
        if read_share(&record.path).is_ok_and(|m| m.id == record.id) {
            remove_marker(&record.path)?;
        }
        drop(share_lock);
        Ok(())
    }

    fn list(&self, dir: &Path, path: &Path, after: Option<&Path>) -> Result<Folder, UserError> {
        browse::list(&self.record_of(dir)?.record().path, path, after)
    }

    fn open(&self, dir: &Path, path: &Path) -> Result<OpenFile, UserError> {
        browse::open(&self.record_of(dir)?.record().path, path)
    }

    fn events(&self) -> broadcast::Receiver<DaemonEvent> {
        self.events.subscribe()
    }

    fn stop(&self) {
        if self.stopped.swap(true, Ordering::SeqCst) {
            return;
        }
        self.door.closing.store(true, Ordering::Relaxed);
        let _ = self.events.send(DaemonEvent::Stopping);
        let ids: Vec<ShareId> = lock(&self.shares).keys().copied().collect();
        for id in ids {
            self.stop_share(id);
        }
        if let Some(runtime) = lock(&self.runtime).take() {
            // Lets the lanes say good-bye.
            runtime.shutdown_timeout(Duration::from_millis(300));
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop();
    }
}
