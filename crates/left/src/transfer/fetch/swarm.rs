//! Receivers of one big content that share the work: each brings other parts of it from whoever has
//! all, and serves the rest what it has. This file is what one of them knows of the others; what is
//! told and heard is in [`super::tell`], how long others are waited for in [`super::patience`].
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
use super::patience::Speed;
use super::state::Peers;

/// Smaller contents are here before anybody could be told.
pub(super) const MIN_SIZE: u64 = 8 << 20;
/// Others that are listened to; more get their parts where they got them before.
const MAX_PARTNERS: usize = 64;
/// For so long after they were told of it everybody who may fetch it too counts as one who does.
const GRACE: Duration = Duration::from_millis(50);
/// They are told at once; but should that take longer, they do not count for longer than this.
const GRACE_MAX: Duration = Duration::from_secs(1);
/// Answers that a partner owes us at most, in bytes, and one that is late.
const OWED: (u64, u64) = (4 << 20, 1 << 20);
/// Refusals after which a partner is not believed any more.
const MAX_GONE: u8 = 3;
/// How often lanes look for something to ask for though nothing has changed.
const WAKE_AFTER: Duration = Duration::from_millis(200);
/// Chunk lists kept so that a segment need not be cut again when it is asked for.
const MAX_LISTS: usize = 256;

/// Another receiver.
pub(super) struct Partner {
    key: u64,
    /// As what it knows the content.
    pub(super) id: ContentId,
    has: Bits,
    /// From which position on it is to be told of all that is here, not only of what is new.
    pub(super) tell_from: Option<usize>,
    /// When it may be told of everything again.
    pub(super) all_after: Instant,
    /// Until then nothing more fits into its control lane.
    pub(super) full_until: Instant,
    /// It has a lane for big contents.
    connected: bool,
    gone: u8,
    /// It sent wrong bytes, or said too often that it has what it has not.
    banned: bool,
    /// It was waited for too long: nothing is expected of it for a time.
    late: bool,
    /// Bytes that it was asked for and that are not here.
    owes: u64,
    /// Bytes that it brought since the last look.
    brought: u64,
    /// When it was asked while it owed nothing, or something of it came.
    touched: Instant,
}

impl Partner {
    fn new(device: &DeviceId, id: ContentId) -> Self {
        let now = Instant::now();
        Self {
            key: key(device),
            id,
            has: Bits::default(),
            tell_from: Some(0),
            all_after: now,
            full_until: now,
            connected: false,
            gone: 0,
            banned: false,
            late: false,
            owes: 0,
            brought: 0,
            touched: now,
        }
    }

    fn serves(&self) -> bool {
        self.connected && !self.banned
    }

    /// Whether parts are expected of it.
    fn is_prompt(&self) -> bool {
        self.serves() && !self.late
    }
}

/// Others who may fetch it too, until they have had the time to say so.
struct Grace {
    until: Instant,
    keys: Vec<u64>,
}

/// What one content's receivers know of each other; under the state's lock.
#[derive(Default)]
pub(super) struct Swarm {
    me: u64,
    /// As what others are told that it is fetched here.
    begun: Option<ContentId>,
    /// Who is still to be told so, and not before when.
    greet: BTreeMap<DeviceId, Instant>,
    grace: Option<Grace>,
    pub(super) partners: BTreeMap<DeviceId, Partner>,
    /// Of others that bring parts, as of the last look; in order.
    owners: Vec<u64>,
    /// Somebody who has all can be asked, as of the last look.
    source: bool,
    /// How fast that one answers.
    pub(super) speed: Speed,
    /// It is asked for something that others have, so that this is known.
    probe: bool,
    /// When lanes were last sent to look for something to ask for.
    woken: Option<Instant>,
    /// What is in place here.
    pub(super) here: Bits,
    /// What of that was not told, and its bytes.
    pub(super) news: Vec<usize>,
    pub(super) news_bytes: u64,
    pub(super) told_at: Option<Instant>,
    lists: HashMap<usize, Vec<ChunkRef>>,
    listed: VecDeque<usize>,
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

/// Who brings what, and who may be asked for it.
impl Swarm {
    /// Segments begin to be asked for under this id; the others may fetch it too.
    pub(super) fn begin(&mut self, me: &DeviceId, id: ContentId, others: &[DeviceId]) {
        if self.begun == Some(id) {
            return;
        }
        let now = Instant::now();
        self.me = key(me);
        self.greet = others.iter().map(|other| (*other, now)).collect();
        if self.begun.is_none() && !others.is_empty() {
            self.grace = Some(Grace {
                until: now + GRACE_MAX,
                keys: others.iter().take(MAX_PARTNERS).map(key).collect(),
            });
        }
        self.begun = Some(id);
        self.look();
    }

