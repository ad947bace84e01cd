//! The running left of one device: its shares, its network, and what one can ask of it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use left_core::message::{Nonce, Role, ShareId};
use left_core::ticket::Ticket;
use tokio::runtime::Runtime;
use tokio::sync::broadcast;

use super::ask::Msg;
use super::gate::Door;
use super::handle::{
    Alarm, Daemon, DaemonEvent, Listen, Missing, Options, ShareInfo, ShareStatus, State, Status,
    SyncInfo, TicketInfo, UserError, VerifyReport, WaitResult,
};
use super::members::{Members, unix_now};
use super::owner::{self, Ended, Setup};
use super::pairing::{Pairings, Pending};
use super::snapshot::{Board, split_todo};
use crate::home::{
    Home, Lock, MARKER_DIR, MemberRecord, ShareRecord, TicketRecord, clean, init_share, lock_share,
    read_share,
};
use crate::net::code::PairCode;
use crate::net::{
    ControlLane, DEFAULT_PORT, DeviceKey, DialError, DialPair, Introduction, Net, NetConfig,
    NetEvent,
};

/// A share that can not be worked on is tried again after this.
const BROKEN_WAIT: Duration = Duration::from_secs(3);
/// How long `join` waits for the inviter's first answer.
const JOIN_WAIT: Duration = Duration::from_secs(15);
/// How often the state is looked at while waiting for a peer to come.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Events kept for a slow reader.
const EVENTS: usize = 4096;

type Routes = Arc<Mutex<HashMap<ShareId, Sender<Msg>>>>;

/// A share with its owner thread.
struct Running {
    tx: Sender<Msg>,
    thread: JoinHandle<()>,
    members: Members,
    board: Arc<Board>,
    path: PathBuf,
}

