//! The control lane: messages between two devices about one share.
//!
//! Its owner is a plain thread. [`ControlLane::start`] takes a callback, which typically forwards
//! into the owner's channel, and gives a [`ControlSender`]. Neither side ever blocks:
//!
//! - In: a message occupies room until its owner takes it ([`Incoming::take`] or drop). When
//!   [`MAX_UNTAKEN`] messages or [`MAX_UNTAKEN_BYTES`] wait, the lane stops reading and TCP holds
//!   the peer back. So the owner's channel may be unbounded; the credit bounds it. An owner that
//!   takes nothing for [`super::Timeouts::stalled`] while the peer has more to say loses the lane.
//! - Out: [`ControlSender::try_send`] says [`SendError::Full`] when the outbox is full;
//!   [`LaneEvent::SendReady`] follows once there is room.
//!
//! Pings are sent and answered in here. [`ControlSender::probe`] asks out of turn. The end is told exactly once, as the last event.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use left_core::message::{Control, MAX_MESSAGE, Nonce, Role, ShareId};
use left_core::version::DeviceId;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsStream;

use super::frame::{FrameError, framed, read_body, read_len, write_all};
use super::handshake::linger;
use super::outbox::{Next, Outbox};
use super::records::RecordStream;
use super::settle::LaneFacts;
use super::{Slot, Timeouts};

pub use super::outbox::{ControlSender, SendError};

/// Most messages that wait for their owner.
pub const MAX_UNTAKEN: usize = 16;
/// Most bytes (as encoded) that wait for their owner.
pub const MAX_UNTAKEN_BYTES: usize = 4 << 20;
/// Two TLS records.
const READ_BUFFER: usize = 32 * 1024;
/// How long a closed lane waits for the peer to close too.
const LINGER: Duration = Duration::from_secs(1);
/// How long a closing lane tries to send what is queued.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What is known of a control lane.
#[derive(Clone, Debug)]
pub struct LaneInfo {
    /// The other end, proven.
    pub peer: DeviceId,
    /// Which share.
    pub share: ShareId,
    /// What the dialer of this lane may do in the share, as the acceptor says.
    pub dialer_role: Role,
    /// Where the other end is.
    pub remote: SocketAddr,
    /// The peer's name, as it says.
    pub name: String,
    /// Where the peer may be dialed, as it says.
    pub addresses: Vec<String>,
    /// The peer's run.
    pub instance: Nonce,
    /// Names this lane for its data lanes.
    pub session: Nonce,
    /// Whether this end dialed.
    pub dialed_by_us: bool,
    /// Whether the peer understands what it is told of contents that are being fetched.
    pub parts: bool,
    /// How long a round trip took while it was opened.
    pub round_trip: Duration,
}

impl LaneInfo {
    /// What [`super::settle::keep`] needs.
    pub fn facts(&self) -> LaneFacts {
        LaneFacts {
            peer_instance: self.instance,
            dialed_by_us: self.dialed_by_us,
        }
    }
}

/// An opened control lane. Nothing is read from it before [`start`](Self::start).
pub struct ControlLane {
    /// What is known of it.
    pub info: LaneInfo,
    /// Boxed: TLS state is large, and lanes travel in events.
    pub(super) stream: Box<TlsStream<RecordStream>>,
    pub(super) timeouts: Timeouts,
    pub(super) runtime: Handle,
    /// Counts against the limit of accepted connections.
    pub(super) slot: Option<Slot>,
}

impl fmt::Debug for ControlLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ControlLane").field(&self.info).finish()
    }
}

/// Everything a running lane tells its owner.
#[derive(Debug)]
pub enum LaneEvent {
    /// A message came.
    Message(Incoming),
    /// After [`SendError::Full`]: there is room again.
    SendReady,
    /// The lane is gone. Always the last event, and told exactly once.
    Closed(LaneEnd),
}

/// A received message that still occupies room in its lane.
#[derive(Debug)]
pub struct Incoming {
    message: Control,
    _room: [OwnedSemaphorePermit; 2],
}

impl Incoming {
    /// Takes the message out and lets the lane read on.
    pub fn take(self) -> Control {
        self.message
    }

