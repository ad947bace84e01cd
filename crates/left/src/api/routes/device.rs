//! This device and its left.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::Done;
use super::super::call::{Api, Refused, Shared, call};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(stop))
        .routes(routes!(openapi))
}

/// Stops left; answers when everything is written.
#[utoipa::path(post, path = "/v1/stop", tag = "device",
    responses((status = 200, body = Done), Refused))]
async fn stop(State(api): Shared) -> Response {
    let response = call(&api, |d| {
        d.stop();
        Ok(Done {})
    })
    .await;
    (api.on_stop)();
    response
}

/// This description.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "device",
    responses((status = 200, description = "An OpenAPI document", content_type = "application/json")))]
async fn openapi() -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (headers, super::document()).into_response()
}
