//! Response bodies that are made while they are sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// A response's body, fed by a channel. An error breaks the response off.
pub(super) struct Chunks(pub(super) mpsc::Receiver<std::io::Result<Bytes>>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        let polled = self.0.poll_recv(cx);
        polled.map(|chunk| chunk.map(|bytes| bytes.map(Frame::data)))
    }
}
