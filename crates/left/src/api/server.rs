//! The server's side: routes to a [`Daemon`].

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::body::Frame;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, mpsc, watch};

use super::{
    DirRequest, Done, JoinRequest, LimitRequest, RemovePeerRequest, ResumeRequest, RevertRequest,
    SyncRequest, TicketRequest, VerifyRequest, WaitRequest, history, socket,
};
use crate::daemon::handle::{Daemon, DaemonEvent, WaitResult};
use crate::home::{Exit, Home, UserError, parse_rate};

/// Most requests answered at once; each may hold a thread.
const MAX_REQUESTS: usize = 64;
/// Lines an event stream may lie behind before it takes no more from the daemon.
const MAX_LINES: usize = 256;
/// How long one call of [`Daemon::wait`] takes at most, so that a client that went away, or the
/// end of this server, is noticed.
const WAIT_SLICE: Duration = Duration::from_secs(1);
/// How long requests may finish once the server stops.
const GRACE: Duration = Duration::from_secs(2);

/// A running server; stops when dropped.
pub struct Server {
    runtime: Option<tokio::runtime::Runtime>,
    task: Option<tokio::task::JoinHandle<()>>,
    closing: watch::Sender<bool>,
    path: PathBuf,
}

/// Serves `daemon` on the control socket of `home`, whose lock the caller holds. `on_stop` is
/// called when a client has stopped the daemon.
pub fn serve(
    home: &Home,
    daemon: Arc<dyn Daemon>,
    on_stop: impl Fn() + Send + Sync + 'static,
) -> Result<Server, UserError> {
    let what = "cannot open the control socket";
    let path = home.socket();
    let error = |e: std::io::Error| UserError::io(what, &path, &e);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("left-api")
        .enable_all()
        .build()
        .map_err(error)?;
    let listener = socket::listen(&path).map_err(error)?;
    listener.set_nonblocking(true).map_err(error)?;
    let (closing, closed) = watch::channel(false);
    let api = Arc::new(Api {
        daemon,
        on_stop: Box::new(on_stop),
        permits: Arc::new(Semaphore::new(MAX_REQUESTS)),
        closed: closed.clone(),
    });
    let listener = {
        let _context = runtime.enter();
        tokio::net::UnixListener::from_std(listener).map_err(error)?
    };
    let task = runtime.spawn(async move {
        let stop = until(closed);
        let served = axum::serve(listener, routes(api)).with_graceful_shutdown(stop);
        if let Err(e) = served.await {
            tracing::error!("the control socket failed: {e}");
        }
    });
    Ok(Server {
        runtime: Some(runtime),
        task: Some(task),
        closing,
        path,
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        // First no new clients, then a last moment for those that wait for an answer.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.closing.send(true);
        if let (Some(runtime), Some(task)) = (self.runtime.take(), self.task.take()) {
            let _ = runtime.block_on(async { tokio::time::timeout(GRACE, task).await });
            runtime.shutdown_background();
        }
    }
}

pub(super) struct Api {
    daemon: Arc<dyn Daemon>,
    on_stop: Box<dyn Fn() + Send + Sync>,
    permits: Arc<Semaphore>,
    closed: watch::Receiver<bool>,
}

pub(super) type Shared = State<Arc<Api>>;

fn routes(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/events", get(events))
        .route("/v1/share", post(share))
        .route("/v1/join", post(join))
        .route("/v1/ticket", post(ticket))
        .route("/v1/sync", post(sync))
        .route("/v1/up", post(up))
        .route("/v1/wait", post(wait))
        .route("/v1/verify", post(verify))
        .route("/v1/pause", post(pause))
        .route("/v1/resume", post(resume))
        .route("/v1/revert", post(revert))
        .route("/v1/remove-peer", post(remove_peer))
        .route("/v1/limit", post(limit))
        .route("/v1/leave", post(leave))
        .route("/v1/stop", post(stop))
        .merge(history::routes())
        .fallback(|| async { answer::<Done>(Err(no_such_request()), StatusCode::NOT_FOUND) })
        .with_state(api)
}

async fn status(State(api): Shared) -> Response {
    call(&api, |d| Ok(d.status())).await
}

async fn share(State(api): Shared, body: Bytes) -> Response {
    with(&body, async |r: DirRequest| {
        call(&api, move |d| d.share(&r.dir)).await
    })
    .await
}

async fn join(State(api): Shared, body: Bytes) -> Response {
    with(&body, async |r: JoinRequest| {
        call(&api, move |d| d.join(&r.ticket, &r.dir)).await
    })
    .await
}

async fn ticket(State(api): Shared, body: Bytes) -> Response {
    with(&body, async |r: TicketRequest| {
        let expires = Duration::from_secs(r.expires_in);
        call(&api, move |d| d.ticket(&r.dir, r.role, expires)).await
    })
    .await
}

async fn sync(State(api): Shared, body: Bytes) -> Response {
    with(&body, async |r: SyncRequest| {
        call(&api, move |d| d.sync(&r.dir, &r.peer, r.code.as_deref())).await
    })
    .await
}

async fn up(State(api): Shared) -> Response {
    call(&api, |d| d.run_all()).await
}

async fn wait(State(api): Shared, body: Bytes) -> Response {
    with(&body, async |r: WaitRequest| wait_in_slices(&api, r).await).await
}

async fn verify(State(api): Shared, body: Bytes) -> Response {
    with(&body, async |r: VerifyRequest| {
        call(&api, move |d| d.verify(r.dir.as_deref())).await
    })
    .await
}

async fn pause(State(api): Shared, body: Bytes) -> Response {
    with(&body, async |r: DirRequest| {
        call(&api, move |d| d.pause(&r.dir).map(|()| Done {})).await
    })
    .await
}

async fn resume(State(api): Shared, body: Bytes) -> Response {
    with(&body, async |r: ResumeRequest| {
        call(&api, move |d| {
            d.resume(&r.dir, r.accept_deletions).map(|()| Done {})
        })
        .await
    })
    .await
}

async fn revert(State(api): Shared, body: Bytes) -> Response {
    with(&body, async |r: RevertRequest| {
        call(&api, move |d| d.revert(&r.dir, r.path.as_deref())).await
    })
    .await
}

async fn remove_peer(State(api): Shared, body: Bytes) -> Response {
    with(&body, async |r: RemovePeerRequest| {
        call(&api, move |d| d.remove_peer(&r.dir, &r.who)).await
    })
    .await
}

async fn limit(State(api): Shared, body: Bytes) -> Response {
    with(&body, async |r: LimitRequest| {
        call(&api, move |d| {
            let rate = |text: Option<String>| {
                let rate = text.map(|t| parse_rate(&t)).transpose();
                rate.map_err(|e| UserError::usage("cannot set the limit", e, ""))
            };
            d.limit(&r.dir, rate(r.up)?, rate(r.down)?)
        })
        .await
    })
    .await
}

async fn leave(State(api): Shared, body: Bytes) -> Response {
    with(&body, async |r: DirRequest| {
        call(&api, move |d| d.leave(&r.dir).map(|()| Done {})).await
    })
    .await
}

async fn stop(State(api): Shared) -> Response {
    let response = call(&api, |d| {
        d.stop();
        Ok(Done {})
    })
    .await;
    (api.on_stop)();
    response
}

async fn wait_in_slices(api: &Arc<Api>, request: WaitRequest) -> Response {
    // Without an end in sight (an absurd timeout) it still ends with the server or the client.
    let end = Instant::now().checked_add(Duration::from_millis(request.timeout_ms));
    loop {
        let left = end.map_or(WAIT_SLICE, |end| {
            end.saturating_duration_since(Instant::now())
        });
        let dir = request.dir.clone();
        let slice = left.min(WAIT_SLICE);
        let result = blocking(api, move |d| d.wait(dir.as_deref(), slice)).await;
        let go_on = matches!(&result, Ok(Ok(WaitResult { in_sync: false, .. })));
        if !go_on || left <= slice || *api.closed.borrow() {
            return finish(result);
        }
    }
}

async fn events(State(api): Shared) -> Response {
    let mut events = api.daemon.events();
    let (lines, body) = mpsc::channel(MAX_LINES);
    let closed = until(api.closed.clone());
    tokio::spawn(async move {
        tokio::pin!(closed);
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
            let Ok(mut line) = serde_json::to_vec(&event) else {
                continue;
            };
            line.push(b'\n');
            if lines.send(Bytes::from(line)).await.is_err() {
                return;
            }
        }
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (headers, Body::new(Lines(body))).into_response()
}

/// A response body fed by a channel.
struct Lines(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|line| line.map(|l| Ok(Frame::data(l))))
    }
}

