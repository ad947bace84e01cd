//! `.leftignore`: which paths are left alone, in gitignore syntax.

mod rules;

use std::collections::BTreeSet;
use std::ffi::OsStr;

use ::ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::path::RelPath;

pub use rules::{MAX_FOLDER_TEXT, MAX_FOLDERS, MAX_NESTED, Outcome, Rules};

/// The file in a share's root that holds the patterns, never ignored itself; and in a folder below
/// it, for what is in that folder.
pub const IGNORE_FILE: &[u8] = b".leftignore";
/// Most lines of the file that are read.
pub const MAX_LINES: usize = 10_000;
/// Longest line in bytes.
pub const MAX_LINE: usize = 4096;

/// Most messages about lines that are no pattern.
const MAX_COMPLAINTS: usize = 100;
/// Most patterns compiled together: the compiled form of one set is bounded in size.
const SET_LINES: usize = 1000;
/// Most `[` of one line: each one that stays open costs a walk to the line's end.
const MAX_BRACKETS: usize = 256;

/// Starts a line that stands for the lines of another file.
const INCLUDE: &[u8] = b"#include ";
/// Most files that are included, each as often as it is named.
const MAX_INCLUDED: usize = 64;
/// Included files that include each other, at most.
const MAX_DEPTH: usize = 8;
/// Most bytes of all together.
const MAX_TEXT: usize = 1 << 20;

/// A `.leftignore` with what it includes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Included {
    /// All lines.
    pub text: Vec<u8>,
    /// The files that were asked for: when one changes, so do the rules.
    pub files: BTreeSet<RelPath>,
    /// What could not be included, and why.
    pub errors: Vec<String>,
}

/// Puts in the place of each line `#include PATH` the lines of that file, as if they stood there.
/// `PATH` is that from the share's root. `read` gives a file of the share, or `None` when there is none.
pub fn include<E>(
    text: &[u8],
    read: &mut impl FnMut(&RelPath) -> Result<Option<Vec<u8>>, E>,
) -> Result<Included, E> {
    let mut out = Included::default();
    include_at(text, 0, &mut 0, read, &mut out)?;
    Ok(out)
}

fn include_at<E>(
    text: &[u8],
    depth: usize,
    count: &mut usize,
    read: &mut impl FnMut(&RelPath) -> Result<Option<Vec<u8>>, E>,
    out: &mut Included,
) -> Result<(), E> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    for line in text.split(|b| *b == b'\n') {
        let name = line.strip_prefix(INCLUDE).map(<[u8]>::trim_ascii);
        let Some(name) = name else {
            if out.text.len() + line.len() < MAX_TEXT {
                out.text.extend_from_slice(line);
                out.text.push(b'\n');
            }
            continue;
        };
        let mut refuse = |why: &str| {
            if out.errors.len() < MAX_COMPLAINTS {
                let name = String::from_utf8_lossy(&name[..name.len().min(320)]).into_owned();
                out.errors.push(format!("#include {name}: {why}"));
            }
        };
        let path = match RelPath::new(name) {
            Ok(path) => path,
            Err(e) => {
                refuse(&format!(
                    "{e}; name it as it stands below the share's folder"
                ));
                continue;
            }
        };
        if depth == MAX_DEPTH || *count == MAX_INCLUDED {
            refuse("too many files include each other");
            continue;
        }
        *count += 1;
        let found = read(&path)?;
        if found.is_none() {
            refuse("there is no such file");
        }
        out.files.insert(path);
        if let Some(text) = found {
            include_at(&text, depth + 1, count, read, out)?;
        }
    }
    Ok(())
}

/// Compiled patterns.
#[derive(Clone, Debug)]
pub struct Ignore {
    /// In the order of the file; a later pattern overrides an earlier one.
    sets: Vec<Gitignore>,
}

/// One line that seems to be a pattern.
struct Line<'a> {
    /// Counted from 1.
    number: usize,
    text: &'a str,
}

/// Messages about lines that are no pattern.
#[derive(Default)]
struct Complaints {
    said: Vec<(usize, String)>,
    unsaid: usize,
}

impl Ignore {
    /// No patterns.
    pub fn none() -> Self {
        Self { sets: Vec::new() }
    }

