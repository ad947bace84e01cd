//! What transfer asks of the disk and of the store.

use std::fs::File;
use std::io;

use left_core::content::{ChunkId, ChunkRef, ContentId, Segment, SegmentId, SegmentRef};
use left_core::entry::FileStat;
use left_core::path::RelPath;

/// Reads stored manifests.
pub trait ManifestRead: Send + Sync {
    /// Size in bytes and number of segments; `None` when the manifest is not stored.
    fn info(&self, content: &ContentId) -> io::Result<Option<(u64, u64)>>;
    /// At most `limit` segments from position `from`.
    fn refs(&self, content: &ContentId, from: u64, limit: usize) -> io::Result<Vec<SegmentRef>>;
    /// Where segment `n` begins in the file, and the segment.
    fn segment(&self, content: &ContentId, n: u64) -> io::Result<Option<(u64, Segment)>>;
}

/// Takes a new content's segments in order, then stores the manifest. Dropped unfinished, it
/// leaves nothing behind.
pub trait ManifestWriter: Send {
    /// The next segment.
    fn segment(&mut self, segment: &Segment) -> io::Result<()>;
    /// All segments are there: store them.
    fn finish(self: Box<Self>, content: &ContentId, size: u64) -> io::Result<()>;
}

/// Reads and stores manifests.
pub trait ManifestStore: ManifestRead {
    /// Begins a manifest.
    fn writer(&self) -> io::Result<Box<dyn ManifestWriter>>;
    /// Contents that have this segment, and which of theirs it is. At most a few, and only hints.
    fn having_segment(&self, id: &SegmentId) -> Vec<(ContentId, u64)>;
    /// Contents that have this chunk, and in which of their segments; known of some chunks only.
    fn having_chunk(&self, id: &ChunkId) -> Vec<(ContentId, u64)>;
    /// Whether looking for segments and chunks may find anything at all.
    fn has_places(&self) -> bool;
}

/// Opens one file after the other.
pub trait Opener {
    /// [`ContentSource::open`].
    fn open(&mut self, path: &RelPath, stat: &FileStat) -> io::Result<File>;
}

/// What a share offers to its peers.
pub trait ContentSource: Send + Sync {
    /// Where this share holds the content, and what `lstat` said there.
    fn locate(&self, content: &ContentId) -> Vec<(RelPath, FileStat)>;
    /// [`locate`](Self::locate) for each of these, in order. Not all places need be there: if none of what is
    /// there is any good, `locate` has the last word.
    fn locate_all(&self, contents: &[ContentId]) -> Vec<Vec<(RelPath, FileStat)>> {
        contents.iter().map(|c| self.locate(c)).collect()
    }
    /// Opens the file if its stat is still the given one.
    fn open(&self, path: &RelPath, stat: &FileStat) -> io::Result<File>;
    /// Opens many files, one after the other, at less cost than [`open`](Self::open) where it can.
    fn opener(&self) -> Option<Box<dyn Opener + '_>> {
        None
    }
    /// Segment `n` of a content that is still being fetched, if it is verified and in place: its
    /// bytes fill `buf`.
    fn part(&self, _content: &ContentId, _n: u64, _buf: &mut Vec<u8>) -> Option<Segment> {
        None
    }
    /// The chunk list of such a segment, if it is at hand: nothing is read for it.
    fn part_list(&self, _content: &ContentId, _n: u64) -> Option<Vec<ChunkRef>> {
        None
    }
    /// The stored manifests.
    fn manifest(&self) -> &dyn ManifestRead;
    /// The share holds a big content whose manifest is not stored: read the file again.
    fn missing_manifest(&self, content: &ContentId);
}

/// The stage and the share's own files.
pub trait FetchDisk: Send + Sync {
    /// A new empty file in the stage, in place of one of that name.
    fn stage_create(&self, name: &str) -> io::Result<File>;
    /// Stages a small content that nobody else is to open before it is put in place.
    fn stage_put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut self.stage_create(name)?, bytes)
    }
    /// A file of the stage for reading and writing, if there is one.
    fn stage_open(&self, name: &str) -> io::Result<Option<File>>;
    /// Gives a file of the stage another name, in place of one of that name. Whether there was one.
    fn stage_rename(&self, from: &str, to: &str) -> io::Result<bool>;
    /// Removes a file from the stage; none is fine.
    fn stage_remove(&self, name: &str) -> io::Result<()>;
    /// Opens a file of the share for reading.
    fn open_local(&self, path: &RelPath) -> io::Result<(File, FileStat)>;
    /// Files of the share that should have this content; at most a few.
    fn holders(&self, content: &ContentId) -> Vec<RelPath>;
}
