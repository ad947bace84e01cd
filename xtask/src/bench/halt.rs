//! Stopping in good order: Ctrl-C sets a flag, every wait looks at it, and the owners of
//! processes, namespaces and folders clean up as the error passes them on its way out.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static HALT: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on, SIGINT, SIGTERM and SIGHUP make [`check`] fail instead of ending the process.
pub fn watch() -> Result<()> {
    let flag = HALT.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag)).context("cannot watch signals")?;
    }
    Ok(())
}

/// Whether the user wants to stop.
pub fn wanted() -> bool {
    HALT.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Fails if the user wants to stop.
pub fn check() -> Result<()> {
    if wanted() {
        bail!("stopped");
    }
    Ok(())
}

/// Sleeps, and fails as soon as the user wants to stop.
pub fn nap(mut time: Duration) -> Result<()> {
    const SLICE: Duration = Duration::from_millis(50);
    loop {
        check()?;
        if time <= SLICE {
            std::thread::sleep(time);
            return Ok(());
        }
        std::thread::sleep(SLICE);
        time -= SLICE;
    }
}
