//! The daemon's face: what one can ask of a running left and what it tells. These are plain data
//! types; the API (`/v1/...`), the command line and the library all use them as they are.
//!
//! Folders of shares are absolute paths. Paths inside a share are text relative to its root, with
//! `\xNN` for bytes that are not UTF-8. Byte counts are bytes, rates bytes a second.

use std::path::{Path, PathBuf};
use std::time::Duration;

use left_core::message::{Role, ShareId};
use left_core::version::DeviceId;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use utoipa::ToSchema;

pub use super::browse::{EntryKind, Folder, FolderEntry, OpenFile};
pub use super::choose::{Choice, ChoiceRule, Choosing, Chosen};
use super::history::Past;
pub use super::reload::Reloaded;
pub use super::times::ApplyTimes;
use crate::home::text;
pub use crate::home::{Exit, Mode, Rate, UserError};

/// The port left listens on when none is set.
pub const DEFAULT_PORT: u16 = 20201;

/// What a daemon is started with. The command line goes before `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where to listen.
    pub listen: Listen,
    /// Where peers reach this device, `host` or `host:port` (without a port: the one listened
    /// on); empty: found out from the interfaces.
    pub advertise: Vec<String>,
    /// This device's name as peers see it.
    pub name: String,
    /// Find members on the local network, and be found by them.
    pub discovery: bool,
    /// Do not listen and dial nobody: started only for one command on this machine.
    pub offline: bool,
}

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Name or address; `None`: all addresses of this machine.
    pub host: Option<String>,
    /// Port; 0: any free one.
    pub port: u16,
}

/// A running left. Calls block; all may be called at once from any thread. Every `dir` is
/// absolute and need not be spelled as the share's folder is (links, `..`).
pub trait Daemon: Send + Sync {
    /// Makes `dir` a share if it is none and runs it. Running it already is fine.
    fn share(&self, dir: &Path) -> Result<ShareInfo, UserError>;

    /// Makes a ticket for the share `dir`; it works once, for so long.
    fn ticket(&self, dir: &Path, role: Role, expires: Duration) -> Result<TicketInfo, UserError>;

    /// Joins the ticket's share with `dir` and runs it. Returns once the inviter has answered (a
    /// refusal is an error), or after some seconds when it cannot be reached; then it is tried
    /// again for as long as the ticket is valid. Where `only` names paths (relative to the folder) it
    /// holds these and nothing else, from the start.
    fn join(&self, ticket: &str, dir: &Path, only: &[PathBuf]) -> Result<ShareInfo, UserError>;

    /// Pairs with `peer` (`host` or `host:port`) by a code and synchronises `dir` with it. Without
    /// a code one is made. Returns at once; the pairing goes on until the peer answers.
    fn sync(&self, dir: &Path, peer: &str, code: Option<&str>) -> Result<SyncInfo, UserError>;

    /// Runs all shares of this device. One that cannot run is in the status with its alarm.
    fn run_all(&self) -> Result<Vec<ShareInfo>, UserError>;

    /// Everything as it is now.
    fn status(&self) -> Status;

    /// Returns when the share `dir` (or every share) and all its connected peers are identical,
    /// or when the time is over. Looks at the disk first, so that what was written before the
    /// call counts. A zero timeout looks once.
    fn wait(&self, dir: Option<&Path>, timeout: Duration) -> Result<WaitResult, UserError>;

    /// Reads and hashes everything again, in the share `dir` or in all; heals from peers.
    fn verify(&self, dir: Option<&Path>) -> Result<VerifyReport, UserError>;

    /// Lets a paused share go on; with `accept_deletions` also one in alarm: the deletions that
    /// raised it are meant.
    fn resume(&self, dir: &Path, accept_deletions: bool) -> Result<(), UserError>;

    /// Holds a share still until it is resumed, also over restarts.
    fn pause(&self, dir: &Path) -> Result<(), UserError>;

    /// Brings the share's state back where this read-only member edited the share `dir` itself: at
    /// and below `path` (relative to the folder) or everywhere. What stood there goes to history.
    /// Returns when it has begun.
    fn revert(&self, dir: &Path, path: Option<&Path>) -> Result<Reverted, UserError>;

    /// Chooses which way the share `dir` goes on this device (`None`: leaves it); returns what holds
    /// then. Receiving only, by choice, is as being a read-only member.
    fn mode(&self, dir: &Path, mode: Option<Mode>) -> Result<ModeInfo, UserError>;

