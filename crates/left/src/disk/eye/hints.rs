//! Which paths are to be looked at, and when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use left_core::entry::FileStat;
use left_core::path::RelPath;

use crate::disk::sys;
use crate::disk::watch::When;

/// Hints are gathered so long, so that a burst is one batch and both ends of a rename are in it.
const COALESCE: Duration = Duration::from_millis(3);
/// A file that is being written is read when it was left alone for so long.
const QUIET: Duration = Duration::from_millis(200);
/// More hints than this are not worth keeping apart: the whole tree is looked at instead.
const MAX_HINTS: usize = 100_000;

/// Whether a file changed so lately, by this machine's clock, that who made it may still be writing.
pub(super) fn is_just_changed(stat: &FileStat) -> bool {
    let age = sys::nanos_between(stat.ctime, sys::now());
    (0..QUIET.as_nanos() as i128).contains(&age)
}

/// How to look at one path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hint {
    /// And at all below it.
    pub(super) deep: bool,
    /// It was made and not closed yet, as far as is known.
    pub(super) created: bool,
    /// Its bytes may have changed.
    pub(super) written: bool,
    /// That it was made, once, is all that was said of it.
    pub(super) lone: bool,
}

/// What is kept of a hint that is put off.
#[derive(Clone, Copy)]
struct PutOff {
    deep: bool,
    lone: bool,
}

#[derive(Default)]
pub(super) struct Hints {
    now: BTreeMap<RelPath, Hint>,
    due: Option<Instant>,
    quiet: BTreeMap<RelPath, Instant>,
    /// Not later than the first quiet file's time.
    quiet_due: Option<Instant>,
    /// Put off until a hold ends.
    held: BTreeMap<RelPath, PutOff>,
}

impl Hints {
    pub(super) fn add(&mut self, path: RelPath, when: When, deep: bool) {
        let now = Instant::now();
        match when {
            When::Quiet => {
                let due = now + QUIET;
                self.quiet.insert(path, due);
                self.quiet_due = Some(self.quiet_due.map_or(due, |d| d.min(due)));
                return;
            }
            When::Attributes if self.quiet.contains_key(&path) => return,
            When::Created if self.now.contains_key(&path) => return,
            When::Created => {
                let created = Hint {
                    created: true,
                    lone: true,
                    ..Hint::default()
                };
                self.now.insert(path, created);
            }
            When::Attributes => {
                // Says nothing about a file that is still open: its hint stays as it is.
                self.now.entry(path).or_default().lone = false;
            }
            When::Now => {
                self.quiet.remove(&path);
                let hint = self.now.entry(path).or_default();
                hint.lone = false;
                hint.deep |= deep;
                hint.created = false;
                hint.written = true;
            }
        }
        self.due.get_or_insert(now + COALESCE);
    }

    /// Puts a path off until its hold ends.
    pub(super) fn put_off(&mut self, path: RelPath, hint: Hint) {
        let Hint { deep, lone, .. } = hint;
        self.held
            .entry(path)
            .and_modify(|put_off| {
                put_off.deep |= deep;
                put_off.lone = false;
            })
            .or_insert(PutOff { deep, lone });
    }

    /// The same of a path that a walk has found. Where that it was made is a hint, or was put off, the walk adds
    /// nothing to that.
    pub(super) fn put_off_found(&mut self, path: RelPath) {
        if !self.now.get(&path).is_some_and(|hint| hint.lone) {
            let (deep, lone) = (false, false);
            self.held.entry(path).or_insert(PutOff { deep, lone });
        }
    }

    /// Who holds a path has made a file there and recorded it: that it was made needs no look then. The name
    /// was free, so a single "made" is that one; whatever was done there since is said by itself.
    pub(super) fn made(&mut self, path: &RelPath) {
        let (held, now) = (
            self.held.get(path).map(|put_off| put_off.lone),
            self.now.get(path).map(|hint| hint.lone),
        );
        match (held, now) {
            (Some(true), None) => drop(self.held.remove(path)),
            (None, Some(true)) => drop(self.now.remove(path)),
            _ => {}
        }
    }

