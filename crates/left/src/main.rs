//! The program `left`.

use std::process::ExitCode;

/// A share of 100,000 files at rest takes half the memory with it that it takes with the system's: what a
/// burst of work took is given back (settings in .cargo/config.toml), also by the libraries in C.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    left::cli::main(left::daemon::start)
}
