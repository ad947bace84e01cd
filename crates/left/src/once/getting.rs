//! One connection to the sender: takes its list, fetches what is not here, puts it in place.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select, unbounded};
use left_core::content::{ContentId, WHOLE_MAX};
use left_core::entry::{FileStat, Kind, Node};
use left_core::index::Cursor;
use left_core::message::{Control, Progress, Start};
use left_core::path::RelPath;
use left_core::plan::{Expect, FetchError, FetchItem, Op, OpError, OpId, StageName};
use left_core::ticket::Ticket;

use super::listing::{InTheWay, Listing, Stands, look};
use super::receive::{Got, Receive};
use super::room::Room;
use super::{Event, Meter, Stop, shown};
use crate::daemon::adapt::{self, Closer};
use crate::daemon::limits::{Limited, Limits};
use crate::disk::apply;
use crate::home::{UserError, clean};
use crate::net::proof::TicketSecret;
use crate::net::{
    ControlSender, DialControl, DialData, DialError, Introduction, LaneEnd, LaneEvent, LaneInfo,
    Net,
};
use crate::transfer::Fetcher;

/// How often progress is told.
const TICK: Duration = Duration::from_millis(200);
/// Data lanes: whether each carries small contents only.
const LANES: [bool; 3] = [false, false, true];
/// A data lane that ended is dialed again after this.
const LANE_WAIT: Duration = Duration::from_millis(500);
/// Files that are fetched at the same time.
const MAX_FLIGHTS: usize = 2048;
/// Big files that are fetched before the list is complete.
const MAX_EARLY: usize = 16;
/// Operations of one batch.
const BATCH: usize = 512;
/// How often the sender is asked to look again at what has changed there.
const MAX_LOOKS: u32 = 3;
/// How long the sender may take to say good-bye.
const FAREWELL: Duration = Duration::from_secs(5);

/// What all connections need.
pub(super) struct Attempt<'a> {
    pub(super) net: &'a Net,
    pub(super) me: Introduction,
    pub(super) limits: Limits,
}

/// How a connection ended.
pub(super) enum Ended {
    /// All is in place.
    Done,
    Stopped,
    /// The sender said good-bye.
    Bye(String),
    Lost(String),
    /// There was none.
    NoDial(DialError),
}

/// What stays from one connection to the next.
pub(super) struct Getting<'a> {
    how: &'a Receive,
    ticket: Ticket,
    stop: &'a Stop,
    woken: Receiver<()>,
    listing: Listing,
    /// What is in place.
    done: HashSet<RelPath>,
    done_bytes: u64,
    already: u64,
    received: u64,
    link: Option<Link>,
    connected: bool,
}

/// The control lane.
struct Link {
    lane: ControlSender,
    info: LaneInfo,
    rx: Receiver<LaneEvent>,
}

impl<'a> Getting<'a> {
    pub(super) fn new(
        how: &'a Receive,
        ticket: Ticket,
        stop: &'a Stop,
        woken: Receiver<()>,
    ) -> Self {
        Self {
            how,
            ticket,
            stop,
            woken,
            listing: Listing::default(),
            done: HashSet::new(),
            done_bytes: 0,
            already: 0,
            received: 0,
            link: None,
            connected: false,
        }
    }

    /// Things that are in place.
    pub(super) fn landed(&self) -> usize {
        self.done.len()
    }

    /// Whether the last run had a connection.
    pub(super) fn was_connected(&self) -> bool {
        self.connected
    }

