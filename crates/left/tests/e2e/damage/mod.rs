//! The damage matrix of docs/damage.md: each kind of damage at each place, with the real program.

mod bed;
mod home;
mod inner;
mod share;

pub use bed::Bed;
