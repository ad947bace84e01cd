//! One fetching device, at the sender: it is told the list, and tells how far it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use left_core::index::Cursor;
use left_core::message::{Control, Progress, Start};
use left_core::version::DeviceId;

use super::door::Door;
use super::tree::{Told, Tree};
use super::{Event, Meter, shown};
use crate::daemon::limits::{Limited, Limits};
use crate::net::{ControlLane, ControlSender, DataLane, LaneEnd, LaneEvent, LaneInfo, SendError};
use crate::transfer::{ServeConfig, ServeStats, serve};

/// Progress of one device is told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What wakes the sender's main thread.
pub(super) enum Wake {
    Tell(Event),
    /// A device has everything, and has said so.
    Fetched(DeviceId),
    Stop,
}

/// What wakes one session.
pub(super) enum Msg {
    Lane(LaneEvent),
    /// The list may be longer.
    News,
    /// The look that was asked for is done.
    Looked(u64),
    /// The sender ends.
    Close(&'static str),
}

/// What all sessions share.
pub(super) struct Serving {
    pub(super) tree: Arc<Tree>,
    pub(super) door: Arc<Door>,
    pub(super) limits: Limits,
    pub(super) out: Sender<Wake>,
    pub(super) sessions: std::sync::Mutex<Vec<Sender<Msg>>>,
}

impl Serving {
    pub(super) fn new(
        tree: Arc<Tree>,
        door: Arc<Door>,
        limits: Limits,
        out: Sender<Wake>,
    ) -> Arc<Self> {
        Arc::new(Self {
            tree,
            door,
            limits,
            out,
            sessions: std::sync::Mutex::default(),
        })
    }

    fn tell(&self, event: Event) {
        // The main thread is gone when all ends.
        let _ = self.out.send(Wake::Tell(event));
    }

    /// Looks at what is sent, and tells the sessions what is new.
    pub(super) fn look(&self) {
        self.tree.look(&|told| match told {
            Told::News => super::lock(&self.sessions).retain(|s| s.send(Msg::News).is_ok()),
            Told::Skipped(path, why) => self.tell(Event::Skipped {
                path: shown(&path),
                why,
            }),
        });
    }

    pub(super) fn close(&self, why: &'static str) {
        for session in super::lock(&self.sessions).drain(..) {
            let _ = session.send(Msg::Close(why));
        }
    }

    /// Serves a data lane on a thread of its own until it ends.
    pub(super) fn data(self: &Arc<Self>, lane: DataLane) {
        let this = self.clone();
        let thread = std::thread::Builder::new().name("left-serve".into());
        let spawned = thread.spawn(move || {
            let session = lane.session;
            if lane.we_serve {
                let stream = Limited::new(lane.stream, this.limits.clone(), || {});
                let stats = ServeStats::default();
                let config = ServeConfig { zstd: lane.zstd };
                let end = serve(Box::new(stream), this.tree.clone(), config, &stats);
                if let Err(error) = end {
                    tracing::debug!("a data lane ended: {error}");
                }
            }
            this.door.lane_ended(session);
        });
        if let Err(error) = spawned {
            tracing::error!("cannot serve a lane: {error}");
        }
    }

    /// Runs a session on a thread of its own until the lane ends.
    pub(super) fn control(self: &Arc<Self>, lane: ControlLane) {
        let this = self.clone();
        let thread = std::thread::Builder::new().name("left-session".into());
        let spawned = thread.spawn(move || {
            let info = lane.info.clone();
            Session::open(&this, lane).run();
            this.door.forget(info.session);
        });
        if let Err(error) = spawned {
            tracing::error!("cannot serve a device: {error}");
        }
    }
}

struct Session {
    all: Arc<Serving>,
    info: LaneInfo,
    lane: ControlSender,
    tx: Sender<Msg>,
    rx: Receiver<Msg>,
    /// Items told.
    told: u64,
    said: Option<Progress>,
    /// A message that had no room.
    unsent: Option<Control>,
    started: bool,
    /// A look is under way: one at a time.
    looks: bool,
    /// One that is done and not yet answered.
    looked: Option<u64>,
    /// When progress was last told.
    told_at: Option<Instant>,
    meter: Meter,
    finished: bool,
}

impl Session {
    fn open(all: &Arc<Serving>, lane: ControlLane) -> Self {
        let (tx, rx) = unbounded();
        super::lock(&all.sessions).push(tx.clone());
        let info = lane.info.clone();
        let events = tx.clone();
        let lane = lane.start(move |event| {
            // Bounded by the lane's credit. The session is gone when it has closed the lane.
            let _ = events.send(Msg::Lane(event));
        });
        all.tell(Event::Connected {
            device: info.peer,
            name: info.name.clone(),
            address: info.remote.to_string(),
        });
        Self {
            all: all.clone(),
            info,
            lane,
            tx,
            rx,
            told: 0,
            said: None,
            unsent: None,
            started: false,
            looks: false,
            looked: None,
            told_at: None,
            meter: Meter::default(),
            finished: false,
        }
    }

