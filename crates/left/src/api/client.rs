//! The client's side: blocking calls with the daemon's own types.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use left_core::message::Role;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use super::{
    ChoiceRequest, ChooseRequest, ConflictsRequest, DiffRequest, DirRequest, Done, InShareRequest,
    JoinRequest, LimitRequest, ListRequest, LogLevel, LogLevelRequest, LogRequest, ModeRequest,
    PageLink, PausePeerRequest, RemovePeerRequest, ResolveRequest, RestoreRequest, ResumeRequest,
    SyncRequest, TicketRequest, VerifyRequest, VersionsRequest, WaitRequest, socket,
};
use crate::daemon::handle::{
    Choice, Chosen, DaemonEvent, Decided, Folder, ModeInfo, PeerPaused, Reloaded, Removed,
    Reverted, ShareInfo, Status, SyncInfo, TicketInfo, VerifyReport, WaitResult,
};
use crate::daemon::history::{
    ConflictInfo, DiffReport, LogEntry, Resolved, RestoreReport, VersionInfo,
};
use crate::home::{Home, Rate, UserError};

/// Longest answer that is read.
const MAX_ANSWER: usize = 64 << 20;
/// Longest line of the event stream that is read.
const MAX_LINE: usize = 1 << 20;

/// Talks to the running left of a home. Each call is one connection. Not for use inside of
/// asynchronous code: calls block.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// `None` when no left runs with this home.
    pub fn connect(home: &Home) -> Result<Option<Client>, UserError> {
        let socket = home.socket();
        match socket::connect(&socket) {
            Ok(Some(_)) => Ok(Some(Client { socket })),
            Ok(None) => Ok(None),
            Err(e) => Err(UserError::io(
                "cannot reach the running left at",
                &socket,
                &e,
            )),
        }
    }

    /// See [`Daemon::status`](crate::daemon::handle::Daemon::status).
    pub fn status(&self) -> Result<Status, UserError> {
        self.call(Method::GET, "/v1/status", &Done {})
    }

    /// See [`Daemon::share`](crate::daemon::handle::Daemon::share).
    pub fn share(&self, dir: &Path) -> Result<ShareInfo, UserError> {
        self.post("/v1/share", &DirRequest { dir: dir.into() })
    }

    /// See [`Daemon::join`](crate::daemon::handle::Daemon::join).
    pub fn join(&self, ticket: &str, dir: &Path, only: &[PathBuf]) -> Result<ShareInfo, UserError> {
        let request = JoinRequest {
            ticket: ticket.to_string(),
            dir: dir.into(),
            only: only.to_vec(),
        };
        self.post("/v1/join", &request)
    }

    /// See [`Daemon::ticket`](crate::daemon::handle::Daemon::ticket).
    pub fn ticket(
        &self,
        dir: &Path,
        role: Role,
        expires: Duration,
    ) -> Result<TicketInfo, UserError> {
        let expires_in = expires.as_secs();
        self.post(
            "/v1/ticket",
            &TicketRequest {
                dir: dir.into(),
                role,
                expires_in,
            },
        )
    }

    /// See [`Daemon::sync`](crate::daemon::handle::Daemon::sync).
    pub fn sync(&self, dir: &Path, peer: &str, code: Option<&str>) -> Result<SyncInfo, UserError> {
        let request = SyncRequest {
            dir: dir.into(),
            peer: peer.to_string(),
            code: code.map(str::to_string),
        };
        self.post("/v1/sync", &request)
    }

    /// See [`Daemon::run_all`](crate::daemon::handle::Daemon::run_all).
    pub fn run_all(&self) -> Result<Vec<ShareInfo>, UserError> {
        self.post("/v1/up", &Done {})
    }

    /// See [`Daemon::wait`](crate::daemon::handle::Daemon::wait).
    pub fn wait(&self, dir: Option<&Path>, timeout: Duration) -> Result<WaitResult, UserError> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.post(
            "/v1/wait",
            &WaitRequest {
                dir: dir.map(Into::into),
                timeout_ms,
            },
        )
    }

    /// See [`Daemon::verify`](crate::daemon::handle::Daemon::verify).
    pub fn verify(&self, dir: Option<&Path>) -> Result<VerifyReport, UserError> {
        self.post(
            "/v1/verify",
            &VerifyRequest {
                dir: dir.map(Into::into),
            },
        )
    }

    /// See [`Daemon::pause`](crate::daemon::handle::Daemon::pause).
    pub fn pause(&self, dir: &Path) -> Result<(), UserError> {
        self.post("/v1/pause", &DirRequest { dir: dir.into() })
            .map(|Done {}| ())
    }

    /// See [`Daemon::resume`](crate::daemon::handle::Daemon::resume).
    pub fn resume(&self, dir: &Path, accept_deletions: bool) -> Result<(), UserError> {
        let request = ResumeRequest {
            dir: dir.into(),
            accept_deletions,
        };
        self.post("/v1/resume", &request).map(|Done {}| ())
    }

    /// See [`Daemon::revert`](crate::daemon::handle::Daemon::revert).
    pub fn revert(&self, dir: &Path, path: Option<&Path>) -> Result<Reverted, UserError> {
        let request = InShareRequest {
            dir: dir.into(),
            path: path.map(Into::into),
        };
        self.post("/v1/revert", &request)
    }

    /// See [`Daemon::remove_peer`](crate::daemon::handle::Daemon::remove_peer).
    pub fn remove_peer(&self, dir: &Path, who: &str) -> Result<Removed, UserError> {
        let request = RemovePeerRequest {
            dir: dir.into(),
            who: who.to_string(),
        };
        self.post("/v1/remove-peer", &request)
    }

    /// See [`Daemon::mode`](crate::daemon::handle::Daemon::mode).
    pub fn mode(&self, request: &ModeRequest) -> Result<ModeInfo, UserError> {
        self.post("/v1/mode", request)
    }

    /// See [`Daemon::take`](crate::daemon::handle::Daemon::take) and
    /// [`Daemon::override_theirs`](crate::daemon::handle::Daemon::override_theirs).
    pub fn decide(
        &self,
        dir: &Path,
        path: Option<&Path>,
        take: bool,
    ) -> Result<Decided, UserError> {
        let request = InShareRequest {
            dir: dir.into(),
            path: path.map(Into::into),
        };
        let route = if take { "/v1/take" } else { "/v1/override" };
        self.post(route, &request)
    }

    /// See [`Daemon::pause_peer`](crate::daemon::handle::Daemon::pause_peer).
    pub fn pause_peer(&self, dir: &Path, who: &str, paused: bool) -> Result<PeerPaused, UserError> {
        let request = PausePeerRequest {
            dir: dir.into(),
            who: who.to_string(),
            paused,
        };
        self.post("/v1/pause-peer", &request)
    }

    /// See [`Daemon::limit`](crate::daemon::handle::Daemon::limit).
    pub fn limit(&self, request: &LimitRequest) -> Result<Rate, UserError> {
        self.post("/v1/limit", request)
    }

    /// Has the settings read anew.
    pub fn reload(&self) -> Result<Reloaded, UserError> {
        self.post("/v1/reload", &Done {})
    }

    /// Sets what the log says, or only asks.
    pub fn log_level(&self, filter: Option<String>) -> Result<LogLevel, UserError> {
        self.post("/v1/log-level", &LogLevelRequest { filter })
    }

    /// See [`Daemon::choice`](crate::daemon::handle::Daemon::choice).
    pub fn choice(&self, dir: &Path) -> Result<Choice, UserError> {
        let request = ChoiceRequest { dir: dir.into() };
        self.call(Method::GET, &query("/v1/choice", &request)?, &Done {})
    }

    /// See [`Daemon::choose`](crate::daemon::handle::Daemon::choose).
    pub fn choose(&self, request: &ChooseRequest) -> Result<Chosen, UserError> {
        self.post("/v1/choose", request)
    }

    /// See [`Daemon::list`](crate::daemon::handle::Daemon::list).
    pub fn list(&self, request: &ListRequest) -> Result<Folder, UserError> {
        self.call(Method::GET, &query("/v1/list", request)?, &Done {})
    }

    /// What changed, the latest first.
    pub fn log(&self, request: &LogRequest) -> Result<Vec<LogEntry>, UserError> {
        self.post("/v1/log", request)
    }

    /// Which versions of a path are kept, the latest first.
    pub fn versions(&self, request: &VersionsRequest) -> Result<Vec<VersionInfo>, UserError> {
        self.post("/v1/versions", request)
    }

    /// Brings versions back.
    pub fn restore(&self, request: &RestoreRequest) -> Result<RestoreReport, UserError> {
        self.post("/v1/restore", request)
    }

    /// Compares versions.
    pub fn diff(&self, request: &DiffRequest) -> Result<DiffReport, UserError> {
        self.post("/v1/diff", request)
    }

    /// The conflict copies at and below a path.
    pub fn conflicts(&self, request: &ConflictsRequest) -> Result<Vec<ConflictInfo>, UserError> {
        self.post("/v1/conflicts", request)
    }

    /// Ends a conflict.
    pub fn resolve(&self, request: &ResolveRequest) -> Result<Resolved, UserError> {
        self.post("/v1/resolve", request)
    }

    /// See [`Daemon::leave`](crate::daemon::handle::Daemon::leave).
    pub fn leave(&self, dir: &Path) -> Result<(), UserError> {
        self.post("/v1/leave", &DirRequest { dir: dir.into() })
            .map(|Done {}| ())
    }

    /// A link that opens the running left's page in a browser, once.
    pub fn page_link(&self) -> Result<String, UserError> {
        self.post("/v1/web", &Done {}).map(|PageLink { url }| url)
    }

    /// Stops the running left; returns when it has written everything.
    pub fn stop(&self) -> Result<(), UserError> {
        self.post("/v1/stop", &Done {}).map(|Done {}| ())
    }

    /// What happens from now on, until that left stops.
    pub fn events(&self) -> Result<Events, UserError> {
        let runtime = runtime()?;
        let response = runtime.block_on(self.send(Method::GET, "/v1/events", &Done {}))?;
        Ok(Events {
            runtime,
            body: response.into_body(),
            rest: Vec::new(),
        })
    }

    fn post<A: Serialize, R: DeserializeOwned>(
        &self,
        path: &str,
        request: &A,
    ) -> Result<R, UserError> {
        self.call(Method::POST, path, request)
    }

    fn call<A: Serialize, R: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        request: &A,
    ) -> Result<R, UserError> {
        runtime()?.block_on(async {
            let response = self.send(method, path, request).await?;
            let ok = response.status().is_success();
            let body = Limited::new(response.into_body(), MAX_ANSWER);
            let bytes = body.collect().await.map_err(broken)?.to_bytes();
            if ok {
                return serde_json::from_slice(&bytes).map_err(broken);
            }
            Err(serde_json::from_slice::<UserError>(&bytes).unwrap_or_else(broken))
        })
    }

    async fn send<A: Serialize>(
        &self,
        method: Method,
        path: &str,
        request: &A,
    ) -> Result<Response<Incoming>, UserError> {
        let stream = socket::connect(&self.socket)
            .and_then(|s| s.ok_or(std::io::ErrorKind::ConnectionRefused.into()))
            .and_then(|s| s.set_nonblocking(true).map(|()| s))
            .and_then(tokio::net::UnixStream::from_std)
            .map_err(|e| UserError::io("cannot reach the running left at", &self.socket, &e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        tokio::spawn(connection);
        let body = serde_json::to_vec(request).map_err(broken)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "left")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(broken)?;
        sender.send_request(request).await.map_err(broken)
    }
}

