//! What every request to the page passes before anything looks at it, and what every answer says to
//! the browser. Other users of this machine and other sites in the same browser can send requests
//! here; none of them may do or learn anything.

use axum::extract::{Request, State};
use axum::http::header::AsHeaderName;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::super::call::{Shared, refuse};
use super::{ASSETS, ENTER, Page, closed_page};
use crate::home::UserError;

/// What the page may do in a browser: its own files only, nothing inline, in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn guard(State(api): Shared, request: Request, next: Next) -> Response {
    let refused = match api.page.get() {
        Some(page) => check(
            page,
            request.method(),
            request.uri().path(),
            request.headers(),
        ),
        None => Some(no("the page is not open")),
    };
    let mut response = match refused {
        Some(response) => response,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        // A file's own policy is stricter.
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    for (name, value) in [
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The answer to a request that goes no further; `None` for one that may.
fn check(page: &Page, method: &Method, path: &str, headers: &HeaderMap) -> Option<Response> {
    // A name that somebody else points at this machine (DNS rebinding) is not ours.
    let host = one(headers, header::HOST);
    let Some(host) = host.filter(|host| page.hosts.iter().any(|h| h == host)) else {
        return Some(no("the request names another host"));
    };
    let reads = method == Method::GET || method == Method::HEAD;
    let comes_in = reads && (path == "/" || path == ENTER);
    match one(headers, header::ORIGIN) {
        Some(origin) if origin == format!("http://{host}") => {}
        None if reads => {}
        _ => return Some(no("the request comes from another site")),
    }
    match one(headers, "sec-fetch-site") {
        None | Some("same-origin" | "none") => {}
        // A link to the page may stand anywhere; what it shows then is decided by the cookie.
        Some(_) if comes_in => {}
        Some(_) => return Some(no("the request comes from another site")),
    }
    if path == ENTER || path.starts_with(ASSETS) || page.has_entered(headers) {
        return None;
    }
    if path == "/" {
        return Some(closed_page());
    }
    let todo = "open the page with `left web`";
    let error = UserError::new("cannot answer", "this browser has not entered", todo);
    Some(refuse(StatusCode::UNAUTHORIZED, error))
}

/// A header's value, if it is there. Twice, or not as text, it is one that fits nothing.
fn one(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => None,
        (Some(value), None) => Some(value.to_str().unwrap_or("?")),
        (Some(_), Some(_)) => Some("?"),
    }
}

fn no(why: &str) -> Response {
    let todo = "open the page with `left web`";
    let error = UserError::new("cannot answer", why, todo);
    refuse(StatusCode::FORBIDDEN, error)
}
