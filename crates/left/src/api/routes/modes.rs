//! What the user chose for this device alone: which way a share goes, which peers are held still.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::call::{Api, Input, Refused, Shared, call};
use super::shares::InShareRequest;
use crate::daemon::handle::{Decided, ModeInfo, PeerPaused};
use crate::home::text::Text;
use crate::home::{Mode, UserError, text};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(mode))
        .routes(routes!(take))
        .routes(routes!(override_theirs))
        .routes(routes!(pause_peer))
}

/// See [`Daemon::mode`](crate::daemon::handle::Daemon::mode).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ModeRequest {
    /// The folder, absolute.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// `two-way`, `send-only` or `receive-only`; none: as it is.
    #[serde(default)]
    pub mode: Option<String>,
}

/// See [`Daemon::pause_peer`](crate::daemon::handle::Daemon::pause_peer).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PausePeerRequest {
    /// The folder, absolute.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// The device's name, id or the start of it.
    pub who: String,
    /// Hold it still, or let it go on.
    pub paused: bool,
}

/// Chooses which way a share goes on this device; answers with what counts now.
#[utoipa::path(post, path = "/v1/mode", tag = "shares", request_body = ModeRequest,
    responses((status = 200, body = ModeInfo), Refused))]
async fn mode(State(api): Shared, Input(r): Input<ModeRequest>) -> Response {
    call(&api, move |d| {
        let mode = r.mode.map(|text| {
            let why = format!("it is {}", Mode::WHAT);
            Mode::from_text(&text)
                .ok_or_else(|| UserError::usage("cannot choose the mode", why, ""))
        });
        d.mode(&r.dir, mode.transpose()?)
    })
    .await
}

/// Where this device only sends: does here what others changed.
#[utoipa::path(post, path = "/v1/take", tag = "shares", request_body = InShareRequest,
    responses((status = 200, body = Decided), Refused))]
async fn take(State(api): Shared, Input(r): Input<InShareRequest>) -> Response {
    call(&api, move |d| d.take(&r.dir, r.path.as_deref())).await
}

/// Where this device only sends: has the others become again as it is here.
#[utoipa::path(post, path = "/v1/override", tag = "shares", request_body = InShareRequest,
    responses((status = 200, body = Decided), Refused))]
async fn override_theirs(State(api): Shared, Input(r): Input<InShareRequest>) -> Response {
    call(&api, move |d| d.override_theirs(&r.dir, r.path.as_deref())).await
}

/// Holds one peer of a share still, or lets it go on; also over restarts.
#[utoipa::path(post, path = "/v1/pause-peer", tag = "members", request_body = PausePeerRequest,
    responses((status = 200, body = PeerPaused), Refused))]
async fn pause_peer(State(api): Shared, Input(r): Input<PausePeerRequest>) -> Response {
    call(&api, move |d| d.pause_peer(&r.dir, &r.who, r.paused)).await
}
