//! The owner and what this device holds.

use crossbeam_channel::Sender;
use left_core::engine::{Dropped, Event};
use left_core::index::{Cursor, Index, IndexError};
use left_core::path::RelPath;
use left_core::plan::{Op, OpId};
use left_core::select::Selection;

use super::Owner;
use crate::store::IndexDb;

/// Told where the record of the selection can not be trusted.
pub(super) const DAMAGED: &str = "the record of what this device holds is damaged: what is here stays, \
                                  and nothing else is brought. Choose anew with `left choose DIR`";

impl Owner {
    /// Another selection, which is written down already.
    pub(super) fn choose(
        &mut self,
        selection: Selection,
        drop: Option<Option<RelPath>>,
        reply: Sender<Dropped>,
    ) -> Result<(), IndexError> {
        self.notices.retain(|n| n != DAMAGED);
        self.handle(Event::Choose(selection))?;
        self.give_up_unwanted()?;
        crash_point!("chosen");
        let Some(at) = drop else {
            // Who asked may have given up.
            let _ = reply.send(Dropped::default());
            return Ok(());
        };
        let id = self.next_wait;
        self.next_wait += 1;
        self.drops.insert(id, reply);
        self.handle(Event::Drop { id, at })
    }

    /// Ends the fetching of what is not to be here any more.
    fn give_up_unwanted(&mut self) -> Result<(), IndexError> {
        let mut unwanted = Vec::new();
        for (id, path) in &self.fetching {
            let ours = self.index.get(path)?;
            if !self.engine.wants(path, ours.as_ref()) {
                unwanted.push(*id);
            }
        }
        self.fetcher.cancel(&unwanted);
        Ok(())
    }

    /// Remembers, outside of the index, that it forgot something which now goes from the disk.
    pub(super) fn note_drops(&mut self, ops: &[(OpId, Op)]) {
        if !ops.iter().any(|(_, op)| matches!(op, Op::Drop { .. })) {
            return;
        }
        crash_point!("forgotten");
        let mark = mark(&self.index);
        if let Err(error) = self.setup.members.update(|r| r.dropped = Some(mark)) {
            tracing::error!("{error}");
        }
    }
}

/// How far an index is.
pub(super) fn mark(index: &IndexDb) -> String {
    format!("{:x}:{}", index.epoch(), index.head())
}

/// Whether an index is the one that was at `mark`, or went on from there.
pub(super) fn is_beyond(index: &IndexDb, mark: &str) -> bool {
    let parse = |(epoch, seq): (&str, &str)| {
        let epoch = u64::from_str_radix(epoch, 16).ok()?;
        let seq = seq.parse().ok()?;
        Some(Cursor { epoch, seq })
    };
    let Some(at) = mark.split_once(':').and_then(parse) else {
        return false;
    };
    let of_it = |life: &Cursor| life.epoch == at.epoch && at.seq <= life.seq;
    index.former().iter().any(of_it)
}
