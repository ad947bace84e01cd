//! Commands that ask and return.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::output::Output;
use super::run::{running, ticket_lines};
use super::settings::{self, Question, RunSettings};
use super::{Start, choose, format, modes, past, status_text, web};
use crate::api::{self, Client, Server};
use crate::daemon::handle::{
    ApplyTimes, Daemon, Exit, Removed, ShareStatus, State, Status, UserError, VerifyReport,
    WaitResult,
};
use crate::daemon::members_at_rest;
use crate::home::{Home, ShareRecord, clean, read_share};

pub(super) fn ask(question: Question, out: Output, start: Start) -> Result<Exit, UserError> {
    let home = Home::open(None)?;
    match question {
        Question::Status => status(&home, out)?,
        Question::Wait { dir, timeout } => return wait(&home, dir.as_deref(), timeout, out),
        Question::Verify { dir } => return verify(&home, dir.as_deref(), out, start),
        Question::Ticket { dir, role, expires } => {
            let left = Reached::reach(&home, start, true)?;
            let ticket = left.client.ticket(&dir, role, expires)?;
            if left.temporary.is_some() {
                out.note(
                    "left does not run: start it with `left up`, or the ticket cannot be used",
                );
            }
            match out.json() {
                true => out.object(&ticket),
                false => ticket_lines(&ticket).iter().for_each(|l| out.line(l)),
            }
        }
        Question::Pause { dir } => {
            Reached::reach(&home, start, true)?.client.pause(&dir)?;
            done(
                out,
                &format!("{} is paused; `left resume` lets it go on.", clean(&dir)),
            );
        }
        Question::Resume {
            dir,
            accept_deletions,
        } => {
            let left = Reached::reach(&home, start, true)?;
            let alarm = left.client.status()?.shares.into_iter().any(|s| {
                let same = |p: &std::path::Path| p.canonicalize().unwrap_or_else(|_| p.into());
                s.state == State::Alarm && same(&s.path) == same(&dir)
            });
            left.client.resume(&dir, accept_deletions)?;
            done(
                out,
                &match alarm && !accept_deletions {
                    true => format!(
                        "{} is looked at again: it goes on if all is there; `left status` tells.",
                        clean(&dir)
                    ),
                    false => format!("{} goes on.", clean(&dir)),
                },
            );
        }
        Question::RemovePeer { dir, who } => {
            let left = Reached::reach(&home, start, true)?;
            let removed = left.client.remove_peer(&dir, &who)?;
            if left.temporary.is_some() {
                out.note("left does not run: the others hear of it when it does (`left up`)");
            }
            match out.json() {
                true => out.object(&removed),
                false => removed_lines(&removed).iter().for_each(|l| out.line(l)),
            }
        }
        Question::Revert { dir, path } => {
            let left = running(&home)?.ok_or_else(|| not_running("cannot take edits back"))?;
            let reverted = left.revert(&dir, path.as_deref())?;
            match out.json() {
                true => out.object(&reverted),
                false => out.line(&match reverted.edits {
                    0 => "There is nothing to take back.".to_string(),
                    n => format!(
                        "{} taken back; what stood there is in .left/history.",
                        format::count(n, "edit")
                    ),
                }),
            }
        }
        Question::Limit { dir, up, down } => {
            let left = Reached::reach(&home, start, true)?;
            let rate = left.client.limit(&api::LimitRequest { dir, up, down })?;
            match out.json() {
                true => out.object(&rate),
                false => {
                    let text = |rate: Option<u64>| match rate {
                        Some(n) => format!("{}/s", format::bytes(n)),
                        None => "unlimited".to_string(),
                    };
                    out.line(&format!("up {}, down {}", text(rate.up), text(rate.down)));
                }
            }
        }
        Question::PausePeer { dir, who, paused } => {
            let left = Reached::reach(&home, start, true)?;
            let peer = left.client.pause_peer(&dir, &who, paused)?;
            let name = format::device(&peer.name, peer.device);
            match (out.json(), peer.paused) {
                (true, _) => out.object(&peer),
                (false, true) => out.line(&format!(
                    "{name} is paused; `left resume {} --peer {who}` lets it go on.",
                    clean(&dir)
                )),
                (false, false) => out.line(&format!("{name} goes on.")),
            }
        }
        Question::Modes(question) => return modes::ask(&home, question, out, start),
        Question::Choose(question) => return choose::ask(&home, question, out, start),
        Question::Past(question) => return past::ask(&home, question, out, start),
        Question::Leave { dir } => {
            Reached::reach(&home, start, true)?.client.leave(&dir)?;
            done(
                out,
                &format!(
                    "{} is no longer a share; its files are untouched.",
                    clean(&dir)
                ),
            );
        }
        Question::Id => {
            let left = Reached::reach(&home, start, true)?;
            let id = left.client.status()?.device.ok_or_else(|| {
                UserError::new(
                    "cannot tell the device's id",
                    "it has no key yet",
                    "run `left up`",
                )
            })?;
            #[derive(Serialize)]
            struct Id {
                device: String,
            }
            match out.json() {
                true => out.object(&Id {
                    device: id.to_string(),
                }),
                false => out.line(&id.to_string()),
            }
        }
        Question::Web { print } => {
            let left = running(&home)?.ok_or_else(|| not_running("cannot open the page"))?;
            web::open(&left.page_link()?, print, out);
        }
        Question::Reload => {
            let left = running(&home)?.ok_or_else(|| not_running("cannot reload"))?;
            let reloaded = left.reload()?;
            match out.json() {
                true => out.object(&reloaded),
                false => out.line(&reloaded.text()),
            }
        }
        Question::LogLevel { filter } => {
            let what = "cannot tell the log's level";
            let left = running(&home)?.ok_or_else(|| not_running(what))?;
            let level = left.log_level(filter)?;
            match out.json() {
                true => out.object(&level),
                false => out.line(&level.filter),
            }
        }
        Question::Stop => {
            running(&home)?
                .ok_or_else(|| not_running("there is nothing to stop"))?
                .stop()?;
            done(out, "Stopped.");
        }
    }
    Ok(Exit::Ok)
}

