//! Data lanes: bulk bytes on a blocking, encrypted stream that a plain thread owns.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use left_core::message::{Nonce, ShareId};
use left_core::version::DeviceId;
use rustix::net::SendFlags;
use rustls::{Connection, ExtractedSecrets};
use tokio_rustls::TlsStream;

use super::limits::Slot;
use super::records::{
    HEADER, MAX_PLAIN, MAX_RECORD, OVERHEAD, Opened, Opener, RecordStream, Sealer, plain_room,
};

/// Received at once.
const READ_BUFFER: usize = 256 * 1024;
/// Sent at once: 16 full records.
const WRITE_BUFFER: usize = 16 * (MAX_PLAIN + OVERHEAD);
/// A peer that sends so many records without a byte in a row is up to no good.
const MAX_EMPTY_RECORDS: u32 = 32;

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
    /// Whether the other end takes compressed payloads.
    pub zstd: bool,
    /// How long a round trip took while it was opened.
    pub round_trip: Duration,
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
#[derive(Debug, Clone)]
pub struct ShutdownHandle(Arc<Socket>);

impl ShutdownHandle {
    /// Shuts both directions down.
    pub fn shutdown(&self) {
        // Fails only where the connection is gone already.
        let _ = self.0.tcp.shutdown(Shutdown::Both);
    }
}

/// What both halves of a lane share.
#[derive(Debug)]
struct Socket {
    tcp: TcpStream,
    counters: Arc<Counters>,
    _slot: Option<Slot>,
}

/// A blocking TLS stream; [`split`](Self::split) gives its halves to two threads.
///
/// Writes are collected: call [`flush`](Write::flush) when the other end is to see them. A write
/// fails with `TimedOut` when the peer takes nothing for [`super::Timeouts::stalled`]. A read
/// waits for ever unless [`set_read_timeout`](Self::set_read_timeout) says otherwise; it does not
/// flush. Reads into large buffers and writes from them copy nothing.
#[derive(Debug)]
pub struct BlockingTls {
    reader: TlsReader,
    writer: TlsWriter,
}

/// The receiving half. It ends with `Ok(0)` when the peer closed on purpose, with
/// `UnexpectedEof` when the connection was cut.
pub struct TlsReader {
    socket: Arc<Socket>,
    opener: Opener,
    /// Received; `ready` are plain bytes, `sealed` whole and partial records behind them.
    input: Box<[u8]>,
    ready: Range<usize>,
    sealed: Range<usize>,
    ended: bool,
}

/// The sending half. When it is dropped the peer is told that nothing more comes.
pub struct TlsWriter {
    socket: Arc<Socket>,
    sealer: Sealer,
    /// Plain bytes that do not fill a record yet.
    plain: Vec<u8>,
    /// Records to be sent.
    output: Box<[u8]>,
    unsent: Range<usize>,
}

impl fmt::Debug for TlsReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsReader").field(&self.socket.tcp).finish()
    }
}

impl fmt::Debug for TlsWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsWriter").field(&self.socket.tcp).finish()
    }
}

impl BlockingTls {
    /// Takes a connection over from the runtime, with what was received already.
    pub(super) fn new(
        stream: TlsStream<RecordStream>,
        stalled: Duration,
        slot: Option<Slot>,
    ) -> io::Result<Self> {
        let (records, mut connection) = match stream {
            TlsStream::Client(stream) => {
                let (records, tls) = stream.into_inner();
                (records, Connection::from(tls))
            }
            TlsStream::Server(stream) => {
                let (records, tls) = stream.into_inner();
                (records, Connection::from(tls))
            }
        };
        let tcp = records.into_tcp()?.into_std()?;
        tcp.set_nonblocking(false)?;
        tcp.set_write_timeout(Some(stalled))?;
        let mut early = Vec::new();
        let ended = match connection.reader().read_to_end(&mut early) {
            Ok(_) => true,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => false,
            Err(e) => return Err(e),
        };
        let mut input = vec![0; READ_BUFFER.max(early.len())].into_boxed_slice();
        input[..early.len()].copy_from_slice(&early);
        let suite = connection.negotiated_cipher_suite();
        let limit = suite
            .and_then(|s| s.tls13())
            .map_or(0, |s| s.common.confidentiality_limit);
        let secrets = connection.dangerous_extract_secrets();
        let ExtractedSecrets { tx, rx } = secrets.map_err(io::Error::other)?;
        let socket = Arc::new(Socket {
            tcp,
            counters: Arc::default(),
            _slot: slot,
        });
        let reader = TlsReader {
            socket: socket.clone(),
            opener: Opener::new(rx)?,
            input,
            ready: 0..early.len(),
            sealed: early.len()..early.len(),
            ended,
        };
        let writer = TlsWriter {
            socket,
            sealer: Sealer::new(tx, limit)?,
            plain: Vec::with_capacity(MAX_PLAIN),
            output: vec![0; WRITE_BUFFER].into_boxed_slice(),
            unsent: 0..0,
        };
        Ok(Self { reader, writer })
    }

