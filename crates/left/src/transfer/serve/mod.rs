//! Answers Wants on one lane.

mod out;
mod pack;

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

use super::fileio::{advise_sequential, advise_soon, read_at_most, read_from_memory, unchanged};
use super::frame::{
    CHUNK_REF_LEN, FrameKind, MAX_PAYLOAD, MAX_WANT, MAX_WANT_ITEMS, REFS_PAGE, SEGMENT_REF_LEN,
    put_list, put_refs,
};
use super::lane::{Buffer, LaneReader, LaneStream};
use super::ports::{ContentSource, Opener};
use out::{Draft, Out};

/// How far ahead a big file is asked to be read into memory.
const READ_AHEAD: u64 = 4 << 20;

/// How a lane is served.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServeConfig {
    /// The asker knows the feature `zstd`: payloads are compressed where its requests say that bytes
    /// come slowly.
    pub zstd: bool,
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
        source,
        out: Out::new(stream, config.zstd, stats),
        opened: None,
        part: Vec::new(),
        part_of: None,
    };
    let mut reader = LaneReader::new();
    let mut buf = Buffer::default();
    loop {
        let result = match read_want(&mut reader, &mut *lane.out.stream, &mut buf) {
            Ok(None) => return Ok(()),
            Ok(Some(want)) => {
                crash_point!("asked");
                stats.wants.fetch_add(1, Ordering::Relaxed);
                lane.out.packer.told(want.rate);
                lane.answer(&want)
            }
            Err(e) => Err(e),
        };
        if let Err(e) = result {
            if let ServeError::BadWant(reason) = &e {
                warn!(%reason, "data lane closed: the peer sent a bad request");
                // Best effort: the lane is given up anyway.
                let _ = lane.out.refuse(reason);
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
    source: Arc<dyn ContentSource>,
    out: Out<'a>,
    opened: Option<Opened>,
    /// Bytes of a segment that is still in the stage, and of which content it is.
    part: Vec<u8>,
    part_of: Option<(ContentId, u64, Segment)>,
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
        let source = Arc::clone(&self.source);
        let mut opener = source.opener();
        let mut located = match &want.what {
            What::Whole(contents) => self.source.locate_all(contents),
            _ => Vec::new(),
        }
        .into_iter();
        for item in 0..items {
            let last = item + 1 == items;
            let more = match &want.what {
                What::Whole(contents) => {
                    let places = located.next().unwrap_or_default();
                    let found = (&contents[item], places);
                    self.whole(want.id, item, last, found, opener.as_deref_mut())?
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
            self.out.write_much()?;
            if !more {
                break;
            }
        }
        self.out.write()?;
        self.out.stream.flush()?;
        Ok(())
    }

    /// One small content. The asker hashes it, so it is not hashed here.
    fn whole(
        &mut self,
        want: u32,
        item: usize,
        last: bool,
        (content, places): (&ContentId, Vec<(RelPath, FileStat)>),
        mut opener: Option<&mut (dyn Opener + '_)>,
    ) -> Result<bool, ServeError> {
        let source = Arc::clone(&self.source);
        // Asked only if none of these is any good.
        let more = (!places.is_empty()).then(|| std::iter::once_with(|| source.locate(content)));
        let more = more.into_iter().flatten().flatten();
        for (path, stat) in places.into_iter().chain(more) {
            if stat.size > WHOLE_MAX {
                return Err(ServeError::BadWant("big content asked for whole".into()));
            }
            let opened = match &mut opener {
                Some(opener) => opener.open(&path, &stat),
                None => self.source.open(&path, &stat),
            };
            let Ok(file) = opened else {
                continue;
            };
            let size = stat.size as usize;
            let mut draft = self.out.begin(want, FrameKind::Data, item, size);
            let payload = self.out.payload(&draft);
            let read = read_at_most(&file, payload, 0);
            if matches!(read, Ok(n) if n == size) && unchanged(&file, &stat).unwrap_or(false) {
                draft.header.last = last;
                self.out.finish(draft);
                return Ok(true);
            }
        }
        self.out.gone(want, item, last);
        Ok(true)
    }

    fn refs(&mut self, want: u32, content: &ContentId, from: u64) -> Result<bool, ServeError> {
        let Some((_, segments)) = self.big_info(content)? else {
            self.out.gone(want, 0, true);
            return Ok(false);
        };
        if from >= segments {
            return Err(ServeError::BadWant("position past the end".into()));
        }
        let source = Arc::clone(&self.source);
        let refs = source.manifest().refs(content, from, REFS_PAGE)?;
        if refs.is_empty() || refs.len() > REFS_PAGE {
            self.out.gone(want, 0, true);
            return Ok(false);
        }
        let mut draft = self
            .out
            .begin(want, FrameKind::Refs, 0, refs.len() * SEGMENT_REF_LEN);
        put_refs(self.out.payload(&draft), &refs);
        draft.header.count = refs.len() as u16;
        draft.header.last = true;
        self.out.finish(draft);
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
        let chunks = match self.find_segment(content, n)? {
            Some((_, segment)) => Some(segment.chunks),
            None => self.source.part_list(content, n),
        };
        let Some(chunks) = chunks else {
            self.out.gone(want, item, true);
            return Ok(false);
        };
        let len = chunks.len() * CHUNK_REF_LEN;
        let mut draft = self.out.begin(want, FrameKind::List, item, len);
        put_list(self.out.payload(&draft), &chunks);
        draft.header.count = chunks.len() as u16;
        draft.header.last = last;
        self.out.finish(draft);
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
        let found = self.find_segment(content, n)?;
        let staged = found.is_none();
        let Some((offset, segment)) = found.or_else(|| Some((0, self.part(content, n)?))) else {
            self.out.gone(want, item, true);
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
        let mut draft = self.out.begin(want, FrameKind::Segment, item, list + bytes);
        put_list(self.out.payload(&draft), &segment.chunks);
        if staged {
            self.out.payload(&draft)[list..].copy_from_slice(&self.part[..bytes]);
        } else if !self.read_big(content, offset, &draft, list, bytes)? {
            self.out.gone(want, item, true);
            return Ok(false);
        }
        draft.header.count = segment.chunks.len() as u16;
        draft.header.last = last;
        self.out.finish(draft);
        Ok(true)
    }

    fn chunks(
        &mut self,
        want: u32,
        content: &ContentId,
        n: u64,
        bitmap: &[u8],
    ) -> Result<bool, ServeError> {
        let found = self.find_segment(content, n)?;
        let staged = found.is_none();
        let Some((offset, segment)) = found.or_else(|| Some((0, self.part(content, n)?))) else {
            self.out.gone(want, 0, true);
            return Ok(false);
        };
        let (runs, total) = runs(&segment, bitmap);
        if total == 0 || total > MAX_PAYLOAD {
            return Err(ServeError::BadWant("no chunks asked for".into()));
        }
        let mut draft = self.out.begin(want, FrameKind::Chunks, 0, total);
        let mut at = 0;
        for (from, len) in runs {
            if staged {
                let run = &self.part[from as usize..from as usize + len];
                self.out.payload(&draft)[at..at + len].copy_from_slice(run);
            } else if !self.read_big(content, offset + from, &draft, at, len)? {
                self.out.gone(want, 0, true);
                return Ok(false);
            }
            at += len;
        }
        draft.header.last = true;
        self.out.finish(draft);
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

    /// A segment of a content that is still being fetched here; its bytes are in `self.part`. They
    /// stay there: chunk after chunk of it may be asked for.
    fn part(&mut self, content: &ContentId, n: u64) -> Option<Segment> {
        if let Some((of, at, segment)) = &self.part_of
            && (of, *at) == (content, n)
        {
            return Some(segment.clone());
        }
        self.part_of = None;
        let segment = self.source.part(content, n, &mut self.part)?;
        self.part_of = Some((*content, n, segment.clone()));
        Some(segment)
    }

    /// Whether the content is open, now or already.
    fn open_big(&mut self, content: &ContentId) -> bool {
        if self.opened.as_ref().is_some_and(|o| o.content == *content) {
            return true;
        }
        self.out.packer.other_file();
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

    /// Reads `len` bytes of the open content into a frame's payload from `at` on. `false` when the file is not
    /// what it was; then it is closed, so that the next Want looks for another place.
    fn read_big(
        &mut self,
        content: &ContentId,
        offset: u64,
        draft: &Draft,
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
        let target = &mut self.out.payload(draft)[at..at + len];
        let got = read_from_memory(&opened.file, target, offset);
        let ahead = end + READ_AHEAD / 2 > opened.soon || end + 2 * READ_AHEAD < opened.soon;
        // Where all is in memory the system would look for each page of what follows in vain.
        if got < len && ahead {
            advise_soon(&opened.file, end, READ_AHEAD);
            opened.soon = end + READ_AHEAD;
        }
        let rest = &mut target[got..];
        let read = opened.file.read_exact_at(rest, offset + got as u64);
        // A write between our read and this look shows in the mtime; one the clock's grain hides
        // is found by the asker's hashing.
        let good = read.is_ok() && unchanged(&opened.file, &opened.stat).unwrap_or(false);
        if !good {
            debug!(content = ?content, "a file changed while it was served");
            self.opened = None;
        }
        Ok(good)
    }
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
