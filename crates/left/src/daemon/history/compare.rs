//! Versions side by side: unified diffs, and merging three texts.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use left_core::path::RelPath;
use similar::{ConflictStyle, TextDiff, TextMerge};

use super::types::DiffReport;
use super::{At, Lent, Past, moment};
use crate::disk::{Found, restore::same_bytes};
use crate::home::UserError;

/// Longest file that is compared line by line, in bytes.
const MAX_TEXT: u64 = 4 << 20;
/// How long a comparison may look for the shortest answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Lines around a change.
const CONTEXT: usize = 3;

/// Something to read: its name for people, its bytes, their number.
pub struct Source {
    /// The path, and which version.
    pub label: String,
    /// At its start.
    pub file: File,
    /// Bytes.
    pub size: u64,
}

impl Past {
    /// Opens a kept version, or (`None`) what stands there now.
    pub fn open(&self, path: &RelPath, at: Option<&At>) -> Result<Source, UserError> {
        let what = format!("cannot read {path}");
        let fail =
            |e: std::io::Error| UserError::new(&what, e, "see that it can be read by your user");
        let Lent { root, history, .. } = &self.lent;
        let Some(at) = at else {
            if matches!(self.look(path)?, Some(Found::Dir(_))) {
                return Err(UserError::new(what, "it is a folder", "name a file"));
            }
            let (file, stat) = root.open_file(path).map_err(fail)?;
            let (label, size) = (path.to_string(), stat.size);
            return Ok(Source { label, file, size });
        };
        let kept = self.version(path, at)?;
        if kept.link {
            let why = "that version is a symbolic link";
            return Err(UserError::new(
                what,
                why,
                "bring it back with `left restore`",
            ));
        }
        let file = history.read(root, &kept.id, path).map_err(fail)?;
        Ok(Source {
            label: format!("{path} (until {})", moment(kept.until_ms)),
            file,
            size: kept.size,
        })
    }

    /// Compares a kept version with another one, or (`None`) with what stands there now.
    pub fn diff(
        &self,
        path: &RelPath,
        old: &At,
        new: Option<&At>,
    ) -> Result<DiffReport, UserError> {
        let mut old = self.open(path, Some(old))?;
        let is_gone = new.is_none() && self.look(path)?.is_none();
        let mut new = match is_gone {
            true => None,
            false => Some(self.open(path, new)?),
        };
        let fail = |e: std::io::Error| {
            UserError::new(
                format!("cannot read {path}"),
                e,
                "see that it can be read by your user",
            )
        };
        let mut report = DiffReport {
            path: path.to_string(),
            old_size: old.size,
            new_size: new.as_ref().map(|n| n.size),
            same: false,
            text: None,
        };
        let before = text(&mut old.file, old.size).map_err(fail)?;
        let after = match &mut new {
            None => Some(String::new()),
            Some(new) => text(&mut new.file, new.size).map_err(fail)?,
        };
        if let (Some(before), Some(after)) = (&before, &after) {
            report.same = new.is_some() && before == after;
            let label = new.map_or_else(|| "/dev/null".to_owned(), |n| n.label);
            report.text = Some(unified(before, after, &old.label, &label));
        } else if let Some(new) = &mut new {
            report.same = old.size == new.size && {
                use std::io::Seek;
                old.file.rewind().map_err(fail)?;
                new.file.rewind().map_err(fail)?;
                same_bytes(&mut old.file, &mut new.file).map_err(fail)?
            };
        }
        Ok(report)
    }
}

/// A unified diff; empty for equal texts.
fn unified(old: &str, new: &str, old_label: &str, new_label: &str) -> String {
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(old, new);
    diff.unified_diff()
        .context_radius(CONTEXT)
        .header(old_label, new_label)
        .to_string()
}

/// A whole file as text; `None` for one that is none (it has a NUL, or is not UTF-8), or too long.
pub(super) fn text(file: &mut File, size: u64) -> std::io::Result<Option<String>> {
    if size > MAX_TEXT {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(MAX_TEXT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_TEXT || bytes.contains(&0) {
        return Ok(None);
    }
    Ok(String::from_utf8(bytes).ok())
}

/// Two edits of one text in one: whole, or with marks where they meet.
pub(super) enum Merged {
    Clean(String),
    Marked(String),
}

/// Merges by lines. Without a common ancestor only what both have is not marked.
pub(super) fn merge(base: Option<&str>, file: &str, copy: &str, labels: [&str; 3]) -> Merged {
    let mut merge = TextMerge::from_lines(base.unwrap_or(""), file, copy);
    let clean = !merge.is_conflicted();
    let style = match base {
        Some(_) => ConflictStyle::Diff3,
        None => ConflictStyle::Merge,
    };
    let [base, file, copy] = labels;
    merge.conflict_style(style).labels(base, file, copy);
    match clean {
        true => Merged::Clean(merge.to_string()),
        false => Merged::Marked(merge.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [&str; 3] = ["before", "here", "copy"];

    #[test]
    fn edits_apart_merge_and_edits_that_meet_are_marked() {
        let base = "1\n2\n3\n4\n5\n";
        let Merged::Clean(text) = merge(
            Some(base),
            "one\n2\n3\n4\n5\n",
            "1\n2\n3\n4\nfive\n",
            LABELS,
        ) else {
            panic!("not clean");
        };
        assert_eq!(text, "one\n2\n3\n4\nfive\n");
        let Merged::Marked(text) = merge(
            Some(base),
            "one\n2\n3\n4\n5\n",
            "eins\n2\n3\n4\n5\n",
            LABELS,
        ) else {
            panic!("clean");
        };
        let wanted =
            "<<<<<<< here\none\n||||||| before\n1\n=======\neins\n>>>>>>> copy\n2\n3\n4\n5\n";
        assert_eq!(text, wanted);
        // Nothing is known of what was before: nothing is dropped.
        let Merged::Marked(text) = merge(None, "a\nb\n", "a\nc\n", LABELS) else {
            panic!("clean");
        };
        for line in ["a\n", "b\n", "c\n", "<<<<<<< here\n", ">>>>>>> copy\n"] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn a_diff_of_equal_texts_is_empty() {
        assert_eq!(unified("a\n", "a\n", "x", "y"), "");
        let text = unified("a\nb\n", "a\nc", "x", "y");
        let wanted = "--- x\n+++ y\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n\\ No newline at end of file\n";
        assert_eq!(text, wanted);
    }
}
