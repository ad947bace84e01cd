//! The commands about the past: `log`, `diff`, `restore`, `conflicts`, `resolve`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::ask::Reached;
use super::output::Output;
use super::past_args::{RawKeep, RawPast};
use super::settings::absolute;
use super::{Start, format};
use crate::api::{
    Client, ConflictsRequest, DiffRequest, LogRequest, ResolveRequest, RestoreRequest,
    VersionsRequest,
};
use crate::daemon::handle::{Exit, UserError};
use crate::daemon::history::{
    ConflictInfo, DiffReport, Happened, Keep, LogEntry, RestoreReport, Thing, VersionInfo,
};
use crate::home::{Home, clean, enclosing_share, read_share};

/// Entries of a page of the log.
const PAGE: usize = 1000;

/// What is asked about the past; paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PastQuestion {
    Log { path: Option<PathBuf>, limit: usize },
    Diff(DiffRequest),
    Restore(RestoreRequest),
    Conflicts { path: Option<PathBuf> },
    Resolve(ResolveRequest),
}

pub(super) fn question(raw: RawPast) -> Result<PastQuestion, UserError> {
    Ok(match raw {
        RawPast::Log { path, limit } => PastQuestion::Log {
            path: path.as_deref().map(absolute).transpose()?,
            limit: limit as usize,
        },
        RawPast::Diff { path, at, to } => PastQuestion::Diff(DiffRequest {
            path: absolute(&path)?,
            version: at,
            to,
        }),
        RawPast::Restore {
            path,
            at,
            deleted_since,
            dry_run,
        } => PastQuestion::Restore(RestoreRequest {
            path: absolute(&path)?,
            version: at,
            deleted_since,
            dry_run,
        }),
        RawPast::Conflicts { path } => PastQuestion::Conflicts {
            path: path.as_deref().map(absolute).transpose()?,
        },
        RawPast::Resolve { path, keep, base } => {
            let keep = match keep {
                RawKeep::Ours => Keep::Ours,
                RawKeep::Theirs => Keep::Theirs,
                RawKeep::File => Keep::File,
                RawKeep::Copy => Keep::Copy,
                RawKeep::Both => Keep::Both,
                RawKeep::Merge => Keep::Merge,
            };
            let path = absolute(&path)?;
            PastQuestion::Resolve(ResolveRequest { path, keep, base })
        }
    })
}

pub(super) fn ask(
    home: &Home,
    question: PastQuestion,
    out: Output,
    start: Start,
) -> Result<Exit, UserError> {
    let left = Reached::reach(home, start, true)?;
    let client = &left.client;
    match question {
        PastQuestion::Log { path, limit } => {
            let is_one = path.is_some();
            for path in paths(home, path)? {
                log(client, &path, limit, is_one, out)?;
            }
        }
        PastQuestion::Diff(request) => {
            let report = client.diff(&request)?;
            match out.json() {
                true => out.object(&report),
                false => out.text(&diff_text(&report)),
            }
        }
        PastQuestion::Restore(request) => {
            let report = client.restore(&request)?;
            match out.json() {
                true => out.object(&report),
                false => restore_lines(&report).iter().for_each(|l| out.line(l)),
            }
            if report.missing_count > 0 {
                return Ok(Exit::Failure);
            }
        }
        PastQuestion::Conflicts { path } => {
            let mut count = 0;
            for path in paths(home, path)? {
                let conflicts = client.conflicts(&ConflictsRequest { path: path.clone() })?;
                count += conflicts.len();
                for c in &conflicts {
                    match out.json() {
                        true => out.object(&Of {
                            share: share_of(&path),
                            of: c,
                        }),
                        false => conflict_lines(c).iter().for_each(|l| out.line(l)),
                    }
                }
            }
            if count == 0 && !out.json() {
                out.line("No conflicts.");
            }
        }
        PastQuestion::Resolve(request) => {
            let resolved = client.resolve(&request)?;
            match out.json() {
                true => out.object(&resolved),
                false => out.line(&format!("{}.", format::text(&resolved.told))),
            }
            if !resolved.done {
                return Ok(Exit::Failure);
            }
        }
    }
    Ok(Exit::Ok)
}

/// The folder of the share that a path lies in; what was named where that is none.
fn share_of(path: &Path) -> String {
    let inside = read_share(path).is_err();
    let dir = inside.then(|| enclosing_share(path)).flatten();
    clean(dir.as_deref().unwrap_or(path))
}

/// An answer with the share that it is of.
#[derive(Serialize)]
struct Of<'a, T> {
    share: String,
    #[serde(flatten)]
    of: &'a T,
}

/// The path that was named, or the folders of all shares.
fn paths(home: &Home, path: Option<PathBuf>) -> Result<Vec<PathBuf>, UserError> {
    match path {
        Some(path) => Ok(vec![path]),
        None => Ok(home.shares()?.into_iter().map(|r| r.path).collect()),
    }
}

fn log(
    client: &Client,
    path: &Path,
    limit: usize,
    is_one: bool,
    out: Output,
) -> Result<(), UserError> {
    let versions = client.versions(&VersionsRequest { path: path.into() })?;
    if !out.json() {
        if !is_one {
            out.line(&format!("{}:", clean(path)));
        }
        version_lines(&versions).iter().for_each(|l| out.line(l));
    }
    if out.json() {
        versions.iter().for_each(|v| {
            out.object(&Of {
                share: share_of(path),
                of: v,
            })
        });
    }
    let mut before = None;
    let mut rest = limit;
    while rest > 0 {
        let request = LogRequest {
            path: path.into(),
            before,
            limit: rest.min(PAGE),
        };
        let page = client.log(&request)?;
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        rest -= page.len().min(rest);
        for entry in &page {
            match out.json() {
                true => out.object(&Of {
                    share: share_of(path),
                    of: entry,
                }),
                false => out.line(&log_line(entry)),
            }
        }
    }
    if before.is_none() && versions.is_empty() && !out.json() {
        out.line("Nothing changed, as far as this device remembers.");
    }
    Ok(())
}

