//! The program as its users meet it: processes of `left` with homes of their own, real sockets on
//! loopback, real folders, SIGKILL.

#![allow(clippy::unwrap_used)]

mod common;

mod conflicts;
mod daily;
mod kinds;
mod many;
mod pairing;
mod plan;
mod refusals;
mod safety;
mod soak;
mod torn;
mod weight;
