//! Devices start, crash, lose power and lose their index.

use left_core::content::ContentId;
use left_core::engine::{Config, Engine, Event};
use left_core::index::Index;
use left_core::path::RelPath;
use left_core::probe::mutant;
use left_core::version::Relation;

use crate::disk::Bytes;
use crate::index::FakeIndex;
use crate::pack::record;
use crate::rng::Rng;
use crate::scan::vanished;
use crate::world::World;

impl World {
    /// Starts a device: its engine knows only the index; the whole tree is looked at.
    pub fn start(&mut self, device: usize) {
        let wall_ms = self.wall(device);
        let d = &mut self.devices[device];
        if d.engine.is_some() {
            return;
        }
        // Without its folder the daemon waits.
        d.disk.gone = false;
        let config = Config {
            device: d.id,
            role: d.role,
            send_only: d.send_only,
        };
        if !mutant("the pack is ignored") {
            let mut taken = self.taken_back(device);
            let d = &self.devices[device];
            taken.retain(|(path, _)| {
                let record = d.index.get(path).ok().flatten();
                record.is_some_and(|r| d.disk.pack.brings_back(&r))
            });
            let d = &mut self.devices[device];
            let (placed, kept) = d.disk.repair(&d.index, wall_ms);
            record(&mut d.index, placed);
            // One that was edited under a clock set back looks older than what was placed.
            self.written.superseded.extend(kept);
            self.check_brought_back(device, &taken);
        }
        let d = &mut self.devices[device];
        let vanished = vanished(&d.disk, &d.index);
        if let Some(cut) = &mut d.disk.cut {
            cut.vanished.extend(vanished);
        }
        // As the store does when it is opened.
        d.index.reopen(self.rng.next_u64() | 1);
        let engine = Engine::new(config, &d.index);
        d.engine = Some(engine.with_selection(d.selection.clone()));
        self.note(&format!("start {device}"));
        self.check_announced(device);
        if self.devices[device].paused {
            self.step(device, Event::Pause(true));
        }
        if self.devices[device].disk.tree().is_empty() {
            self.step(device, Event::Emptied);
        }
        let after = self.delay(0, 50);
        self.full_scan(device, after);
        self.reconnect(device);
    }

    /// The device dies at once; what it had in memory is gone.
    pub fn crash(&mut self, device: usize, keep_stage: bool) {
        let d = &mut self.devices[device];
        if d.engine.take().is_none() {
            return;
        }
        d.life += 1;
        if !keep_stage {
            d.disk.stage.clear();
        }
        d.dirty.clear();
        d.scan_planned = false;
        d.scans = 0;
        d.barriers.clear();
        d.ops.clear();
        d.results.clear();
        d.names_wait = true;
        d.tick_at = None;
        d.deciding = false;
        self.note(&format!("crash {device}"));
        self.links_of_dead(device);
    }

    /// The power fails: what was not durable is gone.
    pub fn power_cut(&mut self, device: usize, rng: &mut Rng) {
        self.crash(device, false);
        let d = &mut self.devices[device];
        let before = d.disk.tree().clone();
        let history: Vec<_> = d
            .disk
            .history
            .iter()
            .filter_map(|(_, o)| o.bytes())
            .collect();
        d.disk.power_cut(rng);
        d.index.power_cut(rng);
        let kept = |p: &RelPath| d.disk.get(p).and_then(|o| o.bytes());
        let lost: Vec<Bytes> = before
            .iter()
            .filter_map(|(p, o)| o.bytes().filter(|b| kept(p) != Some(*b)))
            .chain(history.into_iter().filter(|b| !d.disk.holds(*b)))
            .collect();
        for bytes in lost {
            // What the user of this device wrote last may be gone; what came from others may not.
            let wrote = self.written.all.get(&bytes).is_some_and(|w| w.0 == device);
            let own = wrote || self.written.copied.contains(&bytes);
            if !own {
                // Placed and not recorded: taken as not done. Whoever announced it has it, unless a
                // user replaced it there in the moment before.
                let index = &self.devices[device].index;
                let mut recorded = index.live().map(|(_, r)| r.entry.node.content());
                let placed = before.values().any(|o| o.bytes() == Some(bytes));
                if placed
                    && !recorded.any(|c| c == Some(bytes.id()))
                    && self.written.superseded.contains(&bytes)
                    && !self.devices.iter().any(|d| d.disk.holds(bytes))
                {
                    self.written.destroyed.insert(bytes);
                }
                continue;
            }
            self.written.superseded.insert(bytes);
            if !self.devices.iter().any(|d| d.disk.holds(bytes)) {
                self.written.destroyed.insert(bytes);
            }
        }
    }

