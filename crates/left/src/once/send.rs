//! [`send`]: serves files and folders until they are fetched.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded, unbounded};
use jiff::Zoned;
use left_core::message::{Nonce, Role, ShareId};
use left_core::ticket::{SendTicket, Ticket};
use left_core::version::DeviceId;

use super::door::Door;
use super::serving::{Serving, Wake};
use super::tree::Tree;
use super::{Event, Stop, unix_now};
use crate::daemon::handle::Options;
use crate::daemon::limits::{Limiter, Limits, rate_at};
use crate::daemon::{advertised, listen_addrs, load_key};
use crate::home::{Home, UserError};
use crate::net::{DeviceKey, Introduction, Net, NetConfig, NetError, NetEvent};
use crate::store::Manifests;

/// How long last words to receivers may take.
const FAREWELL: Duration = Duration::from_millis(500);
/// How often the hours of `config.toml` are looked at.
const HOURS: Duration = Duration::from_secs(10);

/// What to send, and how.
#[derive(Debug, Clone)]
pub struct Send {
    /// Files and folders, absolute.
    pub paths: Vec<PathBuf>,
    /// Any number of devices may fetch, until the end.
    pub keep: bool,
    /// How long the ticket works.
    pub expires: Duration,
    /// Where to listen, as whom.
    pub options: Options,
    /// Another port will do when that one is taken.
    pub any_port: bool,
}

/// How sending ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Devices that have everything.
    pub devices: u32,
    /// Things that could not be sent.
    pub skipped: u32,
}