    /// Compiles the text of a `.leftignore`; lines that are no pattern are returned beside it,
    /// with their number and what is wrong. All other lines count.
    pub fn parse(text: &[u8]) -> (Self, Vec<String>) {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut complaints = Complaints::default();
        let mut lines = Vec::new();
        for (at, line) in text.split(|b| *b == b'\n').enumerate() {
            let number = at + 1;
            if at >= MAX_LINES {
                if text.split(|b| *b == b'\n').skip(at).any(|l| !l.is_empty()) {
                    complaints.add(
                        number,
                        b"",
                        &format!("only the first {MAX_LINES} lines are used"),
                    );
                }
                break;
            }
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match check_line(line) {
                Ok("") => {}
                Ok(text) => lines.push(Line { number, text }),
                Err(why) => complaints.add(number, line, &why),
            }
        }
        let mut sets = Vec::new();
        for some in lines.chunks(SET_LINES) {
            compile(some, &mut sets, &mut complaints);
        }
        (Self { sets }, complaints.finish())
    }

    /// Whether `path` (a folder when `is_dir`) or any folder above it is ignored. As in git,
    /// what is below an ignored folder can not be taken back in by a `!` pattern.
    pub fn is_ignored(&self, path: &RelPath, is_dir: bool) -> bool {
        if self.sets.is_empty() || path.as_bytes() == IGNORE_FILE {
            return false;
        }
        let bytes = path.as_bytes();
        let above = bytes.iter().enumerate().filter(|(_, b)| **b == b'/');
        above
            .into_iter()
            .any(|(at, _)| self.hit(&bytes[..at], true))
            || self.hit(bytes, is_dir)
    }

    /// Like [`is_ignored`](Self::is_ignored) when no folder above `path` is: for a walk from the
    /// root down, which does not enter ignored folders.
    pub fn is_ignored_itself(&self, path: &RelPath, is_dir: bool) -> bool {
        path.as_bytes() != IGNORE_FILE && self.hit(path.as_bytes(), is_dir)
    }

    /// Whether the last pattern that matches `path` itself is one to ignore it.
    fn hit(&self, path: &[u8], is_dir: bool) -> bool {
        self.verdict(path, is_dir) == Some(true)
    }

    /// What the last pattern that matches `path` itself says: ignore it or not. `None` without one.
    fn verdict(&self, path: &[u8], is_dir: bool) -> Option<bool> {
        let path = os_str(path);
        self.sets
            .iter()
            .rev()
            .map(|set| set.matched(&*path, is_dir))
            .find(|m| !m.is_none())
            .map(|m| m.is_ignore())
    }
}

impl Complaints {
    fn add(&mut self, number: usize, line: &[u8], why: &str) {
        if self.said.len() >= MAX_COMPLAINTS {
            self.unsaid += 1;
        } else if line.is_empty() {
            self.said.push((number, format!("line {number}: {why}")));
        } else {
            let text: String = String::from_utf8_lossy(&line[..line.len().min(320)])
                .chars()
                .take(80)
                .collect();
            self.said
                .push((number, format!("line {number}: {text:?}: {why}")));
        }
    }

    /// In the order of the lines.
    fn finish(mut self) -> Vec<String> {
        self.said.sort_by_key(|(number, _)| *number);
        let mut said: Vec<String> = self.said.into_iter().map(|(_, text)| text).collect();
        if self.unsaid > 0 {
            said.push(format!("{} more lines are no patterns", self.unsaid));
        }
        said
    }
}

/// The pattern of a line, empty when it has none.
fn check_line(line: &[u8]) -> Result<&str, String> {
    if line.first() == Some(&b'#') {
        return Ok("");
    }
    if line.len() > MAX_LINE {
        return Err(format!("longer than {MAX_LINE} bytes"));
    }
    let Ok(text) = std::str::from_utf8(line) else {
        return Err("not UTF-8; use ? for each odd byte".into());
    };
    if line.iter().filter(|b| **b == b'[').count() > MAX_BRACKETS {
        return Err(format!("more than {MAX_BRACKETS} times ["));
    }
    Ok(if text.trim().is_empty() { "" } else { text })
}

