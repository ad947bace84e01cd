//! The asking side of a lane: one thread that keeps several requests in flight.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use left_core::content::ContentId;
use left_core::message::{Want, What};
use left_core::version::DeviceId;
use tracing::{debug, warn};

use super::answers;
use super::shared::{Shared, lock};
use super::state::{Room, Task};
use super::wanted::{BigTask, Wanted};
use crate::transfer::frame::{
    FrameError, FrameKind, FrameReader, HEADER_LEN, Header, MAX_REASON, MAX_WANTS_UNANSWERED,
};
use crate::transfer::lane::LaneStream;

/// A request that is not answered completely.
pub(super) struct InFlight {
    id: u32,
    pub(super) task: Task,
    /// Position of the next item to be answered.
    pub(super) next: usize,
    /// Bytes it counts for in the lane's window: what has not come of it.
    cost: u64,
    /// Bytes of the request.
    len: usize,
}

/// When bytes came last on a lane.
pub(super) struct Pulse {
    start: Instant,
    /// Milliseconds from then on.
    last: AtomicU64,
}

impl Pulse {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            last: AtomicU64::new(0),
        }
    }

    /// Bytes came.
    pub(super) fn beat(&self) {
        let now = self.start.elapsed().as_millis() as u64;
        self.last.store(now, Ordering::Relaxed);
    }

    pub(super) fn silent_for(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }
}

/// A lane's stream of which it is known when bytes came last.
struct Felt {
    stream: Box<dyn LaneStream>,
    pulse: Arc<Pulse>,
}

impl Read for Felt {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(buf)?;
        self.pulse.beat();
        Ok(n)
    }
}

impl Write for Felt {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

struct Lane<'a> {
    stream: Felt,
    reader: FrameReader,
    asking: Asking<'a>,
}

/// What was asked for, and what may be.
struct Asking<'a> {
    shared: &'a Shared,
    id: u64,
    peer: DeviceId,
    /// The peer is far away: see [`super::pace`].
    long: bool,
    /// Bytes of frames that came since it was looked for what may be asked.
    since_asked: usize,
    inflight: VecDeque<InFlight>,
    next_want: u32,
    meter: Meter,
}

/// Runs a lane until it fails or is closed; then what it was asked for goes back to be asked for
/// elsewhere.
pub(super) fn run(
    shared: &Shared,
    id: u64,
    peer: DeviceId,
    stream: Box<dyn LaneStream>,
    pulse: Arc<Pulse>,
) {
    let mut lane = Lane {
        stream: Felt { stream, pulse },
        reader: FrameReader::new(),
        asking: Asking {
            shared,
            id,
            peer,
            long: false,
            since_asked: 0,
            inflight: VecDeque::new(),
            next_want: 0,
            meter: Meter::new(shared.config.rate_after),
        },
    };
    let result = lane.run();
    let inflight = lane.asking.inflight;
    let mut st = lock(&shared.state);
    let closed_by_us = st.peers.lanes.remove(&id).is_none();
    match result {
        _ if closed_by_us => {}
        Ok(()) => {}
        Err(FrameError::Io(e)) => debug!(%peer, %e, "data lane lost"),
        Err(FrameError::Malformed(what)) => {
            warn!(%peer, what, "data lane closed: the peer broke the protocol");
            *st.suspects.entry(peer).or_default() += 1;
        }
    }
    let mut failed = Vec::new();
    for f in inflight.into_iter().rev() {
        failed.extend(answers::give_back(&mut st, f));
    }
    let outcomes = st.end(failed);
    shared.peers_changed(st);
    shared.report(outcomes);
    shared.flush();
}

/// Over a long link more is asked for each time so many bytes have come, in the midst of a frame or of an
/// answer: else the link would be idle at the end of a long one.
const STEP: usize = 128 << 10;

