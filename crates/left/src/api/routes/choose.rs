//! What this device holds of a share.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::call::{Api, Asked, Input, Refused, Shared, call};
use crate::daemon::handle::{Choice, Choosing, Chosen};
use crate::home::text;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(choice))
        .routes(routes!(choose))
}

/// Names a share by its folder.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ChoiceRequest {
    /// The share's folder, absolute.
    #[serde(with = "text")]
    #[param(value_type = String)]
    #[schema(value_type = String)]
    pub dir: PathBuf,
}

/// See [`Daemon::choose`](crate::daemon::handle::Daemon::choose).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ChooseRequest {
    /// The share's folder, absolute.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// What to do with the paths.
    pub how: Choosing,
    /// Folders and files in the share, relative to it.
    #[serde(with = "text::list", default)]
    #[schema(value_type = Vec<String>)]
    pub paths: Vec<PathBuf>,
}

/// What this device holds of a share.
#[utoipa::path(get, path = "/v1/choice", tag = "files", params(ChoiceRequest),
    responses((status = 200, body = Choice), Refused))]
async fn choice(State(api): Shared, Asked(r): Asked<ChoiceRequest>) -> Response {
    call(&api, move |d| d.choice(&r.dir)).await
}

/// Changes what this device holds of a share: chooses folders, fetches and drops single things. Answers
/// when all is gone from here that is not to be held and that another connected device has. No deletion
/// for anybody.
#[utoipa::path(post, path = "/v1/choose", tag = "files", request_body = ChooseRequest,
    responses((status = 200, body = Chosen), Refused))]
async fn choose(State(api): Shared, Input(r): Input<ChooseRequest>) -> Response {
    call(&api, move |d| d.choose(&r.dir, r.how, &r.paths)).await
}
