//! The log: quiet unless asked for, on stderr.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, reload};

use super::live;
use crate::api::LogLevel;
use crate::home::UserError;

type Filter = reload::Handle<EnvFilter, tracing_subscriber::Registry>;

/// The filter of this process' log, to be changed while it runs.
static FILTER: OnceLock<Filter> = OnceLock::new();

/// Sets the filter, if one is given; returns what holds then.
pub(super) fn level(filter: Option<&str>) -> Result<LogLevel, UserError> {
    let what = "cannot set the log's level";
    let fail = |why: String| {
        UserError::usage(
            what,
            why,
            "write it like `debug`, or `warn,left::net=trace`",
        )
    };
    let handle = FILTER.get().ok_or_else(|| {
        UserError::new(
            what,
            "this process has no log of its own",
            "ask the program that runs it",
        )
    })?;
    if let Some(text) = filter {
        let new = match words(text) {
            Some(words) => EnvFilter::try_new(words),
            // It would be read as one that tells nothing at all.
            None if text.trim().is_empty() => return Err(fail("it is empty".to_owned())),
            None => EnvFilter::try_new(text),
        };
        let new = new.map_err(|e| fail(format!("`{text}` is no log filter: {e}")))?;
        handle.reload(new).map_err(|e| fail(e.to_string()))?;
    }
    let filter = handle.with_current(ToString::to_string);
    let filter = filter.map_err(|e| fail(e.to_string()))?;
    Ok(LogLevel { filter })
}

/// A bare level is meant for left, not for the libraries in it.
fn words(level: &str) -> Option<&'static str> {
    Some(match level.trim().to_ascii_lowercase().as_str() {
        "error" => "error",
        "warn" => "warn",
        "info" => "warn,left=info,left_core=info",
        "debug" => "warn,left=debug,left_core=debug",
        "trace" => "info,left=trace,left_core=trace",
        _ => return None,
    })
}

/// `LEFT_LOG` goes before `-v`; the default says warnings only.
pub(super) fn init(verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "warn,left=info,left_core=info",
        2 => "warn,left=debug,left_core=debug",
        _ => "info,left=trace,left_core=trace",
    };
    let asked = std::env::var("LEFT_LOG").ok().filter(|f| !f.is_empty());
    let filter = match asked.as_deref().map(EnvFilter::try_new) {
        Some(Ok(filter)) => filter,
        Some(Err(e)) => {
            let _ = writeln!(
                io::stderr(),
                "left: LEFT_LOG is no log filter: {e}; write it like `debug`"
            );
            EnvFilter::new(default)
        }
        None => EnvFilter::new(default),
    };
    // A second call in one process (tests) keeps the first log.
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(io::stderr().is_terminal())
        .with_writer(|| Stderr)
        .with_target(verbose > 1);
    let log = tracing_subscriber::registry().with(filter).with(lines);
    if log.try_init().is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// Stderr that does not tear progress bars.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        live::suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
