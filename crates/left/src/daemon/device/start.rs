//! Bringing a device up: its key, its network, its door.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Weak};

use left_core::message::Nonce;
use tokio::runtime::Runtime;
use tokio::sync::broadcast;

use super::address::{advertised, listen_addrs};
use super::{Device, Routes, failed, limit, lock, past, roam};
use crate::daemon::ask::Msg;
use crate::daemon::gate::Door;
use crate::daemon::handle::{Daemon, Options, UserError};
use crate::daemon::pairing::Pairings;
use crate::daemon::sightings::Sightings;
use crate::daemon::snapshot::split_todo;
use crate::home::Home;
use crate::net::{DeviceKey, Introduction, Net, NetConfig, NetEvent};

/// Events kept for a slow reader.
const EVENTS: usize = 4096;

/// Starts the left of this device; no share runs yet.
pub fn start(home: Home, options: Options) -> Result<Arc<dyn Daemon>, UserError> {
    let home_lock = home.lock()?;
    let what = "cannot start";
    let key = Arc::new(crate::daemon::load_key(&home)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("left-net")
        .enable_all()
        .build()
        .map_err(|e| failed(what, e))?;
    let (events, _) = broadcast::channel(EVENTS);
    let mut instance: Nonce = [0; 16];
    aws_lc_rs::rand::fill(&mut instance).map_err(|_| failed(what, "no random numbers"))?;
    let pairings = Arc::new(Pairings::default());
    let door = Arc::new(Door {
        device: key.id(),
        me: Mutex::new(Introduction {
            instance,
            name: options.name.clone(),
            addresses: Vec::new(),
        }),
        shares: Mutex::default(),
        sessions: Mutex::default(),
        pairings,
        advertise: Mutex::new(options.advertise.clone()),
        sightings: Sightings::default(),
        limiter: Arc::default(),
        events: events.clone(),
        closing: AtomicBool::new(false),
        starting: AtomicBool::new(true),
    });
    let routes = Routes::default();
    let net = match options.offline {
        true => None,
        false => Some(start_net(&options, key.clone(), &runtime, &door, &routes)?),
    };
    if let Some(net) = &net {
        lock(&door.me).addresses = advertised(&options, net.local_addrs());
    }
    let keep = Arc::new(Mutex::new(past::history_limits(&home.config()?)));
    let device = Arc::new_cyclic(|me| Device {
        home,
        key,
        _lock: home_lock,
        options,
        net,
        door,
        shares: Mutex::default(),
        routes,
        events,
        choosing: Mutex::default(),
        stopped: AtomicBool::new(false),
        keep,
        roamer: Mutex::default(),
        me: Weak::clone(me),
        runtime: Mutex::new(Some(runtime)),
    });
    limit::keep(&device)?;
    *lock(&device.roamer) = roam::roam(&device);
    let weak = Arc::downgrade(&device);
    device
        .door
        .pairings
        .on_done(Box::new(move |pending, terms, peer, from| {
            let device = weak
                .upgrade()
                .ok_or_else(|| failed("cannot pair", "left is stopping"))?;
            device.paired(pending, terms, peer, from)
        }));
    Ok(device)
}

fn start_net(
    options: &Options,
    key: Arc<DeviceKey>,
    runtime: &Runtime,
    door: &Arc<Door>,
    routes: &Routes,
) -> Result<Arc<Net>, UserError> {
    let listen = listen_addrs(&options.listen)?;
    let config = NetConfig::new(key, listen, runtime.handle().clone());
    let routes = routes.clone();
    let net = Net::start(config, door.clone(), move |event| {
        let (share, msg) = match event {
            NetEvent::Control(lane) => (lane.info.share, Msg::Control(lane)),
            NetEvent::Data(lane) => (lane.share, Msg::Data(lane)),
        };
        if let Some(tx) = lock(&routes).get(&share) {
            // The share stops just now: the lane closes with the message.
            let _ = tx.send(msg);
        }
    });
    let net = net.map_err(|e| {
        let text = e.to_string();
        let (why, todo) = split_todo(&text);
        UserError::new("cannot listen for peers", why, todo)
    })?;
    Ok(Arc::new(net))
}