fn version_lines(versions: &[VersionInfo]) -> Vec<String> {
    let mut lines: Vec<String> = versions
        .iter()
        .map(|v| {
            let what = match v.thing {
                Thing::Link => "link".to_owned(),
                _ => format::bytes(v.size),
            };
            format!("  @{:<3} until {}  {what:>8}", v.n, moment(v.until))
        })
        .collect();
    if !lines.is_empty() {
        lines.insert(0, "Versions kept on this device:".to_owned());
        lines.push("Changes:".to_owned());
    }
    lines
}

fn log_line(e: &LogEntry) -> String {
    let what = match e.what {
        Happened::Created => "created",
        Happened::Changed => "changed",
        Happened::Deleted => "deleted",
    };
    let size = match e.thing {
        Thing::File => format::bytes(e.size),
        Thing::Folder => "folder".to_owned(),
        Thing::Link => "link".to_owned(),
    };
    let by = match e.by.is_empty() {
        true => e.device.short(),
        false => format::text(&e.by),
    };
    let kept = match (e.what, &e.kept) {
        (Happened::Created, _) => "",
        (_, Some(_)) => "  (old version kept)",
        (_, None) => "",
    };
    let path = format::text(&e.path);
    format!(
        "  {}  {what}  {size:>8}  by {by}  {path}{kept}",
        moment(e.when)
    )
}

fn diff_text(report: &DiffReport) -> String {
    let path = format::text(&report.path);
    let old = format::bytes(report.old_size);
    match (&report.text, report.new_size) {
        _ if report.same => format!("{path}: the same bytes, {old}\n"),
        (Some(text), _) => tame(text),
        (None, Some(new)) => {
            format!(
                "{path}: no text, or too long to compare: {old} then, {} now\n",
                format::bytes(new)
            )
        }
        (None, None) => format!("{path}: no text: {old} then, gone now\n"),
    }
}

/// A text from elsewhere, line by line, that can not talk to the terminal.
fn tame(text: &str) -> String {
    let mut tame = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => tame.push(c),
            '\r' => tame.push(c),
            c if c.is_control() => tame.extend(c.escape_default()),
            c => tame.push(c),
        }
    }
    tame
}

fn restore_lines(report: &RestoreReport) -> Vec<String> {
    /// Paths that are named.
    const SHOWN: usize = 20;
    let mut lines = Vec::new();
    let (would, done) = match report.dry_run {
        true => ("would bring back", "would be brought back"),
        false => ("brought back", "brought back"),
    };
    for path in report.paths.iter().take(SHOWN) {
        lines.push(format!("{would}: {}", format::text(path)));
    }
    let more = report
        .restored
        .saturating_sub(SHOWN.min(report.paths.len()) as u64);
    if more > 0 {
        lines.push(format!("… and {more} more"));
    }
    for p in report.missing.iter().take(SHOWN) {
        lines.push(format!(
            "not brought back: {}: {}",
            format::text(&p.path),
            format::text(&p.reason)
        ));
    }
    let more = report
        .missing_count
        .saturating_sub(SHOWN.min(report.missing.len()) as u64);
    if more > 0 {
        lines.push(format!("… and {more} more that could not be had"));
    }
    if report.restored + report.same + report.missing_count == 0 {
        return vec!["There is nothing to bring back.".to_owned()];
    }
    let mut sum = format!(
        "{} {done}, {}",
        format::count(report.restored, "path"),
        format::bytes(report.bytes)
    );
    if report.same > 0 {
        sum.push_str(&format!(
            "; {} so already",
            format::count(report.same, "path")
        ));
    }
    if report.missing_count > 0 {
        sum.push_str(&format!(
            "; {} could not be had here (the device that keeps it may be another one: run the same there)",
            report.missing_count
        ));
    }
    lines.push(sum + ".");
    if report.only_here && !report.dry_run && report.restored > 0 {
        lines.push("This device only receives: what was brought back stays here.".to_owned());
    }
    lines
}

fn conflict_lines(c: &ConflictInfo) -> Vec<String> {
    let edit = |size: u64, modified: i64| {
        let time = u64::try_from(modified).map_or_else(|_| "before 1970".into(), moment);
        format!("{}, written {time}", format::bytes(size))
    };
    let file = match (c.size, c.modified) {
        (Some(size), Some(modified)) => edit(size, modified),
        _ => "gone".to_owned(),
    };
    let by = match (c.copy_is_ours, c.copy_by.is_empty()) {
        (true, _) => "this device's edit".to_owned(),
        (_, true) => "written too late by a program".to_owned(),
        (_, false) => format!("edit of {}", format::text(&c.copy_by)),
    };
    vec![
        format!("{}  ({file})", format::text(&c.path)),
        format!(
            "  {}  ({}, {by})",
            format::text(&c.copy),
            edit(c.copy_size, c.copy_modified)
        ),
    ]
}

/// A moment in this machine's time.
fn moment(ms: u64) -> String {
    let since = Duration::from_millis(ms);
    match Timestamp::from_second(i64::try_from(since.as_secs()).unwrap_or(i64::MAX)) {
        Ok(time) => {
            let zoned = time.to_zoned(TimeZone::system());
            zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        Err(_) => "an unknown time".to_owned(),
    }
}
