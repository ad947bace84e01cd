//! Links between devices: delay, order, and what is lost when they break.

use left_core::engine::Event;
use left_core::message::Control;
use left_core::version::DeviceId;

use crate::faults::Kind;
use crate::world::{Happening, Side, World};

/// A possible connection between two devices.
#[derive(Debug, Clone)]
pub struct Link {
    /// The two devices' numbers.
    pub ends: [usize; 2],
    /// Goes up with each connection made and broken; messages belong to one life.
    life: u64,
    /// A connection is made, or being made.
    connected: bool,
    /// Which sides were told that it is up, and not yet that it is down.
    up: [bool; 2],
    /// An attempt to connect is planned.
    trying: bool,
    /// No connection can be made.
    pub blocked: bool,
    /// One way, in microseconds.
    latency_us: u64,
    /// When the last message to each side arrives: a stream keeps the order.
    arrives: [u64; 2],
}

impl World {
    /// A link between two devices.
    pub fn add_link(&mut self, a: usize, b: usize, latency_us: u64) {
        self.links.push(Link {
            ends: [a, b],
            life: 0,
            connected: false,
            up: [false; 2],
            trying: false,
            blocked: false,
            latency_us,
            arrives: [0; 2],
        });
    }

    /// Tries to connect a device with all it has links to.
    pub fn reconnect(&mut self, device: usize) {
        for link in 0..self.links.len() {
            if self.links[link].ends.contains(&device) {
                self.try_link(link);
            }
        }
    }

    /// Plans an attempt to connect.
    pub fn try_link(&mut self, link: usize) {
        if !self.links[link].trying {
            self.links[link].trying = true;
            let after = self.delay(1, 200);
            self.plan(after, Happening::Connect(link));
        }
    }

    /// Lets connections be made, or breaks and prevents them.
    pub fn block(&mut self, link: usize, blocked: bool) {
        self.note(&format!(
            "link {:?} blocked: {blocked}",
            self.links[link].ends
        ));
        self.links[link].blocked = blocked;
        if blocked {
            self.break_link(link);
        } else {
            self.try_link(link);
        }
    }

    /// Blocks all links of a device, or none.
    pub fn isolate(&mut self, device: usize, on: bool) {
        for link in 0..self.links.len() {
            if self.links[link].ends.contains(&device) && self.links[link].blocked != on {
                self.block(link, on);
            }
        }
    }

    /// Sets how long messages of a link are under way.
    pub fn slow(&mut self, link: usize, latency_us: u64) {
        self.note(&format!("link {link} takes {latency_us} us"));
        self.links[link].latency_us = latency_us;
    }

    /// Breaks the connection; what is under way is lost, both sides learn of it at some time.
    pub fn break_link(&mut self, link: usize) {
        let l = &mut self.links[link];
        if !l.connected {
            return;
        }
        l.connected = false;
        l.life += 1;
        for side in 0..2 {
            if self.links[link].up[side] {
                let after = self.delay(0, 300);
                let life = self.links[link].life;
                self.plan(after, Happening::LinkDown(Side { link, side, life }));
            }
        }
        self.try_link(link);
    }

    /// A device closes its lane to a peer and opens it anew.
    pub fn reopen(&mut self, device: usize, peer: DeviceId) {
        let Some(peer) = self.number(peer) else {
            return;
        };
        for link in 0..self.links.len() {
            let ends = self.links[link].ends;
            if ends.contains(&device) && ends.contains(&peer) {
                self.break_link(link);
            }
        }
    }

    /// A device is off: its sides are down at once, the others learn of it.
    pub fn links_of_dead(&mut self, device: usize) {
        for link in 0..self.links.len() {
            for side in 0..2 {
                if self.links[link].ends[side] == device {
                    self.links[link].up[side] = false;
                    self.break_link(link);
                }
            }
        }
    }

    /// Whether contents can be fetched between the two now.
    pub fn can_fetch(&self, device: usize, from: usize) -> bool {
        self.links.iter().any(|l| {
            l.connected && l.up == [true; 2] && l.ends.contains(&device) && l.ends.contains(&from)
        })
    }

