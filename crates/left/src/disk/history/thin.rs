//! Which versions are still kept: they thin out with age, end after some days, and take a bounded part of
//! the disk.
//!
//! All versions of the last day; then the last one of each hour for a week; then the last one of each
//! day. When history takes more than its part of the disk, in bytes or in inodes, the oldest go first; what went in during the
//! last day does not count as too much, so that a deletion of half the disk can be taken back. Only when
//! the disk itself runs short of room do the oldest go whatever their age.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use left_core::path::{RelPath, join};
use rustix::fs::{self, AtFlags, FileType, Mode};

use super::{History, Pending, Rescued, read_examined, remove_tree, until_ms};
use crate::disk::root::Root;
use crate::disk::sys::{self, DIR_HANDLE, Stat};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
/// Younger batches may still be written.
const SETTLED: u64 = 60;
/// Room on the disk below which it is short: the smaller of these, a part of all there is, and bytes or inodes.
const SHORT_PART: u64 = 50;
const SHORT_BYTES: u64 = 512 << 20;
const SHORT_FILES: u64 = 20_000;
/// Paths whose versions are counted.
const MAX_COUNTED: usize = 1_000_000;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For how many days.
    pub days: u64,
    /// Percent of the disk's size that history may take.
    pub max_percent: u64,
    /// Most versions of one path; `None`: no limit but the others.
    pub keep: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            days: 30,
            max_percent: 10,
            keep: None,
        }
    }
}

/// What a round of thinning did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Thinned {
    /// Versions that were deleted.
    pub versions: u64,
    /// Bytes on the disk that are free now.
    pub bytes: u64,
    /// Files that were written to after they had gone to history; found before they were deleted.
    pub rescued: Vec<Rescued>,
}

impl History {
    /// Deletes what need not be kept any more. Ends early, between two batches, when `stop` says so.
    pub fn thin(
        &self,
        root: &Root,
        limits: &Limits,
        stop: &dyn Fn() -> bool,
    ) -> io::Result<Thinned> {
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
        let mut round = Round {
            history: self,
            root,
            now,
            done: Thinned::default(),
        };
        let old: Vec<Batch> = round.settled()?;
        let (gone, mut rest): (Vec<Batch>, Vec<Batch>) = old
            .into_iter()
            .partition(|b| now.saturating_sub(b.secs) > limits.days.saturating_mul(DAY));
        for batch in gone {
            round.remove(&batch.id)?;
        }
        for group in rest.chunk_by(|a, b| {
            let bucket = |batch: &Batch| bucket(batch.secs, now);
            bucket(a).is_some() && bucket(a) == bucket(b)
        }) {
            if stop() {
                return Ok(round.done);
            }
            if group.len() > 1 {
                round.merge(group)?;
            }
        }
        if let Some(keep) = limits.keep {
            round.count(&rest, keep)?;
        }
        let (mut bytes, mut files) = (0, 0);
        for batch in &mut rest {
            if stop() {
                return Ok(round.done);
            }
            (batch.bytes, batch.files) = round.measure(&batch.id);
            bytes += batch.bytes;
            files += batch.files;
        }
        let disk = Disk::of(self)?;
        let part = |all: u64| all / 100 * limits.max_percent;
        for batch in rest.iter().take_while(|b| now.saturating_sub(b.secs) > DAY) {
            // A file system that does not count inodes has none of them.
            if bytes <= part(disk.size) && (disk.files == 0 || files <= part(disk.files)) {
                break;
            }
            round.remove(&batch.id)?;
            bytes -= batch.bytes;
            files -= batch.files;
        }
        Ok(round.done)
    }

    /// Deletes the oldest versions until the disk has some room again, or none is left but those of
    /// the last minute.
    pub fn make_room(&self, root: &Root) -> io::Result<Thinned> {
        let mut round = Round {
            history: self,
            root,
            now: u64::try_from(Timestamp::now().as_second()).unwrap_or(0),
            done: Thinned::default(),
        };
        if !Disk::of(self)?.is_short() {
            return Ok(round.done);
        }
        for batch in round.settled()? {
            round.remove(&batch.id)?;
            if !Disk::of(self)?.is_short() {
                break;
            }
        }
        Ok(round.done)
    }
}

