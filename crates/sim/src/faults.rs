//! Which faults a run has.

use crate::rng::Rng;

/// Kinds of faults; each can be left out, to find which one a failure needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Fetches fail at random.
    Fetch,
    /// Users edit a path right before an operation on it.
    Race,
    /// Files change between being read and being recorded.
    Torn,
    /// Devices crash and start again.
    Crash,
    /// Devices crash between two effects, or after an operation that nobody was told of.
    Effect,
    /// The power fails: what was not made durable is gone.
    Power,
    /// Devices lose their index.
    Lost,
    /// An index comes back from an older copy.
    Restored,
    /// Links break and are blocked for a while.
    Link,
    /// The devices fall into two groups that do not reach each other.
    Partition,
    /// Links become slow, up to some seconds.
    Delay,
    /// Messages and looks at the disk come twice.
    Twice,
    /// Wall clocks are set forward and back, up to a year.
    Skew,
    /// Disks are full for a while.
    Full,
    /// A commit of the index fails: no room, or it is found to be damaged.
    Index,
    /// Files and folders can not be read for a while.
    Unreadable,
    /// Users delete most of a share.
    Wipe,
    /// All files vanish, which no user wanted, and come back.
    Emptied,
    /// Users hold their share still for a while.
    Pause,
    /// One device may only read.
    Reader,
    /// One device only sends, by its own choice.
    Sender,
    /// Devices hold a part of the share only.
    Choose,
}

/// All kinds with their names, as `--without` takes them.
pub const KINDS: [(Kind, &str); 22] = [
    (Kind::Fetch, "fetch"),
    (Kind::Race, "race"),
    (Kind::Torn, "torn"),
    (Kind::Crash, "crash"),
    (Kind::Effect, "effect"),
    (Kind::Power, "power"),
    (Kind::Lost, "lost"),
    (Kind::Restored, "restored"),
    (Kind::Link, "link"),
    (Kind::Partition, "partition"),
    (Kind::Delay, "delay"),
    (Kind::Twice, "twice"),
    (Kind::Skew, "skew"),
    (Kind::Full, "full"),
    (Kind::Index, "index"),
    (Kind::Unreadable, "unreadable"),
    (Kind::Wipe, "wipe"),
    (Kind::Emptied, "emptied"),
    (Kind::Pause, "pause"),
    (Kind::Reader, "reader"),
    (Kind::Choose, "choose"),
    (Kind::Sender, "sender"),
];

/// A set of kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults(u32);

impl Faults {
    /// No faults.
    pub fn none() -> Self {
        Self::default()
    }

    /// Some kinds: few in most runs, so that rare things happen undisturbed.
    pub fn some(seed: u64) -> Self {
        let mut rng = Rng::part(seed, 2);
        let mut faults = Self::none();
        let chance = [0, 10, 30, 60][rng.index(4)];
        for (kind, _) in KINDS {
            let on = match kind {
                Kind::Reader | Kind::Sender => rng.percent(15),
                Kind::Choose => rng.percent(50),
                Kind::Lost | Kind::Restored | Kind::Power | Kind::Wipe | Kind::Emptied => {
                    rng.percent(chance) && rng.percent(60)
                }
                _ => rng.percent(chance),
            };
            faults.set(kind, on);
        }
        faults
    }

    /// Whether nothing is on.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether this kind is on.
    pub fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u32) != 0
    }

    /// Switches a kind.
    pub fn set(&mut self, kind: Kind, on: bool) {
        let bit = 1 << kind as u32;
        self.0 = if on { self.0 | bit } else { self.0 & !bit };
    }

    /// Leaves out the kinds with these names.
    pub fn without(mut self, names: &[String]) -> Self {
        for (kind, name) in KINDS {
            if names.iter().any(|n| n == name) {
                self.set(kind, false);
            }
        }
        self
    }
}
