//! `.leftignore`: which paths are left alone, in gitignore syntax.

use crate::path::RelPath;

/// The file in a share's root that holds the patterns.
pub const IGNORE_FILE: &[u8] = b".leftignore";

/// Compiled patterns.
pub struct Ignore {
    _private: (),
}

impl Ignore {
    /// No patterns.
    pub fn none() -> Self {
        unimplemented!()
    }

    /// Compiles the text of a `.leftignore`; lines that are no pattern are returned beside it.
    pub fn parse(text: &[u8]) -> (Self, Vec<String>) {
        let _ = text;
        unimplemented!()
    }

    /// Whether `path` (a folder when `is_dir`) or any folder above it is ignored.
    pub fn is_ignored(&self, path: &RelPath, is_dir: bool) -> bool {
        let _ = (path, is_dir);
        unimplemented!()
    }
}
