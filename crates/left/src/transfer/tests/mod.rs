//! Fetching from and serving to each other over socket pairs, on real files.

#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

mod big;
mod delta;
mod hostile;
mod node;
mod offers;
mod peers;
mod reuse;
mod slow;
mod small;
mod speed;
mod swarm;
