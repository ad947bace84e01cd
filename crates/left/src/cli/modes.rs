//! Commands about what this device alone chose: which way a share goes, and what to do about what it
//! withholds.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use super::ask::Reached;
use super::output::Output;
use super::run::running;
use super::settings::{absolute, below};
use super::{Start, format};
use crate::api::ModeRequest;
use crate::home::text::Text;
use crate::home::{Exit, Home, Mode, UserError, clean};

#[derive(Debug, Subcommand)]
pub(super) enum RawModes {
    /// Choose which way a share goes on this device; shows what holds.
    ///
    /// send-only: what others change is shown by `left status` and not done here, until you say `left
    /// take` or `left override`. receive-only: what is edited here reaches nobody; `left revert` takes
    /// it back. Nothing is lost either way.
    #[command(after_help = "Example:\n  left mode ~/photos send-only")]
    Mode {
        /// The share's folder.
        dir: PathBuf,
        /// Which way it is to go.
        mode: Option<RawMode>,
    },
    /// Where this device only sends: do here what others changed.
    #[command(after_help = "Example:\n  left take ~/photos 2024/beach.jpg")]
    Take {
        /// The share's folder.
        dir: PathBuf,
        /// A file or folder in it [default: everything].
        path: Option<PathBuf>,
    },
    /// Where this device only sends: have the others become again as it is here.
    ///
    /// What they added is deleted there, what they changed or deleted comes back as it is here. Their
    /// versions stay in their .left/history.
    #[command(after_help = "Example:\n  left override ~/photos 2024")]
    Override {
        /// The share's folder.
        dir: PathBuf,
        /// A file or folder in it [default: everything].
        path: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum RawMode {
    /// What is edited anywhere is everywhere.
    TwoWay,
    /// What others change is shown and not done here.
    SendOnly,
    /// What is edited here is shown and reaches nobody.
    ReceiveOnly,
}

impl From<RawMode> for Mode {
    fn from(raw: RawMode) -> Self {
        match raw {
            RawMode::TwoWay => Mode::TwoWay,
            RawMode::SendOnly => Mode::SendOnly,
            RawMode::ReceiveOnly => Mode::ReceiveOnly,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ModeQuestion {
    Mode {
        dir: PathBuf,
        mode: Option<Mode>,
    },
    Decide {
        dir: PathBuf,
        /// Relative to the folder.
        path: Option<PathBuf>,
        take: bool,
    },
}

pub(super) fn question(raw: RawModes) -> Result<ModeQuestion, UserError> {
    let decide = |dir: PathBuf, path, take| {
        let dir = absolute(&dir)?;
        let path = below(&dir, path);
        Ok(ModeQuestion::Decide { dir, path, take })
    };
    match raw {
        RawModes::Mode { dir, mode } => Ok(ModeQuestion::Mode {
            dir: absolute(&dir)?,
            mode: mode.map(Mode::from),
        }),
        RawModes::Take { dir, path } => decide(dir, path, true),
        RawModes::Override { dir, path } => decide(dir, path, false),
    }
}

pub(super) fn ask(
    home: &Home,
    question: ModeQuestion,
    out: Output,
    start: Start,
) -> Result<Exit, UserError> {
    match question {
        ModeQuestion::Mode { dir, mode } => {
            let left = Reached::reach(home, start, true)?;
            let request = ModeRequest {
                dir: dir.clone(),
                mode: mode.map(|m| m.to_text()),
            };
            let chosen = left.client.mode(&request)?;
            match out.json() {
                true => out.object(&chosen),
                false => out.line(&format!("{} is {}.", clean(&dir), said(chosen.mode))),
            }
        }
        ModeQuestion::Decide { dir, path, take } => {
            let left = running(home)?.ok_or_else(|| super::ask::not_running("cannot do that"))?;
            let decided = left.decide(&dir, path.as_deref(), take)?;
            let paths = format::count(decided.paths, "path");
            if take && decided.paths > 0 && !decided.connected {
                return Err(UserError::new(
                    "cannot take what has to come from other devices",
                    "none is connected",
                    "run it again when one is; `left status` shows them",
                ));
            }
            match (out.json(), decided.paths, take) {
                (true, ..) => out.object(&decided),
                (false, 0, _) => out.line("Nothing is withheld there."),
                (false, _, true) => out.line(&format!(
                    "{paths} will be as the others have them; what stood there goes to .left/history."
                )),
                (false, _, false) => out.line(&format!(
                    "{paths} will be on the others as they are here; what stood there goes to their \
                     .left/history."
                )),
            }
        }
    }
    Ok(Exit::Ok)
}

fn said(mode: Mode) -> &'static str {
    match mode {
        Mode::TwoWay => "two-way: what is edited anywhere is everywhere",
        Mode::SendOnly => "send-only: what others change is shown and not done here",
        Mode::ReceiveOnly => "receive-only: what is edited here is shown and reaches nobody",
    }
}
