//! One share's connections: which control lanes are up, whom to dial and when, the data lanes.

mod lanes;
mod roam;
mod spread;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use left_core::message::{Control, Nonce, Offer, Parts, Role, ShareId};
use left_core::ticket::Ticket;
use left_core::version::DeviceId;
use tokio::task::AbortHandle;

use super::ask::Msg;
use super::gate::Door;
use super::members::Members;
use crate::net::proof::TicketSecret;
use crate::net::settle::{Keep, keep};
use crate::net::{ControlLane, ControlSender, DataLane, DialControl, LaneInfo, Net, SendError};

/// First waiting after a failed dial; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Longest waiting while a peer was seen not long ago.
const NEAR_WAIT: Duration = Duration::from_secs(3);
/// Longest waiting for a peer not seen for long.
const FAR_WAIT: Duration = Duration::from_secs(60);
/// Where more peers than these are missing, each is tried less often, so that all of them together cost
/// no more: who comes back dials too.
const NEAR_MANY: usize = 30;
const FAR_MANY: usize = 250;
/// Failures after which a peer counts as not seen for long.
const FAR_AFTER: u32 = 40;
/// A lane that ends so soon was no success: the next dial waits as after a failed one.
const SHORT_LANE: Duration = Duration::from_secs(2);

/// A control lane that is up, with its data lanes.
pub(super) struct Link {
    pub(super) info: LaneInfo,
    pub(super) role: Role,
    sender: ControlSender,
    since: Instant,
    doubted: Option<Instant>,
    /// How many statements of the membership list it was told.
    pub(super) roll_told: Option<usize>,
    /// What the lane had no room for.
    unsent: VecDeque<Control>,
    lanes: lanes::Lanes,
    /// For rates: bytes at the last look and when that was.
    last: (u64, u64, Instant),
    pub(super) rates: (u64, u64),
}

impl Link {
    /// Bytes received and sent on data lanes.
    fn bytes(&self) -> (u64, u64) {
        self.lanes.bytes()
    }

    /// Takes the rates since the last look, when that is not too near.
    pub(super) fn look_at_rates(&mut self, now: Instant) {
        let (input, output) = self.bytes();
        let (old_in, old_out, at) = self.last;
        let ms = now.duration_since(at).as_millis() as u64;
        if ms >= 500 {
            let rate = |new: u64, old: u64| new.saturating_sub(old) * 1000 / ms;
            self.rates = (rate(input, old_in), rate(output, old_out));
            self.last = (input, output, now);
        }
    }
}

#[derive(Default)]
struct Dial {
    under_way: Option<AbortHandle>,
    /// When a sighting last had it dialed at once.
    hurried: Option<Instant>,
    /// When a dial was last given up for a sighting.
    given_up: Option<Instant>,
    failures: u32,
    not_before: Option<Instant>,
    last_error: Option<String>,
}

/// See the module's text.
pub(super) struct Links {
    share: ShareId,
    door: Arc<Door>,
    net: Option<Arc<Net>>,
    tx: Sender<Msg>,
    up: HashMap<DeviceId, Link>,
    dials: HashMap<DeviceId, Dial>,
    early: Vec<DataLane>,
    lane_serial: u64,
    /// Bytes received and sent over lanes that are no more.
    past: HashMap<DeviceId, (u64, u64)>,
}

/// What a new control lane changed.
pub(super) enum Settled {
    /// The lane is up; it replaced one that was up before if `replaced`.
    Up { peer: DeviceId, replaced: bool },
    /// The lane was not needed.
    Dropped,
}

impl Links {
    pub(super) fn new(
        share: ShareId,
        door: Arc<Door>,
        net: Option<Arc<Net>>,
        tx: Sender<Msg>,
    ) -> Self {
        Self {
            share,
            door,
            net,
            tx,
            up: HashMap::new(),
            dials: HashMap::new(),
            early: Vec::new(),
            lane_serial: 0,
            past: HashMap::new(),
        }
    }

    pub(super) fn link(&self, peer: DeviceId) -> Option<&Link> {
        self.up.get(&peer)
    }

    /// Bytes received from and sent to a device on data lanes since the start.
    pub(super) fn bytes(&self, peer: DeviceId) -> (u64, u64) {
        let past = self.past.get(&peer).copied().unwrap_or_default();
        let now = self.up.get(&peer).map(Link::bytes).unwrap_or_default();
        (past.0 + now.0, past.1 + now.1)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&DeviceId, &mut Link)> {
        self.up.iter_mut()
    }

