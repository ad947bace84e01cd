//! `cargo xtask bench --short`: for continuous integration. It judges no times; it fails on wrong
//! bytes, on more bytes on the wire or more memory than is allowed, and on work done twice: bytes
//! read and hashed, fsyncs and transactions are counted, step by step, at both ends.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};

use super::halt;
use super::measure::Meter;
use super::net::{End, Net};
use super::random::{self, Random};
use super::tools::left::Left;
use super::tools::{Pair, Session, Tool};
use super::tree::{self, Goal};
use super::{Common, bounds};
use counts::{Both, violations};

pub mod counts;

/// Bytes of the file that is edited.
pub const LARGE: u64 = 64 << 20;
/// Bytes of LARGE that are overwritten.
pub const PART: u64 = LARGE / 10;
/// Small files, and bytes of each.
pub const SMALL: (u64, u64) = (2000, 4096);
/// Files of the folder that is renamed, and bytes of each.
pub const MOVED: (u64, u64) = (16, 1 << 20);
/// How long nothing is done.
const IDLE: Duration = Duration::from_secs(8);

/// After so long a file has not been read too soon after its last change any more.
const FRESH: Duration = Duration::from_secs(3);

/// What is done, in order; each finds the tree that the one before left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A file of LARGE is moved in.
    File,
    /// A tenth of it is overwritten in one run.
    Run,
    /// A tenth of it is overwritten in pieces of 64 KiB.
    Scatter,
    /// A MiB is put before it, the whole renamed over the old.
    Insert,
    /// A MiB is appended.
    Append,
    /// SMALL files are moved in.
    Small,
    /// One note of 1 KiB is written.
    Note,
    /// A folder of MOVED files is moved in.
    Folder,
    /// It gets another name.
    Rename,
    /// Both ends are stopped and started again, and a note is written.
    Restart,
    /// Nothing.
    Idle,
}

/// All steps, in order.
pub const STEPS: [Step; 11] = [
    Step::File,
    Step::Run,
    Step::Scatter,
    Step::Insert,
    Step::Append,
    Step::Small,
    Step::Note,
    Step::Folder,
    Step::Rename,
    Step::Restart,
    Step::Idle,
];