fn removed_lines(removed: &Removed) -> Vec<String> {
    let mut lines = vec![format!(
        "{} is out; each member refuses it from when it hears of it.",
        format::device(&removed.name, removed.device)
    )];
    for other in &removed.let_in {
        lines.push(format!(
            "It had let in {}, which stays a member.",
            format::text(other)
        ));
    }
    lines
}

/// A left to ask: the running one, or one started in this process for one question.
pub(super) struct Reached {
    pub(super) client: Client,
    temporary: Option<(Server, Arc<dyn Daemon>)>,
}

impl Reached {
    pub(super) fn reach(home: &Home, start: Start, offline: bool) -> Result<Self, UserError> {
        if let Some(client) = running(home)? {
            return Ok(Self {
                client,
                temporary: None,
            });
        }
        let mut options = settings::options(&RunSettings::default(), &home.config()?)?;
        options.offline = offline;
        let daemon = start(home.clone(), options)?;
        let server = api::serve(home, daemon.clone(), || {})?;
        let client = Client::connect(home)?.ok_or_else(|| {
            UserError::new(
                "cannot start",
                "the control socket does not answer",
                "try again",
            )
        })?;
        Ok(Self {
            client,
            temporary: Some((server, daemon)),
        })
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        if let Some((server, daemon)) = self.temporary.take() {
            drop(server);
            daemon.stop();
        }
    }
}

fn done(out: Output, line: &str) {
    match out.json() {
        true => out.object(&api::Done {}),
        false => out.line(line),
    }
}

pub(super) fn not_running(what: &str) -> UserError {
    UserError::new(
        what,
        "left does not run on this device",
        "start it with `left up`",
    )
}

/// Of the running left, or as far as the settings tell.
pub(super) fn current_status(home: &Home) -> Result<Status, UserError> {
    match running(home)? {
        Some(client) => client.status(),
        None => status_at_rest(home),
    }
}

fn status(home: &Home, out: Output) -> Result<(), UserError> {
    let status = current_status(home)?;
    match out.json() {
        true => out.object(&status),
        false => status_text::lines(&status).iter().for_each(|l| out.line(l)),
    }
    Ok(())
}

/// What the settings tell when no left runs.
fn status_at_rest(home: &Home) -> Result<Status, UserError> {
    let options = settings::options(&RunSettings::default(), &home.config()?)?;
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_string(),
        pid: None,
        device: None,
        name: options.name,
        listen: Vec::new(),
        discovery: None,
        shares: home.shares()?.into_iter().map(share_at_rest).collect(),
    })
}

