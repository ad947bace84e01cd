//! Cutting the new version of a file with the help of the older one's chunk list. Where the bytes did not
//! change the cuts did not either, so a chunk is tried at the length it had; if its id is the same, so
//! are its bytes and its end, and finding cuts, which costs more than hashing, is saved.
//!
//! The list is only a hint. What comes out is what [`next_cut`] gives, whatever the hint says, as long as
//! the list was made by cutting: a chunk of its is taken only where the bytes have its id. (Who made up
//! a list with other cuts, and had it taken as a file's, sees them again in later versions of that file;
//! its content id was of that peer's making before, too.)

use std::collections::{HashMap, VecDeque};

use crate::chunker::{MIN_CHUNK, chunk_refs, next_cut};
use crate::content::{ChunkId, ChunkRef, Segment};

/// Bytes of the older version, before and behind the place that is cut, of which the chunks are remembered:
/// the longest insertion or deletion behind which they are found again.
const REACH: u64 = 32 << 20;
/// Chunks remembered at most: as many as honest lists have within reach.
const MOST: usize = 2 * REACH as usize / MIN_CHUNK;

/// The chunks of a piece of a file.
#[derive(Default)]
pub struct Cut {
    /// In order, from the piece's start on.
    pub chunks: Vec<ChunkRef>,
    /// Their bytes.
    pub len: usize,
    /// Bytes of chunks that were found without looking for their ends.
    pub foreseen: usize,
    /// Bytes that were hashed, in vain or not.
    pub hashed: usize,
}

/// A chunk of the older version and where it began.
#[derive(Clone, Copy)]
struct Former {
    start: u64,
    chunk: ChunkRef,
}

/// Cuts one file from its start to its end. Takes memory for the chunks of 64 MiB of the older version, about
/// 100 bytes each; nothing when there is none.
pub struct Foresight<'a> {
    segments: Box<dyn Iterator<Item = Segment> + 'a>,
    is_over: bool,
    /// Where the older version's next segment begins.
    loaded: u64,
    /// The last chunk of the older version may end with the file and not at a cut. So one is taken in when
    /// the next is known.
    held: Option<Former>,
    window: VecDeque<Former>,
    starts: HashMap<[u8; 8], u64>,
    /// How much further on the bytes stood in the older version.
    shift: i64,
    /// Whether the last piece was as foreseen in some part.
    trusted: bool,
}

impl Default for Foresight<'_> {
    /// Nothing is known of an older version.
    fn default() -> Self {
        Self::new(std::iter::empty())
    }
}

fn key(id: &ChunkId) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    [a, b, c, d, e, f, g, h]
}

impl<'a> Foresight<'a> {
    /// `segments` are those of the older version in order; they may end early.
    pub fn new(segments: impl Iterator<Item = Segment> + 'a) -> Self {
        Self {
            segments: Box::new(segments),
            is_over: false,
            loaded: 0,
            held: None,
            window: VecDeque::new(),
            starts: HashMap::new(),
            shift: 0,
            trusted: true,
        }
    }

    /// Cuts `bytes`, which begin at a chunk's start at `offset` of the file, as far as that can be said;
    /// `eof`: the file ends with them. No chunk at all comes only of fewer than
    /// [`MAX_CHUNK`](crate::chunker::MAX_CHUNK) bytes that are not the file's last. Offsets only ever grow.
    pub fn cut(&mut self, offset: u64, bytes: &[u8], eof: bool) -> Cut {
        let mut cut = Cut::default();
        let foreseen = self.foresee(offset, bytes, &mut cut.hashed);
        let mut foreseen = foreseen.into_iter().peekable();
        // Lengths of chunks that end at `cut.len` and are not hashed yet.
        let mut lens = Vec::new();
        let mut unforeseen = 0;
        loop {
            while foreseen.next_if(|(at, _)| *at < cut.len).is_some() {}
            if let Some((_, chunk)) = foreseen.next_if(|(at, _)| *at == cut.len) {
                hash(bytes, &mut lens, &mut cut);
                cut.len += chunk.len as usize;
                cut.foreseen += chunk.len as usize;
                cut.chunks.push(chunk);
                unforeseen = 0;
            } else if let Some(len) = next_cut(&bytes[cut.len..], eof) {
                lens.push(len);
                cut.len += len;
                unforeseen += 1;
            } else {
                break;
            }
        }
        hash(bytes, &mut lens, &mut cut);
        self.learn(offset, &cut, unforeseen);
        cut
    }

