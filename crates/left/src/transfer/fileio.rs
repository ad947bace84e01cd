//! Positioned, sparse-aware file I/O.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::counters::HASHED;
use left_core::chunker::{self, MAX_CHUNK, ManifestBuilder};
use left_core::content::{ChunkId, ChunkRef, ContentId};
use left_core::entry::{FileStat, Mtime};
use rustix::fs::{Advice, FallocateFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

const READ: usize = 1 << 20;
/// Bytes that are given to the disk at a time.
const WRITEBACK: u64 = 8 << 20;
/// How far behind what is written the disk is sure to have written, mostly.
const BEHIND: u64 = 64 << 20;
const FOLIO: u64 = 2 << 20;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Whether the open file still is what `stat` says (a rename in between does not matter).
pub(crate) fn unchanged(file: &File, stat: &FileStat) -> io::Result<bool> {
    let m = file.metadata()?;
    let now = FileStat {
        ino: m.ino(),
        size: m.size(),
        mtime: Mtime {
            secs: m.mtime(),
            nanos: u32::try_from(m.mtime_nsec()).unwrap_or(0),
        },
        mode: m.mode() & left_core::entry::MODE_MASK,
        ..*stat
    };
    Ok(now.same_but_ctime(stat))
}

/// Whether any byte in the range is not part of a hole.
pub(crate) fn has_data(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    Ok(next_data(file, offset)?.is_some_and(|at| at < offset + len))
}

/// Where the next data begins, at or after `offset`; `None` when only a hole follows.
fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        // A file system that knows no holes: all is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(offset)),
        Err(e) => Err(e.into()),
    }
}

/// Makes the range read as zeros: a hole where the file system can, else written zeros.
pub(crate) fn make_zero(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, mode, offset, len) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            let mut done = 0;
            while done < len {
                let n = (len - done).min(ZEROS.len() as u64);
                file.write_all_at(&ZEROS[..n as usize], offset + done)?;
                done += n;
            }
            Ok(())
        }
        Err(e) => Err(e.into()),
    }
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // The first bytes tell for nearly all data.
    let head = bytes.len().min(16);
    bytes[..head].iter().all(|b| *b == 0)
        && bytes[head..]
            .chunks(ZEROS.len())
            .all(|c| *c == ZEROS[..c.len()])
}

