//! What a device holds of a share, as its record keeps it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use left_core::path::RelPath;
use left_core::select::Selection;
use serde::{Deserialize, Serialize};

use super::error::UserError;
use super::text;

/// Most bytes of all paths of one selection together.
const MAX_BYTES: usize = 1 << 20;

/// A selection in a record. A folder that is chosen and one that is not differ by a letter of a name, so
/// it carries a checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChoiceRecord {
    /// Whether what is not named here is held.
    rest: bool,
    /// What is held.
    #[serde(with = "text::list", default)]
    held: Vec<PathBuf>,
    /// What is not.
    #[serde(with = "text::list", default)]
    not_held: Vec<PathBuf>,
    /// Hash of the above.
    sum: String,
}

impl ChoiceRecord {
    /// What is written down of a selection; nothing where that is everything.
    pub fn new(selection: &Selection) -> Result<Option<Self>, UserError> {
        if selection.is_everything() {
            return Ok(None);
        }
        let bytes: usize = selection.rules().map(|(p, _)| p.as_bytes().len()).sum();
        if bytes > MAX_BYTES {
            let why = "the names of all that is chosen are more than 1 MiB together";
            let todo = "choose whole folders";
            return Err(UserError::new("cannot choose", why, todo));
        }
        let named = |hold: bool| {
            let rules = selection.rules().filter(move |(_, h)| *h == hold);
            let os = rules.map(|(p, _)| OsStr::from_bytes(p.as_bytes()).into());
            os.collect::<Vec<PathBuf>>()
        };
        let mut record = Self {
            rest: selection.holds_rest(),
            held: named(true),
            not_held: named(false),
            sum: String::new(),
        };
        record.sum = record.hash();
        Ok(Some(record))
    }

    /// The selection; `None` when the record is damaged.
    pub fn selection(&self) -> Option<Selection> {
        if self.sum != self.hash() {
            return None;
        }
        let mut selection = match self.rest {
            true => Selection::everything(),
            false => Selection::nothing(),
        };
        let held = self.held.iter().map(|p| (p, true));
        let mut rules = held
            .chain(self.not_held.iter().map(|p| (p, false)))
            .map(|(p, hold)| Some((RelPath::new(p.as_os_str().as_bytes()).ok()?, hold)))
            .collect::<Option<Vec<_>>>()?;
        // A rule takes away those below it.
        rules.sort();
        for (path, hold) in rules {
            selection.set(Some(&path), hold).ok()?;
        }
        Some(selection)
    }

    fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[u8::from(self.rest)]);
        for list in [&self.held, &self.not_held] {
            hasher.update(&(list.len() as u64).to_le_bytes());
            for path in list {
                hasher.update(path.as_os_str().as_bytes());
                hasher.update(&[0]);
            }
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }
}

/// The selection of a record without or with a choice. A damaged one is as nothing: what is here stays,
/// and nothing else is brought before the user chooses anew. Also whether it was damaged.
pub fn selection_of(choice: Option<&ChoiceRecord>) -> (Selection, bool) {
    match choice.map(ChoiceRecord::selection) {
        None => (Selection::everything(), false),
        Some(Some(selection)) => (selection, false),
        Some(None) => (Selection::nothing(), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_survives_and_damage_shows() {
        let mut selection = Selection::nothing();
        for (path, hold) in [(&b"a"[..], true), (b"a/b", false), (b"a/b/\xff \n", true)] {
            selection
                .set(Some(&RelPath::new(path).unwrap()), hold)
                .unwrap();
        }
        let record = ChoiceRecord::new(&selection).unwrap().unwrap();
        let text = toml::to_string(&record).unwrap();
        let back: ChoiceRecord = toml::from_str(&text).unwrap();
        assert_eq!(selection_of(Some(&back)), (selection, false));
        let other = text.replace("\"a\"", "\"c\"");
        assert_ne!(other, text);
        let damaged: ChoiceRecord = toml::from_str(&other).unwrap();
        assert_eq!(selection_of(Some(&damaged)), (Selection::nothing(), true));
        assert_eq!(ChoiceRecord::new(&Selection::everything()).unwrap(), None);
        assert_eq!(selection_of(None), (Selection::everything(), false));
    }
}
