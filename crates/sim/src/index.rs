//! An index in maps that follows the contract of [`left_core::index`], and checks what the engine
//! commits.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use left_core::content::ContentId;
use left_core::entry::{Entry, Kind, Mtime, Record};
use left_core::index::{Cursor, Epoch, Index, IndexError, MAX_FORMER, Need, Totals, Txn, Walk};
use left_core::path::RelPath;
use left_core::probe::mutant;
use left_core::version::{DeviceId, Relation};

use crate::rng::Rng;

/// How a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFault {
    /// No room.
    Full,
    /// Any other failure.
    Failed,
    /// The file is found to be damaged.
    Corrupt,
}

/// States before unsynced commits that are kept.
const MAX_UNSYNCED: usize = 4;

/// See the module's text. Commits are durable when they return, but those of hearsay.
#[derive(Debug, Clone)]
pub struct FakeIndex {
    device: DeviceId,
    epoch: Epoch,
    former: Vec<Cursor>,
    head: u64,
    floor: u64,
    ours: BTreeMap<RelPath, (u64, Record)>,
    by_seq: BTreeMap<u64, RelPath>,
    theirs: BTreeMap<RelPath, BTreeMap<DeviceId, Entry>>,
    /// Of these paths what is not needed.
    away: BTreeSet<RelPath>,
    /// What was dropped, by its number.
    dropped: BTreeMap<u64, RelPath>,
    cursors: BTreeMap<DeviceId, Cursor>,
    tops: BTreeMap<DeviceId, u64>,
    /// What is ours reaches nobody, so its versions need not go forward.
    pub read_only: bool,
    /// This many commits succeed, the next one fails.
    pub fail_in: Option<(u32, CommitFault)>,
    /// States that a power failure may bring back.
    unsynced: Vec<FakeIndex>,
    /// What was committed that should not have been.
    pub violations: Vec<String>,
    /// Paths given out by walks over the needs.
    pub walked: Cell<u64>,
}

impl FakeIndex {
    /// An empty index of this device in this life.
    pub fn new(device: DeviceId, epoch: Epoch) -> Self {
        Self {
            device,
            epoch,
            former: Vec::new(),
            head: 0,
            floor: 0,
            ours: BTreeMap::new(),
            by_seq: BTreeMap::new(),
            theirs: BTreeMap::new(),
            away: BTreeSet::new(),
            dropped: BTreeMap::new(),
            cursors: BTreeMap::new(),
            tops: BTreeMap::new(),
            read_only: false,
            fail_in: None,
            unsynced: Vec::new(),
            violations: Vec::new(),
            walked: Cell::new(0),
        }
    }

    /// The index is opened, as the store does it: a new life begins.
    pub fn reopen(&mut self, epoch: Epoch) {
        if !mutant("an older index goes on under its old epoch") {
            if self.head > 0 {
                self.former.push(Cursor {
                    epoch: self.epoch,
                    seq: self.head,
                });
            }
            let old = self.former.len().saturating_sub(MAX_FORMER);
            self.former.drain(..old);
            self.epoch = epoch;
        }
        if mutant("tombstones dropped early") {
            let live = |r: &Record| r.entry.node.is_live();
            self.by_seq.retain(|_, p| live(&self.ours[p].1));
            self.ours.retain(|_, (_, r)| live(r));
        }
    }

