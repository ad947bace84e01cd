//! `left demo`: two real processes on this machine run the original system's test plan.
//!
//! 1. A has a 10 MB file; B joins and has it too. 2. A big file and a folder of 50 small files are
//!    moved into B's share; half a second later A is killed, a second later started again on the
//!    same port, and gets all. 3. 10 % of the big file are overwritten on A, in one run, then
//!    scattered; B gets them. Every step ends when both trees are equal; then md5s are compared.

mod files;
mod machine;
mod progress;
mod table;

use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use machine::Machine;
use progress::Progress;
use table::Row;

use super::signals;
use crate::daemon::handle::{Exit, UserError};

const FILE_1: u64 = 10_000_000;
const SMALL_FILES: u64 = 50;
const SMALL_FILE: u64 = 1000;
/// From the move of the files to the kill, and from the kill to the new start.
const BEFORE_KILL: Duration = Duration::from_millis(500);
const BEFORE_RESTART: Duration = Duration::from_secs(1);
/// Into how many pieces the scattered 10 % are cut.
const PIECES: u64 = 100;
/// A step that takes longer than this, and a second a megabyte, has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a demo runs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program to start, with its first arguments.
    pub program: Vec<OsString>,
    /// Size of the big file in bytes.
    pub size: u64,
}

impl Plan {
    /// The plan for the program that runs.
    pub fn of_this_program(size: u64) -> Self {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("left"));
        Self {
            program: vec![program.into()],
            size,
        }
    }
}

/// Runs the demo and prints its table; [`Exit::Ok`] only if everything matched.
pub fn run(plan: &Plan, json: bool) -> Result<Exit, UserError> {
    let asked = Arc::new(AtomicBool::new(false));
    signals::on_stop({
        let asked = asked.clone();
        move || asked.store(true, Ordering::Relaxed)
    })?;
    let place = Place::new()?;
    let mut demo = Demo::new(plan, place.0.clone(), Progress::new(json, asked))?;
    let result = demo.steps();
    demo.progress.close();
    table::print(&demo.rows, json);
    let Demo { a, b, rows, .. } = demo;
    a.end();
    b.end();
    result?;
    Ok(match rows.iter().all(Row::equal) {
        true => Exit::Ok,
        false => Exit::Failure,
    })
}

/// A temporary folder, gone when dropped.
struct Place(PathBuf);

impl Place {
    fn new() -> Result<Self, UserError> {
        let dir = std::env::temp_dir().join(format!("left-demo-{}", std::process::id()));
        let error = |e: std::io::Error| UserError::io("cannot make the temporary folder", &dir, &e);
        fs::create_dir(&dir).map_err(error)?;
        Ok(Self(dir.canonicalize().map_err(error)?))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            tracing::warn!("cannot remove {}: {e}; remove it by hand", self.0.display());
        }
    }
}

struct Demo {
    place: PathBuf,
    size: u64,
    a: Machine,
    b: Machine,
    progress: Progress,
    rows: Vec<Row>,
}

impl Demo {
    fn new(plan: &Plan, place: PathBuf, progress: Progress) -> Result<Self, UserError> {
        let (port_a, port_b) = free_ports()?;
        let a = Machine::new("A", &place, port_a, &plan.program)?;
        let b = Machine::new("B", &place, port_b, &plan.program)?;
        Ok(Self {
            place,
            size: plan.size,
            a,
            b,
            progress,
            rows: Vec::new(),
        })
    }

    fn steps(&mut self) -> Result<(), UserError> {
        self.first_file()?;
        self.kill_in_between()?;
        let size = self.size;
        let run = [(size / 3, size / 10)];
        self.overwrite("10 % overwritten on A in one run", &run)?;
        let piece = (size / 10 / PIECES).max(1);
        let scattered = (0..PIECES).map(|n| (n * (size / PIECES), piece));
        self.overwrite(
            "10 % overwritten on A, scattered",
            &scattered.collect::<Vec<_>>(),
        )
    }

