//! The simulated world: devices, links and a queue of what happens when, in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use left_core::diff::Observation;
use left_core::engine::{Engine, Now};
use left_core::message::{Control, Role};
use left_core::path::RelPath;
use left_core::plan::{FetchItem, Op, OpDone, OpError, OpId};
use left_core::select::Selection;
use left_core::version::{DeviceId, Version};

use crate::disk::FakeDisk;
use crate::edits::Written;
use crate::faults::Faults;
use crate::index::FakeIndex;
use crate::link::Link;
use crate::rng::Rng;
use crate::stats::{Stats, Trace};

/// Wall clock of all devices at the start: 2027.
pub const START_MS: u64 = 1_800_000_000_000;

/// What happens at some moment of virtual time. `life` tells events for a device that crashed
/// since from those that count.
#[derive(Debug, Clone)]
pub enum Happening {
    /// The run's next step.
    Step(u32),
    /// Both ends may try to connect.
    Connect(usize),
    /// One side of a link learns that it is up.
    LinkUp(Side),
    /// One side of a link learns that it is down.
    LinkDown(Side),
    /// A message arrives at a side.
    Deliver(Side, Box<Control>),
    /// The outgoing queue of a side took an Index message.
    SendReady(Side),
    /// An event for one device's part of the world.
    Device {
        /// Which.
        device: usize,
        /// In which life it was planned.
        life: u32,
        /// What.
        what: Local,
    },
    /// A device starts again.
    Start(usize),
}

/// One side of a link.
#[derive(Debug, Clone, Copy)]
pub struct Side {
    /// Which link.
    pub link: usize,
    /// 0 or 1.
    pub side: usize,
    /// Which life of the link is meant.
    pub life: u64,
}

/// What happens on one device.
#[derive(Debug, Clone)]
pub enum Local {
    /// A tick the engine asked for.
    Tick(u64),
    /// Look at what the watcher hinted at.
    Scan,
    /// Hand on what was seen.
    HandIn {
        /// What.
        seen: Vec<Observation>,
        /// This is the last of a scan.
        last: bool,
    },
    /// The next piece of a scan of the whole tree.
    FullScan(Option<RelPath>),
    /// The whole tree was looked at.
    ScanDone,
    /// A fetch ends.
    Fetched(Box<FetchItem>),
    /// The next operation is done.
    ApplyNext,
    /// The results of a batch reach the engine.
    Applied(Vec<(OpId, Result<OpDone, OpError>)>),
    /// The user looks into an alarm.
    Resume,
    /// What vanished is put back.
    PutBack,
    /// The disk is synced, as the engine asked.
    Synced(u64),
}

/// One device.
pub struct Device {
    /// Its key.
    pub id: DeviceId,
    /// What it may do.
    pub role: Role,
    /// It does not do what others change.
    pub send_only: bool,
    /// `None` while it is off.
    pub engine: Option<Engine>,
    /// Goes up at each crash.
    pub life: u32,
    /// Survives crashes.
    pub index: FakeIndex,
    /// Survives crashes.
    pub disk: FakeDisk,
    /// How wrong the wall clock is.
    pub skew_ms: i64,
    /// Paths to look at.
    pub dirty: BTreeSet<RelPath>,
    /// A look at them is planned.
    pub scan_planned: bool,
    /// Scans of which results are still to be handed on.
    pub scans: u32,
    /// Hand-ins of full scans happen in order.
    pub handed_at: u64,
    /// Results of batches of operations come in order.
    pub applied_at: u64,
    /// Barriers to be answered.
    pub barriers: Vec<u64>,
    /// Operations to be done, with the batch they came in.
    pub ops: VecDeque<(u64, OpId, Op)>,
    /// Results of the batch under way.
    pub results: Vec<(OpId, Result<OpDone, OpError>)>,
    /// All operations of the batch under way can be done again after a power cut.
    pub names_wait: bool,
    /// Counts batches.
    pub batches: u64,
    /// The tick that is planned.
    pub tick_at: Option<u64>,
    /// Waits that were answered.
    pub waited: BTreeSet<u64>,
    /// What others were told, which nothing but the loss of the index may take back.
    pub announced: BTreeMap<RelPath, Version>,
    /// An older copy of the index.
    pub saved: Option<Box<FakeIndex>>,
    /// The device crashes when this becomes zero: it counts effects begun and done, and operations
    /// done.
    pub moments_left: Option<u32>,
    /// Looks at what could not be healed yet.
    pub heal_waits: u32,
    /// Then its power fails too.
    pub power_fails: bool,
    /// What [stood](Self::standing) there when all files vanished, or the folder.
    pub missed: Vec<RelPath>,
    /// The user holds the share still.
    pub paused: bool,
    /// An alarm is raised, or was and the tree is not looked at since.
    pub deciding: bool,
    /// What it holds. Survives crashes.
    pub selection: Selection,
    /// The index' last number when something was dropped last. Survives crashes.
    pub dropped: u64,
}

impl Device {
    /// What is live in the index and stands on the disk: not what was just moved away.
    pub fn standing(&self) -> Vec<RelPath> {
        let live = self.index.live().map(|(path, _)| path);
        let stands = |path: &&RelPath| self.disk.get(path).is_some();
        live.filter(stands).cloned().collect()
    }
}

