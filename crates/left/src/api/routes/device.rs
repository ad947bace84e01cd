//! This device and its left.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::call::{Api, Input, Refused, Shared, blocking, call, finish};
use super::super::{Done, Hooks, LogLevel};
use crate::daemon::handle::Reloaded;
use crate::home::UserError;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(stop))
        .routes(routes!(reload))
        .routes(routes!(log_level))
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

/// Reads `config.toml` anew. One that can not be read changes nothing.
#[utoipa::path(post, path = "/v1/reload", tag = "device",
    responses((status = 200, body = Reloaded), Refused))]
async fn reload(State(api): Shared) -> Response {
    with_hooks(&api, |hooks| (hooks.reload)()).await
}

/// What the log is to say.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct LogLevelRequest {
    /// A level or a filter; none: only tell what holds.
    pub filter: Option<String>,
}

/// Sets what the log says, until left is started anew.
#[utoipa::path(post, path = "/v1/log-level", tag = "device", request_body = LogLevelRequest,
    responses((status = 200, body = LogLevel), Refused))]
async fn log_level(State(api): Shared, Input(r): Input<LogLevelRequest>) -> Response {
    with_hooks(&api, move |hooks| (hooks.log_level)(r.filter.as_deref())).await
}

async fn with_hooks<T: Serialize + Send + 'static>(
    api: &Arc<Api>,
    run: impl FnOnce(&Hooks) -> Result<T, UserError> + Send + 'static,
) -> Response {
    let own = api.clone();
    let done = blocking(api, move |_| match own.hooks.get() {
        Some(hooks) => run(hooks),
        None => Err(UserError::new(
            "cannot do that",
            "left does not run here as a program of its own",
            "do it where the library is used",
        )),
    });
    finish(done.await)
}

/// This description.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "device",
    responses((status = 200, description = "An OpenAPI document", content_type = "application/json")))]
async fn openapi() -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (headers, super::document()).into_response()
}
