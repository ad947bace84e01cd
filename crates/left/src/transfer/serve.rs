//! Answers Wants on one lane.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use left_core::content::{ContentId, Segment, WHOLE_MAX};
use left_core::entry::FileStat;
use left_core::message::{Want, What};
use left_core::path::RelPath;
use tracing::{debug, warn};

use super::fileio::{advise_sequential, advise_soon, read_at_most, unchanged};
use super::frame::{
    CHUNK_REF_LEN, FrameKind, HEADER_LEN, Header, MAX_PAYLOAD, MAX_REASON, MAX_WANT,
    MAX_WANT_ITEMS, REFS_PAGE, SEGMENT_REF_LEN, put_list, put_refs,
};
use super::lane::{Buffer, LaneReader, LaneStream};
use super::ports::ContentSource;

/// Frames are gathered to about this many bytes before they are written.
const WRITE_AT: usize = 256 * 1024;
/// How far ahead a big file is asked to be read into memory.
const READ_AHEAD: u64 = 4 << 20;

/// How a lane is served.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServeConfig {
    /// The zstd level to compress with where that shortens a payload; `None` sends all raw. Only
    /// for askers that know the feature `zstd`.
    pub compress: Option<i32>,
}

/// What was served, over all lanes that share it.
#[derive(Debug, Default)]
pub struct ServeStats {
    /// Requests answered.
    pub wants: AtomicU64,
    /// Frames sent.
    pub frames: AtomicU64,
    /// Payload bytes before compression.
    pub raw_bytes: AtomicU64,
    /// All bytes sent, headers too.
    pub wire_bytes: AtomicU64,
}

/// Why a lane is served no more.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The lane or the store failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The asker does not keep to the protocol.
    #[error("bad request: {0}")]
    BadWant(String),
}

/// Serves one lane until the asker closes it (`Ok`) or something is wrong with it. Only content
/// that the source locates is served.
pub fn serve(
    stream: Box<dyn LaneStream>,
    source: Arc<dyn ContentSource>,
    config: ServeConfig,
    stats: &ServeStats,
) -> Result<(), ServeError> {
    let mut lane = Serving {
        stream,
        source,
        config,
        stats,
        out: Buffer::default(),
        used: 0,
        opened: None,
    };
    let mut reader = LaneReader::new();
    let mut buf = Buffer::default();
    loop {
        let result = match read_want(&mut reader, &mut *lane.stream, &mut buf) {
            Ok(None) => return Ok(()),
            Ok(Some(want)) => {
                crash_point!("asked");
                lane.answer(&want)
            }
            Err(e) => Err(e),
        };
        if let Err(e) = result {
            if let ServeError::BadWant(reason) = &e {
                warn!(%reason, "data lane closed: the peer sent a bad request");
                // Best effort: the lane is given up anyway.
                let _ = lane.refuse(reason);
            }
            return Err(e);
        }
    }
}

fn read_want(
    reader: &mut LaneReader,
    stream: &mut dyn LaneStream,
    buf: &mut Buffer,
) -> Result<Option<Want>, ServeError> {
    let mut len = [0; 4];
    if !reader.read(stream, &mut len)? {
        return Ok(None);
    }
    let len = u32::from_be_bytes(len) as usize;
    if len == 0 || len > MAX_WANT {
        return Err(ServeError::BadWant(format!("request of {len} bytes")));
    }
    let bytes = buf.take(len);
    if !reader.read(stream, bytes)? {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let want = Want::decode(bytes).map_err(|e| ServeError::BadWant(e.to_string()))?;
    Ok(Some(want))
}

/// A big file kept open from one Want to the next.
struct Opened {
    content: ContentId,
    file: File,
    stat: FileStat,
    /// Up to where the file was asked to be read into memory.
    soon: u64,
}

struct Serving<'a> {
    stream: Box<dyn LaneStream>,
    source: Arc<dyn ContentSource>,
    config: ServeConfig,
    stats: &'a ServeStats,
    out: Buffer,
    /// Bytes of `out` that wait to be written.
    used: usize,
    opened: Option<Opened>,
}

