//! Everything that lanes, local workers and callers share under one lock. Only book-keeping is
//! done here; reading, hashing and writing happen outside.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use left_core::content::{ChunkRef, ContentId};
use left_core::message::Parts;
use left_core::plan::{FetchError, FetchItem, OpId, StageName};
use left_core::version::DeviceId;

use super::FetchConfig;
use super::big::{Big, SEGMENTS_AT_ONCE};
use super::file::BigFile;
use super::lane::Pulse;
use super::pace::Pace;
use super::patience::Patience;
use super::small::{Failed, Key, SmallQueue};
use super::stock::Recent;
use super::wanted::{Asked, BigTask, Place, Wanted};
use crate::transfer::frame::{HEADER_LEN, MAX_WANTS_UNANSWERED};
use crate::transfer::lane::LaneCloser;

/// A lane's part of the window of a long link is at least this.
const LEAST_SHARE: u64 = 128 << 10;

/// What a lane that begins may be asked for of small contents, and how many times what it brought later:
/// TCP doubles what is under way each round trip.
const FIRST_SHARE: u64 = 256 << 10;
const SOON: u64 = 3;
/// A lane on which nothing came for so long begins anew.
const REST: Duration = Duration::from_secs(1);

/// One item's end.
pub(super) type Outcome = (OpId, Result<StageName, FetchError>);

/// A lane as the state knows it.
pub(super) struct LaneInfo {
    pub(super) peer: DeviceId,
    pub(super) express: bool,
    pub(super) closer: Arc<dyn LaneCloser>,
    /// When bytes came last.
    pub(super) pulse: Arc<Pulse>,
    /// Bytes asked for on it and not yet here.
    pub(super) owed: u64,
    /// Over a long link: bytes that came since it was last at rest, and when some came last.
    pub(super) brought: u64,
    pub(super) brought_at: Option<Instant>,
    /// Whose turn it is on a lane that takes both: small contents or big ones.
    pub(super) small_turn: bool,
}

impl LaneInfo {
    fn brought_lately(&self, now: Instant) -> u64 {
        let lately = |at| now.saturating_duration_since(at) < REST;
        match self.brought_at.is_some_and(lately) {
            true => self.brought,
            false => 0,
        }
    }
}

/// Who can be asked.
#[derive(Default)]
pub(super) struct Peers {
    pub(super) lanes: BTreeMap<u64, LaneInfo>,
    /// Peers that are connected, whether a lane of theirs is up or not.
    pub(super) expected: BTreeSet<DeviceId>,
    /// Those of them that understand what they are told of contents that are being fetched.
    pub(super) parts: BTreeSet<DeviceId>,
    /// This device, where it tells others what it fetches.
    pub(super) me: Option<DeviceId>,
    /// Which of them keep others waiting.
    pub(super) patience: Patience,
    /// How long and wide the ways to them are.
    pub(super) paces: BTreeMap<DeviceId, Pace>,
}

impl Peers {
    /// Whether the peer has a lane or will have one.
    pub(super) fn alive(&self, peer: &DeviceId) -> bool {
        self.expected.contains(peer) || self.lanes.values().any(|l| l.peer == *peer)
    }

    /// Whether big contents may be asked of the peer now.
    pub(super) fn has_lane(&self, peer: &DeviceId) -> bool {
        self.lanes.values().any(|l| !l.express && l.peer == *peer)
    }

    /// Whether nothing came for so long on the lanes for big contents.
    pub(super) fn is_silent(&self, peer: &DeviceId, time: Duration) -> bool {
        let mut lanes = self.lanes.values().filter(|l| l.peer == *peer);
        lanes.all(|l| l.express || l.pulse.silent_for() > time)
    }