async fn until(mut closed: watch::Receiver<bool>) {
    // A dropped sender means the same.
    let _ = closed.wait_for(|closed| *closed).await;
}

/// Decodes the request's body, or says what is wrong with it.
pub(super) async fn with<R: DeserializeOwned>(
    body: &[u8],
    run: impl AsyncFnOnce(R) -> Response,
) -> Response {
    match serde_json::from_slice(body) {
        Ok(request) => run(request).await,
        Err(e) => {
            let e = UserError::usage("cannot read the request", e, "see the API's description");
            answer::<Done>(Err(e), StatusCode::BAD_REQUEST)
        }
    }
}

/// Runs a blocking call of the daemon and answers with its result.
pub(super) async fn call<T: Serialize + Send + 'static>(
    api: &Arc<Api>,
    run: impl FnOnce(&dyn Daemon) -> Result<T, UserError> + Send + 'static,
) -> Response {
    finish(blocking(api, run).await)
}

/// The daemon's result, or the response when it could not be asked.
pub(super) async fn blocking<T: Send + 'static>(
    api: &Arc<Api>,
    run: impl FnOnce(&dyn Daemon) -> Result<T, UserError> + Send + 'static,
) -> Result<Result<T, UserError>, (UserError, StatusCode)> {
    let Ok(permit) = api.permits.clone().try_acquire_owned() else {
        let e = UserError::new("left is busy", "too many requests at once", "try again");
        return Err((e, StatusCode::SERVICE_UNAVAILABLE));
    };
    let daemon = api.daemon.clone();
    let done = tokio::task::spawn_blocking(move || {
        // The permit is held by the thread, also when the client went away meanwhile.
        let _permit = permit;
        run(daemon.as_ref())
    });
    done.await.map_err(|e| {
        let e = UserError::new("left has a bug", e, "please report it with the log");
        (e, StatusCode::INTERNAL_SERVER_ERROR)
    })
}

pub(super) fn finish<T: Serialize>(
    result: Result<Result<T, UserError>, (UserError, StatusCode)>,
) -> Response {
    match result {
        Ok(Err(e)) if e.exit_code == Exit::Usage as u8 => {
            answer::<T>(Err(e), StatusCode::BAD_REQUEST)
        }
        Ok(result) => answer(result, StatusCode::UNPROCESSABLE_ENTITY),
        Err((e, status)) => answer::<T>(Err(e), status),
    }
}

fn answer<T: Serialize>(result: Result<T, UserError>, on_error: StatusCode) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => (on_error, Json(error)).into_response(),
    }
}

fn no_such_request() -> UserError {
    let todo = "update left, or see the API's description";
    UserError::usage("cannot answer", "there is no such request", todo)
}
