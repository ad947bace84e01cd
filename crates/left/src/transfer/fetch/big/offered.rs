//! A big content of which the id is not known yet: a peer that still reads it offers its segments.

use std::sync::Arc;
use std::time::Instant;

use left_core::content::SegmentRef;
use left_core::plan::OpId;
use left_core::version::DeviceId;

use super::{Big, Phase};
use crate::transfer::fetch::file::BigFile;
use crate::transfer::fetch::refs::plausible;

/// Segments of an offer that are remembered; the rest is got when its content is known.
pub(super) const OFFERED_MAX: usize = 4096;

/// Segments that a peer offers of a file that it still reads. They are only a hint of what the
/// content will be: once that is known its own list counts.
pub(in crate::transfer::fetch) struct Offered {
    pub(in crate::transfer::fetch) from: DeviceId,
    /// When it was last told of, or something of it came.
    pub(in crate::transfer::fetch) touched: Instant,
}

impl Big {
    /// What `from` offers; its segments come by [`Self::offered`].
    pub(in crate::transfer::fetch) fn of_offer(file: Arc<BigFile>, from: DeviceId) -> Self {
        let offer = Offered {
            from,
            touched: Instant::now(),
        };
        Self {
            phase: Phase::Preparing,
            offer: Some(offer),
            ..Self::new(file, Vec::new(), &[from])
        }
    }

    /// Takes in offered segments from position `from` on; `false` when they can not be right.
    pub(in crate::transfer::fetch) fn offered(
        &mut self,
        from: u64,
        segments: &[SegmentRef],
    ) -> bool {
        let room = OFFERED_MAX.saturating_sub(self.refs.len());
        if room == 0 {
            return true;
        }
        let next = self.refs.len() as u64;
        if from > next {
            // What lies between was left out, by a peer whose lane had no room or by us: what came
            // before it counts all the same.
            self.touch();
            return true;
        }
        if from < next {
            return false;
        }
        for r in segments.iter().take(room) {
            if !plausible(self.refs.last(), r, self.file.size - self.refs.size()) {
                return false;
            }
            self.refs.push(*r);
        }
        self.touch();
        true
    }

    /// Something was heard of the offer.
    pub(in crate::transfer::fetch) fn touch(&mut self) {
        if let Some(offer) = &mut self.offer {
            offer.touched = Instant::now();
        }
    }

    /// The content of what was offered is known: its own segment list is asked for now.
    pub(in crate::transfer::fetch) fn bind(&mut self, waiter: OpId, peers: &[DeviceId]) {
        self.waiters.push(waiter);
        self.offer = None;
        // What was wrong with the offer is not held against the content.
        self.verdicts.clear();
        self.liar = None;
        self.swarm.pardon();
        self.add_peers(peers);
        self.phase = Phase::Refs(None);
    }

    /// The content's own list is known and verified. `false` when what was offered before was
    /// something else.
    pub(in crate::transfer::fetch) fn settle(&mut self, list: Vec<SegmentRef>) -> bool {
        if !self.refs.begins(&list) {
            return false;
        }
        self.refs = list.into_iter().collect();
        self.whole = true;
        true
    }
}
