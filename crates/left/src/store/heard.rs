//! [`Heard`]: what peers announced a moment ago, in memory as well as in the file.

use std::cell::RefCell;
use std::collections::HashMap;

use left_core::entry::{Entry, Node};
use left_core::version::DeviceId;

/// Paths that are remembered.
const MAX_PATHS: usize = 4096;
/// The longest key that is, in bytes.
const MAX_KEY: usize = 512;
/// The most counters that are, over all versions of a path; what is rare and large is read again.
const MAX_COUNTERS: usize = 16;

/// What peers announced of one path, in the order of devices.
type Announced = Vec<(DeviceId, Entry)>;

/// A new file of a peer is looked up four times within moments: when it is found, begun, done and taken
/// in. Whoever writes to the table tells what stands there then; what is not here is asked of the file.
/// The first that come stay, as they are also the first to be done.
#[derive(Default)]
pub(super) struct Heard {
    by_key: RefCell<HashMap<Box<[u8]>, Announced>>,
}

impl Heard {
    /// All that peers announced of a path, if that is known.
    pub(super) fn get(&self, key: &[u8]) -> Option<Announced> {
        self.by_key.borrow().get(key).cloned()
    }

    /// `all` is what the file says of a path from now on.
    pub(super) fn set(&self, key: &[u8], all: Announced) {
        let mut by_key = self.by_key.borrow_mut();
        let is_full = by_key.len() >= MAX_PATHS;
        if !is_small(key, &all) {
            if by_key.remove(key).is_some() && by_key.is_empty() {
                *by_key = HashMap::new();
            }
        } else if let Some(known) = by_key.get_mut(key) {
            *known = all;
        } else if !is_full {
            by_key.insert(key.into(), all);
        }
    }

    /// Forgets everything, and gives the memory back.
    pub(super) fn clear(&self) {
        *self.by_key.borrow_mut() = HashMap::new();
    }
}

fn is_small(key: &[u8], all: &[(DeviceId, Entry)]) -> bool {
    let counters: usize = all.iter().map(|(_, e)| e.version.pairs().len()).sum();
    let no_links = all
        .iter()
        .all(|(_, e)| !matches!(e.node, Node::Symlink { .. }));
    !all.is_empty() && no_links && key.len() <= MAX_KEY && counters <= MAX_COUNTERS
}