    /// Whether others are thought of when something is asked for.
    pub(super) fn is_active(&self) -> bool {
        !self.partners.is_empty() || self.grace.is_some()
    }

    /// Whether there is nobody to be told anything.
    pub(super) fn is_quiet(&self) -> bool {
        !self.is_active() && self.greet.is_empty()
    }

    /// Computes anew who brings parts. Whether that are others than before.
    fn look(&mut self) -> bool {
        let mut owners: Vec<u64> = (self.partners.values())
            .filter(|p| p.is_prompt())
            .map(|p| p.key)
            .collect();
        let now = Instant::now();
        self.grace.take_if(|grace| grace.until <= now);
        owners.extend(self.grace.iter().flat_map(|grace| &grace.keys));
        owners.sort_unstable();
        owners.dedup();
        let others = owners != self.owners;
        self.owners = owners;
        others
    }

    /// Looks anew who can be asked and who is late; `source`: somebody who has all can be. Whether
    /// others bring parts than before.
    pub(super) fn refresh(&mut self, peers: &Peers, source: bool, now: Instant) -> bool {
        for (device, partner) in &mut self.partners {
            partner.connected = peers.has_lane(device);
            partner.late = peers.patience.is_late(device, now);
        }
        self.source = source;
        self.look()
    }

    /// Whether it falls to us to bring a segment from who has all.
    fn is_ours(&self, n: usize) -> bool {
        let own = score(self.me, n);
        self.owners.iter().all(|k| score(*k, n) > own)
    }

    /// Whether a partner of whom something is expected has the segment; `but`: another one.
    fn is_held(&self, n: usize, but: Option<&DeviceId>) -> bool {
        let mut others = self.partners.iter().filter(|(d, _)| Some(*d) != but);
        others.any(|(_, p)| p.is_prompt() && p.has.has(n))
    }

    /// Whether the segment could be had without this partner.
    fn is_elsewhere(&self, n: usize, but: &DeviceId) -> bool {
        self.source || self.is_held(n, Some(but))
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

    pub(super) fn is_late(&self, peer: &DeviceId) -> bool {
        self.partners.get(peer).is_some_and(|p| p.late)
    }

    /// As what a partner is asked for the content.
    pub(super) fn id_at(&self, peer: &DeviceId) -> Option<ContentId> {
        self.partners.get(peer).map(|p| p.id)
    }

    /// Whether a peer may be asked for a segment now; `full`: it has all.
    pub(super) fn may_ask(&self, peer: &DeviceId, full: bool, n: usize) -> bool {
        if !self.is_active() {
            return full;
        }
        let has = |p: &Partner| p.serves() && p.has.has(n);
        let asks = |p: &Partner| has(p) && (!p.late || !self.is_elsewhere(n, peer));
        self.partners.get(peer).is_some_and(asks)
            || (full && (self.probe || (self.is_ours(n) && !self.is_held(n, None))))
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
            let most = if p.late { OWED.1 } else { OWED.0 };
            (most.saturating_sub(p.owes), p.owes == 0)
        })
    }

    /// We are kept waiting. Whether who has all is to be asked for something, since it is not known
    /// what could be had without that.
    pub(super) fn kept_waiting(&mut self, now: Instant) -> bool {
        self.probe = self.source && self.speed.is_old(now);
        self.probe
    }

    /// Whether lanes are to look for something to ask for: there is `news`, or for a while there was
    /// none. What they may ask for depends on much; should ever one be woken too early, its file does
    /// not stand still.
    pub(super) fn is_to_wake(&mut self, news: bool, now: Instant) -> bool {
        let wake = news || self.woken.is_none_or(|at| now - at > WAKE_AFTER);
        if wake {
            self.woken = Some(now);
        }
        wake
    }

    /// Who has all was asked.
    pub(super) fn asked_source(&mut self) {
        self.speed.asked(Instant::now());
        self.probe = false;
    }

    /// A partner was asked.
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

    /// A partner brought what was missing.
    pub(super) fn brought(&mut self, peer: &DeviceId, bytes: u64) {
        if let Some(p) = self.partners.get_mut(peer) {
            p.brought += bytes;
        }
    }