impl Lane<'_> {
    fn run(&mut self) -> Result<(), FrameError> {
        loop {
            self.asking.ask(&mut self.stream)?;
            if self.asking.inflight.is_empty() {
                return Ok(());
            }
            while !self.answer()? {
                if self.asking.long && self.asking.since_asked >= STEP {
                    self.asking.ask(&mut self.stream)?;
                }
            }
        }
    }

    /// Takes in one frame; returns whether it was the last of its answer.
    fn answer(&mut self) -> Result<bool, FrameError> {
        let Self {
            stream,
            reader,
            asking,
        } = self;
        let shared = asking.shared;
        if !reader.has_header() {
            shared.flush_old();
        }
        let waiting = Instant::now();
        let header = reader.header(stream)?;
        let Some(front) = asking.inflight.front_mut() else {
            return Err(FrameError::Malformed("an answer that nobody asked for"));
        };
        if header.kind == FrameKind::Error {
            return Err(refused(reader, stream, &header));
        }
        if header.want != front.id || header.item as usize != front.next {
            return Err(FrameError::Malformed("an answer out of turn"));
        }
        answers::check(front, &header)?;
        let payload = match asking.long {
            false => reader.payload(stream, &header)?,
            true => {
                let mut before = 0;
                reader.payload_by(stream, &header, STEP, |stream, come| {
                    let bytes = (come - before) as u64;
                    before = come;
                    asking.came(bytes, come as u64);
                    match come < header.wire as usize {
                        true => asking.ask(stream),
                        false => Ok(()),
                    }
                })?
            }
        };
        asking.since_asked += HEADER_LEN + header.wire as usize;
        let received = HEADER_LEN as u64 + u64::from(header.wire);
        let stats = &shared.stats;
        stats.received.fetch_add(received, Ordering::Relaxed);
        asking.meter.waited(received, waiting);
        let Some(front) = asking.inflight.front_mut() else {
            return Err(FrameError::Malformed("an answer that nobody asked for"));
        };
        front.cost = front
            .cost
            .saturating_sub(HEADER_LEN as u64 + u64::from(header.raw));
        answers::accept(shared, asking.peer, front, &header, payload);
        if header.last {
            asking.inflight.pop_front();
            shared.flush_old();
        }
        Ok(header.last)
    }
}

impl Asking<'_> {
    /// Sends requests as long as there is something to ask for and room for the answers. Waits
    /// only when nothing is in flight; returns with nothing in flight when the lane is closed.
    fn ask(&mut self, stream: &mut Felt) -> io::Result<()> {
        let mut sent = false;
        self.since_asked = 0;
        loop {
            let room = self.room();
            let task = match room.idle {
                true => {
                    self.meter.pause();
                    self.wait_task(room)
                }
                false => {
                    let mut st = lock(&self.shared.state);
                    st.take(self.id, room, &self.shared.config)
                }
            };
            let Some(task) = task else { break };
            self.send(stream, task)?;
            sent = true;
        }
        if sent {
            stream.flush()?;
        }
        Ok(())
    }

    fn room(&self) -> Room {
        let wants: usize = self.inflight.iter().map(|f| f.len).sum();
        Room {
            bytes: self.shared.config.lane_window.saturating_sub(self.owed()),
            wants: MAX_WANTS_UNANSWERED.saturating_sub(wants),
            idle: self.inflight.is_empty(),
            long: None,
        }
    }

    /// Bytes asked for and not yet here.
    fn owed(&self) -> u64 {
        self.inflight.iter().map(|f| f.cost).sum()
    }

    /// Over a long link: bytes came, in all so many of the current frame.
    fn came(&self, bytes: u64, of_frame: u64) {
        let owed = self.owed().saturating_sub(of_frame);
        let mut st = lock(&self.shared.state);
        let wake = st.came(self.id, bytes, owed, Instant::now());
        drop(st);
        if wake {
            self.shared.wake.notify_all();
        }
    }

    /// The next task, or `None` when the lane was closed.
    fn wait_task(&mut self, room: Room) -> Option<Task> {
        let shared = self.shared;
        shared.flush();
        let mut st = lock(&shared.state);
        if let Some(info) = st.peers.lanes.get_mut(&self.id) {
            info.owed = 0;
        }
        loop {
            if st.closed || !st.peers.lanes.contains_key(&self.id) {
                return None;
            }
            self.long = st.peers.is_far(&self.peer);
            if let Some(task) = st.take(self.id, room, &shared.config) {
                return Some(task);
            }
            st = shared
                .wake
                .wait(st)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn send(&mut self, stream: &mut Felt, task: Task) -> io::Result<()> {
        let id = self.next_want;
        self.next_want = self.next_want.wrapping_add(1);
        let what = what(&task);
        let rate = self.meter.rate();
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&Want { id, what, rate }.encode());
        let len = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&len.to_be_bytes());
        // Put down first: when the write fails, it goes back with the others.
        self.inflight.push_back(InFlight {
            id,
            cost: task.cost(),
            task,
            next: 0,
            len: bytes.len(),
        });
        let stats = &self.shared.stats;
        stats.wants.fetch_add(1, Ordering::Relaxed);
        stats.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        stream.write_all(&bytes)
    }
}

