//! The server's side: the routes on the control socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::call::{Api, until};
use super::{routes, socket};
use crate::daemon::handle::Daemon;
use crate::home::{Home, UserError};

/// Most requests answered at once; each may hold a thread.
const MAX_REQUESTS: usize = 64;
/// Most files sent at once; each holds a thread for as long as its reader takes.
const MAX_SENDINGS: usize = 32;
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
        sendings: Arc::new(Semaphore::new(MAX_SENDINGS)),
        closed: closed.clone(),
    });
    let listener = {
        let _context = runtime.enter();
        tokio::net::UnixListener::from_std(listener).map_err(error)?
    };
    let task = runtime.spawn(async move {
        let stop = until(closed);
        let served =
            axum::serve(listener, routes::router().with_state(api)).with_graceful_shutdown(stop);
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
