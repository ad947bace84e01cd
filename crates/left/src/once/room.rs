//! The folder in which a receiver works: stage, manifests, what was replaced. It lies in the folder
//! that things are fetched to, so that putting them in place is a rename, and is gone when all is there.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use left_core::message::ShareId;
use left_core::path::RelPath;

use crate::disk::{History, Root, Stage};
use crate::home::{MARKER_DIR, UserError, clean, enclosing_share, write_atomic};
use crate::store::Manifests;

/// What the folder's name begins with.
const PREFIX: &str = ".left-get-";
/// New names of what was in the way, kept so that a later run takes the same.
const NAMES: &str = "names.json";
/// Most numbers that are tried for a name.
const MAX_NUMBER: u32 = 100_000;

/// See the module's text.
pub(super) struct Room {
    /// The folder that things are fetched to.
    pub(super) dir: PathBuf,
    path: PathBuf,
    pub(super) root: Arc<Root>,
    pub(super) stage: Arc<Stage>,
    pub(super) history: History,
    pub(super) manifests: Manifests,
    names: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The folder was not there before.
    is_new: bool,
    _lock: File,
}

impl Room {
    /// Opens the room for what has this id, as an earlier run left it.
    pub(super) fn open(dir: &Path, id: ShareId) -> Result<Self, UserError> {
        let (dir, is_new) = made(dir)?;
        let what = format!("cannot fetch to {}", clean(&dir));
        let fail = |e: io::Error| UserError::io("cannot fetch to", &dir, &e);
        let path = place(&dir, id);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(fail(e)),
            _ => {}
        }
        // A link would lead elsewhere.
        if !fs::symlink_metadata(&path).map_err(fail)?.is_dir() {
            let todo = "remove it, or fetch to another folder";
            return Err(UserError::new(
                &what,
                format!("{} is in the way", clean(&path)),
                todo,
            ));
        }
        let lock = File::create(path.join("lock")).map_err(fail)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let why = "another left fetches this to the same folder just now";
                return Err(UserError::new(&what, why, "wait for it, or stop it"));
            }
            Err(TryLockError::Error(e)) => return Err(fail(e)),
        }
        let root = Root::bare(&dir, Some(&path))
            .map_err(|e| UserError::new(&what, e, "choose another folder"))?;
        let manifests = Manifests::open(&path.join("manifests.db"))
            .map_err(|e| UserError::new(&what, e, "make room, or choose another folder"))?;
        // Half a file of names is none: only names that were used already matter, and then it is whole.
        let names = fs::read(path.join(NAMES)).ok();
        let names = names.and_then(|b| serde_json::from_slice::<Vec<(Vec<u8>, Vec<u8>)>>(&b).ok());
        Ok(Self {
            stage: Arc::new(Stage::open(&root).map_err(fail)?),
            history: History::open(&root).map_err(fail)?,
            root: Arc::new(root),
            manifests,
            names: names.unwrap_or_default().into_iter().collect(),
            is_new,
            path,
            dir,
            _lock: lock,
        })
    }

    /// All is there: nothing of ours stays.
    pub(super) fn remove(self) -> Result<(), UserError> {
        let path = self.path.clone();
        drop(self);
        let gone = fs::remove_dir_all(&path);
        gone.map_err(|e| UserError::io("everything is fetched, but cannot remove", &path, &e))
    }

    /// Nothing was begun, or nothing is worth keeping: a room that holds no content goes.
    pub(super) fn remove_if_empty(self) {
        let staged = self.stage.names().is_ok_and(|n| n.is_empty());
        let history = fs::read_dir(self.path.join("history"));
        let kept = history.is_ok_and(|mut h| h.next().is_some());
        if staged && !kept && self.names.is_empty() {
            let new = self.is_new.then(|| self.dir.clone());
            // It is only an empty folder if that fails.
            let _ = self.remove();
            // Stays where something is in it.
            let _ = new.map(fs::remove_dir);
        }
    }

    /// Where a path goes here: its first part may have another name.
    pub(super) fn target(&self, path: &RelPath) -> Option<RelPath> {
        let bytes = path.as_bytes();
        let end = bytes.iter().position(|b| *b == b'/').unwrap_or(bytes.len());
        match self.names.get(&bytes[..end]) {
            None => Some(path.clone()),
            Some(name) => RelPath::new([name, &bytes[end..]].concat()).ok(),
        }
    }

    /// Gives those of `tops` that something stands at another name, for good.
    pub(super) fn rename(&mut self, tops: &[RelPath]) -> Result<(), UserError> {
        let fail = |e: io::Error| UserError::io("cannot look at", &self.dir, &e);
        let mut new = Vec::new();
        for top in tops {
            if self.names.contains_key(top.as_bytes())
                || self.root.look(top).map_err(fail)?.is_none()
            {
                continue;
            }
            let taken = |name: &[u8]| match RelPath::new(name) {
                Ok(path) => self.root.look(&path).map(|found| found.is_some()),
                Err(_) => Ok(true),
            };
            let free = (2..MAX_NUMBER)
                .map(|n| numbered(top.as_bytes(), n))
                .find_map(|name| match taken(&name) {
                    Ok(true) => None,
                    Ok(false) => Some(Ok(name)),
                    Err(e) => Some(Err(e)),
                });
            let Some(name) = free else {
                let what = format!("cannot find a free name for {}", super::shown(top));
                return Err(UserError::new(
                    what,
                    "too many are taken",
                    "fetch to another folder",
                ));
            };
            new.push((top.as_bytes().to_vec(), name.map_err(fail)?));
        }
        if new.is_empty() {
            return Ok(());
        }
        self.names.extend(new);
        // As pairs: names need not be text.
        let pairs: Vec<_> = self.names.iter().collect();
        let text = serde_json::to_vec(&pairs).unwrap_or_default();
        let file = self.path.join(NAMES);
        write_atomic(&file, &text, 0o600).map_err(|e| UserError::io("cannot write", &file, &e))
    }

    /// What has another name here.
    pub(super) fn renamed(&self) -> impl Iterator<Item = (String, String)> {
        let text = |b: &[u8]| clean(Path::new(std::ffi::OsStr::from_bytes(b)));
        self.names
            .iter()
            .map(move |(old, new)| (text(old), text(new)))
    }
}

