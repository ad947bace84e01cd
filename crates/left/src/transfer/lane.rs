//! What transfer needs of a connection, and buffered reading from it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

/// An authenticated, blocking byte stream to one peer.
pub trait LaneStream: Read + Write + Send {}

impl<T: Read + Write + Send> LaneStream for T {}

/// Shuts a lane down from another thread, so that a blocked read or write on it returns.
pub trait LaneCloser: Send + Sync {
    /// Shuts down; again does nothing.
    fn close(&self);
}

impl LaneCloser for UnixStream {
    fn close(&self) {
        // Already closed is what we want.
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl LaneCloser for TcpStream {
    fn close(&self) {
        // Already closed is what we want.
        let _ = self.shutdown(Shutdown::Both);
    }
}

/// Bytes read ahead at a time. Larger payloads are read past the buffer, straight into place.
const READ_AHEAD: usize = 64 * 1024;

/// Reads a lane through a small buffer.
pub(crate) struct LaneReader {
    buf: Box<[u8]>,
    start: usize,
    end: usize,
}

impl LaneReader {
    pub(crate) fn new() -> Self {
        Self {
            buf: vec![0; READ_AHEAD].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    /// Bytes that can be read without waiting for the peer.
    pub(crate) fn buffered(&self) -> usize {
        self.end - self.start
    }

    /// Fills `out`. `Ok(false)` when the stream ended before its first byte.
    pub(crate) fn read<S: Read + ?Sized>(
        &mut self,
        stream: &mut S,
        out: &mut [u8],
    ) -> io::Result<bool> {
        let mut done = 0;
        while done < out.len() {
            let rest = &mut out[done..];
            let got = if self.buffered() > 0 {
                let n = self.buffered().min(rest.len());
                rest[..n].copy_from_slice(&self.buf[self.start..self.start + n]);
                self.start += n;
                n
            } else if rest.len() >= READ_AHEAD {
                read_some(stream, rest)?
            } else {
                self.start = 0;
                self.end = 0;
                self.end = read_some(stream, &mut self.buf)?;
                if self.end > 0 {
                    continue;
                }
                0
            };
            if got == 0 {
                return match done {
                    0 => Ok(false),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
            done += got;
        }
        Ok(true)
    }
}

fn read_some<S: Read + ?Sized>(stream: &mut S, out: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(out) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A buffer that keeps its memory and never zeroes it twice.
#[derive(Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    /// The first `len` bytes, whatever they hold.
    pub(crate) fn take(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        &mut self.bytes[..len]
    }

    /// The first `len` bytes; at most as many as were taken before.
    pub(crate) fn get(&self, len: usize) -> &[u8] {
        &self.bytes[..len]
    }
}
