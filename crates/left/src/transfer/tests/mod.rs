//! Fetching from and serving to each other over socket pairs, on real files.

#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

mod big;
mod delta;
mod hostile;
mod long;
pub(crate) mod node;
mod offers;
mod partners;
mod parts;
mod peers;
mod reuse;
mod slow;
mod small;
mod speed;
mod store;
mod swarm;
