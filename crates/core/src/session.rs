//! One peer's protocol state: what it was told of our index, and how far it says it is.

use std::collections::HashSet;

use crate::entry::Record;
use crate::index::{Cursor, Index, IndexError};
use crate::message::{
    Control, IndexBatch, MAX_MESSAGE, Progress, Role, Start, dropped_len, entry_len,
};
use crate::path::RelPath;
use crate::probe::{cover, mutant};
use crate::version::DeviceId;

/// Index messages that may be under way before the lane says it has room again.
const CREDITS: u32 = 4;
/// Entries of one Index message.
const BATCH: usize = 1000;
/// Entries of the first, when nothing that was told is under way: about as many bytes as a connection
/// that rested sends before it hears from the other end. Over a long link the peer asks for what they
/// name two round trips sooner. Each that follows may have twice as many.
const FIRST_BATCH: usize = 100;
/// Bytes of one Index message, with room for its frame.
const BATCH_BYTES: usize = MAX_MESSAGE / 2;
/// Remembered entries that need not be echoed to the peer they came from.
const MAX_SKIPS: usize = 1 << 16;
/// Progress messages come at most this often while work goes on.
const PROGRESS_EVERY_MS: u64 = 250;

/// See the module's text.
#[derive(Debug)]
pub struct Session {
    /// What the peer may do.
    pub role: Role,
    /// Its Start came.
    pub started: bool,
    /// Our index is told up to here.
    pub sent: u64,
    /// What we told was our head when the lane came up.
    opened: u64,
    /// How far we have taken in its index.
    pub taken: Cursor,
    /// It announced that more index follows at once.
    pub more: bool,
    /// What it last said of itself.
    pub progress: Option<Progress>,
    /// Barrier tokens of the peer to answer once all of our index up to the number is told.
    pub barriers: Vec<(u64, u64)>,
    credits: u32,
    /// Entries that the next Index message may have.
    room: usize,
    skips: HashSet<u64>,
    told: Option<(Progress, u64)>,
}

impl Session {
    /// A lane just came up; returns the session and our first message. `head` is how much of our
    /// index will be told: nothing of a read-only member's, and then none is to be waited for.
    pub fn open(
        peer: DeviceId,
        role: Role,
        head: u64,
        index: &dyn Index,
    ) -> Result<(Self, Control), IndexError> {
        let known = index.cursor(peer)?;
        let start = Control::Start(Start {
            epoch: index.epoch(),
            former: index.former().to_vec(),
            head,
            known,
            your_counter: index.max_counter(peer)?,
        });
        let session = Self {
            role,
            started: false,
            sent: 0,
            opened: head,
            taken: known,
            more: false,
            progress: None,
            barriers: Vec::new(),
            credits: CREDITS,
            room: FIRST_BATCH,
            skips: HashSet::new(),
            told: None,
        };
        Ok((session, start))
    }

    /// The peer said how far it knows our index. Returns whether what we know of its index is void.
    pub fn start(&mut self, start: &Start, index: &dyn Index) -> bool {
        self.started = true;
        // What a job of the last session brought in since the lane came up: the peer may have lost
        // its index since it announced that.
        self.skips.clear();
        let known = start.known;
        let now = Cursor {
            epoch: index.epoch(),
            seq: self.opened,
        };
        // A number that we do not know to have given out means that our index went back in time:
        // the peer forgets what it knew by the same rule, so tell all again.
        self.sent = if is_continued(known, now, index.former()) {
            cover("session: tell what is new");
            known.seq
        } else {
            cover("session: tell all");
            0
        };
        let now = Cursor {
            epoch: start.epoch,
            seq: start.head,
        };
        let void = !is_continued(self.taken, now, &start.former);
        let void = void && !mutant("a lost index of a peer is not forgotten");
        self.taken.epoch = start.epoch;
        if void {
            cover("session: the peer's index is another one");
            self.taken.seq = 0;
        }
        // A read-only member never tells of its index.
        self.more = self.role == Role::ReadWrite && start.head > self.taken.seq;
        void
    }

    /// The number at which our index and the one that the peer knows of part, when it knows of edits of
    /// ours that we do not: of those above the number it knows nothing, or it takes them for others. To be
    /// asked before [`start`](Self::start).
    pub fn parted(&self, start: &Start, index: &dyn Index) -> Option<u64> {
        let (known, former) = (start.known, index.former());
        let now = Cursor {
            epoch: index.epoch(),
            seq: self.opened,
        };
        let continued = known.seq == 0 || is_continued(known, now, former);
        if continued && start.your_counter <= index.counter_floor() {
            return None;
        }
        if mutant("edits of a common past are versioned again") {
            return Some(0);
        }
        let then = former.iter().find(|life| life.epoch == known.epoch);
        let then = then.filter(|_| !continued);
        // An index that never met the peer has nothing in common with the one that it knows.
        let met = self.taken.seq > 0;
        let then = then.or(former.last().filter(|_| met));
        Some(then.map_or(0, |life| life.seq))
    }