fn share_at_rest(record: ShareRecord) -> ShareStatus {
    let peers = members_at_rest(&record);
    ShareStatus {
        id: record.id,
        path: record.path,
        role: record.role,
        state: if record.paused {
            State::Paused
        } else {
            State::Offline
        },
        files: 0,
        dirs: 0,
        bytes: 0,
        need_files: 0,
        need_bytes: 0,
        away_files: 0,
        away_bytes: 0,
        peers,
        conflicts: Vec::new(),
        local_edits: Vec::new(),
        local_edit_count: 0,
        mode: record.mode,
        withheld: Vec::new(),
        withheld_count: 0,
        withheld_bytes: 0,
        problems: Vec::new(),
        notices: Vec::new(),
        alarm: None,
        transfers: Vec::new(),
        limit: record.limit,
        applied: ApplyTimes::default(),
    }
}

/// A script may start left and wait at once: a left that does not run yet is waited for too.
fn wait(
    home: &Home,
    dir: Option<&std::path::Path>,
    timeout: Duration,
    out: Output,
) -> Result<Exit, UserError> {
    let start = Instant::now();
    let client = loop {
        if let Some(client) = Client::connect(home)? {
            break client;
        }
        if start.elapsed() >= timeout {
            return Err(not_running("not in sync").exit(Exit::NotInSync));
        }
        thread::sleep(Duration::from_millis(20));
    };
    let result = client.wait(dir, timeout.saturating_sub(start.elapsed()))?;
    if out.json() {
        out.object(&result);
    } else if !result.in_sync {
        out.error(&still_missing(&result, timeout));
    }
    Ok(if result.in_sync {
        Exit::Ok
    } else {
        Exit::NotInSync
    })
}

fn still_missing(result: &WaitResult, timeout: Duration) -> UserError {
    let mut why = Vec::new();
    for m in &result.missing {
        let mut part = format!("{} is {}", clean(&m.share), m.state.name());
        if m.need_files > 0 || m.need_bytes > 0 {
            let (files, size) = (
                format::count(m.need_files, "file"),
                format::bytes(m.need_bytes),
            );
            part.push_str(&format!(", {files} ({size}) missing"));
        }
        if !m.why.is_empty() {
            part.push_str(&format!(", {}", m.why));
        }
        why.push(part);
    }
    if why.is_empty() {
        why.push("there is no share that runs".to_string());
    }
    let what = format!("not in sync after {}", format::time(timeout));
    let paused = result.missing.iter().find(|m| m.state == State::Paused);
    let help = match paused {
        Some(m) => format!("`left resume {}` lets it go on", clean(&m.share)),
        None => "see `left status`".to_string(),
    };
    UserError::new(what, why.join(", "), help).exit(Exit::NotInSync)
}

fn verify(
    home: &Home,
    dir: Option<&std::path::Path>,
    out: Output,
    start: Start,
) -> Result<Exit, UserError> {
    // A mistyped folder is an error, not a new share.
    if let Some(dir) = dir {
        read_share(dir)?;
    }
    // Healing needs the peers, so one that is started for this goes online.
    let left = Reached::reach(home, start, false)?;
    if left.temporary.is_some() {
        match dir {
            Some(dir) => drop(left.client.share(dir)?),
            None => drop(left.client.run_all()?),
        }
    }
    let report = left.client.verify(dir)?;
    match out.json() {
        true => out.object(&report),
        false => verify_lines(&report).iter().for_each(|l| out.line(l)),
    }
    let exit = if report.not_healed.is_empty() {
        Exit::Ok
    } else {
        Exit::Damaged
    };
    Ok(exit)
}

fn verify_lines(report: &VerifyReport) -> Vec<String> {
    let mut lines = Vec::new();
    for path in &report.damaged {
        let healed = if report.healed.contains(path) {
            ", healed"
        } else {
            ""
        };
        lines.push(format!("damaged{healed}: {}", format::text(path)));
    }
    for p in &report.not_healed {
        lines.push(format!(
            "not healed: {}: {}",
            format::text(&p.path),
            format::text(&p.reason)
        ));
    }
    let (files, bytes) = (
        format::count(report.files, "file"),
        format::bytes(report.bytes),
    );
    lines.push(match report.damaged.len() {
        0 => format!("{files} read, {bytes}: all as they should be."),
        n => {
            let healed = format::count(report.healed.len() as u64, "file");
            format!("{files} read, {bytes}: {n} damaged, {healed} healed.")
        }
    });
    lines
}
