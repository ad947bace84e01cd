//! The requests about a share's past. A path is of a file or folder in a share, absolute, and may be of
//! something that is gone; with `version` it is taken as it is, else it may be `PATH@VERSION`.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use jiff::Zoned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::call::{Api, Input, Refused, Shared, ask, call};
use crate::daemon::handle::{Daemon, OpenFile};
use crate::daemon::history::{
    At, Bring, ConflictInfo, DiffReport, Keep, LogEntry, Past, Place, Resolved, RestoreReport,
    VersionInfo, when,
};
use crate::home::{UserError, text};

/// Bytes of a version that one request gets at most.
pub const MAX_CONTENT: u64 = 8 << 20;

/// What changed, the latest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogRequest {
    /// What it is asked of, and all below it.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// Only what was before the entry with this id: the next page.
    #[serde(default)]
    pub before: Option<u64>,
    /// Entries at most; 1000 is the most that is given.
    #[serde(default = "page")]
    pub limit: usize,
}

fn page() -> usize {
    100
}

/// Which versions of a path are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionsRequest {
    /// Of which path.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub path: PathBuf,
}

/// Bring back a version of a file, or a folder as of a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestoreRequest {
    /// What.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// Which version: a number, a time, or an id.
    #[serde(default)]
    pub version: Option<String>,
    /// All that was deleted at and below the path since this time (or so long ago) instead.
    #[serde(default)]
    pub deleted_since: Option<String>,
    /// Do nothing, only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Compare a kept version with another or with what is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffRequest {
    /// Of which file.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// The older version; none: the latest kept.
    #[serde(default)]
    pub version: Option<String>,
    /// The newer one; none: what is there now.
    #[serde(default)]
    pub to: Option<String>,
}

/// Bytes of a version, at most [`MAX_CONTENT`] a request. The answer is the bytes;
/// its header `left-size` has the size of the whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContentRequest {
    /// Of which file.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// Which version; none: what is there now.
    #[serde(default)]
    pub version: Option<String>,
    /// From which byte on.
    #[serde(default)]
    pub offset: u64,
    /// How many at most.
    #[serde(default)]
    pub length: Option<u64>,
}

/// The conflict copies at and below a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConflictsRequest {
    /// Where.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub path: PathBuf,
}

/// End a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResolveRequest {
    /// The file, or its conflict copy.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// What stays.
    pub keep: Keep,
    /// For a merge: the version that both edits were made of.
    #[serde(default)]
    pub base: Option<String>,
}

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(log))
        .routes(routes!(versions))
        .routes(routes!(restore))
        .routes(routes!(diff))
        .routes(routes!(content))
        .routes(routes!(conflicts))
        .routes(routes!(resolve))
}

/// What changed, the latest first.
#[utoipa::path(post, path = "/v1/log", tag = "history", request_body = LogRequest,
    responses((status = 200, body = Vec<LogEntry>), Refused))]
async fn log(State(api): Shared, Input(r): Input<LogRequest>) -> Response {
    call(&api, move |d| log_of(d, &r)).await
}

/// Which versions of a path are kept.
#[utoipa::path(post, path = "/v1/versions", tag = "history", request_body = VersionsRequest,
    responses((status = 200, body = Vec<VersionInfo>), Refused))]
async fn versions(State(api): Shared, Input(r): Input<VersionsRequest>) -> Response {
    call(&api, move |d| versions_of(d, &r)).await
}

/// Brings back a version of a file, a folder as of a time, or what was deleted since then.
#[utoipa::path(post, path = "/v1/restore", tag = "history", request_body = RestoreRequest,
    responses((status = 200, body = RestoreReport), Refused))]
async fn restore(State(api): Shared, Input(r): Input<RestoreRequest>) -> Response {
    call(&api, move |d| bring(d, &r)).await
}

/// Compares a kept version with another or with what is there.
#[utoipa::path(post, path = "/v1/diff", tag = "history", request_body = DiffRequest,
    responses((status = 200, body = DiffReport), Refused))]
async fn diff(State(api): Shared, Input(r): Input<DiffRequest>) -> Response {
    call(&api, move |d| compare(d, &r)).await
}

/// The conflict copies at and below a path.
#[utoipa::path(post, path = "/v1/conflicts", tag = "history", request_body = ConflictsRequest,
    responses((status = 200, body = Vec<ConflictInfo>), Refused))]
async fn conflicts(State(api): Shared, Input(r): Input<ConflictsRequest>) -> Response {
    call(&api, move |d| conflicts_of(d, &r)).await
}

/// Ends a conflict.
#[utoipa::path(post, path = "/v1/resolve", tag = "history", request_body = ResolveRequest,
    responses((status = 200, body = Resolved), Refused))]
async fn resolve(State(api): Shared, Input(r): Input<ResolveRequest>) -> Response {
    call(&api, move |d| end_conflict(d, &r)).await
}

/// Bytes of a version, 8 MiB at most a request; the answer's header `left-size` has the size of the
/// whole.
#[utoipa::path(post, path = "/v1/content", tag = "history", request_body = ContentRequest, responses(
    (status = 200, description = "Its bytes", content_type = "application/octet-stream"), Refused))]
