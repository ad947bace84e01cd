//! What receivers of one content tell each other, and the thread that tells it and looks after them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use left_core::content::ContentId;
use left_core::message::{MAX_PARTS_BITMAP, Parts};
use left_core::version::DeviceId;
use tracing::debug;

use super::offers;
use super::shared::{Shared, lock};
use super::state::State;
use super::stock;
use super::swarm::Swarm;

/// How often it is looked whether there is something to tell.
const TICK: Duration = Duration::from_millis(20);
/// A look that came later was kept from it by something else than partners.
const TICK_MAX: Duration = Duration::from_millis(50);
/// To more partners than this news are told only when there are so many bytes of them, or after so
/// long: each costs every partner a message. With 16 in place of 2, eight receivers of 1 GiB on two
/// cores took 21 s instead of 18, and 39 CPU seconds instead of 33.
const FEW: usize = 2;
const TELL_BYTES: u64 = 4 << 20;
const TELL_AFTER: Duration = Duration::from_millis(100);
/// A gap in the positions told that is worth a message of its own.
const GAP: usize = 4096;
/// Messages to one partner about one content at a time; the next ones follow at the next look.
const AT_ONCE: usize = 8;
/// How soon a partner is told of everything again, however often it asks.
pub(super) const ALL_AGAIN: Duration = Duration::from_secs(1);
/// How long nothing is told to a peer whose control lane is full.
const FULL: Duration = Duration::from_secs(1);
/// Messages of one look, about.
pub(super) const OUTBOX: usize = 1024;

/// Sends what is told, each to one peer. Must not wait.
pub type Tell = Box<dyn Fn(Told) + Send + Sync>;

type Outbox = Vec<(DeviceId, Parts)>;

/// What is to be told. As long as it lives nothing more is handed over.
pub struct Told {
    /// To whom, and what.
    pub all: Vec<(DeviceId, Parts)>,
    _under_way: UnderWay,
}

