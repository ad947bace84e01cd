//! Receivers of one big content that share the work: each brings other parts of it from whoever has
//! all, and serves the rest what it has. This file is what one of them knows of the others; what is
//! told and heard is in [`super::tell`].
//!
//! Nothing is agreed on. Each computes from the same few facts who brings which segment (rendezvous
//! hashing: Thaler and Ravishankar, 1998), and takes over what others do not bring in time. So wrong
//! views cost bytes that travel twice, never a part that does not come.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use left_core::content::{ChunkRef, ContentId};
use left_core::message::Parts;
use left_core::version::DeviceId;

use super::bits::Bits;
use super::state::Peers;

/// Smaller contents are here before anybody could be told.
pub(super) const MIN_SIZE: u64 = 8 << 20;
/// Others that are listened to; more get their parts where they got them before.
const MAX_PARTNERS: usize = 64;
/// For so long everybody who may fetch it too counts as one who does.
const GRACE: Duration = Duration::from_millis(50);
/// How long others are waited for at least and at most while there is nothing else to ask for.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(150), Duration::from_secs(15));
/// How long nothing is expected of who was late; doubled each time.
const LATE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// Answers that a partner owes us at most, in bytes, and while it is late.
const OWED: (u64, u64) = (4 << 20, 1 << 20);
/// Refusals after which a partner is not believed any more.
const MAX_GONE: u8 = 3;
/// Chunk lists kept so that a segment need not be cut again when it is asked for.
const MAX_LISTS: usize = 256;

/// Another receiver.
pub(super) struct Partner {
    key: u64,
    /// As what it knows the content.
    pub(super) id: ContentId,
    has: Bits,
    /// It is to be told of all that is here, not only of what is new.
    pub(super) tell_all: bool,
    /// It has a lane for big contents.
    connected: bool,
    gone: u8,
    /// It sent wrong bytes, or said too often that it has what it has not.
    banned: bool,
    late_until: Option<Instant>,
    late_for: Duration,
    /// Bytes that it was asked for and that are not here.
    owes: u64,
    /// When it was asked while it owed nothing, or something of it came.
    touched: Instant,
}

impl Partner {
    fn serves(&self) -> bool {
        self.connected && !self.banned
    }

    fn is_late(&self, now: Instant) -> bool {
        self.late_until.is_some_and(|t| now < t)
    }
}

/// What one content's receivers know of each other; under the state's lock.
#[derive(Default)]
pub(super) struct Swarm {
    me: u64,
    /// As what all were told that it is fetched here.
    begun: Option<ContentId>,
    /// All are still to be told so.
    pub(super) greet: bool,
    grace: Option<(Instant, Vec<u64>)>,
    pub(super) partners: BTreeMap<DeviceId, Partner>,
    /// Of others that bring parts, as of the last look.
    owners: Vec<u64>,
    /// What is in place here.
    pub(super) here: Bits,
    /// What of that was not told, and its bytes.
    pub(super) news: Vec<usize>,
    pub(super) news_bytes: u64,
    pub(super) told_at: Option<Instant>,
    lists: HashMap<usize, Vec<ChunkRef>>,
    listed: VecDeque<usize>,
    /// Since when nothing may be asked of who has all, though not all is here.
    idle_since: Option<Instant>,
    /// How long answers of who has all take.
    latency: Duration,
}

fn key(device: &DeviceId) -> u64 {
    let bytes = device.0.first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(bytes)
}

