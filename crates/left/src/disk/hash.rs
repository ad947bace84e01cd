//! Reading a file once: its cut points, segments and content id, with proof that the bytes belong to
//! the `lstat` they are recorded with.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use left_core::chunker::{self, MAX_CHUNK, ManifestBuilder};
use left_core::content::{ContentId, MAX_FILE_SIZE, Segment, WHOLE_MAX};
use left_core::entry::FileStat;
use left_core::foresight::Foresight;
use left_core::path::RelPath;
use rustix::fs::{Advice, SeekFrom};
use rustix::io::Errno;

use super::look::open_regular_in;
use super::root::Root;
use super::sys::{self, Stat};
use crate::counters::HASHED;

/// Bytes asked of the system at once.
const READ_SIZE: usize = 1024 * 1024;
/// A file changed less than this ago could be changed again without its time moving: kernels stamp
/// files by a clock that ticks every 1 to 10 ms.
const COARSE_TICK: Duration = Duration::from_millis(20);
/// How often a long read makes sure that the file still is what was asked for.
const RECHECK_BYTES: u64 = 64 * 1024 * 1024;
/// `f_type` of ZFS, which may report freshly written data as a hole.
const ZFS_MAGIC: i64 = 0x2fc1_2fc1;

/// Why a file has no content id now.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// It is not, or did not stay, what was expected: look again.
    #[error("the file changed while it was read")]
    Changed,
    /// Nothing, or no regular file, stands there any more.
    #[error("the file is gone")]
    Gone,
    /// We may not read it.
    #[error("no permission to read it")]
    Denied,
    /// It is larger than any file LEFT accepts.
    #[error("larger than {MAX_FILE_SIZE} bytes")]
    TooBig,
    /// The sink asked to stop.
    #[error("stopped")]
    Stopped,
    /// Anything else the system said.
    #[error("{0}")]
    Io(#[from] io::Error),
}

