//! The daemon's face: what one can ask of a running left and what it tells. These are plain data
//! types; the API (`/v1/...`), the command line and the library all use them as they are.
//!
//! Folders of shares are absolute paths. Paths inside a share are text relative to its root, with
//! `\xNN` for bytes that are not UTF-8. Byte counts are bytes, rates bytes a second.

mod answers;
mod event;
mod status;

use std::path::{Path, PathBuf};
use std::time::Duration;

use left_core::message::{Role, ShareId};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use utoipa::ToSchema;

pub use answers::{
    Decided, Missing, ModeInfo, PeerPaused, Removed, Reverted, VerifyReport, WaitResult,
};
pub use event::DaemonEvent;
pub use status::{
    Alarm, Discovery, PeerStatus, Problem, ShareStatus, State, Status, Transfer, Withheld,
    WithheldChange,
};

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