    /// Waits; whether it is to end.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        self.woken.recv_timeout(time).is_ok() || self.stop.is_stopped()
    }

    pub(super) fn got(&self, room: &Room) -> Got {
        Got {
            dir: room.dir.clone(),
            files: self.listing.files,
            bytes: self.listing.bytes,
            received: self.received,
            already: self.already,
            renamed: room.renamed().collect(),
        }
    }

    /// Tells the sender that all is here, and waits for it to have heard.
    pub(super) fn farewell(self) {
        let Some(link) = self.link else { return };
        let all = Progress {
            your_seq: self.listing.upto,
            ..Progress::default()
        };
        // It is lost, or it answers by closing.
        if link.lane.try_send(Control::Progress(all)).is_err() {
            return;
        }
        let end = Instant::now() + FAREWELL;
        while let Ok(event) = link.rx.recv_deadline(end) {
            if matches!(event, LaneEvent::Closed(_)) {
                return;
            }
        }
    }

    /// One connection, from dialing to its end.
    pub(super) fn run(
        &mut self,
        room: &mut Room,
        attempt: &Attempt<'_>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Ended, UserError> {
        self.connected = false;
        self.listing = Listing::default();
        let call = DialControl {
            share: self.ticket.share,
            peers: vec![self.ticket.inviter],
            addresses: self.ticket.addresses.clone(),
            me: attempt.me.clone(),
            ticket: Some(TicketSecret {
                id: self.ticket.id,
                secret: self.ticket.secret,
            }),
        };
        let lane = match attempt
            .net
            .runtime()
            .block_on(attempt.net.dial_control(call))
        {
            Ok(lane) => lane,
            Err(error) => return Ok(Ended::NoDial(error)),
        };
        self.connected = true;
        let info = lane.info.clone();
        tell(Event::Connected {
            device: info.peer,
            name: info.name.clone(),
            address: info.remote.to_string(),
        });
        let (tx, rx) = unbounded();
        let lane = lane.start(move |event| {
            // Bounded by the lane's credit; nobody listens when all has ended.
            let _ = tx.send(event);
        });
        let start = Start {
            epoch: 1,
            former: Vec::new(),
            head: 0,
            known: Cursor::default(),
            your_counter: 0,
        };
        // A fresh lane has room; one that is gone says so.
        let _ = lane.try_send(Control::Start(start));
        self.link = Some(Link { lane, info, rx });
        let mut work = Work::new(room, attempt, self)?;
        let ended = work.run(tell);
        let received = work.fetcher.stats().fetched.load(Ordering::Relaxed);
        drop(work);
        self.received += received;
        if let (Ok(Ended::Stopped) | Err(_), Some(link)) = (&ended, &self.link) {
            link.lane.close("the receiver was stopped");
            // So that the sender hears it.
            let end = Instant::now() + Duration::from_millis(500);
            while let Ok(event) = link.rx.recv_deadline(end) {
                if matches!(event, LaneEvent::Closed(_)) {
                    break;
                }
            }
        }
        ended
    }
}

/// Something that is being fetched, or has been and is not in place yet.
struct Flight {
    path: RelPath,
    node: Node,
}

type Results = Vec<(OpId, Result<StageName, FetchError>)>;

/// The work of one connection.
struct Work<'w, 'a> {
    get: &'w mut Getting<'a>,
    room: &'w mut Room,
    attempt: &'w Attempt<'w>,
    fetcher: Fetcher,
    fetched: Receiver<Results>,
    lanes_ended: Receiver<usize>,
    lane_ends: Sender<usize>,
    /// Data lanes to dial again, and when.
    redial: Vec<(usize, Instant)>,
    next_id: u64,
    /// The sender still reads so much, as it says; `None`: it has not said yet.
    sender: Option<Progress>,
    planned: bool,
    todo: VecDeque<RelPath>,
    flights: HashMap<OpId, Flight>,
    /// Paths of the flights, and of what is ready.
    under_way: HashSet<RelPath>,
    /// Staged, to be put in place when the list is complete.
    ready: Vec<(Flight, StageName)>,
    /// What is to be replaced.
    replace: HashMap<RelPath, Expect>,
    /// Where a content is in place.
    placed: HashMap<ContentId, RelPath>,
    /// What the sender does not have any more as it was listed.
    gone: HashSet<RelPath>,
    looks: u32,
    waits_for_look: bool,
    /// What could not be put in place.
    failed: Vec<String>,
    in_the_way: InTheWay,
    meter: Meter,
    listed: bool,
}

impl<'w, 'a> Work<'w, 'a> {
    fn new(
        room: &'w mut Room,
        attempt: &'w Attempt<'w>,
        get: &'w mut Getting<'a>,
    ) -> Result<Self, UserError> {
        let (out, fetched) = unbounded();
        let (lane_ends, lanes_ended) = unbounded();
        let fetcher = adapt::fetcher(&room.root, &room.stage, &room.manifests, out);
        let now = Instant::now();
        Ok(Self {
            get,
            room,
            attempt,
            fetcher,
            fetched,
            lanes_ended,
            lane_ends,
            redial: (0..LANES.len()).map(|n| (n, now)).collect(),
            next_id: 0,
            sender: None,
            planned: false,
            todo: VecDeque::new(),
            flights: HashMap::new(),
            under_way: HashSet::new(),
            ready: Vec::new(),
            replace: HashMap::new(),
            placed: HashMap::new(),
            gone: HashSet::new(),
            looks: 0,
            waits_for_look: false,
            failed: Vec::new(),
            in_the_way: InTheWay::default(),
            meter: Meter::default(),
            listed: false,
        })
    }

