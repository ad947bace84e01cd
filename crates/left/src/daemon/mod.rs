//! daemon

pub mod handle;
