//! The page: the same requests as on the control socket, and the files that make them, for a browser
//! on this machine, over TCP on loopback.
//!
//! Whoever may open the control socket gets a one-time link from there (`POST /v1/web`); a browser
//! that opens it gets a cookie. See `guard` for everything else.

mod guard;
mod listen;
mod sessions;

use std::sync::Arc;

use axum::extract::Path;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use rust_embed::Embed;
use serde::Deserialize;
use tokio::net::TcpListener;

use super::call::{Api, Asked, Shared, refuse};
use super::routes;
use crate::home::UserError;
use sessions::{SESSION_LIFE, Sessions};

use listen::Bounded;

/// Where a one-time link leads, and what lies below is for everybody: it holds nothing of a user's.
const ENTER: &str = "/enter";
const ASSETS: &str = "/assets/";

/// The page's files: in the program; read anew from the source tree in debug builds.
#[derive(Embed)]
#[folder = "src/api/web/page"]
struct Files;

/// The page that is open, and who may use it.
pub(super) struct Page {
    /// What a request may name as its host.
    hosts: [String; 2],
    cookie: String,
    sessions: Sessions,
}

impl Page {
    pub(super) fn new(port: u16) -> Self {
        Self {
            hosts: [format!("127.0.0.1:{port}"), format!("localhost:{port}")],
            // Cookies do not know ports: each left of this machine has its own.
            cookie: format!("left-{port}"),
            sessions: Sessions::default(),
        }
    }

    /// A link that opens the page, once.
    pub(super) fn link(&self) -> Result<String, UserError> {
        let key = self.sessions.link()?;
        Ok(format!("http://{}{ENTER}?key={key}", self.hosts[0]))
    }

    fn has_entered(&self, headers: &HeaderMap) -> bool {
        let all = headers.get_all(header::COOKIE).iter();
        let mut all = all
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        all.any(|(name, value)| name == self.cookie && self.sessions.knows(value))
    }
}

/// What dispatches the page's requests.
pub(super) fn router(api: Arc<Api>) -> Router {
    routes::router()
        .route("/", get(async || file("index.html", StatusCode::OK)))
        .route(ENTER, get(enter))
        .route("/assets/{*name}", get(asset))
        .layer(middleware::from_fn_with_state(api.clone(), guard::guard))
        .with_state(api)
}

/// A listener for the page, on loopback only.
pub(super) fn listener(socket: std::net::TcpListener) -> std::io::Result<Bounded> {
    socket.set_nonblocking(true)?;
    Ok(Bounded::new(TcpListener::from_std(socket)?))
}

#[derive(Deserialize)]
struct Key {
    #[serde(default)]
    key: String,
}

/// Takes a one-time link and gives a cookie. It answers with a page that goes on to the real one: a
/// redirection would not carry a strict cookie when the link was followed from another site.
async fn enter(State(api): Shared, Asked(Key { key }): Asked<Key>) -> Response {
    let Some(page) = api.page.get() else {
        return closed_page();
    };
    match page.sessions.enter(&key) {
        Ok(Some(secret)) => {
            let life = SESSION_LIFE.as_secs();
            let cookie = format!(
                "{}={secret}; HttpOnly; SameSite=Strict; Path=/; Max-Age={life}",
                page.cookie
            );
            let entered = file("entered.html", StatusCode::OK);
            ([(header::SET_COOKIE, cookie)], entered).into_response()
        }
        Ok(None) => closed_page(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

async fn asset(Path(name): Path<String>) -> Response {
    match name.ends_with(".html") {
        true => StatusCode::NOT_FOUND.into_response(),
        false => file(&name, StatusCode::OK),
    }
}

/// What a browser sees that has not entered.
fn closed_page() -> Response {
    file("closed.html", StatusCode::UNAUTHORIZED)
}

fn file(name: &str, status: StatusCode) -> Response {
    let Some(file) = Files::get(name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let kind = match name.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let headers = [(header::CONTENT_TYPE, kind)];
    (status, headers, file.data.into_owned()).into_response()
}
