//! The data lanes of each control lane: dialing them, more of them over a long link, counting them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use left_core::message::Nonce;

use super::super::ask::{LaneKind, Msg};
use super::spread::{EXTRA, EXTRA_IN_ALL, LOOK, Spread};
use super::{Link, Links};
use crate::net::{Counters, DataLane, DialData, LaneInfo, ShutdownHandle};

/// A data lane that ended is dialed again after this.
const DATA_WAIT: Duration = Duration::from_millis(500);
/// Data lanes that came before their control lane was taken in.
const MAX_EARLY: usize = 16;
/// Data lanes of one control lane. Whoever dials them decides how many it needs; more are closed.
const MAX_LANES: usize = 32;

/// The data lanes of one control lane.
pub(super) struct Lanes {
    all: Vec<Lane>,
    /// Bytes received and sent on those that ended.
    ended: (u64, u64),
    spread: Spread,
    /// More lanes than the usual ones, by whether we serve, that are being dialed.
    dialing: [usize; 2],
    /// Somebody looks again.
    looked_at: bool,
    /// The peer opened more than it may, which the log says once.
    crowded: bool,
}

struct Lane {
    id: u64,
    kind: LaneKind,
    closer: ShutdownHandle,
    counters: Arc<Counters>,
}

impl Lanes {
    pub(super) fn new(round_trip: Duration, now: Instant) -> Self {
        Self {
            all: Vec::new(),
            ended: (0, 0),
            spread: Spread::new(round_trip, now),
            dialing: [0; 2],
            looked_at: false,
            crowded: false,
        }
    }

    /// Bytes received and sent.
    pub(super) fn bytes(&self) -> (u64, u64) {
        self.all.iter().fold(self.ended, |(i, o), lane| {
            let (input, output) = bytes(&lane.counters);
            (i + input, o + output)
        })
    }

    pub(super) fn close(&self) {
        self.all.iter().for_each(|lane| lane.closer.shutdown());
    }

    /// More than the usual ones.
    fn extra(&self) -> impl Iterator<Item = &Lane> {
        self.all.iter().filter(|lane| lane.kind.extra)
    }
}

fn bytes(counters: &Counters) -> (u64, u64) {
    (
        counters.received.load(Ordering::Relaxed),
        counters.sent.load(Ordering::Relaxed),
    )
}

impl Links {
    /// The end that dialed the control lane dials the data lanes too, for both directions.
    pub(super) fn dial_all_data(&self, info: &LaneInfo) {
        for we_serve in [false, true] {
            for express in [false, true] {
                let extra = false;
                self.dial_data(
                    info,
                    LaneKind {
                        we_serve,
                        express,
                        extra,
                    },
                );
            }
        }
    }

    fn dial_data(&self, info: &LaneInfo, lane: LaneKind) {
        let Some(net) = self.net.clone() else { return };
        let call = DialData {
            session: info.session,
            share: self.share,
            peer: info.peer,
            remote: info.remote,
            dialer_serves: lane.we_serve,
            express: lane.express,
        };
        let (tx, session) = (self.tx.clone(), info.session);
        net.runtime().clone().spawn(async move {
            let result = net.dial_data(call).await;
            let _ = tx.send(Msg::DialedData {
                session,
                lane,
                result,
            });
        });
    }

    /// After a while the owner hears this.
    fn remind(&self, after: Duration, of: Msg) {
        let Some(net) = &self.net else { return };
        let tx = self.tx.clone();
        net.runtime().spawn(async move {
            tokio::time::sleep(after).await;
            let _ = tx.send(of);
        });
    }

    fn of_session(&mut self, session: Nonce) -> Option<&mut Link> {
        self.up.values_mut().find(|l| l.info.session == session)
    }

    /// A data lane ended. Those of the usual ones that we dialed are dialed again after a moment, while
    /// their control lane goes on.
    pub(in crate::daemon) fn data_ended(&mut self, session: Nonce, id: u64) {
        let Some(link) = self.of_session(session) else {
            return;
        };
        let lanes = &mut link.lanes;
        let Some(at) = lanes.all.iter().position(|lane| lane.id == id) else {
            return;
        };
        let lane = lanes.all.swap_remove(at);
        let (input, output) = bytes(&lane.counters);
        lanes.ended = (lanes.ended.0 + input, lanes.ended.1 + output);
        self.dial_again(session, lane.kind);
    }

    /// A data lane could not be dialed.
    pub(in crate::daemon) fn data_failed(&mut self, session: Nonce, lane: LaneKind) {
        self.dialed(session, lane);
        self.dial_again(session, lane);
    }

