//! A toy daemon for tests of the command line and the API: it keeps two local folders alike by
//! copying newer files over older ones. Tickets carry the path of the inviter's folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use left::daemon::handle::{
    ApplyTimes, Change, Choice, Choosing, Chosen, Daemon, DaemonEvent, Decided, EntryKind, Folder,
    FolderEntry, Missing, Mode, ModeInfo, OpenFile, Options, PeerPaused, PeerStatus, Problem, Rate,
    Reloaded, Removed, Reverted, ShareInfo, ShareStatus, State, Status, SyncInfo, TicketInfo,
    UserError, VerifyReport, WaitResult,
};
use left::daemon::history::Past;
use left::home::text::Text;
use left::home::{Exit, Home, Lock, ShareRecord, init_share, lock_share, read_share};
use left_core::message::{Role, ShareId};
use left_core::version::DeviceId;
use tokio::sync::broadcast;

pub struct Fake {
    home: Home,
    options: Options,
    inner: Arc<Inner>,
    _lock: Lock,
}

#[derive(Default)]
struct Inner {
    stopped: AtomicBool,
    running: std::sync::Mutex<Vec<(ShareInfo, Lock)>>,
    events: std::sync::OnceLock<broadcast::Sender<DaemonEvent>>,
}

pub fn start(home: Home, options: Options) -> Result<Arc<dyn Daemon>, UserError> {
    let lock = home.lock()?;
    home.device_key(
        || Ok(b"key of the fake".to_vec()),
        |b| b.starts_with(b"key"),
    )?;
    let inner = Arc::new(Inner::default());
    inner.events.set(broadcast::channel(256).0).unwrap();
    let weak = Arc::downgrade(&inner);
    thread::spawn(move || {
        while let Some(inner) = weak.upgrade() {
            for (share, _) in inner.running.lock().unwrap().iter() {
                pull(&share.path, &inner);
            }
            drop(inner);
            thread::sleep(Duration::from_millis(30));
        }
    });
    Ok(Arc::new(Fake {
        home,
        options,
        inner,
        _lock: lock,
    }))
}

fn partner(share: &Path) -> Option<PathBuf> {
    fs::read_to_string(share.join(".left/partner"))
        .ok()
        .map(PathBuf::from)
}

/// Files and folders below `dir` except left's own, relative, folders first.
fn list(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(at) = todo.pop() {
        let Ok(entries) = fs::read_dir(dir.join(&at)) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name == ".left" {
                continue;
            }
            if entry.path().is_dir() {
                todo.push(at.join(&name));
            }
            found.push(at.join(name));
        }
    }
    found.sort();
    found
}

/// Copies what the partner has newer; folders' times are made alike last.
fn pull(to: &Path, inner: &Inner) {
    let Some(from) = partner(to) else { return };
    for path in list(&from) {
        let (source, target) = (from.join(&path), to.join(&path));
        let Ok(meta) = source.metadata() else {
            continue;
        };
        let Ok(time) = meta.modified() else { continue };
        if meta.is_dir() {
            let _ = fs::create_dir(&target);
            continue;
        }
        if target
            .metadata()
            .and_then(|m| m.modified())
            .is_ok_and(|t| t >= time)
        {
            continue;
        }
        let stage = to.join(".left/stage");
        let copied = fs::copy(&source, &stage)
            .and_then(|_| {
                fs::File::options()
                    .write(true)
                    .open(&stage)?
                    .set_modified(time)
            })
            .and_then(|()| fs::rename(&stage, &target));
        if copied.is_ok() {
            inner.tell(DaemonEvent::FileReceived {
                share: to.into(),
                path: path.display().to_string(),
                bytes: meta.len(),
            });
        }
    }
    for path in list(&from).into_iter().rev() {
        let (source, target) = (from.join(&path), to.join(&path));
        if source.is_dir()
            && facts(&source).1 > facts(&target).1
            && let Ok(dir) = fs::File::open(&target)
            && let Some(time) = facts(&source).1
        {
            let _ = dir.set_modified(time);
        }
    }
}