    /// What a lane over a long link may be asked for now, and its other windows there. `small`: what waits
    /// of small contents, if the lane is to be asked for those. Of the lanes for all the first is asked for
    /// big ones, and a second where bytes come by fits and starts.
    fn paced(
        &self,
        id: u64,
        config: &FetchConfig,
        small: Option<Waiting>,
        now: Instant,
    ) -> Option<(u64, Long)> {
        let lane = self.lanes.get(&id)?;
        let pace = self.paces.get(&lane.peer)?;
        let window = pace.window()?;
        let of_peer =
            |(id, l): (&u64, &LaneInfo)| (!l.express && l.peer == lane.peer).then_some(*id);
        let mut bulk: Vec<u64> = self.lanes.iter().filter_map(of_peer).collect();
        match small {
            None => bulk.truncate(if pace.is_lossy() { 2 } else { 1 }),
            Some(small) if small.by_express => bulk.clear(),
            Some(_) => {}
        }
        let express = small.is_some() && self.has_express(&lane.peer);
        let lanes = (bulk.len() + usize::from(express)).max(1) as u64;
        let share = match small {
            _ if !lane.express && !bulk.contains(&id) => 0,
            None => (window / lanes).max(LEAST_SHARE),
            Some(small) => {
                let part = self.part_of(lane, small, lanes).max(window / (2 * lanes));
                let soon = FIRST_SHARE + SOON * lane.brought_lately(now);
                config.lane_window.min(part).min(soon).max(LEAST_SHARE)
            }
        };
        let long = Long {
            file: (window + lanes * SEGMENTS_AT_ONCE).max(config.file_window),
            step: share / 4,
        };
        Some((share.saturating_sub(lane.owed), long))
    }

    /// What a lane may be asked for of small contents, so that none holds the others up at the end. (They come
    /// to an end soon: what a window larger than that for big ones loses in the queue costs less than the
    /// round trips of a smaller one.)
    fn part_of(&self, lane: &LaneInfo, small: Waiting, lanes: u64) -> u64 {
        let asked = |l: &&LaneInfo| l.peer == lane.peer && (l.express || !small.by_express);
        let owed: u64 = self.lanes.values().filter(asked).map(|l| l.owed).sum();
        (small.unasked + owed) / (2 * lanes)
    }

    /// Whether the way to the peer is long.
    pub(super) fn is_far(&self, peer: &DeviceId) -> bool {
        self.paces.get(peer).is_some_and(|p| p.long().is_some())
    }

    fn has_express(&self, peer: &DeviceId) -> bool {
        self.lanes.values().any(|l| l.express && l.peer == *peer)
    }
}

/// Work for the local workers.
pub(super) enum Job {
    /// Look at the next segments of a big content.
    Walk(Arc<BigFile>),
    /// A peer offers it: open the stage and the base.
    Prepare(Arc<BigFile>),
    /// The segment list is verified.
    Settle(Arc<BigFile>, Vec<left_core::content::SegmentRef>),
    /// Take what the base has of a segment.
    FromBase(Arc<BigFile>, Place, Vec<ChunkRef>),
    /// The staged file is whole.
    Deliver(Arc<BigFile>, Vec<OpId>),
    /// Something waits to be reported.
    Flush,
}

/// Where an item is, to cancel it.
pub(super) enum Whereabouts {
    /// Local copies are tried.
    Local,
    Small(Key),
    Big(u64),
}

/// What a lane is given to do.
pub(super) enum Task {
    Small(Vec<Key>),
    Big(Arc<BigFile>, BigTask, Asked),
}

impl Task {
    /// The bytes of its answer, about.
    pub(super) fn cost(&self) -> u64 {
        match self {
            Task::Small(keys) => keys.iter().map(|(_, size)| size + HEADER_LEN as u64).sum(),
            Task::Big(_, BigTask::Refs(_), _) => 64 * 1024,
            Task::Big(_, BigTask::Parts(parts), _) => parts.iter().map(Wanted::cost).sum(),
        }
    }
}

/// A lane's windows.
#[derive(Clone, Copy)]
pub(super) struct Room {
    /// Bytes of answers.
    pub(super) bytes: u64,
    /// Bytes of requests.
    pub(super) wants: usize,
    /// Nothing is asked for on the lane.
    pub(super) idle: bool,
    /// Where the link is long: what goes by that.
    pub(super) long: Option<Long>,
}

/// What waits of small contents.
#[derive(Clone, Copy)]
struct Waiting {
    /// Bytes that nobody is asked for yet.
    unasked: u64,
    /// Big contents have the lanes for all.
    by_express: bool,
}

/// Windows over a long link. A part is asked for as long as there is any room at all: it may be much
/// longer than what is to be under way.
#[derive(Clone, Copy)]
pub(super) struct Long {
    /// Bytes asked for and not yet here, a file.
    pub(super) file: u64,
    /// Fewer bytes of small contents are not worth a request.
    pub(super) step: u64,
}

