//! Choosing what this device holds, of a share that runs or of one that does not.

use std::path::{Path, PathBuf};

use crossbeam_channel::bounded;
use left_core::index::IndexError;
use left_core::path::RelPath;

use super::super::ask::Msg;
use super::super::choose::{self, Choice, Choosing, Chosen};
use super::super::members::Members;
use super::{Device, failed, lock};
use crate::home::{ChoiceRecord, MARKER_DIR, UserError, selection_of};
use crate::store::IndexReader;

impl Device {
    pub(super) fn choice_of(&self, dir: &Path) -> Result<Choice, UserError> {
        let record = self.record_of(dir)?.record();
        let (selection, damaged) = selection_of(record.choice.as_ref());
        Ok(Choice::new(&selection, damaged))
    }

    pub(super) fn choose_in(
        &self,
        dir: &Path,
        how: Choosing,
        paths: &[PathBuf],
    ) -> Result<Chosen, UserError> {
        let what = match how {
            Choosing::Fetch => "cannot fetch",
            Choosing::Drop => "cannot drop",
            _ => "cannot choose",
        };
        let members = self.record_of(dir)?;
        let paths = choose::paths(what, paths)?;
        // One after another: each changes what the one before left.
        let _one = lock(&self.choosing);
        let known = |path: &RelPath| is_known(&members, path);
        // A mistyped name would have everything else go from here. One that is to be left out may come.
        if !matches!(how, Choosing::Remove | Choosing::All) {
            for path in &paths {
                let known = known(path).map_err(|e| UserError::new(what, e, "try again"))?;
                if !known {
                    let what = format!("{what} {path}");
                    let why = "there is no such file or folder in the share";
                    return Err(UserError::new(what, why, "see `left choose DIR`"));
                }
            }
        }
        let before = members.record().choice.clone();
        let (selection, _) = selection_of(before.as_ref());
        let selection = choose::changed(&selection, how, &paths)?;
        let record = ChoiceRecord::new(&selection)?;
        members.update(|r| r.choice = record)?;
        let drops = !matches!(how, Choosing::Add | Choosing::All | Choosing::Fetch);
        let at = match (how, paths.as_slice()) {
            (Choosing::Remove | Choosing::Drop, [path]) => Some(path.clone()),
            _ => None,
        };
        let (reply, done) = bounded(1);
        let running = lock(&self.shares).get(&members.id()).map(|r| r.tx.clone());
        let drop = drops.then_some(at);
        let sent = running.is_some_and(|tx| {
            let selection = selection.clone();
            tx.send(Msg::Choose(selection, drop, reply)).is_ok()
        });
        if !sent {
            return Ok(Chosen {
                at_rest: true,
                ..Chosen::default()
            });
        }
        let dropped = done.recv().map_err(|_| {
            failed(
                what,
                "the share stops just now; what is not chosen may still be here",
            )
        })?;
        let nothing = dropped.files + dropped.dirs == 0;
        if how == Choosing::Drop && nothing && dropped.kept > 0 {
            members.update(|r| r.choice = before.clone())?;
            let (reply, done) = bounded(1);
            let (selection, _) = selection_of(before.as_ref());
            self.send(dir, Msg::Choose(selection, None, reply))?;
            let _ = done.recv();
            let chosen = Chosen::new(&dropped);
            let first = chosen.kept_paths.first();
            let (why, todo) = match first {
                Some(first) => super::split_todo(&format!("{}: {}", first.path, first.reason)),
                None => ("nothing of it can go now".to_owned(), String::new()),
            };
            return Err(UserError::new(what, why, todo));
        }
        Ok(Chosen::new(&dropped))
    }
}

/// Whether the share has something at a path, here or elsewhere.
fn is_known(members: &Members, path: &RelPath) -> Result<bool, IndexError> {
    let file = members.record().path.join(MARKER_DIR).join("index.db");
    let reader = IndexReader::open(&file).map_err(|e| IndexError::Failed(e.to_string()))?;
    let here = reader.get(path)?.is_some_and(|r| r.entry.node.is_live());
    Ok(here || !reader.theirs(path)?.is_empty())
}