/// Compiles `lines` to one set, or to several when together they are too large.
fn compile(lines: &[Line<'_>], sets: &mut Vec<Gitignore>, complaints: &mut Complaints) {
    // An empty root: paths are matched as they are.
    let mut builder = GitignoreBuilder::new("");
    let mut good = Vec::with_capacity(lines.len());
    for line in lines {
        match builder.add_line(None, &for_library(line.text)) {
            Ok(_) => good.push(line),
            Err(e) => complaints.add(line.number, line.text.as_bytes(), &reason(e)),
        }
    }
    if good.is_empty() {
        return;
    }
    match builder.build() {
        Ok(set) => sets.push(set),
        Err(e) if lines.len() == 1 => {
            complaints.add(lines[0].number, lines[0].text.as_bytes(), &reason(e));
        }
        Err(_) => {
            // Bad lines were told above: go on with the good ones only.
            let good: Vec<Line<'_>> = good
                .into_iter()
                .map(|l| Line {
                    number: l.number,
                    text: l.text,
                })
                .collect();
            let half = good.len().div_ceil(2);
            compile(&good[..half], sets, complaints);
            compile(&good[half..], sets, complaints);
        }
    }
}

fn reason(error: ::ignore::Error) -> String {
    match error {
        ::ignore::Error::Glob { err, .. } => err,
        other => other.to_string(),
    }
}

/// The line as the library must see it to mean what it means to git: `{` and `}` are plain
/// characters, and `[!...]` does not match `/`.
fn for_library(line: &str) -> String {
    let line = line.strip_suffix("\\ ").map_or(line.trim_end(), |_| line);
    let (sign, pattern) = match line.strip_prefix('!') {
        Some(pattern) => ("!", pattern),
        None => ("", line),
    };
    let mut out = String::with_capacity(line.len() + 8);
    let mut rest = pattern;
    let mut excluded = false;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '\\' => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            '[' => class_len(rest).unwrap_or(1),
            _ => c.len_utf8(),
        };
        if matches!(c, '{' | '}') {
            out.push('\\');
        }
        let token = &rest[..taken];
        match token.get(..2) {
            // (As first member `]` must stay first.)
            Some("[!" | "[^") if taken > 2 && !token[2..].starts_with(']') => {
                out.push_str("[!/");
                out.push_str(&token[2..]);
                excluded = true;
            }
            _ => out.push_str(token),
        }
        rest = &rest[taken..];
    }
    // The library takes any `/` but the last character for one that ties the pattern to the root.
    let tied = pattern.strip_suffix('/').unwrap_or(pattern).contains('/');
    let anywhere = if excluded && !tied { "**/" } else { "" };
    format!("{sign}{anywhere}{out}")
}

/// Length of the `[...]` at the start of `text`, `None` when it is not closed.
fn class_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut first = 1;
    if matches!(bytes.get(first), Some(b'!' | b'^')) {
        first += 1;
    }
    // A `]` directly after the opening is a member.
    let close = bytes.iter().skip(first + 1).position(|b| *b == b']')?;
    Some(first + 1 + close + 1)
}

#[cfg(unix)]
fn os_str(path: &[u8]) -> std::borrow::Cow<'_, OsStr> {
    std::borrow::Cow::Borrowed(std::os::unix::ffi::OsStrExt::from_bytes(path))
}

#[cfg(not(unix))]
fn os_str(path: &[u8]) -> std::borrow::Cow<'_, OsStr> {
    std::borrow::Cow::Owned(String::from_utf8_lossy(path).into_owned().into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn included(text: &str, files: &[(&str, &str)]) -> Included {
        let mut read = |path: &RelPath| -> Result<Option<Vec<u8>>, ()> {
            let found = files.iter().find(|(p, _)| *p == path.to_string());
            Ok(found.map(|(_, text)| text.as_bytes().to_vec()))
        };
        include(text.as_bytes(), &mut read).unwrap()
    }

    #[test]
    fn files_stand_in_the_place_of_their_line() {
        let files = [("common", "*.tmp\n#include more"), ("more", "!keep.tmp")];
        let got = included("# a\n#include common\nlast", &files);
        assert_eq!(got.text, b"# a\n*.tmp\n!keep.tmp\nlast\n");
        assert_eq!((got.files.len(), got.errors.len()), (2, 0));
    }

    #[test]
    fn what_can_not_be_included_is_said_and_bounded() {
        let got = included("#include ../x\n#include none\n#included a\n", &[]);
        assert_eq!(got.errors.len(), 2, "{:?}", got.errors);
        assert_eq!(got.files.len(), 1);
        let ring = included("#include a", &[("a", "x\n#include a\n#include a")]);
        assert!(!ring.errors.is_empty());
        assert!(ring.text.len() < 1000);
    }
}
