//! What `status` tells: a running left, its shares and their peers as they are now.

use std::path::PathBuf;

use left_core::message::{Role, ShareId};
use left_core::version::DeviceId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApplyTimes;
use crate::home::{Mode, Rate, text};

/// A running left and its shares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of left.
    pub version: String,
    /// Its process; `None`: none runs, and the shares are as the settings list them.
    pub pid: Option<u32>,
    /// This device (`None` when it has no key yet).
    #[serde(with = "text::option", default)]
    #[schema(value_type = Option<String>)]
    pub device: Option<DeviceId>,
    /// Its name.
    pub name: String,
    /// Where it listens, `host:port`.
    pub listen: Vec<String>,
    /// How members on the local network are found; none: they are not looked for.
    #[serde(default)]
    pub discovery: Option<Discovery>,
    /// Its shares, sorted by folder.
    pub shares: Vec<ShareStatus>,
}

/// How members on the local network are found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Discovery {
    /// On these interfaces.
    pub interfaces: Vec<String>,
    /// Why not on some, or not at all.
    pub problems: Vec<String>,
}

/// In short, how a share is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Identical with every connected peer.
    Synced,
    /// There is something to scan, fetch, send or apply.
    Syncing,
    /// No peer is connected.
    Offline,
    /// The user holds it still.
    Paused,
    /// Something is wrong and the user has to decide; nothing is applied and no deletion sent.
    Alarm,
}

impl State {
    /// All states.
    pub const ALL: [State; 5] = [
        State::Synced,
        State::Syncing,
        State::Offline,
        State::Paused,
        State::Alarm,
    ];

    /// The state's name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            State::Synced => "synced",
            State::Syncing => "syncing",
            State::Offline => "offline",
            State::Paused => "paused",
            State::Alarm => "alarm",
        }
    }
}

/// A share as it is now. Lists are cut to some hundred entries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ShareStatus {
    /// Which share.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub id: ShareId,
    /// Its folder here.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// What this device may do.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub role: Role,
    /// In short, how it is.
    pub state: State,
    /// Files (and symlinks) here.
    pub files: u64,
    /// Folders here.
    pub dirs: u64,
    /// Bytes of all files here.
    pub bytes: u64,
    /// Paths this device still needs.
    pub need_files: u64,
    /// Bytes this device still needs.
    pub need_bytes: u64,
    /// Paths that others hold and this device does not, as it was chosen.
    #[serde(default)]
    pub away_files: u64,
    /// Bytes of these.
    #[serde(default)]
    pub away_bytes: u64,
    /// The other members.
    pub peers: Vec<PeerStatus>,
    /// Which way it goes here, by the user's choice: `two-way`, `send-only` or `receive-only`.
    #[serde(with = "text", default)]
    #[schema(value_type = String)]
    pub mode: Mode,
    /// What others changed and this device, which only sends, does not do.
    #[serde(default)]
    pub withheld: Vec<Withheld>,
    /// How many paths that are.
    #[serde(default)]
    pub withheld_count: u64,
    /// Bytes of these.
    #[serde(default)]
    pub withheld_bytes: u64,
    /// Conflict copies that are there.
    pub conflicts: Vec<String>,
    /// What was edited here though this device may not write: it reaches nobody.
    #[serde(default)]
    pub local_edits: Vec<String>,
    /// How many of these there are.
    #[serde(default)]
    pub local_edit_count: u64,
    /// Paths that could not be synchronised.
    pub problems: Vec<Problem>,
    /// What else the user should know.
    pub notices: Vec<String>,
    /// Set in state `alarm`.
    pub alarm: Option<Alarm>,
    /// Long transfers to this device that run now.
    pub transfers: Vec<Transfer>,
    /// How fast it may be here, by `left limit`.
    #[serde(default)]
    pub limit: Rate,
    /// How long changes of the folder took since left started.
    #[serde(default)]
    pub applied: ApplyTimes,
}

/// Another member of a share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeerStatus {
    /// Its id.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// The address of the connection, or the last one known.
    pub address: String,
    /// There is a connection.
    pub connected: bool,
    /// What it may do.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub role: Role,
    /// The user of this device holds it still.
    #[serde(default)]
    pub paused: bool,
    /// Who let it in; none for the share's founder.
    #[serde(with = "text::option", default)]
    #[schema(value_type = Option<String>)]
    pub admitted_by: Option<DeviceId>,
    /// Bytes a second from it.
    pub rate_in: u64,
    /// Bytes a second to it.
    pub rate_out: u64,
    /// Bytes from it since this left started.
    pub bytes_in: u64,
    /// Bytes to it since this left started.
    pub bytes_out: u64,
    /// Paths it still needs, as it says.
    pub need_files: u64,
    /// Bytes it still needs, as it says.
    pub need_bytes: u64,
    /// It is connected and identical with this device.
    pub in_sync: bool,
}

/// A change of others that is not done here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Withheld {
    /// Where, relative to the share.
    pub path: String,
    /// What they did.
    pub change: WithheldChange,
}

/// See [`Withheld`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WithheldChange {
    /// It is not here.
    New,
    /// Here it is something else.
    Changed,
    /// It is here still.
    Deleted,
}

/// A path with something wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Which, relative to the share.
    pub path: String,
    /// What is wrong, and what to do.
    pub reason: String,
}

/// See [`State::Alarm`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alarm {
    /// What was seen.
    pub reason: String,
    /// What the user can do.
    pub todo: String,
}

/// A long transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Transfer {
    /// Of which file, relative to the share.
    pub path: String,
    /// Bytes that are here and verified.
    pub done: u64,
    /// Bytes of the file.
    pub total: u64,
}
