//! What is counted, and the trace.

use std::collections::BTreeMap;

use left_core::content::ChunkId;

use crate::coverage;

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
    /// How often each branch of the rules was taken.
    pub covered: BTreeMap<&'static str, u64>,
    /// Reports by kind.
    pub reports: BTreeMap<&'static str, u64>,
    /// Contents that came from a peer, not from a copy.
    pub fetched: u64,
    /// Fetches and operations asked for, and entries sent.
    pub work: u64,
}

impl Stats {
    /// Counts a fault.
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Stats) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.happenings += other.happenings;
        self.events += other.events;
        sum(&mut self.faults, &other.faults);
        sum(&mut self.ops, &other.ops);
        sum(&mut self.covered, &other.covered);
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
        out += &coverage::text(&self.covered);
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