    fn first_file(&mut self) -> Result<(), UserError> {
        self.progress.step("A shares File_1 of 10 MB; B joins");
        files::random(&self.a.share.join("File_1"), FILE_1, &self.progress)?;
        self.a
            .start(&["share".into(), self.a.share.clone().into()])?;
        let ticket = self.a.ticket()?;
        let begin = Instant::now();
        self.b
            .start(&["join".into(), ticket.into(), self.b.share.clone().into()])?;
        self.settle("B joins", begin, 0, &["File_1"])
    }

    fn kill_in_between(&mut self) -> Result<(), UserError> {
        self.progress
            .step("preparing File_2 and a folder of 50 files");
        let (file, folder) = (self.place.join("File_2"), self.place.join("Folder"));
        files::random(&file, self.size, &self.progress)?;
        fs::create_dir(&folder)
            .map_err(|e| UserError::io("cannot make the folder", &folder, &e))?;
        for n in 1..=SMALL_FILES {
            files::random(&folder.join(format!("{n:02}")), SMALL_FILE, &self.progress)?;
        }
        self.progress
            .step("both are moved into B; A is killed after 0.5 s, started again 1 s later");
        let wire = self.b.wire_bytes()?;
        let begin = Instant::now();
        for from in [&file, &folder] {
            let to = self.b.share.join(from.file_name().unwrap_or_default());
            fs::rename(from, &to).map_err(|e| UserError::io("cannot move", from, &e))?;
        }
        self.pause(BEFORE_KILL)?;
        self.a.kill();
        self.pause(BEFORE_RESTART)?;
        self.a.start(&["up".into()])?;
        self.settle("moved into B, A killed", begin, wire, &["File_2", "Folder"])
    }

    fn overwrite(&mut self, step: &'static str, places: &[(u64, u64)]) -> Result<(), UserError> {
        self.progress.step(step);
        let wire = self.b.wire_bytes()?;
        let begin = Instant::now();
        files::overwrite(&self.a.share.join("File_2"), places)?;
        self.settle(step, begin, wire, &["File_2"])
    }

    /// Waits until both trees are equal and adds a row for each name.
    fn settle(
        &mut self,
        step: &'static str,
        begin: Instant,
        wire: u64,
        names: &[&str],
    ) -> Result<(), UserError> {
        let end = begin + PATIENCE + Duration::from_secs(self.size / 1_000_000);
        let mut equal = false;
        while !equal && Instant::now() < end {
            let looked = self.look();
            // Ctrl-C reaches the two processes as well: that they end then is no error of theirs.
            self.progress.check()?;
            equal = looked?;
        }
        let seconds = begin.elapsed().as_secs_f64();
        let wire = self.b.wire_bytes()?.saturating_sub(wire);
        for (n, name) in names.iter().enumerate() {
            let row = Row {
                step,
                file: name.to_string(),
                md5_a: files::md5(&self.a.share.join(name)),
                md5_b: files::md5(&self.b.share.join(name)),
                // One step, one time and one sum of bytes.
                seconds: (n == 0).then_some(seconds),
                wire_bytes: (n == 0).then_some(wire),
            };
            self.progress.row(&row);
            self.rows.push(row);
        }
        if equal {
            return Ok(());
        }
        let why = format!("the two folders are not equal after {seconds:.0} s");
        Err(UserError::new(
            format!("the step `{step}` failed"),
            why,
            "please report it",
        ))
    }

    /// Whether both say that they are in sync and their trees are equal; draws how far they are.
    fn look(&mut self) -> Result<bool, UserError> {
        let (a, b) = (self.a.in_sync()?, self.b.in_sync()?);
        if a && b && files::tree(&self.a.share)? == files::tree(&self.b.share)? {
            return Ok(true);
        }
        self.progress.draw(&self.a.status(), &self.b.status());
        Ok(false)
    }

    fn pause(&self, time: Duration) -> Result<(), UserError> {
        thread::sleep(time);
        self.progress.check()
    }
}

/// Two different free ports; others may take them before they are used, which is then an error.
fn free_ports() -> Result<(u16, u16), UserError> {
    let bind = || TcpListener::bind(("127.0.0.1", 0));
    let ports = || -> std::io::Result<(u16, u16)> {
        let (a, b) = (bind()?, bind()?);
        Ok((a.local_addr()?.port(), b.local_addr()?.port()))
    };
    ports().map_err(|e| UserError::io("cannot listen on", Path::new("127.0.0.1"), &e))
}