    fn run(&mut self, tell: &mut dyn FnMut(Event)) -> Result<Ended, UserError> {
        let Some(link) = &self.get.link else {
            return Ok(Ended::Lost("no connection".into()));
        };
        let (lane_rx, peer) = (link.rx.clone(), link.info.peer);
        self.fetcher.add_peer(peer);
        let (fetched, lanes_ended) = (self.fetched.clone(), self.lanes_ended.clone());
        let woken = self.get.woken.clone();
        let mut next_tick = Instant::now();
        loop {
            if self.get.stop.is_stopped() {
                return Ok(Ended::Stopped);
            }
            if let Some(ended) = self.dial_lanes() {
                return Ok(ended);
            }
            if self.go_on(tell)? {
                return Ok(Ended::Done);
            }
            let now = Instant::now();
            if now >= next_tick {
                next_tick = now + TICK;
                self.tell_progress(tell);
            }
            select! {
                recv(lane_rx) -> event => match event {
                    Ok(LaneEvent::Message(message)) => self.message(message.take())?,
                    Ok(LaneEvent::SendReady) => {}
                    Ok(LaneEvent::Closed(LaneEnd::Bye(why))) => return Ok(Ended::Bye(why)),
                    Ok(LaneEvent::Closed(end)) => return Ok(Ended::Lost(end.to_string())),
                    Err(_) => return Ok(Ended::Lost("the connection ended".into())),
                },
                recv(fetched) -> results => self.results(results.unwrap_or_default())?,
                recv(lanes_ended) -> lane => {
                    let at = Instant::now() + LANE_WAIT;
                    self.redial.extend(lane.ok().map(|lane| (lane, at)));
                }
                recv(woken) -> _ => {}
                default(next_tick.saturating_duration_since(now)) => {}
            }
        }
    }

    /// Dials the data lanes that are due; an end when that does not work.
    fn dial_lanes(&mut self) -> Option<Ended> {
        let now = Instant::now();
        let (due, later) = self.redial.iter().partition(|(_, at)| *at <= now);
        let due: Vec<(usize, Instant)> = due;
        self.redial = later;
        let link = self.get.link.as_ref()?;
        for (n, _) in due {
            let express = LANES[n];
            let dial = DialData {
                session: link.info.session,
                share: link.info.share,
                peer: link.info.peer,
                remote: link.info.remote,
                dialer_serves: false,
                express,
            };
            let net = self.attempt.net;
            let lane = match net.runtime().block_on(net.dial_data(dial)) {
                Ok(lane) => lane,
                Err(error) => return Some(Ended::Lost(error.to_string())),
            };
            let closer = Arc::new(Closer(lane.stream.shutdown_handle()));
            let stream = Watched {
                stream: Limited {
                    stream: lane.stream,
                    limits: self.attempt.limits.clone(),
                },
                lane: n,
                ended: self.lane_ends.clone(),
            };
            self.fetcher
                .add_lane(link.info.peer, Box::new(stream), closer, express);
        }
        None
    }

    fn send(&self, message: Control) {
        if let Some(link) = &self.get.link {
            // Full or gone: progress comes again, and a lost lane is told of.
            let _ = link.lane.try_send(message);
        }
    }

    fn message(&mut self, message: Control) -> Result<(), UserError> {
        match message {
            Control::Index(batch) => {
                let taken = self.get.listing.take(batch, self.get.how.dotfiles);
                let fresh =
                    taken.map_err(|why| UserError::new("cannot take what is sent", why, ""))?;
                self.planned = false;
                fresh.into_iter().for_each(|path| self.early(path));
            }
            Control::Progress(p) => self.sender = Some(p),
            Control::BarrierDone(_) => {
                self.waits_for_look = false;
                self.gone.clear();
                self.planned = false;
            }
            _ => {}
        }
        Ok(())
    }

