//! What all routes are made of: the state they share, how a request is read, how the daemon is asked.

use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Query, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, watch};
use utoipa::IntoResponses;

use super::activity::Log;
use super::hooks::Hooks;
use super::web::Page;
use crate::daemon::handle::Daemon;
use crate::home::{Exit, Home, UserError};

/// Longest body of a request, in bytes. The longest that makes sense is a path with a ticket.
pub(super) const MAX_BODY: usize = 64 << 10;

/// What every route can reach.
pub(super) struct Api {
    pub(super) daemon: Arc<dyn Daemon>,
    pub(super) on_stop: Box<dyn Fn() + Send + Sync>,
    /// Calls of the daemon that may be under way at once.
    pub(super) permits: Arc<Semaphore>,
    /// Files that may be sent at once.
    pub(super) sendings: Arc<Semaphore>,
    /// What happened lately.
    pub(super) activity: Log,
    /// What the process can do, when it can.
    pub(super) hooks: OnceLock<Hooks>,
    /// The page, when it is served.
    pub(super) page: OnceLock<Page>,
    pub(super) home: Home,
    pub(super) closed: watch::Receiver<bool>,
}

pub(super) type Shared = State<Arc<Api>>;

/// How a request fails; each with a [`UserError`] as its body.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "only for the description")]
pub(super) enum Refused {
    /// The request makes no sense.
    #[response(status = 400)]
    Senseless(#[to_schema] UserError),
    /// It could not be done.
    #[response(status = 422)]
    NotDone(#[to_schema] UserError),
    /// Too many requests at once; try again.
    #[response(status = 503)]
    Busy(#[to_schema] UserError),
    /// A bug.
    #[response(status = 500)]
    Bug(#[to_schema] UserError),
}

/// A request's body, JSON.
pub(super) struct Input<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Input<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        let body = axum::body::to_bytes(request.into_body(), MAX_BODY).await;
        let body = body.map_err(|_| {
            unreadable(format!(
                "it is longer than {MAX_BODY} bytes, or its end is missing"
            ))
        })?;
        serde_json::from_slice(&body).map(Input).map_err(unreadable)
    }
}

/// What a request says behind its `?`.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let read = Query::try_from_uri(&parts.uri);
        read.map(|Query(asked)| Asked(asked)).map_err(unreadable)
    }
}

fn unreadable(why: impl std::fmt::Display) -> Response {
    let todo = "see the API's description";
    let error = UserError::usage("cannot read the request", why, todo);
    refuse(StatusCode::BAD_REQUEST, error)
}

/// Runs a blocking call of the daemon and answers with its result.
pub(super) async fn call<T: Serialize + Send + 'static>(
    api: &Arc<Api>,
    run: impl FnOnce(&dyn Daemon) -> Result<T, UserError> + Send + 'static,
) -> Response {
    finish(blocking(api, run).await)
}

/// The daemon's result, or the response when it could not be asked or did not do it.
pub(super) async fn ask<T: Send + 'static>(
    api: &Arc<Api>,
    run: impl FnOnce(&dyn Daemon) -> Result<T, UserError> + Send + 'static,
) -> Result<T, Response> {
    match blocking(api, run).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(not_done(error)),
        Err((status, error)) => Err(refuse(status, error)),
    }
}

/// What a blocking call of the daemon gave, or why it could not be made.
pub(super) type Outcome<T> = Result<Result<T, UserError>, (StatusCode, UserError)>;

/// Runs a blocking call of the daemon.
pub(super) async fn blocking<T: Send + 'static>(
    api: &Arc<Api>,
    run: impl FnOnce(&dyn Daemon) -> Result<T, UserError> + Send + 'static,
) -> Outcome<T> {
    let permit = api.permits.clone().try_acquire_owned();
    let permit = permit.map_err(|_| busy())?;
    let daemon = api.daemon.clone();
    let done = tokio::task::spawn_blocking(move || {
        // The permit is held by the thread, also when the client went away meanwhile.
        let _permit = permit;
        run(daemon.as_ref())
    });
    done.await.map_err(|e| {
        let e = UserError::new("left has a bug", e, "please report it with the log");
        (StatusCode::INTERNAL_SERVER_ERROR, e)
    })
}

/// There is more to do already than there may be at once.
pub(super) fn busy() -> (StatusCode, UserError) {
    let e = UserError::new("left is busy", "too many requests at once", "try again");
    (StatusCode::SERVICE_UNAVAILABLE, e)
}

/// The response of an outcome.
pub(super) fn finish<T: Serialize>(outcome: Outcome<T>) -> Response {
    match outcome {
        Ok(Ok(value)) => Json(value).into_response(),
        Ok(Err(error)) => not_done(error),
        Err((status, error)) => refuse(status, error),
    }
}

fn not_done(error: UserError) -> Response {
    let status = match error.exit_code == Exit::Usage as u8 {
        true => StatusCode::BAD_REQUEST,
        false => StatusCode::UNPROCESSABLE_ENTITY,
    };
    refuse(status, error)
}

/// An error as every route gives it.
pub(super) fn refuse(status: StatusCode, error: UserError) -> Response {
    (status, Json(error)).into_response()
}

/// Returns when the server stops.
pub(super) async fn until(mut closed: watch::Receiver<bool>) {
    // A dropped sender means the same.
    let _ = closed.wait_for(|closed| *closed).await;
}
