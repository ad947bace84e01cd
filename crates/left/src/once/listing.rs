//! What a receiver is told, and what of it stands here already.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use left_core::entry::{FileStat, Kind, Node};
use left_core::message::IndexBatch;
use left_core::path::RelPath;
use left_core::plan::Expect;

use super::room::is_reserved;
use super::{Stop, shown};
use crate::disk::{Found, HashError, Root, hash_file};

/// Most paths that are taken, and most bytes of them with link targets: a list is held in memory.
const MAX_PATHS: usize = 5_000_000;
const MAX_TEXT: usize = 1 << 30;
/// Permission bits that are taken from a stranger: no set-user-id, which would lend ours to others.
const MODES: u32 = 0o777;
/// Paths that an error names.
const MAX_NAMED: usize = 5;

/// All that the sender has told.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) nodes: BTreeMap<RelPath, Node>,
    /// Sequence number up to which it is told.
    pub(super) upto: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
    text: usize,
}

impl Listing {
    /// Takes a message in; the paths that are new or changed.
    ///
    /// # Errors
    /// What the sender may not tell.
    pub(super) fn take(
        &mut self,
        batch: IndexBatch,
        dotfiles: bool,
    ) -> Result<Vec<RelPath>, String> {
        if batch.upto < self.upto {
            return Err("the sender went back in its list".to_owned());
        }
        self.upto = batch.upto;
        let mut fresh = Vec::with_capacity(batch.entries.len());
        for (path, entry) in batch.entries {
            check_name(&path, dotfiles)?;
            let node = tame(entry.node);
            self.text += path.as_bytes().len() + target_len(&node);
            if self.nodes.len() >= MAX_PATHS || self.text > MAX_TEXT {
                return Err(format!(
                    "the sender sends more than {MAX_PATHS} files, or too long names; have it send an archive"
                ));
            }
            self.count(&node, 1);
            let before = match node {
                Node::Tombstone => self.nodes.remove(&path),
                _ => self.nodes.insert(path.clone(), node),
            };
            if let Some(before) = before {
                self.count(&before, -1);
            }
            fresh.push(path);
        }
        Ok(fresh)
    }

    fn count(&mut self, node: &Node, by: i64) {
        if matches!(node, Node::File { .. } | Node::Symlink { .. }) {
            self.files = self.files.saturating_add_signed(by);
            self.bytes = match by > 0 {
                true => self.bytes.saturating_add(node.size()),
                false => self.bytes.saturating_sub(node.size()),
            };
        }
    }

    /// What lies directly in the folder that things are fetched to.
    pub(super) fn tops(&self) -> Vec<RelPath> {
        let tops = self.nodes.keys().filter(|p| p.parent().is_none());
        tops.cloned().collect()
    }
}

fn target_len(node: &Node) -> usize {
    match node {
        Node::Symlink { target, .. } => target.len(),
        _ => 0,
    }
}

fn tame(node: Node) -> Node {
    match node {
        Node::Dir { mode } => Node::Dir { mode: mode & MODES },
        Node::File {
            mode,
            mtime,
            size,
            content,
        } => Node::File {
            mode: mode & MODES,
            mtime,
            size,
            content,
        },
        other => other,
    }
}

fn check_name(path: &RelPath, dotfiles: bool) -> Result<(), String> {
    let top = path.parts().next().unwrap_or_default();
    if is_reserved(top) {
        return Err(format!("{} is a name that left needs itself", shown(path)));
    }
    if top.starts_with(b".") && !dotfiles {
        return Err(format!(
            "{} begins with a dot, and programs obey such files; if you trust the sender, say --dotfiles",
            shown(path)
        ));
    }
    Ok(())
}

/// What stands where something is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stands {
    /// Nothing.
    Nothing,
    /// The same bytes, link or folder.
    Same(FileStat),
    /// Something else, which could be replaced.
    Other(Expect),
    /// Something else, which can not be replaced: what it is.
    Stuck(&'static str),
}