    /// Begins with a big file before the list is complete, where nothing stands in its way. Small ones
    /// would be fetched again after an interruption.
    fn early(&mut self, path: RelPath) {
        let node = self.get.listing.nodes.get(&path);
        let Some(node) = node.filter(|n| n.size() > WHOLE_MAX).cloned() else {
            return;
        };
        let busy = self.flights.len() + self.ready.len() >= MAX_EARLY;
        if busy || self.get.done.contains(&path) || self.under_way.contains(&path) {
            return;
        }
        let target = self.room.target(&path);
        let free = target.is_some_and(|t| matches!(self.room.root.look(&t), Ok(None)));
        if free {
            self.fetch(path, node);
        }
    }

    fn fetch(&mut self, path: RelPath, node: Node) {
        let (Some(content), Some(link)) = (node.content(), &self.get.link) else {
            return;
        };
        let id = OpId(self.next_id);
        self.next_id += 1;
        let item = FetchItem {
            id,
            path: path.clone(),
            content,
            size: node.size(),
            copies: self.placed.get(&content).cloned().into_iter().collect(),
            base: None,
            peers: vec![link.info.peer],
        };
        self.under_way.insert(path.clone());
        self.flights.insert(id, Flight { path, node });
        self.fetcher.submit(vec![item]);
    }

    fn is_listed(&self) -> bool {
        let upto = self.get.listing.upto;
        self.sender.is_some_and(|s| !s.busy && s.head == upto)
    }

    /// Does what can be done now; whether all is in place.
    fn go_on(&mut self, tell: &mut dyn FnMut(Event)) -> Result<bool, UserError> {
        if !self.is_listed() {
            return Ok(false);
        }
        if !self.planned {
            if !std::mem::replace(&mut self.listed, true) {
                let (files, bytes) = (self.get.listing.files, self.get.listing.bytes);
                tell(Event::Listed { files, bytes });
            }
            self.plan(tell)?;
            self.planned = true;
        }
        self.place_ready()?;
        while self.flights.len() < MAX_FLIGHTS {
            let Some(path) = self.todo.pop_front() else {
                break;
            };
            if let Some(node) = self.get.listing.nodes.get(&path).cloned() {
                self.fetch(path, node);
            }
        }
        if !self.todo.is_empty() || !self.flights.is_empty() || self.waits_for_look {
            return Ok(false);
        }
        if !self.gone.is_empty() && self.looks < MAX_LOOKS {
            self.looks += 1;
            self.waits_for_look = true;
            self.send(Control::Barrier(u64::from(self.looks)));
            return Ok(false);
        }
        self.judge().map(|()| true)
    }

    /// Nothing more can be done: was it all?
    fn judge(&self) -> Result<(), UserError> {
        let what = "not everything is fetched";
        if !self.in_the_way.is_empty() {
            return Err(UserError::new(
                what,
                format!(
                    "meanwhile something else appeared here: {}",
                    self.in_the_way
                ),
                "run the same command again with --overwrite or --rename",
            ));
        }
        if let Some(first) = self.failed.first() {
            let why = match self.failed.len() - 1 {
                0 => first.clone(),
                more => format!("{first}; and {more} more"),
            };
            let todo = "mend that, then run the same command again";
            return Err(UserError::new(what, why, todo));
        }
        let mut changing = InTheWay::default();
        self.gone.iter().for_each(|path| changing.add(path, ""));
        match changing.is_empty() {
            true => Ok(()),
            false => Err(UserError::new(
                what,
                format!("at the sender these change all the time: {changing}"),
                "run the same command again when nobody writes to them",
            )),
        }
    }

