//! What the threads that work on a big content share without the state's lock.

use std::fs::File;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, RwLock};
use std::time::Duration;

use left_core::content::ContentId;
use left_core::path::RelPath;

use super::base::Base;
use super::elsewhere::Elsewhere;
use super::shared::lock;
use crate::transfer::ports::ManifestWriter;

/// The parts of a big content that do not change while it is fetched; shared without the lock.
pub(super) struct BigFile {
    pub(super) serial: u64,
    /// What it is asked for as: its content id, or while that is not known the offer's id.
    id: Mutex<ContentId>,
    /// Whom it is for.
    pub(super) path: RelPath,
    pub(super) size: u64,
    /// Name in the stage.
    name: Mutex<String>,
    pub(super) base: Option<(RelPath, ContentId)>,
    /// Held while the stage and the base are opened.
    pub(super) opening: Mutex<()>,
    pub(super) prepared: OnceLock<Prepared>,
    /// Other files of the share that have parts of it.
    pub(super) elsewhere: Elsewhere,
    /// The new manifest's writer. Taken before the state's lock, never after.
    pub(super) writer: Mutex<Option<Box<dyn ManifestWriter>>>,
    /// `true`: write no more. Held for reading during each write, so that who closes it knows
    /// that nothing is written any more.
    pub(super) closed: RwLock<bool>,
    /// How long others wait for parts of it.
    pub(super) served: Served,
    /// Bytes verified and in place.
    pub(super) bytes_done: AtomicU64,
}

impl BigFile {
    pub(super) fn new(
        serial: u64,
        id: ContentId,
        path: RelPath,
        size: u64,
        name: String,
        base: Option<(RelPath, ContentId)>,
    ) -> Self {
        Self {
            serial,
            id: Mutex::new(id),
            path,
            size,
            name: Mutex::new(name),
            base,
            opening: Mutex::new(()),
            prepared: OnceLock::new(),
            elsewhere: Elsewhere::default(),
            writer: Mutex::new(None),
            closed: RwLock::new(false),
            served: Served::default(),
            bytes_done: AtomicU64::new(0),
        }
    }

    /// What it is asked for as.
    pub(super) fn id(&self) -> ContentId {
        *lock(&self.id)
    }

    /// Its content id is known from here on.
    pub(super) fn bind(&self, content: ContentId) {
        *lock(&self.id) = content;
    }

    pub(super) fn name(&self) -> String {
        lock(&self.name).clone()
    }

    pub(super) fn renamed(&self, name: String) {
        *lock(&self.name) = name;
    }
}

/// Tells a disk that can bring back what left memory from one that should not have to.
#[derive(Default)]
pub(super) struct Served(AtomicU32);

impl Served {
    /// Slow reads, more than quick ones, after which nothing more leaves memory.
    const MANY: u32 = 8;
    /// For a MiB. A disk that turns needs longer for one that lies somewhere else.
    const SLOW: Duration = Duration::from_millis(15);

    /// A part was read for another receiver.
    pub(super) fn note(&self, took: Duration, len: u64) {
        let slow = took.as_micros() << 20 > Self::SLOW.as_micros() * u128::from(len);
        let step = |n: u32| match slow {
            _ if n >= Self::MANY => None,
            true => Some(n + 1),
            false => Some(n.saturating_sub(1)),
        };
        // At the end it stays.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }

    pub(super) fn is_slow(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= Self::MANY
    }
}

/// What is open while it is fetched.
pub(super) struct Prepared {
    pub(super) file: File,
    /// There was nothing in the staged file.
    pub(super) fresh: bool,
    pub(super) base: Option<Base>,
    /// The staged file began as a clone of the base.
    pub(super) cloned: bool,
    /// Chunks may be found in other files of the share.
    pub(super) places: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_slow_when_many_reads_were() {
        let served = Served::default();
        let slow = || served.note(Duration::from_millis(20), 1 << 20);
        (0..7).for_each(|_| slow());
        // Not for its length.
        served.note(Duration::from_millis(20), 2 << 20);
        slow();
        assert!(!served.is_slow());
        slow();
        assert!(served.is_slow());
        (0..20).for_each(|_| served.note(Duration::ZERO, 1 << 20));
        assert!(served.is_slow());
    }
}
