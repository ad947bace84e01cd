//! What is sent: a list of paths with their nodes that only grows, and the files behind it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use left_core::content::{ContentId, WHOLE_MAX};
use left_core::entry::{Entry, FileStat, Node, Stamp};
use left_core::message::{IndexBatch, MAX_INDEX_ENTRIES, MAX_MESSAGE, Progress, entry_len};
use left_core::path::RelPath;
use left_core::version::{DeviceId, Version};
use rustix::fs::Access;

use super::{Stop, lock, shown};
use crate::daemon::adapt::Cache;
use crate::disk::{Found, HashError, Root, hash_file};
use crate::home::{UserError, clean};
use crate::store::Manifests;
use crate::transfer::{ContentSource, ManifestRead};

/// How often a file that changes while it is read is read again before it is left out.
const TRIES: u32 = 5;
/// Sessions are told of news after so many items, or when a big file is read.
const TELL_EVERY: usize = 256;
/// Most entries of one message.
const BATCH: usize = MAX_INDEX_ENTRIES;
/// Places of one content that are tried.
const MAX_PLACES: usize = 4;

/// See the module's text.
pub(super) struct Tree {
    /// The folders that the sent things lie in, by the things' names.
    roots: HashMap<Vec<u8>, Arc<Root>>,
    names: Vec<RelPath>,
    cache: Cache,
    state: RwLock<State>,
    /// One look at a time.
    looking: Mutex<()>,
    stop: Stop,
}

#[derive(Default)]
struct State {
    /// In the order they were found; the position counts from 1. A later one of the same path holds.
    items: Vec<Item>,
    by_content: HashMap<ContentId, Vec<u32>>,
    /// Files and links that are listed, and the bytes of all files.
    size: (u64, u64),
    /// What is still to be read.
    left: (u64, u64),
    looked: bool,
}

impl State {
    /// Lists a path, in place of what is listed at `before`.
    fn list(&mut self, item: Item, before: Option<u32>) {
        let count = |node: &Node| match node {
            Node::Dir { .. } | Node::Tombstone => (0, 0),
            _ => (1, node.size()),
        };
        let old = before.and_then(|at| self.items.get(at as usize));
        let (old, new) = (old.map_or((0, 0), |i| count(&i.node)), count(&item.node));
        self.size.0 = (self.size.0 + new.0).saturating_sub(old.0);
        self.size.1 = (self.size.1 + new.1).saturating_sub(old.1);
        let at = self.items.len() as u32;
        if let Some(content) = item.node.content() {
            self.by_content.entry(content).or_default().push(at);
        }
        self.items.push(item);
    }
}

struct Item {
    path: RelPath,
    node: Node,
    stat: FileStat,
}

/// What is worth telling about a look.
pub(super) enum Told {
    /// There is news for the receivers.
    News,
    Skipped(RelPath, String),
}

/// What is named must be readable at least itself: a ticket for nothing is a mistake told too late.
fn may_read(path: &Path, is_dir: bool) -> Result<(), UserError> {
    let enter = if is_dir {
        Access::EXEC_OK
    } else {
        Access::empty()
    };
    rustix::fs::access(path, Access::READ_OK | enter)
        .map_err(|e| UserError::io("cannot send", path, &e.into()))
}