    /// Where this device only sends the share `dir`: does here what others changed, at and below `path`
    /// (relative to the folder) or everywhere. Returns when it has begun.
    fn take(&self, dir: &Path, path: Option<&Path>) -> Result<Decided, UserError>;

    /// Where this device only sends the share `dir`: has its own state win over what others changed, at
    /// and below `path` or everywhere. Their versions go to their history.
    fn override_theirs(&self, dir: &Path, path: Option<&Path>) -> Result<Decided, UserError>;

    /// Holds a member of the share `dir` still (by its name, its id or the first characters of that),
    /// or lets it go on; also over restarts. While it is held there is no connection to it.
    fn pause_peer(&self, dir: &Path, who: &str, paused: bool) -> Result<PeerPaused, UserError>;

    /// What this device holds of the share `dir`.
    fn choice(&self, dir: &Path) -> Result<Choice, UserError>;

    /// Changes what this device holds of the share `dir`; `paths` are relative to it. Returns when all
    /// that is not to be held any more and that another connected device has is gone from here. Nothing
    /// of this is a deletion for anybody.
    fn choose(&self, dir: &Path, how: Choosing, paths: &[PathBuf]) -> Result<Chosen, UserError>;

    /// Sets how many bytes a second the share `dir` may send and receive, at once; returns what holds
    /// then.
    fn limit(&self, dir: &Path, up: Change, down: Change) -> Result<Rate, UserError>;

    /// Removes a member from the share `dir`, by its name, its id or the first characters of that.
    /// Every other member refuses it from when it hears of it.
    fn remove_peer(&self, dir: &Path, who: &str) -> Result<Removed, UserError>;

    /// The past of the share that `path` lies in: what changed, which versions are kept, how to bring
    /// them back. Also the path as [`Past::place`] takes it. `PATH@VERSION` will do, and so will what
    /// is gone. The share need not run.
    fn past(&self, path: &Path) -> Result<(Past, PathBuf), UserError>;

    /// Takes in what of the settings has changed, as far as that can be done while it runs: the name
    /// and addresses that peers are told of, bandwidth, history, discovery.
    ///
    /// # Errors
    /// When `config.toml` can not be read; then everything stays as it is.
    fn reload(&self, options: &Options) -> Result<Reloaded, UserError>;

    /// Leaves the share: its folder stays with all files of the user, only `.left` goes.
    fn leave(&self, dir: &Path) -> Result<(), UserError>;

    /// What stands in the folder `path` of the share `dir` (empty: its root), as this device knows
    /// it; some hundred entries that follow the path `after`. All paths relative to the share.
    fn list(&self, dir: &Path, path: &Path, after: Option<&Path>) -> Result<Folder, UserError>;

    /// Opens a file of the share `dir` for reading. No link is followed.
    fn open(&self, dir: &Path, path: &Path) -> Result<OpenFile, UserError>;

    /// What happens from now on. A reader that is too slow misses the oldest events.
    fn events(&self) -> broadcast::Receiver<DaemonEvent>;

    /// Stops cleanly; returns when everything is written and closed. A second call does nothing.
    fn stop(&self);
}

/// What becomes of a limit: `None` leaves it, `Some(None)` takes it away.
pub type Change = Option<Option<u64>>;

/// A share of this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShareInfo {
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
    /// It did not exist on this device before.
    pub new: bool,
}

/// A ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TicketInfo {
    /// The ticket, `left1...`.
    pub ticket: String,
    /// The command for the other machine.
    pub join_line: String,
    /// Of which folder.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub share: PathBuf,
    /// What who uses it may do.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub role: Role,
    /// Unix seconds after which it is void.
    pub expires: u64,
}

/// A pairing by code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SyncInfo {
    /// Of which folder.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub share: PathBuf,
    /// The code, if it was made by this call.
    pub code: Option<String>,
    /// The command for the other machine.
    pub command_for_other: String,
}

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

/// The answer of [`Daemon::wait`].
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

/// The answer of [`Daemon::verify`].
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

/// The answer of [`Daemon::remove_peer`].
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

/// The answer of [`Daemon::mode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModeInfo {
    /// `two-way`, `send-only` or `receive-only`.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub mode: Mode,
}

/// The answer of [`Daemon::take`] and [`Daemon::override_theirs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decided {
    /// Paths that were withheld there.
    pub paths: u64,
    /// Whether another device is connected. Without one, what has to come from others is not taken.
    #[serde(default)]
    pub connected: bool,
}

/// The answer of [`Daemon::pause_peer`].
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

/// The answer of [`Daemon::revert`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reverted {
    /// Paths that are taken back.
    pub edits: u64,
}

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
