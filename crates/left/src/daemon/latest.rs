//! [`Latest`]: where the small files lie that were seen a moment ago.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use left_core::content::{ContentId, WHOLE_MAX};
use left_core::diff::{Observation, Seen};
use left_core::entry::FileStat;
use left_core::path::RelPath;

/// Files of one generation; the one before it is kept beside it.
const MAX_FILES: usize = 2048;
/// The longest time in which files join one generation.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Where a content lies, and what `lstat` said there.
pub(super) type Places = Vec<(RelPath, FileStat)>;

type ByContent = HashMap<ContentId, (RelPath, FileStat)>;

/// Peers ask for a new file right after they heard of it, and then it need not be searched for in the index.
/// What is not here is; and what is here may have changed since, as with any place.
#[derive(Default)]
pub(super) struct Latest {
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: ByContent,
    old: ByContent,
    since: Option<Instant>,
}

impl Generations {
    /// Drops what has become too old, or too much.
    fn turn(&mut self) {
        let age = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        if age > 2 * MAX_AGE {
            *self = Self::default();
        } else if age > MAX_AGE || self.young.len() >= MAX_FILES {
            self.old = std::mem::take(&mut self.young);
            self.since = None;
        }
    }
}

/// A small file's content, path and stat.
pub(super) type Place = (ContentId, RelPath, FileStat);

/// What there is to remember of observations, of paths that are `settled`.
pub(super) fn places(seen: &[Observation], settled: impl Fn(&RelPath) -> bool) -> Vec<Place> {
    let place = |o: &Observation| match &o.seen {
        Seen::File { stat, content } if stat.size <= WHOLE_MAX && settled(&o.path) => {
            Some((*content, o.path.clone(), *stat))
        }
        _ => None,
    };
    seen.iter().filter_map(place).collect()
}

impl Latest {
    /// These were seen and recorded.
    pub(super) fn recorded(&self, places: Vec<Place>) {
        let mut all = self.lock();
        for (content, path, stat) in places {
            all.turn();
            all.since.get_or_insert_with(Instant::now);
            all.young.insert(content, (path, stat));
        }
    }

    /// Places of each content, in order: one where it is known; what `search` finds of the rest.
    pub(super) fn find(
        &self,
        contents: &[ContentId],
        search: impl FnOnce(&[ContentId]) -> Vec<Places>,
    ) -> Vec<Places> {
        let known = self.known(contents);
        let rest = contents.iter().zip(&known).filter(|(_, k)| k.is_none());
        let rest: Vec<ContentId> = rest.map(|(content, _)| *content).collect();
        let mut found = match rest.is_empty() {
            true => Vec::new(),
            false => search(&rest),
        }
        .into_iter();
        let places = |known: Option<_>| match known {
            Some(place) => vec![place],
            None => found.next().unwrap_or_default(),
        };
        known.into_iter().map(places).collect()
    }

    fn known(&self, contents: &[ContentId]) -> Vec<Option<(RelPath, FileStat)>> {
        let mut all = self.lock();
        all.turn();
        let find = |c| all.young.get(c).or_else(|| all.old.get(c)).cloned();
        contents.iter().map(find).collect()
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        *self.lock() = Generations::default();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(n: usize) -> Place {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_le_bytes());
        let path = RelPath::new(format!("{n}")).expect("a path");
        (ContentId(id), path, FileStat::default())
    }

    #[test]
    fn the_last_ones_are_found_and_never_more_than_two_generations() {
        let latest = Latest::default();
        latest.recorded((0..3 * MAX_FILES).map(place).collect());
        let ids: Vec<ContentId> = (0..3 * MAX_FILES).map(|n| place(n).0).collect();
        let found = latest.known(&ids);
        assert!(found[..MAX_FILES].iter().all(Option::is_none));
        for (n, found) in found.into_iter().enumerate().skip(2 * MAX_FILES) {
            assert_eq!(found.map(|(path, _)| path), Some(place(n).1));
        }
        latest.clear();
        assert_eq!(latest.known(&ids[ids.len() - 1..]), [None]);
    }

    #[test]
    fn what_is_not_known_is_searched_for_and_each_gets_its_own() {
        let latest = Latest::default();
        latest.recorded(vec![place(1), place(3)]);
        let of = |n: usize| vec![(place(n).1, place(n).2)];
        let ids = [0, 1, 2, 3, 4].map(|n| place(n).0);
        let found = latest.find(&ids, |rest| {
            assert_eq!(rest, [0, 2, 4].map(|n| place(n).0));
            vec![of(0), Vec::new(), of(4)]
        });
        assert_eq!(found, [of(0), of(1), Vec::new(), of(3), of(4)]);
        let known = latest.find(&ids[1..2], |_| {
            unreachable!("nothing is left to search for")
        });
        assert_eq!(known, [of(1)]);
    }

    #[test]
    fn small_settled_files_only() {
        let (content, path, stat) = place(1);
        let seen = |path: &str, size| Observation {
            path: RelPath::new(path).expect("a path"),
            seen: Seen::File {
                stat: FileStat { size, ..stat },
                content,
            },
        };
        let all = [seen("1", 0), seen("big", WHOLE_MAX + 1), seen("busy", 0)];
        let settled = |path: &RelPath| path.name() != b"busy";
        assert_eq!(places(&all, settled), [(content, path, stat)]);
    }
}