/// Where a frame under construction begins, and its header's fields.
struct Draft {
    header: Header,
    at: usize,
}

impl Serving<'_> {
    fn answer(&mut self, want: &Want) -> Result<(), ServeError> {
        let items = match &want.what {
            What::Whole(contents) => contents.len(),
            What::Refs { .. } | What::Chunks { .. } => 1,
            What::Lists { segments, .. } | What::Segments { segments, .. } => segments.len(),
        };
        if items == 0 || items > MAX_WANT_ITEMS {
            return Err(ServeError::BadWant(format!("request for {items} things")));
        }
        let mut located = match &want.what {
            What::Whole(contents) => self.source.locate_all(contents),
            _ => Vec::new(),
        }
        .into_iter();
        for item in 0..items {
            let last = item + 1 == items;
            let more = match &want.what {
                What::Whole(_) => {
                    let places = located.next().unwrap_or_default();
                    self.whole(want.id, item, last, places)?
                }
                What::Refs { content, from } => self.refs(want.id, content, *from)?,
                What::Lists { content, segments } => {
                    self.list(want.id, item, last, content, segments[item])?
                }
                What::Segments { content, segments } => {
                    self.segment(want.id, item, last, content, segments[item])?
                }
                What::Chunks {
                    content,
                    segment,
                    bitmap,
                } => self.chunks(want.id, content, *segment, bitmap)?,
            };
            if self.used >= WRITE_AT {
                self.write()?;
            }
            if !more {
                break;
            }
        }
        self.stats.wants.fetch_add(1, Ordering::Relaxed);
        self.write()?;
        self.stream.flush()?;
        Ok(())
    }

    /// One small content. The asker hashes it, so it is not hashed here.
    fn whole(
        &mut self,
        want: u32,
        item: usize,
        last: bool,
        places: Vec<(RelPath, FileStat)>,
    ) -> Result<bool, ServeError> {
        for (path, stat) in places {
            if stat.size > WHOLE_MAX {
                return Err(ServeError::BadWant("big content asked for whole".into()));
            }
            let Ok(file) = self.source.open(&path, &stat) else {
                continue;
            };
            let size = stat.size as usize;
            let mut draft = self.begin(want, FrameKind::Data, item, size);
            let payload = self.payload(&draft);
            let read = read_at_most(&file, payload, 0);
            if matches!(read, Ok(n) if n == size) && unchanged(&file, &stat).unwrap_or(false) {
                draft.header.last = last;
                self.finish(draft)?;
                return Ok(true);
            }
        }
        self.gone(want, item, last)?;
        Ok(true)
    }

    fn refs(&mut self, want: u32, content: &ContentId, from: u64) -> Result<bool, ServeError> {
        let Some((_, segments)) = self.big_info(content)? else {
            self.gone(want, 0, true)?;
            return Ok(false);
        };
        if from >= segments {
            return Err(ServeError::BadWant("position past the end".into()));
        }
        let source = Arc::clone(&self.source);
        let refs = source.manifest().refs(content, from, REFS_PAGE)?;
        if refs.is_empty() || refs.len() > REFS_PAGE {
            self.gone(want, 0, true)?;
            return Ok(false);
        }
        let mut draft = self.begin(want, FrameKind::Refs, 0, refs.len() * SEGMENT_REF_LEN);
        put_refs(self.payload(&draft), &refs);
        draft.header.count = refs.len() as u16;
        draft.header.last = true;
        self.finish(draft)?;
        Ok(false)
    }

    fn list(
        &mut self,
        want: u32,
        item: usize,
        last: bool,
        content: &ContentId,
        n: u64,
    ) -> Result<bool, ServeError> {
        let Some((_, segment)) = self.find_segment(content, n)? else {
            self.gone(want, item, true)?;
            return Ok(false);
        };
        let len = segment.chunks.len() * CHUNK_REF_LEN;
        let mut draft = self.begin(want, FrameKind::List, item, len);
        put_list(self.payload(&draft), &segment.chunks);
        draft.header.count = segment.chunks.len() as u16;
        draft.header.last = last;
        self.finish(draft)?;
        Ok(true)
    }

    fn segment(
        &mut self,
        want: u32,
        item: usize,
        last: bool,
        content: &ContentId,
        n: u64,
    ) -> Result<bool, ServeError> {
        let Some((offset, segment)) = self.find_segment(content, n)? else {
            self.gone(want, item, true)?;
            return Ok(false);
        };
        let list = segment.chunks.len() * CHUNK_REF_LEN;
        let bytes = match segment.sref.is_zeros() {
            true => 0,
            false => segment.sref.len as usize,
        };
        if list + bytes > MAX_PAYLOAD {
            return Err(io::Error::other("stored segment too long").into());
        }
        let mut draft = self.begin(want, FrameKind::Segment, item, list + bytes);
        put_list(self.payload(&draft), &segment.chunks);
        let at = draft.at + HEADER_LEN + list;
        if !self.read_big(content, offset, at, bytes)? {
            self.gone(want, item, true)?;
            return Ok(false);
        }
        draft.header.count = segment.chunks.len() as u16;
        draft.header.last = last;
        self.finish(draft)?;
        Ok(true)
    }

    fn chunks(
        &mut self,
        want: u32,
        content: &ContentId,
        n: u64,
        bitmap: &[u8],
    ) -> Result<bool, ServeError> {
        let Some((offset, segment)) = self.find_segment(content, n)? else {
            self.gone(want, 0, true)?;
            return Ok(false);
        };
        let (runs, total) = runs(&segment, bitmap);
        if total == 0 || total > MAX_PAYLOAD {
            return Err(ServeError::BadWant("no chunks asked for".into()));
        }
        let mut draft = self.begin(want, FrameKind::Chunks, 0, total);
        let mut at = draft.at + HEADER_LEN;
        for (from, len) in runs {
            if !self.read_big(content, offset + from, at, len)? {
                self.gone(want, 0, true)?;
                return Ok(false);
            }
            at += len;
        }
        draft.header.last = true;
        self.finish(draft)?;
        Ok(false)
    }

    /// Size and segment count, if the share holds the content and its manifest.
    fn big_info(&mut self, content: &ContentId) -> Result<Option<(u64, u64)>, ServeError> {
        if !self.open_big(content) {
            return Ok(None);
        }
        let info = self.source.manifest().info(content)?;
        if info.is_none() {
            self.source.missing_manifest(content);
        }
        Ok(info)
    }

    fn find_segment(
        &mut self,
        content: &ContentId,
        n: u64,
    ) -> Result<Option<(u64, Segment)>, ServeError> {
        if !self.open_big(content) {
            return Ok(None);
        }
        let source = Arc::clone(&self.source);
        let found = source.manifest().segment(content, n)?;
        if found.is_none() && self.big_info(content)?.is_some() {
            return Err(ServeError::BadWant("segment past the end".into()));
        }
        Ok(found)
    }

    /// Whether the content is open, now or already.
    fn open_big(&mut self, content: &ContentId) -> bool {
        if self.opened.as_ref().is_some_and(|o| o.content == *content) {
            return true;
        }
        self.opened = self
            .source
            .locate(content)
            .into_iter()
            .find_map(|(path, stat)| {
                let file = self.source.open(&path, &stat).ok()?;
                advise_sequential(&file);
                Some(Opened {
                    content: *content,
                    file,
                    stat,
                    soon: 0,
                })
            });
        self.opened.is_some()
    }

    /// Reads `len` bytes of the open content into `out[at..]`. `false` when the file is not
    /// what it was; then it is closed, so that the next Want looks for another place.
    fn read_big(
        &mut self,
        content: &ContentId,
        offset: u64,
        at: usize,
        len: usize,
    ) -> Result<bool, ServeError> {
        if !self.open_big(content) {
            return Ok(false);
        }
        let Some(opened) = &mut self.opened else {
            return Ok(false);
        };
        let end = offset + len as u64;
        if end + READ_AHEAD / 2 > opened.soon || end + 2 * READ_AHEAD < opened.soon {
            advise_soon(&opened.file, end, READ_AHEAD);
            opened.soon = end + READ_AHEAD;
        }
        let target = &mut self.out.take(at + len)[at..];
        let read = opened.file.read_exact_at(target, offset);
        // A write between our read and this look shows in the mtime; one the clock's grain hides
        // is found by the asker's hashing.
        let good = read.is_ok() && unchanged(&opened.file, &opened.stat).unwrap_or(false);
        if !good {
            debug!(content = ?content, "a file changed while it was served");
            self.opened = None;
        }
        Ok(good)
    }

    fn gone(&mut self, want: u32, item: usize, last: bool) -> Result<(), ServeError> {
        let mut draft = self.begin(want, FrameKind::Gone, item, 0);
        draft.header.last = last;
        self.finish(draft)
    }

    fn refuse(&mut self, reason: &str) -> Result<(), ServeError> {
        let text = &reason.as_bytes()[..reason.len().min(MAX_REASON)];
        let mut draft = self.begin(0, FrameKind::Error, 0, text.len());
        self.payload(&draft).copy_from_slice(text);
        draft.header.last = true;
        self.finish(draft)?;
        self.write()?;
        self.stream.flush()?;
        Ok(())
    }

    /// Makes room for a frame after those that wait. Nothing is sent until [`Self::finish`].
    fn begin(&mut self, want: u32, kind: FrameKind, item: usize, raw: usize) -> Draft {
        let at = self.used;
        self.out.take(at + HEADER_LEN + raw);
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
        }
    }

    fn payload(&mut self, draft: &Draft) -> &mut [u8] {
        let from = draft.at + HEADER_LEN;
        let end = from + draft.header.raw as usize;
        &mut self.out.take(end)[from..end]
    }

    fn finish(&mut self, mut draft: Draft) -> Result<(), ServeError> {
        let raw = draft.header.raw as usize;
        let mut wire = raw;
        if let Some(level) = self.config.compress
            && worth_compressing(draft.header.kind, raw)
        {
            let payload = self.payload(&draft);
            let packed = zstd::bulk::compress(payload, level)?;
            if packed.len() < raw - raw / 16 {
                payload[..packed.len()].copy_from_slice(&packed);
                wire = packed.len();
                draft.header.zstd = true;
                draft.header.wire = wire as u32;
            }
        }
        let head = draft.header.encode();
        self.out.take(draft.at + HEADER_LEN)[draft.at..].copy_from_slice(&head);
        self.used = draft.at + HEADER_LEN + wire;
        let stats = self.stats;
        stats.frames.fetch_add(1, Ordering::Relaxed);
        stats.raw_bytes.fetch_add(raw as u64, Ordering::Relaxed);
        let sent = (HEADER_LEN + wire) as u64;
        stats.wire_bytes.fetch_add(sent, Ordering::Relaxed);
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let used = std::mem::take(&mut self.used);
        self.stream.write_all(self.out.get(used))?;
        crash_point!("serving");
        Ok(())
    }
}

/// Lists are hashes and do not yield; tiny payloads are not worth a compressor's start.
fn worth_compressing(kind: FrameKind, raw: usize) -> bool {
    matches!(
        kind,
        FrameKind::Data | FrameKind::Segment | FrameKind::Chunks
    ) && raw >= 512
}

/// The asked chunks of a segment as runs of (offset in the segment, length), and their sum.
fn runs(segment: &Segment, bitmap: &[u8]) -> (Vec<(u64, usize)>, usize) {
    let mut runs: Vec<(u64, usize)> = Vec::new();
    let (mut offset, mut total) = (0, 0);
    for (i, c) in segment.chunks.iter().enumerate() {
        let len = c.len as usize;
        if bitmap.get(i / 8).is_some_and(|b| b >> (i % 8) & 1 == 1) {
            match runs.last_mut() {
                Some((from, n)) if *from + *n as u64 == offset => *n += len,
                _ => runs.push((offset, len)),
            }
            total += len;
        }
        offset += u64::from(c.len);
    }
    (runs, total)
}
