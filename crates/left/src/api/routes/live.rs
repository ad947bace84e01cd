//! What the page shows, as it changes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::activity::Activity;
use super::super::call::{Api, Shared, blocking, until};
use super::super::stream::Chunks;
use crate::daemon::handle::Status;

/// How often it is looked whether something changed.
const EVERY: Duration = Duration::from_millis(400);
/// Looks after which a sign of life is sent: who went away is noticed by it.
const QUIET: u32 = 40;
/// Messages that wait for a slow reader.
const MAX_BEHIND: usize = 2;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(live))
        .routes(routes!(activity))
}

/// The status whenever it has changed, as server-sent events.
///
/// Each has the name `status` and a `Status` as its data, or the name `activity` when there is more
/// to see at `/v1/activity`. A slow reader gets fewer, never old ones.
#[utoipa::path(get, path = "/v1/live", tag = "state", responses(
    (status = 200, description = "A stream", body = Status, content_type = "text/event-stream")))]
async fn live(State(api): Shared) -> Response {
    let (messages, body) = mpsc::channel(MAX_BEHIND);
    tokio::spawn(async move {
        tokio::select! {
            () = tell(&api, &messages) => {}
            () = until(api.closed.clone()) => {}
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::new(Chunks(body))).into_response()
}

/// What happened lately, oldest first: the last few hundred events but those of state and progress.
#[utoipa::path(get, path = "/v1/activity", tag = "state",
    responses((status = 200, body = Vec<Activity>)))]
async fn activity(State(api): Shared) -> Response {
    axum::Json(api.activity.read()).into_response()
}

/// Sends until the reader is gone.
async fn tell(api: &Arc<Api>, to: &mpsc::Sender<std::io::Result<Bytes>>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, mut seen, mut quiet) = (String::new(), None, 0);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = to.closed() => return,
        }
        let mut text = String::new();
        // When too much is asked at once, the next look will do.
        if let Ok(Ok(status)) = blocking(api, |d| Ok(d.status())).await {
            let now = json(&status);
            if now != told {
                text.push_str(&format!("event: status\ndata: {now}\n\n"));
                told = now;
            }
        }
        let count = api.activity.count();
        if seen.replace(count) != Some(count) {
            text.push_str("event: activity\ndata: {}\n\n");
        }
        quiet += 1;
        if text.is_empty() {
            if quiet < QUIET {
                continue;
            }
            text.push_str(":\n\n");
        }
        quiet = 0;
        if to.send(Ok(Bytes::from(text))).await.is_err() {
            return;
        }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
