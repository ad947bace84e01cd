//! The command line: a client of the API, and the process that the daemon lives in.
//!
//! `share`, `join`, `sync` and `up` go through the running left of this device when there is one,
//! and return; else they become it and stay in the foreground until SIGINT or SIGTERM. All other
//! commands ask the running left; where it makes sense they work without one too.
//!
//! Errors are one line on stderr, `left: what: why; what to do`. Exit codes ([`Exit`]): 0 done,
//! 1 not done, 2 the command line makes no sense, 3 not in sync in time, 4 files are damaged and
//! could not all be healed. With `--json`, stdout has one JSON object a line: events of a running
//! left ([`DaemonEvent`](crate::daemon::handle::DaemonEvent)), or the answer of a command; an
//! error is also there, as `{"event":"error",...}`.

mod args;
mod ask;
mod choose;
pub mod demo;
mod doctor;
mod format;
mod generate;
mod live;
mod log;
mod machine;
mod modes;
mod once;
mod output;
mod parse;
mod past;
mod past_args;
mod run;
mod service;
mod settings;
mod signals;
mod status_text;
mod ui;
mod web;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;

use crate::daemon::handle::{Daemon, Options};
use crate::home::{Exit, Home, UserError};
use output::Output;
use settings::{Command, Stop};

/// Starts a daemon that runs no share yet. It holds [`Home::lock`] until it is dropped.
pub type Start = fn(Home, Options) -> Result<Arc<dyn Daemon>, UserError>;

/// Runs the program with this process' arguments.
pub fn main(start: Start) -> ExitCode {
    run(std::env::args_os(), start)
}

/// Runs the program with these arguments, the program's name first.
pub fn run(args: impl IntoIterator<Item = OsString>, start: Start) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    // What cannot be read as a command line may still say how it wants to hear that.
    let words = args.iter().take_while(|a| *a != "--");
    let unread = Output::new(words.into_iter().any(|a| a == "--json"), 0);
    let settings = match settings::read(args, std::env::var("LEFT_CODE").ok()) {
        Ok(settings) => settings,
        Err(Stop::Clap(e)) if !e.use_stderr() => {
            // Help and the version. A closed pipe is nobody's fault.
            let _ = e.print();
            return ExitCode::SUCCESS;
        }
        Err(Stop::Clap(e)) => return failed(&mistyped(&e), unread),
        Err(Stop::Help(text)) => {
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
            return ExitCode::from(Exit::Usage as u8);
        }
        Err(Stop::Bad(e)) => return failed(&e, unread),
    };
    let out = Output::new(settings.json, settings.verbose);
    log::init(settings.verbose);
    let result = match settings.command {
        Command::Run(job, how) => run::run(job, &how, out, start),
        Command::Ask(question) => ask::ask(question, out, start),
        Command::Once(what) => once::run(what, out),
        Command::Machine(command) => machine::run(&command, out),
        Command::Demo { size } => demo::run(&demo::Plan::of_this_program(size), out.json()),
    };
    match result {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(e) => failed(&e, out),
    }
}

/// What the library for command lines says, as one line like all others.
fn mistyped(error: &clap::Error) -> UserError {
    let text = error.to_string();
    let usage = text.lines().find_map(|l| l.strip_prefix("Usage: "));
    let said: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|l| !l.starts_with("Usage:") && !l.starts_with("For more information"))
        .filter(|l| !l.is_empty())
        .collect();
    // Only lists of what is missing go on after a colon.
    let said = said.join("; ").replace(":; ", ": ");
    let why = match error.kind() {
        // It says what the command is for, and lists the ones below it.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "a word is missing",
        _ => said.strip_prefix("error: ").unwrap_or(&said),
    };
    let todo = match usage {
        Some(usage) => format!("write it like `{}`; --help tells more", usage.trim()),
        None => "--help tells more".to_owned(),
    };
    UserError::usage("cannot read the command line", why, todo)
}

fn failed(error: &UserError, out: Output) -> ExitCode {
    out.error(error);
    ExitCode::from(error.exit_code)
}
