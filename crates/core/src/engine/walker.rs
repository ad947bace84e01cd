//! Where the walk over the needs is, and what is to be walked again.

use std::collections::BTreeSet;

use crate::index::Walk;
use crate::path::RelPath;
use crate::probe::mutant;

/// Paths remembered as waiting; beyond it the walk starts once more.
const MAX_WAITING: usize = 1000;
/// Big files remembered; beyond it the second walk starts once more.
const MAX_NOTED: usize = 1000;

/// Where the walk over the needs is.
#[derive(Debug)]
pub(super) struct Walker {
    pub at: Option<(Walk, Option<RelPath>)>,
    /// Start once more after this walk.
    again: bool,
    /// A second walk, up, for big files only, so that small ones never wait for a free place.
    pub big: Option<Option<RelPath>>,
    /// Start the second walk once more after this one.
    pub big_again: bool,
    /// Big files that became needed or found no free place: started without walking all needs.
    pub noted: BTreeSet<RelPath>,
    /// Paths that could not be started until a job under way is done.
    waiting: Vec<RelPath>,
    /// Deletions were passed over, until all is heard that peers have to tell.
    put_off: bool,
}

impl Walker {
    pub fn from_start() -> Self {
        Self {
            at: Some((Walk::Up, None)),
            again: false,
            big: Some(None),
            big_again: false,
            noted: BTreeSet::new(),
            waiting: Vec::new(),
            put_off: false,
        }
    }

    /// There may be anything to find.
    pub fn again(&mut self) {
        self.again_small();
        self.big = Some(None);
    }

    /// There may be something small to find.
    fn again_small(&mut self) {
        match self.at {
            None => self.at = Some((Walk::Up, None)),
            Some(_) => self.again = true,
        }
    }

    /// There is something to find at `path` or beyond it, in the order of paths; what of it is big was
    /// [noted](Self::note_big). A walk that has yet to come there finds it.
    pub fn find_from(&mut self, path: &RelPath) {
        let is_ahead = match &self.at {
            Some((Walk::Up, from)) => from.as_ref().is_none_or(|from| from < path),
            _ => false,
        };
        if !is_ahead {
            self.again_small();
        }
    }

    /// A deletion is passed over until [`all_heard`](Self::all_heard).
    pub fn put_off(&mut self) {
        self.put_off = true;
    }

    /// Nothing more that peers have to tell is on its way: what was put off is to be found.
    pub fn all_heard(&mut self) {
        if !std::mem::take(&mut self.put_off) || mutant("what was put off is forgotten") {
            return;
        }
        match self.at {
            None => self.at = Some((Walk::Down, None)),
            // All of the way down is ahead.
            Some((Walk::Up, _) | (Walk::Down, None)) => {}
            Some((Walk::Down, Some(_))) => self.again = true,
        }
    }

    /// A big file is needed.
    pub fn note_big(&mut self, path: &RelPath) {
        if self.noted.len() < MAX_NOTED {
            self.noted.insert(path.clone());
        } else {
            self.big_again = true;
        }
    }

    /// Whether all was walked that is to be.
    pub fn is_idle(&self) -> bool {
        self.at.is_none() && self.big.is_none() && self.noted.is_empty()
    }

    /// There is nothing to be found.
    pub fn rest(&mut self) {
        *self = Self {
            at: None,
            big: None,
            ..Self::from_start()
        };
    }

    /// Whether paths wait for a job to be done.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The paths that may be tried again, now that a job is done.
    pub fn take_waiting(&mut self) -> Vec<RelPath> {
        if self.waiting.len() >= MAX_WAITING {
            self.again();
        }
        std::mem::take(&mut self.waiting)
    }

    pub fn defer(&mut self, path: &RelPath) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push(path.clone());
        }
    }

    pub fn end_of_pass(&mut self) {
        self.at = match self.at {
            Some((Walk::Up, _)) => Some((Walk::Down, None)),
            _ if std::mem::take(&mut self.again) => Some((Walk::Up, None)),
            _ => None,
        };
    }
}