    pub(super) fn peers(&self) -> Vec<DeviceId> {
        self.up.keys().copied().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.up.is_empty()
    }

    /// Dials every member that is due; returns when to look again.
    pub(super) fn dial(&mut self, members: &Members, now: Instant) -> Option<Instant> {
        let net = self.net.clone()?;
        let record = members.record();
        if members.removed_by().is_some() || record.paused {
            return None;
        }
        let ticket = record
            .invitation
            .as_deref()
            .and_then(|t| Ticket::parse(t).ok());
        let mut next: Option<Instant> = None;
        for member in members.fellows().iter() {
            if member.paused || self.up.contains_key(&member.device) {
                continue;
            }
            let seen = || self.door.sightings.of(member.device, now);
            if member.addresses.is_empty() && seen().is_empty() {
                continue;
            }
            let dial = self.dials.entry(member.device).or_default();
            if dial.under_way.is_some() {
                continue;
            }
            if let Some(at) = dial.not_before.filter(|at| *at > now) {
                next = Some(next.map_or(at, |n| n.min(at)));
                continue;
            }
            let secret = ticket
                .as_ref()
                .filter(|t| t.inviter == member.device)
                .map(|t| TicketSecret {
                    id: t.id,
                    secret: t.secret,
                });
            let call = DialControl {
                share: self.share,
                peers: vec![member.device],
                addresses: seen()
                    .iter()
                    .map(ToString::to_string)
                    .chain(member.addresses.iter().cloned())
                    .collect(),
                me: self.door.introduction(),
                ticket: secret,
            };
            let (tx, peer, net) = (self.tx.clone(), member.device, net.clone());
            let task = net.runtime().clone().spawn(async move {
                let result = net.dial_control(call).await;
                // The owner is gone when the share was stopped meanwhile.
                let _ = tx.send(Msg::Dialed { peer, result });
            });
            dial.under_way = Some(task.abort_handle());
        }
        next
    }

    /// A dial failed: try again later. Returns when.
    pub(super) fn dial_failed(&mut self, peer: DeviceId, why: String) -> Instant {
        let missing = self.dials.len().saturating_sub(self.up.len());
        let share = |many: usize| u32::try_from(missing / many).unwrap_or(u32::MAX).max(1);
        let dial = self.dials.entry(peer).or_default();
        dial.under_way = None;
        let cap = if dial.failures < FAR_AFTER {
            NEAR_WAIT.saturating_mul(share(NEAR_MANY))
        } else {
            FAR_WAIT.saturating_mul(share(FAR_MANY))
        };
        let wait = FIRST_WAIT
            .saturating_mul(1 << dial.failures.min(20))
            .min(cap);
        dial.failures = dial.failures.saturating_add(1);
        if dial.failures.is_power_of_two() {
            // Perhaps it is somewhere else now.
            self.door.sightings.ask();
        }
        let at = Instant::now() + wait;
        dial.not_before = Some(at);
        if dial.last_error.as_deref() != Some(why.as_str()) {
            tracing::info!(peer = %peer.short(), "not reached: {why}");
            dial.last_error = Some(why);
        }
        at
    }

    /// A control lane was opened, by either end.
    pub(super) fn add(&mut self, lane: ControlLane, role: Role) -> Settled {
        let peer = lane.info.peer;
        if lane.info.dialed_by_us {
            self.dials.entry(peer).or_default().under_way = None;
        }
        let replaced = match self.up.get(&peer) {
            None => false,
            Some(old) => match keep(
                &old.info.facts(),
                &lane.info.facts(),
                self.door.device,
                peer,
            ) {
                Keep::Existing => {
                    // Its other end dials only when it has no lane: is this one still one?
                    old.sender.probe();
                    self.door.forget_session(lane.info.session);
                    lane.close("another connection between the two is kept");
                    return Settled::Dropped;
                }
                Keep::New => {
                    self.remove(peer, "another connection between the two is kept");
                    true
                }
            },
        };
        self.dials.insert(peer, Dial::default());
        let info = lane.info.clone();
        let round_trip = info.round_trip;
        let (tx, session) = (self.tx.clone(), info.session);
        let sender = lane.start(move |event| {
            let _ = tx.send(Msg::Lane {
                peer,
                session,
                event,
            });
        });
        if info.dialed_by_us {
            self.dial_all_data(&info);
        }
        self.up.insert(
            peer,
            Link {
                info,
                role,
                sender,
                since: Instant::now(),
                doubted: None,
                roll_told: None,
                unsent: VecDeque::new(),
                lanes: lanes::Lanes::new(round_trip, Instant::now()),
                last: (0, 0, Instant::now()),
                rates: (0, 0),
            },
        );
        Settled::Up { peer, replaced }
    }

