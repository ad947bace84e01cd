//! The program as its users meet it: processes of `left` with homes of their own, real sockets on
//! loopback, real folders, SIGKILL.

#![allow(clippy::unwrap_used)]

mod common;

mod choose;
mod conflicts;
mod daily;
mod damage;
mod history;
mod ignore;
#[cfg(debug_assertions)]
mod kills;
mod kinds;
mod limits;
mod load;
mod many;
mod nearby;
mod once;
mod one_way;
mod page;
mod pairing;
mod plan;
#[cfg(debug_assertions)]
mod powercut;
mod refusals;
mod reuse;
mod safety;
mod service;
mod soak;
mod storm;
mod swarm;
mod swept;
mod torn;
mod weight;
mod words;
