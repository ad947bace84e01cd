//! `.leftignore`: which paths are left alone, in gitignore syntax.

use std::ffi::OsStr;

use ::ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::path::RelPath;

/// The file in a share's root that holds the patterns. It is never ignored itself.
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
        let path = os_str(path);
        self.sets
            .iter()
            .rev()
            .map(|set| set.matched(&*path, is_dir))
            .find(|m| !m.is_none())
            .is_some_and(|m| m.is_ignore())
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