struct Batch {
    id: String,
    /// Its time, in seconds since 1970.
    secs: u64,
    /// Bytes it takes on the disk, and files.
    bytes: u64,
    files: u64,
}

struct Disk {
    size: u64,
    free: u64,
    /// Inodes, all and free; 0: not counted.
    files: u64,
    free_files: u64,
}

impl Disk {
    fn of(history: &History) -> io::Result<Disk> {
        let s = history.dir.with(|dir| {
            let dir = fs::openat(dir, c".", sys::DIR_READ, Mode::empty())?;
            Ok(fs::fstatvfs(&dir)?)
        })?;
        Ok(Disk {
            size: s.f_blocks.saturating_mul(s.f_frsize),
            free: s.f_bavail.saturating_mul(s.f_frsize),
            files: s.f_files,
            free_files: s.f_favail,
        })
    }

    fn is_short(&self) -> bool {
        self.free < (self.size / SHORT_PART).min(SHORT_BYTES)
            || self.free_files < (self.files / SHORT_PART).min(SHORT_FILES)
    }
}

/// Versions of one path in one bucket are thinned to the last; `None`: all are kept.
fn bucket(secs: u64, now: u64) -> Option<(bool, u64)> {
    match now.saturating_sub(secs) {
        0..=DAY => None,
        age if age <= WEEK => Some((false, secs / HOUR)),
        _ => Some((true, secs / DAY)),
    }
}

/// Tells paths apart in 16 bytes; two that collide would cost a version.
fn short(path: &RelPath) -> u128 {
    let hash = blake3::hash(path.as_bytes());
    let mut out = [0; 16];
    out.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_le_bytes(out)
}

struct Round<'a> {
    history: &'a History,
    root: &'a Root,
    now: u64,
    done: Thinned,
}

impl Round<'_> {
    /// What nobody works on any more, oldest first.
    fn settled(&self) -> io::Result<Vec<Batch>> {
        let dated = self.history.ids()?.into_iter().filter_map(|id| {
            let secs = until_ms(&id)? / 1000;
            let (bytes, files) = (0, 0);
            Some(Batch {
                id,
                secs,
                bytes,
                files,
            })
        });
        Ok(dated
            .filter(|b| self.now.saturating_sub(b.secs) > SETTLED)
            .collect())
    }

    /// Rescues what was written late, then nobody looks at the batch again.
    fn look(&mut self, id: &str) -> io::Result<()> {
        let history = self.history;
        let known = {
            let mut queue = history.lock();
            let at = queue.iter().position(|p| p.batch == id);
            at.and_then(|at| queue.remove(at))
        };
        if known.is_none() && id <= read_examined(&history.dir())?.as_str() {
            return Ok(());
        }
        let pending = known.unwrap_or(Pending {
            batch: id.to_owned(),
            due: Instant::now(),
            items: Vec::new(),
            complete: false,
        });
        history.examine(self.root, &pending, &mut self.done.rescued);
        Ok(())
    }

    fn remove(&mut self, id: &str) -> io::Result<()> {
        self.look(id)?;
        self.sweep(id, |_, _| true)?;
        // What is no version: other things that somebody put there.
        remove_tree(self.history.dir().as_fd(), id.as_bytes())
    }

    /// Of versions of one path in these batches, oldest first, only the last stays.
    fn merge(&mut self, group: &[Batch]) -> io::Result<()> {
        let mut seen: HashSet<u128> = HashSet::new();
        for batch in group.iter().rev() {
            self.look(&batch.id)?;
            self.sweep(&batch.id, |path, _| !seen.insert(short(path)))?;
        }
        Ok(())
    }

    /// At most `keep` versions of each path, the last ones.
    fn count(&mut self, batches: &[Batch], keep: u32) -> io::Result<()> {
        let mut counts: HashMap<u128, u32> = HashMap::new();
        for batch in batches.iter().rev() {
            self.look(&batch.id)?;
            self.sweep(&batch.id, |path, _| {
                let path = short(path);
                if counts.len() >= MAX_COUNTED && !counts.contains_key(&path) {
                    return false;
                }
                let n = counts.entry(path).or_default();
                *n = n.saturating_add(1);
                *n > keep
            })?;
        }
        Ok(())
    }

    /// Bytes on the disk, and files.
    fn measure(&self, id: &str) -> (u64, u64) {
        let (mut bytes, mut files) = (0, 0);
        let _ = self.history.each(self.root, id, None, |_, kept| {
            bytes += kept.room;
            files += 1;
            std::ops::ControlFlow::Continue(())
        });
        (bytes, files)
    }

    /// Deletes the versions of a batch that are `gone`, and the folders that are empty then.
    fn sweep(&mut self, id: &str, mut gone: impl FnMut(&RelPath, &Stat) -> bool) -> io::Result<()> {
        let Some(batch) = self.history.open_batch(id)? else {
            return Ok(());
        };
        if sweep(batch.as_fd(), None, &mut gone, &mut self.done)? {
            // Fails when something was put there meanwhile: it stays.
            let _ = fs::unlinkat(self.history.dir(), id, AtFlags::REMOVEDIR);
        }
        Ok(())
    }
}

