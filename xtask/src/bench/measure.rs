//! What a tool's processes cost: CPU time and peak memory, read from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::halt;

/// How often the sampler looks for new processes and their memory. The kernel keeps the peak of
/// each process by itself, so only a process that lives shorter than this is missed, and a
/// long run needs fewer looks, which cost CPU time that the tools want.
const SAMPLE: Duration = Duration::from_millis(10);
const SAMPLE_LONG_RUN: Duration = Duration::from_millis(100);

/// Watches the process trees of a tool from its creation on.
pub struct Meter {
    shared: Arc<Shared>,
    sampler: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Process ids at the top of each tree, with the ticks they had used when added.
    roots: BTreeMap<u32, u64>,
    /// Ticks of the roots that have ended.
    ended: u64,
    /// Largest peak seen, in KiB.
    peak: u64,
}

impl Meter {
    /// Starts to watch `roots`: CPU time used before does not count, and the kernel's memory
    /// of each process' peak starts anew.
    pub fn start(roots: &[u32]) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            state: Mutex::new(State::default()),
        });
        for &root in roots {
            for pid in tree(root) {
                // 5 resets VmHWM (proc_pid_clear_refs(5)); without the right to do so the
                // peak includes the time before, which errs against the tool.
                let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
            }
            shared.lock().roots.insert(root, tree_ticks(root));
        }
        let for_sampler = Arc::clone(&shared);
        let sampler = std::thread::spawn(move || {
            let start = Instant::now();
            while !for_sampler.stop.load(Ordering::Relaxed) {
                for_sampler.sample();
                std::thread::sleep((start.elapsed() / 10).clamp(SAMPLE, SAMPLE_LONG_RUN));
            }
        });
        Self {
            shared,
            sampler: Some(sampler),
        }
    }

    /// Watches another tree, from its first moment.
    pub fn add(&self, root: u32) {
        self.shared.lock().roots.insert(root, 0);
    }

    /// Takes the final figures of a root that has ended but is not yet reaped.
    pub fn ended(&self, root: u32) {
        let mut state = self.shared.lock();
        if let Some(before) = state.roots.remove(&root) {
            state.ended += tree_ticks(root).saturating_sub(before);
        }
    }

    /// CPU seconds, user and system, since the start.
    pub fn cpu(&self) -> f64 {
        let state = self.shared.lock();
        let running: u64 = state
            .roots
            .iter()
            .map(|(&root, &before)| tree_ticks(root).saturating_sub(before))
            .sum();
        seconds(state.ended + running)
    }

    /// The largest memory, in bytes, that any one process has held since the start.
    pub fn peak(&self) -> u64 {
        self.shared.sample();
        self.shared.lock().peak * 1024
    }

    /// Waits until the processes use no CPU time worth the name, at most `limit`: what a
    /// tool puts off until after the last byte is visible belongs to its work too.
    pub fn rest(&self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        let mut before = self.cpu();
        while start.elapsed() < limit {
            halt::nap(Duration::from_millis(200))?;
            let now = self.cpu();
            if now - before < 0.015 {
                break;
            }
            before = now;
        }
        Ok(())
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(sampler) = self.sampler.take() {
            let _ = sampler.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds this lock can leave the figures half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sample(&self) {
        let roots: Vec<u32> = self.lock().roots.keys().copied().collect();
        let peak = roots.into_iter().flat_map(tree).filter_map(peak_kib).max();
        let mut state = self.lock();
        state.peak = state.peak.max(peak.unwrap_or(0));
    }
}

/// `root` and all its living descendants.
fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        next += 1;
        // A child hangs on the thread that made it, so each thread has to be asked.
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for thread in threads.flatten() {
            let list = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(
                list.split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
    }
    found
}

/// Ticks used by `root`'s tree. Children that were waited for are in their parent's figures,
/// so daemons that fork for each connection lose nothing.
fn tree_ticks(root: u32) -> u64 {
    tree(root).into_iter().filter_map(ticks).sum()
}

fn ticks(pid: u32) -> Option<u64> {
    parse_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// utime, stime, cutime and cstime of a `/proc/PID/stat` line, together.
fn parse_ticks(stat: &str) -> Option<u64> {
    // The name in parentheses may itself hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<u64> = rest
        .split_whitespace()
        .skip(11)
        .take(4)
        .filter_map(|field| field.parse().ok())
        .collect();
    (fields.len() == 4).then(|| fields.iter().sum())
}

fn peak_kib(pid: u32) -> Option<u64> {
    status(&format!("/proc/{pid}"), "VmHWM:")
}

/// The most memory, in bytes, that one process held since its peak was last reset.
pub fn peak(pid: u32) -> u64 {
    peak_kib(pid).unwrap_or(0) * 1024
}

/// Bytes of memory that `root`'s tree holds now.
pub fn resident(root: u32) -> u64 {
    let kib = |pid| status(&format!("/proc/{pid}"), "VmRSS:");
    tree(root).into_iter().filter_map(kib).sum::<u64>() * 1024
}

/// How often threads of `root`'s tree have waited for something and got it.
pub fn wakes(root: u32) -> u64 {
    let mut count = 0;
    for pid in tree(root) {
        let threads = fs::read_dir(format!("/proc/{pid}/task"));
        for thread in threads.into_iter().flatten().flatten() {
            let folder = thread.path().display().to_string();
            count += status(&folder, "voluntary_ctxt_switches:").unwrap_or(0);
        }
    }
    count
}

/// Bytes that a process has read by read(2) and its like from anything but sockets, by
/// `/proc/PID/io` (what comes by recv(2) does not count there).
pub fn bytes_read(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("rchar:"))?;
    line.trim().parse().ok()
}

/// A number of a `status` file in `folder`.
fn status(folder: &str, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("{folder}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[allow(
    clippy::cast_precision_loss,
    reason = "ticks of one run are far below 2^52"
)]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Whether the kernel lists children in `/proc`; without, only the first processes are measured.
pub fn sees_children() -> bool {
    Path::new("/proc/thread-self/children").exists()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Meter, parse_ticks};

    #[test]
    fn a_name_with_spaces_and_parentheses_is_skipped() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 0 1 2 3 4 100 20 3 4 20 0 1 0 5";
        assert_eq!(parse_ticks(stat), Some(127));
        assert_eq!(parse_ticks("7 (a) S 1"), None);
    }

    #[test]
    fn a_child_that_was_waited_for_counts() {
        let meter = Meter::start(&[]);
        let mut child = Command::new("sh")
            .args([
                "-c",
                "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; sleep 0.2",
            ])
            .spawn()
            .expect("sh");
        meter.add(child.id());
        std::thread::sleep(std::time::Duration::from_millis(20));
        while parse_state(child.id()) != Some('Z') {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        meter.ended(child.id());
        child.wait().expect("wait");
        assert!(meter.cpu() > 0.0, "no CPU time seen");
        assert!(meter.peak() > 100 * 1024, "no memory seen");
    }

    fn parse_state(pid: u32) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }
}
