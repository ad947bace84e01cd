//! The stream of what happens.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::call::{Api, Shared, until};
use super::super::stream::Chunks;
use crate::daemon::handle::DaemonEvent;

/// Events a stream may lie behind before it takes no more from the daemon.
const MAX_BEHIND: usize = 256;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(events))
}

/// What happens from now on, until left stops.
///
/// One JSON object a line; with `Accept: text/event-stream` as server-sent events, each object
/// being the data of one.
#[utoipa::path(get, path = "/v1/events", tag = "state", responses(
    (status = 200, description = "A stream", body = DaemonEvent, content_type = "application/x-ndjson")))]
async fn events(State(api): Shared, headers: HeaderMap) -> Response {
    let sse = headers
        .get(header::ACCEPT)
        .is_some_and(|a| a.as_bytes().starts_with(b"text/event-stream"));
    let mut events = api.daemon.events();
    let (lines, body) = mpsc::channel(MAX_BEHIND);
    let closed = until(api.closed.clone());
    tokio::spawn(async move {
        tokio::pin!(closed);
        // Headers and a first line at once: who reads knows that nothing is missed from here on.
        if sse && lines.send(Ok(Bytes::from_static(b":\n\n"))).await.is_err() {
            return;
        }
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = lines.closed() => return,
                () = &mut closed => return,
            };
            let event = match event {
                Ok(event) => event,
                Err(RecvError::Lagged(n)) => DaemonEvent::Notice {
                    text: format!("{n} events were skipped: this reader is too slow"),
                },
                Err(RecvError::Closed) => return,
            };
            let Ok(json) = serde_json::to_string(&event) else {
                continue;
            };
            let line = match sse {
                true => format!("data: {json}\n\n"),
                false => format!("{json}\n"),
            };
            if lines.send(Ok(Bytes::from(line))).await.is_err() {
                return;
            }
        }
    });
    let kind = match sse {
        true => "text/event-stream",
        false => "application/x-ndjson",
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::new(Chunks(body))).into_response()
}