/// Does all steps; the exit code says whether every bound was kept.
pub fn run(common: &Common, work: &Path) -> Result<ExitCode> {
    let start = Instant::now();
    let net = Net::create()?;
    let left = Left::new(common.left.as_deref()).traced();
    eprintln!("{}", left.find()?);
    let pair = Pair::create(&net, work.join("short"), Duration::from_secs(common.limit))?;
    fs::write(pair.root(End::A).join("first"), "here")?;
    let mut session = left.start(&pair)?;
    arrive(&pair, &*session, &everything(&pair)?)?;
    settle(&pair, &mut *session)?;
    let mut broken = Vec::new();
    for (step, caps) in STEPS.into_iter().zip(&bounds::SHORT) {
        let before = Both::read(&pair, &*session)?;
        // The peaks of memory start anew.
        let pids: Vec<u32> = session.processes().iter().map(|it| it.id()).collect();
        drop(Meter::start(&pids));
        take(step, &pair, &mut *session)?;
        let done = Both::read(&pair, &*session)?.since(&before);
        eprintln!("{step:?}\n{}", done.show());
        if let Err(error) = tree::compare(&pair.root(End::A), &pair.root(End::B)) {
            broken.push(format!("{step:?}: WRONG BYTES: {error:#}"));
        }
        broken.extend(violations(&done, caps));
    }
    eprintln!("{:.0} s", start.elapsed().as_secs_f64());
    for line in &broken {
        println!("{line}");
    }
    Ok(if broken.is_empty() {
        println!("bench --short: no wrong bytes, no work done twice");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Makes the change of a step and waits until the receiver has it and nobody works any more.
fn take(step: Step, pair: &Pair<'_>, session: &mut dyn Session) -> Result<()> {
    let (root, stage) = (pair.root(End::A), pair.stage());
    let (large, note) = (root.join("large"), root.join(format!("note-{step:?}")));
    match step {
        Step::File => {
            random::file(&stage.join("large"), LARGE, 1)?;
            sync(&stage)?;
            fs::rename(stage.join("large"), &large)?;
        }
        Step::Run => change(&large, |file| {
            file.write_all_at(&Random::new(2).bytes(PART as usize), LARGE / 3)
        })?,
        Step::Scatter => change(&large, |file| {
            let pieces = PART >> 16;
            let mut random = Random::new(3);
            (0..pieces).try_for_each(|n| {
                let at = LARGE / pieces * n + random.below(LARGE / pieces - (1 << 16));
                file.write_all_at(&random.bytes(1 << 16), at)
            })
        })?,
        Step::Insert => {
            let mut file = File::create_new(stage.join("large"))?;
            file.write_all(&Random::new(4).bytes(1 << 20))?;
            file.write_all(&fs::read(&large)?)?;
            drop(file);
            sync(&stage)?;
            fs::rename(stage.join("large"), &large)?;
        }
        Step::Append => change(&large, |file| {
            let end = file.metadata()?.len();
            file.write_all_at(&Random::new(5).bytes(1 << 20), end)
        })?,
        Step::Small | Step::Folder => {
            // No file begins as another one does: what is here already does not travel.
            let ((files, len), name, seed) = match step {
                Step::Small => (SMALL, "small", 1 << 32),
                _ => (MOVED, "folder", 2 << 32),
            };
            random::tree(&stage.join(name), files, len, seed)?;
            sync(&stage)?;
            fs::rename(stage.join(name), root.join(name))?;
        }
        Step::Note => fs::write(&note, Random::new(6).bytes(1024))?,
        Step::Rename => {
            // What has just been read is read again at the next hint, on purpose.
            halt::nap(FRESH)?;
            fs::rename(root.join("folder"), root.join("renamed"))?;
        }
        Step::Restart => {
            for end in [End::A, End::B] {
                session.stop(end)?;
            }
            let meter = Meter::start(&[]);
            for end in [End::B, End::A] {
                session.resume(pair, end, &meter)?;
            }
            fs::write(&note, Random::new(7).bytes(1024))?;
        }
        Step::Idle => halt::nap(IDLE)?,
    }
    let mut goal = everything(pair)?;
    if step == Step::Rename {
        goal.gone.push("folder".into());
    }
    arrive(pair, session, &goal)?;
    settle(pair, session)
}

/// All that A holds.
fn everything(pair: &Pair<'_>) -> Result<Goal> {
    Goal::folder(&pair.root(End::A), "".as_ref(), "".as_ref())
}

fn arrive(pair: &Pair<'_>, session: &dyn Session, goal: &Goal) -> Result<()> {
    goal.wait(&pair.root(End::B), pair.limit, &session.processes())
}

/// Waits until both ends say that they are equal, and rest.
fn settle(pair: &Pair<'_>, session: &mut dyn Session) -> Result<()> {
    session.ready(pair)?;
    let pids: Vec<u32> = session.processes().iter().map(|it| it.id()).collect();
    Meter::start(&pids).rest(Duration::from_secs(20))
}

/// What was made beside the folder must not be synced on LEFT's account.
fn sync(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|folder| Ok(rustix::fs::syncfs(folder)?))
        .context("syncfs")
}

/// Changes a file in place.
fn change(path: &Path, change: impl FnOnce(&File) -> std::io::Result<()>) -> Result<()> {
    let file = File::options().write(true).open(path);
    file.and_then(|file| {
        change(&file)?;
        file.set_modified(SystemTime::now())
    })
    .with_context(|| format!("cannot change {}", path.display()))?;
    ensure!(path.exists(), "it is gone");
    Ok(())
}
