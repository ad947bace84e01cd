//! What the owner of a share is told and asked by other threads.

use crossbeam_channel::Sender;
use left_core::engine::Dropped;
use left_core::index::IndexError;
use left_core::path::RelPath;
use left_core::plan::{OpDone, OpError, OpId};
use left_core::select::Selection;
use left_core::version::DeviceId;

use super::history::Lent;
use crate::net::{ControlLane, DataLane, DialError, LaneEvent};
use crate::transfer::Told;
use left_core::message::{Nonce, Offer};

/// Which of the data lanes between two devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LaneKind {
    /// This end answers Wants on it.
    pub(super) we_serve: bool,
    /// Only small contents travel on it.
    pub(super) express: bool,
    /// One more than the usual ones, over a long link.
    pub(super) extra: bool,
}

/// Everything that reaches the owner besides the disk's events and finished fetches.
pub(super) enum Msg {
    /// Another device opened a control lane, and the gate let it in.
    Control(ControlLane),
    /// Another device opened a data lane.
    Data(DataLane),
    /// Something happened on a control lane.
    Lane {
        peer: DeviceId,
        session: Nonce,
        event: LaneEvent,
    },
    /// A dial ended.
    Dialed {
        peer: DeviceId,
        result: Result<ControlLane, DialError>,
    },
    /// A data lane's dial ended.
    DialedData {
        session: Nonce,
        lane: LaneKind,
        result: Result<DataLane, DialError>,
    },
    /// A data lane is no more.
    DataEnded { session: Nonce, id: u64 },
    /// A data lane that ended may be dialed again.
    RedialData { session: Nonce, lane: LaneKind },
    /// Are more data lanes needed, or fewer?
    LookAtLanes { session: Nonce },
    /// More of a file that is still being read can be offered.
    Offer(Offer),
    /// Each peer can be told what is here of what it fetches too.
    Parts(Told),
    /// Operations are done.
    Applied(Vec<(OpId, Result<OpDone, OpError>)>),
    /// A program wrote to a file after it went to history; its bytes are back at these paths.
    Rescued(Vec<RelPath>),
    /// The index says something of these paths that can hardly be so.
    LookAt(Vec<RelPath>),
    /// Lend what the share's past is worked with.
    Lend(Sender<Lent>),
    /// These paths were put back by another thread: look at them.
    Restored(Vec<RelPath>),
    /// Conflict copies that were there at start.
    Conflicts(Vec<RelPath>),
    /// Tell when this share and all connected peers have the same.
    Wait(Sender<()>),
    /// Put the state as it is now where `status` finds it, then answer.
    Publish(Sender<()>),
    /// Hold still, or go on.
    Pause(bool),
    /// The user looked into an alarm.
    Resume { accept_deletions: bool },
    /// Take back what this read-only member edited itself, at and below a path or everywhere; how
    /// many paths that is, or why it can not be done now.
    Revert(Option<RelPath>, Sender<Result<u64, String>>),
    /// What this device, which only sends, withholds at and below a path or everywhere: take it, or win
    /// over it; how many paths that is and whether a peer is connected, or why it can not be done.
    Decide {
        at: Option<RelPath>,
        take: bool,
        reply: Sender<Result<(u64, bool), String>>,
    },
    /// Hold this from now on; then drop what is not to be held, below a path or everywhere, if that is
    /// asked for; what came of it.
    Choose(Selection, Option<Option<RelPath>>, Sender<Dropped>),
    /// What had changed in the folder is on the disk, or could not be brought there.
    Synced(Result<(), String>),
    /// Bring these files again from peers.
    Damaged(Vec<RelPath>),
    /// Whoever read the index for another purpose found it damaged.
    IndexFailed(IndexError),
    /// A member was seen nearby: the sightings tell where.
    Sighted(DeviceId),
    /// This machine is on other networks than before.
    NetworkChanged,
    /// The list of members changed: dial who is new.
    MembersChanged,
    /// Stop; nothing comes after it.
    Stop,
}
