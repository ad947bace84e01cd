//! This machine comes to other networks, and others are found there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use left_core::message::ShareId;
use left_core::version::DeviceId;
use tokio::time::{sleep, timeout};

use super::super::ask::Msg;
use super::super::gate::Door;
use super::super::handle::Options;
use super::address::advertised;
use super::{Device, Routes, lock};
use crate::net::Net;
use crate::net::nearby::tag::tag;
use crate::net::nearby::{Nearby, Sighting};
use crate::net::outlook::{Changes, outlook};

/// Changes come in bursts.
const SETTLE: Duration = Duration::from_millis(50);
/// After a change was acted on, the next one waits.
const CHANGE_EVERY: Duration = Duration::from_secs(1);
/// The name under which this device is found is another one after this.
const RENAME_EVERY: Duration = Duration::from_secs(3600);

/// What it takes. No handle of the device: that must not be dropped last by a task of its runtime.
pub(super) struct Roamer {
    door: Arc<Door>,
    routes: Routes,
    net: Arc<Net>,
    options: Options,
    /// Others are looked for, and may find this device.
    discovery: AtomicBool,
}

/// Begins to look for others and to follow the machine from network to network, for as long as the
/// device runs.
pub(super) fn roam(device: &Device) -> Option<Arc<Roamer>> {
    let net = device.net.clone()?;
    let roamer = Arc::new(Roamer {
        door: device.door.clone(),
        routes: device.routes.clone(),
        net: net.clone(),
        discovery: AtomicBool::new(device.options.discovery),
        options: device.options.clone(),
    });
    roamer.begin();
    net.runtime().spawn(follow(roamer.clone()));
    Some(roamer)
}

async fn follow(roamer: Arc<Roamer>) {
    let changes = match Changes::hear() {
        Ok(changes) => changes,
        Err(error) => {
            tracing::warn!("changes of the network are not noticed: {error}");
            return;
        }
    };
    let mut seen = outlook();
    loop {
        let changed = timeout(RENAME_EVERY, changes.next()).await.is_ok();
        sleep(SETTLE).await;
        let now = outlook();
        if now != seen {
            seen = now;
            roamer.moved();
            sleep(CHANGE_EVERY).await;
        } else if !changed && let Some(nearby) = roamer.look_around() {
            roamer.door.sightings.rename(nearby);
        }
    }
}

impl Roamer {
    /// Asks who is there, and says that this device is, on all networks of this machine.
    fn look_around(self: &Arc<Self>) -> Option<Nearby> {
        let listening = self.net.local_addrs().first().copied();
        let alone = listening.is_some_and(|a: SocketAddr| a.ip().is_loopback());
        if alone || !self.discovery.load(Ordering::SeqCst) {
            return None;
        }
        let weak = Arc::downgrade(self);
        let (runtime, id) = (self.net.runtime(), self.door.device);
        let nearby = Nearby::start(runtime, id, listening, move |sighting| {
            if let Some(roamer) = weak.upgrade() {
                roamer.sighted(&sighting);
            }
        });
        for problem in &nearby.reach().problems {
            tracing::warn!("others are not found by themselves on {problem}");
        }
        Some(nearby)
    }

    /// Begins or ceases to look for others and to be found; whether that is a change.
    pub(super) fn set_discovery(self: &Arc<Self>, on: bool) -> bool {
        let changes = self.discovery.swap(on, Ordering::SeqCst) != on;
        if changes {
            self.begin();
        }
        changes
    }

    /// Forgets who was seen and looks around, or ceases to, as it is set at the end of this.
    fn begin(self: &Arc<Self>) {
        loop {
            let on = self.discovery.load(Ordering::SeqCst);
            self.door.sightings.begin(self.look_around());
            if on == self.discovery.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// The machine is on other networks than before.
    fn moved(self: &Arc<Self>) {
        let options = Options {
            advertise: lock(&self.door.advertise).clone(),
            ..self.options.clone()
        };
        let addresses = advertised(&options, self.net.local_addrs());
        tracing::info!(?addresses, "the network changed");
        lock(&self.door.me).addresses = addresses;
        self.begin();
        for tx in lock(&self.routes).values() {
            // A share that stops just now needs no news.
            let _ = tx.send(Msg::NetworkChanged);
        }
    }

    /// Somebody says where it is: if it is a member of a share, that share is told. The owners' queues
    /// do not fill up with this: few packets a second are looked at.
    fn sighted(&self, sighting: &Sighting) {
        let mut known: HashMap<DeviceId, bool> = HashMap::new();
        let mut is_it = |device: DeviceId| {
            let is = || tag(device, &sighting.nonce) == sighting.tag;
            *known.entry(device).or_insert_with(is)
        };
        let shares: Vec<_> = lock(&self.door.shares)
            .iter()
            .map(|(id, members)| (*id, members.fellows()))
            .collect();
        let of = shares.iter().filter_map(|(share, fellows)| {
            let fellow = fellows.iter().find(|f| is_it(f.device))?;
            Some((*share, fellow.device))
        });
        let of: Vec<(ShareId, DeviceId)> = of.collect();
        let Some((_, device)) = of.first() else {
            return;
        };
        let news = self
            .door
            .sightings
            .note(*device, sighting.address, Instant::now());
        if !news {
            return;
        }
        tracing::debug!(peer = %device.short(), address = %sighting.address, "seen nearby");
        let routes = lock(&self.routes);
        for (share, peer) in of {
            if let Some(tx) = routes.get(&share) {
                let _ = tx.send(Msg::Sighted(peer));
            }
        }
    }
}