/// A request's address with what it asks for behind the `?`.
fn query(path: &str, request: &impl Serialize) -> Result<String, UserError> {
    let value = serde_json::to_value(request).map_err(broken)?;
    let mut uri = path.to_owned();
    for (name, value) in value.as_object().into_iter().flatten() {
        let text = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        uri.push(if uri.len() == path.len() { '?' } else { '&' });
        uri.push_str(name);
        uri.push('=');
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                    uri.push(char::from(byte));
                }
                _ => uri.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    Ok(uri)
}

/// The events of a running left, oldest first; ends when it stops.
#[derive(Debug)]
pub struct Events {
    runtime: Runtime,
    body: Incoming,
    rest: Vec<u8>,
}

impl Iterator for Events {
    type Item = DaemonEvent;

    fn next(&mut self) -> Option<DaemonEvent> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                // An event that a newer left added is none for us.
                if let Ok(event) = serde_json::from_slice(&line) {
                    return Some(event);
                }
                continue;
            }
            if self.rest.len() > MAX_LINE {
                return None;
            }
            let frame = self.runtime.block_on(self.body.frame())?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.rest.extend_from_slice(&data);
            }
        }
    }
}

fn runtime() -> Result<Runtime, UserError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| UserError::new("cannot talk to the running left", e, "try again"))
}

fn broken(error: impl std::fmt::Display) -> UserError {
    UserError::new(
        "the running left did not answer",
        error,
        "see whether it still runs (`left status`) and try again",
    )
}
