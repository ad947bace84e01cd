//! HTTP over the control socket (`$LEFT_HOME/control.sock`, mode 0600): how everything outside of
//! the process, the command line included, talks to a running left. A browser does over TCP on
//! loopback (`web/`), where the page is.
//!
//! Requests and answers are JSON. What they are is described beside each route (`routes/`), and in
//! the OpenAPI document that is made from them: [`document`], `GET /v1/openapi.json`,
//! `docs/openapi.json`. `docs/api.md` explains it.
//!
//! An error is a [`UserError`](crate::home::UserError) as JSON with status 400 (the request makes
//! no sense), 401 or 403 (the page: this browser has not entered), 404 or 405 (no such request), 422 (it could not be done), 503 (too many requests at
//! once) or 500 (a bug).

mod activity;
mod call;
mod client;
mod hooks;
mod metrics_port;
mod routes;
mod server;
mod socket;
mod stream;
mod web;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use activity::Activity;
pub use client::{Client, Events};
pub use hooks::{Hooks, LogLevel, LogLevelHook};
pub use routes::browse::{FileRequest, ListRequest};
pub use routes::choose::{ChoiceRequest, ChooseRequest};
pub use routes::device::LogLevelRequest;
pub use routes::document;
pub use routes::history::{
    ConflictsRequest, ContentRequest, DiffRequest, LogRequest, MAX_CONTENT, ResolveRequest,
    RestoreRequest, VersionsRequest,
};
pub use routes::members::{RemovePeerRequest, SyncRequest, TicketRequest};
pub use routes::modes::{ModeRequest, PausePeerRequest};
pub use routes::page::PageLink;
pub use routes::shares::{DirRequest, InShareRequest, JoinRequest, LimitRequest, ResumeRequest};
pub use routes::state::{VerifyRequest, WaitRequest};
pub use server::{Server, serve};

/// Done; there is nothing more to say.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Done {}
