//! Looking into a share.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::call::{Api, Asked, Refused, Shared, ask, busy, call, refuse};
use super::super::stream::Chunks;
use super::history;
use crate::daemon::handle::{Folder, OpenFile};
use crate::home::text;

/// Bytes read at a time, and how many such pieces wait for a slow reader.
const PIECE: usize = 64 << 10;
const PIECES: usize = 4;
/// Bytes by which the kind of a file is told.
const HEAD: usize = 512;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(file))
}

/// A folder of a share.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListRequest {
    /// The share's folder, absolute.
    #[serde(with = "text")]
    #[param(value_type = String)]
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// The folder in it, relative; none: its root.
    #[serde(with = "text::option", default)]
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<String>)]
    pub path: Option<PathBuf>,
    /// The last entry that is known already, its path in the share.
    #[serde(with = "text::option", default)]
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<String>)]
    pub after: Option<PathBuf>,
}

/// A file of a share.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FileRequest {
    /// The share's folder, absolute.
    #[serde(with = "text")]
    #[param(value_type = String)]
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// The file in it, relative.
    #[serde(with = "text")]
    #[param(value_type = String)]
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// A kept version of it instead, as `/v1/versions` names them; the file itself may be gone.
    #[serde(default)]
    pub version: Option<String>,
    /// At most so many bytes from its start.
    #[serde(default)]
    pub max: Option<u64>,
    /// To be shown, not kept: text and common pictures come as what they are, to be looked at.
    #[serde(default)]
    pub preview: bool,
}

/// What stands in a folder of a share, some hundred entries at a time.
#[utoipa::path(get, path = "/v1/list", tag = "files", params(ListRequest),
    responses((status = 200, body = Folder), Refused))]
async fn list(State(api): Shared, Asked(r): Asked<ListRequest>) -> Response {
    call(&api, move |d| {
        d.list(&r.dir, &r.path.unwrap_or_default(), r.after.as_deref())
    })
    .await
}

/// The bytes of a file.
#[utoipa::path(get, path = "/v1/file", tag = "files", params(FileRequest), responses(
    (status = 200, description = "Its bytes", content_type = "application/octet-stream"), Refused))]
async fn file(State(api): Shared, Asked(r): Asked<FileRequest>) -> Response {
    let (preview, max) = (r.preview, r.max);
    let Ok(permit) = api.sendings.clone().try_acquire_owned() else {
        let (status, error) = busy();
        return refuse(status, error);
    };
    let opened = ask(&api, move |d| {
        let mut opened = match &r.version {
            Some(version) => history::open(d, &r.dir.join(&r.path), version)?,
            None => d.open(&r.dir, &r.path)?,
        };
        let head = head(&mut opened);
        Ok((opened, head))
    });
    match opened.await {
        Ok((opened, head)) => send(opened, &head, preview, max, permit),
        Err(response) => response,
    }
}

/// The first bytes of a file, which is then at its start again. What cannot be read is not there:
/// reading on says so.
fn head(opened: &mut OpenFile) -> Vec<u8> {
    let mut head = Vec::new();
    let _ = (&mut opened.file).take(HEAD as u64).read_to_end(&mut head);
    let _ = opened.file.seek(SeekFrom::Start(0));
    head
}

/// A response with a file's bytes. Whatever is in it, a browser never runs it: as a preview it has
/// one of few types, and a policy that allows nothing; else it is only to be saved.
/// `permit` is held until it is sent.
pub(super) fn send(
    opened: OpenFile,
    head: &[u8],
    preview: bool,
    max: Option<u64>,
    permit: OwnedSemaphorePermit,
) -> Response {
    let bytes = opened.bytes.min(max.unwrap_or(u64::MAX));
    let kind = if preview { kind_of(head) } else { None };
    let mut headers = HeaderMap::new();
    let shown = match kind {
        Some(_) => "inline",
        None => "attachment",
    };
    let kind = kind.unwrap_or("application/octet-stream");
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_DISPOSITION, shown),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; sandbox",
        ),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let (pieces, body) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        read(opened.file, bytes, &pieces);
    });
    (headers, Body::new(Chunks(body))).into_response()
}

fn read(file: std::fs::File, mut left: u64, to: &mpsc::Sender<std::io::Result<Bytes>>) {
    let mut file = file.take(left);
    while left > 0 {
        let mut piece = Vec::with_capacity(PIECE);
        let got = (&mut file).take(PIECE as u64).read_to_end(&mut piece);
        let sent = match got {
            // It was made shorter meanwhile.
            Ok(0) => return,
            Ok(n) => {
                left = left.saturating_sub(n as u64);
                to.blocking_send(Ok(Bytes::from(piece)))
            }
            Err(e) => {
                // A broken answer tells the reader that it is not whole.
                let _ = to.blocking_send(Err(e));
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// The type of what can be looked at, told by its first bytes and never by its name. SVG and HTML
/// are text here.
fn kind_of(head: &[u8]) -> Option<&'static str> {
    let pictures: [(&[u8], &str); 5] = [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"BM", "image/bmp"),
    ];
    if let Some((_, kind)) = pictures.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some(kind);
    }
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        return Some("image/webp");
    }
    let text = match std::str::from_utf8(head) {
        Ok(_) => true,
        // A character that is cut off by the end.
        Err(e) => e.error_len().is_none(),
    };
    (text && !head.contains(&0)).then_some("text/plain; charset=utf-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_could_run_is_text() {
        let text = Some("text/plain; charset=utf-8");
        for head in [
            &b"<html><script>alert(1)</script>"[..],
            b"<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>",
            b"%PDF-1.7",
            b"",
            "caf\u{e9}".as_bytes(),
            b"cut off: \xc3",
        ] {
            assert_eq!(kind_of(head), text, "{head:?}");
        }
        assert_eq!(kind_of(b"\x89PNG\r\n\x1a\n..."), Some("image/png"));
        assert_eq!(kind_of(b"RIFF\x01\x02\x03\x04WEBPVP8 "), Some("image/webp"));
        assert_eq!(kind_of(b"\x7fELF\x00"), None);
        assert_eq!(kind_of(b"\xff\xfe<\0h\0"), None);
    }
}
