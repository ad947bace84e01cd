//! Fetching from and serving to each other over socket pairs, on real files.

mod big;
mod delta;
mod hostile;
mod node;
mod peers;
mod small;
mod speed;
