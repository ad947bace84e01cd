//! Worlds written by hand: a few devices, no faults but what is asked for.

use std::collections::BTreeMap;

use left_core::message::Role;
use left_core::path::RelPath;

use crate::check;
use crate::disk::{Bytes, Thing};
use crate::edits::User;
use crate::rest::REST;
use crate::rng::Rng;
use crate::world::{Happening, World};

/// See the module's text. Every device is linked with every other.
pub struct Scenario {
    /// The world.
    pub world: World,
}

/// A path, for tests.
///
/// # Panics
/// When it is none.
pub fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a valid path")
}

/// Some bytes with this name.
pub fn bytes(name: u64) -> Bytes {
    Bytes {
        name: 1000 + name,
        size: 10 + name,
    }
}

impl Scenario {
    /// This many read-write devices, started and connected.
    pub fn new(devices: usize) -> Self {
        Self::with_roles(&vec![Role::ReadWrite; devices])
    }

    /// Devices with these roles, started and connected.
    pub fn with_roles(roles: &[Role]) -> Self {
        let mut world = World::new(7, roles, false);
        for b in 0..roles.len() {
            for a in 0..b {
                world.add_link(a, b, 1000);
            }
            world.plan(0, Happening::Start(b));
        }
        let mut new = Self { world };
        new.settle();
        new
    }

    /// Lets everything happen until all is at rest, and checks that all is well.
    ///
    /// # Panics
    /// When it is not.
    pub fn settle(&mut self) {
        self.world.run(REST, "settling");
        check::idle(&mut self.world);
        check::same_trees(&mut self.world);
        if let Some(failure) = &self.world.failure {
            panic!("{failure}");
        }
    }

    /// Nobody hears of anybody; edits are seen by their own device.
    pub fn apart(&mut self) {
        for link in 0..self.world.links.len() {
            self.world.block(link, true);
        }
        self.world.run(REST, "apart");
    }

    /// All are connected again, and settle.
    pub fn together(&mut self) {
        self.world.run(REST, "apart");
        for link in 0..self.world.links.len() {
            self.world.block(link, false);
        }
        self.settle();
    }

    /// A user edits on a device; later edits have later times.
    pub fn edit(&mut self, device: usize, what: impl FnOnce(&mut User<'_>)) {
        self.world.now_us += 20_000;
        self.world
            .with_user(device, &mut Rng::new(5), |user| what(user));
    }

    /// Writes a file.
    pub fn write(&mut self, device: usize, at: &str, name: u64) {
        self.edit(device, |user| user.write(&path(at), bytes(name)));
    }

    /// Makes a folder.
    pub fn mkdir(&mut self, device: usize, at: &str) {
        self.edit(device, |user| user.make(&path(at), Thing::Dir));
    }

    /// Deletes a thing with all below it.
    pub fn remove(&mut self, device: usize, at: &str) {
        self.edit(device, |user| user.remove(&path(at)));
    }

    /// A device begins or ceases to only send.
    pub fn sends_only(&mut self, device: usize, on: bool) {
        self.world.devices[device].send_only = on;
        self.world.crash(device, true);
        self.world.start(device);
        self.settle();
    }

    /// From now on nothing that is written on a device is durable, until it syncs by itself.
    pub fn unsynced(&mut self, device: usize) {
        let disk = &mut self.world.devices[device].disk;
        disk.sync();
        disk.journaled = true;
    }

    /// The power of a device fails, and takes back at least what stands there; nothing of its index.
    ///
    /// # Panics
    /// When that is durable.
    pub fn power_cut(&mut self, device: usize, at: &str) {
        let takes = |n: &u64| {
            let mut disk = self.world.devices[device].disk.clone();
            disk.power_cut(&mut Rng::new(*n));
            disk.get(&path(at)).is_none()
        };
        let seed = (0..1000).find(takes).expect("it is not durable");
        self.world.devices[device].index.sync();
        self.world.power_cut(device, &mut Rng::new(seed));
    }

    /// What the first device shows: a letter for the kind and the name of a file's bytes.
    /// Conflict copies stand under the name of what they are a copy of, with `!`.
    pub fn tree(&self) -> BTreeMap<String, String> {
        self.tree_of(0)
    }

    /// What a device shows, in the same way.
    pub fn tree_of(&self, device: usize) -> BTreeMap<String, String> {
        let show = |(p, o): (&RelPath, &crate::disk::Object)| {
            let what = match &o.thing {
                Thing::Dir => "dir".to_owned(),
                Thing::File(b) => format!("file {}", b.name.saturating_sub(1000)),
                Thing::Symlink(_) => "link".to_owned(),
            };
            let name = p.to_string();
            let name = match name.split_once(".conflict-") {
                Some((stem, _)) => format!("{stem}!"),
                None => name,
            };
            (name, what)
        };
        let tree = self.world.devices[device].disk.tree();
        tree.iter().map(show).collect()
    }
}
