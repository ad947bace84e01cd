//! LEFT keeps folders identical on two or more machines. This crate is the edges and the program;
//! the rules live in `left-core`.
//!
//! As a library, a device is started by [`daemon::start`] from a [`home::Home`] and
//! [`daemon::handle::Options`]; all that one can ask of it is the trait [`daemon::handle::Daemon`].
//! Several devices may live in one process, each with its own home: see
//! `examples/two_folders.rs`.
//!
//! Floors, lowest first; a module imports only from lower ones: [`home`] · [`store`], [`disk`],
//! [`net`] · [`transfer`] · [`daemon`] · [`once`] · [`api`] · [`cli`].

/// Names a point at which a test may end the process: see `crash`. Nothing in a release build.
macro_rules! crash_point {
    ($point:literal) => {
        #[cfg(debug_assertions)]
        crate::crash::pass($point);
    };
}

pub mod api;
pub mod cli;
pub mod counters;
#[cfg(debug_assertions)]
#[doc(hidden)]
pub mod crash;
pub mod daemon;
pub mod disk;
pub mod home;
pub mod net;
pub mod once;
pub mod store;
pub mod transfer;
