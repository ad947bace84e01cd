//! LEFT keeps folders identical on two or more machines. This crate is the edges and the program;
//! the rules live in `left-core`.
//!
//! As a library, a device is started by [`daemon::start`] from a [`home::Home`] and
//! [`daemon::handle::Options`]; all that one can ask of it is the trait [`daemon::handle::Daemon`].
//! Several devices may live in one process, each with its own home: see
//! `examples/two_folders.rs`.
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