fn facts(path: &Path) -> (u64, Option<std::time::SystemTime>) {
    let Ok(meta) = path.metadata() else {
        return (0, None);
    };
    let size = if meta.is_dir() { 0 } else { meta.len() };
    (size, meta.modified().ok())
}

fn alike(a: &Path, b: &Path) -> bool {
    let paths = list(a);
    paths == list(b) && paths.iter().all(|p| facts(&a.join(p)) == facts(&b.join(p)))
}

impl Inner {
    fn tell(&self, event: DaemonEvent) {
        let _ = self.events.get().unwrap().send(event);
    }
}

impl Fake {
    fn run(&self, path: PathBuf, id: ShareId, new: bool) -> Result<ShareInfo, UserError> {
        let mut running = self.inner.running.lock().unwrap();
        let info = ShareInfo {
            id,
            path: path.clone(),
            role: Role::ReadWrite,
            new,
        };
        if running.iter().all(|(s, _)| s.path != path) {
            running.push((info.clone(), lock_share(&path)?));
            self.inner.tell(DaemonEvent::ShareStarted(info.clone()));
        }
        Ok(info)
    }

    fn known(&self, dir: &Path) -> Result<ShareRecord, UserError> {
        let id = read_share(dir)?.id;
        Ok(self.home.share(id)?.unwrap())
    }

    fn open(&self, dir: &Path, id: ShareId) -> Result<ShareInfo, UserError> {
        let dir = self.home.prepare_folder(dir)?;
        let (marker, new) = init_share(&dir, id, None)?;
        if self.home.share(marker.id)?.is_none() {
            let record = ShareRecord::new(marker.id, dir.clone());
            self.home.save_share(&record)?;
        }
        self.run(dir, marker.id, new)
    }
}

impl Daemon for Fake {
    fn share(&self, dir: &Path) -> Result<ShareInfo, UserError> {
        self.open(dir, ShareId([7; 32]))
    }

    fn ticket(&self, dir: &Path, role: Role, expires: Duration) -> Result<TicketInfo, UserError> {
        let share = self.known(dir)?.path;
        let ticket = format!("left1{}", share.to_text());
        Ok(TicketInfo {
            join_line: format!("left join {ticket}"),
            ticket,
            share,
            role,
            expires: expires.as_secs(),
        })
    }

    fn join(&self, ticket: &str, dir: &Path, _: &[PathBuf]) -> Result<ShareInfo, UserError> {
        let inviter = PathBuf::from(&ticket["left1".len()..]);
        if inviter.ends_with("used") {
            return Err(UserError::new(
                "cannot join",
                "the ticket was used",
                "ask for another one",
            ));
        }
        let info = self.open(dir, ShareId([7; 32]))?;
        fs::write(info.path.join(".left/partner"), inviter.to_str().unwrap()).unwrap();
        fs::write(inviter.join(".left/partner"), info.path.to_str().unwrap()).unwrap();
        Ok(info)
    }

    fn sync(&self, dir: &Path, peer: &str, code: Option<&str>) -> Result<SyncInfo, UserError> {
        let share = self.open(dir, ShareId([8; 32]))?.path;
        let made = code.is_none().then(|| "alpha-beta".to_string());
        let command = format!(
            "left sync --peer {} --code alpha-beta # {peer}",
            self.options.name
        );
        Ok(SyncInfo {
            share,
            code: made,
            command_for_other: command,
        })
    }

    fn run_all(&self) -> Result<Vec<ShareInfo>, UserError> {
        let records = self.home.shares()?;
        records
            .into_iter()
            .map(|r| self.run(r.path, r.id, false))
            .collect()
    }

