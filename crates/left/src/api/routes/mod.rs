//! The routes, one file a topic. A route is a request type, a handler and its description; the
//! OpenAPI document is made from the same list that requests are dispatched by, so none is missing.
//!
//! To add one: write the handler with its `#[utoipa::path]`, and name it in its file's `routes`.

pub(super) mod browse;
pub(super) mod choose;
pub(super) mod device;
pub(super) mod events;
pub(super) mod history;
pub(super) mod live;
pub(super) mod members;
pub(super) mod metrics;
pub(super) mod modes;
pub(super) mod page;
pub(super) mod shares;
pub(super) mod state;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::call::{Api, refuse};
use crate::home::UserError;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "LEFT",
        description = "What a running left can be asked, over its control socket \
                       (`$LEFT_HOME/control.sock`) and for its page. See docs/api.md.",
        license(name = "MIT OR Apache-2.0")
    ),
    tags(
        (name = "state", description = "How everything is"),
        (name = "shares", description = "Folders of this device"),
        (name = "members", description = "Who shares a folder"),
        (name = "files", description = "What is in a share"),
        (name = "history", description = "Old versions, and conflicts"),
        (name = "device", description = "This device and its left"),
    )
)]
struct Description;

fn all() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .merge(state::routes())
        .merge(shares::routes())
        .merge(members::routes())
        .merge(modes::routes())
        .merge(browse::routes())
        .merge(choose::routes())
        .merge(device::routes())
        .merge(events::routes())
        .merge(history::routes())
        .merge(live::routes())
        .merge(metrics::routes())
        .merge(page::routes())
}

/// What dispatches requests.
pub(super) fn router() -> Router<Arc<Api>> {
    let (router, _) = all().split_for_parts();
    router
        .fallback(async || nothing_here(StatusCode::NOT_FOUND, "there is no such request"))
        .method_not_allowed_fallback(async || {
            nothing_here(
                StatusCode::METHOD_NOT_ALLOWED,
                "the request has another method",
            )
        })
}

/// The numbers for Prometheus alone.
pub(super) fn metrics_only() -> Router<Arc<Api>> {
    metrics::routes().split_for_parts().0
}

/// The OpenAPI document of all requests, as JSON text.
pub fn document() -> String {
    let mut text = all().into_openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

fn nothing_here(status: StatusCode, why: &str) -> axum::response::Response {
    let todo = "update left, or see the API's description";
    refuse(status, UserError::usage("cannot answer", why, todo))
}