    /// Partners that brought something since the last time, and what waiting that is worth.
    pub(super) fn take_brought(&mut self) -> Vec<(DeviceId, Duration)> {
        let mut all = Vec::new();
        for (device, p) in &mut self.partners {
            match std::mem::take(&mut p.brought) {
                0 => {}
                bytes => all.push((*device, self.speed.worth(bytes))),
            }
        }
        all
    }

    /// Which partner keeps segment `n` from us, if it could be had elsewhere: who is `asked` for it,
    /// who has it, or to whom it falls.
    pub(super) fn kept_by(&self, n: usize, asked: &[DeviceId], wanted: bool) -> Option<DeviceId> {
        let prompt = |d: &&DeviceId| self.partners.get(d).is_some_and(Partner::is_prompt);
        let asked = asked.iter().find(prompt).copied();
        let who = asked.or_else(|| {
            let has = |(_, p): &(&DeviceId, &Partner)| p.is_prompt() && p.has.has(n);
            let holders = self.partners.iter().filter(has);
            let holder = holders.max_by_key(|(_, p)| p.owes).map(|(d, _)| *d);
            holder.or_else(|| self.owner(n)).filter(|_| wanted)
        })?;
        self.is_elsewhere(n, &who).then_some(who)
    }

    /// The partner that brings a segment, if it does not fall to us.
    fn owner(&self, n: usize) -> Option<DeviceId> {
        let first = self.owners.iter().min_by_key(|k| score(**k, n))?;
        let is_first = |(_, p): &(&DeviceId, &Partner)| p.key == *first;
        let owner = self.partners.iter().find(is_first);
        owner.map(|(d, _)| *d).filter(|_| !self.is_ours(n))
    }

    /// Partners of whose debts nothing came for so long, though their lanes did not bring anything
    /// else either. They are not believed any more.
    pub(super) fn take_stuck(&mut self, peers: &Peers, patience: Duration) -> Vec<DeviceId> {
        let mut stuck = Vec::new();
        for (device, p) in &mut self.partners {
            let silent = p.touched.elapsed() > patience && peers.is_silent(device, patience);
            if p.owes > 0 && !p.banned && silent {
                p.banned = true;
                stuck.push(*device);
            }
        }
        stuck
    }
}

/// What comes and goes.
impl Swarm {
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
        let fresh = || Partner::new(&peer, parts.content);
        let partner = self.partners.entry(peer).or_insert_with(fresh);
        partner.id = parts.content;
        if parts.hello {
            partner.tell_from = Some(0);
        }
        let from = usize::try_from(parts.from).unwrap_or(usize::MAX);
        let mut new = false;
        for (at, byte) in parts.bitmap.iter().enumerate().filter(|(_, b)| **b != 0) {
            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                let n = from.saturating_add(at * 8 + bit);
                new |= n < most && partner.has.set(n);
            }
        }
        new
    }

    /// A peer is to be told what is fetched here.
    pub(super) fn greet(&mut self, peer: DeviceId, not_before: Instant) {
        if self.begun.is_some() {
            self.greet.insert(peer, not_before);
        }
    }

    /// Those who are to be told now that it is fetched here.
    pub(super) fn take_greeted(&mut self, now: Instant) -> Vec<DeviceId> {
        let due = self.greet.iter().filter(|(_, at)| **at <= now);
        let due: Vec<DeviceId> = due.map(|(peer, _)| *peer).collect();
        self.greet.retain(|_, at| *at > now);
        if let Some(grace) = self.grace.as_mut().filter(|_| !due.is_empty()) {
            grace.until = grace.until.min(now + GRACE);
        }
        due
    }

    /// A partner said that it has not got these, which it told of. Of chunk `lists` it need not have
    /// every one.
    pub(super) fn gone_at(&mut self, peer: &DeviceId, parts: &[usize], lists: bool) {
        if let Some(p) = self.partners.get_mut(peer) {
            parts.iter().for_each(|n| p.has.clear(*n));
            p.gone = p.gone.saturating_add(u8::from(!lists));
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

    /// What was offered has become a content: what was wrong before was perhaps the offer.
    pub(super) fn pardon(&mut self) {
        for p in self.partners.values_mut() {
            (p.banned, p.gone) = (false, 0);
        }
    }

    pub(super) fn left(&mut self, peer: &DeviceId) {
        self.greet.remove(peer);
        if self.partners.remove(peer).is_some() {
            self.look();
        }
    }
}

#[cfg(test)]
mod tests;
