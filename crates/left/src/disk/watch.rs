//! inotify: which paths may have changed. Only hints: what they mean is found out by looking.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use left_core::path::{self, RelPath};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::root::INNER;
use super::sys;

const MASK: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::EXCL_UNLINK)
    .union(WatchFlags::ONLYDIR);
/// Events taken in one go; a flood beyond it is left for the next turn.
const MAX_EVENTS: usize = 65_536;

/// What a hint says about when to look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    /// At once.
    Now,
    /// A file was made: at once if it is whole already (a hard link, a symlink), else when closed.
    Created,
    /// It is being written: when it was quiet for a while.
    Quiet,
    /// Its mode or times changed: at once, unless it is being written.
    Attributes,
}

/// Something inotify said.
#[derive(Debug)]
pub(crate) enum Signal {
    /// Look at a path; `deep`: and at all below it.
    Look {
        path: RelPath,
        when: When,
        deep: bool,
    },
    /// A name appeared that no share path can have.
    BadName { dir: Option<RelPath>, name: Vec<u8> },
    /// The root or its marker may be gone.
    CheckRoot,
    /// Events were lost.
    Overflow,
}

/// All watches of one share.
pub(crate) struct Watcher {
    fd: OwnedFd,
    by_wd: HashMap<i32, Option<RelPath>>,
    by_path: BTreeMap<Option<RelPath>, i32>,
}

impl Watcher {
    pub(crate) fn new() -> io::Result<Watcher> {
        Ok(Watcher {
            fd: inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
            by_wd: HashMap::new(),
            by_path: BTreeMap::new(),
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Watches the folder behind `dir`, which is at `path`. A folder that was watched under another
    /// path (it was renamed) keeps its watch.
    pub(crate) fn add(&mut self, path: Option<&RelPath>, dir: BorrowedFd<'_>) -> Result<(), Errno> {
        let wd = inotify::add_watch(&self.fd, sys::watch_path(dir), MASK)?;
        let key = path.cloned();
        if let Some(old) = self.by_wd.insert(wd, key.clone())
            && old != key
            && self.by_path.get(&old) == Some(&wd)
        {
            self.by_path.remove(&old);
        }
        if let Some(stale) = self.by_path.insert(key, wd)
            && stale != wd
        {
            // Another folder was at this path before.
            self.by_wd.remove(&stale);
            let _ = inotify::remove_watch(&self.fd, stale);
        }
        Ok(())
    }

    /// Whether the folder at `path` is watched.
    pub(crate) fn is_watched(&self, path: &RelPath) -> bool {
        self.by_path.contains_key(&Some(path.clone()))
    }

    /// Drops the watches of `path` and all below it.
    pub(crate) fn drop_below(&mut self, path: &RelPath) {
        let from = Some(path.clone());
        let gone: Vec<_> = self
            .by_path
            .range(from..)
            .take_while(|(p, _)| p.as_ref().is_some_and(|p| p == path || p.is_below(path)))
            .map(|(p, wd)| (p.clone(), *wd))
            .collect();
        for (path, wd) in gone {
            self.by_path.remove(&path);
            self.by_wd.remove(&wd);
            let _ = inotify::remove_watch(&self.fd, wd);
        }
    }

    /// Drops the watches of folders below `dir` (`None`: the root) that `unwanted` names.
    pub(crate) fn drop_where(
        &mut self,
        dir: Option<&RelPath>,
        unwanted: impl Fn(&RelPath) -> bool,
    ) {
        let gone: Vec<RelPath> = self
            .by_path
            .range(dir.cloned()..)
            .map_while(|(p, _)| match (p, dir) {
                (None, _) => Some(None),
                (Some(p), Some(dir)) if p != dir && !p.is_below(dir) => None,
                (p, _) => Some(p.as_ref()),
            })
            .flatten()
            .filter(|p| unwanted(p))
            .cloned()
            .collect();
        for path in gone {
            self.drop_below(&path);
        }
    }

    /// Takes all events that are ready and passes on what they say. Returns whether there were any.
    pub(crate) fn read(&mut self, each: &mut dyn FnMut(Signal)) -> io::Result<bool> {
        let mut any = false;
        let mut ignored = Vec::new();
        {
            let mut buf = [MaybeUninit::uninit(); 64 * 1024];
            let mut events = inotify::Reader::new(self.fd.as_fd(), &mut buf);
            for _ in 0..MAX_EVENTS {
                let event = match events.next() {
                    Ok(event) => event,
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => continue,
                    Err(e) => return Err(e.into()),
                };
                any = true;
                let flags = event.events();
                if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                    each(Signal::Overflow);
                    continue;
                }
                let Some(dir) = self.by_wd.get(&event.wd()) else {
                    continue;
                };
                if flags.contains(ReadFlags::IGNORED) {
                    ignored.push(event.wd());
                    continue;
                }
                let name = event.file_name().map(|n| n.to_bytes());
                if let Some(signal) = signal(dir.as_ref(), name, flags) {
                    each(signal);
                }
            }
        }
        for wd in ignored {
            if let Some(path) = self.by_wd.remove(&wd)
                && self.by_path.get(&path) == Some(&wd)
            {
                self.by_path.remove(&path);
            }
        }
        Ok(any)
    }
}

fn signal(dir: Option<&RelPath>, name: Option<&[u8]>, flags: ReadFlags) -> Option<Signal> {
    let Some(name) = name.filter(|n| !n.is_empty()) else {
        let gone = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT;
        return match dir {
            // Its permissions may be others; those of folders below are told by their parents.
            None if flags.intersects(gone | ReadFlags::ATTRIB) => Some(Signal::CheckRoot),
            None => None,
            Some(_) if !flags.intersects(gone) => None,
            // Its parent says so too, unless it was unmounted.
            Some(path) => Some(Signal::Look {
                path: path.clone(),
                when: When::Now,
                deep: true,
            }),
        };
    };
    if dir.is_none() && name == INNER {
        return Some(Signal::CheckRoot);
    }
    let arrived = flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
    let Ok(path) = path::join(dir, name) else {
        return arrived.then(|| Signal::BadName {
            dir: dir.cloned(),
            name: name.to_vec(),
        });
    };
    let is_dir = flags.contains(ReadFlags::ISDIR);
    let at_once =
        ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO | ReadFlags::MOVED_FROM | ReadFlags::DELETE;
    let when = if is_dir || flags.intersects(at_once) {
        When::Now
    } else if flags.contains(ReadFlags::CREATE) {
        When::Created
    } else if flags.contains(ReadFlags::MODIFY) {
        When::Quiet
    } else {
        When::Attributes
    };
    Some(Signal::Look {
        path,
        when,
        deep: is_dir && arrived,
    })
}