    /// Whatever a power cut took back and the pack has is somewhere after the repair, if only in the
    /// history.
    fn check_brought_back(&mut self, device: usize, taken: &[(RelPath, ContentId)]) {
        let d = &self.devices[device];
        let since = d.disk.cut.as_ref().map(|c| c.since);
        let unsure = |path: &RelPath| {
            let record = d.index.get(path).ok().flatten();
            let stat = record.and_then(|r| r.stat);
            stat.is_some_and(|s| since.is_some_and(|since| s.ctime >= since))
        };
        let gone = taken.iter().find(|(path, content)| {
            let all = self.written.all.keys().filter(|b| b.id() == *content);
            let mut all = all.peekable();
            unsure(path) && all.peek().is_some() && !all.any(|b| d.disk.holds(*b))
        });
        if let Some((path, _)) = gone {
            self.fail(format!(
                "{device}: {path} was in the pack, and the repair left it nowhere"
            ));
        }
    }

    /// Whatever others were told is still in the index.
    fn check_announced(&mut self, device: usize) {
        let d = &self.devices[device];
        let mut kept = d.announced.iter().filter(|(p, _)| !d.index.is_dropped(p));
        let forgotten = kept.find(|(path, told)| {
            let known = d.index.entry(path).map(|e| e.version.relation(told));
            !matches!(known, Some(Relation::Equal | Relation::After))
        });
        if let Some((path, told)) = forgotten {
            let known = d.index.entry(path);
            self.fail(format!(
                "{device} announced {path} as {told:?}, and its index has {known:?}"
            ));
        }
    }

    /// Notes when what a power cut took back is there again.
    pub(crate) fn watch_healing(&mut self, device: usize, is_tick: bool) {
        /// So often it is tried before the user gives up, when nothing else is wrong.
        const PATIENCE: u32 = 30;
        let calm = self.faults.is_none();
        let d = &mut self.devices[device];
        if let Some(cut) = &mut d.disk.cut {
            // A deletion of it would be one.
            let (tree, vanished) = (d.disk.tree.keys(), &mut cut.vanished);
            for path in tree {
                vanished.remove(path);
            }
        }
        let healed = |e: &Engine| e.has_scanned() && !e.is_healing();
        if d.engine.as_ref().is_some_and(healed) {
            d.disk.cut = None;
        } else if is_tick && calm && d.disk.cut.is_some() {
            d.heal_waits += 1;
            if d.heal_waits > PATIENCE {
                d.heal_waits = 0;
                self.accept_torn(device);
            }
        }
    }

    /// The user takes what stands there for meant, where nobody could heal it.
    fn accept_torn(&mut self, device: usize) {
        self.devices[device].disk.cut = None;
        self.note(&format!("{device}: what was torn is meant"));
        let meant = Event::Resume {
            accept_deletions: true,
        };
        self.step(device, meant);
    }

    /// Whether a user can edit there.
    pub fn is_usable(&self, device: usize) -> bool {
        let disk = &self.devices[device].disk;
        !disk.gone && disk.vanished.is_none()
    }

    /// The folder, or what stood in it, is back, and the user says that nothing was meant.
    pub fn put_back(&mut self, device: usize) {
        if self.is_usable(device) {
            return;
        }
        let d = &mut self.devices[device];
        let missed = std::mem::take(&mut d.missed);
        let dead = |p: &&RelPath| {
            let entry = d.index.entry(p);
            entry.is_some_and(|e| !e.node.is_live() && e.stamp.device == d.id)
        };
        if let Some(path) = missed.iter().find(dead) {
            let text = format!("{device}: {path} vanished with all else and was taken as deleted");
            self.fail(text);
        }
        if self.devices[device].disk.vanished.is_some() {
            self.isolate(device, false);
        }
        let d = &mut self.devices[device];
        d.disk.gone = false;
        let back = d.disk.put_back();
        self.note(&format!("{device}: {} are put back", back.len()));
        let after = self.delay(0, 20);
        self.hint(device, back, after);
        let meant = Event::Resume {
            accept_deletions: false,
        };
        self.step(device, meant);
    }

    /// The index is lost; a new one takes its place.
    pub fn new_index(&mut self, device: usize) {
        let epoch = self.rng.next_u64() | 1;
        let d = &mut self.devices[device];
        let read_only = d.index.read_only;
        d.index = FakeIndex::new(d.id, epoch);
        d.index.read_only = read_only;
        d.announced.clear();
        d.missed.clear();
        d.saved = None;
        d.dropped = 0;
    }

    /// An older copy of the index takes its place, if there is one.
    pub fn restore_index(&mut self, device: usize) {
        let d = &mut self.devices[device];
        if d.saved.as_ref().is_some_and(|s| s.head() < d.dropped) {
            return self.new_index(device);
        }
        if let Some(saved) = d.saved.clone() {
            d.index = *saved;
            d.announced.clear();
            d.missed.clear();
        }
    }
}
