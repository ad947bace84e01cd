//! Errors for people: what happened, to what, what to do.

use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::folder::clean;

/// Exit codes of the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Not done.
    Failure = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Not in sync within the time given.
    NotInSync = 3,
    /// Files are damaged and could not all be healed.
    Damaged = 4,
}

/// One clear line for a person, and an exit code for a program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UserError {
    /// What could not be done, and to what.
    pub what: String,
    /// Why.
    pub why: String,
    /// What the user can do about it; may be empty.
    #[serde(default)]
    pub todo: String,
    /// The exit code of a command that ends with this error.
    pub exit_code: u8,
}

impl UserError {
    /// An error with exit code 1.
    pub fn new(what: impl fmt::Display, why: impl fmt::Display, todo: impl fmt::Display) -> Self {
        Self {
            what: what.to_string(),
            why: why.to_string(),
            todo: todo.to_string(),
            exit_code: Exit::Failure as u8,
        }
    }

    /// A command line that makes no sense.
    pub fn usage(what: impl fmt::Display, why: impl fmt::Display, todo: impl fmt::Display) -> Self {
        Self::new(what, why, todo).exit(Exit::Usage)
    }

    /// The operating system refused to do something with `path`.
    pub fn io(what: impl fmt::Display, path: &Path, error: &io::Error) -> Self {
        Self::new(
            format!("{what} {}", clean(path)),
            reason(error),
            remedy(error),
        )
    }

    /// The same error with another exit code.
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit_code = exit as u8;
        self
    }
}

/// `what: why; what to do`, always one line.
impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.what.clone();
        if !self.why.is_empty() {
            line = format!("{line}: {}", self.why);
        }
        if !self.todo.is_empty() {
            line = format!("{line}; {}", self.todo);
        }
        // A path or a peer's text must not break the line or talk to the terminal.
        for c in line.chars() {
            match c {
                '\n' | '\t' => f.write_str(" ")?,
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for UserError {}

/// An I/O error in plain words, without the number.
fn reason(error: &io::Error) -> String {
    let words = match error.kind() {
        io::ErrorKind::NotFound => "it does not exist",
        io::ErrorKind::PermissionDenied => "permission denied",
        io::ErrorKind::NotADirectory => "a part of the path is not a folder",
        io::ErrorKind::IsADirectory => "a folder stands there",
        io::ErrorKind::ReadOnlyFilesystem => "the disk is read-only",
        io::ErrorKind::StorageFull => "the disk is full",
        io::ErrorKind::QuotaExceeded => "the disk quota is used up",
        _ => return error.to_string(),
    };
    words.to_string()
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "give your user access to it, or choose another one",
        io::ErrorKind::NotADirectory => "choose a folder",
        io::ErrorKind::IsADirectory => "move that folder away",
        io::ErrorKind::ReadOnlyFilesystem => "choose one on a disk that can be written",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room and try again",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_is_in_it() {
        let e = UserError::new(
            "cannot share a\nb",
            "a \u{1b}[31mred\u{1b}[0m reason",
            "do this",
        );
        let line = e.to_string();
        assert_eq!(
            line,
            "cannot share a b: a \\u{1b}[31mred\\u{1b}[0m reason; do this"
        );
        assert_eq!(UserError::new("a", "b", "").to_string(), "a: b");
        assert_eq!(UserError::new("a", "", "").to_string(), "a");
    }

    #[test]
    fn the_operating_systems_words_are_made_plain() {
        let e = io::Error::from_raw_os_error(rustix::io::Errno::ROFS.raw_os_error());
        let line = UserError::io("cannot write", Path::new("/x"), &e).to_string();
        assert_eq!(
            line,
            "cannot write /x: the disk is read-only; choose one on a disk that can be written"
        );
    }
}