thread_local! {
    /// Every thread that hashes keeps one buffer for good.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reads the file at `path` once and returns its content id, if it was `expected` before and after.
///
/// The segments of files longer than [`WHOLE_MAX`] are passed to `sink` in order while the rest is
/// still being read; shorter files have none. Holes are not read. The result is recorded safely: a
/// change made after the read shows in the file's stat, even on kernels whose file times tick slowly.
pub fn hash_file(
    root: &Root,
    path: &RelPath,
    expected: &FileStat,
    sink: &mut dyn FnMut(&Segment) -> ControlFlow<()>,
) -> Result<ContentId, HashError> {
    hash_again(root, path, expected, std::iter::empty(), sink)
}

/// As [`hash_file`], with the segments of an older version in order, as far as they are known: where the
/// bytes are the same, cuts are not searched for again.
pub fn hash_again(
    root: &Root,
    path: &RelPath,
    expected: &FileStat,
    former: impl Iterator<Item = Segment>,
    sink: &mut dyn FnMut(&Segment) -> ControlFlow<()>,
) -> Result<ContentId, HashError> {
    let opened = root.open_regular(path);
    hash_opened(root, opened, expected, former, sink)
}

/// As [`hash_file`] for a file of at most [`WHOLE_MAX`], in an open folder.
pub(crate) fn hash_in(
    root: &Root,
    dir: BorrowedFd<'_>,
    path: &RelPath,
    expected: &FileStat,
) -> Result<ContentId, HashError> {
    let opened = open_regular_in(dir, path.name());
    let mut none = |_: &Segment| ControlFlow::Continue(());
    hash_opened(root, opened, expected, std::iter::empty(), &mut none)
}

/// The same of a file that was opened already, when its stat was taken: only what came after that counts.
pub(crate) fn hash_open(root: &Root, file: File, stat: &Stat) -> Result<ContentId, HashError> {
    let mut none = |_: &Segment| ControlFlow::Continue(());
    hash_opened(
        root,
        Ok((file, *stat)),
        &stat.file,
        std::iter::empty(),
        &mut none,
    )
}

fn hash_opened(
    root: &Root,
    opened: io::Result<(File, Stat)>,
    expected: &FileStat,
    former: impl Iterator<Item = Segment>,
    sink: &mut dyn FnMut(&Segment) -> ControlFlow<()>,
) -> Result<ContentId, HashError> {
    let (file, stat) = opened.map_err(open_error)?;
    if stat.file != *expected {
        return Err(HashError::Changed);
    }
    if stat.file.size > MAX_FILE_SIZE {
        return Err(HashError::TooBig);
    }
    if wait_for_tick(root, &stat) && sys::stat_fd(&file)?.file != *expected {
        return Err(HashError::Changed);
    }
    let content = BUFFER.with_borrow_mut(|buf| {
        if stat.file.size <= WHOLE_MAX {
            hash_small(&file, &stat, buf)
        } else {
            hash_large(&file, &stat, buf, Foresight::new(former), sink)
        }
    })?;
    if sys::stat_fd(&file)?.file != *expected {
        return Err(HashError::Changed);
    }
    Ok(content)
}

fn open_error(e: io::Error) -> HashError {
    match sys::errno(&e) {
        Some(e) if sys::is_absent(e) => HashError::Gone,
        Some(Errno::ACCESS | Errno::PERM) => HashError::Denied,
        None if e.kind() == io::ErrorKind::InvalidInput => HashError::Gone,
        _ => HashError::Io(e),
    }
}

/// Lets a fresh file's clock tick pass before its bytes are read: only then does the recorded stat
/// imply the bytes. Returns whether it waited.
fn wait_for_tick(root: &Root, stat: &Stat) -> bool {
    if root.stamps_are_fine(stat) {
        return false;
    }
    let age = sys::nanos_between(stat.file.mtime, sys::now());
    let tick = COARSE_TICK.as_nanos() as i128;
    // A time in the future is no time of a write that just happened.
    if !(-tick..tick).contains(&age) {
        return false;
    }
    let rest = u64::try_from(tick - age).unwrap_or(0);
    std::thread::sleep(Duration::from_nanos(rest));
    true
}

fn hash_small(file: &File, stat: &Stat, buf: &mut Vec<u8>) -> Result<ContentId, HashError> {
    let size = stat.file.size as usize;
    if buf.len() <= size {
        buf.resize(WHOLE_MAX as usize + 1, 0);
    }
    // One byte more than expected, so that growth shows. All that was expected at once: whether it has
    // grown since, its stat will tell, which is looked at next.
    let got = match file.read_at(&mut buf[..=size], 0) {
        Ok(got) if got == size => got,
        _ => read_full(file, &mut buf[..=size], 0)?,
    };
    if got != size {
        return Err(HashError::Changed);
    }
    HASHED.add(stat.file.size);
    Ok(chunker::content_id(&buf[..size]))
}

fn hash_large(
    file: &File,
    stat: &Stat,
    buf: &mut Vec<u8>,
    mut foresight: Foresight<'_>,
    sink: &mut dyn FnMut(&Segment) -> ControlFlow<()>,
) -> Result<ContentId, HashError> {
    buf.resize(READ_SIZE + MAX_CHUNK, 0);
    let _ = rustix::fs::fadvise(file, 0, None, Advice::Sequential);
    let mut reader = Reader::new(file, stat, buf);
    let mut builder = ManifestBuilder::new();
    let zero_len = chunker::zero_chunk_len() as u64;
    let mut pass = |segments: Vec<Segment>| {
        let stop = segments.iter().any(|s| sink(s).is_break());
        if stop {
            Err(HashError::Stopped)
        } else {
            Ok(())
        }
    };
    let mut recheck_at = RECHECK_BYTES;
    loop {
        let zeros = reader.zeros_ahead()?;
        if zeros >= MAX_CHUNK as u64 {
            let count = (zeros - MAX_CHUNK as u64) / zero_len + 1;
            pass(builder.push_zeros(count))?;
            reader.skip(count * zero_len);
            continue;
        }
        let eof = reader.fill()?;
        let bytes = reader.bytes();
        if bytes.is_empty() {
            break;
        }
        let cut = foresight.cut(reader.offset(), bytes, eof);
        HASHED.add(cut.hashed as u64);
        if cut.len == 0 {
            return Err(HashError::Io(io::Error::other(
                "no cut point in a full buffer",
            )));
        }
        for chunk in cut.chunks {
            pass(builder.push(chunk))?;
        }
        reader.consume(cut.len);
        if reader.offset() >= recheck_at {
            recheck_at = reader.offset() + RECHECK_BYTES;
            if sys::stat_fd(file)?.file != stat.file {
                return Err(HashError::Changed);
            }
        }
    }
    let (last, content) = builder.finish();
    pass(last)?;
    Ok(content)
}

/// Hands out a file's bytes in order from one buffer, and knows where its holes are.
struct Reader<'a> {
    file: &'a File,
    buf: &'a mut [u8],
    /// Bytes `start..end` of the buffer are the file's bytes from `offset` on.
    start: usize,
    end: usize,
    offset: u64,
    size: u64,
    /// The hole or data run that was found last, `from..to` in the file.
    run: Run,
    sparse: bool,
}