    /// Decides for each path of the list what is to be done; makes folders and links.
    fn plan(&mut self, tell: &mut dyn FnMut(Event)) -> Result<(), UserError> {
        if self.get.how.rename {
            let tops = self.get.listing.tops();
            self.room.rename(&tops)?;
        }
        self.todo.clear();
        let mut way = InTheWay::default();
        let mut ops = Vec::new();
        let mut need = 0;
        for (path, node) in &self.get.listing.nodes {
            if self.get.stop.is_stopped() {
                return Ok(());
            }
            if self.get.done.contains(path) {
                continue;
            }
            let Some(target) = self.room.target(path) else {
                self.failed
                    .push(format!("{}: its name here would be too long", shown(path)));
                continue;
            };
            let stands = match look(&self.room.root, &target, node, self.get.stop) {
                Ok(stands) => stands,
                Err(why) => {
                    self.failed.push(why);
                    continue;
                }
            };
            match stands {
                Stands::Same(stat) => {
                    let op = self
                        .get
                        .how
                        .overwrite
                        .then(|| new_meta(&target, node, &stat))
                        .flatten();
                    if let Some(op) = op {
                        ops.push((path.clone(), op));
                        continue;
                    }
                    let counts = !matches!(node, Node::Dir { .. });
                    self.get.already += u64::from(counts);
                    self.get.done_bytes += node.size();
                    self.get.done.insert(path.clone());
                    continue;
                }
                Stands::Other(expect) if self.get.how.overwrite => {
                    self.replace.insert(path.clone(), expect);
                }
                Stands::Other(_) => way.add(&target, ""),
                Stands::Stuck(kind) => way.add(&target, &format!(" ({kind})")),
                Stands::Nothing => {}
            }
            if matches!(node, Node::File { .. }) {
                if !self.under_way.contains(path) {
                    need += node.size();
                    self.todo.push_back(path.clone());
                }
                continue;
            }
            let expect = self.replace.get(path).copied().unwrap_or(Expect::Absent);
            let op = Op::Place {
                path: target,
                node: node.clone(),
                staged: None,
                expect,
                loser: None,
            };
            ops.push((path.clone(), op));
        }
        self.refuse(&way)?;
        self.warn_of_space(need, tell);
        for batch in ops.chunks(BATCH) {
            self.apply(batch.to_vec())?;
        }
        Ok(())
    }

    fn refuse(&self, way: &InTheWay) -> Result<(), UserError> {
        if way.is_empty() {
            return Ok(());
        }
        let todo = match self.get.how.overwrite {
            true => "move that away first",
            false => {
                "nothing was changed; fetch to another folder, or say --rename to keep both, or --overwrite to replace"
            }
        };
        let what = format!("cannot fetch to {}", clean(&self.room.dir));
        let why = format!("something else stands there already: {way}");
        Err(UserError::new(what, why, todo))
    }

    /// Holes need no room, so this is no error.
    fn warn_of_space(&self, need: u64, tell: &mut dyn FnMut(Event)) {
        let free = self.room.stage.free_space().unwrap_or(u64::MAX);
        if need > free {
            let text = format!(
                "{need} bytes are to come, but the disk has room for {free}: unless there are large holes in the files, make room now"
            );
            tell(Event::Notice { text });
        }
    }

