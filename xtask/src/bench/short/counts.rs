//! What was counted at both ends, and whether it is too much.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Step;
use crate::bench::measure;
use crate::bench::net::End;
use crate::bench::show::bytes;
use crate::bench::tools::left::trace;
use crate::bench::tools::{Pair, Session};

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Bytes on the wire, both ways; the same at both ends.
    Wire,
    /// Bytes read from files.
    Read,
    /// Bytes of content hashed.
    Hashed,
    /// Calls of fsync and fdatasync.
    Fsyncs,
    /// Durable transactions of the index.
    IndexCommits,
    /// Transactions of the manifests.
    ManifestCommits,
    /// Most memory, in bytes; not a difference.
    Memory,
}

/// Everything that is counted, in order.
const ALL: [What; 7] = [
    What::Wire,
    What::Read,
    What::Hashed,
    What::Fsyncs,
    What::IndexCommits,
    What::ManifestCommits,
    What::Memory,
];

/// What is allowed in one step; of two numbers, the first is that of A, which makes the changes.
#[derive(Clone, Copy)]
pub struct Caps {
    /// Where it holds.
    pub step: Step,
    /// Bytes on the wire, both ways.
    pub wire: u64,
    /// Bytes read from files.
    pub read: [u64; 2],
    /// Bytes of content hashed.
    pub hashed: [u64; 2],
    /// Calls of fsync and fdatasync.
    pub fsyncs: [u64; 2],
    /// Durable transactions of the index.
    pub index_commits: [u64; 2],
    /// Transactions of the manifests.
    pub manifest_commits: [u64; 2],
    /// Most memory of either.
    pub memory: u64,
}

impl Caps {
    fn of(&self, what: What) -> [u64; 2] {
        match what {
            What::Wire => [self.wire; 2],
            What::Read => self.read,
            What::Hashed => self.hashed,
            What::Fsyncs => self.fsyncs,
            What::IndexCommits => self.index_commits,
            What::ManifestCommits => self.manifest_commits,
            What::Memory => [self.memory; 2],
        }
    }
}

/// One end's counts; what could not be counted is not there.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts([Option<u64>; 7]);

/// Both ends'.
#[derive(Clone, Copy, Default, Debug)]
pub struct Both {
    /// A and B.
    pub ends: [Counts; 2],
    /// Processes that were counted: another one has counted from nothing.
    pids: [u32; 2],
}

impl Counts {
    /// How much of `what`.
    pub fn get(&self, what: What) -> Option<u64> {
        self.0[what as usize]
    }

    fn set(&mut self, what: What, value: Option<u64>) {
        self.0[what as usize] = value;
    }
}

impl Both {
    /// So far.
    pub fn read(pair: &Pair<'_>, session: &dyn Session) -> Result<Self> {
        let mut both = Self::default();
        let processes = session.processes();
        ensure!(processes.len() == 2, "both ends must run");
        for (n, end) in [End::A, End::B].into_iter().enumerate() {
            let pid = processes[n].id();
            let own = metrics(pair, end)?;
            let number = |name: &str| metric(&own, name);
            let counts = &mut both.ends[n];
            counts.set(What::Wire, Some(pair.net.bytes()?));
            counts.set(What::Read, measure::bytes_read(pid));
            counts.set(What::Hashed, number("left_work_hashed_bytes_total"));
            counts.set(What::IndexCommits, number("left_work_index_commits_total"));
            let manifests = number("left_work_manifest_commits_total");
            counts.set(What::ManifestCommits, manifests);
            counts.set(What::Memory, Some(measure::peak(pid)));
            counts.set(What::Fsyncs, fsyncs(pair, end));
            both.pids[n] = pid;
        }
        Ok(both)
    }

    /// What was done since `before`.
    pub fn since(mut self, before: &Self) -> Self {
        for n in 0..2 {
            let same = self.pids[n] == before.pids[n];
            for what in ALL {
                // These outlive the process.
                let outlives = matches!(what, What::Wire | What::Fsyncs);
                if what != What::Memory && (same || outlives) {
                    let old = before.ends[n].get(what).unwrap_or(0);
                    let new = self.ends[n].get(what);
                    self.ends[n].set(what, new.map(|new| new.saturating_sub(old)));
                }
            }
        }
        self
    }

    /// In two lines.
    pub fn show(&self) -> String {
        let end = |name: &str, counts: &Counts| {
            let each = ALL.map(|what| {
                let value = counts
                    .get(what)
                    .map_or("?".into(), |value| show(what, value));
                format!("{what:?} {value}")
            });
            format!("  {name}: {}", each.join(", "))
        };
        format!("{}\n{}", end("A", &self.ends[0]), end("B", &self.ends[1]))
    }
}