/// Whether a name is one of rooms.
pub(super) fn is_reserved(name: &[u8]) -> bool {
    name.to_ascii_lowercase().starts_with(PREFIX.as_bytes())
}

/// `photo-2.jpg`, `photos-2`, `.config-2`.
fn numbered(name: &[u8], n: u32) -> Vec<u8> {
    let dot = name
        .iter()
        .skip(1)
        .rposition(|b| *b == b'.')
        .map(|at| at + 1);
    let (stem, rest) = name.split_at(dot.unwrap_or(name.len()));
    let end = format!("-{n}").into_bytes();
    // A name has at most 255 bytes.
    let room = 255_usize.saturating_sub(end.len() + rest.len());
    [&stem[..stem.len().min(room)], &end, rest].concat()
}

/// The folder, made when missing (its parent must exist), in its one spelling; and whether it was made.
fn made(dir: &Path) -> Result<(PathBuf, bool), UserError> {
    let fail = |e: io::Error| UserError::io("cannot fetch to", dir, &e);
    let is_new = match fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(fail(e)),
        done => done.is_ok(),
    };
    let full = dir.canonicalize().map_err(fail)?;
    if !full.is_dir() {
        return Err(fail(io::ErrorKind::NotADirectory.into()));
    }
    Ok((full, is_new))
}

/// Inside of a share the room is in `.left`, so that it is not synchronised.
fn place(dir: &Path, id: ShareId) -> PathBuf {
    let id = id.to_string().to_ascii_lowercase();
    let short = id.get(..16).unwrap_or(&id);
    let share = match dir.join(MARKER_DIR).join("share.toml").exists() {
        true => Some(dir.to_path_buf()),
        false => enclosing_share(dir),
    };
    match share {
        Some(share) => share.join(MARKER_DIR).join(format!("get-{short}")),
        None => dir.join(format!("{PREFIX}{short}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_before_the_ending() {
        let name = |n: &str| String::from_utf8(numbered(n.as_bytes(), 2)).unwrap();
        assert_eq!(name("photos"), "photos-2");
        assert_eq!(name("a.tar.gz"), "a.tar-2.gz");
        assert_eq!(name(".config"), ".config-2");
        assert_eq!(name("x."), "x-2.");
        assert_eq!(name(&"n".repeat(255)).len(), 255);
    }

    #[test]
    fn a_room_is_of_one_process_and_goes_when_it_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let room = Room::open(&to, ShareId([1; 32])).unwrap();
        let other = Room::open(&to, ShareId([1; 32])).err().unwrap();
        assert!(other.to_string().contains("another left"), "{other}");
        let second = Room::open(&to, ShareId([2; 32])).unwrap();
        second.remove_if_empty();
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
        room.remove().unwrap();
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
        // A folder that was made for nothing goes too; one that was there, or is used, stays.
        Room::open(&to, ShareId([3; 32])).unwrap().remove_if_empty();
        assert!(to.exists());
        let new = dir.path().join("new");
        Room::open(&new, ShareId([3; 32]))
            .unwrap()
            .remove_if_empty();
        assert!(!new.exists());
        let room = Room::open(&new, ShareId([3; 32])).unwrap();
        fs::write(new.join("x"), "x").unwrap();
        room.remove_if_empty();
        assert!(new.join("x").exists());
        assert!(Room::open(&dir.path().join("no/such"), ShareId([1; 32])).is_err());
    }

    #[test]
    fn new_names_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.txt"), "mine").unwrap();
        let rel = |p: &str| RelPath::new(p).unwrap();
        let mut room = Room::open(dir.path(), ShareId([1; 32])).unwrap();
        room.rename(&[rel("a.txt"), rel("b")]).unwrap();
        assert_eq!(room.target(&rel("a.txt")), Some(rel("a-2.txt")));
        assert_eq!(room.target(&rel("b/c")), Some(rel("b/c")));
        drop(room);
        // A later run takes the same, though that stands there now.
        fs::write(dir.path().join("a-2.txt"), "begun").unwrap();
        let mut room = Room::open(dir.path(), ShareId([1; 32])).unwrap();
        room.rename(&[rel("a.txt"), rel("b")]).unwrap();
        assert_eq!(room.target(&rel("a.txt")), Some(rel("a-2.txt")));
    }
}
