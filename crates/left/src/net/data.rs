//! Data lanes: bulk bytes on a blocking, encrypted stream that a plain thread owns.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use left_core::message::{Nonce, ShareId};
use left_core::version::DeviceId;
use rustls::Connection;
use tokio_rustls::TlsStream;

use super::limits::Slot;

/// Read from the socket at once.
const READ_BUFFER: usize = 256 * 1024;
/// Encrypted before it is written to the socket at once.
const WRITE_BUFFER: usize = 256 * 1024;

/// An opened data lane.
#[derive(Debug)]
pub struct DataLane {
    /// The other end, proven.
    pub peer: DeviceId,
    /// The control lane it belongs to.
    pub session: Nonce,
    /// Which share.
    pub share: ShareId,
    /// Whether this end answers Wants here (else it asks).
    pub we_serve: bool,
    /// Whether only small contents travel here.
    pub express: bool,
    /// The bytes.
    pub stream: BlockingTls,
}

/// Bytes on the wire of one lane, encryption included, for rates.
#[derive(Debug, Default)]
pub struct Counters {
    /// Received.
    pub received: AtomicU64,
    /// Sent.
    pub sent: AtomicU64,
}

/// Ends a lane from another thread: its reads and writes fail at once.
#[derive(Debug)]
pub struct ShutdownHandle(TcpStream);

impl ShutdownHandle {
    /// Shuts both directions down.
    pub fn shutdown(&self) {
        // Fails only where the connection is gone already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A blocking TLS stream.
///
/// Writes are collected up to [`WRITE_BUFFER`]: call [`flush`](Write::flush) when the other end is
/// to see them. A write fails with `TimedOut` when the peer takes nothing for the configured time.
/// A read waits for ever unless [`set_read_timeout`](Self::set_read_timeout) says otherwise. Reading does not flush.
pub struct BlockingTls {
    connection: Connection,
    socket: TcpStream,
    input: Vec<u8>,
    unread: std::ops::Range<usize>,
    unsent: usize,
    counters: Arc<Counters>,
    _slot: Option<Slot>,
}

impl fmt::Debug for BlockingTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BlockingTls").field(&self.socket).finish()
    }
}

impl BlockingTls {
    /// Takes a connection over from the runtime. What was received already is inside the TLS
    /// state and not lost.
    pub(super) fn new(
        stream: TlsStream<tokio::net::TcpStream>,
        stalled: Duration,
        slot: Option<Slot>,
    ) -> io::Result<Self> {
        let (socket, mut connection) = match stream {
            TlsStream::Client(stream) => {
                let (socket, tls) = stream.into_inner();
                (socket, Connection::from(tls))
            }
            TlsStream::Server(stream) => {
                let (socket, tls) = stream.into_inner();
                (socket, Connection::from(tls))
            }
        };
        let socket = socket.into_std()?;
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(stalled))?;
        connection.set_buffer_limit(Some(2 * WRITE_BUFFER));
        Ok(Self {
            connection,
            socket,
            input: vec![0; READ_BUFFER],
            unread: 0..0,
            unsent: 0,
            counters: Arc::default(),
            _slot: slot,
        })
    }

    /// A handle that ends this lane from another thread.
    pub fn shutdown_handle(&self) -> io::Result<ShutdownHandle> {
        Ok(ShutdownHandle(self.socket.try_clone()?))
    }

    /// Bytes received and sent so far.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// How long a read waits for bytes; `None`: for ever.
    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(limit)
    }

    /// Receives until some plain bytes are there, or the end is known.
    fn receive(&mut self) -> io::Result<()> {
        if self.unread.is_empty() {
            let n = retry(|| self.socket.read(&mut self.input))?;
            self.counters
                .received
                .fetch_add(n as u64, Ordering::Relaxed);
            self.unread = 0..n;
        }
        let mut input = &self.input[self.unread.clone()];
        let taken = self.connection.read_tls(&mut input)?;
        self.unread.start += taken;
        let state = self.connection.process_new_packets();
        state.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            let connection = &mut self.connection;
            let n = retry(|| connection.write_tls(&mut self.socket))?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.counters.sent.fetch_add(n as u64, Ordering::Relaxed);
        }
        self.unsent = 0;
        Ok(())
    }

    fn wrote(&mut self, n: usize) -> io::Result<usize> {
        self.unsent += n;
        if self.unsent >= WRITE_BUFFER {
            self.send()?;
        }
        Ok(n)
    }
}

/// Repeats what a signal interrupted, and calls a passed time limit by its name.
fn retry(mut action: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match action() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            done => return done,
        }
    }
}

impl Read for BlockingTls {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.receive()?,
                done => return done,
            }
        }
    }
}

impl Write for BlockingTls {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self
            .connection
            .writer()
            .write(&buf[..buf.len().min(WRITE_BUFFER)])?;
        self.wrote(n)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let n = self.connection.writer().write_vectored(bufs)?;
        self.wrote(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Drop for BlockingTls {
    fn drop(&mut self) {
        // Tells the peer that this end was meant; no waiting for one who does not read.
        self.connection.send_close_notify();
        if self.socket.set_nonblocking(true).is_ok() {
            let _ = self.send();
        }
    }
}