    fn run(mut self) {
        let start = Start {
            epoch: 1,
            former: Vec::new(),
            head: self.all.tree.progress().head,
            known: Cursor::default(),
            your_counter: 0,
        };
        self.unsent = Some(Control::Start(start));
        loop {
            self.pump();
            let Ok(msg) = self.rx.recv() else { return };
            match msg {
                Msg::News => {}
                Msg::Looked(token) => {
                    self.looks = false;
                    self.looked = Some(token);
                }
                Msg::Close(why) => {
                    self.lane.close(why);
                    // Queued; what is told after that nobody wants to know.
                    self.finished = true;
                }
                Msg::Lane(LaneEvent::SendReady) => {}
                Msg::Lane(LaneEvent::Message(message)) => self.message(message.take()),
                Msg::Lane(LaneEvent::Closed(end)) => return self.ended(&end),
            }
        }
    }

    fn ended(&self, end: &LaneEnd) {
        if self.finished {
            return;
        }
        self.all.tell(Event::Lost {
            device: self.info.peer,
            name: self.info.name.clone(),
            why: end.to_string(),
        });
    }

    fn message(&mut self, message: Control) {
        match message {
            Control::Start(_) if !self.started => self.started = true,
            Control::Progress(p) if self.started => self.progress(&p),
            Control::Barrier(token) if self.started => self.look(token),
            Control::Start(_) | Control::Index(_) => self.lane.close("unexpected message"),
            _ => {}
        }
    }

    fn progress(&mut self, p: &Progress) {
        if self.finished {
            return;
        }
        let mine = self.all.tree.progress();
        let all_told = !mine.busy && p.your_seq == mine.head;
        if all_told && !p.busy && p.need_files == 0 {
            self.finished = true;
            self.lane.close("all is there");
            self.all.tell(Event::Fetched {
                device: self.info.peer,
                name: self.info.name.clone(),
                address: self.info.remote.to_string(),
            });
            let _ = self.all.out.send(Wake::Fetched(self.info.peer));
            return;
        }
        // It knows nothing of the list yet, so not what it needs either.
        if p.your_seq == 0 && mine.head > 0 {
            return;
        }
        let now = Instant::now();
        if self
            .told_at
            .is_some_and(|at| now.duration_since(at) < TELL_EVERY)
        {
            return;
        }
        self.told_at = Some(now);
        let total = self.all.tree.size().1 + mine.need_bytes;
        let done = total.saturating_sub(p.need_bytes);
        let rate = self.meter.rate(now, done);
        self.all.tell(Event::Progress {
            device: self.info.peer,
            done,
            total,
            rate,
            seconds_left: p.need_bytes.checked_div(rate),
        });
    }

    /// Looks again at what is sent: something that was listed is no more as it was.
    fn look(&mut self, token: u64) {
        if std::mem::replace(&mut self.looks, true) {
            return;
        }
        let (all, tx) = (self.all.clone(), self.tx.clone());
        let thread = std::thread::Builder::new().name("left-look".into());
        let spawned = thread.spawn(move || {
            all.look();
            // So that nobody can have it look without a pause.
            std::thread::sleep(Duration::from_millis(100));
            let _ = tx.send(Msg::Looked(token));
        });
        if let Err(error) = spawned {
            tracing::error!("cannot look again: {error}");
            self.lane.close("the sender has no more threads");
        }
    }

    /// Sends what there is to send, as far as there is room.
    fn pump(&mut self) {
        if self.finished {
            return;
        }
        loop {
            let Some(message) = self.unsent.take().or_else(|| self.next()) else {
                return;
            };
            match self.lane.try_send(message) {
                Ok(()) => {}
                Err(SendError::Full(message)) => {
                    self.unsent = Some(message);
                    return;
                }
                Err(SendError::Closed) => return,
                Err(error @ SendError::TooLong(_)) => {
                    tracing::error!("{error}");
                    self.lane.close("a message was too long");
                    return;
                }
            }
        }
    }

    fn next(&mut self) -> Option<Control> {
        if !self.started {
            return None;
        }
        if let Some(batch) = self.all.tree.batch(self.told, self.all.door.ticket.inviter) {
            self.told = batch.upto;
            return Some(Control::Index(batch));
        }
        let progress = self.all.tree.progress();
        if progress.head == self.told && self.said != Some(progress) {
            self.said = Some(progress);
            return Some(Control::Progress(progress));
        }
        self.looked.take().map(Control::BarrierDone)
    }
}
