//! Folders of this device: made, joined, run, held still, left.

use std::path::PathBuf;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::Done;
use super::super::call::{Api, Input, Refused, Shared, call};
use crate::daemon::handle::{Reverted, ShareInfo};
use crate::home::{Rate, UserError, parse_rate, text};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(share))
        .routes(routes!(join))
        .routes(routes!(up))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(revert))
        .routes(routes!(limit))
        .routes(routes!(leave))
}

/// Names a share by its folder.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DirRequest {
    /// The folder, absolute.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub dir: PathBuf,
}

/// See [`Daemon::join`](crate::daemon::handle::Daemon::join).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JoinRequest {
    /// The ticket.
    pub ticket: String,
    /// The folder, absolute.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// What this device holds of the share, relative; none: everything.
    #[serde(with = "text::list", default)]
    #[schema(value_type = Vec<String>)]
    pub only: Vec<PathBuf>,
}

/// See [`Daemon::resume`](crate::daemon::handle::Daemon::resume).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ResumeRequest {
    /// The folder, absolute.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// The deletions that raised the alarm are meant.
    #[serde(default)]
    pub accept_deletions: bool,
}

/// Names a share by its folder, and what in it is meant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct InShareRequest {
    /// The folder, absolute.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// What in it, relative; none: everything.
    #[serde(with = "text::option", default)]
    #[schema(value_type = Option<String>)]
    pub path: Option<PathBuf>,
}

/// See [`Daemon::limit`](crate::daemon::handle::Daemon::limit).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LimitRequest {
    /// The folder, absolute.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// Sent a second: `5MB`, `unlimited`; none: as it is.
    #[serde(default)]
    pub up: Option<String>,
    /// Received a second.
    #[serde(default)]
    pub down: Option<String>,
}

/// Makes a folder a share and runs it.
#[utoipa::path(post, path = "/v1/share", tag = "shares", request_body = DirRequest,
    responses((status = 200, body = ShareInfo), Refused))]
async fn share(State(api): Shared, Input(r): Input<DirRequest>) -> Response {
    call(&api, move |d| d.share(&r.dir)).await
}

/// Joins the ticket's share with a folder and runs it.
///
/// Answers once the inviter has, or after some seconds when it cannot be reached; then it is tried
/// again for as long as the ticket is valid.
#[utoipa::path(post, path = "/v1/join", tag = "shares", request_body = JoinRequest,
    responses((status = 200, body = ShareInfo), Refused))]
async fn join(State(api): Shared, Input(r): Input<JoinRequest>) -> Response {
    call(&api, move |d| d.join(&r.ticket, &r.dir, &r.only)).await
}

/// Runs all shares of this device.
#[utoipa::path(post, path = "/v1/up", tag = "shares",
    responses((status = 200, body = Vec<ShareInfo>), Refused))]
async fn up(State(api): Shared) -> Response {
    call(&api, |d| d.run_all()).await
}

/// Holds a share still until it is resumed, also over restarts.
#[utoipa::path(post, path = "/v1/pause", tag = "shares", request_body = DirRequest,
    responses((status = 200, body = Done), Refused))]
async fn pause(State(api): Shared, Input(r): Input<DirRequest>) -> Response {
    call(&api, move |d| d.pause(&r.dir).map(|()| Done {})).await
}

/// Lets a paused share go on, or ends an alarm.
#[utoipa::path(post, path = "/v1/resume", tag = "shares", request_body = ResumeRequest,
    responses((status = 200, body = Done), Refused))]
async fn resume(State(api): Shared, Input(r): Input<ResumeRequest>) -> Response {
    call(&api, move |d| {
        d.resume(&r.dir, r.accept_deletions).map(|()| Done {})
    })
    .await
}

/// Takes back what was edited where this device only receives.
#[utoipa::path(post, path = "/v1/revert", tag = "shares", request_body = InShareRequest,
    responses((status = 200, body = Reverted), Refused))]
async fn revert(State(api): Shared, Input(r): Input<InShareRequest>) -> Response {
    call(&api, move |d| d.revert(&r.dir, r.path.as_deref())).await
}

/// Sets how many bytes a second a share may send and receive; answers with what counts now.
#[utoipa::path(post, path = "/v1/limit", tag = "shares", request_body = LimitRequest,
    responses((status = 200, body = Rate), Refused))]
async fn limit(State(api): Shared, Input(r): Input<LimitRequest>) -> Response {
    call(&api, move |d| {
        let rate = |text: Option<String>| {
            let rate = text.map(|t| parse_rate(&t)).transpose();
            rate.map_err(|e| UserError::usage("cannot set the limit", e, ""))
        };
        d.limit(&r.dir, rate(r.up)?, rate(r.down)?)
    })
    .await
}

/// Leaves a share: its folder stays with all files, only `.left` goes.
#[utoipa::path(post, path = "/v1/leave", tag = "shares", request_body = DirRequest,
    responses((status = 200, body = Done), Refused))]
async fn leave(State(api): Shared, Input(r): Input<DirRequest>) -> Response {
    call(&api, move |d| d.leave(&r.dir).map(|()| Done {})).await
}
