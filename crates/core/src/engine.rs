//! One share's engine: `step(now, event, index) -> effects`. It only dispatches.

use crate::diff::Observation;
use crate::message::{Control, Role};
use crate::path::RelPath;
use crate::plan::{FetchError, FetchItem, Op, OpDone, OpError, OpId, StageName};
use crate::version::DeviceId;

/// Everything that can wake the engine.
#[derive(Debug, Clone)]
pub enum Event {
    /// Time passed.
    Tick,
    /// A control lane to a peer is up.
    PeerUp {
        /// Who.
        peer: DeviceId,
        /// What it may do.
        role: Role,
    },
    /// The control lane is gone.
    PeerDown {
        /// Who.
        peer: DeviceId,
    },
    /// A message came on the control lane.
    Message {
        /// From whom.
        peer: DeviceId,
        /// What.
        message: Control,
    },
    /// The outgoing queue to a peer has room again.
    SendReady {
        /// To whom.
        peer: DeviceId,
    },
    /// The disk was looked at. The executor has checked, in the same breath, that each
    /// observation still holds.
    Observed(Vec<Observation>),
    /// The scan of the whole tree since start (or since it was asked for) is done.
    ScanDone,
    /// A local barrier asked for by [`Effect::Barrier`] is done: all earlier changes on disk
    /// were observed.
    BarrierDone(u64),
    /// Contents are staged, or not.
    Fetched(Vec<(OpId, Result<StageName, FetchError>)>),
    /// Operations are done, or not.
    Applied(Vec<(OpId, Result<OpDone, OpError>)>),
    /// The user wants the share held still, or to go on.
    Pause(bool),
    /// The user says that the deletions which raised the alarm are meant.
    AcceptDeletions,
}

/// Everything the engine asks for. Done in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send on the control lane.
    Send {
        /// To whom.
        peer: DeviceId,
        /// What.
        message: Control,
    },
    /// Close the lane to a peer that misbehaved.
    Disconnect {
        /// Whom.
        peer: DeviceId,
        /// Why, for the log and the peer.
        reason: String,
    },
    /// Bring contents into the stage.
    Fetch(Vec<FetchItem>),
    /// Change the disk. Batches are done one after another.
    Apply(Vec<(OpId, Op)>),
    /// Look at these paths (and all below them) again.
    Rescan(Vec<RelPath>),
    /// Look at whatever may have changed until now, then say [`Event::BarrierDone`].
    Barrier(u64),
    /// For people.
    Report(Report),
}

/// What people may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A conflict copy was made.
    Conflict {
        /// Of which path.
        path: RelPath,
        /// The copy.
        copy: RelPath,
    },
    /// A path could not be synchronised; said once until it changes.
    Problem {
        /// Which.
        path: RelPath,
        /// Why, and what to do.
        reason: String,
    },
    /// The problem of a path is gone.
    Solved {
        /// Which.
        path: RelPath,
    },
    /// Nothing is applied and no deletion is sent until the user decides.
    Alarm {
        /// What was seen, and what to do.
        reason: String,
    },
    /// The alarm is over.
    AlarmOver,
    /// The disk has no room: transfers pause.
    Full(bool),
}
