//! What is counted, and the trace.

use std::collections::BTreeMap;

use left_core::content::ChunkId;
use left_core::entry::Entry;
use left_core::reconcile::{Decision, reconcile};
use left_core::version::Relation;

/// Counts of one run or of many.
#[derive(Debug, Default, Clone)]
pub struct Stats {
    /// Runs.
    pub seeds: u64,
    /// Edits and faults.
    pub steps: u64,
    /// Things that happened.
    pub happenings: u64,
    /// Events that engines took.
    pub events: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Results of operations by kind and outcome.
    pub ops: BTreeMap<String, u64>,
    /// How often each branch of reconcile was taken by an announced entry.
    pub decisions: BTreeMap<&'static str, u64>,
    /// Reports by kind.
    pub reports: BTreeMap<&'static str, u64>,
    /// Contents that came from a peer, not from a copy.
    pub fetched: u64,
    /// Fetches and operations asked for, and entries sent.
    pub work: u64,
}

/// All branches of reconcile, to tell which were never taken.
pub const BRANCHES: [&str; 17] = [
    "unknown, live: take",
    "unknown, deleted: merge",
    "ours newer: older",
    "theirs newer, same node: merge",
    "theirs newer: take",
    "equal: in sync",
    "equal versions, other node, ours wins",
    "equal versions, other node, theirs wins",
    "concurrent, same node: merge",
    "concurrent, ours wins, bytes differ: await",
    "concurrent, ours beats deletion: merge",
    "concurrent, ours wins, metadata differs: merge",
    "concurrent, theirs wins, bytes differ: take with copy",
    "concurrent, theirs beats our deletion: take",
    "concurrent, theirs wins, metadata differs: take",
    "concurrent, both deleted: merge",
    "concurrent, folder against other kind",
];

impl Stats {
    /// Counts a fault.
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Counts the branch of reconcile that this pair takes.
    pub fn decision(&mut self, ours: Option<&Entry>, theirs: &Entry) {
        *self.decisions.entry(branch(ours, theirs)).or_default() += 1;
        let folder = |e: &Entry| matches!(e.node, left_core::entry::Node::Dir { .. });
        if let Some(ours) = ours
            && ours.version.relation(&theirs.version) == Relation::Concurrent
            && ours.node.is_live()
            && theirs.node.is_live()
            && folder(ours) != folder(theirs)
        {
            *self.decisions.entry(BRANCHES[16]).or_default() += 1;
        }
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Stats) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.happenings += other.happenings;
        self.events += other.events;
        sum(&mut self.faults, &other.faults);
        sum(&mut self.ops, &other.ops);
        sum(&mut self.decisions, &other.decisions);
        sum(&mut self.reports, &other.reports);
    }

    /// All counts as text.
    pub fn text(&self) -> String {
        let mut out = format!(
            "{} seeds, {} steps, {} happenings, {} engine events\n",
            self.seeds, self.steps, self.happenings, self.events
        );
        out += &list("faults", &self.faults);
        out += &list("operations", &self.ops);
        out += &list("reports", &self.reports);
        out += "branches of reconcile:\n";
        for name in BRANCHES {
            let n = self.decisions.get(name).copied().unwrap_or(0);
            let mark = if n == 0 { "   <- never taken" } else { "" };
            out += &format!("  {n:>9}  {name}{mark}\n");
        }
        out
    }
}

fn sum<K: Ord + Clone>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (k, n) in from {
        *to.entry(k.clone()).or_default() += n;
    }
}

fn list<K: std::fmt::Display>(title: &str, counts: &BTreeMap<K, u64>) -> String {
    let all: Vec<String> = counts.iter().map(|(k, n)| format!("{k} {n}")).collect();
    format!("{title}: {}\n", all.join(", "))
}

fn branch(ours: Option<&Entry>, theirs: &Entry) -> &'static str {
    let decision = reconcile(ours, theirs);
    let Some(ours) = ours else {
        return BRANCHES[usize::from(!theirs.node.is_live())];
    };
    let both_live = ours.node.is_live() && theirs.node.is_live();
    let at = match (ours.version.relation(&theirs.version), &decision) {
        (Relation::After, _) => 2,
        (Relation::Before, Decision::Merge(_)) => 3,
        (Relation::Before, _) => 4,
        (Relation::Equal, Decision::InSync) => 5,
        (Relation::Equal, Decision::Older) => 6,
        (Relation::Equal, _) => 7,
        (Relation::Concurrent, Decision::Await) => 9,
        (Relation::Concurrent, Decision::Merge(_)) if ours.node == theirs.node => {
            if ours.node.is_live() { 8 } else { 15 }
        }
        (Relation::Concurrent, Decision::Merge(_)) => {
            if both_live {
                11
            } else {
                10
            }
        }
        (Relation::Concurrent, Decision::Take { conflict: true, .. }) => 12,
        (Relation::Concurrent, _) => {
            if both_live {
                14
            } else {
                13
            }
        }
    };
    BRANCHES[at]
}

/// The trace of a run: a hash, and lines on standard output if asked for.
#[derive(Debug, Clone)]
pub struct Trace {
    hash: [u8; 32],
    print: bool,
}

impl Trace {
    /// An empty trace.
    pub fn new(print: bool) -> Self {
        Self {
            hash: [0; 32],
            print,
        }
    }

    /// Adds a line.
    pub fn line(&mut self, now_us: u64, text: &str) {
        let mut bytes = self.hash.to_vec();
        bytes.extend_from_slice(&now_us.to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        self.hash = ChunkId::of(&bytes).0;
        if self.print {
            println!("{:>12.3} ms  {text}", now_us as f64 / 1000.0);
        }
    }

    /// The hash of all lines.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }
}