    fn results(&mut self, results: Results) -> Result<(), UserError> {
        for (id, result) in results {
            let Some(flight) = self.flights.remove(&id) else {
                continue;
            };
            match result {
                Ok(staged) => self.ready.push((flight, staged)),
                Err(error) => {
                    self.under_way.remove(&flight.path);
                    match error {
                        FetchError::Full => return Err(self.full()),
                        FetchError::Gone | FetchError::Corrupt(_) => {
                            self.gone.insert(flight.path);
                        }
                        FetchError::Cancelled => {}
                        FetchError::Io(why) => {
                            self.failed.push(format!("{}: {why}", shown(&flight.path)));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn full(&self) -> UserError {
        UserError::new(
            format!("cannot fetch to {}", clean(&self.room.dir)),
            "the disk is full",
            "make room and run the same command again: it goes on where it was",
        )
    }

    /// Puts in place what has come.
    fn place_ready(&mut self) -> Result<(), UserError> {
        while !self.ready.is_empty() {
            let rest = self.ready.split_off(self.ready.len().min(BATCH));
            let mut ops = Vec::new();
            for (flight, staged) in std::mem::replace(&mut self.ready, rest) {
                self.under_way.remove(&flight.path);
                // It is listed otherwise now: what has come stays in the stage, if it is of use.
                let listed = self.get.listing.nodes.get(&flight.path);
                let target = self.room.target(&flight.path);
                let (Some(target), true) = (target, listed == Some(&flight.node)) else {
                    if listed.is_some() {
                        self.todo.push_back(flight.path);
                    }
                    continue;
                };
                let expect = self
                    .replace
                    .get(&flight.path)
                    .copied()
                    .unwrap_or(Expect::Absent);
                let op = Op::Place {
                    path: target,
                    node: flight.node,
                    staged: Some(staged),
                    expect,
                    loser: None,
                };
                ops.push((flight.path, op));
            }
            self.apply(ops)?;
        }
        Ok(())
    }

    fn apply(&mut self, ops: Vec<(RelPath, Op)>) -> Result<(), UserError> {
        let (paths, ops): (Vec<RelPath>, Vec<Op>) = ops.into_iter().unzip();
        let ops: Vec<(OpId, Op)> = (0..).map(OpId).zip(ops).collect();
        let done = apply(&self.room.root, &self.room.stage, &self.room.history, &ops);
        for ((path, (_, op)), (_, result)) in paths.into_iter().zip(&ops).zip(done) {
            let (Op::Place { node, .. } | Op::SetMeta { node, .. }) = op else {
                continue;
            };
            match result {
                Ok(_) => self.landed(path, op.path(), node),
                Err(OpError::Full) => return Err(self.full()),
                Err(OpError::Unexpected | OpError::NotEmpty) => {
                    self.surprised(path, op.path(), node)
                }
                Err(OpError::NotStaged) => self.todo.push_back(path),
                Err(OpError::NoParent) => {
                    self.failed.push(format!(
                        "{}: its folder is gone, or is no folder",
                        shown(op.path())
                    ));
                }
                Err(OpError::Io(why)) => self.failed.push(why),
            }
        }
        Ok(())
    }

    fn landed(&mut self, path: RelPath, target: &RelPath, node: &Node) {
        if let Some(content) = node.content() {
            self.placed.insert(content, target.clone());
        }
        self.get.done_bytes += node.size();
        self.get.done.insert(path);
    }

    /// Something stands there that did not when it was looked at.
    fn surprised(&mut self, path: RelPath, target: &RelPath, node: &Node) {
        match look(&self.room.root, target, node, self.get.stop) {
            Ok(Stands::Same(_)) => self.landed(path, target, node),
            Ok(Stands::Nothing) => self.todo.push_back(path),
            Ok(_) => self.in_the_way.add(target, ""),
            Err(why) => self.failed.push(why),
        }
    }

    fn tell_progress(&mut self, tell: &mut dyn FnMut(Event)) {
        let Some(link) = &self.get.link else { return };
        let device = link.info.peer;
        let still_read = self.sender.map_or((0, 0), |s| (s.need_files, s.need_bytes));
        let total = self.get.listing.bytes.saturating_add(still_read.1);
        let big = self.fetcher.progress().big;
        let coming: u64 = big.iter().map(|b| b.done).sum();
        let ready: u64 = self.ready.iter().map(|(f, _)| f.node.size()).sum();
        let done = (self.get.done_bytes + coming + ready).min(total);
        let came = self.get.received + self.fetcher.stats().fetched.load(Ordering::Relaxed);
        let rate = self.meter.rate(Instant::now(), came);
        let left = total - done;
        let files = self
            .get
            .listing
            .nodes
            .len()
            .saturating_sub(self.get.done.len()) as u64;
        self.send(Control::Progress(Progress {
            your_seq: self.get.listing.upto,
            head: 0,
            busy: true,
            need_files: files.saturating_add(still_read.0),
            need_bytes: left,
        }));
        if total > 0 {
            let seconds_left = left.checked_div(rate);
            tell(Event::Progress {
                device,
                done,
                total,
                rate,
                seconds_left,
            });
        }
    }
}

/// What makes mode and time of a file with the right bytes those of the sender.
fn new_meta(target: &RelPath, node: &Node, stat: &FileStat) -> Option<Op> {
    let Node::File { mode, mtime, .. } = node else {
        return None;
    };
    (stat.mode != *mode || stat.mtime != *mtime).then(|| Op::SetMeta {
        path: target.clone(),
        node: node.clone(),
        expect: Expect::Present(Kind::File, *stat),
    })
}

/// A lane's stream that tells when it is given up.
struct Watched {
    stream: Limited,
    lane: usize,
    ended: Sender<usize>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Nobody listens when the connection is over.
        let _ = self.ended.send(self.lane);
    }
}

impl io::Read for Watched {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf)
    }
}

impl io::Write for Watched {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
