//! The command line and the API against a toy daemon, in real processes and over real sockets.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod api;
mod fake;
mod machine;
mod process;

/// Not a test: the program `left` with the toy daemon, for the tests that start processes. It
/// takes the arguments after `--`.
#[test]
fn fake_left() {
    if std::env::var_os("LEFT_TEST_FAKE").is_none() {
        return;
    }
    // The harness has begun a line.
    println!();
    let args = std::env::args_os().skip_while(|a| a != "--").skip(1);
    if std::env::var_os("LEFT_TEST_DEMO").is_some() {
        let done = left::cli::demo::run(&process::fake_demo(400_000_000), false);
        std::process::exit(done.map_or(1, |exit| exit as i32));
    }
    let args = std::iter::once("left".into()).chain(args);
    // The exit code of `left`, whatever the test harness would say.
    let code = left::cli::run(args, fake::start);
    let code = (0..=4).find(|c| code == std::process::ExitCode::from(*c));
    std::process::exit(code.map_or(99, i32::from));
}
