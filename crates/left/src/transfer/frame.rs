//! What travels on a data lane.
//!
//! The asker sends requests, the server answers each in the order they came. All integers are
//! big-endian.
//!
//! # Request
//! | bytes | meaning |
//! | --- | --- |
//! | 4 | length n of the message, 1 to 256 KiB |
//! | n | protobuf `Want` |
//!
//! A Want names at most 1024 contents or segments. The asker keeps the Wants it has not yet read
//! the answers of below 48 KiB in total (but for one), so that a server that is blocked sending
//! never blocks the asker's sending too.
//!
//! # Answer
//! One or more frames, each of a header of 24 bytes and a payload:
//!
//! | offset | size | meaning |
//! | --- | --- | --- |
//! | 0 | 4 | `Want.id` that is answered |
//! | 4 | 1 | kind |
//! | 5 | 1 | flags: bit 0 = the payload is one zstd frame, bit 1 = last frame of this answer; others 0 |
//! | 6 | 2 | count of list entries in the payload |
//! | 8 | 4 | item: which of the Want's contents or segments, from 0, in the order asked |
//! | 12 | 4 | raw length of the payload, at most 8 MiB |
//! | 16 | 4 | wire length: bytes that follow; equal to the raw length when not zstd, else smaller |
//! | 20 | 4 | reserved: written as 0, ignored |
//!
//! | kind | answers | raw payload |
//! | --- | --- | --- |
//! | 1 data | Whole | the content's bytes, at most 128 KiB |
//! | 2 refs | Refs | `count` × (8-byte length, 32-byte segment id), from the asked position on; at least one, at most 16,384 |
//! | 3 list | Lists | `count` × (4-byte length, 32-byte chunk id): all chunks of the segment |
//! | 4 segment | Segments | the list as above, then the segment's bytes |
//! | 5 chunks | Chunks | the asked chunks' bytes, in order |
//! | 6 gone | any | empty: the server has not that content (any more) |
//! | 8 error | any | a reason in UTF-8, at most 1 KiB; the server closes the lane after it |
//!
//! `Whole`, `Lists` and `Segments` are answered by one frame an item, in the order asked; `Refs`
//! and `Chunks` by one frame. `gone` for an item of `Whole` is followed by the other items; for
//! all else it ends the answer. The last frame of an answer, and no other, has flag bit 1. A
//! server may compress a payload only when the asker named the feature `zstd` in its Hello.

use std::io::{self, Read};

use left_core::chunker::MAX_CHUNK;
use left_core::content::{ChunkId, ChunkRef, SEGMENT_MAX_CHUNKS, SegmentId, SegmentRef};

use super::lane::{Buffer, LaneReader};

/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 24;
/// Longest payload before compression.
pub const MAX_PAYLOAD: usize = 8 << 20;
/// Longest request without its length.
pub const MAX_WANT: usize = 256 * 1024;
/// Most contents or segments of one request.
pub const MAX_WANT_ITEMS: usize = 1024;
/// Bytes of requests that may be unanswered on a lane.
pub const MAX_WANTS_UNANSWERED: usize = 48 * 1024;
/// Most segments of one page of a segment list.
pub const REFS_PAGE: usize = 16 * 1024;
/// Longest reason in an error frame.
pub const MAX_REASON: usize = 1024;
/// Bytes of one chunk in a list.
pub const CHUNK_REF_LEN: usize = 36;
/// Bytes of one segment in a segment list.
pub const SEGMENT_REF_LEN: usize = 40;

const FLAG_ZSTD: u8 = 1;
const FLAG_LAST: u8 = 2;

/// What a frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// A small content.
    Data = 1,
    /// A page of a segment list.
    Refs = 2,
    /// A segment's chunk list.
    List = 3,
    /// A segment's chunk list and bytes.
    Segment = 4,
    /// Some chunks of a segment.
    Chunks = 5,
    /// The server has it not.
    Gone = 6,
    /// The lane is closed, and why.
    Error = 8,
}

impl FrameKind {
    fn from_wire(byte: u8) -> Option<Self> {
        use FrameKind::{Chunks, Data, Error, Gone, List, Refs, Segment};
        [Data, Refs, List, Segment, Chunks, Gone, Error]
            .into_iter()
            .find(|k| *k as u8 == byte)
    }
}

