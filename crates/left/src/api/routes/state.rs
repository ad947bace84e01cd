//! How everything is, and waiting until it is well.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::call::{Api, Input, Refused, Shared, blocking, call, finish};
use crate::daemon::handle::{Status, VerifyReport, WaitResult};
use crate::home::text;

/// How long one call of [`Daemon::wait`](crate::daemon::handle::Daemon::wait) takes at most, so
/// that a client that went away, or the end of this server, is noticed.
const WAIT_SLICE: Duration = Duration::from_secs(1);

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(wait))
        .routes(routes!(verify))
}

/// See [`Daemon::wait`](crate::daemon::handle::Daemon::wait).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WaitRequest {
    /// The folder, absolute; none: all shares.
    #[serde(with = "text::option", default)]
    #[schema(value_type = Option<String>)]
    pub dir: Option<PathBuf>,
    /// For how long at most, in milliseconds.
    pub timeout_ms: u64,
}

/// See [`Daemon::verify`](crate::daemon::handle::Daemon::verify).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VerifyRequest {
    /// The folder, absolute; none: all shares.
    #[serde(with = "text::option", default)]
    #[schema(value_type = Option<String>)]
    pub dir: Option<PathBuf>,
}

/// Everything as it is now.
#[utoipa::path(get, path = "/v1/status", tag = "state",
    responses((status = 200, body = Status), Refused))]
async fn status(State(api): Shared) -> Response {
    call(&api, |d| Ok(d.status())).await
}

/// Answers when a share (or all) is identical with every connected peer, or when the time is over.
#[utoipa::path(post, path = "/v1/wait", tag = "state", request_body = WaitRequest,
    responses((status = 200, body = WaitResult), Refused))]
async fn wait(State(api): Shared, Input(request): Input<WaitRequest>) -> Response {
    // Without an end in sight (an absurd timeout) it still ends with the server or the client.
    let end = Instant::now().checked_add(Duration::from_millis(request.timeout_ms));
    loop {
        let left = end.map_or(WAIT_SLICE, |end| {
            end.saturating_duration_since(Instant::now())
        });
        let dir = request.dir.clone();
        let slice = left.min(WAIT_SLICE);
        let result = blocking(&api, move |d| d.wait(dir.as_deref(), slice)).await;
        let go_on = matches!(&result, Ok(Ok(WaitResult { in_sync: false, .. })));
        if !go_on || left <= slice || *api.closed.borrow() {
            return finish(result);
        }
    }
}

/// Reads and hashes a share (or all) again, heals damaged files from peers.
#[utoipa::path(post, path = "/v1/verify", tag = "state", request_body = VerifyRequest,
    responses((status = 200, body = VerifyReport), Refused))]
async fn verify(State(api): Shared, Input(r): Input<VerifyRequest>) -> Response {
    call(&api, move |d| d.verify(r.dir.as_deref())).await
}
