//! Users edit while the program works: at the worst moments too.

use left_core::content::ContentId;
use left_core::diff::{Observation, Seen};
use left_core::entry;
use left_core::message::Role;
use left_core::path::RelPath;
use left_core::plan::Op;

use crate::disk::{Bytes, Thing, Tree};
use crate::edits::User;
use crate::faults::Kind;
use crate::rng::Rng;
use crate::world::World;

impl World {
    /// A user overwrites a file after it was read and before that is recorded.
    pub(crate) fn tear(&mut self, device: usize, seen: &[Observation]) {
        let on = self.faults.has(Kind::Torn) && self.may_edit(device);
        let files = |o: &&Observation| matches!(o.seen, Seen::File { .. });
        let Some(file) = seen.iter().find(files).filter(|_| on) else {
            return;
        };
        if !self.rng.percent(5) {
            return;
        }
        self.stats.fault("file changes while it is read");
        let mut rng = Rng::new(self.rng.next_u64());
        self.with_user(device, &mut rng, |user| {
            if user
                .disk
                .get(&file.path)
                .is_some_and(|o| o.bytes().is_some())
            {
                let bytes = user.written.fresh(user.rng, false);
                user.write(&file.path, bytes);
            }
        });
        self.note(&format!("{device} tears {}", file.path));
    }

    /// Whether a user may edit there now: what a reader edits reaches nobody.
    pub fn may_edit(&self, device: usize) -> bool {
        self.devices[device].role == Role::ReadWrite && self.is_usable(device)
    }

    /// The race of promise 4: a user edits the path right before the operation.
    pub(crate) fn edit_before(&mut self, device: usize, op: &Op) {
        if !self.faults.has(Kind::Race) || !self.may_edit(device) || !self.rng.percent(4) {
            return;
        }
        self.stats.fault("edit before operation");
        let mut rng = self.rng.clone();
        let target = match op {
            Op::Move { from, .. } if rng.percent(50) => from.clone(),
            _ => op.path().clone(),
        };
        self.rng.next_u64();
        if let Some(parent) = target.parent()
            && rng.percent(10)
        {
            let said = self.with_user(device, &mut rng, |user| {
                user.remove(&parent);
                user.make(&parent, Thing::Symlink(b"../outside".to_vec()));
                format!("race: {parent} becomes a link")
            });
            return self.note(&format!("{device} {said}"));
        }
        let said = self.with_user(device, &mut rng, |user| match user.disk.get(&target) {
            None => {
                let bytes = user.written.fresh(user.rng, false);
                // A user who makes up the name of a conflict copy before it comes is too odd.
                let copy = target.to_string().contains(".conflict-");
                if user.disk.has_parent(&target) && !copy {
                    user.write(&target, bytes);
                }
                format!("race: create {target}")
            }
            Some(object) => match (object.bytes(), user.rng.percent(60)) {
                (Some(_), true) => {
                    let bytes = user.written.fresh(user.rng, false);
                    user.write(&target, bytes);
                    format!("race: overwrite {target} {}", bytes.name)
                }
                (None, true) => {
                    let inside = target.join(b"late").expect("a short name");
                    let bytes = user.written.fresh(user.rng, false);
                    if user.disk.has_parent(&inside) {
                        user.write(&inside, bytes);
                    }
                    format!("race: create {inside}")
                }
                _ => {
                    user.remove(&target);
                    format!("race: delete {target}")
                }
            },
        });
        self.note(&format!("{device} {said}"));
    }

    /// A user makes something where others have what this device wrote last and dropped since: that is
    /// a newer version of it, for a device knows its own edits, also when its index was lost.
    fn overwrites_own(&mut self, device: usize, hints: &[RelPath]) {
        let d = &self.devices[device];
        let held = |p: &RelPath| d.index.entry(p).is_some_and(|e| e.node.is_live());
        let away = |p: &RelPath| d.disk.get(p).is_some() && !held(p);
        let others = |p: &RelPath| {
            let theirs = self
                .devices
                .iter()
                .filter_map(|o| o.index.entry(p).cloned());
            let told = d.index.unsettled();
            let told = told.get(p).into_iter().flat_map(|t| t.values()).cloned();
            theirs.chain(told).collect::<Vec<_>>()
        };
        let all = hints.iter().filter(|p| away(p)).flat_map(others);
        // Others may have joined it with what holds no bytes, as a deletion.
        let own = all.filter(|e| e.stamp.device == d.id);
        let own: Vec<ContentId> = own.filter_map(|e| e.node.content()).collect();
        for content in own {
            let all = self.written.all.keys();
            let same: Vec<_> = all.filter(|b| b.id() == content).copied().collect();
            self.written.superseded.extend(same);
        }
    }

    /// What a power cut took back, and the pack or others will bring: where, and what.
    pub(crate) fn taken_back(&self, device: usize) -> Vec<(RelPath, ContentId)> {
        let d = &self.devices[device];
        if d.engine.is_some() || d.disk.cut.is_none() {
            return Vec::new();
        }
        let content = d
            .index
            .live()
            .filter_map(|(p, r)| Some((p.clone(), r.entry.node.content()?)));
        let there = |p: &RelPath| d.disk.get(p).and_then(|o| o.bytes()).map(Bytes::id);
        content.filter(|(p, c)| there(p) != Some(*c)).collect()
    }

    /// A user changed, or made anew, what a power cut had set back, before it was repaired: nothing
    /// tells that from an edit of what stood there before the cut.
    fn overwrites_taken_back(
        &mut self,
        device: usize,
        before: &Tree,
        taken: &[(RelPath, ContentId)],
    ) {
        let disk = &self.devices[device].disk;
        let made = |p: &RelPath| disk.get(p).is_some() && disk.get(p) != before.get(p);
        let barred = |p: &RelPath| {
            let mut above = std::iter::successors(p.parent(), RelPath::parent);
            above.any(|dir| disk.get(&dir).is_some_and(|o| o.kind() != entry::Kind::Dir))
        };
        for (path, content) in taken {
            if made(path) || barred(path) {
                let all = self.written.all.keys();
                let same: Vec<_> = all.filter(|b| b.id() == *content).copied().collect();
                self.written.superseded.extend(same);
            }
        }
    }

    /// Lets a user edit; then the watcher hints at it.
    pub fn with_user<T>(
        &mut self,
        device: usize,
        rng: &mut Rng,
        edit: impl FnOnce(&mut User<'_>) -> T,
    ) -> T {
        let wall_ms = self.wall(device);
        let taken = self.taken_back(device);
        let d = &mut self.devices[device];
        let before = if taken.is_empty() {
            Tree::new()
        } else {
            d.disk.tree().clone()
        };
        d.disk.log();
        let mut user = User {
            device,
            disk: &mut d.disk,
            written: &mut self.written,
            rng,
            wall_ms,
            hints: Vec::new(),
            lost: Vec::new(),
        };
        let out = edit(&mut user);
        let (hints, lost) = (user.hints, user.lost);
        self.overwrites_own(device, &hints);
        self.overwrites_taken_back(device, &before, &taken);
        for bytes in lost {
            if !self.devices.iter().any(|d| d.disk.holds(bytes)) {
                self.written.destroyed.insert(bytes);
            }
        }
        let after = self.delay(0, 30);
        self.hint(device, hints, after);
        out
    }
}