/// A frame's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Which Want is answered.
    pub want: u32,
    /// What the payload is.
    pub kind: FrameKind,
    /// Whether the payload is compressed.
    pub zstd: bool,
    /// Whether it is the answer's last frame.
    pub last: bool,
    /// List entries in the payload.
    pub count: u16,
    /// Which item of the Want.
    pub item: u32,
    /// Payload bytes before compression.
    pub raw: u32,
    /// Payload bytes that follow.
    pub wire: u32,
}

/// A peer that does not keep to the protocol of a lane: the lane is closed.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream failed or ended inside a frame.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no valid frame.
    #[error("{0}")]
    Malformed(&'static str),
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut b = [0; HEADER_LEN];
        b[0..4].copy_from_slice(&self.want.to_be_bytes());
        b[4] = self.kind as u8;
        b[5] = u8::from(self.zstd) * FLAG_ZSTD + u8::from(self.last) * FLAG_LAST;
        b[6..8].copy_from_slice(&self.count.to_be_bytes());
        b[8..12].copy_from_slice(&self.item.to_be_bytes());
        b[12..16].copy_from_slice(&self.raw.to_be_bytes());
        b[16..20].copy_from_slice(&self.wire.to_be_bytes());
        b
    }

    /// Reads a header and checks its lengths against each other and against the bounds.
    pub fn decode(b: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let word = |at: usize| u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let kind = FrameKind::from_wire(b[4]).ok_or(FrameError::Malformed("unknown frame kind"))?;
        if b[5] & !(FLAG_ZSTD | FLAG_LAST) != 0 {
            return Err(FrameError::Malformed("unknown frame flags"));
        }
        let header = Self {
            want: word(0),
            kind,
            zstd: b[5] & FLAG_ZSTD != 0,
            last: b[5] & FLAG_LAST != 0,
            count: u16::from_be_bytes([b[6], b[7]]),
            item: word(8),
            raw: word(12),
            wire: word(16),
        };
        if header.raw as usize > MAX_PAYLOAD {
            return Err(FrameError::Malformed("payload too long"));
        }
        let fits = match header.zstd {
            true => header.wire < header.raw,
            false => header.wire == header.raw,
        };
        if !fits {
            return Err(FrameError::Malformed("lengths contradict each other"));
        }
        Ok(header)
    }
}

/// Reads frames, reusing its buffers.
pub(crate) struct FrameReader {
    lane: LaneReader,
    payload: Buffer,
    packed: Buffer,
    unzip: Option<zstd::bulk::Decompressor<'static>>,
}

impl FrameReader {
    pub(crate) fn new() -> Self {
        Self {
            lane: LaneReader::new(),
            payload: Buffer::default(),
            packed: Buffer::default(),
            unzip: None,
        }
    }

    /// Whether the next header lies in the buffer already.
    pub(crate) fn has_header(&self) -> bool {
        self.lane.buffered() >= HEADER_LEN
    }