    /// The power fails: what was committed last may be gone, as far as it need not be durable.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        let at = rng.index(self.unsynced.len() + 1);
        let mut unsynced = std::mem::take(&mut self.unsynced);
        if at < unsynced.len() {
            *self = unsynced.swap_remove(at);
        }
    }

    /// All that was committed is durable.
    pub fn sync(&mut self) {
        self.unsynced.clear();
    }

    /// Keeps the state as it is, before a commit that is not synced.
    fn keep_unsynced(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced);
        let now = self.clone();
        self.unsynced = unsynced;
        self.unsynced.push(now);
        // The first one is what is certain.
        if self.unsynced.len() > MAX_UNSYNCED {
            self.unsynced.remove(1);
        }
    }

    /// All live records, in order.
    pub fn live(&self) -> impl Iterator<Item = (&RelPath, &Record)> {
        self.ours
            .iter()
            .map(|(p, (_, r))| (p, r))
            .filter(|(_, r)| r.entry.node.is_live())
    }

    /// All that is not settled, for messages about failures.
    pub fn unsettled(&self) -> &BTreeMap<RelPath, BTreeMap<DeviceId, Entry>> {
        &self.theirs
    }

    /// Whether what peers announced of a path is not to be here.
    pub fn is_away(&self, path: &RelPath) -> bool {
        self.away.contains(path)
    }

    /// Whether a path was dropped and is not here again.
    pub fn is_dropped(&self, path: &RelPath) -> bool {
        self.dropped.values().any(|p| p == path)
    }

    fn needed(&self) -> impl DoubleEndedIterator<Item = &RelPath> {
        self.theirs.keys().filter(|p| !self.away.contains(*p))
    }

    /// Our entry of a path.
    pub fn entry(&self, path: &RelPath) -> Option<&Entry> {
        self.ours.get(path).map(|(_, r)| &r.entry)
    }

    fn saw(&mut self, entry: &Entry) {
        let stamp = (entry.stamp.device, entry.stamp.counter);
        for (d, c) in entry.version.pairs().iter().copied().chain([stamp]) {
            let top = self.tops.entry(d).or_default();
            *top = c.max(*top);
        }
        let own = self.tops.get(&self.device).copied().unwrap_or(0);
        self.floor = self.floor.max(own);
    }

    fn put(&mut self, path: RelPath, record: Record) {
        if record.entry.version.pairs().is_empty() {
            let text = format!("{path}: an entry without a version was committed");
            self.violations.push(text);
        }
        if record.entry.node.is_live() != record.stat.is_some() {
            let text = format!("{path}: stat does not fit {:?}", record.entry.node);
            self.violations.push(text);
        }
        self.saw(&record.entry);
        self.head += 1;
        if let Some((seq, old)) = self.ours.get(&path) {
            let relation = old.entry.version.relation(&record.entry.version);
            // A version that is given out twice happens to devices that lost their index, and
            // what a peer let go is told again.
            let again = relation == Relation::Equal;
            if relation != Relation::Before && !again && !self.read_only {
                self.violations.push(format!(
                    "{path}: our version goes {relation:?} from {:?} to {:?}",
                    old.entry, record.entry
                ));
            }
            self.by_seq.remove(seq);
        }
        self.dropped.retain(|_, p| *p != path);
        self.by_seq.insert(self.head, path.clone());
        self.ours.insert(path, (self.head, record));
    }

    fn drop_record(&mut self, path: RelPath) {
        self.head += 1;
        if let Some((seq, _)) = self.ours.remove(&path) {
            self.by_seq.remove(&seq);
        }
        self.dropped.retain(|_, p| *p != path);
        self.dropped.insert(self.head, path);
    }

    fn need(&self, path: &RelPath) -> Need {
        let theirs = self.theirs.get(path);
        Need {
            path: path.clone(),
            theirs: theirs
                .into_iter()
                .flatten()
                .map(|(d, e)| (*d, e.clone()))
                .collect(),
        }
    }
}

impl Index for FakeIndex {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn former(&self) -> &[Cursor] {
        &self.former
    }

    fn head(&self) -> u64 {
        self.head
    }

    fn counter_floor(&self) -> u64 {
        self.floor
    }

    fn max_counter(&self, device: DeviceId) -> Result<u64, IndexError> {
        Ok(self.tops.get(&device).copied().unwrap_or(0))
    }

    fn get(&self, path: &RelPath) -> Result<Option<Record>, IndexError> {
        Ok(self.ours.get(path).map(|(_, r)| r.clone()))
    }

    fn live_after(
        &self,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        let beyond = self.live().filter(|(p, _)| after.is_none_or(|a| *p > a));
        let page = beyond.take(limit);
        Ok(page.map(|(p, r)| (p.clone(), r.clone())).collect())
    }

    fn live_below(
        &self,
        dir: &RelPath,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        Ok(self
            .ours
            .range(dir.clone()..)
            .skip(usize::from(self.ours.contains_key(dir)))
            .take_while(|(p, _)| p.is_below(dir))
            .filter(|(p, (_, r))| after.is_none_or(|a| *p > a) && r.entry.node.is_live())
            .take(limit)
            .map(|(p, (_, r))| (p.clone(), r.clone()))
            .collect())
    }

    fn by_content(
        &self,
        content: &ContentId,
        limit: usize,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        Ok(self
            .live()
            .filter(|(_, r)| r.entry.node.content() == Some(*content))
            .take(limit)
            .map(|(p, r)| (p.clone(), r.clone()))
            .collect())
    }

    fn by_inode(
        &self,
        ino: u64,
        size: u64,
        mtime: Mtime,
    ) -> Result<Vec<(RelPath, Record)>, IndexError> {
        Ok(self
            .live()
            .filter(|(_, r)| {
                r.entry.node.kind() == Kind::File
                    && r.stat
                        .is_some_and(|s| s.ino == ino && s.size == size && s.mtime == mtime)
            })
            .map(|(p, r)| (p.clone(), r.clone()))
            .collect())
    }

    fn changes_since(
        &self,
        seq: u64,
        limit: usize,
    ) -> Result<Vec<(u64, RelPath, Record)>, IndexError> {
        Ok(self
            .by_seq
            .range(seq + 1..)
            .take(limit)
            .filter_map(|(s, p)| Some((*s, p.clone(), self.ours.get(p)?.1.clone())))
            .collect())
    }