/// Looks at what stands where `node` is to go. Reads files of the same size.
pub(super) fn look(root: &Root, at: &RelPath, node: &Node, stop: &Stop) -> Result<Stands, String> {
    let found = root.look(at).map_err(|e| format!("{}: {e}", shown(at)))?;
    let Some(found) = found else {
        return Ok(Stands::Nothing);
    };
    let there = |kind: Kind, stat: FileStat| Ok(Stands::Other(Expect::Present(kind, stat)));
    match (found, node) {
        (Found::Dir(stat), Node::Dir { .. }) => Ok(Stands::Same(stat)),
        (Found::Dir(_), _) => Ok(Stands::Stuck("a folder")),
        (Found::Special(kind), _) => Ok(Stands::Stuck(kind)),
        (Found::Symlink(stat, b), Node::Symlink { target, .. }) if b == *target => {
            Ok(Stands::Same(stat))
        }
        (Found::Symlink(stat, _), _) => there(Kind::Symlink, stat),
        (Found::File(stat, _), Node::File { size, content, .. }) if stat.size == *size => {
            let read = hash_file(root, at, &stat, &mut |_| match stop.is_stopped() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            });
            match read {
                Ok(id) if id == *content => Ok(Stands::Same(stat)),
                Ok(_) | Err(HashError::Changed | HashError::Gone | HashError::Stopped) => {
                    there(Kind::File, stat)
                }
                Err(e) => Err(format!("{}: {e}", shown(at))),
            }
        }
        (Found::File(stat, _), _) => there(Kind::File, stat),
    }
}

/// Paths at which something else stands; named in the error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InTheWay {
    paths: Vec<String>,
    count: usize,
}

impl InTheWay {
    pub(super) fn add(&mut self, path: &RelPath, what: &str) {
        self.count += 1;
        if self.paths.len() < MAX_NAMED {
            self.paths.push(format!("{}{what}", shown(path)));
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl std::fmt::Display for InTheWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.paths.join(", "))?;
        match self.count - self.paths.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use left_core::entry::{Entry, Stamp};
    use left_core::version::{DeviceId, Version};

    use super::*;

    fn batch(upto: u64, entries: &[(&str, Node)]) -> IndexBatch {
        let entry = |node: &Node| Entry {
            node: node.clone(),
            version: Version::default(),
            stamp: Stamp {
                counter: 1,
                device: DeviceId([1; 32]),
            },
        };
        let entries = entries
            .iter()
            .map(|(p, n)| (RelPath::new(*p).unwrap(), entry(n)));
        IndexBatch {
            entries: entries.collect(),
            dropped: Vec::new(),
            upto,
            more: false,
        }
    }

    fn file(size: u64) -> Node {
        let content = left_core::content::ContentId([size as u8; 32]);
        Node::File {
            mode: 0o4755,
            mtime: Default::default(),
            size,
            content,
        }
    }

    #[test]
    fn a_list_counts_what_holds_now() {
        let mut list = Listing::default();
        let dir = Node::Dir { mode: 0o2755 };
        list.take(
            batch(3, &[("d", dir), ("d/a", file(5)), ("b", file(7))]),
            false,
        )
        .unwrap();
        assert_eq!((list.files, list.bytes, list.tops().len()), (2, 12, 2));
        list.take(batch(5, &[("b", Node::Tombstone), ("d/a", file(6))]), false)
            .unwrap();
        assert_eq!((list.files, list.bytes, list.upto), (1, 6, 5));
        // Nobody's rights are lent to others.
        let modes: Vec<u32> = list
            .nodes
            .values()
            .map(|n| match n {
                Node::Dir { mode } | Node::File { mode, .. } => *mode,
                _ => 0,
            })
            .collect();
        assert_eq!(modes, [0o755, 0o755]);
        assert!(list.take(batch(4, &[]), false).is_err(), "backwards");
    }

    #[test]
    fn names_that_programs_obey_need_consent() {
        let ssh = batch(1, &[(".ssh/authorized_keys", file(1))]);
        let error = Listing::default().take(ssh.clone(), false).unwrap_err();
        assert!(error.contains("--dotfiles"), "{error}");
        Listing::default().take(ssh, true).unwrap();
        // Below something else they do no harm.
        Listing::default()
            .take(batch(1, &[("p/.git", file(1))]), false)
            .unwrap();
        let room = batch(1, &[(".Left-get-x/stage/a", file(1))]);
        assert!(Listing::default().take(room, true).is_err());
    }
}