    /// The two halves, which know nothing of each other and share no lock.
    pub fn split(self) -> (TlsReader, TlsWriter) {
        (self.reader, self.writer)
    }

    /// A handle that ends this lane from another thread.
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        ShutdownHandle(self.reader.socket.clone())
    }

    /// Bytes received and sent so far.
    pub fn counters(&self) -> Arc<Counters> {
        self.reader.socket.counters.clone()
    }

    /// How long a read waits for bytes; `None`: for ever.
    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.reader.socket.tcp.set_read_timeout(limit)
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

impl TlsReader {
    /// Receives until a whole record lies at the start of `sealed`; gives its length.
    fn record(&mut self) -> io::Result<usize> {
        loop {
            let have = &self.input[self.sealed.clone()];
            match Opener::record_len(have)? {
                Some(len) if len <= have.len() => return Ok(len),
                _ => self.receive()?,
            }
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        if self.sealed.is_empty() {
            self.sealed = 0..0;
        } else if self.input.len() - self.sealed.start < MAX_RECORD {
            // The part of a record at the very end: there must be room for its rest.
            self.input.copy_within(self.sealed.clone(), 0);
            self.sealed = 0..self.sealed.len();
        }
        let mut tcp = &self.socket.tcp;
        let n = retry(|| tcp.read(&mut self.input[self.sealed.end..]))?;
        if n == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection was cut",
            ));
        }
        self.sealed.end += n;
        let received = &self.socket.counters.received;
        received.fetch_add(n as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl Read for TlsReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut empty = 0;
        loop {
            if !self.ready.is_empty() {
                let n = self.ready.len().min(buf.len());
                buf[..n].copy_from_slice(&self.input[self.ready.start..][..n]);
                self.ready.start += n;
                return Ok(n);
            }
            if self.ended || buf.is_empty() {
                return Ok(0);
            }
            let len = self.record()?;
            let at = self.sealed.start;
            self.sealed.start += len;
            let record = &mut self.input[at..at + len];
            let opened = match buf.get_mut(..plain_room(len)) {
                Some(out) => self.opener.apart(record, out)?,
                None => self.opener.in_place(record)?,
            };
            match opened {
                Opened::End => self.ended = true,
                Opened::Data(0) if empty >= MAX_EMPTY_RECORDS => {
                    let why = "too many empty TLS records";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
                Opened::Data(0) => empty += 1,
                Opened::Data(n) if buf.len() >= plain_room(len) => return Ok(n),
                Opened::Data(n) => self.ready = at + HEADER..at + HEADER + n,
            }
        }
    }
}

impl TlsWriter {
    /// Seals one record; sends first if there is no room.
    fn seal(&mut self, plain: &[u8]) -> io::Result<()> {
        if self.output.len() - self.unsent.end < plain.len() + OVERHEAD {
            self.send()?;
        }
        let out = &mut self.output[self.unsent.end..];
        self.unsent.end += self.sealer.data(plain, out)?;
        Ok(())
    }

    fn seal_collected(&mut self) -> io::Result<()> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let plain = std::mem::take(&mut self.plain);
        let sealed = self.seal(&plain);
        self.plain = plain;
        // On an error too: the lane is of no use any more.
        self.plain.clear();
        sealed
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let mut tcp = &self.socket.tcp;
            let n = retry(|| tcp.write(&self.output[self.unsent.clone()]))?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.unsent.start += n;
            let sent = &self.socket.counters.sent;
            sent.fetch_add(n as u64, Ordering::Relaxed);
        }
        self.unsent = 0..0;
        Ok(())
    }
}

impl Write for TlsWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.plain.is_empty() && buf.len() >= MAX_PLAIN {
            self.seal(&buf[..MAX_PLAIN])?;
            return Ok(MAX_PLAIN);
        }
        let n = buf.len().min(MAX_PLAIN - self.plain.len());
        self.plain.extend_from_slice(&buf[..n]);
        if self.plain.len() == MAX_PLAIN {
            self.seal_collected()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.seal_collected()?;
        self.send()
    }
}

impl Drop for TlsWriter {
    fn drop(&mut self) {
        // As much as goes without waiting: a peer that does not read holds nobody up here.
        let _ = self.seal_collected();
        let room = &mut self.output[self.unsent.end..];
        if room.len() > 2 + OVERHEAD
            && let Ok(n) = self.sealer.close(room)
        {
            self.unsent.end += n;
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        while !self.unsent.is_empty() {
            match rustix::net::send(&self.socket.tcp, &self.output[self.unsent.clone()], flags) {
                Ok(n) if n > 0 => self.unsent.start += n,
                _ => break,
            }
        }
        // The peer's reader ends here, ours may go on.
        let _ = self.socket.tcp.shutdown(Shutdown::Write);
    }
}

impl Read for BlockingTls {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf)
    }
}

impl Write for BlockingTls {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writer.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