/// Tells how fast bytes come where they are waited for.
struct Meter {
    /// How long is watched before something is said.
    span: Duration,
    since: Option<Instant>,
    bytes: u64,
    waited: Duration,
    rate: u64,
}

impl Meter {
    /// Fewer bytes say nothing.
    const LEAST: u64 = 256 * 1024;

    fn new(span: Duration) -> Self {
        Self {
            span,
            since: None,
            bytes: 0,
            waited: Duration::ZERO,
            rate: 0,
        }
    }

    /// Nothing is asked for any more: the time that follows does not count.
    fn pause(&mut self) {
        (self.since, self.bytes, self.waited) = (None, 0, Duration::ZERO);
    }

    /// So many bytes have come, which were waited for since then.
    fn waited(&mut self, bytes: u64, from: Instant) {
        let now = Instant::now();
        let since = *self.since.get_or_insert(from);
        self.bytes += bytes;
        self.waited += now - from;
        let passed = now - since;
        if passed >= self.span && self.bytes >= Self::LEAST {
            self.rate = match self.waited > passed / 2 {
                true => (self.bytes as f64 / passed.as_secs_f64()) as u64,
                false => 0,
            };
            self.pause();
        }
    }

    /// Bytes a second; 0 when they are not waited for most of the time.
    fn rate(&self) -> u64 {
        self.rate
    }
}

fn refused(reader: &mut FrameReader, stream: &mut dyn LaneStream, header: &Header) -> FrameError {
    if header.raw as usize > MAX_REASON {
        return FrameError::Malformed("error frame too long");
    }
    match reader.payload(stream, header) {
        Ok(reason) => {
            let reason = String::from_utf8_lossy(reason).into_owned();
            FrameError::Io(io::Error::other(reason))
        }
        Err(e) => e,
    }
}

fn what(task: &Task) -> What {
    match task {
        Task::Small(keys) => What::Whole(keys.iter().map(|(content, _)| *content).collect()),
        Task::Big(_, BigTask::Refs(from), asked) => What::Refs {
            content: asked.id,
            from: *from,
        },
        Task::Big(_, BigTask::Parts(parts), asked) => what_parts(asked.id, parts),
    }
}

fn what_parts(content: ContentId, parts: &VecDeque<Wanted>) -> What {
    let segments = parts.iter().map(|p| p.n() as u64).collect();
    match parts.front() {
        Some(Wanted::Chunks(c)) => What::Chunks {
            content,
            segment: c.place.n as u64,
            bitmap: c.bitmap.clone(),
        },
        Some(Wanted::List(_)) => What::Lists { content, segments },
        _ => What::Segments { content, segments },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_read_is_felt() {
        let long = Duration::from_secs(60);
        let ago = Instant::now().checked_sub(long).unwrap();
        let pulse = Arc::new(Pulse::new(ago));
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut felt = Felt {
            stream: Box::new(ours),
            pulse: Arc::clone(&pulse),
        };
        assert!(pulse.silent_for() >= long);
        theirs.write_all(b"x").unwrap();
        felt.read_exact(&mut [0]).unwrap();
        assert!(pulse.silent_for() < long);
    }
}
