//! The program `left`.

use std::process::ExitCode;

fn main() -> ExitCode {
    left::cli::main(left::daemon::start)
}