/// See the module's text.
pub(super) struct Device {
    home: Home,
    _lock: Lock,
    options: Options,
    net: Option<Arc<Net>>,
    door: Arc<Door>,
    shares: Mutex<HashMap<ShareId, Running>>,
    routes: Routes,
    events: broadcast::Sender<DaemonEvent>,
    stopped: AtomicBool,
    me: Weak<Device>,
    /// Dropped last: everything above runs on it.
    runtime: Mutex<Option<Runtime>>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(what: &str, why: impl std::fmt::Display) -> UserError {
    UserError::new(what, why, "")
}

/// Starts the left of this device; no share runs yet.
pub fn start(home: Home, options: Options) -> Result<Arc<dyn Daemon>, UserError> {
    let home_lock = home.lock()?;
    let what = "cannot start";
    let key = super::load_key(&home)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("left-net")
        .enable_all()
        .build()
        .map_err(|e| failed(what, e))?;
    let (events, _) = broadcast::channel(EVENTS);
    let mut instance: Nonce = [0; 16];
    aws_lc_rs::rand::fill(&mut instance).map_err(|_| failed(what, "no random numbers"))?;
    let pairings = Arc::new(Pairings::default());
    let door = Arc::new(Door {
        device: key.id(),
        me: Mutex::new(Introduction {
            instance,
            name: options.name.clone(),
            addresses: Vec::new(),
        }),
        shares: Mutex::default(),
        sessions: Mutex::default(),
        pairings,
        events: events.clone(),
        closing: AtomicBool::new(false),
    });
    let routes = Routes::default();
    let net = match options.offline {
        true => None,
        false => Some(start_net(&options, key, &runtime, &door, &routes)?),
    };
    if let Some(net) = &net {
        lock(&door.me).addresses = advertised(&options, net.local_addrs());
    }
    let device = Arc::new_cyclic(|me| Device {
        home,
        _lock: home_lock,
        options,
        net,
        door,
        shares: Mutex::default(),
        routes,
        events,
        stopped: AtomicBool::new(false),
        me: Weak::clone(me),
        runtime: Mutex::new(Some(runtime)),
    });
    let weak = Arc::downgrade(&device);
    device
        .door
        .pairings
        .on_done(Box::new(move |pending, share, peer, from| {
            let device = weak
                .upgrade()
                .ok_or_else(|| failed("cannot pair", "left is stopping"))?;
            device.paired(pending, share, peer, from)
        }));
    Ok(device)
}

fn start_net(
    options: &Options,
    key: DeviceKey,
    runtime: &Runtime,
    door: &Arc<Door>,
    routes: &Routes,
) -> Result<Arc<Net>, UserError> {
    let listen = listen_addrs(&options.listen)?;
    let config = NetConfig::new(Arc::new(key), listen, runtime.handle().clone());
    let routes = routes.clone();
    let net = Net::start(config, door.clone(), move |event| {
        let (share, msg) = match event {
            NetEvent::Control(lane) => (lane.info.share, Msg::Control(lane)),
            NetEvent::Data(lane) => (lane.share, Msg::Data(lane)),
        };
        if let Some(tx) = lock(&routes).get(&share) {
            // The share stops just now: the lane closes with the message.
            let _ = tx.send(msg);
        }
    });
    let net = net.map_err(|e| {
        let text = e.to_string();
        let (why, todo) = split_todo(&text);
        UserError::new("cannot listen for peers", why, todo)
    })?;
    Ok(Arc::new(net))
}

fn listen_addrs(listen: &Listen) -> Result<Vec<SocketAddr>, UserError> {
    let Some(host) = &listen.host else {
        let any = IpAddr::from([0_u8; 16]);
        // Without IPv6 in the kernel, IPv4 alone.
        let v6 = std::net::UdpSocket::bind((any, 0)).is_ok();
        let any = if v6 { any } else { IpAddr::from([0_u8; 4]) };
        return Ok(vec![SocketAddr::new(any, listen.port)]);
    };
    let addrs = (host.as_str(), listen.port)
        .to_socket_addrs()
        .map_err(|e| {
            UserError::new(
                format!("cannot listen on {host}"),
                e,
                "give an address of this machine to --listen",
            )
        })?;
    Ok(addrs.take(1).collect())
}

/// Where peers reach this device.
fn advertised(options: &Options, local: &[SocketAddr]) -> Vec<String> {
    let port = local.first().map_or(DEFAULT_PORT, SocketAddr::port);
    if !options.advertise.is_empty() {
        return options
            .advertise
            .iter()
            .map(|a| with_port(a, port))
            .collect();
    }
    let fixed = local
        .first()
        .map(SocketAddr::ip)
        .filter(|ip| !ip.is_unspecified());
    if let Some(ip) = fixed {
        return vec![SocketAddr::new(ip, port).to_string()];
    }
    let mut all: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .iter()
        .map(if_addrs::Interface::ip)
        .filter(|ip| match ip {
            IpAddr::V4(ip) => !ip.is_link_local(),
            // Link-local addresses mean nothing without their interface.
            IpAddr::V6(ip) => (ip.segments()[0] & 0xffc0) != 0xfe80,
        })
        .collect();
    // Loopback last: it is right only for a second device on this machine.
    all.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    all.into_iter()
        .map(|ip| SocketAddr::new(ip, port).to_string())
        .collect()
}

fn with_port(address: &str, port: u16) -> String {
    let has_port = match address.rfind(':') {
        Some(at) if address.starts_with('[') => address[..at].ends_with(']'),
        Some(at) => !address[..at].contains(':'),
        None => false,
    };
    match (has_port, address.contains(':') && !address.starts_with('[')) {
        (true, _) => address.to_owned(),
        (false, true) => format!("[{address}]:{port}"),
        (false, false) => format!("{address}:{port}"),
    }
}

impl Device {
    /// The running or recorded share of a folder.
    fn record_of(&self, dir: &Path) -> Result<Members, UserError> {
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
        if let Some(running) = lock(&self.shares).values().find(|r| r.path == dir) {
            return Ok(running.members.clone());
        }
        match self.home.shares()?.into_iter().find(|r| r.path == dir) {
            Some(record) => Ok(Members::new(self.home.clone(), record)),
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
        record: ShareRecord,
        joined: Option<Sender<Result<(), String>>>,
        must: bool,
    ) -> Result<(), UserError> {
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
        let members = Members::new(self.home.clone(), record);
        lock(&self.door.shares).insert(id, members.clone());
        let (tx, rx) = unbounded();
        lock(&self.routes).insert(id, tx.clone());
        let board = Arc::new(Board::default());
        let keeper = Keeper {
            device: self.door.device,
            path: path.clone(),
            members: members.clone(),
            door: self.door.clone(),
            net: self.net.clone(),
            events: self.events.clone(),
            board: board.clone(),
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
                path,
            },
        );
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

    /// The record of the share in `dir`, made where there is none; `id` for a new share.
    fn adopt(&self, dir: &Path, id: ShareId) -> Result<(ShareRecord, bool), UserError> {
        let known = self.home.shares()?.into_iter().find(|r| r.path == dir);
        if let Some(record) = known {
            // A folder whose marker is gone was emptied, or its disk is not mounted: never start
            // it anew under the same members.
            let marker = read_share(dir).map_err(|_| {
                UserError::new(
                    format!("{} was a share, but its folder .left is gone", clean(dir)),
                    "the folder was emptied or replaced, or its disk is not mounted",
                    format!("mount the disk or put the folder back; to begin anew run `left leave {}` first", clean(dir)),
                )
            })?;
            if marker.id != record.id {
                return Err(UserError::new(
                    format!("{} is another share now", clean(dir)),
                    "its marker names another share than this device knows for it",
                    format!(
                        "run `left leave {}` first, then share or join it anew",
                        clean(dir)
                    ),
                ));
            }
            return Ok((record, false));
        }
        let (marker, new) = init_share(dir, id)?;
        let record = ShareRecord {
            id: marker.id,
            path: dir.to_path_buf(),
            role: Role::ReadWrite,
            paused: false,
            invitation: None,
            pairing: None,
            members: Vec::new(),
            tickets: Vec::new(),
        };
        if let Some(other) = self.home.share(marker.id)? {
            if other.path.exists() {
                return Err(UserError::new(
                    format!("cannot share {}", clean(dir)),
                    format!("it is a copy of the share in {}", clean(&other.path)),
                    format!("remove {}/{MARKER_DIR} from the copy first", clean(dir)),
                ));
            }
            // The folder was moved: the same share in its new place.
            let record = ShareRecord {
                path: dir.to_path_buf(),
                ..other
            };
            self.home.save_share(&record)?;
            return Ok((record, false));
        }
        self.home.save_share(&record)?;
        Ok((record, new))
    }

    fn new_id() -> Result<ShareId, UserError> {
        let mut id = [0; 32];
        aws_lc_rs::rand::fill(&mut id)
            .map_err(|_| failed("cannot make a share", "no random numbers"))?;
        Ok(ShareId(id))
    }

    fn make_ticket(
        &self,
        members: &Members,
        role: Role,
        expires: Duration,
    ) -> Result<TicketInfo, UserError> {
        let what = "cannot make a ticket";
        let record = members.record();
        if record.role != Role::ReadWrite {
            return Err(UserError::new(
                what,
                "this device is a read-only member of the share",
                "ask a member that may write",
            ));
        }
        let (mut id, mut secret) = ([0; 16], [0; 16]);
        aws_lc_rs::rand::fill(&mut id)
            .and_then(|()| aws_lc_rs::rand::fill(&mut secret))
            .map_err(|_| failed(what, "no random numbers"))?;
        let ticket = Ticket {
            share: record.id,
            inviter: self.door.device,
            id,
            secret,
            role,
            expires: unix_now().saturating_add(expires.as_secs()),
            addresses: self.door.introduction().addresses,
        };
        members.add_ticket(TicketRecord {
            id,
            secret,
            role,
            expires: ticket.expires,
            used_by: None,
        })?;
        let text = ticket.to_string();
        Ok(TicketInfo {
            join_line: format!("left join {text}"),
            ticket: text,
            share: record.path,
            role,
            expires: ticket.expires,
        })
    }

    /// A pairing is complete: the folder is a member of the share now, together with the peer.
    fn paired(
        &self,
        pending: &Pending,
        share: ShareId,
        peer: left_core::version::DeviceId,
        from: &Introduction,
    ) -> Result<(), UserError> {
        let (mut record, new) = self.adopt(&pending.dir, share)?;
        if record.id != share {
            return Err(UserError::new(
                format!("cannot pair {}", clean(&pending.dir)),
                "it is another share already",
                "use another folder",
            ));
        }
        let mut addresses = vec![pending.peer.clone()];
        addresses.extend(
            from.addresses
                .iter()
                .filter(|a| **a != pending.peer)
                .cloned(),
        );
        let running = lock(&self.shares)
            .get(&share)
            .map(|r| (r.members.clone(), r.tx.clone()));
        if let Some((members, tx)) = running {
            members.meet(peer, Role::ReadWrite, &from.name, &addresses)?;
            owner::nudge(&tx, Msg::MembersChanged);
            return Ok(());
        }
        record.members.retain(|m| m.device != peer);
        record.members.push(MemberRecord {
            device: peer,
            name: from.name.clone(),
            role: Role::ReadWrite,
            addresses,
        });
        self.home.save_share(&record)?;
        self.info(&record, new);
        self.run(record, None, true)
    }

    /// Dials the other machine of a pairing until one end has reached the other.
    fn spawn_pairing(&self, pending: Pending) {
        let (Some(net), Some(me)) = (self.net.clone(), self.me.upgrade()) else {
            return;
        };
        let weak = self.me.clone();
        drop(me);
        let door = self.door.clone();
        let events = self.events.clone();
        net.runtime().clone().spawn(async move {
            let mut wait = Duration::from_millis(200);
            let mut told = String::new();
            while door.pairings.is_waiting(pending.number) {
                let call = DialPair {
                    code: pending.code.clone(),
                    addresses: vec![pending.peer.clone()],
                    share: pending.share,
                    me: door.introduction(),
                };
                match net.dial_pair(call).await {
                    Ok(lane) => {
                        let (weak, pending) = (weak.clone(), pending.clone());
                        let done = tokio::task::spawn_blocking(move || {
                            take_pairing(&weak, &pending, lane)
                        });
                        if let Ok(Err(error)) = done.await {
                            let _ = events.send(DaemonEvent::Notice {
                                text: error.to_string(),
                            });
                        }
                        return;
                    }
                    Err(error) => {
                        let text = pairing_trouble(&pending.peer, &error);
                        if text != told {
                            tracing::info!("{text}");
                            if !matches!(error, DialError::Unreachable(_)) {
                                let _ = events.send(DaemonEvent::Notice { text: text.clone() });
                            }
                            told = text;
                        }
                    }
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(2));
            }
        });
    }

    fn wait_one(&self, id: ShareId, deadline: Instant) -> Result<Option<Missing>, UserError> {
        let shares = lock(&self.shares);
        let Some(running) = shares.get(&id) else {
            return Ok(None);
        };
        let (tx, board, path) = (
            running.tx.clone(),
            running.board.clone(),
            running.path.clone(),
        );
        drop(shares);
        let missing = |why: &str| {
            let status = board.read();
            let peers = status.iter().flat_map(|s| &s.peers);
            let most = peers
                .map(|p| (p.need_files, p.need_bytes))
                .max()
                .unwrap_or_default();
            let ours = status
                .as_ref()
                .map(|s| (s.need_files, s.need_bytes))
                .unwrap_or_default();
            Some(Missing {
                share: path.clone(),
                state: status.map_or(State::Syncing, |s| s.state),
                need_files: ours.0.max(most.0),
                need_bytes: ours.1.max(most.1),
                why: why.to_owned(),
            })
        };
        // Without a peer there is nothing to be identical with: wait for one to come.
        loop {
            match board.read() {
                Some(s) if s.state == State::Alarm => {
                    return Ok(missing("the share is in alarm: see `left status`"));
                }
                Some(s) if s.peers.iter().any(|p| p.connected) => break,
                _ if Instant::now() >= deadline => return Ok(missing("no peer is connected")),
                _ => std::thread::sleep(LOOK_EVERY),
            }
        }
        let (reply, done) = bounded(1);
        if tx.send(Msg::Wait(reply)).is_err() {
            return Ok(missing("the share is stopping"));
        }
        match done.recv_deadline(deadline) {
            Ok(()) => Ok(None),
            Err(_) => Ok(missing("not everything is on both sides yet")),
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

fn pairing_trouble(peer: &str, error: &DialError) -> String {
    match error {
        DialError::Refused(r) if r.code == left_core::message::RefusedCode::NotAdmitted => format!(
            "{peer} answers, but does not expect this code: run the command shown on the other \
             machine, with the same code"
        ),
        other => format!("cannot pair with {peer} yet: {other}"),
    }
}

fn take_pairing(
    weak: &Weak<Device>,
    pending: &Pending,
    lane: ControlLane,
) -> Result<(), UserError> {
    let Some(device) = weak.upgrade() else {
        return Ok(());
    };
    let from = Introduction {
        instance: lane.info.instance,
        name: lane.info.name.clone(),
        addresses: lane.info.addresses.clone(),
    };
    let share = lane.info.share;
    device
        .door
        .pairings
        .complete(pending, share, lane.info.peer, &from)?;
    if let Some(tx) = lock(&device.routes).get(&share) {
        let _ = tx.send(Msg::Control(lane));
    }
    Ok(())
}

/// Keeps one share running: starts its owner, and starts it again when something broke.
struct Keeper {
    device: left_core::version::DeviceId,
    path: PathBuf,
    members: Members,
    door: Arc<Door>,
    net: Option<Arc<Net>>,
    events: broadcast::Sender<DaemonEvent>,
    board: Arc<Board>,
    joined: Option<Sender<Result<(), String>>>,
    share_lock: Option<Lock>,
}

impl Keeper {
    fn keep(mut self, tx: &Sender<Msg>, rx: &Receiver<Msg>) {
        let mut told = String::new();
        loop {
            let reason = match self.once(tx, rx) {
                Ended::Stopped => return,
                Ended::Broken(reason) => reason,
            };
            if reason != told {
                tracing::error!(share = %self.path.display(), "{reason}");
                let (short, todo) = split_todo(&reason);
                let _ = self.events.send(DaemonEvent::Alarm {
                    share: self.path.clone(),
                    reason: short,
                    todo,
                });
                told = reason.clone();
            }
            self.board.publish(broken(&self.members.record(), &reason));
            let until = Instant::now() + BROKEN_WAIT;
            // Lanes and requests that come meanwhile are dropped, which tells their senders.
            while let Ok(msg) = rx.recv_deadline(until) {
                if matches!(msg, Msg::Stop) {
                    return;
                }
            }
        }
    }

    fn once(&mut self, tx: &Sender<Msg>, rx: &Receiver<Msg>) -> Ended {
        if self.share_lock.is_none() {
            match lock_share(&self.path) {
                Ok(lock) => self.share_lock = Some(lock),
                Err(error) => return Ended::Broken(error.to_string()),
            }
        }
        match read_share(&self.path) {
            Ok(marker) if marker.id == self.members.id() => {}
            Ok(_) => return Ended::Broken("the folder is another share now. Put the right folder back, or run `left leave DIR`".into()),
            Err(error) => return Ended::Broken(error.to_string()),
        }
        let setup = Setup {
            device: self.device,
            path: self.path.clone(),
            members: self.members.clone(),
            door: self.door.clone(),
            net: self.net.clone(),
            events: self.events.clone(),
            board: self.board.clone(),
            joined: self.joined.take(),
        };
        owner::run(setup, tx.clone(), rx)
    }
}

/// The status of a share that can not be worked on.
fn broken(record: &ShareRecord, reason: &str) -> ShareStatus {
    let (reason, todo) = split_todo(reason);
    ShareStatus {
        id: record.id,
        path: record.path.clone(),
        role: record.role,
        state: State::Alarm,
        files: 0,
        dirs: 0,
        bytes: 0,
        need_files: 0,
        need_bytes: 0,
        peers: Vec::new(),
        conflicts: Vec::new(),
        problems: Vec::new(),
        notices: Vec::new(),
        alarm: Some(Alarm { reason, todo }),
        transfers: Vec::new(),
    }
}

impl Daemon for Device {
    fn share(&self, dir: &Path) -> Result<ShareInfo, UserError> {
        let dir = self.home.prepare_folder(dir)?;
        let (record, new) = self.adopt(&dir, Self::new_id()?)?;
        self.run(record.clone(), None, true)?;
        Ok(self.info(&record, new))
    }

    fn ticket(&self, dir: &Path, role: Role, expires: Duration) -> Result<TicketInfo, UserError> {
        let members = self.record_of(dir)?;
        let info = self.make_ticket(&members, role, expires)?;
        Ok(info)
    }

    fn join(&self, ticket: &str, dir: &Path) -> Result<ShareInfo, UserError> {
        let what = "cannot join";
        let parsed = Ticket::parse(ticket).map_err(|e| {
            let text = e.to_string();
            let (why, todo) = split_todo(&text);
            UserError::usage("cannot read the ticket", why, todo)
        })?;
        if parsed.inviter == self.door.device {
            return Err(UserError::new(
                what,
                "this device made the ticket itself",
                "use it on another device",
            ));
        }
        if parsed.expires <= unix_now() {
            return Err(UserError::new(
                what,
                "the ticket has expired",
                "ask for another one",
            ));
        }
        let dir = self.home.prepare_folder(dir)?;
        let had_marker = read_share(&dir).is_ok();
        let (mut record, new) = self.adopt(&dir, parsed.share)?;
        if record.id != parsed.share {
            return Err(UserError::new(
                format!("{what} with {}", clean(&dir)),
                "it is another share already",
                "choose another folder, or `left leave` that one first",
            ));
        }
        let member = record.members.iter().any(|m| m.device == parsed.inviter);
        if !member {
            record.role = parsed.role;
            record.invitation = Some(ticket.trim().to_owned());
            record.members.push(MemberRecord {
                device: parsed.inviter,
                name: String::new(),
                role: Role::ReadWrite,
                addresses: parsed.addresses.clone(),
            });
            self.home.save_share(&record)?;
        }
        let (tx, rx) = bounded(1);
        self.run(record.clone(), Some(tx), true)?;
        if let Ok(Err(why)) = rx.recv_timeout(JOIN_WAIT) {
            self.stop_share(record.id);
            self.home.forget_share(record.id)?;
            if new && !had_marker {
                remove_marker(&dir)?;
            }
            return Err(UserError::new(
                what,
                why,
                "ask the inviter for another ticket",
            ));
        }
        Ok(self.info(&record, new))
    }

    fn sync(&self, dir: &Path, peer: &str, code: Option<&str>) -> Result<SyncInfo, UserError> {
        let dir = self.home.prepare_folder(dir)?;
        let peer = with_port(peer.trim(), DEFAULT_PORT);
        let share = read_share(&dir).ok().map(|m| m.id);
        let record = self.home.shares()?.into_iter().find(|r| r.path == dir);
        if let Some(record) = &record {
            self.adopt(&dir, record.id)?;
            self.run(record.clone(), None, true)?;
            if code.is_none() && !record.members.is_empty() {
                let members = self.record_of(&dir)?;
                members.update(|r| {
                    // The only other machine may have a new address.
                    if let [only] = r.members.as_mut_slice()
                        && !only.addresses.contains(&peer)
                    {
                        only.addresses.insert(0, peer.clone());
                    }
                })?;
                self.send(&dir, Msg::MembersChanged)?;
                return Ok(SyncInfo {
                    share: dir,
                    code: None,
                    command_for_other: "left sync --peer HOST-OF-THIS-MACHINE".into(),
                });
            }
        }
        let (code, made) = match code {
            Some(text) => {
                let code = PairCode::parse(text).map_err(|e| {
                    UserError::usage(
                        "cannot pair",
                        e,
                        "copy the code as the other machine shows it",
                    )
                })?;
                (code, false)
            }
            None => {
                let code = PairCode::generate().map_err(|e| failed("cannot pair", e))?;
                (code, true)
            }
        };
        let pending = self.door.pairings.add(dir.clone(), code.key(), peer, share);
        self.spawn_pairing(pending);
        let here = self.door.introduction().addresses;
        let here = here.first().map_or("HOST-OF-THIS-MACHINE", String::as_str);
        let info = SyncInfo {
            share: dir,
            code: made.then(|| code.to_string()),
            command_for_other: format!("left sync --peer {here} --code {code}"),
        };
        Ok(info)
    }

    fn run_all(&self) -> Result<Vec<ShareInfo>, UserError> {
        let mut all = Vec::new();
        for record in self.home.shares()? {
            self.run(record.clone(), None, false)?;
            all.push(self.info(&record, false));
        }
        Ok(all)
    }

    fn status(&self) -> Status {
        let shares = lock(&self.shares);
        let mut all: Vec<ShareStatus> = shares
            .values()
            .map(|r| {
                r.board
                    .read()
                    .unwrap_or_else(|| starting(&r.members.record()))
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
            name: self.options.name.clone(),
            listen: listen.collect(),
            shares: all,
        }
    }

    fn wait(&self, dir: Option<&Path>, timeout: Duration) -> Result<WaitResult, UserError> {
        let deadline = Instant::now() + timeout;
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

/// Removes what left keeps in a share's folder. Old versions in history are the user's bytes and
/// stay.
fn remove_marker(dir: &Path) -> Result<(), UserError> {
    let own = dir.join(MARKER_DIR);
    let what = "cannot remove";
    let entries = std::fs::read_dir(&own).map_err(|e| UserError::io(what, &own, &e))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        let removed = match (entry.file_name() == "history", is_dir) {
            // Only when it is empty.
            (true, _) => std::fs::remove_dir(&path).or(Ok(())),
            (false, true) => std::fs::remove_dir_all(&path),
            (false, false) => std::fs::remove_file(&path),
        };
        removed.map_err(|e| UserError::io(what, &path, &e))?;
    }
    // Stays while it holds history.
    let _ = std::fs::remove_dir(&own);
    Ok(())
}

/// The status of a share whose owner has not said anything yet.
fn starting(record: &ShareRecord) -> ShareStatus {
    ShareStatus {
        state: State::Syncing,
        alarm: None,
        ..broken(record, "")
    }
}

/// The status of a folder that waits for its pairing.
fn waiting(pending: &Pending) -> ShareStatus {
    let record = ShareRecord {
        id: ShareId([0; 32]),
        path: pending.dir.clone(),
        role: Role::ReadWrite,
        paused: false,
        invitation: None,
        pairing: None,
        members: Vec::new(),
        tickets: Vec::new(),
    };
    ShareStatus {
        state: State::Offline,
        alarm: None,
        notices: vec![format!("waiting for {} to pair", pending.peer)],
        ..broken(&record, "")
    }
}
