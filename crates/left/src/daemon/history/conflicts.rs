//! Conflict copies: finding them, and ending the conflict. What is dropped goes to history.

use std::io::Cursor;

use left_core::conflict::{CopyOf, copy_of};
use left_core::entry::{FileStat, Mtime};
use left_core::path::RelPath;

use super::compare::{Merged, merge, text};
use super::log::millis;
use super::types::{ConflictInfo, Keep, Resolved};
use super::{At, Lent, Past, moment};
use crate::disk::{Found, Restorer};
use crate::home::UserError;

/// Conflicts that are listed.
const MAX_CONFLICTS: usize = 10_000;
/// Names that are tried for a copy that is kept.
const MAX_NAMES: u32 = 100;

impl Past {
    /// The conflict copies at and below a path: at most 10,000.
    pub fn conflicts(&self, at: Option<&RelPath>) -> Result<Vec<ConflictInfo>, UserError> {
        let found = self.copies(at)?;
        found
            .into_iter()
            .map(|(copy, of, stat)| self.conflict(&copy, &of, &stat))
            .collect()
    }

    /// Ends one conflict, named by the file or its copy. `base`: the version that both edits were made
    /// of, for a merge; else the oldest that is kept here and older than both.
    pub fn resolve(
        &self,
        path: &RelPath,
        keep: Keep,
        base: Option<&At>,
    ) -> Result<Resolved, UserError> {
        self.check()?;
        let what = format!("cannot end the conflict of {path}");
        let (copy, of) = self.one_copy(path, &what)?;
        let copy_is_ours = of.device.as_deref() == Some(self.who.me.short().as_str());
        let keep = match (keep, copy_is_ours) {
            (Keep::Ours, true) | (Keep::Theirs, false) => Keep::Copy,
            (Keep::Ours, false) | (Keep::Theirs, true) => Keep::File,
            (keep, _) => keep,
        };
        let keep = match self.look(&of.path)? {
            // The file is gone: the copy is all there is.
            None if matches!(keep, Keep::Copy | Keep::Both) => Keep::Copy,
            None => {
                let why = format!("{} is gone, only the copy is there", of.path);
                return Err(UserError::new(
                    what,
                    why,
                    "take `--keep copy`, or delete the copy",
                ));
            }
            Some(_) => keep,
        };
        let Lent {
            root,
            stage,
            history,
            ..
        } = &self.lent;
        let mut restorer = Restorer::new(root, stage, history);
        let resolved = match keep {
            Keep::File => self.drop_copy(&mut restorer, &copy, &of),
            Keep::Copy => self.take_copy(&mut restorer, &copy, &of),
            Keep::Both => self.keep_both(&mut restorer, &copy, &of),
            _ => self.merge(&mut restorer, &copy, &of, base),
        };
        let resolved = resolved.map_err(|why| {
            UserError::new(
                &what,
                why,
                "nothing is lost: see `left conflicts` and try again",
            )
        })?;
        let mut paths = vec![copy, of.path];
        let written = resolved.written.as_deref().map(RelPath::new);
        paths.extend(written.and_then(Result::ok));
        self.tell(paths);
        Ok(resolved)
    }