#[derive(Clone, Copy)]
struct Run {
    from: u64,
    to: u64,
    hole: bool,
}

impl<'a> Reader<'a> {
    fn new(file: &'a File, stat: &Stat, buf: &'a mut [u8]) -> Self {
        let size = stat.file.size;
        // A file with all its blocks has no holes worth looking for.
        let sparse = stat.blocks.saturating_mul(512) < size && holes_are_true(file);
        Self {
            file,
            buf,
            start: 0,
            end: 0,
            offset: 0,
            size,
            run: Run {
                from: 0,
                to: if sparse { 0 } else { size },
                hole: false,
            },
            sparse,
        }
    }

    /// Offset in the file of the first byte not consumed.
    fn offset(&self) -> u64 {
        self.offset
    }

    fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    fn consume(&mut self, len: usize) {
        self.start += len;
        self.offset += len as u64;
    }

    /// How many bytes from the offset on are known to be a hole.
    fn zeros_ahead(&mut self) -> io::Result<u64> {
        if !self.sparse || self.offset >= self.size {
            return Ok(0);
        }
        let run = self.run_at(self.offset)?;
        Ok(if run.hole { run.to - self.offset } else { 0 })
    }

    /// Goes on `len` bytes further, over bytes that need not be read.
    fn skip(&mut self, len: u64) {
        self.offset += len;
        let kept = (self.end - self.start) as u64;
        if len < kept {
            self.start += len as usize;
        } else {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Makes at least [`MAX_CHUNK`] bytes ready, or all up to the end, which it returns to be reached.
    fn fill(&mut self) -> Result<bool, HashError> {
        while self.end - self.start < MAX_CHUNK {
            let at = self.offset + (self.end - self.start) as u64;
            if at >= self.size {
                return Ok(true);
            }
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            let run = self.run_at(at)?;
            let room = (self.buf.len() - self.end) as u64;
            if run.hole {
                // Only as much as the chunk that began before the hole can take.
                let len = (run.to - at).min(room).min(MAX_CHUNK as u64) as usize;
                self.buf[self.end..self.end + len].fill(0);
                self.end += len;
            } else {
                let len = (run.to - at).min(room).min(READ_SIZE as u64) as usize;
                let got = read_full(self.file, &mut self.buf[self.end..self.end + len], at)?;
                if got < len {
                    return Err(HashError::Changed);
                }
                self.end += len;
            }
        }
        Ok(self.offset + (self.end - self.start) as u64 >= self.size)
    }

    /// The hole or data run that holds `at`, cut off at the file's expected end.
    fn run_at(&mut self, at: u64) -> io::Result<Run> {
        if (self.run.from..self.run.to).contains(&at) {
            return Ok(self.run);
        }
        let data = match rustix::fs::seek(self.file, SeekFrom::Data(at)) {
            Ok(data) => data.min(self.size),
            Err(Errno::NXIO) => self.size,
            Err(_) => {
                // The file system can not tell: all is data.
                self.sparse = false;
                at
            }
        };
        self.run = if data > at {
            Run {
                from: at,
                to: data,
                hole: true,
            }
        } else {
            let end = match self.sparse {
                true => rustix::fs::seek(self.file, SeekFrom::Hole(at)).unwrap_or(self.size),
                false => self.size,
            };
            let to = if end > at {
                end.min(self.size)
            } else {
                self.size
            };
            Run {
                from: at,
                to,
                hole: false,
            }
        };
        Ok(self.run)
    }
}

fn holes_are_true(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|s| i128::from(s.f_type) != i128::from(ZFS_MAGIC))
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &File, buf: &mut [u8], mut at: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buf.len() {
        match file.read_at(&mut buf[got..], at) {
            Ok(0) => break,
            Ok(n) => {
                got += n;
                at += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}