    /// Looks at the message.
    pub fn message(&self) -> &Control {
        &self.message
    }
}

/// Why a lane ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LaneEnd {
    /// This end closed it.
    #[error("closed by this device")]
    Closed,
    /// The peer closed it and said why.
    #[error("closed by the peer: {0}")]
    Bye(String),
    /// The connection failed.
    #[error("connection lost: {0}")]
    Lost(String),
    /// Nothing came from the peer for too long, not even an answer to a ping.
    #[error("the peer has been silent for {} seconds", .0.as_secs())]
    Silent(Duration),
    /// The peer took nothing for too long.
    #[error("the peer has stopped reading")]
    Stalled,
    /// The peer sent what is no message.
    #[error("the peer broke the protocol: {0}")]
    Malformed(String),
}

type OnEvent = dyn Fn(LaneEvent) + Send + Sync;

impl ControlLane {
    /// Starts reading and writing. `on_event` is called from the runtime's threads, one event at
    /// a time and in order; it must not block. When all senders are dropped the lane closes.
    pub fn start(self, on_event: impl Fn(LaneEvent) + Send + Sync + 'static) -> ControlSender {
        let (outbox, sender) = Outbox::new();
        let runtime = self.runtime.clone();
        // Made here, so that the end is told even if the task never gets to run.
        let teller = Teller {
            on_event: Arc::new(on_event),
            outbox,
            end: None,
        };
        runtime.spawn(run(self, teller));
        sender
    }

    /// Closes a lane that is not needed, and tells the peer why.
    pub fn close(self, reason: &str) {
        let sender = self.start(|_| ());
        sender.close(reason);
    }
}

/// Tells the end also when the task is dropped with its runtime.
struct Teller {
    on_event: Arc<OnEvent>,
    outbox: Arc<Outbox>,
    end: Option<LaneEnd>,
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.outbox.finish();
        let lost = || LaneEnd::Lost("this device is shutting down".into());
        (self.on_event)(LaneEvent::Closed(self.end.take().unwrap_or_else(lost)));
    }
}

async fn run(lane: ControlLane, mut teller: Teller) {
    let ControlLane {
        mut stream,
        timeouts,
        slot,
        ..
    } = lane;
    let (outbox, on_event) = (teller.outbox.clone(), teller.on_event.clone());
    stream.get_mut().0.unlimited();
    let end = {
        let (reader, mut writer) = tokio::io::split(&mut *stream);
        let heard = Heard::default();
        let reader = Listening(reader, &heard);
        let mut reader = BufReader::with_capacity(READ_BUFFER, reader);
        tokio::select! {
            end = read_loop(&mut reader, &heard, &outbox, &*on_event, &timeouts) => end,
            end = doubt_loop(&heard, &outbox, timeouts.probe) => end,
            end = write_loop(&mut writer, &outbox, &*on_event, &timeouts) => end,
        }
    };
    outbox.finish();
    if matches!(
        end,
        LaneEnd::Closed | LaneEnd::Bye(_) | LaneEnd::Malformed(_)
    ) {
        linger(&mut *stream, LINGER).await;
    }
    drop(stream);
    drop(slot);
    teller.end = Some(end);
}

async fn read_loop(
    stream: &mut (impl AsyncRead + Unpin),
    heard: &Heard,
    outbox: &Outbox,
    on_event: &OnEvent,
    timeouts: &Timeouts,
) -> LaneEnd {
    let messages = Arc::new(Semaphore::new(MAX_UNTAKEN));
    let bytes = Arc::new(Semaphore::new(MAX_UNTAKEN_BYTES));
    loop {
        match read_message(stream, heard, &messages, &bytes, timeouts.silence).await {
            Ok(incoming) => match incoming.message {
                Control::Ping => outbox.pong(),
                Control::Pong => {}
                Control::Bye(reason) => return LaneEnd::Bye(reason),
                _ => on_event(LaneEvent::Message(incoming)),
            },
            Err(end) => return end,
        }
    }
}

