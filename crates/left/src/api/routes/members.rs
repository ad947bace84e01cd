//! Who shares a folder: invited by ticket, paired by code, removed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use left_core::message::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::call::{Api, Input, Refused, Shared, call};
use crate::daemon::handle::{Removed, SyncInfo, TicketInfo};
use crate::home::text;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(ticket))
        .routes(routes!(sync))
        .routes(routes!(remove_peer))
}

/// See [`Daemon::ticket`](crate::daemon::handle::Daemon::ticket).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TicketRequest {
    /// The folder, absolute.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// What who uses it may do: `read-write` or `read-only`.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub role: Role,
    /// For how many seconds it is valid.
    pub expires_in: u64,
}

/// See [`Daemon::sync`](crate::daemon::handle::Daemon::sync).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SyncRequest {
    /// The folder, absolute.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// The other machine, `host` or `host:port`.
    pub peer: String,
    /// The code, if there is one already.
    #[serde(default)]
    pub code: Option<String>,
}

/// See [`Daemon::remove_peer`](crate::daemon::handle::Daemon::remove_peer).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RemovePeerRequest {
    /// The folder, absolute.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// The device's name, id or the start of it.
    pub who: String,
}

/// Makes a ticket; it lets one other device into the share, once.
#[utoipa::path(post, path = "/v1/ticket", tag = "members", request_body = TicketRequest,
    responses((status = 200, body = TicketInfo), Refused))]
async fn ticket(State(api): Shared, Input(r): Input<TicketRequest>) -> Response {
    let expires = Duration::from_secs(r.expires_in);
    call(&api, move |d| d.ticket(&r.dir, r.role, expires)).await
}

/// Pairs with another machine by a code; without one, a code is made.
#[utoipa::path(post, path = "/v1/sync", tag = "members", request_body = SyncRequest,
    responses((status = 200, body = SyncInfo), Refused))]
async fn sync(State(api): Shared, Input(r): Input<SyncRequest>) -> Response {
    call(&api, move |d| d.sync(&r.dir, &r.peer, r.code.as_deref())).await
}

/// Removes another device from a share; every member refuses it from when it hears of it.
#[utoipa::path(post, path = "/v1/remove-peer", tag = "members", request_body = RemovePeerRequest,
    responses((status = 200, body = Removed), Refused))]
async fn remove_peer(State(api): Shared, Input(r): Input<RemovePeerRequest>) -> Response {
    call(&api, move |d| d.remove_peer(&r.dir, &r.who)).await
}