    /// The next header; the stream's end is an error.
    pub(crate) fn header<S: Read + ?Sized>(
        &mut self,
        stream: &mut S,
    ) -> Result<Header, FrameError> {
        let mut bytes = [0; HEADER_LEN];
        if !self.lane.read(stream, &mut bytes)? {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Header::decode(&bytes)
    }

    /// The payload that belongs to `header`, decompressed. The caller has checked that a payload
    /// of `header.raw` bytes may come here.
    pub(crate) fn payload<S: Read + ?Sized>(
        &mut self,
        stream: &mut S,
        header: &Header,
    ) -> Result<&[u8], FrameError> {
        self.payload_by(stream, header, usize::MAX, |_, _| Ok(()))
    }

    /// The same, read in steps of at most so many bytes; after each `then` is called with how many of
    /// the payload's bytes, as they travel, have come.
    pub(crate) fn payload_by<S: Read + ?Sized>(
        &mut self,
        stream: &mut S,
        header: &Header,
        step: usize,
        mut then: impl FnMut(&mut S, usize) -> io::Result<()>,
    ) -> Result<&[u8], FrameError> {
        let raw = header.raw as usize;
        let short = || FrameError::Io(io::ErrorKind::UnexpectedEof.into());
        let target = match header.zstd {
            true => self.packed.take(header.wire as usize),
            false => self.payload.take(raw),
        };
        let mut come = 0;
        for part in target.chunks_mut(step) {
            if !self.lane.read(stream, part)? {
                return Err(short());
            }
            come += part.len();
            then(stream, come)?;
        }
        if header.zstd {
            let unzip = match &mut self.unzip {
                Some(d) => d,
                none => none.insert(zstd::bulk::Decompressor::new()?),
            };
            // The output slice bounds the work: a bomb fails as soon as it outgrows `raw`.
            let packed = self.packed.get(header.wire as usize);
            let got = unzip
                .decompress_to_buffer(packed, self.payload.take(raw))
                .map_err(|_| FrameError::Malformed("bad zstd payload"))?;
            if got != raw {
                return Err(FrameError::Malformed("zstd payload of another length"));
            }
        }
        Ok(self.payload.get(raw))
    }
}

/// Writes a chunk list where `out` has room for exactly that.
pub(crate) fn put_list(out: &mut [u8], list: &[ChunkRef]) {
    for (slot, c) in out.chunks_exact_mut(CHUNK_REF_LEN).zip(list) {
        slot[..4].copy_from_slice(&c.len.to_be_bytes());
        slot[4..].copy_from_slice(&c.id.0);
    }
}

/// Reads a chunk list and checks it against the segment it should belong to.
pub(crate) fn parse_list(bytes: &[u8], sref: &SegmentRef) -> Option<Vec<ChunkRef>> {
    if bytes.len() > SEGMENT_MAX_CHUNKS * CHUNK_REF_LEN {
        return None;
    }
    let mut total = 0u64;
    let mut list = Vec::with_capacity(bytes.len() / CHUNK_REF_LEN);
    for entry in bytes.chunks_exact(CHUNK_REF_LEN) {
        let (len, id) = entry.split_first_chunk::<4>()?;
        let len = u32::from_be_bytes(*len);
        if len == 0 || len as usize > MAX_CHUNK {
            return None;
        }
        total += u64::from(len);
        list.push(ChunkRef {
            len,
            id: ChunkId(id.try_into().ok()?),
        });
    }
    (total == sref.len && SegmentId::of(&list) == sref.id).then_some(list)
}

/// Writes a page of a segment list where `out` has room for exactly that.
pub(crate) fn put_refs(out: &mut [u8], refs: &[SegmentRef]) {
    for (slot, r) in out.chunks_exact_mut(SEGMENT_REF_LEN).zip(refs) {
        slot[..8].copy_from_slice(&r.len.to_be_bytes());
        slot[8..].copy_from_slice(&r.id.0);
    }
}

/// Reads a page of a segment list; only its form is checked.
pub(crate) fn parse_refs(bytes: &[u8]) -> impl Iterator<Item = SegmentRef> {
    bytes.chunks_exact(SEGMENT_REF_LEN).filter_map(|entry| {
        let (len, id) = entry.split_first_chunk::<8>()?;
        Some(SegmentRef {
            len: u64::from_be_bytes(*len),
            id: SegmentId(id.try_into().ok()?),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            want: 7,
            kind: FrameKind::Segment,
            zstd: false,
            last: true,
            count: 3,
            item: 1,
            raw: 100,
            wire: 100,
        }
    }

    #[test]
    fn header_layout_is_fixed() {
        let bytes = sample().encode();
        assert_eq!(
            bytes,
            [
                0, 0, 0, 7, 4, 2, 0, 3, 0, 0, 0, 1, 0, 0, 0, 100, 0, 0, 0, 100, 0, 0, 0, 0
            ]
        );
        assert_eq!(Header::decode(&bytes).unwrap(), sample());
    }

    #[test]
    fn bad_headers_are_refused() {
        let change = |at: usize, to: u8| {
            let mut bytes = sample().encode();
            bytes[at] = to;
            Header::decode(&bytes)
        };
        assert!(change(4, 7).is_err(), "unknown kind");
        assert!(change(5, 4).is_err(), "unknown flag");
        assert!(change(12, 1).is_err(), "too long");
        assert!(change(19, 99).is_err(), "lengths differ without zstd");
        assert!(change(5, 1).is_err(), "zstd that is no shorter");
    }

    #[test]
    fn a_bomb_is_stopped_at_its_announced_length() {
        let packed = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        let header = Header {
            zstd: true,
            raw: packed.len() as u32 + 1,
            wire: packed.len() as u32,
            ..sample()
        };
        let mut reader = FrameReader::new();
        assert!(reader.payload(&mut packed.as_slice(), &header).is_err());
    }
}
