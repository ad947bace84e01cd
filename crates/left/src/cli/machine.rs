//! Commands about this machine rather than its shares: the service, a look for what is wrong, and
//! what shells and `man` read.

use std::path::PathBuf;

use clap::Subcommand;
use clap_complete::Shell;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::output::Output;
use super::{doctor, generate, service};
use crate::home::{Exit, UserError};

/// As many files as it opens at once at most.
const OPEN_FILES: u64 = 65_536;
/// As many as it opens when many small files come: 4,096 without a name yet, and some for all else.
const LIKELY_FILES: u64 = 5000;

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(super) enum MachineCommand {
    /// Have left started with your session, and again when it fails (systemd).
    Service {
        #[command(subcommand)]
        what: ServiceCommand,
    },
    /// Look for what may keep left from working here, and say how to mend it.
    ///
    /// Exit code 1 when something is wrong.
    Doctor,
    /// Print what a shell needs to complete commands.
    #[command(
        after_help = "Example:\n  left completions bash > ~/.local/share/bash-completion/completions/left"
    )]
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the manual page, or write those of all commands into a folder.
    #[command(after_help = "Example:\n  left man ~/.local/share/man/man1")]
    Man {
        /// The folder; it must exist.
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(super) enum ServiceCommand {
    /// Write the unit and start it.
    Install,
    /// Stop it and take the unit away; shares and settings stay.
    Uninstall,
    /// Show whether it is there and runs.
    Status,
    /// Print the file that describes it, for another supervisor or to be changed by hand.
    Print {
        /// For launchd of macOS, instead of systemd: goes to ~/Library/LaunchAgents/left.plist.
        #[arg(long)]
        launchd: bool,
    },
}

pub(super) fn run(command: &MachineCommand, out: Output) -> Result<Exit, UserError> {
    match command {
        MachineCommand::Service { what } => service::run(*what, out),
        MachineCommand::Doctor => doctor::run(out),
        MachineCommand::Completions { shell } => {
            generate::completions(*shell, out);
            Ok(Exit::Ok)
        }
        MachineCommand::Man { dir } => generate::man(dir.as_deref(), out).map(|()| Exit::Ok),
    }
}

/// Has this process open as many files as the system lets it, within reason: the usual limit is there for
/// programs that use `select`.
pub(super) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX).min(OPEN_FILES);
    if limit.current.is_some_and(|now| now < most) {
        let raised = Rlimit {
            current: Some(most),
            ..limit
        };
        // Where it is refused it has to do with fewer.
        let _ = setrlimit(Resource::Nofile, raised);
    }
    make_room_for_files();
}

/// Has the system's table of this process' files grow to the length it will need. Later, with many threads,
/// each time it doubles all who open a file wait until every processor has done something else (5 to 20 ms).
fn make_room_for_files() {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let highest = limit.saturating_sub(1).min(LIKELY_FILES) as i32;
    if let Ok(any) = std::fs::File::open("/") {
        // It opens as well without.
        let _ = rustix::io::fcntl_dupfd_cloexec(any, highest);
    }
}
