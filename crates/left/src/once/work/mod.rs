//! The work on one connection: takes the list, has fetched what is not here.

mod placing;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select, unbounded};
use left_core::content::{ContentId, WHOLE_MAX};
use left_core::entry::Node;
use left_core::message::{Control, Progress};
use left_core::path::RelPath;
use left_core::plan::{Expect, FetchError, FetchItem, OpId, StageName};

use super::getting::{Attempt, Ended, Getting};
use super::listing::InTheWay;
use super::room::Room;
use super::{Event, Meter, shown};
use crate::daemon::adapt::{self, Closer};
use crate::daemon::limits::Limited;
use crate::home::{UserError, clean};
use crate::net::{DialData, LaneEnd, LaneEvent};
use crate::transfer::Fetcher;
use placing::BATCH;

/// How often progress is told.
const TICK: Duration = Duration::from_millis(200);
/// Data lanes: whether each carries small contents only.
const LANES: [bool; 3] = [false, false, true];
/// A data lane that ended is dialed again after this.
const LANE_WAIT: Duration = Duration::from_millis(500);
/// Files that are fetched at the same time.
const MAX_FLIGHTS: usize = 2048;
/// What has come waits at most so long for more, to be put in place with it: an fsync a folder, not a file.
const GATHER: Duration = Duration::from_millis(25);
/// Big files that are fetched before the list is complete.
const MAX_EARLY: usize = 16;
/// How often the sender is asked to look again at what has changed there.
const MAX_LOOKS: u32 = 3;
/// How long that may take, with reading what is new.
const LOOK_LIMIT: Duration = Duration::from_secs(600);

/// Something that is being fetched, or has been and is not in place yet.
struct Flight {
    path: RelPath,
    node: Node,
}

type Results = Vec<(OpId, Result<StageName, FetchError>)>;

/// The work of one connection.
pub(super) struct Work<'w, 'a> {
    get: &'w mut Getting<'a>,
    room: &'w mut Room,
    attempt: &'w Attempt<'w>,
    pub(super) fetcher: Fetcher,
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
    /// Since when the first of them waits.
    ready_since: Option<Instant>,
    /// What is to be replaced.
    replace: HashMap<RelPath, Expect>,
    /// Where a content is in place.
    placed: HashMap<ContentId, RelPath>,
    /// What the sender does not have any more as it was listed.
    gone: HashSet<RelPath>,
    looks: u32,
    repeats: u32,
    /// Since when the sender looks again.
    waits_for_look: Option<Instant>,
    /// What could not be put in place.
    failed: Vec<String>,
    in_the_way: InTheWay,
    meter: Meter,
    listed: bool,
}

