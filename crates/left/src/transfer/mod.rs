//! Moves content between peers over data lanes: one side of a lane asks ([`fetch`]), the other
//! answers ([`serve`]). One lane is one blocking byte stream and one thread on each side.
//!
//! What travels on a lane is fixed in [`frame`]. Nothing that arrives is believed: every chunk,
//! chunk list, segment list and whole small file is checked against its id before it is written,
//! and every length before memory is taken for it.
//!
//! This module depends on disk and store only by the small traits of [`ports`].

pub mod fetch;
mod fileio;
pub mod frame;
pub mod lane;
pub mod ports;
pub mod serve;

#[cfg(test)]
mod tests;

pub use fetch::{
    FetchConfig, FetchStats, Fetcher, ItemProgress, Offered, Progress, Stock, Tell, Told,
};
pub use lane::{LaneCloser, LaneStream};
pub use ports::{ContentSource, FetchDisk, ManifestRead, ManifestStore, ManifestWriter, Opener};
pub use serve::{ServeConfig, ServeError, ServeStats, serve};
