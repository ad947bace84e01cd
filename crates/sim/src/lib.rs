//! A simulator of whole shares: N engines of [`left_core::engine`] in virtual time over a fake
//! disk, index, transfer and network, with faults. One seed decides everything; after all faults
//! are healed the trees must be equal and nothing that a user wrote may be missing.

pub mod apply;
pub mod check;
pub mod chosen;
pub mod coverage;
pub mod disk;
pub mod drive;
pub mod edits;
pub mod faults;
pub mod index;
pub mod link;
pub mod local;
pub mod mutants;
pub mod outage;
pub mod pack;
pub mod rest;
pub mod rng;
pub mod run;
pub mod scan;
pub mod scenario;
pub mod shrink;
pub mod stats;
pub mod steps;
pub mod users;
pub mod world;

pub use run::{Outcome, Params, run};
pub use shrink::shrink;