/// Returns whether the folder is empty now.
fn sweep(
    dir: BorrowedFd<'_>,
    at: Option<&RelPath>,
    gone: &mut dyn FnMut(&RelPath, &Stat) -> bool,
    done: &mut Thinned,
) -> io::Result<bool> {
    let mut empty = true;
    for name in sys::list(dir)? {
        let (Ok(path), Some(stat)) = (join(at, &name), sys::stat_at(dir, &name)?) else {
            empty = false;
            continue;
        };
        let removed = if stat.kind == FileType::Directory {
            let sub = fs::openat(dir, &*name, DIR_HANDLE, Mode::empty())?;
            sweep(sub.as_fd(), Some(&path), gone, done)?
                && fs::unlinkat(dir, &*name, AtFlags::REMOVEDIR).is_ok()
        } else if gone(&path, &stat) {
            fs::unlinkat(dir, &*name, AtFlags::empty())?;
            done.versions += 1;
            done.bytes += stat.blocks.saturating_mul(512);
            true
        } else {
            false
        };
        empty &= removed;
    }
    Ok(empty)
}

/// How often [`History::thin`] is worth its walk.
pub const THIN_EVERY: Duration = Duration::from_secs(6 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_thin_out_with_age() {
        let now = 1_800_000_000;
        let at = |age| bucket(now - age, now);
        assert_eq!(at(0), None);
        assert_eq!(at(DAY), None);
        // An hour each for a week, then a day each.
        assert_eq!(at(DAY + 1), Some((false, (now - DAY - 1) / HOUR)));
        assert_eq!(at(WEEK), Some((false, (now - WEEK) / HOUR)));
        assert_eq!(at(WEEK + 1), Some((true, (now - WEEK - 1) / DAY)));
        assert_ne!(at(3 * DAY), at(3 * DAY + HOUR));
        // A clock that was set back keeps everything.
        assert_eq!(bucket(now + 5, now), None);
    }

    #[test]
    fn a_disk_is_short_of_bytes_or_of_inodes() {
        let disk = |size, free, files, free_files| Disk {
            size,
            free,
            files,
            free_files,
        };
        let short = |size, free| disk(size, free, 0, 0).is_short();
        assert!(short(1 << 20, 20_000) && !short(1 << 20, 21_000));
        assert!(short(1 << 40, (512 << 20) - 1) && !short(1 << 40, 512 << 20));
        let short = |files, free| disk(1 << 20, 1 << 20, files, free).is_short();
        assert!(short(50_000, 999) && !short(50_000, 1000));
        assert!(short(100_000_000, 19_999) && !short(100_000_000, 20_000));
    }
}
