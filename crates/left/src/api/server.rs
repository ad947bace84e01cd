//! The server's side: the routes on the control socket, and for the page.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::call::{Api, until};
use super::hooks::Hooks;
use super::web::{self, Page};
use super::{activity, metrics_port, routes, socket};
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
    tasks: Vec<tokio::task::JoinHandle<()>>,
    api: Arc<Api>,
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
        activity: activity::Log::default(),
        hooks: OnceLock::new(),
        page: OnceLock::new(),
        home: home.clone(),
        closed: closed.clone(),
    });
    let listener = {
        let _context = runtime.enter();
        tokio::net::UnixListener::from_std(listener).map_err(error)?
    };
    runtime.spawn({
        let (api, events) = (api.clone(), api.daemon.events());
        async move { api.activity.follow(events).await }
    });
    let routes = routes::router().with_state(api.clone());
    let task = runtime.spawn(async move {
        let served = axum::serve(listener, routes).with_graceful_shutdown(until(closed));
        if let Err(e) = served.await {
            tracing::error!("the control socket failed: {e}");
        }
    });
    Ok(Server {
        runtime: Some(runtime),
        tasks: vec![task],
        api,
        closing,
        path,
    })
}

impl Server {
    /// Serves the page too, on loopback; with port 0 on a free one. Who wants to open it asks
    /// `POST /v1/web` for a link. A second call does nothing.
    pub fn open_page(&mut self, port: u16) -> Result<(), UserError> {
        let error = |e: std::io::Error| {
            let what = format!("cannot open the page on port {port} of this machine");
            UserError::new(what, e, "set another `web_port` in config.toml")
        };
        let Some(runtime) = self
            .runtime
            .as_ref()
            .filter(|_| self.api.page.get().is_none())
        else {
            return Ok(());
        };
        let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(error)?;
        let port = socket.local_addr().map_err(error)?.port();
        let listener = {
            let _context = runtime.enter();
            web::listener(socket).map_err(error)?
        };
        let _ = self.api.page.set(Page::new(port));
        let (routes, closed) = (web::router(self.api.clone()), self.api.closed.clone());
        self.tasks.push(runtime.spawn(async move {
            let served = axum::serve(listener, routes).with_graceful_shutdown(until(closed));
            if let Err(e) = served.await {
                tracing::error!("the page failed: {e}");
            }
        }));
        Ok(())
    }
}

impl Server {
    /// Lets requests reach what only this process can do. A second call does nothing.
    pub fn hook(&self, hooks: Hooks) {
        let _ = self.api.hooks.set(hooks);
    }

    /// Serves `GET /metrics` on loopback to whoever shows the token.
    pub fn open_metrics(&mut self, port: u16, token: &str) -> Result<(), UserError> {
        let error = |e: std::io::Error| {
            let what = format!("cannot serve metrics on port {port} of this machine");
            UserError::new(what, e, "set another `port` in [metrics] of config.toml")
        };
        let Some(runtime) = &self.runtime else {
            return Ok(());
        };
        let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(error)?;
        let listener = {
            let _context = runtime.enter();
            web::listener(socket).map_err(error)?
        };
        let routes = metrics_port::router(self.api.clone(), token);
        let closed = self.api.closed.clone();
        self.tasks.push(runtime.spawn(async move {
            let served = axum::serve(listener, routes).with_graceful_shutdown(until(closed));
            if let Err(e) = served.await {
                tracing::error!("the port for metrics failed: {e}");
            }
        }));
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // First no new clients, then a last moment for those that wait for an answer.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.closing.send(true);
        let tasks = std::mem::take(&mut self.tasks);
        if let Some(runtime) = self.runtime.take() {
            let all = async {
                for task in tasks {
                    let _ = task.await;
                }
            };
            let _ = runtime.block_on(async { tokio::time::timeout(GRACE, all).await });
            runtime.shutdown_background();
        }
    }
}
