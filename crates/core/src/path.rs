//! [`RelPath`]: a path inside a share, validated once and trusted afterwards.

use std::cmp::Ordering;
use std::fmt;

/// Longest path in bytes.
pub const MAX_PATH: usize = 4096;
/// Longest name of one part in bytes (what Linux file systems hold).
pub const MAX_NAME: usize = 255;
/// The folder in a share's root (and the name anywhere) that is never synchronised.
pub const RESERVED: &[u8] = b".left";

/// A relative path of one or more non-empty parts joined by `/`, as raw bytes (not
/// necessarily UTF-8). No part is `.`, `..`, longer than 255 bytes, contains NUL or is a
/// spelling of `.left`.
///
/// Ordered part by part, so that a folder is directly followed by all that is below it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelPath(Box<[u8]>);

/// Why bytes are no [`RelPath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No bytes at all.
    #[error("the path is empty")]
    Empty,
    /// More than [`MAX_PATH`] bytes.
    #[error("the path is longer than {MAX_PATH} bytes")]
    TooLong,
    /// One part has more than [`MAX_NAME`] bytes.
    #[error("a name in the path is longer than {MAX_NAME} bytes")]
    NameTooLong,
    /// Starts with `/`.
    #[error("the path is absolute")]
    Absolute,
    /// Contains a NUL byte.
    #[error("the path contains a NUL byte")]
    Nul,
    /// `a//b` or a trailing `/`.
    #[error("the path has an empty part")]
    EmptyPart,
    /// `.` or `..` as a part.
    #[error("the path has a part `.` or `..`")]
    DotPart,
    /// A part spelled `.left` in any ASCII case.
    #[error("the name `.left` is reserved")]
    Reserved,
}

impl RelPath {
    /// Validates `bytes`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes: Vec<u8> = bytes.into();
        if bytes.is_empty() {
            return Err(PathError::Empty);
        }
        if bytes.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        if bytes[0] == b'/' {
            return Err(PathError::Absolute);
        }
        for part in bytes.split(|b| *b == b'/') {
            check_name(part)?;
        }
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// The path's bytes, parts joined by `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The last part.
    pub fn name(&self) -> &[u8] {
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(at) => &self.0[at + 1..],
            None => &self.0,
        }
    }

    /// The path without its last part; `None` for a path directly in the root.
    pub fn parent(&self) -> Option<RelPath> {
        let at = self.0.iter().rposition(|b| *b == b'/')?;
        Some(Self(self.0[..at].into()))
    }

    /// The parts from the root down.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }

    /// This path with one more part.
    pub fn join(&self, name: &[u8]) -> Result<RelPath, PathError> {
        join(Some(self), name)
    }

    /// The same folder, another last part.
    pub fn with_name(&self, name: &[u8]) -> Result<RelPath, PathError> {
        join(self.parent().as_ref(), name)
    }

    /// Whether this path lies below the folder `dir` (a path is not below itself).
    pub fn is_below(&self, dir: &RelPath) -> bool {
        self.0.len() > dir.0.len() && self.0.starts_with(&dir.0) && self.0[dir.0.len()] == b'/'
    }

    /// Whether this path lies directly in the folder `dir` (`None`: in the root).
    pub fn is_in(&self, dir: Option<&RelPath>) -> bool {
        let start = match dir {
            Some(dir) if self.is_below(dir) => dir.0.len() + 1,
            Some(_) => return false,
            None => 0,
        };
        !self.0[start..].contains(&b'/')
    }

    /// A key whose plain byte order is this type's order: `/` becomes NUL, which no path has.
    pub fn key(&self) -> Vec<u8> {
        self.0
            .iter()
            .map(|b| if *b == b'/' { 0 } else { *b })
            .collect()
    }

    /// The inverse of [`key`](Self::key); validates, since keys come from a database file.
    pub fn from_key(key: &[u8]) -> Result<Self, PathError> {
        if key.contains(&b'/') {
            return Err(PathError::EmptyPart);
        }
        Self::new(
            key.iter()
                .map(|b| if *b == 0 { b'/' } else { *b })
                .collect::<Vec<u8>>(),
        )
    }
}

/// `dir/name`, or `name` in the root when `dir` is `None`.
pub fn join(dir: Option<&RelPath>, name: &[u8]) -> Result<RelPath, PathError> {
    check_name(name)?;
    let Some(dir) = dir else {
        return Ok(RelPath(name.into()));
    };
    if dir.0.len() + 1 + name.len() > MAX_PATH {
        return Err(PathError::TooLong);
    }
    let mut bytes = Vec::with_capacity(dir.0.len() + 1 + name.len());
    bytes.extend_from_slice(&dir.0);
    bytes.push(b'/');
    bytes.extend_from_slice(name);
    Ok(RelPath(bytes.into_boxed_slice()))
}

fn check_name(name: &[u8]) -> Result<(), PathError> {
    if name.is_empty() {
        return Err(PathError::EmptyPart);
    }
    if name.len() > MAX_NAME {
        return Err(PathError::NameTooLong);
    }
    if name == b"." || name == b".." {
        return Err(PathError::DotPart);
    }
    if name.contains(&0) {
        return Err(PathError::Nul);
    }
    if name.contains(&b'/') {
        return Err(PathError::EmptyPart);
    }
    if name.eq_ignore_ascii_case(RESERVED) {
        return Err(PathError::Reserved);
    }
    Ok(())
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        // Paths that are compared have most of their bytes in common: those are passed over eight at a time.
        const STEP: usize = 8;
        let steps = self.0.chunks_exact(STEP).zip(other.0.chunks_exact(STEP));
        let same = STEP * steps.take_while(|(a, b)| a == b).count();
        let rank = |b: &u8| if *b == b'/' { 0 } else { *b };
        let (a, b) = (&self.0[same..], &other.0[same..]);
        a.iter().map(rank).cmp(b.iter().map(rank))
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Readable form: UTF-8 where it is, `\xNN` for other bytes and control characters.
impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            for b in chunk.invalid() {
                write!(f, "\\x{b:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
