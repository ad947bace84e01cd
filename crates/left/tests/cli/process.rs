use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use left::cli::demo;
use rustix::process::{Pid, Signal, kill_process};

use crate::fake::USAGE;

/// The test binary as the program `left`.
const PREFIX: [&str; 5] = [
    "--exact",
    "fake_left",
    "--nocapture",
    "--test-threads=1",
    "--",
];

pub fn left(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(PREFIX)
        .args(args)
        .env("LEFT_TEST_FAKE", "1")
        .env("LEFT_HOME", home)
        .env_remove("LEFT_CODE")
        .env_remove("LEFT_LOG")
        .current_dir(home.parent().unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(home: &Path, args: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = left(home, args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Ends its process when the test does.
struct Running(Child, BufReader<std::process::ChildStdout>);

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self(child, out)
    }

    /// Lines until one starts with `start`.
    fn until(&mut self, start: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.1.read_line(&mut line).unwrap() == 0 {
                let mut err = String::new();
                let _ = self.0.stderr.take().unwrap().read_to_string(&mut err);
                panic!("ended after {lines:?}: {err}");
            }
            lines.push(line.trim_end().to_string());
            if line.starts_with(start) {
                return lines;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.0.id() as i32).unwrap(), signal).unwrap();
    }

    /// Exit code and the rest of stdout.
    fn end(mut self) -> (i32, String) {
        let mut rest = String::new();
        self.1.read_to_string(&mut rest).unwrap();
        (self.0.wait().unwrap().code().unwrap(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn share_prints_a_ticket_serves_others_and_stops_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let mut first = Running::start(left(&home, &["share"]));
    let lines = first.until("  left join left1");
    let ticket = lines.iter().find(|l| l.starts_with("left1")).unwrap();
    assert_eq!(lines.last().unwrap().trim(), format!("left join {ticket}"));
    let share = dir.path().canonicalize().unwrap().join("share");
    assert!(share.is_dir());

    // Others go through it.
    let (code, out, err) = run(&home, &["share", "other", "--name", "x"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&format!("process {}", first.0.id())), "{out}");
    assert!(err.contains("do not count"), "{err}");
    let (code, out, _) = run(&home, &["status"]);
    assert_eq!(code, 0);
    assert!(
        out.contains(share.to_str().unwrap()) && out.contains("offline"),
        "{out}"
    );
    assert!(out.contains("1,234 files, 1 folder, 5.0 MB"), "{out}");
    let (code, out, _) = run(&home, &["ticket", "share", "--read-only", "--json"]);
    assert_eq!(code, 0);
    assert!(out.contains("\"role\":\"read-only\""), "{out}");
    let (code, _, err) = run(&home, &["wait", "--timeout", "50ms"]);
    assert_eq!(code, 3);
    let missing = "is offline, 3 files (12 MB) missing, a test";
    assert!(
        err.starts_with("left: not in sync after") && err.contains(missing),
        "{err}"
    );
    assert_eq!(err.lines().count(), 1, "{err}");
    let (code, out, _) = run(&home, &["id"]);
    assert_eq!(code, 0);
    assert!(out.contains(&left_core::version::DeviceId([9; 32]).to_string()));

    first.signal(Signal::TERM);
    let (code, rest) = first.end();
    assert_eq!(code, 0);
    assert!(rest.contains("Stopped."), "{rest}");
    assert!(!home.join("control.sock").exists());
}

#[test]
fn json_events_can_be_driven_by_a_program() {
    let dir = tempfile::tempdir().unwrap();
    let (home_a, home_b) = (dir.path().join("ha"), dir.path().join("hb"));
    let mut a = Running::start(left(&home_a, &["share", "a", "--json"]));
    let lines = a.until("{\"event\":\"ticket\"");
    assert!(
        lines
            .iter()
            .any(|l| l.starts_with("{\"event\":\"share_started\"")),
        "{lines:?}"
    );
    let event: serde_json::Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    let ticket = event["ticket"].as_str().unwrap();

    let mut b = Running::start(left(&home_b, &["--json", "join", ticket, "b"]));
    b.until("{\"event\":\"share_started\"");
    fs::write(dir.path().join("a/f"), "hello").unwrap();
    let received = b.until("{\"event\":\"file_received\"").pop().unwrap();
    assert!(
        received.contains("\"path\":\"f\"") && received.contains("\"bytes\":5"),
        "{received}"
    );
    for home in [&home_a, &home_b] {
        let (code, _, err) = run(home, &["wait", "--timeout", "10s"]);
        assert_eq!(code, 0, "{err}");
    }
    // The peer's name cannot talk to the terminal.
    let (_, out, _) = run(&home_b, &["status"]);
    assert!(
        out.contains("synced") && out.contains("partner\\u{1b}[2J"),
        "{out}"
    );
    b.signal(Signal::INT);
    let (code, rest) = b.end();
    assert_eq!(code, 0);
    assert!(rest.contains("{\"event\":\"stopping\"}"), "{rest}");
    assert_eq!(run(&home_a, &["stop"]).0, 0);
    assert_eq!(a.end().0, 0);
}

#[test]
fn a_refused_job_is_one_line_and_ends_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let (code, out, err) = run(&home, &["join", "left1/x/used", "--json"]);
    assert_eq!(code, 1);
    assert_eq!(
        err,
        "left: cannot join: the ticket was used; ask for another one\n"
    );
    assert!(
        out.contains("{\"event\":\"error\",\"what\":\"cannot join\""),
        "{out}"
    );
    for args in [
        &["join", "rubbish"][..],
        &["fly"],
        &[],
        &["wait", "--timeout", "x"],
    ] {
        let (code, _, err) = run(&home, args);
        assert_eq!(code, USAGE, "{args:?}");
        assert!(!err.is_empty(), "{args:?}");
    }
    fs::write(dir.path().join("file"), "").unwrap();
    let (code, _, err) = run(&home, &["share", "file"]);
    assert_eq!((code, err.lines().count()), (1, 1), "{err}");
    assert!(err.contains("not a folder"), "{err}");
    let (code, _, err) = run(&home, &["share", "."]);
    assert_eq!(code, 1);
    assert!(err.contains("left's own key"), "{err}");
}

#[test]
fn without_a_running_left() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    assert_eq!(run(&home, &["wait", "--timeout", "0s"]).0, 3);
    let (code, _, err) = run(&home, &["stop"]);
    assert_eq!(code, 1);
    assert!(
        err.contains("left does not run") && err.contains("left up"),
        "{err}"
    );
    let (code, out, _) = run(&home, &["status"]);
    assert!(code == 0 && out.contains("No shares"), "{out}");
    let (code, _, err) = run(&home, &["verify", "typo"]);
    assert!(code == 1 && err.contains("is not a share"), "{err}");
    assert!(!dir.path().join("typo").exists());
    let (code, _, err) = run(&home, &["leave", "typo"]);
    assert!(code == 1 && err.contains("is not a share"), "{err}");

    let mut first = Running::start(left(&home, &["share", "s"]));
    first.until("  left join");
    // Killed, so that its socket stays.
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    assert!(home.join("control.sock").exists());
    let (code, out, err) = run(&home, &["ticket", "s"]);
    assert!(code == 0 && out.contains("\nleft1"), "{out}");
    assert!(err.contains("left does not run"), "{err}");
    let (_, out, _) = run(&home, &["pause", "s"]);
    assert!(out.contains("is paused"), "{out}");
    let (_, out, _) = run(&home, &["status"]);
    assert!(
        out.contains("paused") && out.contains("left resume"),
        "{out}"
    );
    fs::write(dir.path().join("s/damaged"), "").unwrap();
    let (code, out, _) = run(&home, &["verify", "s"]);
    assert_eq!(code, 4);
    assert!(out.contains("not healed: damaged: no peer has it"), "{out}");
    assert_eq!(run(&home, &["leave", "s"]).0, 0);
    assert!(dir.path().join("s/damaged").exists() && !dir.path().join("s/.left").exists());
}

#[test]
fn a_second_left_waits_for_the_first_to_answer() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    // Both start at once; one becomes the running left, the other goes through it.
    let both = ["a", "b"].map(|d| Running::start(left(&home, &["share", d])));
    let begin = Instant::now();
    loop {
        let (_, out, err) = run(&home, &["status", "--json"]);
        if out.matches("\"path\":").count() == 2 && out.contains("\"pid\":") {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{out} {err}");
    }
    assert_eq!(run(&home, &["stop"]).0, 0);
    for left in both {
        assert_eq!(left.end().0, 0);
    }
}

/// A demo of the toy daemon.
pub fn fake_demo(size: u64) -> demo::Plan {
    let env = ["/usr/bin/env", "-u", "LEFT_TEST_DEMO", "LEFT_TEST_FAKE=1"];
    let mut program: Vec<OsString> = env.map(Into::into).to_vec();
    program.push(std::env::current_exe().unwrap().into());
    program.extend(PREFIX.map(Into::into));
    demo::Plan { program, size }
}

#[test]
fn the_demo_matches_and_cleans_up() {
    let exit = demo::run(&fake_demo(2_000_000), true).unwrap();
    assert_eq!(exit as i32, 0);
    assert_eq!(leftovers(std::process::id()), 0);
}

#[test]
fn a_stopped_demo_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = left(&dir.path().join("home"), &[]);
    command.env("LEFT_TEST_DEMO", "1").process_group(0);
    let mut demo = Running::start(command);
    demo.until("both are moved");
    assert_eq!(leftovers(demo.0.id()), 1);
    // As a terminal does it: to the demo and to both of its processes.
    let group = Pid::from_raw(demo.0.id() as i32).unwrap();
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
    let id = demo.0.id();
    let (code, rest) = demo.end();
    assert_eq!((code, leftovers(id)), (1, 0), "{rest}");
    assert!(
        rustix::process::test_kill_process_group(group).is_err(),
        "a process is left"
    );
}

fn leftovers(id: u32) -> usize {
    let name = format!("left-demo-{id}");
    let entries = fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    entries.filter(|e| *e.file_name() == *name).count()
}
