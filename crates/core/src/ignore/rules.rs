//! The rules of a whole share: its root's `.leftignore` and those of its folders, as git reads them.

use std::collections::{BTreeMap, BTreeSet};

use super::{IGNORE_FILE, Ignore, Included, MAX_LINES, MAX_TEXT};
use crate::path::RelPath;

/// Most folders below the root whose `.leftignore` counts.
pub const MAX_FOLDERS: usize = 1024;
/// Most of them above one path; those nearer to the root come first.
pub const MAX_NESTED: usize = 32;
/// Longest `.leftignore` below the root, in bytes.
pub const MAX_FOLDER_TEXT: usize = 64 * 1024;

/// All rules. Those of folders below the root are bounded together: [`MAX_FOLDERS`], as many lines
/// ([`MAX_LINES`]) and bytes (1 MiB) as the root may have alone.
#[derive(Debug)]
pub struct Rules {
    root: Source,
    /// By the folder's path.
    below: BTreeMap<Box<[u8]>, Source>,
    /// Every file that was asked for by an `#include`.
    included: BTreeSet<RelPath>,
}

/// One `.leftignore`.
#[derive(Debug)]
struct Source {
    all: Included,
    lines: usize,
    ignore: Ignore,
}

/// What became of a `.leftignore` that was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The rules are others than before.
    pub changed: bool,
    /// Lines that count for nothing, and why.
    pub complaints: Vec<String>,
    /// The whole file does not count, and why. Said each time it is read.
    pub refused: Option<String>,
}

impl Rules {
    /// No rules.
    pub fn none() -> Rules {
        Rules {
            root: Source::new(Included::default(), 0).0,
            below: BTreeMap::new(),
            included: BTreeSet::new(),
        }
    }

    /// Takes the `.leftignore` of a folder (`None`: the root) with what it includes; an empty one is
    /// none.
    pub fn set(&mut self, dir: Option<&RelPath>, mut all: Included) -> Outcome {
        if all.text.iter().all(u8::is_ascii_whitespace) {
            all.text.clear();
        }
        let old = self.source(dir);
        if old.map_or(all == Included::default(), |old| old.all == all) {
            return Outcome::default();
        }
        let mut outcome = Outcome {
            changed: old.map_or(&[][..], |old| &old.all.text) != all.text,
            complaints: all.errors.clone(),
            refused: None,
        };
        let lines = pattern_lines(&all.text);
        match dir {
            None => {
                let (source, errors) = Source::new(all, lines);
                self.root = source;
                outcome.complaints.extend(errors);
            }
            Some(dir) => {
                let old = self.below.remove(dir.as_bytes());
                if let Some(why) = self.refusal(dir, lines, all.len()) {
                    outcome.changed = old.is_some();
                    outcome.complaints.clear();
                    outcome.refused = Some(why);
                } else if all != Included::default() {
                    let (source, errors) = Source::new(all, lines);
                    self.below.insert(dir.as_bytes().into(), source);
                    outcome.complaints.extend(errors);
                }
            }
        }
        self.gather_included();
        outcome
    }