async fn content(State(api): Shared, Input(r): Input<ContentRequest>) -> Response {
    match ask(&api, move |d| bytes_of(d, &r)).await {
        Ok((bytes, size)) => {
            let headers = [
                (
                    header::CONTENT_TYPE.as_str(),
                    "application/octet-stream".to_owned(),
                ),
                // Whatever the bytes are, a browser is not to run them.
                ("content-disposition", "attachment".to_owned()),
                ("x-content-type-options", "nosniff".to_owned()),
                ("left-size", size.to_string()),
            ];
            (headers, bytes).into_response()
        }
        Err(response) => response,
    }
}

/// The past that a path belongs to, the path, and the version that is meant.
fn find(
    daemon: &dyn Daemon,
    path: &std::path::Path,
    version: Option<&str>,
) -> Result<(Past, Place), UserError> {
    let (past, path) = daemon.past(path)?;
    let place = match version {
        None => past.place(&path)?,
        Some(version) => Place {
            path: past.exactly(&path)?,
            at: Some(at(version)?),
        },
    };
    Ok((past, place))
}

fn at(text: &str) -> Result<At, UserError> {
    At::parse(text, &Zoned::now()).ok_or_else(|| no_time(text))
}

fn no_time(text: &str) -> UserError {
    UserError::usage(
        format!("cannot read the version `{text}`"),
        "it is no number, no time and no id",
        "write 2 (the second latest), 10m (so long ago), 2026-11-24T10:00 or 10:00",
    )
}

/// The one file that is asked for.
fn file(place: &Place) -> Result<&left_core::path::RelPath, UserError> {
    place.path.as_ref().ok_or_else(|| {
        UserError::usage(
            "cannot do that",
            "the path is the share itself",
            "name a file in it",
        )
    })
}

fn log_of(daemon: &dyn Daemon, r: &LogRequest) -> Result<Vec<LogEntry>, UserError> {
    let (past, place) = find(daemon, &r.path, None)?;
    past.log(place.path.as_ref(), r.before, r.limit)
}

fn versions_of(daemon: &dyn Daemon, r: &VersionsRequest) -> Result<Vec<VersionInfo>, UserError> {
    let (past, place) = find(daemon, &r.path, None)?;
    match &place.path {
        Some(path) => past.versions(path),
        None => Ok(Vec::new()),
    }
}

fn bring(daemon: &dyn Daemon, r: &RestoreRequest) -> Result<RestoreReport, UserError> {
    let (past, place) = find(daemon, &r.path, r.version.as_deref())?;
    let bring = match (&r.deleted_since, place.at) {
        (Some(_), Some(_)) => {
            return Err(UserError::usage(
                "cannot bring back",
                "a version and --deleted-since are two different things",
                "give one of them",
            ));
        }
        (Some(since), None) => {
            let time = when::time(since, &Zoned::now()).ok_or_else(|| no_time(since))?;
            Bring::DeletedSince(time)
        }
        (None, Some(at)) => Bring::At(at),
        (None, None) => Bring::Latest,
    };
    past.restore(place.path.as_ref(), &bring, r.dry_run)
}

fn compare(daemon: &dyn Daemon, r: &DiffRequest) -> Result<DiffReport, UserError> {
    let (past, place) = find(daemon, &r.path, r.version.as_deref())?;
    let old = place.at.clone().unwrap_or(At::Nth(1));
    let new = r.to.as_deref().map(at).transpose()?;
    past.diff(file(&place)?, &old, new.as_ref())
}

/// A kept version, for reading.
pub(super) fn open(
    daemon: &dyn Daemon,
    path: &std::path::Path,
    version: &str,
) -> Result<OpenFile, UserError> {
    let (past, place) = find(daemon, path, Some(version))?;
    let source = past.open(file(&place)?, place.at.as_ref())?;
    Ok(OpenFile {
        file: source.file,
        bytes: source.size,
    })
}

fn bytes_of(daemon: &dyn Daemon, r: &ContentRequest) -> Result<(Vec<u8>, u64), UserError> {
    let (past, place) = find(daemon, &r.path, r.version.as_deref())?;
    let path = file(&place)?;
    let mut source = past.open(path, place.at.as_ref())?;
    let length = r.length.unwrap_or(MAX_CONTENT).min(MAX_CONTENT);
    let mut bytes = Vec::new();
    source
        .file
        .seek(SeekFrom::Start(r.offset.min(source.size)))
        .and_then(|_| source.file.take(length).read_to_end(&mut bytes))
        .map_err(|e| {
            UserError::new(
                format!("cannot read {path}"),
                e,
                "see that it can be read by your user",
            )
        })?;
    Ok((bytes, source.size))
}

fn conflicts_of(daemon: &dyn Daemon, r: &ConflictsRequest) -> Result<Vec<ConflictInfo>, UserError> {
    let (past, place) = find(daemon, &r.path, None)?;
    past.conflicts(place.path.as_ref())
}

fn end_conflict(daemon: &dyn Daemon, r: &ResolveRequest) -> Result<Resolved, UserError> {
    let (past, place) = find(daemon, &r.path, None)?;
    let base = r.base.as_deref().map(at).transpose()?;
    past.resolve(file(&place)?, r.keep, base.as_ref())
}