pub(super) struct State {
    pub(super) closed: bool,
    pub(super) peers: Peers,
    pub(super) next_serial: u64,
    pub(super) small: SmallQueue,
    pub(super) bigs: BTreeMap<u64, Big>,
    pub(super) by_content: HashMap<Key, u64>,
    /// Bigs that are asked for, in the order they came; the rest waits.
    active: BTreeSet<u64>,
    waiting: VecDeque<u64>,
    /// Contents handed over under their resumable name, which the applier may be moving now.
    pub(super) delivered: HashSet<ContentId>,
    pub(super) jobs: VecDeque<Job>,
    /// Items whose local copies are to be tried.
    pub(super) copies: VecDeque<FetchItem>,
    pub(super) copying: usize,
    pub(super) items: HashMap<OpId, Whereabouts>,
    pub(super) suspects: BTreeMap<DeviceId, u64>,
    /// Whole contents that are served on for a moment.
    pub(super) recent: VecDeque<Recent>,
    /// What is to be told to others.
    pub(super) outbox: Vec<(DeviceId, Parts)>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            closed: false,
            peers: Peers::default(),
            next_serial: 0,
            small: SmallQueue::default(),
            bigs: BTreeMap::new(),
            by_content: HashMap::new(),
            active: BTreeSet::new(),
            waiting: VecDeque::new(),
            delivered: HashSet::new(),
            jobs: VecDeque::new(),
            copies: VecDeque::new(),
            copying: 0,
            items: HashMap::new(),
            suspects: BTreeMap::new(),
            recent: VecDeque::new(),
            outbox: Vec::new(),
        }
    }

    /// The next serial number, for lanes and bigs.
    pub(super) fn serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    /// Whether there is nobody to share work with.
    pub(super) fn is_quiet(&self) -> bool {
        let alone = |b: &Big| b.swarm.is_quiet();
        self.outbox.is_empty() && self.recent.is_empty() && self.bigs.values().all(alone)
    }

    /// Ends items; of those that ended before nothing is said again.
    pub(super) fn end(&mut self, failed: impl IntoIterator<Item = Failed>) -> Vec<Outcome> {
        let mut out = Vec::new();
        for (ids, why) in failed {
            for id in ids {
                if self.items.remove(&id).is_some() {
                    out.push((id, Err(why.clone())));
                }
            }
        }
        out
    }

    pub(super) fn add_big(&mut self, big: Big) {
        let serial = big.file.serial;
        self.by_content
            .insert((big.file.id(), big.file.size), serial);
        self.bigs.insert(serial, big);
        self.waiting.push_back(serial);
    }

    /// Forgets a big; its waiters still want to be told.
    pub(super) fn remove_big(&mut self, serial: u64) -> Option<Big> {
        let big = self.bigs.remove(&serial)?;
        self.by_content.remove(&(big.file.id(), big.file.size));
        if !self.active.remove(&serial) {
            self.waiting.retain(|s| *s != serial);
        }
        Some(big)
    }

    /// Bigs that nobody is left to be asked for.
    pub(super) fn hopeless(&self) -> Vec<(u64, FetchError)> {
        let why = |(serial, big): (&u64, &Big)| Some((*serial, big.hopeless(&self.peers)?));
        self.bigs.iter().filter_map(why).collect()
    }

    /// The next task for a lane; `None` when there is nothing it may do now.
    pub(super) fn take(&mut self, lane: u64, mut room: Room, config: &FetchConfig) -> Option<Task> {
        let info = self.peers.lanes.get(&lane)?;
        let by_express = !self.bigs.is_empty();
        let for_small = !self.small.is_empty() && (info.express || !by_express);
        let small = for_small.then(|| Waiting {
            unasked: self.small.unasked(),
            by_express,
        });
        if let Some((bytes, long)) = self.peers.paced(lane, config, small, Instant::now()) {
            (room.bytes, room.long) = (bytes, Some(long));
        }
        if room.bytes == 0 && (!room.idle || room.long.is_some()) {
            return None;
        }
        let (peer, express, small_turn) = (info.peer, info.express, info.small_turn);
        let small_first = express || (small_turn && !self.peers.has_express(&peer));
        let task = if small_first {
            let small = self.take_small(&peer, room, config);
            match express {
                true => small,
                false => small.or_else(|| self.take_big(&peer, room, config)),
            }
        } else {
            let big = self.take_big(&peer, room, config);
            big.or_else(|| self.take_small(&peer, room, config))
        };
        if let Some(info) = self.peers.lanes.get_mut(&lane) {
            info.small_turn = !matches!(task, Some(Task::Small(_)));
            info.owed += task.as_ref().map_or(0, Task::cost);
        }
        task
    }

    fn take_small(&mut self, peer: &DeviceId, room: Room, config: &FetchConfig) -> Option<Task> {
        // 34 bytes an id in the request, and some for the rest of it.
        let fit = (room.wants.min(MAX_WANTS_UNANSWERED).saturating_sub(64)) / 34;
        let items = config.batch_items.min(fit);
        let step = config.batch_bytes / 4;
        let step = room.long.as_ref().map_or(step, |long| step.min(long.step));
        if items == 0 || (!room.idle && room.bytes < step) {
            return None;
        }
        let bytes = config.batch_bytes.min(room.bytes);
        let batch = self.small.take(peer, items, bytes);
        (!batch.is_empty()).then_some(Task::Small(batch))
    }

    fn take_big(&mut self, peer: &DeviceId, room: Room, config: &FetchConfig) -> Option<Task> {
        if room.wants < 2048 && !room.idle {
            return None;
        }
        let peers = &self.peers;
        for serial in &self.active {
            if let Some(big) = self.bigs.get_mut(serial)
                && let Some((task, asked)) = big.take(peer, room, config, peers)
            {
                return Some(Task::Big(Arc::clone(&big.file), task, asked));
            }
        }
        if self.active.len() >= config.active_big {
            return None;
        }
        let eligible = |s: &u64| self.bigs.get(s).is_some_and(|b| b.eligible(peer, peers));
        let at = self.waiting.iter().position(eligible)?;
        let serial = self.waiting.remove(at)?;
        self.active.insert(serial);
        let big = self.bigs.get_mut(&serial)?;
        let (task, asked) = big.take(peer, room, config, peers)?;
        Some(Task::Big(Arc::clone(&big.file), task, asked))
    }

    /// Bytes came on a lane of a peer over a long link, on which `owed` are still to come. Whether other
    /// lanes may be given something from now on.
    pub(super) fn came(&mut self, lane: u64, bytes: u64, owed: u64, now: Instant) -> bool {
        let Some(info) = self.peers.lanes.get_mut(&lane) else {
            return false;
        };
        info.owed = owed;
        info.brought = info.brought_lately(now) + bytes;
        info.brought_at = Some(now);
        let Some(pace) = self.peers.paces.get_mut(&info.peer) else {
            return false;
        };
        let before = pace.is_lossy();
        pace.came(bytes, now);
        pace.is_lossy() && !before
    }

    /// Gives local workers something to do on a big where that is worth it.
    pub(super) fn schedule_walk(&mut self, serial: u64, config: &FetchConfig) -> bool {
        let Some(big) = self.bigs.get_mut(&serial) else {
            return false;
        };
        if big.walkers >= config.local_threads || !big.walk_worth(config.look_ahead) {
            return false;
        }
        big.walkers += 1;
        self.jobs.push_back(Job::Walk(Arc::clone(&big.file)));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Never;

    impl LaneCloser for Never {
        fn close(&self) {
            unreachable!();
        }
    }

    /// The most that a lane to a far peer may owe of small contents: it has brought this, of its four.
    fn share(brought: u64, unasked: u64, by_express: bool) -> u64 {
        let (peer, now) = (DeviceId([1; 32]), Instant::now());
        let mut peers = Peers::default();
        for n in 0..4 {
            let lane = LaneInfo {
                peer,
                express: n == 3,
                closer: Arc::new(Never),
                pulse: Arc::new(Pulse::new(now)),
                owed: 0,
                brought,
                brought_at: Some(now),
                small_turn: true,
            };
            peers.lanes.insert(n, lane);
        }
        let far = Duration::from_millis(100);
        peers.paces.entry(peer).or_default().round_trip(far);
        let small = Waiting {
            unasked,
            by_express,
        };
        let paced = peers.paced(3, &FetchConfig::default(), Some(small), now);
        paced.map_or(0, |(bytes, _)| bytes)
    }

    #[test]
    fn no_lane_holds_the_others_up_at_the_end() {
        const KIB: u64 = 1 << 10;
        const MIB: u64 = 1 << 20;
        let window = FetchConfig::default().lane_window;
        assert_eq!(share(MIB * 100, MIB * 1000, false), window);
        // Half of its part, as long as that keeps the link busy.
        assert_eq!(share(MIB * 100, MIB * 16, false), MIB * 2);
        assert_eq!(share(MIB * 100, MIB, false), KIB * 256);
        // One that begins.
        assert_eq!(share(0, MIB * 1000, false), KIB * 256);
        assert_eq!(share(KIB * 256, MIB * 1000, false), MIB);
        // Alone beside big contents.
        assert_eq!(share(MIB * 100, MIB * 4, true), MIB * 2);
    }
}
