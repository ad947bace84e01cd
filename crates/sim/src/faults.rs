//! Which faults a run has.

use crate::rng::Rng;

/// Kinds of faults; each can be left out, to find which one a failure needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faults {
    /// Fetches fail at random.
    pub fetch: bool,
    /// Users edit a path right before an operation on it.
    pub race: bool,
    /// Devices crash and start again.
    pub crash: bool,
    /// Devices lose their index.
    pub lost: bool,
    /// Links break and are blocked for a while.
    pub link: bool,
    /// Wall clocks jump, up to a year.
    pub skew: bool,
    /// Disks are full for a while.
    pub full: bool,
    /// The index has no room for a commit.
    pub index: bool,
    /// Users delete most of a share.
    pub wipe: bool,
    /// One device may only read.
    pub reader: bool,
}

/// The names of all kinds, as `--without` takes them.
pub const KINDS: [&str; 10] = [
    "fetch", "race", "crash", "lost", "link", "skew", "full", "index", "wipe", "reader",
];

impl Faults {
    /// No faults.
    pub fn none() -> Self {
        Self {
            fetch: false,
            race: false,
            crash: false,
            lost: false,
            link: false,
            skew: false,
            full: false,
            index: false,
            wipe: false,
            reader: false,
        }
    }

    /// Some kinds: few in most runs, so that rare things happen undisturbed.
    pub fn some(seed: u64) -> Self {
        let mut rng = Rng::part(seed, 2);
        let mut faults = Self::none();
        let chance = [0, 20, 50, 80][rng.index(4)];
        for kind in KINDS {
            let on = match kind {
                "reader" => rng.percent(15),
                "lost" | "wipe" => rng.percent(chance) && rng.percent(60),
                _ => rng.percent(chance),
            };
            faults.set(kind, on);
        }
        faults
    }

    /// Switches a kind; false when there is no such kind.
    pub fn set(&mut self, kind: &str, on: bool) -> bool {
        match kind {
            "fetch" => self.fetch = on,
            "race" => self.race = on,
            "crash" => self.crash = on,
            "lost" => self.lost = on,
            "link" => self.link = on,
            "skew" => self.skew = on,
            "full" => self.full = on,
            "index" => self.index = on,
            "wipe" => self.wipe = on,
            "reader" => self.reader = on,
            _ => return false,
        }
        true
    }
}
