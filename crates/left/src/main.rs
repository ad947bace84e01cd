//! The program `left`.

use std::process::ExitCode;

fn main() -> ExitCode {
    left::cli::main(start)
}

/// Stands in for the daemon until it is there.
fn start(
    _: left::home::Home,
    _: left::daemon::handle::Options,
) -> Result<std::sync::Arc<dyn left::daemon::handle::Daemon>, left::home::UserError> {
    let why = "this build has no daemon yet";
    Err(left::home::UserError::new("cannot start", why, ""))
}