    /// A dial ended.
    fn dialed(&mut self, session: Nonce, lane: LaneKind) {
        if lane.extra
            && let Some(link) = self.of_session(session)
        {
            let dialing = &mut link.lanes.dialing[usize::from(lane.we_serve)];
            *dialing = dialing.saturating_sub(1);
        }
    }

    /// Others than the usual ones wait for the next look.
    fn dial_again(&mut self, session: Nonce, lane: LaneKind) {
        let ours = |l: &mut Link| l.info.dialed_by_us;
        if !lane.extra && self.of_session(session).is_some_and(ours) {
            self.remind(DATA_WAIT, Msg::RedialData { session, lane });
        }
    }

    /// The moment is over.
    pub(in crate::daemon) fn redial_data(&self, session: Nonce, lane: LaneKind) {
        if let Some(link) = self.up.values().find(|l| l.info.session == session) {
            self.dial_data(&link.info, lane);
        }
    }

    /// A data lane that we dialed is open; otherwise as [`add_data`](Self::add_data).
    pub(in crate::daemon) fn dialed_data(
        &mut self,
        lane: DataLane,
        kind: LaneKind,
    ) -> Option<(u64, DataLane)> {
        let session = lane.session;
        self.dialed(session, kind);
        let added = self.take_in(lane, kind);
        let first = |l: &mut Link| !std::mem::replace(&mut l.lanes.looked_at, true);
        if self.of_session(session).is_some_and(first) {
            self.look_at_lanes(session);
        }
        added
    }

    /// A data lane came. Gives it back, with a number, when its control lane is up, else keeps it for a
    /// moment or drops it.
    pub(in crate::daemon) fn add_data(&mut self, lane: DataLane) -> Option<(u64, DataLane)> {
        let kind = LaneKind {
            we_serve: lane.we_serve,
            express: lane.express,
            extra: false,
        };
        self.take_in(lane, kind)
    }

    fn take_in(&mut self, lane: DataLane, kind: LaneKind) -> Option<(u64, DataLane)> {
        let Some(link) = self.up.get_mut(&lane.peer) else {
            self.early.truncate(MAX_EARLY - 1);
            self.early.insert(0, lane);
            return None;
        };
        if link.info.session != lane.session {
            if self.early.len() < MAX_EARLY {
                self.early.push(lane);
            }
            return None;
        }
        let lanes = &mut link.lanes;
        if lanes.all.len() >= MAX_LANES {
            if !std::mem::replace(&mut lanes.crowded, true) {
                tracing::warn!(peer = %lane.peer.short(), "too many data lanes: the rest is closed");
            }
            return None;
        }
        lanes.spread.round_trip(lane.round_trip);
        self.lane_serial += 1;
        lanes.all.push(Lane {
            id: self.lane_serial,
            kind,
            closer: lane.stream.shutdown_handle(),
            counters: lane.stream.counters(),
        });
        Some((self.lane_serial, lane))
    }

    /// Opens more data lanes where the link is long and they are used, and closes them where they are not.
    pub(in crate::daemon) fn look_at_lanes(&mut self, session: Nonce) {
        let all = |l: &Link| l.lanes.extra().count() + l.lanes.dialing.iter().sum::<usize>();
        let in_all: usize = self.up.values().map(all).sum();
        let Some(link) = self.of_session(session).filter(|l| l.info.dialed_by_us) else {
            return;
        };
        let (input, output) = link.bytes();
        if !link.lanes.spread.is_long() {
            // It will not be longer.
            return;
        }
        if link.lanes.spread.look(input + output, Instant::now()) {
            let info = link.info.clone();
            let mut room = EXTRA_IN_ALL.saturating_sub(in_all);
            for we_serve in [false, true] {
                let Some(link) = self.of_session(session) else {
                    return;
                };
                let of = |lane: &&Lane| lane.kind.we_serve == we_serve;
                let dialing = link.lanes.dialing[usize::from(we_serve)];
                let have = link.lanes.extra().filter(of).count() + dialing;
                let more = EXTRA.saturating_sub(have).min(room);
                room -= more;
                link.lanes.dialing[usize::from(we_serve)] += more;
                let kind = LaneKind {
                    we_serve,
                    express: false,
                    extra: true,
                };
                (0..more).for_each(|_| self.dial_data(&info, kind));
            }
        } else {
            link.lanes.extra().for_each(|lane| lane.closer.shutdown());
        }
        self.remind(LOOK, Msg::LookAtLanes { session });
    }

    /// Data lanes that came before their control lane; call after [`add`](Self::add).
    pub(in crate::daemon) fn take_early(&mut self, session: Nonce) -> Vec<DataLane> {
        let (now, rest) = std::mem::take(&mut self.early)
            .into_iter()
            .partition(|lane| lane.session == session);
        self.early = rest;
        now
    }
}
