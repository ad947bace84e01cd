//! Frames on their way out: gathered, compressed where that is worth it, and written.

use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::super::frame::{FrameKind, HEADER_LEN, Header, MAX_REASON};
use super::super::lane::{Buffer, LaneStream};
use super::pack::Packer;
use super::{ServeError, ServeStats};

/// Frames are gathered to about this many bytes before they are written.
const WRITE_AT: usize = 256 * 1024;

/// Where a frame under construction begins, its header's fields, and when it was begun.
pub(super) struct Draft {
    pub(super) header: Header,
    at: usize,
    since: Instant,
}

pub(super) struct Out<'a> {
    pub(super) stream: Box<dyn LaneStream>,
    pub(super) packer: Packer,
    stats: &'a ServeStats,
    buf: Buffer,
    /// Bytes of `buf` that wait to be written.
    used: usize,
}

impl<'a> Out<'a> {
    pub(super) fn new(stream: Box<dyn LaneStream>, zstd: bool, stats: &'a ServeStats) -> Self {
        Self {
            stream,
            packer: Packer::new(zstd),
            stats,
            buf: Buffer::default(),
            used: 0,
        }
    }

    /// Makes room for a frame after those that wait. Nothing is sent until [`Self::finish`].
    pub(super) fn begin(&mut self, want: u32, kind: FrameKind, item: usize, raw: usize) -> Draft {
        let at = self.used;
        self.buf.take(at + HEADER_LEN + raw);
        Draft {
            header: Header {
                want,
                kind,
                zstd: false,
                last: false,
                count: 0,
                item: item as u32,
                raw: raw as u32,
                wire: raw as u32,
            },
            at,
            since: Instant::now(),
        }
    }

    pub(super) fn payload(&mut self, draft: &Draft) -> &mut [u8] {
        let from = draft.at + HEADER_LEN;
        let end = from + draft.header.raw as usize;
        &mut self.buf.take(end)[from..end]
    }

    pub(super) fn finish(&mut self, mut draft: Draft) {
        let raw = draft.header.raw as usize;
        let from = draft.at + HEADER_LEN;
        let payload = &mut self.buf.take(from + raw)[from..];
        self.packer.made(raw, draft.since.elapsed());
        let mut wire = raw;
        if let Some(packed) = self.packer.pack(draft.header.kind, payload) {
            wire = packed.len();
            payload[..wire].copy_from_slice(packed);
            draft.header.zstd = true;
            draft.header.wire = wire as u32;
        }
        let head = draft.header.encode();
        self.buf.take(from)[draft.at..].copy_from_slice(&head);
        self.used = from + wire;
        let stats = self.stats;
        stats.frames.fetch_add(1, Ordering::Relaxed);
        stats.raw_bytes.fetch_add(raw as u64, Ordering::Relaxed);
        let sent = (HEADER_LEN + wire) as u64;
        stats.wire_bytes.fetch_add(sent, Ordering::Relaxed);
    }

    pub(super) fn gone(&mut self, want: u32, item: usize, last: bool) {
        let mut draft = self.begin(want, FrameKind::Gone, item, 0);
        draft.header.last = last;
        self.finish(draft);
    }

    pub(super) fn refuse(&mut self, reason: &str) -> Result<(), ServeError> {
        let text = &reason.as_bytes()[..reason.len().min(MAX_REASON)];
        let mut draft = self.begin(0, FrameKind::Error, 0, text.len());
        self.payload(&draft).copy_from_slice(text);
        draft.header.last = true;
        self.finish(draft);
        self.write()?;
        self.stream.flush()?;
        Ok(())
    }

    /// Writes what waits, if it is much.
    pub(super) fn write_much(&mut self) -> io::Result<()> {
        match self.used >= WRITE_AT {
            true => self.write(),
            false => Ok(()),
        }
    }

    pub(super) fn write(&mut self) -> io::Result<()> {
        let used = std::mem::take(&mut self.used);
        self.stream.write_all(self.buf.get(used))?;
        self.packer.sent(used);
        crash_point!("serving");
        Ok(())
    }
}
