//! What happens in a running left.

use std::path::PathBuf;

use left_core::version::DeviceId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ShareInfo, State, SyncInfo, TicketInfo};
use crate::home::text;

/// What happens. In JSON an object with the field `event`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DaemonEvent {
    /// A ticket was made (told by the command that made it).
    Ticket(TicketInfo),
    /// A pairing waits for the other machine (told by the command that began it).
    Pairing(SyncInfo),
    /// A share runs.
    ShareStarted(ShareInfo),
    /// A peer is connected.
    PeerConnected {
        /// Folder of the share.
        #[serde(with = "text")]
        #[schema(value_type = String)]
        share: PathBuf,
        /// Who.
        #[serde(with = "text")]
        #[schema(value_type = String)]
        device: DeviceId,
        /// Its name.
        name: String,
        /// From or to where.
        address: String,
    },
    /// A peer's connection is gone.
    PeerLost {
        /// Folder of the share.
        #[serde(with = "text")]
        #[schema(value_type = String)]
        share: PathBuf,
        /// Who.
        #[serde(with = "text")]
        #[schema(value_type = String)]
        device: DeviceId,
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// A file from a peer is in place, whole and verified.
    FileReceived {
        /// Folder of the share.
        #[serde(with = "text")]
        #[schema(value_type = String)]
        share: PathBuf,
        /// Which file.
        path: String,
        /// Its size.
        bytes: u64,
    },
    /// A path was deleted here because a peer deleted it.
    FileDeleted {
        /// Folder of the share.
        #[serde(with = "text")]
        #[schema(value_type = String)]
        share: PathBuf,
        /// Which path.
        path: String,
    },
    /// Two edits met; both are kept.
    Conflict {
        /// Folder of the share.
        #[serde(with = "text")]
        #[schema(value_type = String)]
        share: PathBuf,
        /// Which file.
        path: String,
        /// The loser's copy.
        copy: String,
    },
    /// A path cannot be synchronised.
    Problem {
        /// Folder of the share.
        #[serde(with = "text")]
        #[schema(value_type = String)]
        share: PathBuf,
        /// Which.
        path: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The problem of a path is gone.
    Solved {
        /// Folder of the share.
        #[serde(with = "text")]
        #[schema(value_type = String)]
        share: PathBuf,
        /// Which.
        path: String,
    },
    /// The user has to decide.
    Alarm {
        /// Folder of the share.
        #[serde(with = "text")]
        #[schema(value_type = String)]
        share: PathBuf,
        /// What was seen.
        reason: String,
        /// What the user can do.
        todo: String,
    },
    /// The alarm is over.
    AlarmOver {
        /// Folder of the share.
        #[serde(with = "text")]
        #[schema(value_type = String)]
        share: PathBuf,
    },
    /// The state changed.
    State {
        /// Folder of the share.
        #[serde(with = "text")]
        #[schema(value_type = String)]
        share: PathBuf,
        /// The new state.
        state: State,
        /// Paths still needed here.
        need_files: u64,
        /// Bytes still needed here.
        need_bytes: u64,
    },
    /// Work goes on; about once a second while syncing.
    Progress {
        /// Folder of the share.
        #[serde(with = "text")]
        #[schema(value_type = String)]
        share: PathBuf,
        /// Bytes done of the current work.
        done: u64,
        /// Bytes of the current work.
        total: u64,
        /// Bytes a second.
        rate: u64,
    },
    /// Somebody was not let in.
    Refused {
        /// From where.
        address: String,
        /// Its key, if it showed one.
        #[serde(with = "text::option", default)]
        #[schema(value_type = Option<String>)]
        device: Option<DeviceId>,
        /// Why.
        why: String,
    },
    /// Something the user should know.
    Notice {
        /// What.
        text: String,
    },
    /// This left stops.
    Stopping,
}
