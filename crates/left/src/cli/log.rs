//! The log: quiet unless asked for, on stderr.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;

use super::live;

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
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(|| Stderr)
        .with_target(verbose > 1)
        .try_init();
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
