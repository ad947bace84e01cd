//! Framing of Hello, HelloReply and control messages: a 4-byte big-endian length, then the bytes.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Memory taken for a frame before its bytes have come.
const FIRST_READ: usize = 64 * 1024;
/// Written at once under one timeout.
const WRITE_STEP: usize = 64 * 1024;

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The other end closed between two frames.
    #[error("the connection was closed")]
    Closed,
    /// No byte came for too long.
    #[error("nothing came for {} seconds", .0.as_secs())]
    Silent(Duration),
    /// Longer than allowed.
    #[error("a message of {0} bytes is too long")]
    Oversize(usize),
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads the length of the next frame; `silence` bounds the wait for each byte.
pub(super) async fn read_len(
    stream: &mut (impl AsyncRead + Unpin),
    max: usize,
    silence: Duration,
) -> Result<usize, FrameError> {
    let mut head = [0; 4];
    let mut have = 0;
    while have < head.len() {
        match step(stream.read(&mut head[have..]), silence).await? {
            0 if have == 0 => return Err(FrameError::Closed),
            0 => return Err(cut_off()),
            n => have += n,
        }
    }
    let len = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if len > max {
        return Err(FrameError::Oversize(len));
    }
    Ok(len)
}

/// Reads a frame's bytes. Memory grows with what came, not with what was promised.
pub(super) async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    len: usize,
    silence: Duration,
) -> Result<Vec<u8>, FrameError> {
    let mut body = Vec::with_capacity(len.min(FIRST_READ));
    let mut rest = stream.take(len as u64);
    while body.len() < len {
        if step(rest.read_buf(&mut body), silence).await? == 0 {
            return Err(cut_off());
        }
    }
    Ok(body)
}

/// Writes `bytes`; each step must be taken within `stalled`.
pub(super) async fn write_all(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    stalled: Duration,
) -> io::Result<()> {
    for part in bytes.chunks(WRITE_STEP) {
        step(stream.write_all(part), stalled)
            .await
            .map_err(|e| match e {
                FrameError::Io(e) => e,
                other => io::Error::new(io::ErrorKind::TimedOut, other.to_string()),
            })?;
    }
    Ok(())
}

/// A message with its length in front. The caller keeps to the limit.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).expect("messages are far below 4 GiB");
    [&len.to_be_bytes(), message].concat()
}

async fn step<T>(
    action: impl Future<Output = io::Result<T>>,
    limit: Duration,
) -> Result<T, FrameError> {
    match timeout(limit, action).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(FrameError::Silent(limit)),
    }
}

fn cut_off() -> FrameError {
    FrameError::Io(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the connection was cut off inside a message",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(5);

    async fn read(mut bytes: &[u8], max: usize) -> Result<Vec<u8>, FrameError> {
        let len = read_len(&mut bytes, max, WAIT).await?;
        read_body(&mut bytes, len, WAIT).await
    }

    #[tokio::test]
    async fn reads_what_was_framed_and_refuses_the_rest() {
        assert_eq!(read(&framed(b"hello"), 5).await.unwrap(), b"hello");
        assert_eq!(read(&framed(b""), 5).await.unwrap(), b"");
        let long = read(&framed(b"hello!"), 5).await;
        assert!(matches!(long, Err(FrameError::Oversize(6))));
        let huge = read(&[0xff; 8], 5).await;
        assert!(matches!(huge, Err(FrameError::Oversize(0xffff_ffff))));
        assert!(matches!(read(b"", 5).await, Err(FrameError::Closed)));
        for cut in 1..9 {
            let cut_off = read(&framed(b"hello")[..cut], 5).await;
            assert!(matches!(cut_off, Err(FrameError::Io(_))), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn silence_ends_the_wait() {
        let short = Duration::from_millis(5);
        let (mut near, _far) = tokio::io::duplex(64);
        let silent = read_len(&mut near, 5, short).await;
        assert!(matches!(silent, Err(FrameError::Silent(_))));
        let stuck = write_all(&mut near, &[0; 65], short).await;
        assert_eq!(stuck.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
