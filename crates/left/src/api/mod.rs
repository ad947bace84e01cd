//! HTTP over the control socket (`$LEFT_HOME/control.sock`, mode 0600): how everything outside of
//! the process, the command line included, talks to a running left.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `GET /v1/status` | | [`Status`](crate::daemon::handle::Status) |
//! | `GET /v1/events` | | [`DaemonEvent`](crate::daemon::handle::DaemonEvent)s, one JSON object a line, until left stops |
//! | `POST /v1/share` | [`DirRequest`] | [`ShareInfo`](crate::daemon::handle::ShareInfo) |
//! | `POST /v1/join` | [`JoinRequest`] | [`ShareInfo`](crate::daemon::handle::ShareInfo) |
//! | `POST /v1/ticket` | [`TicketRequest`] | [`TicketInfo`](crate::daemon::handle::TicketInfo) |
//! | `POST /v1/sync` | [`SyncRequest`] | [`SyncInfo`](crate::daemon::handle::SyncInfo) |
//! | `POST /v1/up` | | list of [`ShareInfo`](crate::daemon::handle::ShareInfo) |
//! | `POST /v1/wait` | [`WaitRequest`] | [`WaitResult`](crate::daemon::handle::WaitResult) |
//! | `POST /v1/verify` | [`VerifyRequest`] | [`VerifyReport`](crate::daemon::handle::VerifyReport) |
//! | `POST /v1/pause`, `/v1/leave` | [`DirRequest`] | `{}` |
//! | `POST /v1/resume` | [`ResumeRequest`] | `{}` |
//! | `POST /v1/revert` | [`RevertRequest`] | [`Reverted`](crate::daemon::handle::Reverted) |
//! | `POST /v1/remove-peer` | [`RemovePeerRequest`] | [`Removed`](crate::daemon::handle::Removed) |
//! | `POST /v1/limit` | [`LimitRequest`] | [`Rate`](crate::home::Rate) |
//! | `POST /v1/log` | [`LogRequest`] | list of [`LogEntry`](crate::daemon::history::LogEntry) |
//! | `POST /v1/versions` | [`VersionsRequest`] | list of [`VersionInfo`](crate::daemon::history::VersionInfo) |
//! | `POST /v1/restore` | [`RestoreRequest`] | [`RestoreReport`](crate::daemon::history::RestoreReport) |
//! | `POST /v1/diff` | [`DiffRequest`] | [`DiffReport`](crate::daemon::history::DiffReport) |
//! | `POST /v1/content` | [`ContentRequest`] | the bytes |
//! | `POST /v1/conflicts` | [`ConflictsRequest`] | list of [`ConflictInfo`](crate::daemon::history::ConflictInfo) |
//! | `POST /v1/resolve` | [`ResolveRequest`] | [`Resolved`](crate::daemon::history::Resolved) |
//! | `POST /v1/stop` | | `{}`, when everything is written |
//!
//! An error is a [`UserError`](crate::home::UserError) as JSON with status 400 (the request makes
//! no sense), 404 (no such request), 422 (it could not be done), 503 (too many requests at once)
//! or 500 (a bug).

mod client;
mod history;
mod server;
mod socket;

use std::path::PathBuf;

use left_core::message::Role;
use serde::{Deserialize, Serialize};

use crate::home::text;

pub use client::{Client, Events};
pub use history::{
    ConflictsRequest, ContentRequest, DiffRequest, LogRequest, MAX_CONTENT, ResolveRequest,
    RestoreRequest, VersionsRequest,
};
pub use server::{Server, serve};

/// Names a share by its folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DirRequest {
    /// The folder, absolute.
    #[serde(with = "text")]
    pub dir: PathBuf,
}

/// See [`Daemon::join`](crate::daemon::handle::Daemon::join).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The ticket.
    pub ticket: String,
    /// The folder, absolute.
    #[serde(with = "text")]
    pub dir: PathBuf,
}

/// See [`Daemon::ticket`](crate::daemon::handle::Daemon::ticket).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TicketRequest {
    /// The folder, absolute.
    #[serde(with = "text")]
    pub dir: PathBuf,
    /// What who uses it may do.
    #[serde(with = "text")]
    pub role: Role,
    /// For how many seconds it is valid.
    pub expires_in: u64,
}

/// See [`Daemon::sync`](crate::daemon::handle::Daemon::sync).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SyncRequest {
    /// The folder, absolute.
    #[serde(with = "text")]
    pub dir: PathBuf,
    /// The other machine, `host` or `host:port`.
    pub peer: String,
    /// The code, if there is one already.
    #[serde(default)]
    pub code: Option<String>,
}

/// See [`Daemon::wait`](crate::daemon::handle::Daemon::wait).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitRequest {
    /// The folder, absolute; none: all shares.
    #[serde(with = "text::option", default)]
    pub dir: Option<PathBuf>,
    /// For how long at most, in milliseconds.
    pub timeout_ms: u64,
}

/// See [`Daemon::verify`](crate::daemon::handle::Daemon::verify).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// The folder, absolute; none: all shares.
    #[serde(with = "text::option", default)]
    pub dir: Option<PathBuf>,
}

/// See [`Daemon::resume`](crate::daemon::handle::Daemon::resume).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResumeRequest {
    /// The folder, absolute.
    #[serde(with = "text")]
    pub dir: PathBuf,
    /// The deletions that raised the alarm are meant.
    #[serde(default)]
    pub accept_deletions: bool,
}

/// See [`Daemon::revert`](crate::daemon::handle::Daemon::revert).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RevertRequest {
    /// The folder, absolute.
    #[serde(with = "text")]
    pub dir: PathBuf,
    /// What in it, relative; none: everything.
    #[serde(with = "text::option", default)]
    pub path: Option<PathBuf>,
}

/// See [`Daemon::remove_peer`](crate::daemon::handle::Daemon::remove_peer).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemovePeerRequest {
    /// The folder, absolute.
    #[serde(with = "text")]
    pub dir: PathBuf,
    /// The device's name, id or the start of it.
    pub who: String,
}

/// See [`Daemon::limit`](crate::daemon::handle::Daemon::limit).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LimitRequest {
    /// The folder, absolute.
    #[serde(with = "text")]
    pub dir: PathBuf,
    /// Sent a second: `5MB`, `unlimited`; none: as it is.
    #[serde(default)]
    pub up: Option<String>,
    /// Received a second.
    #[serde(default)]
    pub down: Option<String>,
}

/// Done; there is nothing more to say.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {}
