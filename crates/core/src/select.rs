//! What a device holds of a share: all of it, or a selection. The rest it knows only from what peers
//! announce.

use std::collections::BTreeMap;

use crate::path::RelPath;

/// Most rules of one selection.
pub const MAX_RULES: usize = 10_000;

/// Which paths are to be held. A rule counts for its path and all below it, up to a rule further down.
///
/// Kept in its shortest form: no rule says what holds without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Whether what no rule speaks of is held.
    rest: bool,
    rules: BTreeMap<RelPath, bool>,
}

/// A selection would have more than [`MAX_RULES`] rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {MAX_RULES} folders and files are chosen or left out one by one; choose whole folders"
)]
pub struct TooMany;

impl Default for Selection {
    fn default() -> Self {
        Self::everything()
    }
}

impl Selection {
    /// All of the share.
    pub fn everything() -> Self {
        Self::rest(true)
    }

    /// Nothing of the share.
    pub fn nothing() -> Self {
        Self::rest(false)
    }

    fn rest(rest: bool) -> Self {
        Self {
            rest,
            rules: BTreeMap::new(),
        }
    }

    /// Whether there is nothing that is not to be held.
    pub fn is_everything(&self) -> bool {
        self.rest && self.rules.is_empty()
    }

    /// Whether what no rule speaks of is held.
    pub fn holds_rest(&self) -> bool {
        self.rest
    }

    /// The rules in order: where, and whether that is held.
    pub fn rules(&self) -> impl Iterator<Item = (&RelPath, bool)> {
        self.rules.iter().map(|(path, hold)| (path, *hold))
    }

    /// From now on `path` and all below it is held, or not; `None`: all of the share.
    pub fn set(&mut self, path: Option<&RelPath>, hold: bool) -> Result<(), TooMany> {
        let Some(path) = path else {
            *self = Self::rest(hold);
            return Ok(());
        };
        let mut new = self.clone();
        new.rules.retain(|p, _| p != path && !p.is_below(path));
        if new.holds(path) != hold {
            new.rules.insert(path.clone(), hold);
        }
        if new.rules.len() > MAX_RULES {
            return Err(TooMany);
        }
        *self = new;
        Ok(())
    }

    /// Whether the rules say that `path` is held.
    pub fn holds(&self, path: &RelPath) -> bool {
        if self.rules.is_empty() {
            return self.rest;
        }
        let rule = self.rules.get(path).copied();
        rule.or_else(|| {
            std::iter::successors(path.parent(), RelPath::parent)
                .find_map(|p| self.rules.get(&p).copied())
        })
        .unwrap_or(self.rest)
    }

    /// Whether something is to stand at `path`: it is held, or is a folder above what is.
    pub fn wants(&self, path: &RelPath) -> bool {
        self.holds(path) || self.has_held_below(path)
    }

    /// Below a path that is not held: is anything held? The first rule below differs from the path's.
    fn has_held_below(&self, path: &RelPath) -> bool {
        let mut after = self.rules.range(path.clone()..);
        let first = after.find(|(p, _)| *p != path);
        first.is_some_and(|(p, _)| p.is_below(path))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn p(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn the_nearest_rule_counts() {
        let mut s = Selection::nothing();
        s.set(Some(&p("a/b")), true).unwrap();
        s.set(Some(&p("a/b/c")), false).unwrap();
        s.set(Some(&p("a/b/c/d")), true).unwrap();
        for (path, holds, wants) in [
            ("a", false, true),
            ("a.x", false, false),
            ("a/b", true, true),
            ("a/bb", false, false),
            ("a/b/x/y", true, true),
            ("a/b/c", false, true),
            ("a/b/c/x", false, false),
            ("a/b/c/d/e", true, true),
            ("z", false, false),
        ] {
            assert_eq!(
                (s.holds(&p(path)), s.wants(&p(path))),
                (holds, wants),
                "{path}"
            );
        }
    }

    #[test]
    fn no_rule_says_what_holds_without_it() {
        let mut s = Selection::everything();
        s.set(Some(&p("a/b")), true).unwrap();
        assert!(s.is_everything());
        s.set(Some(&p("a/b")), false).unwrap();
        s.set(Some(&p("a/b/c")), true).unwrap();
        assert_eq!(s.rules().count(), 2);
        s.set(Some(&p("a")), false).unwrap();
        assert_eq!(s.rules().collect::<Vec<_>>(), [(&p("a"), false)]);
        s.set(Some(&p("a")), true).unwrap();
        assert!(s.is_everything());
        s.set(None, false).unwrap();
        assert_eq!(s, Selection::nothing());
    }

    #[test]
    fn rules_are_bounded() {
        let mut s = Selection::nothing();
        for n in 0..MAX_RULES {
            s.rules.insert(p(&format!("f{n}")), true);
        }
        let before = s.clone();
        assert_eq!(s.set(Some(&p("one more")), true), Err(TooMany));
        assert_eq!(s, before);
        s.set(Some(&p("f1")), false).unwrap();
    }
}