/// SplitMix64's mix of a device and a position.
fn score(key: u64, n: usize) -> u64 {
    let mut z = key ^ (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Swarm {
    /// Segments begin to be asked for under this id; the others may fetch it too.
    pub(super) fn begin(&mut self, me: &DeviceId, id: ContentId, others: &[DeviceId]) {
        if self.begun == Some(id) {
            return;
        }
        self.me = key(me);
        self.greet = !others.is_empty();
        if self.begun.is_none() && self.greet {
            let keys = others.iter().take(MAX_PARTNERS).map(key).collect();
            self.grace = Some((Instant::now() + GRACE, keys));
        }
        self.begun = Some(id);
        self.look();
    }

    /// Whether others are thought of when something is asked for.
    pub(super) fn is_active(&self) -> bool {
        !self.partners.is_empty() || self.grace.is_some()
    }

    /// Computes anew who brings parts.
    fn look(&mut self) {
        let now = Instant::now();
        let brings = |p: &&Partner| p.serves() && !p.is_late(now);
        self.owners = self
            .partners
            .values()
            .filter(brings)
            .map(|p| p.key)
            .collect();
        match &self.grace {
            Some((until, keys)) if now < *until => {
                let more = keys.iter().filter(|k| !self.owners.contains(k)).copied();
                let more: Vec<u64> = more.collect();
                self.owners.extend(more);
            }
            _ => self.grace = None,
        }
    }

    /// Whether it falls to us to bring a segment from who has all.
    fn is_ours(&self, n: usize) -> bool {
        let own = score(self.me, n);
        self.owners.iter().all(|k| score(*k, n) > own)
    }

    /// Whether a partner has the segment; one that was late is not waited for.
    fn is_held(&self, n: usize, now: Instant) -> bool {
        let holds = |p: &Partner| p.serves() && p.has.has(n) && !p.is_late(now);
        self.partners.values().any(holds)
    }

    /// Whether any partner may still be asked for the segment.
    pub(super) fn may_come(&self, n: usize) -> bool {
        self.partners.values().any(|p| p.serves() && p.has.has(n))
    }

    /// Whether partners owe anything.
    pub(super) fn is_owed(&self) -> bool {
        self.partners.values().any(|p| p.owes > 0)
    }

    /// Whether it serves parts.
    pub(super) fn serves(&self, peer: &DeviceId) -> bool {
        self.partners.get(peer).is_some_and(Partner::serves)
    }

    /// As what a partner is asked for the content.
    pub(super) fn id_at(&self, peer: &DeviceId) -> Option<ContentId> {
        self.partners.get(peer).map(|p| p.id)
    }

    /// Whether a peer may be asked for a segment now; `full`: it has all.
    pub(super) fn may_ask(&self, peer: &DeviceId, full: bool, n: usize, now: Instant) -> bool {
        if !self.is_active() {
            return full;
        }
        let has = |p: &Partner| p.serves() && p.has.has(n);
        self.partners.get(peer).is_some_and(has)
            || (full && self.is_ours(n) && !self.is_held(n, now))
    }

    /// The part of a file's window that is for those who have all.
    pub(super) fn window(&self, file_window: u64) -> u64 {
        const LEAST: u64 = 2 << 20;
        match self.owners.len() as u64 {
            0 => file_window,
            others => (file_window / (others + 1)).max(LEAST.min(file_window)),
        }
    }

    /// Bytes that a partner may still be asked for, and whether it owes nothing.
    pub(super) fn room_of(&self, peer: &DeviceId) -> (u64, bool) {
        self.partners.get(peer).map_or((0, false), |p| {
            let most = if p.is_late(Instant::now()) {
                OWED.1
            } else {
                OWED.0
            };
            (most.saturating_sub(p.owes), p.owes == 0)
        })
    }

    pub(super) fn asked(&mut self, peer: &DeviceId, bytes: u64) {
        if let Some(p) = self.partners.get_mut(peer) {
            if p.owes == 0 {
                p.touched = Instant::now();
            }
            p.owes += bytes;
        }
    }

    /// An answer of a partner came, or is given up.
    pub(super) fn landed(&mut self, peer: &DeviceId, bytes: u64) {
        if let Some(p) = self.partners.get_mut(peer) {
            p.owes = p.owes.saturating_sub(bytes);
            p.touched = Instant::now();
        }
    }

    /// An answer of who has all came, asked for at that time.
    pub(super) fn timed(&mut self, at: Instant) {
        let now = at.elapsed();
        self.latency = now.max((self.latency * 7 + now) / 8);
    }

    /// A segment is in place.
    pub(super) fn complete(&mut self, n: usize, bytes: u64, list: &[ChunkRef]) {
        if !self.here.set(n) || self.begun.is_none() {
            return;
        }
        if self.partners.is_empty() {
            // Who comes later is told of everything.
            return;
        }
        self.news.push(n);
        self.news_bytes += bytes;
        if self.listed.len() >= MAX_LISTS
            && let Some(oldest) = self.listed.pop_front()
        {
            self.lists.remove(&oldest);
        }
        self.listed.push_back(n);
        self.lists.insert(n, list.to_vec());
    }

    pub(super) fn list(&self, n: usize) -> Option<Vec<ChunkRef>> {
        self.lists.get(&n).cloned()
    }

    /// Takes in what another receiver tells, of `most` segments at most. Whether there is something
    /// new to ask for.
    pub(super) fn heard(&mut self, peer: DeviceId, parts: &Parts, most: usize) -> bool {
        let known = self.partners.contains_key(&peer);
        if !known && self.partners.len() >= MAX_PARTNERS {
            return false;
        }
        let now = Instant::now();
        let partner = self.partners.entry(peer).or_insert_with(|| Partner {
            key: key(&peer),
            id: parts.content,
            has: Bits::default(),
            tell_all: true,
            connected: false,
            gone: 0,
            banned: false,
            late_until: None,
            late_for: LATE.0,
            owes: 0,
            touched: now,
        });
        partner.id = parts.content;
        partner.tell_all |= parts.hello;
        let from = usize::try_from(parts.from).unwrap_or(usize::MAX);
        let mut new = false;
        for (at, byte) in parts.bitmap.iter().enumerate().filter(|(_, b)| **b != 0) {
            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                let n = from.saturating_add(at * 8 + bit);
                new |= n < most && partner.has.set(n);
            }
        }
        if !known {
            self.look();
        }
        new
    }

    /// Says anew of all partners whether they are connected. Whether more or fewer bring parts than
    /// before.
    pub(super) fn connect(&mut self, peers: &Peers) -> bool {
        let before = (self.owners.len(), self.grace.is_some());
        for (device, partner) in &mut self.partners {
            partner.connected = peers.has_lane(device);
        }
        self.look();
        before != (self.owners.len(), self.grace.is_some())
    }

    /// A partner said that it has not got what it told of.
    pub(super) fn gone_at(&mut self, peer: &DeviceId) {
        if let Some(p) = self.partners.get_mut(peer) {
            p.has = Bits::default();
            p.gone += 1;
            p.banned |= p.gone >= MAX_GONE;
        }
        self.look();
    }

    /// A partner sent something else than what it was asked for.
    pub(super) fn ban(&mut self, peer: &DeviceId) {
        if let Some(p) = self.partners.get_mut(peer) {
            p.banned = true;
            p.has = Bits::default();
        }
        self.look();
    }

    pub(super) fn left(&mut self, peer: &DeviceId) {
        if self.partners.remove(peer).is_some() {
            self.look();
        }
    }

    /// Looks whether others keep us waiting: `wanted` are the segments that nobody was asked for,
    /// `idle` says that nothing is under way from who has all, though it may be asked. Returns
    /// whether more may be asked for than before.
    pub(super) fn watch(&mut self, wanted: &[usize], idle: bool) -> bool {
        let now = Instant::now();
        let stuck = !wanted.is_empty() || self.is_owed();
        let free = |n: &usize| self.is_ours(*n) && !self.is_held(*n, now);
        if !idle || !stuck || wanted.iter().any(free) {
            self.idle_since = None;
            return false;
        }
        let since = *self.idle_since.get_or_insert(now);
        if now - since < (self.latency * 2).clamp(PATIENCE.0, PATIENCE.1) {
            return false;
        }
        self.idle_since = None;
        let keys: Vec<u64> = wanted.iter().filter_map(|n| self.owner(*n)).collect();
        for p in self.partners.values_mut() {
            let holds = wanted.iter().any(|n| p.has.has(*n));
            if p.owes > 0 || holds || keys.contains(&p.key) {
                p.late_until = Some(now + p.late_for);
                p.late_for = (p.late_for * 2).min(LATE.1);
            }
        }
        self.look();
        true
    }

    /// Which of the others brings a segment.
    fn owner(&self, n: usize) -> Option<u64> {
        self.owners.iter().copied().min_by_key(|k| score(*k, n))
    }

    /// Partners of whose debts nothing came for so long. They are not believed any more.
    pub(super) fn take_stuck(&mut self, patience: Duration) -> Vec<DeviceId> {
        let patience = patience.max(self.latency * 4);
        let mut stuck = Vec::new();
        for (device, p) in &mut self.partners {
            if p.owes > 0 && !p.banned && p.touched.elapsed() > patience {
                p.banned = true;
                stuck.push(*device);
            }
        }
        stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(n: u8) -> DeviceId {
        DeviceId([n; 32])
    }

    fn parts(from: u64, bitmap: &[u8]) -> Parts {
        Parts {
            content: ContentId([1; 32]),
            from,
            bitmap: bitmap.to_vec(),
            hello: false,
        }
    }

    fn swarm(me: u8, others: &[u8]) -> Swarm {
        let mut swarm = Swarm::default();
        swarm.begin(&device(me), ContentId([1; 32]), &[]);
        for other in others {
            swarm.heard(device(*other), &parts(0, &[]), 1000);
        }
        for p in swarm.partners.values_mut() {
            p.connected = true;
        }
        swarm.look();
        swarm
    }

    #[test]
    fn each_segment_falls_to_exactly_one() {
        let all = [1u8, 2, 3, 4, 5];
        let swarms: Vec<Swarm> = (all.iter())
            .map(|me| {
                let others: Vec<u8> = all.iter().copied().filter(|o| o != me).collect();
                swarm(*me, &others)
            })
            .collect();
        let mut shares = [0; 5];
        for n in 0..1000 {
            let takers: Vec<usize> = (0..5).filter(|i| swarms[*i].is_ours(n)).collect();
            assert_eq!(takers.len(), 1, "{n}");
            shares[takers[0]] += 1;
        }
        assert!(shares.iter().all(|s| (150..250).contains(s)), "{shares:?}");
    }

    #[test]
    fn who_leaves_leaves_its_segments_to_the_others() {
        let mut mine = swarm(1, &[2, 3]);
        let before: Vec<bool> = (0..300).map(|n| mine.is_ours(n)).collect();
        mine.left(&device(2));
        let after: Vec<bool> = (0..300).map(|n| mine.is_ours(n)).collect();
        let kept = before.iter().zip(&after).all(|(b, a)| !b || *a);
        assert!(kept && after.iter().filter(|a| **a).count() > 120);
        mine.left(&device(3));
        assert!((0..300).all(|n| mine.is_ours(n)));
        assert!(!mine.is_active());
    }

    #[test]
    fn claims_take_no_more_room_than_there_are_segments() {
        let mut mine = swarm(1, &[2]);
        assert!(mine.heard(device(2), &parts(990, &[0xff; 8000]), 1000));
        assert!(!mine.heard(device(2), &parts(u64::MAX - 3, &[0xff; 8000]), 1000));
        let partner = &mine.partners[&device(2)];
        assert_eq!(partner.has.iter().count(), 10);
        assert!(partner.has.iter().all(|n| n < 1000));
        for n in 0..200 {
            mine.heard(device(n), &parts(0, &[1]), 1000);
        }
        assert_eq!(mine.partners.len(), MAX_PARTNERS);
    }

    #[test]
    fn what_others_have_is_asked_of_them_and_late_ones_are_passed_over() {
        let mut mine = swarm(1, &[2]);
        let now = Instant::now();
        let (source, other) = (device(9), device(2));
        mine.heard(other, &parts(0, &[0b11]), 1000);
        assert!(mine.may_ask(&other, false, 0, now));
        assert!(!mine.may_ask(&other, false, 2, now));
        assert!(!mine.may_ask(&source, true, 0, now));
        let theirs: Vec<usize> = (2..40).filter(|n| !mine.is_ours(*n)).collect();
        assert!(!mine.may_ask(&source, true, theirs[0], now));
        // Nothing else is left to ask for: it is waited for, then not any more.
        assert!(!mine.watch(&theirs, true));
        mine.idle_since = now.checked_sub(Duration::from_secs(1));
        assert!(mine.watch(&theirs, true));
        assert!(mine.may_ask(&source, true, theirs[0], now));
        assert!(mine.may_ask(&other, false, 0, now), "what it has it has");
    }

    #[test]
    fn who_has_not_what_it_said_is_not_believed_for_long() {
        let mut mine = swarm(1, &[2]);
        for _ in 0..MAX_GONE {
            assert!(mine.heard(device(2), &parts(0, &[1]), 10));
            assert!(mine.serves(&device(2)));
            mine.gone_at(&device(2));
        }
        mine.heard(device(2), &parts(0, &[1]), 10);
        assert!(!mine.serves(&device(2)));
        assert!((0..300).all(|n| mine.is_ours(n)));
    }
}
