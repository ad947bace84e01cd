//! SIGINT and SIGTERM: the first asks for a clean stop, the second ends the process.

use tokio::signal::unix::{SignalKind, signal};

use crate::home::{Exit, UserError};

/// Calls `each` whenever the process gets SIGHUP.
pub(super) fn on_hangup(each: impl Fn() + Send + 'static) -> Result<(), UserError> {
    let error = |e: std::io::Error| UserError::new("cannot listen to signals", e, "try again");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(error)?;
    let mut hangup = {
        let _context = runtime.enter();
        signal(SignalKind::hangup()).map_err(error)?
    };
    let wait = move || {
        while runtime.block_on(hangup.recv()).is_some() {
            each()
        }
    };
    std::thread::Builder::new()
        .name("left-hangup".into())
        .spawn(wait)
        .map(|_| ())
        .map_err(error)
}

/// Calls `on_first`, once, when the process is asked to stop.
pub(super) fn on_stop(on_first: impl FnOnce() + Send + 'static) -> Result<(), UserError> {
    let error = |e: std::io::Error| UserError::new("cannot listen to signals", e, "try again");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(error)?;
    let (mut int, mut term) = {
        let _context = runtime.enter();
        let int = signal(SignalKind::interrupt()).map_err(error)?;
        (int, signal(SignalKind::terminate()).map_err(error)?)
    };
    let wait = move || {
        runtime.block_on(async {
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
        });
        on_first();
        runtime.block_on(async {
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
        });
        std::process::exit(Exit::Failure as i32);
    };
    std::thread::Builder::new()
        .name("left-signals".into())
        .spawn(wait)
        .map(|_| ())
        .map_err(error)
}
