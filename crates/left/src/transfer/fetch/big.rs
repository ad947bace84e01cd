//! Big contents: what is known of each, and which part of it is asked for next.

mod offered;
mod others;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use left_core::content::{ContentId, Segment, SegmentRef};
use left_core::plan::{FetchError, OpId};
use left_core::version::DeviceId;

use self::offered::Offered;
use super::FetchConfig;
use super::asks::Asks;
use super::file::BigFile;
use super::refs::{RefList, Refs, plausible};
use super::state::{Peers, Room};
use super::swarm::{MIN_SIZE, Swarm};
use super::wanted::{Asked, BigTask, Place, Wanted};

/// Most chunk lists of one request.
const LISTS_AT_ONCE: usize = 64;
/// Segments are asked for together up to this many bytes.
pub(super) const SEGMENTS_AT_ONCE: u64 = 1 << 20;
/// Wrong answers after which a peer is not asked for this content any more.
const BAD_MAX: u8 = 2;

/// A position in the list and in the file.
#[derive(Clone, Copy, Debug, Default)]
struct At {
    n: usize,
    offset: u64,
}

enum Phase {
    /// `None` until somebody is asked.
    Refs(Option<Box<Refs>>),
    /// A local worker opens the stage and the base.
    Preparing,
    Segments,
}

/// What a page of a segment list led to.
pub(super) enum Page {
    More,
    Whole(Vec<SegmentRef>),
    Bad,
}

#[derive(Clone, Copy, Default)]
struct Verdict {
    bad: u8,
    gone: bool,
}

/// A big content's progress; under the state's lock.
pub(super) struct Big {
    pub(super) file: Arc<BigFile>,
    pub(super) waiters: Vec<OpId>,
    pub(super) peers: Vec<DeviceId>,
    pub(super) walkers: usize,
    verdicts: BTreeMap<DeviceId, Verdict>,
    liar: Option<DeviceId>,
    phase: Phase,
    /// The segment list, as far as it is known.
    pub(super) refs: RefList,
    /// `refs` is the content's whole list, verified.
    whole: bool,
    /// The content is not known yet.
    pub(super) offer: Option<Offered>,
    /// The offer that it was before it had a content id.
    pub(super) was: Option<ContentId>,
    /// Others that fetch it too.
    pub(super) swarm: Swarm,
    /// The next segment to look at.
    cursor: At,
    /// All segments before it are in place and given to the manifest's writer.
    done: At,
    /// Segments in place behind a gap.
    ready: BTreeMap<usize, Segment>,
    /// What nobody is asked for, or only partners that are late.
    wanted: VecDeque<Wanted>,
    asks: Asks,
    /// Bytes that are asked for of who has all.
    inflight: u64,
    /// Nobody who announced it has it any more; others may finish it until then.
    forsaken: Option<Instant>,
}

impl Big {
    pub(super) fn new(file: Arc<BigFile>, waiters: Vec<OpId>, peers: &[DeviceId]) -> Self {
        Self {
            file,
            waiters,
            peers: peers.to_vec(),
            walkers: 0,
            verdicts: BTreeMap::new(),
            liar: None,
            phase: Phase::Refs(None),
            refs: RefList::default(),
            whole: false,
            offer: None,
            was: None,
            swarm: Swarm::default(),
            cursor: At::default(),
            done: At::default(),
            ready: BTreeMap::new(),
            wanted: VecDeque::new(),
            asks: Asks::default(),
            inflight: 0,
            forsaken: None,
        }
    }

    /// Whether it is what others call by this id.
    pub(super) fn is_known_as(&self, id: &ContentId) -> bool {
        self.was == Some(*id) || self.file.id() == *id
    }

    pub(super) fn add_peers(&mut self, peers: &[DeviceId]) {
        for peer in peers {
            if !self.peers.contains(peer) {
                self.peers.push(*peer);
            }
        }
    }

    /// Whether `peer` may be asked: it announced the content and has not failed us, or it has once
    /// and there is nobody better.
    pub(super) fn eligible(&self, peer: &DeviceId, peers: &Peers) -> bool {
        let verdict = |p: &DeviceId| self.verdicts.get(p).copied().unwrap_or_default();
        let usable = |p: &DeviceId| peers.alive(p) && !verdict(p).gone;
        if !self.peers.contains(peer) || !usable(peer) {
            return false;
        }
        match verdict(peer).bad {
            0 => true,
            n if n < BAD_MAX => !self.peers.iter().any(|p| usable(p) && verdict(p).bad == 0),
            _ => false,
        }
    }

