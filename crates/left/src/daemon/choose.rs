//! What this device holds of a share: asked for, changed, and what came of it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use left_core::engine::{Dropped, Kept};
use left_core::path::RelPath;
use left_core::select::Selection;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::home::{UserError, text};

/// What to do with the paths that are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Choosing {
    /// Hold these and nothing else.
    Only,
    /// Hold these too.
    Add,
    /// Hold these no more. What no other connected device has stays until another one has it.
    Remove,
    /// Hold everything.
    All,
    /// As `add`, of what is known only.
    Fetch,
    /// As `remove`; nothing is changed when nothing of it can go.
    Drop,
}

/// A path that is named in a choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChoiceRule {
    /// Which, relative to the share.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// Whether it is held, with all below it that is not named itself.
    pub held: bool,
}

/// What this device holds of a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Choice {
    /// All of it.
    pub everything: bool,
    /// Whether what no rule names is held.
    pub rest: bool,
    /// What is named, in order.
    pub rules: Vec<ChoiceRule>,
    /// The record of it is damaged: nothing new is brought until something is chosen.
    pub damaged: bool,
}

/// What came of a choice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Chosen {
    /// Files (and links) that went from this device.
    pub dropped: u64,
    /// Their bytes. They are free after about ten seconds.
    pub dropped_bytes: u64,
    /// What is still here though it is not chosen.
    pub kept: u64,
    /// The first of these, and why.
    pub kept_paths: Vec<super::handle::Problem>,
    /// The share does not run: the choice counts from when it does, and nothing was dropped.
    pub at_rest: bool,
}

impl Choice {
    pub(super) fn new(selection: &Selection, damaged: bool) -> Self {
        let rule = |(path, held): (&RelPath, bool)| ChoiceRule {
            path: std::ffi::OsStr::from_bytes(path.as_bytes()).into(),
            held,
        };
        Self {
            everything: selection.is_everything(),
            rest: selection.holds_rest(),
            rules: selection.rules().map(rule).collect(),
            damaged,
        }
    }
}

impl Chosen {
    pub(super) fn new(dropped: &Dropped) -> Self {
        // An order for everything that could not even begin names no path.
        let all = [(None, Kept::Held)];
        let all = all
            .iter()
            .filter(|_| dropped.named.is_empty() && dropped.kept > 0);
        let named = dropped.named.iter().map(|(path, why)| (Some(path), why));
        let named = named.chain(all.map(|(path, why)| (*path, why)));
        Self {
            dropped: dropped.files,
            dropped_bytes: dropped.bytes,
            kept: dropped.kept,
            kept_paths: named
                .map(|(path, why)| super::handle::Problem {
                    path: path.map_or_else(|| ".".to_owned(), ToString::to_string),
                    reason: reason(why).to_owned(),
                })
                .collect(),
            at_rest: false,
        }
    }
}

fn reason(why: &Kept) -> &str {
    match why {
        Kept::NoPeer => {
            "no other connected device has exactly this; connect one that has it, then try again"
        }
        Kept::Changing => "it is just being changed or brought; try again in a moment",
        Kept::Edited => "it was edited here just now; try again when the others have that",
        Kept::NotEmpty => "the folder holds what is not synchronised; move that away",
        Kept::Held => "the share is paused, in alarm or not looked at yet; see `left status`",
        Kept::Failed(why) => why,
    }
}

/// Paths of a share, as they were typed.
pub(super) fn paths(what: &str, paths: &[PathBuf]) -> Result<Vec<RelPath>, UserError> {
    let todo = "name it as it stands below the share's folder";
    let one = |path: &PathBuf| {
        let path: &Path = path;
        let bytes = path.as_os_str().as_bytes();
        let bytes = bytes.strip_suffix(b"/").unwrap_or(bytes);
        RelPath::new(bytes).map_err(|e| UserError::usage(what, e, todo))
    };
    paths.iter().map(one).collect()
}

/// The selection after `how` was done with `paths`.
pub(super) fn changed(
    before: &Selection,
    how: Choosing,
    paths: &[RelPath],
) -> Result<Selection, UserError> {
    let mut new = match how {
        Choosing::Only => Selection::nothing(),
        Choosing::All => Selection::everything(),
        _ => before.clone(),
    };
    let hold = !matches!(how, Choosing::Remove | Choosing::Drop);
    for path in paths {
        new.set(Some(path), hold)
            .map_err(|e| UserError::new("cannot choose", e, ""))?;
    }
    Ok(new)
}