    /// The lane has room for one more Index message.
    pub fn ready(&mut self) {
        self.credits = (self.credits + 1).min(CREDITS);
    }

    /// The entry with this number came from this peer itself.
    pub fn skip(&mut self, seq: u64) {
        if self.skips.len() >= MAX_SKIPS {
            // Records that changed again before they were told leave their numbers behind.
            let sent = self.sent;
            self.skips.retain(|s| *s > sent);
        }
        if self.skips.len() < MAX_SKIPS {
            self.skips.insert(seq);
        }
    }

    /// The next piece of our index for the peer, if there is one and the lane has room.
    pub fn next_index(&mut self, index: &dyn Index) -> Result<Option<Control>, IndexError> {
        if !self.started || self.credits == 0 || self.sent >= index.head() {
            return Ok(None);
        }
        let rows = index.changes_since(self.sent, BATCH)?;
        let dropped = index.dropped_since(self.sent, BATCH)?;
        if self.progress.is_some_and(|p| p.your_seq >= self.sent) {
            self.room = FIRST_BATCH;
        }
        // What moved is told in one piece if it can be: else it would be copied, and then deleted.
        let goes = rows.iter().any(|(_, _, r)| !r.entry.node.is_live());
        let most = match goes {
            true => BATCH,
            false => self.room,
        };
        let mut batch = IndexBatch::default();
        let (mut bytes, mut all) = (0, true);
        for (seq, path, record) in in_order(rows, dropped) {
            let Some(record) = record else {
                cover("session: told what is dropped");
                bytes += dropped_len(&path);
                batch.dropped.push(path);
                batch.upto = seq;
                if bytes > BATCH_BYTES {
                    all = false;
                    break;
                }
                continue;
            };
            if self.skips.remove(&seq) {
                cover("session: no echo");
            } else {
                bytes += entry_len(&path, &record.entry);
                if bytes > BATCH_BYTES && batch.upto > 0 {
                    all = false;
                    break;
                }
                batch.entries.push((path, record.entry));
            }
            batch.upto = seq;
            if batch.entries.len() == most {
                break;
            }
        }
        if all && batch.upto == 0 {
            // Numbers without rows: they were replaced by later ones.
            cover("session: numbers without rows");
            batch.upto = index.head();
        }
        self.sent = batch.upto;
        self.room = (2 * self.room).min(BATCH);
        batch.more = batch.upto < index.head();
        self.credits -= 1;
        Ok(Some(Control::Index(batch)))
    }

    /// Barrier answers that are due: all of our index up to their number is told.
    pub fn due_barriers(&mut self) -> Vec<u64> {
        let sent = self.sent;
        let (due, rest) = std::mem::take(&mut self.barriers)
            .into_iter()
            .partition(|(head, _)| *head <= sent);
        self.barriers = rest;
        due.into_iter().map(|(_, token)| token).collect()
    }

    /// A Progress message when there is something new to say, not too often while busy.
    pub fn next_progress(&mut self, now: Progress, mono_ms: u64) -> Option<Control> {
        if !self.started {
            return None;
        }
        if let Some((told, at)) = self.told {
            let soon = mono_ms < at + PROGRESS_EVERY_MS;
            if told == now || (now.busy && told.busy && soon) {
                return None;
            }
        }
        self.told = Some((now, mono_ms));
        Some(Control::Progress(now))
    }

    /// Whether the peer and we have the same, as far as both said.
    pub fn in_sync(&self, head: u64) -> bool {
        self.started
            && self.sent >= head
            && !self.more
            && self.progress.is_some_and(|p| {
                !p.busy && p.need_files == 0 && p.your_seq >= head && p.head <= self.taken.seq
            })
    }
}

/// Both lists as one, by number, as far as both are known: a full one may go on.
fn in_order(
    rows: Vec<(u64, RelPath, Record)>,
    dropped: Vec<(u64, RelPath)>,
) -> Vec<(u64, RelPath, Option<Record>)> {
    if dropped.is_empty() {
        return rows.into_iter().map(|(n, p, r)| (n, p, Some(r))).collect();
    }
    let end = |len: usize, last: Option<u64>| last.filter(|_| len == BATCH).unwrap_or(u64::MAX);
    let upto = end(rows.len(), rows.last().map(|(n, ..)| *n))
        .min(end(dropped.len(), dropped.last().map(|(n, _)| *n)));
    let rows = rows.into_iter().map(|(n, p, r)| (n, p, Some(r)));
    let dropped = dropped.into_iter().map(|(n, p)| (n, p, None));
    let mut all: Vec<_> = rows.chain(dropped).filter(|(n, ..)| *n <= upto).collect();
    all.sort_by_key(|(n, ..)| *n);
    all
}

/// Whether what is known of an index is still true of the index that is at `now` and had these
/// former lives.
fn is_continued(known: Cursor, now: Cursor, former: &[Cursor]) -> bool {
    let of_it = |life: &Cursor| life.epoch == known.epoch && known.seq <= life.seq;
    of_it(&now) || former.iter().any(of_it)
}