impl<'w, 'a> Work<'w, 'a> {
    pub(super) fn new(
        room: &'w mut Room,
        attempt: &'w Attempt<'w>,
        get: &'w mut Getting<'a>,
    ) -> Result<Self, UserError> {
        let (out, fetched) = unbounded();
        let (lane_ends, lanes_ended) = unbounded();
        let fetcher = adapt::fetcher(&room.root, &room.stage, None, &room.manifests, out);
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
            ready_since: None,
            replace: HashMap::new(),
            placed: HashMap::new(),
            gone: HashSet::new(),
            looks: 0,
            repeats: 0,
            waits_for_look: None,
            failed: Vec::new(),
            in_the_way: InTheWay::default(),
            meter: Meter::default(),
            listed: false,
        })
    }

    pub(super) fn run(&mut self, tell: &mut dyn FnMut(Event)) -> Result<Ended, UserError> {
        let Some(link) = &self.get.link else {
            return Ok(Ended::Lost("no connection".into()));
        };
        let (lane_rx, peer) = (link.rx.clone(), link.info.peer);
        self.fetcher.add_peer(peer, false);
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
            if self
                .waits_for_look
                .is_some_and(|since| now.duration_since(since) > LOOK_LIMIT)
            {
                return Ok(Ended::Lost("the sender does not answer".into()));
            }
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
                recv(fetched) -> results => {
                    let mut results = results.unwrap_or_default();
                    results.extend(fetched.try_iter().flatten());
                    self.results(results)?;
                }
                recv(lanes_ended) -> lane => {
                    let at = Instant::now() + LANE_WAIT;
                    self.redial.extend(lane.ok().map(|lane| (lane, at)));
                }
                recv(woken) -> _ => {}
                default(self.next_look(next_tick).saturating_duration_since(now)) => {}
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
            self.fetcher.round_trip(link.info.peer, lane.round_trip);
            let ended = self.lane_ends.clone();
            let stream = Limited::new(lane.stream, self.attempt.limits.clone(), move || {
                // Nobody listens when the connection is over.
                let _ = ended.send(n);
            });
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
                let fresh = taken.map_err(|text| {
                    let (why, todo) = text.split_once("; ").unwrap_or((&text, "ask the sender"));
                    UserError::new("cannot take what is sent", why, todo)
                })?;
                self.planned = false;
                fresh.into_iter().for_each(|path| self.early(path));
            }
            Control::Progress(p) => self.sender = Some(p),
            Control::BarrierDone(_) => {
                self.waits_for_look = None;
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
            let item = self.begin(path, node);
            self.fetcher.submit(item.into_iter().collect());
        }
    }

    /// Notes that something is fetched from now on.
    fn begin(&mut self, path: RelPath, node: Node) -> Option<FetchItem> {
        let (content, link) = (node.content()?, self.get.link.as_ref()?);
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
        Some(item)
    }

    /// Fetches as much of what is to do as may be under way.
    fn fetch(&mut self) {
        let mut items = Vec::new();
        while self.flights.len() < MAX_FLIGHTS {
            let Some(path) = self.todo.pop_front() else {
                break;
            };
            if let Some(node) = self.get.listing.nodes.get(&path).cloned() {
                items.extend(self.begin(path, node));
            }
        }
        if !items.is_empty() {
            self.fetcher.submit(items);
        }
    }

    /// When there is something to do though nothing comes.
    fn next_look(&self, next_tick: Instant) -> Instant {
        match self.ready_since {
            Some(at) if self.planned && self.is_listed() => next_tick.min(at + GATHER),
            _ => next_tick,
        }
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
        let waited = self.ready_since.map_or(Duration::ZERO, |at| at.elapsed());
        if is_due(self.ready.len(), self.flights.len(), waited) {
            self.place_ready()?;
        }
        self.fetch();
        let under_way = !self.todo.is_empty() || !self.flights.is_empty() || !self.ready.is_empty();
        if under_way || !self.planned || self.waits_for_look.is_some() {
            return Ok(false);
        }
        if !self.gone.is_empty() && self.looks < MAX_LOOKS {
            self.looks += 1;
            self.waits_for_look = Some(Instant::now());
            self.send(Control::Barrier(u64::from(self.looks)));
            return Ok(false);
        }
        self.judge().map(|()| true)
    }

    fn results(&mut self, results: Results) -> Result<(), UserError> {
        for (id, result) in results {
            let Some(flight) = self.flights.remove(&id) else {
                continue;
            };
            match result {
                Ok(staged) => {
                    self.ready.push((flight, staged));
                    self.ready_since.get_or_insert_with(Instant::now);
                }
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

    fn tell_progress(&mut self, tell: &mut dyn FnMut(Event)) {
        // Before the sender has said anything, nothing is known.
        let (Some(link), Some(sender)) = (&self.get.link, self.sender) else {
            return;
        };
        let device = link.info.peer;
        let still_read = (sender.need_files, sender.need_bytes);
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

/// Whether what is ready is put in place now: it is a batch, nothing else comes, or it waited enough.
fn is_due(ready: usize, under_way: usize, waited: Duration) -> bool {
    ready >= BATCH || under_way == 0 || waited >= GATHER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_put_in_place_in_batches() {
        // One of many waits for the others, as an fsync of the folder for each takes minutes for all.
        assert!(!is_due(1, 2047, Duration::ZERO));
        assert!(!is_due(BATCH - 1, 1, GATHER / 2));
        assert!(is_due(BATCH, 1, Duration::ZERO));
        assert!(is_due(1, 0, Duration::ZERO), "the last ones");
        assert!(is_due(1, 1, GATHER), "a slow link");
    }
}