async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    heard: &Heard,
    messages: &Arc<Semaphore>,
    bytes: &Arc<Semaphore>,
    silence: Duration,
) -> Result<Incoming, LaneEnd> {
    // Room first: nothing is read that its owner has no room for. The time this takes is not
    // the peer's silence.
    let one = heard.held(reserve(messages, 1)).await?;
    let len = read_len(stream, MAX_MESSAGE, silence)
        .await
        .map_err(ended)?;
    let room = heard.held(reserve(bytes, len)).await?;
    let body = read_body(stream, len, silence).await.map_err(ended)?;
    let message = Control::decode(&body).map_err(|e| LaneEnd::Malformed(e.to_string()))?;
    Ok(Incoming {
        message,
        _room: [one, room],
    })
}

/// What comes from the peer, for who doubts that it is there.
#[derive(Default)]
struct Heard {
    bytes: AtomicU64,
    /// Nothing is read, because this end has no room.
    held: AtomicBool,
}

impl Heard {
    async fn held<T>(&self, wait: impl Future<Output = T>) -> T {
        self.held.store(true, Ordering::Relaxed);
        let done = wait.await;
        self.held.store(false, Ordering::Relaxed);
        done
    }
}

/// A reader that counts.
struct Listening<'a, R>(R, &'a Heard);

impl<R: AsyncRead + Unpin> AsyncRead for Listening<'_, R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.0).poll_read(cx, buf);
        let more = buf.filled().len() - before;
        self.1.bytes.fetch_add(more as u64, Ordering::Relaxed);
        read
    }
}

/// Ends when the peer is doubted and silent.
async fn doubt_loop(heard: &Heard, outbox: &Outbox, limit: Duration) -> LaneEnd {
    loop {
        outbox.doubted().await;
        let before = heard.bytes.load(Ordering::Relaxed);
        outbox.ping();
        sleep(limit).await;
        let silent = heard.bytes.load(Ordering::Relaxed) == before;
        if silent && !heard.held.load(Ordering::Relaxed) {
            return LaneEnd::Silent(limit);
        }
    }
}

async fn reserve(room: &Arc<Semaphore>, n: usize) -> Result<OwnedSemaphorePermit, LaneEnd> {
    let n = u32::try_from(n).unwrap_or(u32::MAX);
    let permit = room.clone().acquire_many_owned(n).await;
    permit.map_err(|_| LaneEnd::Closed)
}

fn ended(error: FrameError) -> LaneEnd {
    match error {
        FrameError::Closed => LaneEnd::Lost("the peer is gone".into()),
        FrameError::Silent(limit) => LaneEnd::Silent(limit),
        FrameError::Oversize(_) => LaneEnd::Malformed(error.to_string()),
        FrameError::Io(e) => LaneEnd::Lost(e.to_string()),
    }
}

async fn write_loop(
    stream: &mut (impl AsyncWrite + Unpin),
    outbox: &Outbox,
    on_event: &OnEvent,
    timeouts: &Timeouts,
) -> LaneEnd {
    loop {
        let (frames, room_again) = match timeout(timeouts.ping, outbox.next()).await {
            Ok(Next::Frames { bytes, room_again }) => (bytes, room_again),
            Ok(Next::Close { bytes, reason }) => {
                let bye = framed(&Control::Bye(reason).encode());
                let last = [bytes, bye].concat();
                let words = write(stream, &last, timeouts.stalled);
                let _ = timeout(LAST_WORDS, words).await;
                return LaneEnd::Closed;
            }
            Err(_) => (framed(&Control::Ping.encode()), false),
        };
        if room_again {
            on_event(LaneEvent::SendReady);
        }
        if let Err(end) = write(stream, &frames, timeouts.stalled).await {
            return end;
        }
    }
}

async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    stalled: Duration,
) -> Result<(), LaneEnd> {
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::TimedOut => LaneEnd::Stalled,
        _ => LaneEnd::Lost(e.to_string()),
    };
    write_all(stream, bytes, stalled).await.map_err(failed)?;
    match timeout(stalled, stream.flush()).await {
        Ok(done) => done.map_err(failed),
        Err(_) => Err(LaneEnd::Stalled),
    }
}