    /// The older version's chunks that stand in `bytes` where they are expected.
    fn foresee(&mut self, offset: u64, bytes: &[u8], hashed: &mut usize) -> Vec<(usize, ChunkRef)> {
        if !self.trusted {
            return Vec::new();
        }
        let from = offset.saturating_add_signed(self.shift);
        let to = from + bytes.len() as u64;
        self.load(from, to);
        let first = self.window.partition_point(|f| f.start < from);
        let fits = |f: &&Former| f.start + u64::from(f.chunk.len) <= to;
        let all: Vec<Former> = self
            .window
            .range(first..)
            .take_while(fits)
            .copied()
            .collect();
        let mut out = Vec::new();
        // Each run of chunks without a gap is hashed at once, which is faster than one by one.
        for run in all.chunk_by(|a, b| a.start + u64::from(a.chunk.len) == b.start) {
            let lens = run.iter().map(|f| f.chunk.len as usize);
            let mut at = (run[0].start - from) as usize;
            let ids = ChunkId::of_all(&bytes[at..], lens);
            for (former, id) in run.iter().zip(ids) {
                if former.chunk.id == id {
                    out.push((at, former.chunk));
                }
                at += former.chunk.len as usize;
                *hashed += former.chunk.len as usize;
            }
        }
        out
    }

    /// Learns from a piece that ends with so many chunks that were not foreseen.
    fn learn(&mut self, offset: u64, cut: &Cut, unforeseen: usize) {
        if unforeseen == 0 {
            return;
        }
        self.trusted = cut.foreseen > 0;
        let mut end = offset + cut.len as u64;
        let from = end.saturating_add_signed(self.shift);
        self.load(from, from.saturating_add(REACH));
        for chunk in cut.chunks.iter().rev().take(unforeseen) {
            end -= u64::from(chunk.len);
            if let Some(start) = self.find(chunk) {
                self.shift = start.cast_signed() - end.cast_signed();
                self.trusted = true;
                return;
            }
        }
    }

    fn find(&self, chunk: &ChunkRef) -> Option<u64> {
        let start = *self.starts.get(&key(&chunk.id))?;
        let n = self.window.binary_search_by_key(&start, |f| f.start).ok()?;
        (self.window[n].chunk == *chunk).then_some(start)
    }

    /// Makes the window reach from a little before `from` to at least `to`.
    fn load(&mut self, from: u64, to: u64) {
        loop {
            while let Some(first) = self.window.front()
                && (self.window.len() > MOST || first.start.saturating_add(REACH) < from)
            {
                let key = key(&first.chunk.id);
                if self.starts.get(&key) == Some(&first.start) {
                    self.starts.remove(&key);
                }
                self.window.pop_front();
            }
            if self.is_over || self.loaded > to {
                return;
            }
            match self.segments.next() {
                Some(segment) => self.take(&segment),
                None => self.is_over = true,
            }
        }
    }

    fn take(&mut self, segment: &Segment) {
        let mut start = self.loaded;
        for chunk in segment.chunks.iter().filter(|c| c.len > 0) {
            if let Some(known) = self.held.replace(Former {
                start,
                chunk: *chunk,
            }) {
                self.starts.insert(key(&known.chunk.id), known.start);
                self.window.push_back(known);
            }
            start = start.saturating_add(u64::from(chunk.len));
        }
        // Of zeros no chunks are listed.
        self.loaded = self.loaded.saturating_add(segment.sref.len).max(start);
    }
}

/// Hashes the chunks of these lengths that end at `cut.len`.
fn hash(bytes: &[u8], lens: &mut Vec<usize>, cut: &mut Cut) {
    if lens.is_empty() {
        return;
    }
    let sum: usize = lens.iter().sum();
    cut.chunks.extend(chunk_refs(&bytes[cut.len - sum..], lens));
    cut.hashed += sum;
    lens.clear();
}
