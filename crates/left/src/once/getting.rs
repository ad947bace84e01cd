//! What stays from one connection to the sender to the next, and how one begins and ends.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use left_core::index::Cursor;
use left_core::message::{Control, Progress, Start};
use left_core::path::RelPath;
use left_core::ticket::Ticket;

use super::listing::Listing;
use super::receive::{Got, Receive};
use super::room::Room;
use super::work::Work;
use super::{Event, Stop};
use crate::daemon::limits::Limits;
use crate::home::UserError;
use crate::net::proof::TicketSecret;
use crate::net::{ControlSender, DialControl, DialError, Introduction, LaneEvent, LaneInfo, Net};

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
    pub(super) how: &'a Receive,
    pub(super) ticket: Ticket,
    pub(super) stop: &'a Stop,
    pub(super) woken: Receiver<()>,
    pub(super) listing: Listing,
    /// What is in place.
    pub(super) done: HashSet<RelPath>,
    pub(super) done_bytes: u64,
    pub(super) already: u64,
    pub(super) received: u64,
    pub(super) link: Option<Link>,
    pub(super) connected: bool,
}

/// The control lane.
pub(super) struct Link {
    pub(super) lane: ControlSender,
    pub(super) info: LaneInfo,
    pub(super) rx: Receiver<LaneEvent>,
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

    /// Grows with what has been reached: things in place, bytes that came.
    pub(super) fn luck(&self) -> (usize, u64) {
        (self.done.len(), self.received)
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