impl Tree {
    /// Looks at the paths' folders only. Each path's last part is the name it is sent under.
    pub(super) fn new(
        paths: &[PathBuf],
        manifests: Manifests,
        stop: Stop,
    ) -> Result<Self, UserError> {
        let mut roots = HashMap::new();
        let mut names = Vec::new();
        let mut parents: HashMap<PathBuf, Arc<Root>> = HashMap::new();
        for path in paths {
            let (parent, name) = place_of(path)?;
            let what = format!("cannot send {}", clean(path));
            let rel = RelPath::new(name.clone()).map_err(|e| {
                UserError::new(
                    &what,
                    e,
                    "send what is in it, or give it another name first",
                )
            })?;
            let root =
                match parents.get(&parent) {
                    Some(root) => root.clone(),
                    None => Arc::new(Root::bare(&parent, None).map_err(|e| {
                        UserError::new(&what, e, "check the path and its permissions")
                    })?),
                };
            let found = root
                .look(&rel)
                .map_err(|e| UserError::io("cannot send", path, &e))?;
            match found {
                None => return Err(UserError::new(&what, "it does not exist", "check the path")),
                Some(Found::Special(kind)) => {
                    let why = format!("it is {kind}");
                    let todo = "send files, folders and links";
                    return Err(UserError::new(&what, why, todo));
                }
                // A link is sent as a link, whatever it leads to.
                Some(Found::Symlink(..)) => {}
                Some(found) => may_read(path, matches!(found, Found::Dir(_)))?,
            }
            parents.insert(parent, root.clone());
            if roots.insert(name, root).is_some() {
                return Err(UserError::usage(
                    what,
                    "two of the paths have this name, and would lie at the same place",
                    "rename one of them, or send them one after the other",
                ));
            }
            names.push(rel);
        }
        Ok(Self {
            roots,
            names,
            cache: Cache(manifests),
            state: RwLock::default(),
            looking: Mutex::default(),
            stop,
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn root_of(&self, path: &RelPath) -> Option<&Arc<Root>> {
        path.parts().next().and_then(|name| self.roots.get(name))
    }

    /// Files and links that are listed, and the bytes of all files.
    pub(super) fn size(&self) -> (u64, u64) {
        self.read().size
    }

    /// Looks at everything, reads what is new or has changed, and lists it.
    pub(super) fn look(&self, tell: &dyn Fn(Told)) {
        let _one = lock(&self.looking);
        let mut known = self.known();
        let mut found = Vec::new();
        let mut unread = Vec::new();
        for name in &self.names {
            let Some(root) = self.root_of(name) else {
                continue;
            };
            let walked = root.each_below_or(
                Some(name),
                &mut |path, what| found.push((path, what)),
                &mut |path, error| unread.push((path.clone(), error.to_string())),
            );
            if let Err(error) = walked {
                unread.push((name.clone(), error.to_string()));
            }
        }
        for (path, why) in unread {
            tell(Told::Skipped(path, format!("cannot be read: {why}")));
        }
        let files = found.iter().filter_map(|(path, what)| match what {
            Found::File(stat, _) if !self.is_listed(known.get(path), stat) => Some(stat.size),
            _ => None,
        });
        self.write().left = files.fold((0, 0), |(n, bytes), size| (n + 1, bytes + size));
        tell(Told::News);
        for (at, (path, what)) in found.into_iter().enumerate() {
            if self.stop.is_stopped() {
                return;
            }
            let before = known.remove(&path);
            let big = self.take(path, what, before, tell);
            if big || at % TELL_EVERY == 0 {
                tell(Told::News);
            }
        }
        let mut state = self.write();
        for (path, before) in known {
            let stat = FileStat::default();
            let node = Node::Tombstone;
            state.list(Item { path, node, stat }, Some(before));
        }
        state.left = (0, 0);
        state.looked = true;
        drop(state);
        tell(Told::News);
    }

    /// What is listed at each path.
    fn known(&self) -> HashMap<RelPath, u32> {
        let state = self.read();
        let mut known = HashMap::new();
        for (at, item) in state.items.iter().enumerate() {
            match item.node {
                Node::Tombstone => known.remove(&item.path),
                _ => known.insert(item.path.clone(), at as u32),
            };
        }
        known
    }

    fn is_listed(&self, at: Option<&u32>, stat: &FileStat) -> bool {
        let state = self.read();
        at.and_then(|at| state.items.get(*at as usize))
            .is_some_and(|item| item.node.content().is_some() && item.stat == *stat)
    }

    /// Lists one path; whether that took a while.
    fn take(&self, path: RelPath, what: Found, before: Option<u32>, tell: &dyn Fn(Told)) -> bool {
        let (node, stat) = match what {
            Found::Dir(stat) => (Node::Dir { mode: stat.mode }, stat),
            Found::Symlink(stat, target) => {
                let mtime = stat.mtime;
                (Node::Symlink { mtime, target }, stat)
            }
            Found::Special(kind) => {
                tell(Told::Skipped(
                    path,
                    format!("it is {kind}; only files, folders and links are sent"),
                ));
                return false;
            }
            Found::File(stat, _) => {
                if self.is_listed(before.as_ref(), &stat) {
                    return false;
                }
                let read = self.hash(&path, stat);
                let mut state = self.write();
                state.left = (
                    state.left.0.saturating_sub(1),
                    state.left.1.saturating_sub(stat.size),
                );
                drop(state);
                match read {
                    Ok(Some((stat, content))) => {
                        let (mode, mtime, size) = (stat.mode, stat.mtime, stat.size);
                        (
                            Node::File {
                                mode,
                                mtime,
                                size,
                                content,
                            },
                            stat,
                        )
                    }
                    Ok(None) => return false,
                    Err(why) => {
                        tell(Told::Skipped(path, why));
                        return false;
                    }
                }
            }
        };
        let mut state = self.write();
        let old = before.and_then(|at| state.items.get(at as usize));
        // What is served of a file is what had this stat.
        let is_file = matches!(node, Node::File { .. });
        let same = old.is_some_and(|i| i.node == node && (!is_file || i.stat == stat));
        if same {
            return false;
        }
        let big = node.size() > WHOLE_MAX;
        state.list(Item { path, node, stat }, before);
        big
    }

    /// Reads a file; `None` when it is gone, or all is to end.
    fn hash(
        &self,
        path: &RelPath,
        mut stat: FileStat,
    ) -> Result<Option<(FileStat, ContentId)>, String> {
        let Some(root) = self.root_of(path) else {
            return Ok(None);
        };
        for _ in 0..TRIES {
            match self.hash_once(root, path, &stat) {
                Ok(content) => return Ok(Some((stat, content))),
                Err(HashError::Gone | HashError::Stopped) => return Ok(None),
                Err(HashError::Changed) => match root.look(path) {
                    Ok(Some(Found::File(now, _))) => stat = now,
                    Ok(_) => return Ok(None),
                    Err(error) => return Err(format!("cannot be read: {error}")),
                },
                Err(error) => return Err(format!("cannot be read: {error}")),
            }
        }
        Err("it changes all the time; send it when nobody writes to it".to_owned())
    }

    /// Reads a file once, and keeps its manifest.
    fn hash_once(
        &self,
        root: &Root,
        path: &RelPath,
        stat: &FileStat,
    ) -> Result<ContentId, HashError> {
        let mut writer = self.cache.0.writer();
        let mut kept = true;
        let content = hash_file(root, path, stat, &mut |segment| {
            // Without its manifest it is read again when somebody asks for it.
            kept = kept && writer.segment(segment).is_ok();
            match self.stop.is_stopped() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        if kept
            && stat.size > WHOLE_MAX
            && let Err(error) = writer.finish(content, stat.size)
        {
            tracing::warn!("the manifest of {} is not kept: {error}", shown(path));
        }
        Ok(content)
    }

    /// The next entries after the first `told`; `None` when there are no more yet.
    pub(super) fn batch(&self, told: u64, device: DeviceId) -> Option<IndexBatch> {
        let state = self.read();
        let mut batch = IndexBatch {
            upto: told,
            ..IndexBatch::default()
        };
        let mut bytes = 0;
        let mut seen = std::collections::HashSet::new();
        let from = usize::try_from(told).ok()?;
        for (n, item) in state.items.iter().enumerate().skip(from) {
            let seq = n as u64 + 1;
            let entry = Entry {
                node: item.node.clone(),
                version: Version::from_pairs([(device, seq)]),
                stamp: Stamp {
                    counter: seq,
                    device,
                },
            };
            bytes += entry_len(&item.path, &entry);
            let full = batch.entries.len() == BATCH || bytes > MAX_MESSAGE / 2;
            // A path stands once in a message.
            if full && !batch.entries.is_empty() || !seen.insert(&item.path) {
                batch.more = true;
                break;
            }
            batch.entries.push((item.path.clone(), entry));
            batch.upto = seq;
        }
        (!batch.entries.is_empty()).then_some(batch)
    }

    /// How far the list is: for the receivers.
    pub(super) fn progress(&self) -> Progress {
        let state = self.read();
        Progress {
            your_seq: 0,
            head: state.items.len() as u64,
            busy: !state.looked || state.left != (0, 0),
            need_files: state.left.0,
            need_bytes: state.left.1,
        }
    }
}

/// The folder that a path lies in and its name there. The last part is not followed when it is a link.
fn place_of(path: &Path) -> Result<(PathBuf, Vec<u8>), UserError> {
    let what = format!("cannot send {}", clean(path));
    let ends_in_slash = path.as_os_str().as_bytes().ends_with(b"/");
    let (parent, name) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !ends_in_slash => (parent.to_path_buf(), name.to_owned()),
        // `.`, `..`, `dir/..`, `link/`: whatever is meant has one name.
        _ => {
            let full = path
                .canonicalize()
                .map_err(|e| UserError::io("cannot send", path, &e))?;
            match (full.parent(), full.file_name()) {
                (Some(parent), Some(name)) => (parent.to_path_buf(), name.to_owned()),
                _ => {
                    let why = "it has no name under which it could be received";
                    return Err(UserError::usage(what, why, "send what is in it"));
                }
            }
        }
    };
    let parent = match parent.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => parent,
    };
    let parent = parent
        .canonicalize()
        .map_err(|e| UserError::io("cannot send", path, &e))?;
    Ok((parent, name.as_bytes().to_vec()))
}

impl ContentSource for Tree {
    fn locate(&self, content: &ContentId) -> Vec<(RelPath, FileStat)> {
        let state = self.read();
        let Some(places) = state.by_content.get(content) else {
            return Vec::new();
        };
        let items = places
            .iter()
            .rev()
            .filter_map(|at| state.items.get(*at as usize));
        items
            .take(MAX_PLACES)
            .map(|i| (i.path.clone(), i.stat))
            .collect()
    }

    fn open(&self, path: &RelPath, stat: &FileStat) -> io::Result<File> {
        let root = self.root_of(path).ok_or(io::ErrorKind::NotFound)?;
        let (file, now) = root.open_file(path)?;
        match now == *stat {
            true => Ok(file),
            false => Err(io::Error::other("the file has changed")),
        }
    }

    fn manifest(&self) -> &dyn ManifestRead {
        &self.cache
    }

    fn missing_manifest(&self, content: &ContentId) {
        for (path, stat) in self.locate(content) {
            let Some(root) = self.root_of(&path) else {
                continue;
            };
            if self
                .hash_once(root, &path, &stat)
                .is_ok_and(|c| c == *content)
            {
                return;
            }
        }
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