    fn copies(&self, at: Option<&RelPath>) -> Result<Vec<(RelPath, CopyOf, FileStat)>, UserError> {
        let mut found = Vec::new();
        let walked = self.lent.root.each_below(at, &mut |path, what| {
            let (Found::File(stat, _) | Found::Symlink(stat, _)) = what else {
                return;
            };
            if found.len() < MAX_CONFLICTS
                && let Some(of) = copy_of(&path)
            {
                found.push((path, of, stat));
            }
        });
        walked.map_err(|e| {
            UserError::new(
                "cannot look for conflicts",
                e,
                "see that the share's folder can be read by your user",
            )
        })?;
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    fn conflict(
        &self,
        copy: &RelPath,
        of: &CopyOf,
        stat: &FileStat,
    ) -> Result<ConflictInfo, UserError> {
        let file = match self.look(&of.path)? {
            Some(Found::File(stat, _) | Found::Symlink(stat, _) | Found::Dir(stat)) => Some(stat),
            _ => None,
        };
        let by = of.device.as_ref().map(|short| {
            let known = self.who.names.iter().find(|(id, _)| id.short() == *short);
            let name = known
                .map(|(_, name)| name.clone())
                .filter(|n| !n.is_empty());
            name.unwrap_or_else(|| short.clone())
        });
        Ok(ConflictInfo {
            path: of.path.to_string(),
            copy: copy.to_string(),
            size: file.map(|s| s.size),
            copy_size: stat.size,
            modified: file.map(|s| millis(s.mtime)),
            copy_modified: millis(stat.mtime),
            copy_is_ours: of.device.as_deref() == Some(self.who.me.short().as_str()),
            copy_by: by.unwrap_or_default(),
        })
    }

    /// The copy that is meant: the path itself, or the only one beside it.
    fn one_copy(&self, path: &RelPath, what: &str) -> Result<(RelPath, CopyOf), UserError> {
        if let Some(of) = copy_of(path)
            && self.look(path)?.is_some()
        {
            return Ok((path.clone(), of));
        }
        let mut all = match path.parent() {
            Some(parent) => self.copies(Some(&parent))?,
            None => self.copies(None)?,
        };
        all.retain(|(_, of, _)| of.path == *path);
        match all.len() {
            0 => Err(UserError::new(
                what,
                "there is no conflict copy beside it",
                "see `left conflicts`",
            )),
            1 => {
                let (copy, of, _) = all.remove(0);
                Ok((copy, of))
            }
            n => Err(UserError::new(
                what,
                format!("there are {n} conflict copies beside it"),
                "name one of them (see `left conflicts`)",
            )),
        }
    }

    fn drop_copy(
        &self,
        restorer: &mut Restorer<'_>,
        copy: &RelPath,
        of: &CopyOf,
    ) -> Result<Resolved, String> {
        restorer.remove(copy);
        all_done(restorer)?;
        Ok(done(
            of,
            format!("{} stays; the copy is in history", of.path),
            None,
        ))
    }

    fn take_copy(
        &self,
        restorer: &mut Restorer<'_>,
        copy: &RelPath,
        of: &CopyOf,
    ) -> Result<Resolved, String> {
        let told = format!(
            "{} has the copy's bytes now; what stood there is in history",
            of.path
        );
        let root = &self.lent.root;
        match root.look(&of.path).map_err(|e| e.to_string())? {
            None => {
                let renamed = restorer.rename(copy, &of.path);
                renamed.map_err(|e| e.to_string())?;
                return Ok(done(of, format!("the copy is {} now", of.path), None));
            }
            Some(Found::File(..)) => {}
            Some(_) => return Err(format!("{} is no file", of.path)),
        }
        let (file, stat) = root.open_file(copy).map_err(|e| e.to_string())?;
        restorer.place(&of.path, file, (stat.mode, stat.mtime), None);
        all_done(restorer)?;
        restorer.remove(copy);
        all_done(restorer)?;
        Ok(done(of, told, None))
    }

    fn keep_both(
        &self,
        restorer: &mut Restorer<'_>,
        copy: &RelPath,
        of: &CopyOf,
    ) -> Result<Resolved, String> {
        let mark = of.device.clone().unwrap_or_else(|| "late".to_owned());
        let mark = match self.who.names.iter().find(|(id, _)| id.short() == mark) {
            Some((_, name)) if !name.is_empty() && !name.contains(['/', '\0']) => name.clone(),
            _ => mark,
        };
        let name = self.free_name(&of.path, &format!("-{mark}"), |to| {
            restorer.rename(copy, to)
        })?;
        let told = format!("{} stays, the copy is {name} now", of.path);
        Ok(done(of, told, Some(name)))
    }

    fn merge(
        &self,
        restorer: &mut Restorer<'_>,
        copy: &RelPath,
        of: &CopyOf,
        base: Option<&At>,
    ) -> Result<Resolved, String> {
        let (file_text, file_stat) = self.read_text(&of.path)?;
        let (copy_text, copy_stat) = self.read_text(copy)?;
        let (base, base_label) = match self.base(&of.path, base, &file_stat, &copy_stat)? {
            Some((text, label)) => (Some(text), label),
            None => (None, "before".to_owned()),
        };
        let (here, there) = (of.path.to_string(), copy.to_string());
        let labels = [base_label.as_str(), here.as_str(), there.as_str()];
        let now = jiff::Timestamp::now();
        let mtime = Mtime {
            secs: now.as_second(),
            nanos: now.subsec_nanosecond().unsigned_abs(),
        };
        match merge(base.as_deref(), &file_text, &copy_text, labels) {
            Merged::Clean(text) => {
                let made = (file_stat.mode, mtime);
                restorer.place(&of.path, Cursor::new(text), made, Some(file_stat));
                all_done(restorer)?;
                restorer.remove(copy);
                all_done(restorer)?;
                let told = format!(
                    "{} has both edits now, made of {base_label}; both as they were are in history",
                    of.path
                );
                Ok(done(of, told, None))
            }
            Merged::Marked(text) => {
                let name =
                    self.free_name(&of.path, ".merge", |to| match self.lent.root.look(to) {
                        Ok(None) => {
                            let made = (file_stat.mode, mtime);
                            restorer.place(to, Cursor::new(&text), made, None);
                            Ok(())
                        }
                        Ok(Some(_)) => Err(std::io::ErrorKind::AlreadyExists.into()),
                        Err(e) => Err(e),
                    })?;
                all_done(restorer)?;
                let why = match base {
                    Some(_) => "both edits change the same lines",
                    None => "no version from before both edits is kept on this device",
                };
                Ok(Resolved {
                    path: of.path.to_string(),
                    done: false,
                    told: format!(
                        "{why}: {name} has both with marks. Decide there, put the result in place of {} \
                         and delete the copy (`left resolve {} --keep file`)",
                        of.path, of.path
                    ),
                    written: Some(name),
                })
            }
        }
    }

    fn read_text(&self, path: &RelPath) -> Result<(String, FileStat), String> {
        let opened = self.lent.root.open_file(path);
        let (mut file, stat) = opened.map_err(|e| format!("{path}: {e}"))?;
        let text = text(&mut file, stat.size).map_err(|e| format!("{path}: {e}"))?;
        let text = text.ok_or_else(|| format!("{path} is no text (or longer than 4 MiB)"))?;
        Ok((text, stat))
    }

    /// The text that both edits were made of, and what it is called. Any common ancestor will do; the
    /// oldest version is the one that is most surely one.
    fn base(
        &self,
        path: &RelPath,
        at: Option<&At>,
        file: &FileStat,
        copy: &FileStat,
    ) -> Result<Option<(String, String)>, String> {
        let Lent { root, history, .. } = &self.lent;
        let kept = match at {
            Some(at) => Some(self.version(path, at).map_err(|e| e.to_string())?),
            None => {
                let all = history.versions(root, path).map_err(|e| e.to_string())?;
                let older = |m: Mtime| m < file.mtime && m < copy.mtime;
                all.into_iter().rev().find(|v| !v.link && older(v.mtime))
            }
        };
        let Some(kept) = kept else { return Ok(None) };
        let read = history.read(root, &kept.id, path);
        let read = read.and_then(|mut file| text(&mut file, kept.size));
        let label = format!("the version until {}", moment(kept.until_ms));
        match read.map_err(|e| format!("{path}: {e}"))? {
            Some(text) => Ok(Some((text, label))),
            None if at.is_some() => Err(format!("{label} is no text")),
            None => Ok(None),
        }
    }

    /// Does `put` with the first name made of `path` and a mark before its extension that is free.
    fn free_name(
        &self,
        path: &RelPath,
        mark: &str,
        mut put: impl FnMut(&RelPath) -> std::io::Result<()>,
    ) -> Result<String, String> {
        let name = path.name();
        let dot = name.iter().rposition(|b| *b == b'.').filter(|at| *at > 0);
        let (stem, ext) = name.split_at(dot.unwrap_or(name.len()));
        for n in 1..=MAX_NAMES {
            let number = if n == 1 {
                String::new()
            } else {
                format!("-{n}")
            };
            let new = [stem, mark.as_bytes(), number.as_bytes(), ext].concat();
            let to = path
                .with_name(&new)
                .map_err(|e| format!("no name for it: {e}"))?;
            match put(&to) {
                Ok(()) => return Ok(to.to_string()),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(format!("{to}: {e}")),
            }
        }
        Err("no free name for it".into())
    }
}

fn done(of: &CopyOf, told: String, written: Option<String>) -> Resolved {
    Resolved {
        path: of.path.to_string(),
        done: true,
        told,
        written,
    }
}

/// Does what waits; the first failure, if there is one.
fn all_done(restorer: &mut Restorer<'_>) -> Result<(), String> {
    let mut failed = restorer
        .finish()
        .into_iter()
        .filter_map(|(_, put)| put.err());
    failed.next().map_or(Ok(()), Err)
}