/// All devices and what connects them.
pub struct World {
    /// Virtual time in microseconds.
    pub now_us: u64,
    /// What is to happen, by time and order of planning.
    queue: BTreeMap<(u64, u64), Happening>,
    planned: u64,
    /// The devices.
    pub devices: Vec<Device>,
    /// The links.
    pub links: Vec<Link>,
    /// Which faults happen by themselves now (failing fetches, edits just before an operation).
    pub faults: Faults,
    /// Chance of delays and of such faults.
    pub rng: Rng,
    /// What users wrote.
    pub written: Written,
    /// Users of read-only members edited there.
    pub readers_differ: bool,
    /// What was counted.
    pub stats: Stats,
    /// What went wrong first.
    pub failure: Option<String>,
    /// Steps to be taken by the one who runs the world.
    pub due_steps: Vec<u32>,
    trace: Trace,
}

impl World {
    /// Devices with these roles, all off; nothing connected.
    pub fn new(seed: u64, roles: &[Role], print: bool) -> Self {
        let device = |(i, role): (usize, &Role)| {
            let mut key = [0x40 + i as u8; 32];
            // Ids are not in the order of the devices' numbers.
            key[0] = (Rng::part(seed, 90 + i as u64).below(256)) as u8;
            let id = DeviceId(key);
            let mut index = FakeIndex::new(id, 1000 + i as u64);
            index.read_only = *role == Role::ReadOnly;
            Device {
                id,
                role: *role,
                send_only: false,
                engine: None,
                life: 0,
                index,
                disk: FakeDisk::default(),
                skew_ms: 0,
                dirty: BTreeSet::new(),
                scan_planned: false,
                scans: 0,
                handed_at: 0,
                applied_at: 0,
                names_wait: true,
                barriers: Vec::new(),
                ops: VecDeque::new(),
                results: Vec::new(),
                batches: 0,
                tick_at: None,
                waited: BTreeSet::new(),
                announced: BTreeMap::new(),
                saved: None,
                moments_left: None,
                heal_waits: 0,
                power_fails: false,
                missed: Vec::new(),
                paused: false,
                deciding: false,
                selection: Selection::everything(),
                dropped: 0,
            }
        };
        Self {
            now_us: 1_000_000,
            queue: BTreeMap::new(),
            planned: 0,
            devices: roles.iter().enumerate().map(device).collect(),
            links: Vec::new(),
            faults: Faults::none(),
            rng: Rng::part(seed, 1),
            written: Written::default(),
            readers_differ: false,
            stats: Stats::default(),
            failure: None,
            due_steps: Vec::new(),
            trace: Trace::new(print),
        }
    }

    /// The hash of all that happened.
    pub fn trace_hash(&self) -> [u8; 32] {
        self.trace.hash()
    }

    /// Adds a line to the trace.
    pub fn note(&mut self, text: &str) {
        self.trace.line(self.now_us, text);
    }

    /// Remembers the first thing that went wrong.
    pub fn fail(&mut self, text: String) {
        self.note(&format!("FAILURE {text}"));
        self.failure.get_or_insert(text);
    }

    /// Plans something.
    pub fn plan(&mut self, after_us: u64, what: Happening) {
        self.planned += 1;
        let at = self.now_us + after_us;
        self.queue.insert((at, self.planned), what);
    }

    /// Plans something on a device, unless it crashes before.
    pub fn plan_on(&mut self, device: usize, after_us: u64, what: Local) {
        let life = self.devices[device].life;
        self.plan(after_us, Happening::Device { device, life, what });
    }

    /// Between `low` and `high` milliseconds, in microseconds.
    pub fn delay(&mut self, low: u64, high: u64) -> u64 {
        self.rng.between(low * 1000, high * 1000)
    }

    /// The wall clock of a device.
    pub fn wall(&self, device: usize) -> u64 {
        let ms = START_MS + self.now_us / 1000;
        ms.saturating_add_signed(self.devices[device].skew_ms)
    }

    /// Both clocks of a device.
    pub fn now(&self, device: usize) -> Now {
        Now {
            mono_ms: self.now_us / 1000,
            wall_ms: self.wall(device),
        }
    }

    /// The number of a device.
    pub fn number(&self, id: DeviceId) -> Option<usize> {
        self.devices.iter().position(|d| d.id == id)
    }

    /// Lets the next thing happen; false when there is nothing.
    pub fn happen(&mut self) -> bool {
        let Some(((at, _), what)) = self.queue.pop_first() else {
            return false;
        };
        self.now_us = at;
        self.stats.happenings += 1;
        match what {
            Happening::Step(k) => self.due_steps.push(k),
            Happening::Start(device) => self.start(device),
            Happening::Device { device, life, what } => {
                let alive = self.devices[device].engine.is_some();
                if alive && self.devices[device].life == life {
                    self.local(device, what);
                }
            }
            link => self.link_happens(link),
        }
        true
    }

    /// Lets things happen until nothing is left or something failed; fails when that takes more
    /// than this many happenings.
    pub fn run(&mut self, most: u64, why: &str) {
        for _ in 0..most {
            if self.failure.is_some() || !self.happen() {
                return;
            }
        }
        let mut text = format!("{why}: no rest after {most} happenings");
        for (i, d) in self.devices.iter().enumerate() {
            text += &format!("\n  device {i}: unsettled {:?}", d.index.unsettled());
        }
        self.fail(text);
    }
}