    /// Takes up again what is not held any more.
    pub(super) fn release(&mut self, is_held: impl Fn(&RelPath) -> bool) {
        let (still, free) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(p, _)| is_held(p));
        self.held = still;
        for (path, put_off) in BTreeMap::into_iter(free) {
            self.add(path, When::Now, put_off.deep);
        }
    }

    pub(super) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether a file is waiting to be left alone.
    pub(super) fn is_quiet_waiting(&self, path: &RelPath) -> bool {
        self.quiet.contains_key(path)
    }

    /// The same, or it was heard of as made a moment ago, so that it is going to.
    pub(super) fn is_waiting_for_its_bytes(&self, path: &RelPath) -> bool {
        self.is_quiet_waiting(path) || self.now.get(path).is_some_and(|hint| hint.created)
    }

    pub(super) fn are_too_many(&self) -> bool {
        self.now.len() + self.quiet.len() > MAX_HINTS
    }

    /// Forgets all but what is put off: the whole tree is going to be looked at.
    pub(super) fn clear_looks(&mut self) {
        let held = std::mem::take(&mut self.held);
        *self = Hints {
            held,
            ..Hints::default()
        };
    }

    pub(super) fn clear(&mut self) {
        *self = Hints::default();
    }

    /// When the next hint is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        match (self.due, self.quiet_due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The hints that are due.
    pub(super) fn take_due(&mut self, now: Instant) -> BTreeMap<RelPath, Hint> {
        if self.quiet_due.is_some_and(|d| d <= now) {
            let ready: Vec<RelPath> = self
                .quiet
                .iter()
                .filter(|(_, due)| **due <= now)
                .map(|(path, _)| path.clone())
                .collect();
            for path in ready {
                self.quiet.remove(&path);
                let hint = self.now.entry(path).or_default();
                *hint = Hint {
                    deep: hint.deep,
                    written: true,
                    ..Hint::default()
                };
                self.due = Some(now);
            }
            self.quiet_due = self.quiet.values().min().copied();
        }
        if self.due.is_none_or(|d| d > now) {
            return BTreeMap::new();
        }
        self.due = None;
        std::mem::take(&mut self.now)
    }

    /// All hints, also of files that are being written.
    pub(super) fn take_all(&mut self) -> BTreeMap<RelPath, Hint> {
        self.due = None;
        self.quiet_due = None;
        let mut all = std::mem::take(&mut self.now);
        for path in std::mem::take(&mut self.quiet).into_keys() {
            let hint = all.entry(path).or_default();
            (hint.written, hint.lone) = (true, false);
        }
        for hint in all.values_mut() {
            hint.created = false;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// The system says something.
        Say(When),
        /// The hints are taken while the path is held.
        PutOff,
        /// A walk comes to the path while it is held.
        Walk,
        /// What was being written has been left alone for a while, and is taken while it is held.
        Rest,
    }
    use Step::{PutOff, Rest, Say, Walk};

    fn path() -> RelPath {
        RelPath::new("file").expect("a path")
    }

    fn put_off_due(hints: &mut Hints, after: Duration) {
        for (path, hint) in hints.take_due(Instant::now() + after) {
            hints.put_off(path, hint);
        }
    }

    /// Whether a path is looked at after these steps and the word of its holder that it made it.
    fn is_looked_at(steps: &[Step]) -> bool {
        let mut hints = Hints::default();
        for step in steps {
            match step {
                Say(when) => hints.add(path(), *when, false),
                PutOff => put_off_due(&mut hints, 2 * COALESCE),
                Walk => hints.put_off_found(path()),
                Rest => put_off_due(&mut hints, 2 * QUIET),
            }
        }
        hints.made(&path());
        hints.release(|_| false);
        hints.take_all().contains_key(&path())
    }

    #[test]
    fn that_it_was_made_is_no_hint_for_who_made_it() {
        let made = Say(When::Created);
        for steps in [
            &[][..],
            &[made],
            &[made, PutOff],
            &[made, Walk],
            &[made, PutOff, Walk],
            &[made, Walk, PutOff],
        ] {
            assert!(!is_looked_at(steps), "{steps:?}");
        }
    }

    #[test]
    fn whatever_else_was_said_or_may_have_been_is_one() {
        let made = Say(When::Created);
        let mut all: Vec<Vec<Step>> = vec![
            // It was there before anything could be heard.
            vec![Walk],
            vec![Walk, made],
            vec![Walk, made, PutOff],
            vec![made, PutOff, made],
            vec![made, PutOff, made, PutOff],
        ];
        for more in [When::Now, When::Attributes, When::Quiet].map(Say) {
            all.push(vec![more]);
            all.push(vec![more, PutOff]);
            all.push(vec![more, made, Rest]);
            all.push(vec![made, more]);
            all.push(vec![made, more, PutOff]);
            all.push(vec![made, more, Rest]);
            all.push(vec![made, PutOff, more]);
            all.push(vec![made, PutOff, more, PutOff]);
            all.push(vec![made, PutOff, more, Rest]);
            all.push(vec![made, PutOff, Walk, more]);
        }
        for steps in all {
            assert!(is_looked_at(&steps), "{steps:?}");
        }
    }

    #[test]
    fn a_folder_put_off_is_walked_afterwards() {
        let mut hints = Hints::default();
        hints.add(path(), When::Now, true);
        put_off_due(&mut hints, 2 * COALESCE);
        hints.release(|_| true);
        assert!(hints.has_held() && hints.take_all().is_empty());
        hints.release(|_| false);
        assert!(hints.take_all()[&path()].deep);
    }
}
