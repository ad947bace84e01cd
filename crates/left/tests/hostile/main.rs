//! Who may enter a share, who may no more, and who may only read: real processes over loopback.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

#[path = "../e2e/common/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "shared with other tests, which use the rest"
)]
mod common;

mod readonly;
mod removal;
