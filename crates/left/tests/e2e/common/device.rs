//! One device: a home, a folder, a port, and a process of `left` that can be killed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The longest anything may take. Only a failure takes so long.
const LIMIT: Duration = Duration::from_secs(60);

/// A place for one test's devices.
pub struct World {
    dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let keep = std::env::var_os("LEFT_TEST_KEEP").is_some();
        let mut dir = tempfile::Builder::new();
        let dir = dir.prefix("left-e2e-").disable_cleanup(keep).tempdir();
        Self { dir: dir.unwrap() }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap()
    }

    /// A device with its folder, which is empty; nothing runs yet.
    pub fn device(&self, name: &str) -> Device {
        let place = self.path();
        let share = place.join(name);
        fs::create_dir(&share).unwrap();
        Device {
            name: name.to_owned(),
            home: place.join(format!("home-{name}")),
            share,
            host: "127.0.0.1".to_owned(),
            port: free_port(),
            how: How::default(),
            log: place.join(format!("{name}.log")),
            running: None,
        }
    }

    /// Two devices with one share, running.
    pub fn pair(&self) -> (Device, Device) {
        let (mut a, mut b) = (self.device("a"), self.device("b"));
        let ticket = a.share();
        b.join(&ticket);
        (a, b)
    }
}

/// A port that nobody uses, outside of those the kernel gives to outgoing connections.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 97) as u16 * 113;
    loop {
        let port = 20_300 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The program.
pub const LEFT: &str = env!("CARGO_BIN_EXE_left");

/// A command of `left` for this home.
pub fn left(home: &Path) -> Command {
    How::default().command(home)
}

/// How a device's processes are run.
#[derive(Default)]
pub struct How {
    /// Words before the program: what runs it in a namespace.
    pub wrap: Vec<String>,
    /// The user and group it runs as; the test itself must be root.
    pub uid: Option<u32>,
    /// It listens on all addresses and tells those that it has, as users' machines do.
    pub roams: bool,
    /// Another place of the program, which that user can reach.
    pub program: Option<PathBuf>,
    /// Where a crash point is named: see [`Device::arm`].
    pub crash: Option<PathBuf>,
}

impl How {
    fn command(&self, home: &Path) -> Command {
        let program = match &self.program {
            Some(path) => path.as_os_str(),
            None => LEFT.as_ref(),
        };
        let mut command = match self.wrap.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .env("LEFT_HOME", home)
            .env_remove("LEFT_CODE")
            .env_remove("LEFT_LOG")
            .stdin(Stdio::null());
        // To look closer at what goes wrong.
        if let Some(filter) = std::env::var_os("LEFT_TEST_LOG") {
            command.env("LEFT_LOG", filter);
        }
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        if let Some(file) = &self.crash {
            command.env("LEFT_CRASH_FILE", file);
        }
        command
    }
}

/// Asks again until the answer is yes.
pub fn until(what: &str, mut yes: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !yes() {
        assert!(Instant::now() < end, "in vain waited for: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What the process printed.
#[derive(Default)]
struct Events {
    lines: Mutex<(Vec<Value>, bool)>,
    more: Condvar,
}

impl Events {
    fn read(&self, out: ChildStdout) {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
            self.lines.lock().unwrap().0.push(event);
            self.more.notify_all();
        }
        self.lines.lock().unwrap().1 = true;
        self.more.notify_all();
    }

    /// The first event that fits.
    fn find(&self, fits: impl Fn(&Value) -> bool) -> Result<Value, String> {
        let end = Instant::now() + LIMIT;
        let mut lines = self.lines.lock().unwrap();
        let mut seen = 0;
        loop {
            if let Some(event) = lines.0[seen..].iter().find(|e| fits(e)) {
                return Ok(event.clone());
            }
            seen = lines.0.len();
            let left = end.saturating_duration_since(Instant::now());
            if lines.1 || left.is_zero() {
                return Err(format!("ended: {}; printed: {:?}", lines.1, lines.0));
            }
            lines = self.more.wait_timeout(lines, left).unwrap().0;
        }
    }
}

struct Running {
    child: Child,
    events: Arc<Events>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Device {
    pub name: String,
    pub home: PathBuf,
    pub share: PathBuf,
    pub host: String,
    pub port: u16,
    pub how: How,
    log: PathBuf,
    running: Option<Running>,
}

impl Device {
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Starts `left` with these arguments and `--json`.
    pub fn start(&mut self, args: &[impl AsRef<OsStr>]) {
        let log = File::options().create(true).append(true).open(&self.log);
        let address = self.address();
        let port = format!(":{}", self.port);
        let listen: &[&str] = match self.how.roams {
            true => &["--listen", &port, "--no-web"],
            false => &["--listen", &address, "--advertise", &address],
        };
        let mut child = self
            .how
            .command(&self.home)
            .args(args)
            .args(listen)
            .args(["--name", &self.name, "--json", "-v"])
            .stdout(Stdio::piped())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        let events = Arc::new(Events::default());
        let (out, reader) = (child.stdout.take().unwrap(), events.clone());
        thread::spawn(move || reader.read(out));
        self.running = Some(Running { child, events });
    }

    /// `left share`; returns its ticket.
    pub fn share(&mut self) -> String {
        let dir = self.share.clone();
        self.start(&["share".as_ref(), dir.as_os_str()]);
        let event = self.expect("ticket", |_| true);
        event["ticket"].as_str().unwrap().to_owned()
    }

    /// `left join`.
    pub fn join(&mut self, ticket: &str) {
        let dir = self.share.clone();
        self.start(&["join".as_ref(), ticket.as_ref(), dir.as_os_str()]);
        self.expect("share_started", |_| true);
    }

    /// `left up`, on the same port.
    pub fn restart(&mut self) {
        self.start(&["up"]);
        self.expect("share_started", |_| true);
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        self.running = None;
    }

    /// How the process ended by itself, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.running.as_mut()?.child.try_wait().unwrap()
    }

    /// Whether the process is this device's left and takes commands; its shares may not run yet.
    pub fn answers(&self) -> bool {
        let out = self.run(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        status["pid"] == self.pid()
    }

    /// Has the n-th passage of a crash point from now on end the process, or (`stop`) hold it still.
    #[cfg(debug_assertions)]
    pub fn arm(&mut self, point: &str, n: u32, stop: bool) {
        let file = self.how.crash.as_ref().unwrap();
        let stop = if stop { " stop" } else { "" };
        // The time makes each text another one, for passages are counted since the text is there.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let new = file.with_extension("new");
        fs::write(
            &new,
            format!("{point} {n}{stop} {}", now.unwrap().as_nanos()),
        )
        .unwrap();
        fs::rename(new, file).unwrap();
    }

    /// No crash point any more.
    #[cfg(debug_assertions)]
    pub fn disarm(&self) {
        let _ = fs::remove_file(self.how.crash.as_ref().unwrap());
    }

    /// SIGTERM; it must end well.
    pub fn stop(&mut self) {
        let mut running = self.running.take().unwrap();
        let pid = Pid::from_child(&running.child);
        kill_process(pid, Signal::TERM).unwrap();
        let code = until_exit(&mut running.child);
        assert_eq!(code, Some(0), "{} after SIGTERM: {}", self.name, self.log());
    }

    /// Holds the process still, or lets it go on.
    pub fn freeze(&self, on: bool) {
        let signal = if on { Signal::STOP } else { Signal::CONT };
        let pid = Pid::from_child(&self.running.as_ref().unwrap().child);
        kill_process(pid, signal).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.running.as_ref().unwrap().child.id()
    }

    /// The first event of this name that fits, in all the process has printed or will print.
    pub fn expect(&self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let events = &self.running.as_ref().unwrap().events;
        match events.find(|e| e["event"] == name && fits(e)) {
            Ok(found) => found,
            Err(why) => panic!("{}: no event `{name}`; {why}\n{}", self.name, self.log()),
        }
    }

    /// All events of a name until now.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let events = &self.running.as_ref().unwrap().events;
        let lines = events.lines.lock().unwrap();
        lines
            .0
            .iter()
            .filter(|e| e["event"] == name)
            .cloned()
            .collect()
    }

    /// `left wait`: returns when the share and its connected peers are identical.
    pub fn wait(&self) {
        let out = self.run(&["wait", "--timeout", "60s"]);
        assert!(
            out.status.success(),
            "{} waits in vain: {}\n{}\n{}",
            self.name,
            String::from_utf8_lossy(&out.stderr),
            serde_json::to_string_pretty(&self.status()).unwrap(),
            self.log(),
        );
    }

    /// The share as `left status --json` shows it.
    pub fn status(&self) -> Value {
        let out = self.run(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&out.stdout).unwrap();
        status["shares"][0].clone()
    }

    pub fn state(&self) -> String {
        self.status()["state"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Bytes received from and sent to all peers on data lanes since the process started.
    pub fn wire(&self) -> (u64, u64) {
        let status = self.status();
        let peers = status["peers"].as_array().unwrap();
        let sum = |what: &str| peers.iter().map(|p| p[what].as_u64().unwrap()).sum();
        (sum("bytes_in"), sum("bytes_out"))
    }

    /// A command of this device that ends by itself.
    pub fn run(&self, args: &[impl AsRef<OsStr>]) -> Output {
        run(self.how.command(&self.home).args(args))
    }

    /// A command that must succeed; its stdout.
    pub fn ok(&self, args: &[impl AsRef<OsStr>]) -> String {
        let out = self.run(args);
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{err}\n{}", self.log());
        String::from_utf8(out.stdout).unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn until_exit(child: &mut Child) -> Option<i32> {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < end, "the process does not end");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command to its end, or kills it when it takes too long.
pub fn run(command: &mut Command) -> Output {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    let waiter = thread::spawn(move || child.wait_with_output().unwrap());
    let end = Instant::now() + LIMIT + Duration::from_secs(10);
    while !waiter.is_finished() {
        if Instant::now() > end {
            // Not yet waited for, so the pid is still its own.
            let _ = kill_process(pid, Signal::KILL);
            panic!("{command:?} does not end");
        }
        thread::sleep(Duration::from_millis(2));
    }
    waiter.join().unwrap()
}
