//! What the command line means: every value checked, every path absolute, every default filled in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use left_core::message::Role;

use super::args::{RawArgs, RawCommand, RawQuestion, RunArgs};
use super::choose::{self, ChooseQuestion};
use super::machine::MachineCommand;
use super::modes::{self, ModeQuestion};
use super::once::{self, Once};
use super::parse;
use super::past::{self, PastQuestion};
use crate::daemon::handle::{DEFAULT_PORT, Listen, Options};
use crate::home::{Config, UserError, parse_rate};

/// How long the ticket that `left share` prints works.
const SHARE_TICKET: Duration = Duration::from_secs(24 * 3600);
/// The longest a ticket may work.
const MAX_EXPIRES: Duration = Duration::from_secs(366 * 24 * 3600);
/// Longest device name in bytes.
const MAX_NAME: usize = 64;

/// One run of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) command: Command,
    pub(super) json: bool,
    pub(super) verbose: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Needs a running left, or becomes it.
    Run(Job, RunSettings),
    /// Asks a running left, or does it without one.
    Ask(Question),
    /// A transfer without a share.
    Once(Once),
    /// About this machine.
    Machine(MachineCommand),
    Demo {
        size: u64,
    },
}

/// What a running left is to do first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    Share {
        dir: PathBuf,
        expires: Duration,
    },
    Join {
        ticket: String,
        dir: PathBuf,
        /// Relative to the folder; empty: everything.
        only: Vec<PathBuf>,
    },
    Sync {
        dir: PathBuf,
        peer: String,
        code: Option<String>,
    },
    Up,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    Ticket {
        dir: PathBuf,
        role: Role,
        expires: Duration,
    },
    Status,
    Wait {
        dir: Option<PathBuf>,
        timeout: Duration,
    },
    Verify {
        dir: Option<PathBuf>,
    },
    Pause {
        dir: PathBuf,
    },
    Resume {
        dir: PathBuf,
        accept_deletions: bool,
    },
    Revert {
        dir: PathBuf,
        /// Relative to the folder.
        path: Option<PathBuf>,
    },
    RemovePeer {
        dir: PathBuf,
        who: String,
    },
    Limit {
        dir: PathBuf,
        up: Option<String>,
        down: Option<String>,
    },
    PausePeer {
        dir: PathBuf,
        who: String,
        paused: bool,
    },
    /// What this device alone chose.
    Modes(ModeQuestion),
    /// About what is held here.
    Choose(ChooseQuestion),
    /// About what was.
    Past(PastQuestion),
    Leave {
        dir: PathBuf,
    },
    Web {
        print: bool,
    },
    Reload,
    LogLevel {
        filter: Option<String>,
    },
    Id,
    Stop,
}

/// What the command line says about how to run; the rest comes from `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct RunSettings {
    pub(super) listen: Option<Listen>,
    pub(super) advertise: Vec<String>,
    pub(super) name: Option<String>,
    pub(super) no_discovery: bool,
    pub(super) no_web: bool,
}

/// Why there is no [`Settings`].
#[derive(Debug)]
pub(super) enum Stop {
    /// Help, version, or a mistake that clap explains.
    Clap(clap::Error),
    /// Nothing was asked for: what could be.
    Help(String),
    /// A mistake in a value.
    Bad(UserError),
}

impl From<UserError> for Stop {
    fn from(error: UserError) -> Self {
        Stop::Bad(error)
    }
}

/// Reads the command line (the program's name first) and `LEFT_CODE`.
pub(super) fn read(
    args: impl IntoIterator<Item = std::ffi::OsString>,
    code: Option<String>,
) -> Result<Settings, Stop> {
    let raw = RawArgs::try_parse_from(args).map_err(Stop::Clap)?;
    let (json, verbose) = (raw.json, raw.verbose);
    let command = match (raw.command, raw.ip) {
        (None, None) => return Err(Stop::Help(help())),
        (Some(_), Some(_)) => {
            let todo = "use `left sync --peer HOST` or `left --ip HOST`";
            return Err(
                UserError::usage("--ip is a command by itself", "there is another", todo).into(),
            );
        }
        (None, Some(ip)) => sync(Path::new("share"), &ip, raw.code.or(code), &raw.run)?,
        (Some(_), None) if is_set(&raw.run) => {
            let why = "--listen, --advertise, --name, --no-discovery and --no-web stand before it";
            let todo = "write them after the command that they belong to";
            return Err(UserError::usage("cannot read the command", why, todo).into());
        }
        (Some(command), None) => command_of(command, code)?,
    };
    Ok(Settings {
        command,
        json,
        verbose,
    })
}