    /// Why this can not go on, if it can not.
    pub(super) fn hopeless(&self, peers: &Peers) -> Option<FetchError> {
        let needs_peer = matches!(self.phase, Phase::Refs(_)) || !self.wanted.is_empty();
        let may_come = |w: &Wanted| self.swarm.may_come(w.n());
        let by_others = matches!(self.phase, Phase::Segments)
            && (self.swarm.is_owed() || self.wanted.iter().any(may_come));
        let forsaken = self.forsaken.is_some_and(|until| until <= Instant::now());
        if by_others && !forsaken {
            return None;
        }
        if !(needs_peer || by_others) || self.peers.iter().any(|p| self.eligible(p, peers)) {
            return None;
        }
        Some(self.liar.map_or(FetchError::Gone, FetchError::Corrupt))
    }

    pub(super) fn blame(&mut self, peer: DeviceId) {
        self.liar = Some(peer);
        let verdict = self.verdicts.entry(peer).or_default();
        verdict.bad = verdict.bad.saturating_add(1);
        self.forget_refs_of(&peer);
    }

    pub(super) fn gone_at(&mut self, peer: DeviceId) {
        self.verdicts.entry(peer).or_default().gone = true;
        self.forget_refs_of(&peer);
    }

    /// The segment list from this peer is given up; the next peer begins anew.
    fn forget_refs_of(&mut self, peer: &DeviceId) {
        if let Phase::Refs(refs) = &mut self.phase
            && refs.as_ref().is_some_and(|r| r.from == *peer)
        {
            *refs = None;
        }
    }

    /// The next thing to ask `peer` for, where `room` is left in the lane's windows.
    pub(super) fn take(
        &mut self,
        peer: &DeviceId,
        room: Room,
        config: &FetchConfig,
        peers: &Peers,
    ) -> Option<(BigTask, Asked)> {
        let full = self.eligible(peer, peers);
        if !full && !self.swarm.serves(peer) {
            return None;
        }
        let asked = Asked {
            peer: *peer,
            id: self.file.id(),
            partial: !full,
            hint: self.offer.is_some(),
        };
        if let Phase::Refs(refs) = &mut self.phase {
            if !full {
                return None;
            }
            if let Some(r) = refs
                && (r.asked || (r.from != *peer && peers.alive(&r.from)))
            {
                return None;
            }
            let refs = match refs {
                Some(r) if r.from == *peer => r,
                other => other.insert(Box::new(Refs::new(*peer))),
            };
            refs.asked = true;
            return Some((BigTask::Refs(refs.list.len() as u64), asked));
        }
        // What an offer left to ask for is not asked before it is known to be of the content.
        match self.phase {
            Phase::Segments => self.take_parts(asked, room, config),
            _ => None,
        }
    }

    /// The next parts to ask for, of one kind.
    fn take_parts(
        &mut self,
        mut asked: Asked,
        room: Room,
        config: &FetchConfig,
    ) -> Option<(BigTask, Asked)> {
        let (peer, full) = (asked.peer, !asked.partial);
        let (file_room, nothing) = match full {
            true => {
                let window = room.long.map_or(config.file_window, |long| long.file);
                let window = self.swarm.window(window);
                (window.saturating_sub(self.inflight), self.inflight == 0)
            }
            false => {
                asked.id = self.swarm.id_at(&peer)?;
                asked.hint |= asked.id != self.file.id();
                self.swarm.room_of(&peer)
            }
        };
        let mut parts: VecDeque<Wanted> = VecDeque::new();
        let (mut total, mut at) = (0, 0);
        while let Some(next) = self.wanted.get(at) {
            if !self.swarm.may_ask(&peer, full, next.n()) || self.asks.of(next.n()).contains(&peer)
            {
                at += 1;
                continue;
            }
            let cost = next.cost();
            let fits = match parts.front() {
                None if room.long.is_some() => file_room > 0 || nothing,
                None => (cost <= room.bytes || room.idle) && (cost <= file_room || nothing),
                Some(Wanted::Chunks(_)) => false,
                Some(first) => {
                    let most = match first {
                        Wanted::List(_) => LISTS_AT_ONCE,
                        _ => usize::MAX,
                    };
                    first.same_kind(next)
                        && parts.len() < most
                        && total + cost <= SEGMENTS_AT_ONCE.min(room.bytes).min(file_room)
                }
            };
            if !fits {
                break;
            }
            total += cost;
            parts.extend(self.wanted.remove(at));
        }
        if parts.is_empty() {
            return None;
        }
        for part in &parts {
            self.asks.begin(part, peer);
        }
        match full {
            true => {
                self.inflight += total;
                self.swarm.asked_source();
            }
            false => self.swarm.asked(&peer, total),
        }
        Some((BigTask::Parts(parts), asked))
    }

    /// An answer about segment `n` came: it counts no more as asked for.
    pub(super) fn landed(&mut self, n: usize, cost: u64, whom: &Asked) {
        self.over(n, cost, whom, cost);
    }

    /// It will not come.
    pub(super) fn lost(&mut self, n: usize, cost: u64, whom: &Asked) {
        self.over(n, cost, whom, 0);
    }

