//! Everything that can wake the engine, and everything it asks for.

use super::shed::Dropped;
use crate::diff::Observation;
use crate::index::Totals;
use crate::message::{Control, Progress, Role};
use crate::path::RelPath;
use crate::plan::{FetchError, FetchItem, Op, OpDone, OpError, OpId, StageName};
use crate::select::Selection;
use crate::version::DeviceId;

/// The two clocks, read once per step by the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Monotonic milliseconds since any fixed moment: for waiting.
    pub mono_ms: u64,
    /// Wall clock milliseconds since 1970: for versions. May jump.
    pub wall_ms: u64,
}

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
    /// The outgoing queue to a peer took one Index message.
    SendReady {
        /// To whom.
        peer: DeviceId,
    },
    /// The disk was looked at. The executor has checked, in the same breath, that each
    /// observation still holds.
    Observed(Vec<Observation>),
    /// The scan of the whole tree is done.
    ScanDone,
    /// A local barrier asked for by [`Effect::Barrier`] is done: all earlier changes on disk
    /// were observed.
    BarrierDone(u64),
    /// Somebody waits, under this number, until all connected peers have the same.
    Wait(u64),
    /// The bytes of these files of ours are damaged though nothing says that they changed: bring
    /// them again from peers that have the same.
    Damaged(Vec<RelPath>),
    /// Contents are staged, or not.
    Fetched(Vec<(OpId, Result<StageName, FetchError>)>),
    /// Operations are done, or not.
    Applied(Vec<(OpId, Result<OpDone, OpError>)>),
    /// The user wants the share held still, or to go on.
    Pause(bool),
    /// At the start the share's root was found with nothing in it.
    Emptied,
    /// The share's root is missing or is another folder now; why, and what to do.
    RootGone(String),
    /// The user wants the share's state back where this read-only member edited it: at and below
    /// this path, or everywhere.
    Revert(Option<RelPath>),
    /// The user wants what a device that only sends withholds: at and below this path, or all.
    Take(Option<RelPath>),
    /// The user wants this device, which only sends, to win over what it withholds: at and below this
    /// path, or everywhere.
    Override(Option<RelPath>),
    /// What this device holds of the share from now on.
    Choose(Selection),
    /// What is here and not to be held goes from this device, at and below a path or everywhere, where
    /// another connected device has it. Told by [`Effect::Dropped`] under this number.
    Drop {
        /// The number.
        id: u64,
        /// Where; `None`: everywhere.
        at: Option<RelPath>,
    },
    /// What [`Effect::Sync`] asked for is done.
    Synced(u64),
    /// The user looked into an alarm.
    Resume {
        /// The deletions are meant.
        accept_deletions: bool,
    },
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
    /// Close the lane to a peer and open it anew: what it announced is forgotten here and to be told
    /// once more.
    Reopen {
        /// Whose.
        peer: DeviceId,
    },
    /// Bring contents into the stage, in any order.
    Fetch(Vec<FetchItem>),
    /// Change the disk. Batches are done one after another. Within one, operations of which no path
    /// is, or is above, a path of the other may be done in any order; all others in the order given.
    Apply(Vec<(OpId, Op)>),
    /// Look at these paths (and all below them) again.
    Rescan(Vec<RelPath>),
    /// Look at the whole tree again, then say [`Event::ScanDone`].
    RescanAll,
    /// Look at whatever may have changed until now, then say [`Event::BarrierDone`].
    Barrier(u64),
    /// Make all durable that is in the folder now, then say [`Event::Synced`].
    Sync(u64),
    /// An order to drop is done.
    Dropped(u64, Dropped),
    /// The wait of this number is over: all connected peers have the same.
    Waited(u64),
    /// For people.
    Report(Report),
}

/// What people may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A file, link or folder came from a peer.
    Received {
        /// Which.
        path: RelPath,
        /// Bytes of a file.
        bytes: u64,
    },
    /// Something was deleted because a peer deleted it.
    Deleted {
        /// Which.
        path: RelPath,
    },
    /// A conflict copy was made.
    Conflict {
        /// Of which path.
        path: RelPath,
        /// The copy.
        copy: RelPath,
    },
    /// A path could not be synchronised.
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
    /// The disk has no room: transfers pause; or have room again.
    Full(bool),
}

/// What people see of a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Counts.
    pub totals: Totals,
    /// Paths that others changed and this device, which only sends, does not take.
    pub withheld_files: u64,
    /// Bytes of these.
    pub withheld_bytes: u64,
    /// Why nothing is done until the user decides.
    pub alarm: Option<String>,
    /// The user holds the share still.
    pub paused: bool,
    /// The disk is full.
    pub full: bool,
    /// The tree was looked at since start.
    pub scanned: bool,
    /// Scans, fetches, applies, or needs something that no connected peer has.
    pub busy: bool,
    /// Connected peers.
    pub peers: Vec<PeerState>,
}

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerState {
    /// Who.
    pub device: DeviceId,
    /// It and we have the same.
    pub in_sync: bool,
    /// What it last said.
    pub progress: Option<Progress>,
}
