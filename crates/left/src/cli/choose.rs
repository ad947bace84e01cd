//! `left choose`, `left fetch` and `left drop`: what this device holds of a share.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;

use super::ask::Reached;
use super::output::Output;
use super::settings::absolute;
use super::{Start, format};
use crate::api::{ChooseRequest, Client, ListRequest};
use crate::daemon::handle::{Choice, Choosing, Chosen, EntryKind, Exit, FolderEntry, UserError};
use crate::home::{Home, clean, enclosing_share, read_share};

/// The commands as typed.
#[derive(Debug, Subcommand)]
pub(super) enum RawChoose {
    /// Choose which folders of a share this device holds; without any, show what is here and what is not.
    ///
    /// What is not chosen is listed with its size and not fetched. What is here and not chosen any more
    /// goes from this device, unless no other connected device has it. It is a deletion for nobody.
    #[command(
        after_help = "Examples:\n  left choose ~/photos 2024 trips/rome   these folders and nothing else\n  left choose ~/photos --add 2023\n  left choose ~/photos --remove trips/rome\n  left choose ~/photos --all             everything again\n  left choose ~/photos                   what is here, what is not"
    )]
    Choose {
        /// The share's folder.
        dir: PathBuf,
        /// Folders (or files) in it: these and nothing else.
        #[arg(conflicts_with_all = ["add", "remove", "all"])]
        only: Vec<PathBuf>,
        /// Hold these too.
        #[arg(long, value_name = "SUBFOLDER", num_args = 1.., conflicts_with_all = ["remove", "all"])]
        add: Vec<PathBuf>,
        /// Hold these no more.
        #[arg(long, value_name = "SUBFOLDER", num_args = 1.., conflicts_with = "all")]
        remove: Vec<PathBuf>,
        /// Hold everything.
        #[arg(long)]
        all: bool,
    },
    /// Bring files or folders that this device does not hold, and keep them up to date.
    #[command(after_help = "Example:\n  left fetch ~/photos/2019/beach.jpg")]
    Fetch {
        /// Where they are to be.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Remove files or folders from this device only; refuses what no other connected device has.
    ///
    /// It is a deletion for nobody, and `left fetch` brings it back. What was edited here and not told to
    /// the others yet stays.
    #[command(after_help = "Example:\n  left drop ~/photos/2019")]
    Drop {
        /// Which.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
}

/// The same, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ChooseQuestion {
    Show {
        dir: PathBuf,
    },
    Change {
        dir: PathBuf,
        how: Choosing,
        /// Relative to the folder.
        paths: Vec<PathBuf>,
    },
}

pub(super) fn question(raw: RawChoose) -> Result<ChooseQuestion, UserError> {
    match raw {
        RawChoose::Choose {
            dir,
            only,
            add,
            remove,
            all,
        } => {
            let dir = absolute(&dir)?;
            let all_paths = [&only, &add, &remove].into_iter().flatten();
            let paths: Vec<PathBuf> = all_paths.map(|p| below(&dir, p)).collect();
            let how = match (all, only.is_empty(), add.is_empty(), remove.is_empty()) {
                (true, ..) => Choosing::All,
                (_, false, ..) => Choosing::Only,
                (_, _, false, _) => Choosing::Add,
                (_, _, _, false) => Choosing::Remove,
                _ => return Ok(ChooseQuestion::Show { dir }),
            };
            Ok(ChooseQuestion::Change { dir, how, paths })
        }
        RawChoose::Fetch { paths } => in_share(Choosing::Fetch, "cannot fetch", &paths),
        RawChoose::Drop { paths } => in_share(Choosing::Drop, "cannot drop", &paths),
    }
}

/// A path in a share, however it was typed.
pub(super) fn below(dir: &Path, path: &Path) -> PathBuf {
    let path = path.strip_prefix(dir).unwrap_or(path);
    path.components().collect()
}

/// Paths that all lie in one share.
fn in_share(how: Choosing, what: &str, typed: &[PathBuf]) -> Result<ChooseQuestion, UserError> {
    let mut found: Option<PathBuf> = None;
    let mut paths = Vec::new();
    for path in typed {
        let path = absolute(path)?;
        let what = format!("{what} {}", clean(&path));
        if read_share(&path).is_ok() {
            let todo =
                "name what lies in it, or say what this device holds of it with `left choose DIR`";
            return Err(UserError::usage(&what, "it is a whole share", todo));
        }
        let dir = enclosing_share(&path).ok_or_else(|| {
            let todo = "name what lies in a share; `left choose DIR` shows what there is";
            UserError::usage(&what, "it is in no share", todo)
        })?;
        if found.as_ref().is_some_and(|f| *f != dir) {
            let todo = "run the command once for each";
            return Err(UserError::usage(what, "it lies in another share", todo));
        }
        paths.push(below(&dir, &path));
        found = Some(dir);
    }
    let dir = found.unwrap_or_default();
    Ok(ChooseQuestion::Change { dir, how, paths })
}