    fn over(&mut self, n: usize, cost: u64, whom: &Asked, came: u64) {
        self.asks.end(n, &whom.peer);
        if whom.partial {
            self.swarm.landed(&whom.peer, cost);
        } else {
            self.inflight = self.inflight.saturating_sub(cost);
            let more = self.inflight > 0;
            self.swarm.speed.landed(came, more, Instant::now());
        }
        self.touch();
    }

    /// Whether a segment is verified and in place.
    pub(super) fn has(&self, n: usize) -> bool {
        n < self.done.n || self.ready.contains_key(&n)
    }

    fn is_wanted(&self, n: usize) -> bool {
        self.wanted.iter().any(|w| w.n() == n)
    }

    /// A part did not come: it is asked for again, before others, unless somebody else has brought
    /// it or is asked for it.
    pub(super) fn again(&mut self, part: Wanted) {
        let n = part.n();
        if !self.has(n) && !self.is_wanted(n) && self.asks.of(n).is_empty() {
            self.wanted.push_front(part);
        }
    }

    /// A part is to be asked for, in place of what was wanted of that segment before.
    pub(super) fn want(&mut self, part: Wanted) {
        let n = part.n();
        self.unwant(n);
        if !self.has(n) {
            self.wanted.push_back(part);
        }
    }

    /// Nothing more of the segment is to be asked for.
    pub(super) fn unwant(&mut self, n: usize) {
        if let Some(at) = self.wanted.iter().position(|w| w.n() == n) {
            self.wanted.remove(at);
        }
    }

    /// The page of the segment list that was asked for did not come.
    pub(super) fn refs_lost(&mut self) {
        if let Phase::Refs(Some(refs)) = &mut self.phase {
            refs.asked = false;
        }
    }

    /// Takes in a page of the segment list from `peer`.
    pub(super) fn page(
        &mut self,
        peer: &DeviceId,
        from: u64,
        page: impl Iterator<Item = SegmentRef>,
    ) -> Page {
        let size = self.file.size;
        let Phase::Refs(Some(refs)) = &mut self.phase else {
            return Page::More;
        };
        if refs.from != *peer || refs.list.len() as u64 != from {
            // The answer to a question that was given up.
            return Page::More;
        }
        refs.asked = false;
        for r in page {
            let before = refs.list.last().copied();
            if !plausible(before, &r, size - refs.top.size()) {
                return Page::Bad;
            }
            refs.top.push(&r);
            refs.list.push(r);
        }
        if refs.top.size() < size {
            return Page::More;
        }
        if refs.top.finish() != self.file.id() {
            return Page::Bad;
        }
        let list = std::mem::take(&mut refs.list);
        self.phase = Phase::Preparing;
        Page::Whole(list)
    }

    pub(super) fn start_segments(&mut self, peers: &Peers) {
        // An offer may have become a content meanwhile, whose list is just asked for.
        if matches!(self.phase, Phase::Preparing) {
            self.phase = Phase::Segments;
            self.join(peers);
        }
    }

    /// The next segment to look at, if it is not too far ahead of what is done.
    pub(super) fn walk_next(&mut self, ahead: u64) -> Option<Place> {
        self.file.prepared.get()?;
        let At { n, offset } = self.cursor;
        let (sref, _) = self.refs.get(n)?;
        if offset > self.done.offset + ahead {
            return None;
        }
        self.cursor = after(self.cursor, &sref);
        Some(Place { n, offset, sref })
    }

    /// Whether a walker has enough to do. Where others bring parts too each of them should know in
    /// time what falls to it.
    pub(super) fn walk_worth(&self, ahead: u64) -> bool {
        const STEP: u64 = 4 << 20;
        let step = match self.swarm.is_active() {
            true => STEP.min(ahead / 2),
            false => ahead / 2,
        };
        matches!(self.phase, Phase::Segments)
            && self.file.prepared.get().is_some()
            && self.cursor.n < self.refs.len()
            && self.cursor.offset + step <= self.done.offset + ahead
    }

    /// A segment is verified and in place. `false` when it was before.
    pub(super) fn complete(&mut self, n: usize, segment: Segment) -> bool {
        if self.has(n) {
            return false;
        }
        self.unwant(n);
        if self.file.size >= MIN_SIZE {
            self.swarm.complete(n, segment.sref.len, &segment.chunks);
        }
        self.ready.insert(n, segment);
        true
    }

    /// Takes the segments, in order, that are in place without a gap before them.
    pub(super) fn drain(&mut self) -> Vec<Segment> {
        let mut run = Vec::new();
        while let Some(segment) = self.ready.remove(&self.done.n) {
            self.done = after(self.done, &segment.sref);
            run.push(segment);
        }
        run
    }

    pub(super) fn is_done(&self) -> bool {
        self.whole && self.done.n == self.refs.len()
    }
}

fn after(at: At, r: &SegmentRef) -> At {
    At {
        n: at.n + 1,
        offset: at.offset + r.len,
    }
}
