//! Which share a path belongs to, and what its past is worked with.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;
use jiff::Zoned;
use left_core::message::Role;

use super::super::ask::Msg;
use super::super::history::{Lent, Past, Scribe, Who, when};
use super::super::members::Members;
use super::{Device, failed, lock};
use crate::disk::{History, Limits, Root, Stage};
use crate::home::{Config, MARKER_DIR, UserError, clean, lock_share};
use crate::store::Journal;

/// How long a busy share may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which versions are kept, as the settings say.
pub(super) fn history_limits(config: &Config) -> Limits {
    let history = config.history;
    Limits {
        days: history.days.into(),
        max_percent: history.max_percent.into(),
        keep: (history.keep > 0).then_some(history.keep),
    }
}

impl Device {
    /// The past of the share that `path` (or `PATH@VERSION`) belongs to, and the path as that share's
    /// folder is spelled.
    pub(super) fn past_of(&self, path: &Path) -> Result<(Past, PathBuf), UserError> {
        let (members, path) = self.share_around(path)?;
        let record = members.record();
        let dir = record.path.clone();
        let mut names: HashMap<_, _> = members
            .fellows()
            .iter()
            .map(|f| (f.device, f.name.clone()))
            .collect();
        // Also those that are members no more.
        for member in &record.members {
            names
                .entry(member.device)
                .or_insert_with(|| member.name.clone());
        }
        names.insert(self.door.device, self.options.name.clone());
        let who = Who {
            me: self.door.device,
            names,
            read_only: record.role == Role::ReadOnly,
        };
        let running = lock(&self.shares).get(&members.id()).map(|r| r.tx.clone());
        if let Some(tx) = running {
            let (reply, lent) = bounded(1);
            let busy = |_| {
                failed(
                    "cannot reach the share",
                    "it stops, starts or is broken just now",
                )
            };
            tx.send(Msg::Lend(reply)).map_err(|e| busy(e.to_string()))?;
            let lent = lent
                .recv_timeout(PATIENCE)
                .map_err(|e| busy(e.to_string()))?;
            return Ok((Past::new(dir, lent, who, Some(tx), None), path));
        }
        let held = lock_share(&dir)?;
        let lent = open(&dir)?;
        Ok((Past::new(dir, lent, who, None, Some(held)), path))
    }

    /// The share whose folder is `path` or holds it. The last part of the path is taken as it is: it
    /// may be gone, or be a link.
    fn share_around(&self, path: &Path) -> Result<(Members, PathBuf), UserError> {
        let shares: Vec<PathBuf> = self.home.shares()?.into_iter().map(|r| r.path).collect();
        let around = |path: &Path| {
            let inside = shares.iter().filter(|dir| path.starts_with(dir));
            inside.max_by_key(|dir| dir.as_os_str().len()).cloned()
        };
        let mut spellings = Vec::new();
        for path in [
            Some(path.to_path_buf()),
            when::split(path, &Zoned::now()).map(|s| s.0),
        ] {
            let Some(path) = path else { continue };
            if let Ok(full) = path.canonicalize()
                && shares.contains(&full)
            {
                spellings.push(full);
            }
            spellings.push(real(&path));
        }
        for spelling in spellings.iter() {
            if let Some(dir) = around(spelling) {
                // The version's text, where there is one, belongs to the name.
                let whole = match path.canonicalize() {
                    Ok(full) if full == dir => full,
                    _ if *spelling == dir => with_version(&dir, path),
                    _ => real(path),
                };
                return Ok((self.record_of(&dir)?, whole));
            }
        }
        Err(UserError::usage(
            format!("cannot find {}", clean(path)),
            "it does not lie in a share of this device",
            "name a path in a share (`left status` lists them)",
        ))
    }
}

/// The share's folder under its own spelling, with what stands after the last `@` of what was typed.
fn with_version(dir: &Path, typed: &Path) -> PathBuf {
    let typed = typed.as_os_str().as_encoded_bytes();
    let version = typed
        .iter()
        .rposition(|b| *b == b'@')
        .map(|at| &typed[at..]);
    let mut whole = dir.as_os_str().to_owned();
    if let Some(version) = version {
        whole.push(String::from_utf8_lossy(version).as_ref());
    }
    PathBuf::from(whole)
}

/// A path with every part but the last resolved, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    };
    match parent.canonicalize() {
        Ok(parent) => parent.join(name),
        Err(_) => real(parent).join(name),
    }
}

/// What a share that does not run is worked with.
fn open(dir: &Path) -> Result<Lent, UserError> {
    let what = format!("cannot open the share {}", clean(dir));
    let fail =
        |e: &dyn std::fmt::Display| UserError::new(&what, e, "`left doctor` looks for the cause");
    let root = Arc::new(Root::open(dir).map_err(|e| fail(&e))?);
    let stage = Arc::new(Stage::open(&root).map_err(|e| fail(&e))?);
    let history = Arc::new(History::open(&root).map_err(|e| fail(&e))?);
    let journal = Journal::open(&dir.join(MARKER_DIR).join("journal.db")).map_err(|e| fail(&e))?;
    let scribe = Scribe::start(journal).map_err(|e| fail(&e))?;
    Ok(Lent {
        root,
        stage,
        history,
        scribe,
    })
}