    fn status(&self) -> Status {
        let running = self.inner.running.lock().unwrap();
        let shares = running.iter().map(|(s, _)| share_status(s)).collect();
        Status {
            version: "fake".into(),
            pid: Some(std::process::id()),
            device: Some(DeviceId([9; 32])),
            name: self.options.name.clone(),
            discovery: None,
            listen: vec![format!("127.0.0.1:{}", self.options.listen.port)],
            shares,
        }
    }

    fn wait(&self, dir: Option<&Path>, timeout: Duration) -> Result<WaitResult, UserError> {
        let end = Instant::now() + timeout;
        loop {
            let status = self.status();
            let shares = status
                .shares
                .iter()
                .filter(|s| dir.is_none_or(|d| d == s.path));
            let missing: Vec<_> = shares
                .filter(|s| s.state != State::Synced)
                .map(|s| Missing {
                    share: s.path.clone(),
                    state: s.state,
                    need_files: 3,
                    need_bytes: 12_000_000,
                    why: "a test".into(),
                })
                .collect();
            let in_sync = missing.is_empty() && !status.shares.is_empty();
            if in_sync || Instant::now() >= end || self.inner.stopped.load(Ordering::Relaxed) {
                return Ok(WaitResult { in_sync, missing });
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn verify(&self, dir: Option<&Path>) -> Result<VerifyReport, UserError> {
        let mut report = VerifyReport {
            files: 2,
            bytes: 3,
            ..VerifyReport::default()
        };
        if dir.is_some_and(|d| d.join("damaged").exists()) {
            report.damaged = vec!["damaged".into()];
            report.not_healed = vec![Problem {
                path: "damaged".into(),
                reason: "no peer has it".into(),
            }];
        }
        Ok(report)
    }

    fn resume(&self, dir: &Path, _: bool) -> Result<(), UserError> {
        self.known(dir).map(drop)
    }

    fn pause(&self, dir: &Path) -> Result<(), UserError> {
        let mut record = self.known(dir)?;
        record.paused = true;
        self.home.save_share(&record)
    }

    fn remove_peer(&self, dir: &Path, who: &str) -> Result<Removed, UserError> {
        self.known(dir)?;
        if who == "nobody" {
            let why = "no member of the share has this name or id";
            return Err(UserError::new("cannot remove `nobody`", why, "see status"));
        }
        Ok(Removed {
            device: DeviceId([1; 32]),
            name: who.to_string(),
            let_in: vec!["another (BBBBBBB)".into()],
        })
    }

    fn revert(&self, dir: &Path, path: Option<&Path>) -> Result<Reverted, UserError> {
        self.known(dir)?;
        Ok(Reverted {
            edits: if path.is_some() { 1 } else { 3 },
        })
    }

    fn mode(&self, dir: &Path, mode: Option<Mode>) -> Result<ModeInfo, UserError> {
        self.known(dir)?;
        Ok(ModeInfo {
            mode: mode.unwrap_or_default(),
        })
    }

    fn take(&self, dir: &Path, path: Option<&Path>) -> Result<Decided, UserError> {
        self.known(dir)?;
        Ok(Decided {
            paths: if path.is_some() { 1 } else { 3 },
            connected: true,
        })
    }

    fn override_theirs(&self, dir: &Path, path: Option<&Path>) -> Result<Decided, UserError> {
        self.take(dir, path)
    }

    fn pause_peer(&self, dir: &Path, who: &str, paused: bool) -> Result<PeerPaused, UserError> {
        self.known(dir)?;
        Ok(PeerPaused {
            device: DeviceId([1; 32]),
            name: who.to_string(),
            paused,
        })
    }

    fn choice(&self, _: &Path) -> Result<Choice, UserError> {
        Ok(Choice {
            everything: true,
            rest: true,
            rules: Vec::new(),
            damaged: false,
        })
    }

    fn choose(&self, dir: &Path, _: Choosing, _: &[PathBuf]) -> Result<Chosen, UserError> {
        self.known(dir)?;
        Ok(Chosen::default())
    }

    fn limit(&self, dir: &Path, _up: Change, _down: Change) -> Result<Rate, UserError> {
        self.known(dir)?;
        Ok(Rate::default())
    }

    fn past(&self, path: &Path) -> Result<(Past, PathBuf), UserError> {
        let what = format!("cannot find {}", path.display());
        Err(UserError::new(what, "the toy has no history", ""))
    }

    fn reload(&self, _: &Options) -> Result<Reloaded, UserError> {
        Ok(Reloaded::default())
    }

    fn leave(&self, dir: &Path) -> Result<(), UserError> {
        let id = self.known(dir)?.id;
        self.inner
            .running
            .lock()
            .unwrap()
            .retain(|(s, _)| s.path != dir);
        fs::remove_dir_all(dir.join(".left")).unwrap();
        self.home.forget_share(id)
    }

    fn list(&self, dir: &Path, path: &Path, _: Option<&Path>) -> Result<Folder, UserError> {
        let dir = self.known(dir)?.path.join(path);
        let names = fs::read_dir(dir).map_err(|e| UserError::new("cannot look", e, ""))?;
        let mut entries: Vec<_> = names
            .flatten()
            .map(|e| FolderEntry {
                name: e.file_name().to_string_lossy().into_owned(),
                path: path.join(e.file_name()),
                kind: EntryKind::File,
                bytes: 0,
                files: 0,
                at_least: false,
                modified: None,
                target: None,
                held: true,
                away_bytes: 0,
                away_files: 0,
            })
            .collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Folder {
            entries,
            more: false,
        })
    }

    fn open(&self, dir: &Path, path: &Path) -> Result<OpenFile, UserError> {
        let path = self.known(dir)?.path.join(path);
        let file = fs::File::open(&path).map_err(|e| UserError::io("cannot read", &path, &e))?;
        let bytes = file.metadata().unwrap().len();
        Ok(OpenFile { file, bytes })
    }

    fn events(&self) -> broadcast::Receiver<DaemonEvent> {
        self.inner.events.get().unwrap().subscribe()
    }

    fn stop(&self) {
        if !self.inner.stopped.swap(true, Ordering::Relaxed) {
            self.inner.tell(DaemonEvent::Stopping);
        }
    }
}

fn share_status(share: &ShareInfo) -> ShareStatus {
    let partner = partner(&share.path);
    let same = partner.as_ref().is_some_and(|p| alike(p, &share.path));
    let peer = partner.map(|p| PeerStatus {
        device: DeviceId([1; 32]),
        name: "partner\u{1b}[2J".into(),
        address: p.display().to_string(),
        connected: true,
        role: Role::ReadWrite,
        paused: false,
        admitted_by: None,
        rate_in: 0,
        rate_out: 0,
        bytes_in: 0,
        bytes_out: 0,
        need_files: 0,
        need_bytes: 0,
        in_sync: same,
    });
    let state = match (&peer, same) {
        (None, _) => State::Offline,
        (_, true) => State::Synced,
        (_, false) => State::Syncing,
    };
    ShareStatus {
        id: share.id,
        path: share.path.clone(),
        role: share.role,
        state,
        files: 1234,
        dirs: 1,
        bytes: 5_000_000,
        need_files: 0,
        need_bytes: 0,
        away_files: 0,
        away_bytes: 0,
        peers: peer.into_iter().collect(),
        conflicts: Vec::new(),
        local_edits: vec!["a\u{1b}[2J".into()],
        local_edit_count: 3,
        mode: Mode::TwoWay,
        withheld: Vec::new(),
        withheld_count: 0,
        withheld_bytes: 0,
        problems: Vec::new(),
        notices: Vec::new(),
        alarm: None,
        transfers: Vec::new(),
        limit: Rate::default(),
        applied: ApplyTimes::default(),
    }
}

/// The exit code of a usage error, to keep the tests' numbers in one place.
pub const USAGE: i32 = Exit::Usage as i32;