    /// A control lane that is not to be: its device is no member (any more).
    pub(super) fn refuse(&mut self, lane: ControlLane) {
        let session = lane.info.session;
        self.door.forget_session(session);
        self.early.retain(|data| data.session != session);
        self.dials.remove(&lane.info.peer);
        lane.close("not admitted");
    }

    /// Tells a peer what it was not told yet of the membership list; all of it once.
    pub(super) fn tell_roll(&mut self, peer: DeviceId, members: &Members) {
        let Some(told) = self.up.get(&peer).map(|l| l.roll_told) else {
            return;
        };
        let (parts, len) = members.roll_parts(told.unwrap_or(0));
        if told == Some(len) || parts.is_empty() {
            return;
        }
        for part in parts {
            self.send(peer, Control::Roll(part));
        }
        if let Some(link) = self.up.get_mut(&peer) {
            link.roll_told = Some(len);
        }
    }

    /// A control lane ended by itself. Whether it was the one that is up.
    pub(super) fn ended(&mut self, peer: DeviceId, session: Nonce) -> bool {
        self.door.forget_session(session);
        let Some(link) = self.up.get(&peer).filter(|l| l.info.session == session) else {
            return false;
        };
        let short = link.info.dialed_by_us && link.since.elapsed() < SHORT_LANE;
        self.remove(peer, "the control lane is gone");
        if short {
            self.dial_failed(peer, "the connection did not last".into());
        }
        true
    }

    /// Closes a peer's lanes.
    pub(super) fn remove(&mut self, peer: DeviceId, why: &str) -> bool {
        let Some(link) = self.up.remove(&peer) else {
            return false;
        };
        let (input, output) = link.bytes();
        let past = self.past.entry(peer).or_default();
        *past = (past.0 + input, past.1 + output);
        link.sender.close(why);
        link.lanes.close();
        self.early.retain(|lane| lane.session != link.info.session);
        self.door.forget_session(link.info.session);
        true
    }

    /// Sends, or keeps for when there is room. Returns how many Index messages went out.
    pub(super) fn send(&mut self, peer: DeviceId, message: Control) -> usize {
        let Some(link) = self.up.get_mut(&peer) else {
            return 0;
        };
        link.unsent.push_back(message);
        Self::flush(link)
    }

    /// Offers what is still being read, unless other messages wait for that lane already: then it
    /// would come late.
    pub(super) fn offer(&mut self, peer: DeviceId, offer: &Offer) {
        if self.up.get(&peer).is_some_and(|l| l.unsent.is_empty()) {
            self.send(peer, Control::Offer(offer.clone()));
        }
    }

    /// Tells a peer what is here of a content that it fetches too. Gives it back when too much waits
    /// for its lane already.
    pub(super) fn tell_parts(&mut self, peer: DeviceId, parts: Parts) -> Result<(), Parts> {
        /// Messages that may wait before these.
        const MOST: usize = 64;
        let Some(link) = self.up.get(&peer).filter(|l| l.info.parts) else {
            return Ok(());
        };
        if link.unsent.len() >= MOST {
            return Err(parts);
        }
        self.send(peer, Control::Parts(parts));
        Ok(())
    }

    /// The lane has room again. Returns how many Index messages went out.
    pub(super) fn send_ready(&mut self, peer: DeviceId) -> usize {
        self.up.get_mut(&peer).map_or(0, Self::flush)
    }

    fn flush(link: &mut Link) -> usize {
        let mut sent = 0;
        while let Some(message) = link.unsent.pop_front() {
            let is_index = matches!(message, Control::Index(_));
            match link.sender.try_send(message) {
                Ok(()) => sent += usize::from(is_index),
                Err(SendError::Full(message)) => {
                    link.unsent.push_front(message);
                    break;
                }
                // Its end is reported by the lane itself.
                Err(SendError::Closed) => link.unsent.clear(),
                Err(error) => tracing::error!("cannot send: {error}"),
            }
        }
        sent
    }
}