/// Reads until `out` is full or the file ends; returns the bytes read.
pub(crate) fn read_at_most(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < out.len() {
        match file.read_at(&mut out[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Reads what is in memory already, from the front of the range on; says how many bytes that were. None where the
/// file system does not tell.
pub(crate) fn read_from_memory(file: &File, out: &mut [u8], offset: u64) -> usize {
    let bufs = &mut [io::IoSliceMut::new(out)];
    rustix::io::preadv2(file, bufs, offset, ReadWriteFlags::NOWAIT).unwrap_or(0)
}

/// Checks `bytes` against a chunk list that covers exactly them.
pub(crate) fn matches(bytes: &[u8], list: &[ChunkRef]) -> bool {
    HASHED.add(bytes.len() as u64);
    let ids = ChunkId::of_all(bytes, list.iter().map(|c| c.len as usize));
    ids.iter().zip(list).all(|(id, c)| *id == c.id)
}

/// Writes a segment's bytes. In a fresh file, chunks of zeros are left as the holes they are.
pub(crate) fn write_chunks(
    file: &File,
    fresh: bool,
    offset: u64,
    bytes: &[u8],
    list: &[ChunkRef],
) -> io::Result<()> {
    let (mut from, mut at) = (0, 0);
    for c in list {
        let end = at + c.len as usize;
        if fresh && is_zero(&bytes[at..end]) {
            file.write_all_at(&bytes[from..at], offset + from as u64)?;
            from = end;
        }
        at = end;
    }
    file.write_all_at(&bytes[from..at], offset + from as u64)
}

/// Says that the file will be read from front to back.
pub(crate) fn advise_sequential(file: &File) {
    // Only a hint: failing changes nothing.
    let _ = rustix::fs::fadvise(file, 0, None, Advice::Sequential);
}

/// Asks for the range to be read into memory soon.
pub(crate) fn advise_soon(file: &File, offset: u64, len: u64) {
    // Only a hint: failing changes nothing.
    let _ = rustix::fs::fadvise(
        file,
        offset,
        std::num::NonZeroU64::new(len),
        Advice::WillNeed,
    );
}

/// Begins to write to the disk, without waiting, what was written before this range; called for each
/// range it does so once every [`WRITEBACK`] bytes of the file. On Linux "not needed" starts writing
/// what is dirty and drops from memory only what is clean, so what was just written stays there. What
/// lies [`BEHIND`] is on the disk by then, and does not stay where the file shall not be `kept` in memory.
pub(crate) fn start_writeback(file: &File, offset: u64, len: u64, kept: bool) {
    let from = offset / WRITEBACK * WRITEBACK;
    let end = (offset + len) / WRITEBACK * WRITEBACK;
    if end <= offset {
        return;
    }
    not_needed(file, from, end);
    if !kept && end > BEHIND {
        not_needed(file, from.saturating_sub(BEHIND), end - BEHIND);
    }
}

fn not_needed(file: &File, from: u64, end: u64) {
    // Only a hint: failing changes nothing. A length of 0 would mean all of the file.
    if let Some(len) = std::num::NonZeroU64::new(end.saturating_sub(from)) {
        let _ = rustix::fs::fadvise(file, from, Some(len), Advice::DontNeed);
    }
}

/// Gives back the memory that holds these bytes of a file that is read from front to back and then not
/// needed any more: what is written meanwhile takes it again, instead of memory that nobody used for long.
/// The system holds a file in blocks of up to [`FOLIO`] and drops only whole ones; so one that was not
/// read to its end last time is dropped now.
pub(crate) fn done_with(file: &File, offset: u64, len: u64) {
    not_needed(file, offset.saturating_sub(FOLIO), offset + len);
}

/// Makes `dst` share the blocks of `src`, where the file system can.
pub(crate) fn reflink(src: &File, dst: &File) -> bool {
    rustix::fs::ioctl_ficlone(dst, src).is_ok()
}

/// Reads `src` once, from front to back: copies it into `dst` if given (an empty file) and returns
/// the content id of exactly the bytes that were read. Holes are neither read nor written.
/// `stop` is asked now and then; `None` when it said yes.
pub(crate) fn copy_hashed(
    src: &File,
    dst: Option<&File>,
    stop: &dyn Fn() -> bool,
) -> io::Result<Option<ContentId>> {
    advise_sequential(src);
    let size = src.metadata()?.len();
    if let Some(dst) = dst {
        dst.set_len(size)?;
    }
    let mut builder = ManifestBuilder::new();
    let mut buf = vec![0; READ + MAX_CHUNK];
    let mut lens = Vec::new();
    // buf[start..end] holds the file's bytes from `offset` on that are not cut yet, and
    // buf[run..start] those before `offset` that are cut but not written yet.
    let (mut run, mut start, mut end, mut offset, mut eof) = (0, 0, 0, 0u64, false);
    let write = |piece: &[u8], upto: u64| match dst {
        Some(dst) => dst.write_all_at(piece, upto - piece.len() as u64),
        None => Ok(()),
    };
    loop {
        if end - start < MAX_CHUNK && !eof {
            if stop() {
                return Ok(None);
            }
            write(&buf[run..start], offset)?;
            let skipped = skip_hole(src, offset, size, &mut builder)?;
            if skipped > 0 {
                offset += skipped;
                (run, start, end) = (0, 0, 0);
                continue;
            }
            buf.copy_within(start..end, 0);
            (run, start, end) = (0, 0, end - start);
            let room = buf.len() - end;
            let got = read_at_most(src, &mut buf[end..], offset + end as u64)?;
            eof = got < room;
            end += got;
        }
        // All chunks of the buffer are hashed together, which is faster than one by one.
        lens.clear();
        let mut cut = start;
        while let Some(len) = chunker::next_cut(&buf[cut..end], eof) {
            lens.push(len);
            cut += len;
        }
        if lens.is_empty() {
            break;
        }
        HASHED.add((cut - start) as u64);
        for chunk in chunker::chunk_refs(&buf[start..cut], &lens) {
            let len = chunk.len as usize;
            builder.push(chunk);
            if is_zero(&buf[start..start + len]) {
                write(&buf[run..start], offset)?;
                run = start + len;
            }
            start += len;
            offset += len as u64;
        }
    }
    write(&buf[run..start], offset)?;
    let (_, id) = builder.finish();
    Ok(Some(id))
}

/// Takes as many chunks of zeros as the hole at `offset` gives; returns their bytes.
fn skip_hole(src: &File, offset: u64, size: u64, builder: &mut ManifestBuilder) -> io::Result<u64> {
    let hole_end = next_data(src, offset)?.unwrap_or(size).min(size);
    let (hole, max) = (hole_end.saturating_sub(offset), MAX_CHUNK as u64);
    if hole < max {
        return Ok(0);
    }
    let each = chunker::zero_chunk_len() as u64;
    let count = (hole - max) / each + 1;
    builder.push_zeros(count);
    Ok(count * each)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A file of so many MiB, on the disk and in memory; `None` where the file system drops nothing (tmpfs),
    /// or does not tell what is in memory.
    fn on_disk(mib: u64) -> Option<File> {
        let written = |mib: u64| {
            let file = tempfile::tempfile().unwrap();
            let noise: Vec<u8> = (0..MIB).map(|n| ((n * n) >> 7) as u8).collect();
            for n in 0..mib {
                file.write_all_at(&noise, n * MIB).unwrap();
            }
            file.sync_all().unwrap();
            file
        };
        let probe = written(1);
        let told = in_memory(&probe, 0);
        rustix::fs::fadvise(&probe, 0, None, Advice::DontNeed).unwrap();
        (told && !in_memory(&probe, 0)).then(|| written(mib))
    }

    /// Whether a read would find the bytes in memory.
    fn in_memory(file: &File, at: u64) -> bool {
        let mut buf = [0; 1];
        let bufs = &mut [io::IoSliceMut::new(&mut buf)];
        match rustix::io::preadv2(file, bufs, at, ReadWriteFlags::NOWAIT) {
            Ok(read) => read == 1,
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => false,
            Err(e) => panic!("{e}"),
        }
    }

    #[test]
    fn what_is_written_of_a_file_that_is_not_kept_leaves_memory_behind() {
        let Some(file) = on_disk(80) else { return };
        start_writeback(&file, 79 * MIB, MIB, false);
        assert!(!in_memory(&file, 8 * MIB));
        assert!(!in_memory(&file, 16 * MIB - 1));
    }

    #[test]
    fn what_an_older_version_gave_leaves_memory() {
        let Some(file) = on_disk(8) else { return };
        // As segments lie: not where blocks begin.
        let cuts = [1_000_001, 2_000_003, 3_500_007, 5_500_011];
        let mut from = 0;
        for cut in cuts {
            done_with(&file, from, cut - from);
            from = cut;
        }
        for at in [0, 1_000_001, 2_000_003, 3_000_000] {
            assert!(!in_memory(&file, at), "{at}");
        }
    }
}
