//! What other requests are answered with.

use std::path::PathBuf;

use left_core::version::DeviceId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Problem, State};
use crate::home::{Mode, text};

/// The answer of [`Daemon::wait`](super::Daemon::wait).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitResult {
    /// Everything asked for is identical with every connected peer, and there is one.
    pub in_sync: bool,
    /// What is not; empty when all is.
    pub missing: Vec<Missing>,
}

/// A share that is not in sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Missing {
    /// Its folder here.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub share: PathBuf,
    /// In short, how it is.
    pub state: State,
    /// Paths needed here or at the peer that needs most.
    pub need_files: u64,
    /// Bytes needed here or at the peer that needs most.
    pub need_bytes: u64,
    /// In words, what is waited for.
    pub why: String,
}

/// The answer of [`Daemon::verify`](super::Daemon::verify).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct VerifyReport {
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Files whose bytes were not what they should be (folder and path).
    pub damaged: Vec<String>,
    /// Those of them that are whole again.
    pub healed: Vec<String>,
    /// Those that are not, and why.
    pub not_healed: Vec<Problem>,
}

/// The answer of [`Daemon::remove_peer`](super::Daemon::remove_peer).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Removed {
    /// Who is out.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// Devices that it had let in and that are members still, by name and id.
    pub let_in: Vec<String>,
}

/// The answer of [`Daemon::mode`](super::Daemon::mode).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModeInfo {
    /// `two-way`, `send-only` or `receive-only`.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub mode: Mode,
}

/// The answer of [`Daemon::take`](super::Daemon::take) and [`Daemon::override_theirs`](super::Daemon::override_theirs).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decided {
    /// Paths that were withheld there.
    pub paths: u64,
    /// Whether another device is connected. Without one, what has to come from others is not taken.
    #[serde(default)]
    pub connected: bool,
}

/// The answer of [`Daemon::pause_peer`](super::Daemon::pause_peer).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerPaused {
    /// Who.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// It is held still now.
    pub paused: bool,
}

/// The answer of [`Daemon::revert`](super::Daemon::revert).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reverted {
    /// Paths that are taken back.
    pub edits: u64,
}
