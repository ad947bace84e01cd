//! Keeps two folders of this machine identical, with two devices in one process:
//!
//! ```text
//! cargo run --release --example two_folders -- FOLDER_A FOLDER_B
//! ```
//!
//! The keys and settings of the two devices are kept in `FOLDER_A.left-home` and
//! `FOLDER_B.left-home`, so that a second run goes on where the first one ended.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use left::daemon::handle::{Daemon, Listen, Options};
use left::home::Home;
use left_core::message::Role;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(a), Some(b)) = (args.next(), args.next()) else {
        return Err("usage: two_folders FOLDER_A FOLDER_B".into());
    };
    let first = device(&a, "first", 20_301)?;
    let second = device(&b, "second", 20_302)?;

    // `run_all` runs what an earlier run has set up.
    if first.run_all()?.is_empty() || second.run_all()?.is_empty() {
        first.share(&std::path::absolute(&a)?)?;
        let hour = Duration::from_secs(3600);
        let ticket = first.ticket(&a, Role::ReadWrite, hour)?;
        second.join(&ticket.ticket, &std::path::absolute(&b)?, &[])?;
    }
    let result = first.wait(None, Duration::from_secs(600))?;
    for share in first.status().shares {
        println!(
            "{}: {} files, {} bytes, {}",
            share.path.display(),
            share.files,
            share.bytes,
            share.state.name()
        );
    }
    second.stop();
    first.stop();
    match result.in_sync {
        true => Ok(()),
        false => Err("not identical after ten minutes".into()),
    }
}

/// A device with its own key, on loopback; its port stays, so that the other finds it again.
fn device(folder: &Path, name: &str, port: u16) -> Result<Arc<dyn Daemon>, Box<dyn Error>> {
    let mut home = folder.as_os_str().to_owned();
    home.push(".left-home");
    let options = Options {
        listen: Listen {
            host: Some("127.0.0.1".into()),
            port,
        },
        advertise: Vec::new(),
        name: name.into(),
        discovery: false,
        offline: false,
    };
    Ok(left::daemon::start(
        Home::open(Some(Path::new(&home)))?,
        options,
    )?)
}