/// What of `done` is more than `caps` allow. What could not be counted is too much, but for fsyncs,
/// which need a tracer.
pub fn violations(done: &Both, caps: &Caps) -> Vec<String> {
    let mut broken = Vec::new();
    let step = caps.step;
    for what in ALL {
        for (n, name) in ["A", "B"].into_iter().enumerate() {
            let most = caps.of(what)[n];
            match done.ends[n].get(what) {
                Some(value) if value > most => broken.push(format!(
                    "{step:?}: {what:?} at {name}: {}, allowed are {}",
                    show(what, value),
                    show(what, most)
                )),
                None if what != What::Fsyncs => {
                    broken.push(format!("{step:?}: {what:?} at {name} was not counted"));
                }
                _ => {}
            }
        }
    }
    broken
}

fn show(what: What, value: u64) -> String {
    match what {
        What::Wire | What::Read | What::Hashed | What::Memory => bytes(value as f64),
        What::Fsyncs | What::IndexCommits | What::ManifestCommits => value.to_string(),
    }
}

/// What a running left says of itself.
fn metrics(pair: &Pair<'_>, end: End) -> Result<String> {
    let path = pair.home(end).join("control.sock");
    let mut socket = UnixStream::connect(&path)
        .with_context(|| format!("nobody listens at {}", path.display()))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: left\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    Ok(text)
}

fn metric(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// How often an end has called fsync or fdatasync, if somebody looks.
fn fsyncs(pair: &Pair<'_>, end: End) -> Option<u64> {
    let text = fs::read_to_string(trace(pair, end)).ok()?;
    Some(count_calls(&text))
}

/// A call that another thread's interrupts is shown in two lines; the second has no arguments.
fn count_calls(trace: &str) -> u64 {
    let call = |line: &&str| line.contains(" fsync(") || line.contains(" fdatasync(");
    trace.lines().filter(call).count() as u64
}

#[cfg(test)]
mod tests {
    use super::{ALL, Both, Caps, Counts, Step, What, count_calls, metric, violations};
    use crate::bench::bounds::SHORT;
    use crate::bench::short::STEPS;

    fn both(value: Option<u64>) -> Both {
        Both {
            ends: [Counts([value; 7]); 2],
            pids: [1, 2],
        }
    }

    fn broken(counted: Option<u64>, caps: &Caps) -> Vec<String> {
        violations(&both(counted), caps)
    }

    #[test]
    fn more_than_allowed_is_a_violation_at_either_end() {
        let caps = Caps {
            step: Step::Run,
            wire: 100,
            read: [100; 2],
            hashed: [100, 50],
            fsyncs: [100; 2],
            index_commits: [100; 2],
            manifest_commits: [100; 2],
            memory: 100,
        };
        assert!(broken(Some(50), &caps).is_empty());
        let one = broken(Some(51), &caps);
        assert_eq!(one, ["Run: Hashed at B: 51 B, allowed are 50 B"]);
        assert_eq!(broken(Some(101), &caps).len(), 14);
        // Not counted is not kept; but fsyncs need a tracer.
        assert_eq!(broken(None, &caps).len(), 12);
    }

    #[test]
    fn every_step_has_its_caps_and_each_of_them_can_break() {
        for (step, caps) in STEPS.iter().zip(&SHORT) {
            assert_eq!(*step, caps.step);
            assert!(broken(Some(0), caps).is_empty());
            assert_eq!(broken(Some(u64::MAX), caps).len(), 14);
            for what in ALL {
                // None is so far away that it would hide a file hashed, read or sent once more.
                let most = caps.of(what)[0].max(caps.of(what)[1]);
                assert!(most < 3 * super::super::LARGE || what == What::Memory);
            }
        }
    }

    #[test]
    fn each_end_is_counted_from_where_it_was() {
        let mut now = both(Some(10));
        now.pids = [1, 3];
        let done = now.since(&both(Some(4)));
        assert_eq!(done.ends[0].get(What::Hashed), Some(6));
        // Another process: all that it counted is new.
        assert_eq!(done.ends[1].get(What::Hashed), Some(10));
        assert_eq!(done.ends[1].get(What::Fsyncs), Some(6));
        assert_eq!(done.ends[0].get(What::Memory), Some(10));
    }

    #[test]
    fn calls_and_metrics_are_found() {
        let trace = "7 fsync(3</a>) = 0\n8 fdatasync(4</b> <unfinished ...>\n\
                     8 <... fdatasync resumed>) = 0\n7 +++ exited with 0 +++\n";
        assert_eq!(count_calls(trace), 2);
        let text = "# HELP left_x x\nleft_work_hashed_bytes_total 42\n# EOF\n";
        assert_eq!(metric(text, "left_work_hashed_bytes_total"), Some(42));
        assert_eq!(metric(text, "left_work_other_total"), None);
    }
}
