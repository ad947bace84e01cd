//! Big contents: what is known of each, and which part of it is asked for next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use left_core::content::{ContentId, Segment, SegmentRef};
use left_core::message::Parts;
use left_core::plan::{FetchError, OpId};
use left_core::version::DeviceId;

use super::FetchConfig;
use super::file::BigFile;
use super::refs::{Refs, plausible};
use super::state::Peers;
use super::swarm::{MIN_SIZE, Swarm};
use super::tell;
use super::wanted::{Asked, BigTask, Place, Wanted};

/// Most chunk lists of one request.
const LISTS_AT_ONCE: usize = 64;
/// Segments are asked for together up to this many bytes.
const SEGMENTS_AT_ONCE: u64 = 1 << 20;
/// Segments of an offer that are remembered; the rest is got when its content is known.
const OFFERED_MAX: usize = 4096;
/// Wrong answers after which a peer is not asked for this content any more.
const BAD_MAX: u8 = 2;

/// A position in the list and in the file.
#[derive(Clone, Copy, Debug, Default)]
struct At {
    n: usize,
    offset: u64,
}

/// Segments that a peer offers of a file that it still reads. They are only a hint of what the
/// content will be: once that is known its own list counts.
pub(super) struct Offered {
    pub(super) from: DeviceId,
    /// When it was last told of, or something of it came.
    pub(super) touched: Instant,
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
    pub(super) refs: Vec<SegmentRef>,
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
    wanted: VecDeque<Wanted>,
    /// Bytes that are asked for of who has all.
    inflight: u64,
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
            refs: Vec::new(),
            whole: false,
            offer: None,
            was: None,
            swarm: Swarm::default(),
            cursor: At::default(),
            done: At::default(),
            ready: BTreeMap::new(),
            wanted: VecDeque::new(),
            inflight: 0,
        }
    }

    /// What `from` offers; its segments come by [`Self::offered`].
    pub(super) fn of_offer(file: Arc<BigFile>, from: DeviceId) -> Self {
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
    pub(super) fn offered(&mut self, from: u64, segments: &[SegmentRef]) -> bool {
        let room = OFFERED_MAX.saturating_sub(self.refs.len());
        if room == 0 {
            return true;
        }
        if from != self.refs.len() as u64 {
            return false;
        }
        let mut covered = self.refs.iter().map(|r| r.len).sum::<u64>();
        for r in segments.iter().take(room) {
            if !plausible(self.refs.last().copied(), r, self.file.size - covered) {
                return false;
            }
            covered += r.len;
            self.refs.push(*r);
        }
        self.touch();
        true
    }

    fn touch(&mut self) {
        if let Some(offer) = &mut self.offer {
            offer.touched = Instant::now();
        }
    }

    /// The content of what was offered is known: its own segment list is asked for now.
    pub(super) fn bind(&mut self, waiter: OpId, peers: &[DeviceId]) {
        self.waiters.push(waiter);
        self.offer = None;
        // What was wrong with the offer is not held against the content.
        self.verdicts.clear();
        self.liar = None;
        self.add_peers(peers);
        self.phase = Phase::Refs(None);
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

    /// The content's own list is known and verified. `false` when what was offered before was
    /// something else.
    pub(super) fn settle(&mut self, list: Vec<SegmentRef>) -> bool {
        if !list.starts_with(&self.refs) {
            return false;
        }
        self.refs = list;
        self.whole = true;
        true
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
        if matches!(self.phase, Phase::Segments)
            && (self.swarm.is_owed() || self.wanted.iter().any(may_come))
        {
            return None;
        }
        if !needs_peer || self.peers.iter().any(|p| self.eligible(p, peers)) {
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

    /// The next thing to ask `peer` for; `room` bytes are free in the lane's window.
    pub(super) fn take(
        &mut self,
        peer: &DeviceId,
        room: u64,
        lane_idle: bool,
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
            at: Instant::now(),
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
        self.take_parts(asked, room, lane_idle, config)
    }

    /// The next parts to ask for, of one kind.
    fn take_parts(
        &mut self,
        mut asked: Asked,
        room: u64,
        lane_idle: bool,
        config: &FetchConfig,
    ) -> Option<(BigTask, Asked)> {
        let (peer, full) = (asked.peer, !asked.partial);
        let (file_room, nothing) = match full {
            true => {
                let window = self.swarm.window(config.file_window);
                (window.saturating_sub(self.inflight), self.inflight == 0)
            }
            false => {
                asked.id = self.swarm.id_at(&peer)?;
                self.swarm.room_of(&peer)
            }
        };
        let mut parts: VecDeque<Wanted> = VecDeque::new();
        let (mut total, mut at) = (0, 0);
        while let Some(next) = self.wanted.get(at) {
            if !self.swarm.may_ask(&peer, full, next.n(), asked.at) {
                at += 1;
                continue;
            }
            let cost = next.cost();
            let fits = match parts.front() {
                None => (cost <= room || lane_idle) && (cost <= file_room || nothing),
                Some(Wanted::Chunks(_)) => false,
                Some(first) => {
                    let most = match first {
                        Wanted::List(_) => LISTS_AT_ONCE,
                        _ => usize::MAX,
                    };
                    first.same_kind(next)
                        && parts.len() < most
                        && total + cost <= SEGMENTS_AT_ONCE.min(room).min(file_room)
                }
            };
            if !fits {
                break;
            }
            total += cost;
            parts.extend(self.wanted.remove(at));
        }
        match full {
            true => self.inflight += total,
            false => self.swarm.asked(&peer, total),
        }
        (!parts.is_empty()).then_some((BigTask::Parts(parts), asked))
    }

    /// An answer came, or its lane was lost: the parts count no more as asked for.
    pub(super) fn landed(&mut self, cost: u64, whom: &Asked) {
        if whom.partial {
            self.swarm.landed(&whom.peer, cost);
        } else {
            self.inflight = self.inflight.saturating_sub(cost);
            self.swarm.timed(whom.at);
        }
        self.touch();
    }

    /// Parts to be asked for again, before others.
    pub(super) fn again(&mut self, part: Wanted) {
        self.wanted.push_front(part);
    }

    pub(super) fn want(&mut self, part: Wanted) {
        self.wanted.push_back(part);
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

    /// Others may fetch it too.
    fn join(&mut self, peers: &Peers) {
        if let Some(me) = &peers.me
            && self.file.size >= MIN_SIZE
        {
            let others = tell::others(self, peers);
            self.swarm.begin(me, self.file.id(), &others);
        }
    }

    /// Takes in what another receiver has. Whether there is something new to ask it for.
    pub(super) fn hear(&mut self, peer: DeviceId, parts: &Parts, peers: &Peers) -> bool {
        if self.file.size < MIN_SIZE {
            return false;
        }
        let most = match self.whole {
            true => self.refs.len(),
            false => OFFERED_MAX,
        };
        let new = self.swarm.heard(peer, parts, most);
        self.swarm.connect(peers);
        new
    }

    /// Sees to it that others do not keep us waiting for long. Whether more may be asked for now.
    pub(super) fn watch_others(&mut self, peers: &Peers) -> bool {
        if !self.swarm.is_active() || !matches!(self.phase, Phase::Segments) {
            return false;
        }
        let wanted: Vec<usize> = self.wanted.iter().map(Wanted::n).collect();
        let source = self.peers.iter().any(|p| self.eligible(p, peers));
        self.swarm.watch(&wanted, self.inflight == 0 && source)
    }

    /// The next segment to look at, if it is not too far ahead of what is done.
    pub(super) fn walk_next(&mut self, ahead: u64) -> Option<Place> {
        self.file.prepared.get()?;
        let At { n, offset } = self.cursor;
        let sref = *self.refs.get(n)?;
        if offset > self.done.offset + ahead {
            return None;
        }
        self.cursor = after(self.cursor, &sref);
        Some(Place { n, offset, sref })
    }

    /// Whether a walker has enough to do.
    pub(super) fn walk_worth(&self, ahead: u64) -> bool {
        matches!(self.phase, Phase::Segments)
            && self.file.prepared.get().is_some()
            && self.cursor.n < self.refs.len()
            && self.cursor.offset <= self.done.offset + ahead / 2
    }

    /// A segment is verified and in place.
    pub(super) fn complete(&mut self, n: usize, segment: Segment) {
        if self.file.size >= MIN_SIZE {
            self.swarm.complete(n, segment.sref.len, &segment.chunks);
        }
        self.ready.insert(n, segment);
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
