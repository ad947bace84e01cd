//! A share's folder on disk: looking at it, hashing, watching, and changing it without ever losing a
//! user's bytes.
//!
//! Floors, lowest first: `sys` (system calls) · `look` · [`root`] · `inner` · [`durable`] · [`hash`] · [`stage`] ·
//! [`history`] · [`pack`] · [`apply`] · [`repair`] · [`restore`] · `watch` · [`eye`].

pub mod apply;
pub mod durable;
pub mod eye;
pub mod hash;
pub mod history;
mod inner;
mod leftover;
mod look;
mod near;
pub mod pack;
pub mod repair;
mod rescue;
pub mod restore;
pub mod root;
pub mod stage;
mod sys;
#[cfg(test)]
mod tests;
mod watch;

pub use apply::{Before, ReadyBatch, apply, apply_packed, make_ready, put_in_place};
pub use durable::{Cut, Durable};
pub use eye::{DiskEye, EyeEvent, Hold, ManifestOut, ManifestSink, ScanIndex};
pub use hash::{HashError, hash_file};
pub use history::{History, Kept, Limits, Rescued};
pub use leftover::{KEEP_PARTS, clean_leftovers};
pub use look::Found;
pub use near::Near;
pub use pack::Pack;
pub use repair::{Placed, Repaired, repair};
pub use restore::{Put, Restorer};
pub use root::{Root, RootError, RootGone, init_share};
pub use stage::Stage;