struct UnderWay(Arc<AtomicBool>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Positions, in order, as messages, at most so many; and the first position that is not in them.
fn messages(
    content: ContentId,
    most: usize,
    all: impl Iterator<Item = usize>,
) -> (Vec<Parts>, Option<usize>) {
    let mut out: Vec<Parts> = Vec::new();
    for n in all {
        let fits = |p: &&mut Parts| {
            let at = n - p.from as usize;
            at / 8 < MAX_PARTS_BITMAP && at < p.bitmap.len() * 8 + GAP
        };
        if out.last_mut().filter(fits).is_none() {
            if out.len() >= most {
                return (out, Some(n));
            }
            out.push(Parts {
                content,
                from: (n - n % 8) as u64,
                bitmap: Vec::new(),
                hello: false,
            });
        }
        let Some(parts) = out.last_mut() else { break };
        let at = n - parts.from as usize;
        if parts.bitmap.len() <= at / 8 {
            parts.bitmap.resize(at / 8 + 1, 0);
        }
        parts.bitmap[at / 8] |= 1 << (at % 8);
    }
    (out, None)
}

/// All of a content of so many segments, as messages.
pub(super) fn all_of(content: ContentId, segments: usize) -> Vec<Parts> {
    messages(content, usize::MAX, 0..segments).0
}

impl Swarm {
    /// What is to be told now.
    fn tell(&mut self, id: ContentId, now: Instant, out: &mut Outbox) {
        self.tell_greeted(id, now, out);
        let news = self.take_news(now);
        for (device, p) in &mut self.partners {
            let full = now < p.full_until;
            if let Some(first) = news.first()
                && (full || p.tell_from.is_some())
            {
                p.tell_from = Some(p.tell_from.map_or(*first, |from| from.min(*first)));
            }
            let told = match p.tell_from {
                _ if full => continue,
                // A beginning is not told again and again; what follows it is.
                Some(from) if from > 0 || now >= p.all_after => {
                    if from == 0 {
                        p.all_after = now + ALL_AGAIN;
                    }
                    let (told, next) = messages(p.id, AT_ONCE, self.here.iter_from(from));
                    p.tell_from = next;
                    told
                }
                _ => messages(p.id, AT_ONCE, news.iter().copied()).0,
            };
            out.extend(told.into_iter().map(|m| (*device, m)));
        }
    }

    /// Says to those who do not know it yet that this is fetched here.
    fn tell_greeted(&mut self, id: ContentId, now: Instant, out: &mut Outbox) {
        let greeted = self.take_greeted(now);
        if greeted.is_empty() {
            return;
        }
        let (mut told, rest) = messages(id, AT_ONCE, self.here.iter_from(0));
        if told.is_empty() {
            told.push(Parts {
                content: id,
                from: 0,
                bitmap: Vec::new(),
                hello: false,
            });
        }
        told[0].hello = true;
        for peer in greeted {
            out.extend(told.iter().map(|m| (peer, m.clone())));
            if let Some(p) = self.partners.get_mut(&peer) {
                p.tell_from = rest;
            }
        }
    }

    /// What is in place and was not told, if it is time to tell it.
    fn take_news(&mut self, now: Instant) -> Vec<usize> {
        let waited = self.told_at.is_none_or(|t| now - t >= TELL_AFTER);
        let due = self.partners.len() <= FEW || self.news_bytes >= TELL_BYTES || waited;
        if !due || self.news.is_empty() {
            return Vec::new();
        }
        self.news_bytes = 0;
        self.told_at = Some(now);
        let mut news = std::mem::take(&mut self.news);
        news.sort_unstable();
        news
    }
}

/// The thread's life.
pub(super) fn run(shared: &Shared, tell: &Tell) {
    let under_way = Arc::new(AtomicBool::new(false));
    let mut last = Instant::now();
    let mut st = lock(&shared.state);
    loop {
        while !st.closed && st.is_quiet() {
            st = shared.news.wait(st).unwrap_or_else(PoisonError::into_inner);
        }
        if st.closed {
            return;
        }
        // One that nobody goes on with would keep this thread awake.
        offers::forget_dead(shared, &mut st);
        let now = Instant::now();
        let passed = (now - last).min(TICK_MAX);
        last = now;
        let wake = look(&mut st, shared.config.stuck_after, passed, now);
        let all = match under_way.load(Ordering::Acquire) {
            true => Vec::new(),
            false => take_told(&mut st, now),
        };
        if !st.hopeless().is_empty() {
            shared.peers_changed(st);
        } else {
            drop(st);
        }
        if wake {
            shared.wake_all();
        }
        if !all.is_empty() {
            under_way.store(true, Ordering::Release);
            tell(Told {
                all,
                _under_way: UnderWay(Arc::clone(&under_way)),
            });
        }
        st = lock(&shared.state);
        let waited = shared.news.wait_timeout(st, TICK);
        st = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Looks after all contents and their receivers; `passed`: since the last look. Whether lanes may have
/// more to do.
fn look(st: &mut State, stuck_after: Duration, passed: Duration, now: Instant) -> bool {
    stock::forget_old(&mut st.recent, now);
    let peers = &mut st.peers;
    let (mut wake, mut stuck, mut waits_for) = (false, Vec::new(), BTreeSet::new());
    for big in st.bigs.values_mut() {
        let seen = big.look(peers, stuck_after, now);
        wake |= seen.wake;
        waits_for.extend(seen.waits_for);
        for (peer, worth) in seen.brought {
            peers.patience.brought(&peer, worth);
        }
        stuck.extend(big.swarm.take_stuck(peers, stuck_after));
    }
    for peer in waits_for {
        if peers.patience.waited(peer, passed, now) {
            debug!(%peer, "a receiver of the same keeps us waiting; it is done without for a time");
        }
    }
    for peer in stuck {
        debug!(%peer, "nothing comes of what a peer has told that it has");
        peers.patience.distrust(peer, now);
        let lanes = peers.lanes.values();
        lanes
            .filter(|l| l.peer == peer && !l.express)
            .for_each(|l| l.closer.close());
    }
    peers.patience.tidy(now);
    wake
}

/// What is to be told of all contents now.
fn take_told(st: &mut State, now: Instant) -> Outbox {
    let mut out = std::mem::take(&mut st.outbox);
    for big in st.bigs.values_mut() {
        // The rest at the next look.
        if out.len() >= OUTBOX {
            break;
        }
        big.swarm.tell(big.file.id(), now, &mut out);
    }
    out
}

/// Takes in what a peer tells that it has.
pub(super) fn heard(shared: &Shared, peer: DeviceId, parts: &Parts) {
    let mut guard = lock(&shared.state);
    let st = &mut *guard;
    if !st.peers.parts.contains(&peer) {
        return;
    }
    let id = parts.content;
    if let Some(big) = st.bigs.values_mut().find(|b| b.is_known_as(&id)) {
        // With the first partner there is something to look after.
        let first = big.swarm.is_quiet();
        if big.hear(peer, parts, &st.peers) {
            shared.wake_all();
        }
        if parts.hello || first {
            shared.news.notify_all();
        }
    } else if parts.hello && st.outbox.len() < OUTBOX {
        let all = stock::hello(&mut st.recent, &id, peer);
        st.outbox.extend(all.into_iter().map(|m| (peer, m)));
        shared.news.notify_all();
    }
}

/// A peer could not be told this.
pub(super) fn untold(st: &mut State, peer: DeviceId, parts: &Parts) {
    let again = Instant::now() + FULL;
    let mut bigs = st.bigs.values_mut();
    let Some(big) = bigs.find(|b| b.is_known_as(&parts.content)) else {
        return;
    };
    if let Some(p) = big.swarm.partners.get_mut(&peer) {
        let from = usize::try_from(parts.from).unwrap_or(usize::MAX);
        p.tell_from = Some(p.tell_from.map_or(from, |before| before.min(from)));
        p.full_until = again;
    }
    // Who has gone meanwhile is greeted when it is back.
    if parts.hello && st.peers.parts.contains(&peer) {
        big.greet(peer, again);
    }
}

#[cfg(test)]
mod tests;