/// What a daemon of this device is started with.
pub(super) fn options(run: &RunSettings, config: &Config) -> Result<Options, UserError> {
    let listen = match (&run.listen, &config.listen) {
        (Some(listen), _) => listen.clone(),
        (None, Some(text)) => parse::listen(text)?,
        (None, None) => Listen {
            host: None,
            port: DEFAULT_PORT,
        },
    };
    let advertise = if run.advertise.is_empty() {
        let texts = config.advertise.iter();
        texts
            .map(|a| parse::advertise(a))
            .collect::<Result<_, _>>()?
    } else {
        run.advertise.clone()
    };
    let name = match run.name.clone().or(config.name.clone()) {
        Some(name) => checked_name(&name)?,
        None => host_name(),
    };
    Ok(Options {
        listen,
        advertise,
        name,
        discovery: config.discovery && !run.no_discovery,
        offline: false,
    })
}

/// A usage error of clap that shows the help.
fn help() -> String {
    use clap::CommandFactory;
    RawArgs::command().render_help().to_string()
}

fn command_of(raw: RawCommand, code: Option<String>) -> Result<Command, UserError> {
    let run = |job, run: &RunArgs| Ok(Command::Run(job, run_settings(run)?));
    match raw {
        RawCommand::Share { dir, run: r } => {
            let dir = absolute(&dir)?;
            run(
                Job::Share {
                    dir,
                    expires: SHARE_TICKET,
                },
                &r,
            )
        }
        RawCommand::Join {
            ticket,
            dir,
            choose,
            run: r,
        } => {
            let ticket = ticket_text(&ticket)?;
            let dir = absolute(&dir)?;
            let only = choose.iter().map(|p| choose::below(&dir, p)).collect();
            run(Job::Join { ticket, dir, only }, &r)
        }
        RawCommand::Sync {
            dir,
            peer,
            code: flag,
            run: r,
        } => sync(&dir, &peer, flag.or(code), &r),
        RawCommand::Up { run: r } => run(Job::Up, &r),
        RawCommand::Demo { quick: true, .. } => Ok(Command::Demo { size: 16_000_000 }),
        RawCommand::Demo { size, .. } => match parse::size(&size)? {
            0..1000 => {
                let todo = "take at least 1000 bytes";
                Err(UserError::usage(
                    "cannot show anything",
                    "the big file is too small",
                    todo,
                ))
            }
            size => Ok(Command::Demo { size }),
        },
        RawCommand::Once(raw) => Ok(Command::Once(once::checked(raw)?)),
        RawCommand::Machine(command) => Ok(Command::Machine(command)),
        RawCommand::Ask(question) => Ok(Command::Ask(question_of(question)?)),
    }
}

fn question_of(raw: RawQuestion) -> Result<Question, UserError> {
    match raw {
        RawQuestion::Ticket {
            dir,
            read_only,
            expires,
        } => {
            let role = if read_only {
                Role::ReadOnly
            } else {
                Role::ReadWrite
            };
            let expires = ticket_time(&expires)?;
            Ok(Question::Ticket {
                dir: absolute(&dir)?,
                role,
                expires,
            })
        }
        RawQuestion::Status => Ok(Question::Status),
        RawQuestion::Wait { dir, timeout } => {
            let timeout = parse::duration(&timeout)?;
            Ok(Question::Wait {
                dir: dir.as_deref().map(absolute).transpose()?,
                timeout,
            })
        }
        RawQuestion::Verify { dir } => {
            let dir = dir.as_deref().map(absolute).transpose()?;
            Ok(Question::Verify { dir })
        }
        RawQuestion::Pause { dir, peer: None } => Ok(Question::Pause {
            dir: absolute(&dir)?,
        }),
        RawQuestion::Pause {
            dir,
            peer: Some(who),
        } => Ok(Question::PausePeer {
            dir: absolute(&dir)?,
            who,
            paused: true,
        }),
        RawQuestion::Resume {
            dir,
            peer: Some(who),
            ..
        } => Ok(Question::PausePeer {
            dir: absolute(&dir)?,
            who,
            paused: false,
        }),
        RawQuestion::Resume {
            dir,
            peer: None,
            accept_deletions,
        } => Ok(Question::Resume {
            dir: absolute(&dir)?,
            accept_deletions,
        }),
        RawQuestion::Revert { dir, path } => {
            let dir = absolute(&dir)?;
            let path = below(&dir, path);
            Ok(Question::Revert { dir, path })
        }
        RawQuestion::RemovePeer { dir, who } => Ok(Question::RemovePeer {
            dir: absolute(&dir)?,
            who,
        }),
        RawQuestion::Limit { dir, up, down } => {
            for rate in [&up, &down].into_iter().flatten() {
                parse_rate(rate).map_err(|e| UserError::usage("cannot set the limit", e, ""))?;
            }
            let dir = absolute(&dir)?;
            Ok(Question::Limit { dir, up, down })
        }
        RawQuestion::Modes(modes) => Ok(Question::Modes(modes::question(modes)?)),
        RawQuestion::Choose(raw) => Ok(Question::Choose(choose::question(raw)?)),
        RawQuestion::Past(past) => Ok(Question::Past(past::question(past)?)),
        RawQuestion::Leave { dir } => Ok(Question::Leave {
            dir: absolute(&dir)?,
        }),
        RawQuestion::Web { print } => Ok(Question::Web { print }),
        RawQuestion::Reload => Ok(Question::Reload),
        RawQuestion::LogLevel { filter } => Ok(Question::LogLevel { filter }),
        RawQuestion::Id => Ok(Question::Id),
        RawQuestion::Stop => Ok(Question::Stop),
    }
}

