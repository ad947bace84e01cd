//! The outgoing side of a control lane: filled from plain threads, emptied by the lane's task.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use left_core::message::{Control, MAX_MESSAGE};
use tokio::sync::Notify;

use super::frame::framed;

/// Most messages that wait to be sent.
pub const MAX_QUEUED: usize = 256;
/// Most bytes that wait to be sent.
pub const MAX_QUEUED_BYTES: usize = 4 << 20;
/// Bytes written at once.
const BATCH: usize = 256 * 1024;

/// A message was not taken.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum SendError {
    /// The outbox is full; try again after [`super::LaneEvent::SendReady`].
    #[error("the lane is full")]
    Full(Control),
    /// The lane is gone.
    #[error("the lane is closed")]
    Closed,
    /// Larger than a message may be: an error in this program.
    #[error("a message of {0} bytes is too long to be sent")]
    TooLong(usize),
}

/// Sends on one control lane, from any thread, without blocking.
#[derive(Clone)]
pub struct ControlSender(Arc<CloseOnDrop>);

struct CloseOnDrop(Arc<Outbox>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close("no longer needed");
    }
}

impl fmt::Debug for ControlSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ControlSender")
    }
}

impl ControlSender {
    /// Queues a message, or hands it back.
    pub fn try_send(&self, message: Control) -> Result<(), SendError> {
        let bytes = message.encode();
        if bytes.len() > MAX_MESSAGE {
            return Err(SendError::TooLong(bytes.len()));
        }
        self.0.0.push(framed(&bytes)).map_err(|why| match why {
            PushError::Full => SendError::Full(message),
            PushError::Closed => SendError::Closed,
        })
    }

    /// Doubts whether the peer is still there: it is asked, and the lane ends if nothing comes from it
    /// within [`super::Timeouts::probe`].
    pub fn probe(&self) {
        self.0.0.doubt.notify_one();
    }

    /// Sends what is queued and a farewell, then closes. Returns at once.
    pub fn close(&self, reason: &str) {
        self.0.0.close(reason);
    }
}

/// What the lane's task does next.
pub(super) enum Next {
    /// Write these.
    Frames {
        bytes: Vec<u8>,
        /// A sender was turned away before and may come again.
        room_again: bool,
    },
    /// Write these, say good-bye, close.
    Close { bytes: Vec<u8>, reason: String },
}

#[derive(Debug)]
enum PushError {
    Full,
    Closed,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Vec<u8>>,
    bytes: usize,
    turned_away: bool,
    pong: bool,
    ping: bool,
    closing: Option<String>,
    gone: bool,
}

pub(super) struct Outbox {
    state: Mutex<State>,
    wake: Notify,
    doubt: Notify,
}

impl Outbox {
    pub(super) fn new() -> (Arc<Self>, ControlSender) {
        let outbox = Arc::new(Self {
            state: Mutex::default(),
            wake: Notify::new(),
            doubt: Notify::new(),
        });
        let sender = ControlSender(Arc::new(CloseOnDrop(outbox.clone())));
        (outbox, sender)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while holding it; the state is whole either way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, frame: Vec<u8>) -> Result<(), PushError> {
        let mut state = self.lock();
        if state.gone || state.closing.is_some() {
            return Err(PushError::Closed);
        }
        let full = state.queue.len() >= MAX_QUEUED
            || (state.bytes + frame.len() > MAX_QUEUED_BYTES && state.bytes > 0);
        if full {
            state.turned_away = true;
            return Err(PushError::Full);
        }
        state.bytes += frame.len();
        state.queue.push_back(frame);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    fn close(&self, reason: &str) {
        let mut state = self.lock();
        if state.closing.is_none() {
            state.closing = Some(reason.into());
        }
        drop(state);
        self.wake.notify_one();
    }

    /// An answer to a ping is due; it needs no room in the queue and is never due twice.
    pub(super) fn pong(&self) {
        self.lock().pong = true;
        self.wake.notify_one();
    }

    /// A question whether the peer is there, out of turn.
    pub(super) fn ping(&self) {
        self.lock().ping = true;
        self.wake.notify_one();
    }

    /// Returns when somebody doubts that the peer is there.
    pub(super) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// The lane is gone.
    pub(super) fn finish(&self) {
        let mut state = self.lock();
        state.gone = true;
        state.queue = VecDeque::new();
        state.bytes = 0;
    }

    /// Waits for something to do. Nothing is lost when the wait is given up.
    pub(super) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.wake.notified().await;
        }
    }

    fn try_next(&self) -> Option<Next> {
        let mut state = self.lock();
        let closing = state.closing.clone();
        let mut bytes = Vec::new();
        if std::mem::take(&mut state.pong) {
            bytes = framed(&Control::Pong.encode());
        }
        if std::mem::take(&mut state.ping) {
            bytes.extend(framed(&Control::Ping.encode()));
        }
        let limit = if closing.is_some() { usize::MAX } else { BATCH };
        while bytes.len() < limit {
            let Some(frame) = state.queue.pop_front() else {
                break;
            };
            state.bytes -= frame.len();
            bytes.extend_from_slice(&frame);
        }
        if let Some(reason) = closing {
            return Some(Next::Close { bytes, reason });
        }
        if bytes.is_empty() {
            return None;
        }
        // Half empty, so that a sender is not woken for every single message.
        let roomy = state.queue.len() <= MAX_QUEUED / 2 && state.bytes <= MAX_QUEUED_BYTES / 2;
        let room_again = roomy && std::mem::take(&mut state.turned_away);
        Some(Next::Frames { bytes, room_again })
    }
}
