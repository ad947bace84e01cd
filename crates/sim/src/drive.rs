//! Wakes engines, does what they ask for, and checks what they decide.

use left_core::engine::{Effect, Event};
use left_core::entry::{Entry, Node};
use left_core::index::{Index, IndexError};
use left_core::message::{Control, Role};
use left_core::path::RelPath;
use left_core::plan::Op;

use crate::faults::Kind;
use crate::rng::Rng;
use crate::world::{Happening, Local, World};

impl World {
    /// Wakes a device's engine and does what it asks for.
    pub fn step(&mut self, device: usize, event: Event) {
        let now = self.now(device);
        let text = format!("{device} <- {event:?}");
        self.note(&text);
        self.stats.events += 1;
        let before = self.conflicts_of(device, &event);
        let is_tick = matches!(event, Event::Tick);
        let d = &mut self.devices[device];
        let Some(engine) = d.engine.as_mut() else {
            return;
        };
        let done = engine.step(now, event, &mut d.index);
        if let Some(violation) = d.index.violations.pop() {
            self.fail(format!("device {device} after {text}: {violation}"));
        }
        match done {
            Ok(effects) => {
                self.check_winners(device, before);
                self.effects(device, effects);
                self.watch_healing(device, is_tick);
            }
            Err(error) => {
                // What the daemon does: start again, with a new index if it is damaged.
                self.note(&format!("{device} failed: {error}"));
                self.crash(device, true);
                if matches!(error, IndexError::Corrupt(_)) {
                    self.new_index(device);
                }
                let after = self.delay(1, 1000);
                self.plan(after, Happening::Start(device));
            }
        }
    }

    /// Does what the engine asks for, unless the device crashes meanwhile.
    fn effects(&mut self, device: usize, effects: Vec<Effect>) {
        if effects.is_empty() {
            return self.plan_tick(device);
        }
        let crash = self.crashes_anywhere(device) && self.rng.below(2000) < 3;
        let mut left = crash.then(|| self.rng.index(effects.len() + 1));
        let life = self.devices[device].life;
        for effect in effects {
            if left == Some(0) || self.is_crash_due(device) {
                return self.crash_anywhere(device, "crash between effects");
            }
            left = left.map(|n| n - 1);
            self.note(&format!("{device} -> {effect:?}"));
            self.effect(device, effect);
            if self.devices[device].life != life {
                // It crashed while it answered itself.
                return;
            }
        }
        if left.is_some() || self.is_crash_due(device) {
            return self.crash_anywhere(device, "crash between effects");
        }
        self.plan_tick(device);
    }

    /// Counts a moment at which a device may crash; whether it is the one chosen.
    pub(crate) fn is_crash_due(&mut self, device: usize) -> bool {
        let left = &mut self.devices[device].moments_left;
        *left = left.and_then(|n| n.checked_sub(1));
        *left == Some(0)
    }

    /// The device crashes, or loses power, in the middle of something, and starts again.
    pub(crate) fn crash_anywhere(&mut self, device: usize, what: &'static str) {
        self.stats.fault(what);
        self.devices[device].moments_left = None;
        if self.devices[device].power_fails {
            let mut rng = Rng::new(self.rng.next_u64());
            self.power_cut(device, &mut rng);
        } else {
            self.crash(device, true);
        }
        let after = self.delay(1, 1000);
        self.plan(after, Happening::Start(device));
    }

    /// Whether a device may crash at any moment. (What a reader has on disk and not in its index is
    /// its own edit, and stays.)
    pub fn crashes_anywhere(&self, device: usize) -> bool {
        self.faults.has(Kind::Effect) && self.devices[device].role == Role::ReadWrite
    }

    /// The paths of conflicts that end with this event, with our entries before it.
    fn conflicts_of(&self, device: usize, event: &Event) -> Vec<(RelPath, Entry)> {
        let d = &self.devices[device];
        let (Event::Applied(results), Some(engine)) = (event, &d.engine) else {
            return Vec::new();
        };
        let lost = results
            .iter()
            .filter(|(_, r)| r.as_ref().is_ok_and(|done| done.loser.is_some()));
        lost.filter_map(|(id, _)| {
            let path = engine.path_of(*id)?;
            Some((path.clone(), d.index.entry(path)?.clone()))
        })
        .collect()
    }

