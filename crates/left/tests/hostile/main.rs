//! Who may enter a share and what one who lies can do: real processes over loopback, and a peer
//! that speaks the protocol but does not keep to it.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

#[path = "../e2e/common/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "shared with other tests, which use the rest"
)]
mod common;

mod connections;
mod content;
mod liar;
mod messages;
mod readonly;
mod removal;
mod scene;
mod sender;
