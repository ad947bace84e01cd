//! A port on loopback that serves nothing but the numbers for Prometheus, to who shows a token: other
//! users of this machine can reach it too, and they name folders and devices.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Router, extract::State};

use super::call::Api;
use super::routes;

/// A digest, so that comparing tells nothing of the token's length either.
type Digest = [u8; 32];

pub(super) fn router(api: Arc<Api>, token: &str) -> Router {
    let digest: Digest = blake3::hash(token.as_bytes()).into();
    routes::metrics_only()
        .with_state(api)
        .layer(from_fn_with_state(digest, guard))
}

async fn guard(State(digest): State<Digest>, request: Request, next: Next) -> Response {
    match is_known(request.headers(), &digest) {
        true => next.run(request).await,
        false => {
            let ask = [(header::WWW_AUTHENTICATE, "Bearer")];
            (StatusCode::UNAUTHORIZED, ask).into_response()
        }
    }
}

fn is_known(headers: &HeaderMap, digest: &Digest) -> bool {
    let shown = headers.get(header::AUTHORIZATION);
    let shown = shown.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    shown.is_some_and(|token| {
        verify_slices_are_equal(blake3::hash(token).as_bytes(), digest).is_ok()
    })
}
