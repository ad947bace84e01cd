//! LEFT keeps folders identical on two or more machines. This crate is the edges and the program;
//! the rules live in `left-core`.
//!
//! Floors, lowest first; a module imports only from lower ones: [`home`] · [`store`], [`disk`],
//! [`net`] · [`transfer`] · [`daemon`] · [`api`] · [`cli`].

pub mod api;
pub mod cli;
pub mod daemon;
pub mod disk;
pub mod home;
pub mod net;
pub mod store;
pub mod transfer;