    /// Why a `.leftignore` of `bytes` bytes in this folder is not even to be read; `None` when it is.
    pub fn refuses(&self, dir: &RelPath, bytes: u64) -> Option<String> {
        if bytes > MAX_FOLDER_TEXT as u64 {
            return Some(format!(
                "longer than {} KiB: not used; shorten it",
                MAX_FOLDER_TEXT / 1024
            ));
        }
        if self.below.contains_key(dir.as_bytes()) {
            return None;
        }
        self.refusal(dir, 0, usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// Whether this folder below the root has rules.
    pub fn has(&self, dir: &RelPath) -> bool {
        self.below.contains_key(dir.as_bytes())
    }

    /// Forgets the rules of a folder that is gone, and of all below it.
    pub fn forget(&mut self, dir: &RelPath) {
        let mut inside = dir.as_bytes().to_vec();
        inside.push(b'/');
        let gone: Vec<Box<[u8]>> = self
            .below
            .range(inside.clone().into_boxed_slice()..)
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(&inside))
            .cloned()
            .collect();
        let any = self.below.remove(dir.as_bytes()).is_some() | !gone.is_empty();
        for path in gone {
            self.below.remove(&path);
        }
        if any {
            self.gather_included();
        }
    }

    /// Whether the rules depend on the file at `path`.
    pub fn depend_on(&self, path: &RelPath) -> bool {
        path.name() == IGNORE_FILE || self.included.contains(path)
    }

    /// The folders (`None`: the root) whose rules depend on the file at `path`.
    pub fn folders_of(&self, path: &RelPath) -> Vec<Option<RelPath>> {
        let mut folders = Vec::new();
        if path.name() == IGNORE_FILE {
            folders.push(path.parent());
        }
        if self.included.contains(path) {
            if self.root.all.files.contains(path) {
                folders.push(None);
            }
            let below = self
                .below
                .iter()
                .filter(|(_, s)| s.all.files.contains(path));
            folders.extend(below.filter_map(|(dir, _)| RelPath::new(&**dir).ok().map(Some)));
        }
        folders.dedup();
        folders
    }

    /// Whether `path` (a folder when `is_dir`) or any folder above it is ignored. The last pattern
    /// of the nearest folder that has one for it decides; what is below an ignored folder can not
    /// be taken back in. The root's `.leftignore` is never ignored.
    pub fn is_ignored(&self, path: &RelPath, is_dir: bool) -> bool {
        if self.below.is_empty() {
            return self.root.ignore.is_ignored(path, is_dir);
        }
        let bytes = path.as_bytes();
        if bytes == IGNORE_FILE {
            return false;
        }
        let mut above: Vec<(usize, &Ignore)> = vec![(0, &self.root.ignore)];
        for (at, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'/') {
            let dir = &bytes[..at];
            if is_hit(&above, dir, true) {
                return true;
            }
            if above.len() <= MAX_NESTED
                && let Some(source) = self.below.get(dir)
            {
                above.push((at + 1, &source.ignore));
            }
        }
        is_hit(&above, bytes, is_dir)
    }

    fn source(&self, dir: Option<&RelPath>) -> Option<&Source> {
        match dir {
            None => Some(&self.root),
            Some(dir) => self.below.get(dir.as_bytes()),
        }
    }

    fn refusal(&self, dir: &RelPath, lines: usize, bytes: usize) -> Option<String> {
        let path = dir.as_bytes();
        let above = path.iter().enumerate().filter(|(_, b)| **b == b'/');
        let nested = above.filter(|(at, _)| self.below.contains_key(&path[..*at]));
        let sum = |of: &dyn Fn(&Source) -> usize| self.below.values().map(of).sum::<usize>();
        let why = if self.below.len() >= MAX_FOLDERS {
            format!("more than {MAX_FOLDERS} folders have one")
        } else if nested.count() >= MAX_NESTED {
            format!("more than {MAX_NESTED} folders above it have one")
        } else if sum(&|s| s.lines) + lines > MAX_LINES {
            format!("those of all folders together have more than {MAX_LINES} lines")
        } else if sum(&|s| s.all.len()) + bytes > MAX_TEXT {
            let limit = MAX_TEXT / 1024;
            format!("those of all folders together are longer than {limit} KiB")
        } else {
            return None;
        };
        Some(format!(
            "{why}: this one is not used; put its patterns into the share's first {}",
            String::from_utf8_lossy(IGNORE_FILE)
        ))
    }

    fn gather_included(&mut self) {
        let all = std::iter::once(&self.root).chain(self.below.values());
        self.included = all.flat_map(|s| s.all.files.iter().cloned()).collect();
    }
}

impl Source {
    fn new(all: Included, lines: usize) -> (Source, Vec<String>) {
        let (ignore, errors) = Ignore::parse(&all.text);
        let errors = errors.into_iter().map(|e| format!("not a pattern: {e}"));
        let errors = errors.collect();
        let source = Source { all, lines, ignore };
        (source, errors)
    }
}

impl Included {
    fn len(&self) -> usize {
        self.text.len() + self.files.iter().map(|f| f.as_bytes().len()).sum::<usize>()
    }
}

fn pattern_lines(text: &[u8]) -> usize {
    let lines = text.split(|b| *b == b'\n');
    lines
        .filter(|l| !l.trim_ascii().is_empty() && l.first() != Some(&b'#'))
        .count()
}

/// Whether the nearest of `above` (where below its folder a path begins, its rules) that has a word on
/// `path` says to ignore it.
fn is_hit(above: &[(usize, &Ignore)], path: &[u8], is_dir: bool) -> bool {
    let nearest = above.iter().rev();
    nearest
        .map(|(start, ignore)| ignore.verdict(&path[*start..], is_dir))
        .find_map(|word| word)
        .unwrap_or(false)
}