pub(super) fn ask(
    home: &Home,
    question: ChooseQuestion,
    out: Output,
    start: Start,
) -> Result<Exit, UserError> {
    let (ChooseQuestion::Show { dir } | ChooseQuestion::Change { dir, .. }) = &question;
    // A mistyped folder is an error, not a new share.
    read_share(dir)?;
    let left = Reached::reach(home, start, true)?;
    match &question {
        ChooseQuestion::Show { dir } => show(&left.client, dir, out)?,
        ChooseQuestion::Change { dir, how, paths } => {
            let request = ChooseRequest {
                dir: dir.clone(),
                how: *how,
                paths: paths.clone(),
            };
            let chosen = left.client.choose(&request)?;
            match out.json() {
                true => out.object(&chosen),
                false => lines(*how, &chosen).iter().for_each(|l| out.line(l)),
            }
            if *how == Choosing::Drop && chosen.kept > 0 {
                return Ok(Exit::Failure);
            }
        }
    }
    Ok(Exit::Ok)
}

fn lines(how: Choosing, chosen: &Chosen) -> Vec<String> {
    let mut lines = Vec::new();
    if chosen.at_rest {
        lines.push("left does not run: this counts from when it does (`left up`).".to_owned());
    } else if matches!(how, Choosing::Fetch | Choosing::Add | Choosing::All) {
        lines.push("It is being brought; `left wait DIR` tells when it is here.".to_owned());
    } else {
        lines.push(format!(
            "{} ({}) went from this device; others hold them.",
            format::count(chosen.dropped, "file"),
            format::bytes(chosen.dropped_bytes)
        ));
    }
    for kept in &chosen.kept_paths {
        let (path, reason) = (format::text(&kept.path), format::text(&kept.reason));
        lines.push(format!("still here: {path}: {reason}"));
    }
    let more = chosen.kept.saturating_sub(chosen.kept_paths.len() as u64);
    if more > 0 {
        lines.push(format!("still here: {more} more"));
    }
    lines
}

fn show(client: &Client, dir: &Path, out: Output) -> Result<(), UserError> {
    let choice = client.choice(dir)?;
    let mut entries = Vec::new();
    loop {
        let after = entries.last().map(|e: &FolderEntry| e.path.clone());
        let page = client.list(&ListRequest {
            dir: dir.to_path_buf(),
            path: None,
            after,
        })?;
        entries.extend(page.entries);
        if !page.more {
            break;
        }
    }
    #[derive(Serialize)]
    struct Shown<'a> {
        choice: &'a Choice,
        entries: &'a [FolderEntry],
    }
    match out.json() {
        true => out.object(&Shown {
            choice: &choice,
            entries: &entries,
        }),
        false => shown_lines(&choice, &entries)
            .iter()
            .for_each(|l| out.line(l)),
    }
    Ok(())
}

fn shown_lines(choice: &Choice, entries: &[FolderEntry]) -> Vec<String> {
    let mut lines = Vec::new();
    if choice.damaged {
        lines.push("The record of what this device holds is damaged: choose anew.".to_owned());
    } else if choice.everything {
        lines.push("This device holds everything.".to_owned());
    } else {
        let rest = if choice.rest { "everything" } else { "nothing" };
        lines.push(format!("This device holds {rest}, but"));
        for rule in &choice.rules {
            let word = if rule.held { "holds" } else { "leaves out" };
            lines.push(format!("  {word} {}", clean(&rule.path)));
        }
    }
    for entry in entries {
        let name = match entry.kind {
            EntryKind::Folder => format!("{}/", entry.name),
            _ => entry.name.clone(),
        };
        let (mut here, mut away) = (entry.bytes, entry.away_bytes);
        if !entry.held && entry.kind != EntryKind::Folder {
            (here, away) = (0, entry.bytes);
        }
        let more = if entry.at_least { "more than " } else { "" };
        let state = match (
            here > 0 || entry.held,
            away > 0 || entry.away_files > 0 || !entry.held,
        ) {
            (true, true) => format!(
                "{more}{} here, {} not here",
                format::bytes(here),
                format::bytes(away)
            ),
            (false, _) => format!("{more}{} not here", format::bytes(away)),
            (true, false) => format!("{more}{} here", format::bytes(here)),
        };
        lines.push(format!("{name:<40} {state}"));
    }
    lines
}