    /// A device sends to a peer: lost if they are not connected.
    pub fn send(&mut self, device: usize, peer: DeviceId, message: Control) {
        let Some(peer) = self.number(peer) else {
            return;
        };
        let ends = [device, peer];
        let Some(link) = self
            .links
            .iter()
            .position(|l| ends.contains(&l.ends[0]) && ends.contains(&l.ends[1]))
        else {
            return;
        };
        let from = usize::from(self.links[link].ends[1] == device);
        let (side, life) = (1 - from, self.links[link].life);
        if !self.links[link].connected || !self.links[link].up[from] {
            return;
        }
        match Control::decode(&message.encode()) {
            Ok(back) if back == message => {}
            other => self.fail(format!("{message:?} comes out of the wire as {other:?}")),
        }
        if matches!(message, Control::Index(_)) {
            let after = self.delay(0, 30);
            self.plan(
                after,
                Happening::SendReady(Side {
                    link,
                    side: from,
                    life,
                }),
            );
        }
        let twice = self.faults.has(Kind::Twice)
            && !matches!(message, Control::Start(_))
            && self.rng.percent(5);
        if twice {
            self.stats.fault("message twice");
            self.deliver_later(link, side, message.clone());
        }
        self.deliver_later(link, side, message);
    }

    fn deliver_later(&mut self, link: usize, side: usize, message: Control) {
        let jitter = self.rng.below(3000);
        let l = &mut self.links[link];
        let at = (self.now_us + l.latency_us + jitter).max(l.arrives[side] + 1);
        l.arrives[side] = at;
        let after = at - self.now_us;
        let life = l.life;
        let to = Side { link, side, life };
        self.plan(after, Happening::Deliver(to, Box::new(message)));
    }

    /// Something happens on a link.
    pub(crate) fn link_happens(&mut self, what: Happening) {
        match what {
            Happening::Connect(link) => self.connect(link),
            Happening::LinkUp(at) if self.is_life(at) && self.links[at.link].connected => {
                self.links[at.link].up[at.side] = true;
                let (device, peer) = self.sides(at.link, at.side);
                let (peer, role) = (self.devices[peer].id, self.devices[peer].role);
                self.step(device, Event::PeerUp { peer, role });
            }
            Happening::LinkDown(at) if self.is_up(at) => {
                self.links[at.link].up[at.side] = false;
                let (device, peer) = self.sides(at.link, at.side);
                let peer = self.devices[peer].id;
                self.step(device, Event::PeerDown { peer });
            }
            Happening::Deliver(at, message) if self.is_up(at) => {
                self.deliver(at.link, at.side, *message);
            }
            Happening::SendReady(at) if self.is_up(at) => {
                let (device, peer) = self.sides(at.link, at.side);
                let peer = self.devices[peer].id;
                self.step(device, Event::SendReady { peer });
            }
            _ => {}
        }
    }

    fn is_life(&self, at: Side) -> bool {
        self.links[at.link].life == at.life
    }

    fn is_up(&self, at: Side) -> bool {
        self.is_life(at) && self.links[at.link].up[at.side]
    }

    /// The device at a side and the one at the other side.
    fn sides(&self, link: usize, side: usize) -> (usize, usize) {
        let ends = self.links[link].ends;
        (ends[side], ends[1 - side])
    }

    fn connect(&mut self, link: usize) {
        let l = &mut self.links[link];
        l.trying = false;
        let dead = |d: usize| self.devices[d].engine.is_none();
        if l.blocked || l.connected || l.ends.iter().any(|d| dead(*d)) {
            // Whoever starts or unblocks tries again.
            return;
        }
        if l.up != [false; 2] {
            self.try_link(link);
            return;
        }
        l.connected = true;
        l.life += 1;
        let life = l.life;
        l.arrives = [0; 2];
        for side in 0..2 {
            let after = self.delay(0, 40);
            let l = &mut self.links[link];
            // Nothing arrives before the lane is up there.
            l.arrives[side] = self.now_us + after;
            self.plan(after, Happening::LinkUp(Side { link, side, life }));
        }
    }

    fn deliver(&mut self, link: usize, side: usize, message: Control) {
        let (device, peer) = self.sides(link, side);
        let peer = self.devices[peer].id;
        self.step(device, Event::Message { peer, message });
    }
}
