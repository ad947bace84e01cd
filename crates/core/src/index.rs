//! What the engine asks of its index. The real one is SQLite; the simulator's is a map.

use crate::content::ContentId;
use crate::entry::{Entry, FileStat, Mtime, Record};
use crate::path::RelPath;
use crate::version::DeviceId;

/// Names one life of an index: random, new whenever an index is opened or had to be made anew, so
/// that an older copy of an index that comes back does not give out numbers which peers have seen.
/// Never 0.
pub type Epoch = u64;

/// Former lives that an index remembers. A peer that knows only older ones is told everything.
pub const MAX_FORMER: usize = 256;

/// How far an index is known: all changes of `epoch` up to and including `seq`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    /// Which life of the index; 0 when nothing is known.
    pub epoch: Epoch,
    /// The last sequence number taken in.
    pub seq: u64,
}

/// The index failed: the database file is damaged, or the disk full or gone.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The stored data can not be trusted; the index must be rebuilt from disk and peers.
    #[error("the index is corrupt: {0}")]
    Corrupt(String),
    /// No room to write; nothing of the transaction was done.
    #[error("no room on the disk for the index: {0}")]
    Full(String),
    /// Any other failure; nothing of the transaction was done.
    #[error("the index failed: {0}")]
    Failed(String),
}

/// Changes made together or not at all, durable when [`Index::commit`] returns. Only of such as are
/// [`hearsay`](Txn::is_hearsay) a power cut may take back the last ones, the latest first, up to the next
/// durable one. Whoever changes the disk because of them has to make them durable before.
#[derive(Debug, Default, Clone)]
pub struct Txn {
    /// New or changed records of ours; each gets the next sequence number, in this order.
    /// A path stands here at most once.
    pub put: Vec<(RelPath, Record)>,
    /// Records of ours to be forgotten: we hold that no more, and nobody deleted it. Each path gets a
    /// sequence number of its own, after those of `put`, in this order; none stands in `put` too.
    pub drop: Vec<RelPath>,
    /// Only what `lstat` says changed; the sequence number stays.
    pub touch: Vec<(RelPath, FileStat)>,
    /// What peers announced and we do not have yet.
    pub theirs_put: Vec<(DeviceId, RelPath, Entry)>,
    /// What is settled.
    pub theirs_del: Vec<(DeviceId, RelPath)>,
    /// From now on what peers announced for the path is not needed (it is *away*), or is. Done after the
    /// puts; what is new is needed, and what was announced of a path that is away is away too
    /// (also when its last announcement goes in the same transaction, but not when it is forgotten).
    pub away: Vec<(RelPath, bool)>,
    /// How far peers' indexes are taken in.
    pub cursors: Vec<(DeviceId, Cursor)>,
    /// Forget all a peer announced, and its cursor (its index was lost). Done before the rest.
    pub forget: Vec<DeviceId>,
    /// The largest counter of our own device that was seen anywhere, if it grew.
    pub counter_floor: Option<u64>,
}

impl Txn {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        let heard = self.theirs_put.is_empty() && self.theirs_del.is_empty();
        self.is_hearsay() && heard && self.cursors.is_empty()
    }

    /// Whether it has nothing but what peers tell and how far that is taken in: they tell it again to
    /// whom it is lost.
    pub fn is_hearsay(&self) -> bool {
        self.put.is_empty()
            && self.drop.is_empty()
            && self.away.is_empty()
            && self.touch.is_empty()
            && self.forget.is_empty()
            && self.counter_floor.is_none()
    }
}

/// Which way to walk the needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Walk {
    /// Parents before children.
    Up,
    /// Children before parents.
    Down,
}

/// A path for which peers announced something that we do not have yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Need {
    /// The path.
    pub path: RelPath,
    /// What each peer announced, by device.
    pub theirs: Vec<(DeviceId, Entry)>,
}

/// Counts for people and for `wait`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Live files.
    pub files: u64,
    /// Live folders.
    pub dirs: u64,
    /// Live symbolic links.
    pub links: u64,
    /// Bytes of live files.
    pub bytes: u64,
    /// Paths needed from peers.
    pub need_files: u64,
    /// Bytes of needed files.
    pub need_bytes: u64,
    /// Paths that peers have and that are not to be held here.
    pub away_files: u64,
    /// Bytes of those.
    pub away_bytes: u64,
}

/// One share's index: our records, and per peer only what differs from them.
///
/// Walks are in [`RelPath`] order and bounded by `limit`.
pub trait Index {
    /// This index' life.
    fn epoch(&self) -> Epoch;
    /// The lives before this one, each with the last number given out in it, the latest last; at
    /// most [`MAX_FORMER`].
    fn former(&self) -> &[Cursor];
    /// The last sequence number given out; 0 for none.
    fn head(&self) -> u64;
    /// The largest counter of our own device ever seen, in our records or at peers.
    fn counter_floor(&self) -> u64;
    /// The largest counter of `device` in any version or stamp ever committed here.
    fn max_counter(&self, device: DeviceId) -> Result<u64, IndexError>;
    /// Our record of a path, live or tombstone.
    fn get(&self, path: &RelPath) -> Result<Option<Record>, IndexError>;
    /// Live records of the whole share, in order, after `after` where given.
    fn live_after(
        &self,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, IndexError>;
    /// Live records strictly below `dir`, in order, after `after` where given.
    fn live_below(
        &self,
        dir: &RelPath,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, IndexError>;
    /// Live files of ours with this content.
    fn by_content(
        &self,
        content: &ContentId,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, IndexError>;
    /// Live files of ours that had this inode, size and mtime when last seen.
    fn by_inode(
        &self,
        ino: u64,
        size: u64,
        mtime: Mtime,
    ) -> Result<Vec<(RelPath, Record)>, IndexError>;
    /// Our records with a sequence number above `seq`, lowest first, with that number.
    fn changes_since(
        &self,
        seq: u64,
        limit: usize,
    ) -> Result<Vec<(u64, RelPath, Record)>, IndexError>;
    /// Paths that were dropped with a sequence number above `seq`, lowest first, with that number. A new
    /// record of a path takes it off this list.
    fn dropped_since(&self, seq: u64, limit: usize) -> Result<Vec<(u64, RelPath)>, IndexError>;
    /// How far we know this peer's index.
    fn cursor(&self, peer: DeviceId) -> Result<Cursor, IndexError>;
    /// What peers announced for one path and is not settled, needed or away.
    fn theirs(&self, path: &RelPath) -> Result<Vec<(DeviceId, Entry)>, IndexError>;
    /// Needed paths beyond `from` (exclusive) in the direction of the walk.
    fn needs(
        &self,
        walk: Walk,
        from: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<Need>, IndexError>;
    /// Whether any needed path lies strictly below `dir`.
    fn needs_below(&self, dir: &RelPath) -> Result<bool, IndexError>;
    /// Paths that are away, in order, after `after` where given.
    fn away(&self, after: Option<&RelPath>, limit: usize) -> Result<Vec<Need>, IndexError>;
    /// Counts.
    fn totals(&self) -> Result<Totals, IndexError>;
    /// Does all of `txn` durably, or nothing; returns the new head.
    fn commit(&mut self, txn: Txn) -> Result<u64, IndexError>;
}