fn sync(dir: &Path, peer: &str, code: Option<String>, run: &RunArgs) -> Result<Command, UserError> {
    let code = code.map(|c| c.trim().to_string()).filter(|c| !c.is_empty());
    let job = Job::Sync {
        dir: absolute(dir)?,
        peer: parse::peer(peer)?,
        code,
    };
    Ok(Command::Run(job, run_settings(run)?))
}

pub(super) fn run_settings(run: &RunArgs) -> Result<RunSettings, UserError> {
    Ok(RunSettings {
        listen: run.listen.as_deref().map(parse::listen).transpose()?,
        advertise: run
            .advertise
            .iter()
            .map(|a| parse::advertise(a))
            .collect::<Result<_, _>>()?,
        name: run.name.as_deref().map(checked_name).transpose()?,
        no_discovery: run.no_discovery,
        no_web: run.no_web,
    })
}

pub(super) fn is_set(run: &RunArgs) -> bool {
    let off = run.no_discovery || run.no_web;
    run.listen.is_some() || run.name.is_some() || !run.advertise.is_empty() || off
}

/// A path in a share, relative to its folder; `None` for the folder itself.
pub(super) fn below(dir: &Path, path: Option<PathBuf>) -> Option<PathBuf> {
    let path = path.map(|path| match path.strip_prefix(dir) {
        Ok(below) => below.to_path_buf(),
        Err(_) => path,
    });
    // The share's own folder is all of it.
    path.filter(|p| !p.as_os_str().is_empty())
}

/// The daemon may have another working folder.
pub(super) fn absolute(dir: &Path) -> Result<PathBuf, UserError> {
    std::path::absolute(dir)
        .map_err(|e| UserError::usage("cannot read the folder", e, "give its full path"))
}

/// Only what tells a ticket from another text: its checksum is looked at by who uses it.
fn ticket_text(text: &str) -> Result<String, UserError> {
    let text = text.trim();
    if text.to_ascii_lowercase().starts_with("left1") {
        return Ok(text.to_string());
    }
    Err(UserError::usage(
        "cannot join",
        "this is no ticket: a ticket starts with `left1`",
        "copy the whole line that `left share` printed on the other machine",
    ))
}

pub(super) fn ticket_time(text: &str) -> Result<Duration, UserError> {
    let time = parse::duration(text)?;
    if time < Duration::from_secs(1) || time > MAX_EXPIRES {
        return Err(UserError::usage(
            "cannot make a ticket",
            "it may work for a second up to a year",
            "give another --expires, such as 1d",
        ));
    }
    Ok(time)
}

fn checked_name(name: &str) -> Result<String, UserError> {
    let name = name.trim();
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(UserError::usage(
            "cannot take this device name",
            format!("it is empty, longer than {MAX_NAME} bytes or has control characters"),
            "give another --name",
        ));
    }
    Ok(name.to_string())
}

fn host_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    checked_name(&name).unwrap_or_else(|_| "unnamed".to_string())
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