/// Serves until everything was fetched, the ticket has expired, or `stop`.
///
/// # Errors
/// When something can not be sent, and when it ends before anybody has fetched all.
pub fn send(
    home: &Home,
    how: &Send,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<Sent, UserError> {
    let what = "cannot send";
    let key = Arc::new(load_key(home)?);
    let work = WorkDir::make(home)?;
    let manifests = Manifests::open(&work.path.join("manifests.db")).map_err(|e| {
        UserError::new(
            what,
            e,
            format!("make room in {}", crate::home::clean(&work.path)),
        )
    })?;
    let tree = Arc::new(Tree::new(&how.paths, manifests, stop.clone())?);
    let runtime = super::receive::runtime(what)?;
    let (out, inbox) = unbounded();
    let ticket = new_ticket(&key, how)?;
    let me = Introduction {
        instance: random()?,
        name: how.options.name.clone(),
        addresses: Vec::new(),
    };
    let door = Arc::new(Door::new(ticket.clone(), how.keep, me, out.clone()));
    let limiter = Arc::new(Limiter::default());
    let limits = Limits::new([limiter.clone()]);
    let serving = Serving::new(tree, door.clone(), limits, out.clone());
    let net = listen(how, &key, &runtime, &door, &serving)?;
    let addresses = advertised(&how.options, net.local_addrs());
    super::lock(&door.me).addresses.clone_from(&addresses);
    tell(ticket_event(ticket, addresses, how, &net));
    stop_wakes(stop, &out)?;
    let looker = {
        let (serving, out) = (serving.clone(), out.clone());
        std::thread::spawn(move || {
            serving.look();
            let (files, bytes) = serving.tree.size();
            let _ = out.send(Wake::Tell(Event::Listed { files, bytes }));
        })
    };
    let mut follow = || {
        // Settings that can not be read change nothing.
        if let Ok(config) = home.config() {
            limiter.set(rate_at(&config.bandwidth, &Zoned::now()));
        }
    };
    let ended = wait(how, &inbox, tell, &mut follow);
    stop.stop();
    serving.close(match ended.1 {
        End::Fetched => "all was fetched",
        End::Expired => "the ticket has expired",
        End::Stopped => "the sender was stopped",
    });
    // A look ends soon: it was told to.
    let _ = looker.join();
    std::thread::sleep(if matches!(ended.1, End::Fetched) {
        FAREWELL / 2
    } else {
        FAREWELL
    });
    drop(net);
    runtime.shutdown_timeout(FAREWELL);
    judge(ended.0, &ended.1)
}

enum End {
    Fetched,
    Expired,
    Stopped,
}

/// Tells what happens until it is over.
fn wait(
    how: &Send,
    inbox: &crossbeam_channel::Receiver<Wake>,
    tell: &mut dyn FnMut(Event),
    follow: &mut dyn FnMut(),
) -> (Sent, End) {
    let mut sent = Sent {
        devices: 0,
        skipped: 0,
    };
    let mut have: Vec<DeviceId> = Vec::new();
    let mut skipped = HashSet::new();
    // The farthest future that the clock knows will do for a ticket of years.
    let end = Instant::now().checked_add(how.expires);
    loop {
        follow();
        let left = end.map_or(HOURS, |end| end.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return (sent, End::Expired);
        }
        match inbox.recv_timeout(left.min(HOURS)) {
            Ok(Wake::Tell(event)) => {
                if let Event::Skipped { path, .. } = &event {
                    // It was told when it was found first.
                    if !skipped.insert(path.clone()) {
                        continue;
                    }
                    sent.skipped = u32::try_from(skipped.len()).unwrap_or(u32::MAX);
                }
                tell(event);
            }
            Ok(Wake::Fetched(device)) => {
                if !have.contains(&device) {
                    have.push(device);
                }
                sent.devices = have.len() as u32;
                if !how.keep {
                    return (sent, End::Fetched);
                }
            }
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return (sent, End::Stopped),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn judge(sent: Sent, end: &End) -> Result<Sent, UserError> {
    let what = "not fetched";
    match end {
        _ if sent.devices > 0 => Ok(sent),
        End::Expired => Err(UserError::new(
            what,
            "the ticket has expired, and nobody has fetched everything",
            "send again, with a longer --expires if need be",
        )),
        _ => Err(UserError::new(
            what,
            "sending was stopped before anybody had fetched everything",
            "send again: what has arrived is not sent a second time",
        )),
    }
}

fn stop_wakes(stop: &Stop, out: &Sender<Wake>) -> Result<(), UserError> {
    let (waker, woken) = bounded(1);
    stop.wake(waker);
    let out = out.clone();
    let thread = std::thread::Builder::new().name("left-stop".into());
    let spawned = thread.spawn(move || {
        if woken.recv().is_ok() {
            let _ = out.send(Wake::Stop);
        }
    });
    spawned
        .map(drop)
        .map_err(|e| UserError::new("cannot send", e, "try again"))
}

fn random<const N: usize>() -> Result<[u8; N], UserError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| {
        UserError::new(
            "cannot send",
            "the system gives no random numbers",
            "try again",
        )
    })?;
    Ok(bytes)
}

/// The same paths sent again by the same device have the same id, so that a receiver goes on where it
/// was. Nobody else can tell the paths from it.
fn share_of(key: &DeviceKey, paths: &[PathBuf]) -> ShareId {
    use std::os::unix::ffi::OsStrExt;
    let secret = blake3::derive_key("LEFT 2026 name of what is sent v1", key.to_pkcs8());
    let mut hasher = blake3::Hasher::new_keyed(&secret);
    for path in paths {
        let bytes = path.as_os_str().as_bytes();
        hasher
            .update(&(bytes.len() as u64).to_le_bytes())
            .update(bytes);
    }
    ShareId(*hasher.finalize().as_bytes())
}

fn new_ticket(key: &DeviceKey, how: &Send) -> Result<Ticket, UserError> {
    Ok(Ticket {
        share: share_of(key, &how.paths),
        inviter: key.id(),
        id: random::<16>()? as Nonce,
        secret: random()?,
        role: Role::ReadOnly,
        expires: unix_now().saturating_add(how.expires.as_secs()),
        addresses: Vec::new(),
    })
}

fn ticket_event(mut ticket: Ticket, addresses: Vec<String>, how: &Send, net: &Net) -> Event {
    ticket.addresses = addresses;
    let expires = ticket.expires;
    let text = SendTicket(ticket).to_string();
    Event::Ticket {
        get_line: format!("left get {text}"),
        ticket: text,
        expires,
        keep: how.keep,
        listen: net.local_addrs().iter().map(ToString::to_string).collect(),
    }
}

fn listen(
    how: &Send,
    key: &Arc<DeviceKey>,
    runtime: &tokio::runtime::Runtime,
    door: &Arc<Door>,
    serving: &Arc<Serving>,
) -> Result<Net, UserError> {
    let mut at = how.options.listen.clone();
    loop {
        let addrs = listen_addrs(&at)?;
        let config = NetConfig::new(key.clone(), addrs, runtime.handle().clone());
        let serving = serving.clone();
        let started = Net::start(config, door.clone(), move |event| match event {
            NetEvent::Control(lane) => serving.control(lane),
            NetEvent::Data(lane) => serving.data(lane),
        });
        match started {
            Ok(net) => return Ok(net),
            // A running left of this device has the usual one.
            Err(NetError::PortInUse { .. }) if how.any_port && at.port != 0 => at.port = 0,
            Err(error) => {
                let text = error.to_string();
                let (why, todo) = text.split_once("; ").unwrap_or((&text, "try again"));
                return Err(UserError::new("cannot send", why, todo));
            }
        }
    }
}

/// A folder of this process in the home, gone with it. Folders that killed processes left are removed.
struct WorkDir {
    path: PathBuf,
    _lock: std::fs::File,
}

/// Held while folders are made or thrown away.
static MAKING: Mutex<()> = Mutex::new(());

impl WorkDir {
    fn make(home: &Home) -> Result<Self, UserError> {
        let _making = super::lock(&MAKING);
        let all = home.path().join("sending");
        let fail = |e: std::io::Error| UserError::io("cannot make", &all, &e);
        std::fs::create_dir_all(&all).map_err(fail)?;
        for entry in std::fs::read_dir(&all).map_err(fail)?.flatten() {
            remove_if_left(&entry.path());
        }
        let name = format!("{}-{}", std::process::id(), u64::from_le_bytes(random()?));
        let path = all.join(name);
        std::fs::create_dir(&path).map_err(fail)?;
        let lock = std::fs::File::create(path.join("lock")).map_err(fail)?;
        lock.try_lock().map_err(|e| fail(e.into()))?;
        Ok(Self { path, _lock: lock })
    }
}

fn remove_if_left(path: &Path) {
    let held = match std::fs::File::open(path.join("lock")) {
        Ok(file) => file.try_lock().is_err(),
        // Just being made, unless it is old.
        Err(_) => std::fs::metadata(path)
            .and_then(|m| m.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age < Duration::from_secs(60))),
    };
    if !held {
        // What can not be removed is tried again the next time.
        let _ = std::fs::remove_dir_all(path);
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
