//! What happens on one device beside its engine: the scanner, the transfers and the applier.

use left_core::diff::{Observation, Seen};
use left_core::engine::{Event, Report};
use left_core::index::Index as _;
use left_core::path::RelPath;
use left_core::plan::{FetchError, FetchItem, Op, OpDone, OpError, OpId};
use left_core::probe::mutant;

use crate::apply::{apply, shuffled};
use crate::disk::{Bytes, Object};
use crate::faults::Kind;
use crate::pack::waits;
use crate::scan::{differences, gone, holds, present};
use crate::world::{Local, World};

impl World {
    pub(crate) fn local(&mut self, device: usize, what: Local) {
        match what {
            Local::Tick(at) => {
                if self.devices[device].tick_at == Some(at) {
                    self.devices[device].tick_at = None;
                    self.step(device, Event::Tick);
                }
            }
            Local::Scan => self.scan(device),
            Local::HandIn { seen, last } => self.hand_in(device, seen, last),
            Local::FullScan(from) => self.full_scan_piece(device, from),
            Local::ScanDone => {
                self.step(device, Event::ScanDone);
                self.devices[device].deciding = false;
                self.scan_over(device);
            }
            Local::Fetched(item) => self.fetch_ends(device, &item),
            Local::ApplyNext => self.apply_next(device),
            Local::Applied(results) => self.step(device, Event::Applied(results)),
            Local::Synced(token) => {
                self.devices[device].disk.sync();
                self.step(device, Event::Synced(token));
            }
            Local::PutBack => self.put_back(device),
            Local::Resume => self.step(
                device,
                Event::Resume {
                    accept_deletions: true,
                },
            ),
        }
    }

    /// Paths to be looked at soon.
    pub fn hint(&mut self, device: usize, paths: Vec<RelPath>, after_us: u64) {
        let d = &mut self.devices[device];
        if d.engine.is_none() || paths.is_empty() {
            return;
        }
        d.dirty.extend(paths);
        if !d.scan_planned {
            d.scan_planned = true;
            self.plan_on(device, after_us, Local::Scan);
        }
    }

