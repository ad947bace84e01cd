//! Where the walk over the needs is, and what is to be walked again.

use std::collections::BTreeSet;

use crate::index::Walk;
use crate::path::RelPath;

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
        }
    }

    /// There may be anything to find.
    pub fn again(&mut self) {
        self.again_small();
        self.big = Some(None);
    }

    /// There is something new to find; what of it is big was [noted](Self::note_big).
    pub fn again_small(&mut self) {
        match self.at {
            None => self.at = Some((Walk::Up, None)),
            Some(_) => self.again = true,
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
