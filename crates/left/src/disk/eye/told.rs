//! What the eye has told of and its receiver may not have recorded yet. Until then the index says what was
//! there before, so what it says is no reason to keep silent: a file that was told of and is gone again has no
//! record whose lack of a file would show.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use left_core::path::RelPath;

/// See the module's text.
#[derive(Default)]
pub(super) struct Told {
    /// The number of the last batch that each path is in.
    open: BTreeMap<RelPath, u64>,
    /// What was sent and not taken when that was last looked at.
    sent: VecDeque<(u64, Vec<RelPath>)>,
    /// What the next batch will have.
    next: Vec<RelPath>,
    count: u64,
    taken: Arc<AtomicU64>,
}

impl Told {
    /// `taken`: how many batches were recorded, counted by who does that.
    pub(super) fn new(taken: Arc<AtomicU64>) -> Self {
        Self {
            taken,
            ..Self::default()
        }
    }

    /// A path is told of with the next batch.
    pub(super) fn note(&mut self, path: &RelPath) {
        self.open.insert(path.clone(), self.count + 1);
        self.next.push(path.clone());
    }

    /// A batch is sent.
    pub(super) fn send(&mut self) {
        self.count += 1;
        self.sent
            .push_back((self.count, std::mem::take(&mut self.next)));
        let taken = self.taken.load(Ordering::Acquire);
        while self.sent.front().is_some_and(|(n, _)| *n <= taken) {
            let Some((number, paths)) = self.sent.pop_front() else {
                break;
            };
            for path in paths {
                if self.open.get(&path) == Some(&number) {
                    self.open.remove(&path);
                }
            }
        }
    }

    /// Whether the index may not have heard yet of what was told of a path. To be asked before the index is.
    pub(super) fn is_open(&self, path: &RelPath) -> bool {
        let number = self.open.get(path);
        number.is_some_and(|n| *n > self.taken.load(Ordering::Acquire))
    }

    /// Such paths directly in a folder.
    pub(super) fn open_in<'a>(
        &'a self,
        dir: Option<&'a RelPath>,
    ) -> impl Iterator<Item = &'a RelPath> {
        let all = match dir {
            Some(dir) => self.open.range(dir.clone()..),
            None => self.open.range::<RelPath, _>(..),
        };
        all.map(|(path, _)| path)
            .take_while(move |p| dir.is_none_or(|dir| *p == dir || p.is_below(dir)))
            .filter(move |p| p.parent().as_ref() == dir && self.is_open(p))
    }
}