    /// In each conflict the right one stays: a folder, else the later edit (docs/protocol.md,
    /// section 10; said here once more, apart from the rules' own code).
    fn check_winners(&mut self, device: usize, lost: Vec<(RelPath, Entry)>) {
        if self.devices[device].role == Role::ReadOnly {
            return;
        }
        for (path, loser) in lost {
            let Some(winner) = self.devices[device].index.entry(&path) else {
                continue;
            };
            let folder = |e: &Entry| matches!(e.node, Node::Dir { .. });
            let right = match (folder(winner), folder(&loser)) {
                (true, _) => true,
                (false, true) => false,
                (false, false) => winner.stamp >= loser.stamp,
            };
            if !right {
                self.fail(format!(
                    "{device}: in the conflict at {path}, {winner:?} stays and {loser:?} goes"
                ));
            }
        }
    }

    /// While the folder is gone, nothing that was known to be in it is told to be deleted.
    fn check_meant(&mut self, device: usize, entries: &[(RelPath, Entry)]) {
        let d = &self.devices[device];
        if !d.disk.gone {
            return;
        }
        let told = entries.iter().find(|(path, entry)| {
            let deleted = !entry.node.is_live() && entry.stamp.device == d.id;
            deleted && d.missed.contains(path)
        });
        if let Some((path, entry)) = told {
            let text = format!(
                "{device} tells that {path} is deleted, while the folder is gone: {entry:?}"
            );
            self.fail(text);
        }
    }

    fn plan_tick(&mut self, device: usize) {
        let now = self.now(device);
        let d = &self.devices[device];
        let Some(at) = d.engine.as_ref().and_then(|e| e.next_tick(now)) else {
            self.devices[device].tick_at = None;
            return;
        };
        let at = at.max(now.mono_ms + 1);
        if d.tick_at != Some(at) {
            self.devices[device].tick_at = Some(at);
            let after = at * 1000 - self.now_us;
            self.plan_on(device, after, Local::Tick(at));
        }
    }

    fn effect(&mut self, device: usize, effect: Effect) {
        self.stats.work += match &effect {
            Effect::Send {
                message: Control::Index(batch),
                ..
            } => batch.entries.len(),
            Effect::Fetch(items) => items.len(),
            Effect::Apply(batch) => batch.len(),
            _ => 0,
        } as u64;
        match effect {
            Effect::Send { peer, message } => {
                if let Control::Index(batch) = &message {
                    self.check_meant(device, &batch.entries);
                    let told = batch.entries.iter().map(|(p, e)| (p, &e.version));
                    let told = told.map(|(p, v)| (p.clone(), v.clone()));
                    self.devices[device].announced.extend(told);
                }
                self.send(device, peer, message);
            }
            Effect::Disconnect { peer, reason } => {
                self.fail(format!(
                    "{device} refused {peer:?}, an honest peer: {reason}"
                ));
            }
            Effect::Reopen { peer } => self.reopen(device, peer),
            Effect::Fetch(items) => self.fetch(device, items),
            Effect::Apply(batch) => {
                if batch.iter().any(|(_, op)| matches!(op, Op::Drop { .. })) {
                    // As the daemon does: an older copy of the index would miss what is dropped.
                    let d = &mut self.devices[device];
                    d.dropped = d.index.head();
                }
                self.apply_later(device, batch);
            }
            Effect::Rescan(paths) => {
                let after = self.delay(0, 20);
                self.hint(device, paths, after);
            }
            Effect::RescanAll => {
                let after = self.delay(0, 20);
                self.full_scan(device, after);
            }
            Effect::Barrier(token) => {
                self.devices[device].barriers.push(token);
                self.answer_barriers(device);
            }
            Effect::Sync(token) => {
                let after = self.delay(0, 50);
                self.plan_on(device, after, Local::Synced(token));
            }
            Effect::Dropped(_, report) => {
                if report.files + report.dirs > 0 {
                    self.stats.fault("something went");
                }
                if report.kept > 0 {
                    self.stats.fault("something was kept");
                }
            }
            Effect::Waited(id) => {
                self.devices[device].waited.insert(id);
            }
            Effect::Report(report) => self.report(device, &report),
        }
    }
}