    fn scan(&mut self, device: usize) {
        let d = &mut self.devices[device];
        d.scan_planned = false;
        d.scans += 1;
        let mut found: Vec<Observation> = Vec::new();
        let mut busy = Vec::new();
        for path in std::mem::take(&mut d.dirty) {
            if d.disk.get(&path).is_none() && d.index.entry(&path).is_none() && !d.disk.gone {
                // It came and went, and nobody had seen it.
                let seen = Seen::Absent;
                found.push(Observation {
                    path: path.clone(),
                    seen,
                });
            }
            found.extend(differences(&d.disk, &d.index, &path));
            if d.engine.as_ref().is_some_and(|e| e.is_path_busy(&path)) {
                // The index does not know yet what was done there, so that a look may find no
                // difference where there is one.
                busy.push(path);
            }
        }
        self.hint(device, busy, 100_000);
        // What is there before what is gone, so that renames are seen as such.
        let (there, gone): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|o| o.seen != Seen::Absent);
        let mut all = there;
        all.extend(gone);
        let mut after = self.delay(0, 10);
        // A loss of all that is seen slowly can not be told from many small deletions.
        let slow = self.rng.percent(10) && self.is_usable(device);
        while !all.is_empty() {
            let n = match self.rng.percent(70) {
                true => all.len(),
                false => self.rng.between(1, all.len() as u64) as usize,
            };
            let seen: Vec<Observation> = all.drain(..n).collect();
            let last = all.is_empty();
            self.plan_on(device, after, Local::HandIn { seen, last });
            after += self.delay(0, if slow { 1500 } else { 10 }) + 1;
            if last {
                return;
            }
        }
        self.scan_over(device);
    }

    /// What stands where something looked later before the clock was set back is made durable.
    fn settle_older(&mut self, device: usize, observation: &Observation) {
        let d = &mut self.devices[device];
        let Seen::File { stat, .. } = &observation.seen else {
            return;
        };
        let then = d.index.get(&observation.path).ok().flatten();
        let then = then.and_then(|r| r.stat);
        if then.is_some_and(|then| then.ctime > stat.ctime)
            && !mutant("what is older than its record is not synced")
        {
            d.disk.sync_file(&observation.path);
        }
    }

    fn hand_in(&mut self, device: usize, seen: Vec<Observation>, last: bool) {
        let (mut again, mut busy) = (Vec::new(), Vec::new());
        let mut kept = Vec::new();
        self.tear(device, &seen);
        for mut observation in seen {
            if let Seen::Torn(Some(_)) = observation.seen {
                // Under a clock set back it may be an edit: it is kept in history.
                let d = &self.devices[device];
                let bytes = d.disk.get(&observation.path).and_then(|o| o.bytes());
                self.written.superseded.extend(bytes);
            }
            let d = &self.devices[device];
            let engine = d.engine.as_ref();
            let stale = !holds(&d.disk, &observation);
            if stale && mutant("a file's stat is taken after it was read") {
                let now = d.disk.get(&observation.path).map(|o| o.stat());
                if let (Seen::File { stat, .. }, Some(now)) = (&mut observation.seen, now) {
                    *stat = now;
                    kept.push(observation);
                }
            } else if stale {
                again.push(observation.path);
            } else if engine.is_some_and(|e| e.is_path_busy(&observation.path))
                && self.rng.percent(50)
            {
                busy.push(observation.path);
            } else {
                self.settle_older(device, &observation);
                kept.push(observation);
            }
        }
        self.hint(device, again, 2000);
        self.hint(device, busy, 200_000);
        if self.faults.has(Kind::Twice) && self.rng.percent(5) {
            self.stats.fault("seen twice");
            self.step(device, Event::Observed(kept.clone()));
        }
        if !kept.is_empty() {
            self.step(device, Event::Observed(kept));
        }
        if last {
            self.scan_over(device);
        }
    }

    /// Looks at the whole tree, piece by piece.
    pub fn full_scan(&mut self, device: usize, after_us: u64) {
        self.devices[device].scans += 1;
        self.plan_on(device, after_us, Local::FullScan(None));
    }

    fn full_scan_piece(&mut self, device: usize, from: Option<RelPath>) {
        let n = self.rng.between(1, 12) as usize;
        let d = &self.devices[device];
        let paths: Vec<RelPath> = d
            .disk
            .tree()
            .keys()
            .filter(|p| from.as_ref().is_none_or(|f| *p > f))
            .take(n)
            .cloned()
            .collect();
        let seen: Vec<Observation> = match paths.is_empty() {
            false => {
                let look = |p| present(&d.disk, &d.index, p);
                paths.iter().filter_map(look).collect()
            }
            true => gone(&d.disk, &d.index, None),
        };
        let at = (self.now_us + self.delay(0, 10)).max(self.devices[device].handed_at + 1);
        self.devices[device].handed_at = at;
        let after = at - self.now_us;
        if !seen.is_empty() {
            self.plan_on(device, after, Local::HandIn { seen, last: false });
        }
        match paths.last() {
            Some(last) => {
                let next = self.delay(0, 5);
                self.plan_on(device, next, Local::FullScan(Some(last.clone())));
            }
            None => self.plan_on(device, after + 1, Local::ScanDone),
        }
    }

    fn scan_over(&mut self, device: usize) {
        // A crash in between has set the count back.
        let d = &mut self.devices[device];
        d.scans = d.scans.saturating_sub(1);
        self.answer_barriers(device);
    }

    /// Answers barriers when nothing is left to be looked at.
    pub(crate) fn answer_barriers(&mut self, device: usize) {
        let d = &mut self.devices[device];
        if d.scans > 0 || d.scan_planned || !d.dirty.is_empty() {
            return;
        }
        for token in std::mem::take(&mut d.barriers) {
            self.step(device, Event::BarrierDone(token));
        }
    }

    /// Starts to bring contents.
    pub(crate) fn fetch(&mut self, device: usize, items: Vec<FetchItem>) {
        for item in items {
            let after = match item.size {
                0..=1000 => self.delay(0, 40),
                _ => self.delay(0, 900),
            };
            self.plan_on(device, after, Local::Fetched(Box::new(item)));
        }
    }

    fn fetch_ends(&mut self, device: usize, item: &FetchItem) {
        let result = match self.fetch_fault(device, item) {
            Some(error) => Err(error),
            None => match self.find(device, item) {
                Some(bytes) => Ok(self.devices[device].disk.stage(bytes)),
                None => Err(FetchError::Gone),
            },
        };
        self.step(device, Event::Fetched(vec![(item.id, result)]));
    }

    fn fetch_fault(&mut self, device: usize, item: &FetchItem) -> Option<FetchError> {
        let disk = &self.devices[device].disk;
        if disk.full {
            return Some(FetchError::Full);
        }
        if disk.gone {
            return Some(FetchError::Io("the folder is gone".to_owned()));
        }
        if !self.faults.has(Kind::Fetch) || !self.rng.percent(10) {
            return None;
        }
        self.stats.fault("fetch fails");
        Some(match self.rng.below(4) {
            0 => FetchError::Gone,
            1 => FetchError::Io("read error".to_owned()),
            2 => FetchError::Cancelled,
            _ => match item.peers.first() {
                Some(peer) => FetchError::Corrupt(*peer),
                None => FetchError::Gone,
            },
        })
    }

    /// The bytes wanted, from a copy here or a peer that has them now.
    fn find(&mut self, device: usize, item: &FetchItem) -> Option<Bytes> {
        if item.size == 0 {
            return Some(Bytes::EMPTY);
        }
        let disk = &self.devices[device].disk;
        let wanted = |b: &Bytes| b.id() == item.content && b.size == item.size;
        let mut copies = item
            .copies
            .iter()
            .filter(|p| disk.is_readable(p))
            .filter_map(|p| disk.get(p)?.bytes());
        if let Some(copy) = copies.find(wanted) {
            return Some(copy);
        }
        let found = item
            .peers
            .iter()
            .filter_map(|p| self.number(*p))
            .filter(|p| self.can_fetch(device, *p))
            .map(|p| &self.devices[p].disk)
            .filter(|disk| !disk.gone)
            .flat_map(|disk| disk.tree().iter().filter(|(p, _)| disk.is_readable(p)))
            .filter_map(|(_, o)| o.bytes())
            .find(wanted);
        self.stats.fetched += u64::from(found.is_some());
        found
    }

    /// Operations are done one after another, batch after batch.
    pub(crate) fn apply_later(&mut self, device: usize, batch: Vec<(OpId, Op)>) {
        let d = &mut self.devices[device];
        d.batches += 1;
        let batch = match self.rng.percent(50) {
            true => shuffled(batch, &mut self.rng),
            false => batch,
        };
        let d = &mut self.devices[device];
        let idle = d.ops.is_empty();
        let number = d.batches;
        d.ops
            .extend(batch.into_iter().map(|(id, op)| (number, id, op)));
        if idle {
            let after = self.delay(0, 5);
            self.plan_on(device, after, Local::ApplyNext);
        }
    }

    fn apply_next(&mut self, device: usize) {
        let Some((batch, id, op)) = self.devices[device].ops.front().cloned() else {
            return;
        };
        self.edit_before(device, &op);
        self.lose_staged(device, &op);
        let wall = self.wall(device);
        let d = &mut self.devices[device];
        d.ops.pop_front();
        // What was heard is durable before the folder shows it.
        d.index.sync();
        d.disk.before(&op, wall);
        let before = d.disk.get(op.path()).and_then(Object::bytes);
        let result = apply(&mut d.disk, &op, wall);
        if result.is_ok() {
            d.disk.after(&op, wall);
        }
        d.names_wait &= waits(&op, wall);
        if result.is_ok() && !d.disk.tree().is_empty() {
            // An emptied folder into which an operation that was under way still puts something is
            // empty no more: nothing tells it from one in which most was deleted.
            d.missed.clear();
        }
        self.note(&format!("{device} did {op:?}: {result:?}"));
        self.count(&op, &result);
        if let (Op::Drop { path, .. }, Ok(_)) = (&op, &result) {
            self.devices[device].announced.remove(path);
            // A user overwrote the last one meanwhile: of what a device drops it keeps no history.
            if let Some(bytes) = before
                && self.written.superseded.contains(&bytes)
                && !self.devices.iter().any(|d| d.disk.holds(bytes))
            {
                self.written.destroyed.insert(bytes);
            }
        }
        if self.rng.percent(30) {
            // The watcher sees our own changes too.
            let after = self.delay(0, 20);
            self.hint(device, vec![op.path().clone()], after);
        }
        let crash = self.crashes_anywhere(device) && self.rng.below(1000) < 5;
        if crash || self.is_crash_due(device) {
            return self.crash_anywhere(device, "crash after an operation");
        }
        let d = &mut self.devices[device];
        d.results.push((id, result));
        let next = d.ops.front().map(|(b, ..)| *b);
        if next != Some(batch) {
            let names_wait = std::mem::replace(&mut d.names_wait, true);
            if !names_wait && !mutant("committed before synced") {
                d.disk.sync_names();
            }
            if self.rng.percent(20) {
                self.devices[device].disk.sync();
            }
            let d = &mut self.devices[device];
            let results = std::mem::take(&mut d.results);
            // Results come in the order of the batches.
            let at = (self.now_us + self.delay(0, 20)).max(self.devices[device].applied_at + 1);
            self.devices[device].applied_at = at;
            self.plan_on(device, at - self.now_us, Local::Applied(results));
        }
        if next.is_some() {
            let after = self.delay(0, 3);
            self.plan_on(device, after, Local::ApplyNext);
        }
    }

    /// Somebody cleans the stage.
    fn lose_staged(&mut self, device: usize, op: &Op) {
        if let Op::Place {
            staged: Some(name), ..
        } = op
            && self.faults.has(Kind::Fetch)
            && self.rng.percent(1)
        {
            self.stats.fault("staged file lost");
            self.devices[device].disk.stage.remove(name);
        }
    }

    fn count(&mut self, op: &Op, result: &Result<OpDone, OpError>) {
        let op = match op {
            Op::Place { loser: Some(_), .. } => "place with copy",
            Op::Place { .. } => "place",
            Op::SetMeta { .. } => "set meta",
            Op::Remove { .. } => "remove",
            Op::Drop { .. } => "drop",
            Op::Move { .. } => "move",
        };
        let result = match result {
            Ok(_) => "ok",
            Err(OpError::Unexpected) => "unexpected",
            Err(OpError::NotEmpty) => "not empty",
            Err(OpError::NoParent) => "no parent",
            Err(OpError::NotStaged) => "not staged",
            Err(OpError::Full) => "full",
            Err(OpError::Io(_)) => "io",
        };
        let key = format!("{op}: {result}");
        *self.stats.ops.entry(key).or_default() += 1;
    }

    pub(crate) fn report(&mut self, device: usize, report: &Report) {
        let kind = match report {
            Report::Received { .. } => "received",
            Report::Deleted { .. } => "deleted",
            Report::Conflict { .. } => "conflict",
            Report::Problem { .. } => "problem",
            Report::Solved { .. } => "solved",
            Report::Alarm { .. } => "alarm",
            Report::AlarmOver => "alarm over",
            Report::Full(_) => "full",
        };
        *self.stats.reports.entry(kind).or_default() += 1;
        if matches!(report, Report::Alarm { .. }) {
            self.devices[device].deciding = true;
            let after = self.delay(500, 3000);
            let then = match self.is_usable(device) {
                true => Local::Resume,
                false => Local::PutBack,
            };
            self.plan_on(device, after, then);
        }
    }
}