    fn dropped_since(&self, seq: u64, limit: usize) -> Result<Vec<(u64, RelPath)>, IndexError> {
        let beyond = self.dropped.range(seq + 1..).take(limit);
        Ok(beyond.map(|(n, p)| (*n, p.clone())).collect())
    }

    fn cursor(&self, peer: DeviceId) -> Result<Cursor, IndexError> {
        Ok(self.cursors.get(&peer).copied().unwrap_or_default())
    }

    fn theirs(&self, path: &RelPath) -> Result<Vec<(DeviceId, Entry)>, IndexError> {
        Ok(self.need(path).theirs)
    }

    fn needs(
        &self,
        walk: Walk,
        from: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<Need>, IndexError> {
        let up = self.needed();
        let paths: Vec<&RelPath> = match walk {
            Walk::Up => up
                .filter(|p| from.is_none_or(|f| *p > f))
                .take(limit)
                .collect(),
            Walk::Down => up
                .rev()
                .filter(|p| from.is_none_or(|f| *p < f))
                .take(limit)
                .collect(),
        };
        self.walked.set(self.walked.get() + paths.len() as u64);
        Ok(paths.into_iter().map(|p| self.need(p)).collect())
    }

    fn needs_below(&self, dir: &RelPath) -> Result<bool, IndexError> {
        Ok(self.needed().any(|p| p.is_below(dir)))
    }

    fn away(&self, after: Option<&RelPath>, limit: usize) -> Result<Vec<Need>, IndexError> {
        let beyond = self.away.iter().filter(|p| after.is_none_or(|a| *p > a));
        Ok(beyond.take(limit).map(|p| self.need(p)).collect())
    }

    fn totals(&self) -> Result<Totals, IndexError> {
        let mut totals = Totals {
            need_files: (self.theirs.len() - self.away.len()) as u64,
            away_files: self.away.len() as u64,
            ..Totals::default()
        };
        for (_, record) in self.live() {
            match record.entry.node.kind() {
                Kind::File => totals.files += 1,
                Kind::Dir => totals.dirs += 1,
                Kind::Symlink => totals.links += 1,
                Kind::Tombstone => {}
            }
            totals.bytes += record.entry.node.size();
        }
        for (path, theirs) in &self.theirs {
            let last = theirs.values().max_by_key(|e| (e.stamp, e.node.size()));
            let bytes = last.map_or(0, |e| e.node.size());
            match self.away.contains(path) {
                true => totals.away_bytes += bytes,
                false => totals.need_bytes += bytes,
            }
        }
        Ok(totals)
    }

    fn commit(&mut self, txn: Txn) -> Result<u64, IndexError> {
        match &mut self.fail_in {
            Some((0, fault)) => {
                let fault = *fault;
                self.fail_in = None;
                return Err(match fault {
                    CommitFault::Full => IndexError::Full("no room".to_owned()),
                    CommitFault::Failed => IndexError::Failed("no reason".to_owned()),
                    CommitFault::Corrupt => IndexError::Corrupt("damaged".to_owned()),
                });
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        if mutant("announced before committed") || txn.is_hearsay() {
            self.keep_unsynced();
        } else {
            self.sync();
        }
        let put = txn.put.iter().map(|(p, _)| p);
        let mut paths: Vec<&RelPath> = put.chain(&txn.drop).collect();
        paths.sort();
        if let Some(twice) = paths.windows(2).find(|w| w[0] == w[1]) {
            let text = format!("{}: stands twice in one transaction", twice[0]);
            self.violations.push(text);
        }
        for peer in &txn.forget {
            self.theirs.values_mut().for_each(|t| {
                t.remove(peer);
            });
            self.cursors.remove(peer);
        }
        let theirs = &self.theirs;
        let known = |p: &RelPath| theirs.get(p).is_some_and(|t| !t.is_empty());
        self.away.retain(known);
        for (peer, path) in &txn.theirs_del {
            if let Some(theirs) = self.theirs.get_mut(path) {
                theirs.remove(peer);
            }
        }
        for (peer, path, entry) in txn.theirs_put {
            self.saw(&entry);
            self.theirs.entry(path).or_default().insert(peer, entry);
        }
        self.theirs.retain(|_, theirs| !theirs.is_empty());
        for (path, away) in txn.away {
            match away {
                true => self.away.insert(path),
                false => self.away.remove(&path),
            };
        }
        let theirs = &self.theirs;
        self.away.retain(|p| theirs.contains_key(p));
        for (path, record) in txn.put {
            self.put(path, record);
        }
        for path in txn.drop {
            self.drop_record(path);
        }
        for (path, stat) in txn.touch {
            if let Some((_, record)) = self.ours.get_mut(&path)
                && record.entry.node.is_live()
            {
                record.stat = Some(stat);
            }
        }
        self.cursors.extend(txn.cursors);
        self.floor = self.floor.max(txn.counter_floor.unwrap_or(0));
        Ok(self.head)
    }
}
