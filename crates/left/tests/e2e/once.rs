//! `left send` and `left get`: transfers without a share.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{
    World, assert_same, assert_tree, fill, left, overwrite, snapshot, until, write,
};

/// The longest anything may take. Only a failure takes so long.
const LIMIT: Duration = Duration::from_secs(60);

/// A process that prints events.
struct Proc {
    child: Child,
    events: Receiver<Value>,
}

impl Proc {
    fn start(home: &Path, args: &[&str]) -> Self {
        let mut command = left(home);
        command.args(args).args(["--json", "--name", "tester"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let (tx, events) = channel();
        let out = child.stdout.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = tx.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, events }
    }

    /// The next event of this name that fits.
    fn expect(&mut self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Vec::new();
        loop {
            match self.events.recv_timeout(LIMIT) {
                Ok(event) if event["event"] == name && fits(&event) => return event,
                Ok(event) => seen.push(event),
                Err(e) => panic!("no event `{name}`: {e}; seen: {seen:?}"),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn code(&mut self) -> Option<i32> {
        until("the process ends", || {
            self.child.try_wait().unwrap().is_some()
        });
        self.child.wait().unwrap().code()
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two homes, what is sent, and a folder to receive in.
struct Scene {
    _world: World,
    homes: [PathBuf; 3],
    from: PathBuf,
    to: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let at = world.path();
        let (from, to) = (at.join("from"), at.join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        let homes = ["send", "get", "third"].map(|name| at.join(format!("home-{name}")));
        Self {
            _world: world,
            homes,
            from,
            to,
        }
    }

    /// Sends these of `from`, on any free port of loopback; its ticket.
    fn send(&self, names: &[&str], more: &[&str]) -> (Proc, String) {
        let paths: Vec<String> = names
            .iter()
            .map(|n| self.from.join(n).to_str().unwrap().to_owned())
            .collect();
        let mut args = vec!["send", "--listen", "127.0.0.1:0"];
        args.extend(paths.iter().map(String::as_str));
        args.extend(more);
        let mut proc = Proc::start(&self.homes[0], &args);
        let ticket = proc.expect("ticket", |_| true);
        (proc, ticket["ticket"].as_str().unwrap().to_owned())
    }

    fn get_args<'a>(&'a self, ticket: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["get", ticket, self.to.to_str().unwrap()];
        args.extend(more);
        args
    }

    fn get(&self, ticket: &str, more: &[&str]) -> Output {
        left(&self.homes[1])
            .args(self.get_args(ticket, more))
            .arg("--json")
            .output()
            .unwrap()
    }

    /// `get`, which must succeed; its last event.
    fn got(&self, ticket: &str, more: &[&str]) -> Value {
        let out = self.get(ticket, more);
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let last = String::from_utf8(out.stdout).unwrap();
        let last: Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
        assert_eq!(last["event"], "got");
        last
    }

    /// Names in the folder that was received in.
    fn here(&self) -> Vec<String> {
        let names = fs::read_dir(&self.to).unwrap();
        let mut names: Vec<String> = names
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn error(out: &Output) -> String {
    assert_eq!(
        out.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&out.stdout)
    );
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn what_is_sent_arrives_as_it_is_and_leaves_no_trace() {
    let s = Scene::new();
    let photos = s.from.join("photos");
    fill(&s.from.join("big"), "big", 3_000_000);
    for n in 0..300 {
        write(&photos.join(format!("d{}/f{n}", n % 7)), format!("{n}"));
    }
    fs::create_dir(photos.join("empty")).unwrap();
    symlink("nowhere", photos.join("link")).unwrap();
    File::create(photos.join("hole"))
        .unwrap()
        .set_len(40_000_000)
        .unwrap();
    fs::copy(s.from.join("big"), photos.join("same as big")).unwrap();
    fs::set_permissions(photos.join("d1/f1"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(photos.join("d2"), fs::Permissions::from_mode(0o555)).unwrap();
    // Something of the receiver's own, and a share's folder that is not sent.
    write(&photos.join(".left/x"), "x");
    write(&s.to.join("mine"), "mine");
    let before = snapshot(&s.from);

    let (mut sender, ticket) = s.send(&["photos/", "big"], &[]);
    let got = s.got(&ticket, &[]);
    assert_eq!(
        (got["files"].as_u64(), got["already"].as_u64()),
        (Some(304), Some(0))
    );
    let fetched = sender.expect("fetched", |_| true);
    assert!(!fetched["name"].as_str().unwrap().is_empty());
    assert_eq!(sender.code(), Some(0));
    assert_eq!(s.here(), ["big", "mine", "photos"]);
    fs::remove_dir_all(photos.join(".left")).unwrap();
    fs::remove_file(s.to.join("mine")).unwrap();
    assert_same(&s.from, &s.to);
    assert!(fs::metadata(s.to.join("photos/hole")).unwrap().blocks() < 1000);
    let mut after = before;
    after.retain(|path, _| !path.starts_with(b"photos/.left"));
    assert_tree(&after, &s.from);
    // Not even a folder in the sender's home.
    assert_eq!(fs::read_dir(s.homes[0].join("sending")).unwrap().count(), 0);
    fs::set_permissions(photos.join("d2"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(s.to.join("photos/d2"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_killed_get_goes_on_where_it_was_also_after_the_sender_was_started_anew() {
    const SIZE: u64 = 24_000_000;
    let s = Scene::new();
    fill(&s.from.join("big"), "big", SIZE);
    fs::create_dir_all(&s.homes[1]).unwrap();
    let config = s.homes[1].join("config.toml");
    fs::write(&config, "[bandwidth]\ndown = \"8MB\"\n").unwrap();
    let (sender, ticket) = s.send(&["big"], &[]);
    let mut getter = Proc::start(&s.homes[1], &s.get_args(&ticket, &[]));
    let part = getter.expect("progress", |e| e["done"].as_u64().unwrap() > 8_000_000);
    drop(getter);
    assert!(!s.to.join("big").exists(), "not before it is whole");
    drop(sender);
    fs::remove_file(&config).unwrap();
    let (mut sender, ticket) = s.send(&["big"], &[]);
    let got = s.got(&ticket, &[]);
    let (received, had) = (
        got["received"].as_u64().unwrap(),
        part["done"].as_u64().unwrap(),
    );
    // At most a window of bytes travels twice.
    assert!(received + had <= SIZE + (7 << 20), "{received} after {had}");
    assert_eq!(sender.code(), Some(0));
    assert_same(&s.from, &s.to);
}

#[test]
fn a_stopped_sender_says_so_and_a_stopped_receiver_too() {
    let s = Scene::new();
    fill(&s.from.join("big"), "big", 12_000_000);
    fs::create_dir_all(&s.homes[1]).unwrap();
    fs::write(
        s.homes[1].join("config.toml"),
        "[bandwidth]\ndown = \"2MB\"\n",
    )
    .unwrap();
    let (mut sender, ticket) = s.send(&["big"], &[]);
    let mut getter = Proc::start(&s.homes[1], &s.get_args(&ticket, &[]));
    getter.expect("progress", |e| e["done"].as_u64().unwrap() > 0);
    getter.signal(Signal::INT);
    let said = getter.expect("error", |_| true);
    assert!(said["todo"].as_str().unwrap().contains("goes on"), "{said}");
    assert_eq!(getter.code(), Some(1));
    let lost = sender.expect("lost", |_| true);
    assert!(
        lost["why"]
            .as_str()
            .unwrap()
            .contains("receiver was stopped"),
        "{lost}"
    );
    // It is the same device, so the ticket is good for it still.
    let mut getter = Proc::start(&s.homes[1], &s.get_args(&ticket, &[]));
    getter.expect("progress", |e| e["done"].as_u64().unwrap() > 0);
    sender.signal(Signal::TERM);
    let said = getter.expect("error", |_| true);
    assert!(
        said["why"].as_str().unwrap().contains("sender was stopped"),
        "{said}"
    );
    assert_eq!((getter.code(), sender.code()), (Some(1), Some(1)));
}

#[test]
fn nothing_that_stands_there_is_overwritten_unasked() {
    let s = Scene::new();
    write(&s.from.join("d/same"), "same");
    write(&s.from.join("d/other"), "theirs");
    write(&s.from.join("d/new"), "new");
    write(&s.to.join("d/same"), "same");
    write(&s.to.join("d/other"), "mine");
    write(&s.to.join("d/kept"), "kept");
    let before = snapshot(&s.to);
    let (mut sender, ticket) = s.send(&["d"], &["--keep"]);
    let said = error(&s.get(&ticket, &[]));
    assert!(
        said.contains("d/other") && said.contains("--rename"),
        "{said}"
    );
    assert_tree(&before, &s.to);

    let got = s.got(&ticket, &["--rename"]);
    assert_eq!(got["renamed"], serde_json::json!([["d", "d-2"]]));
    assert_eq!(s.here(), ["d", "d-2"]);
    assert_same(&s.from.join("d"), &s.to.join("d-2"));
    assert_eq!(fs::read(s.to.join("d/other")).unwrap(), b"mine");

    s.got(&ticket, &["--overwrite"]);
    let mtime = |dir: &Path| {
        fs::metadata(dir.join("d/same"))
            .unwrap()
            .modified()
            .unwrap()
    };
    assert_eq!(mtime(&s.from), mtime(&s.to));
    assert_eq!(fs::read(s.to.join("d/other")).unwrap(), b"theirs");
    assert_eq!(fs::read(s.to.join("d/kept")).unwrap(), b"kept");
    // Again means nothing to do.
    let got = s.got(&ticket, &[]);
    assert_eq!(
        (got["received"].as_u64(), got["already"].as_u64()),
        (Some(0), Some(3))
    );
    assert_eq!(s.here(), ["d", "d-2"]);
    // A folder is never replaced by a file.
    fs::remove_dir_all(s.to.join("d-2")).unwrap();
    fs::remove_file(s.to.join("d/new")).unwrap();
    fs::create_dir(s.to.join("d/new")).unwrap();
    let said = error(&s.get(&ticket, &["--overwrite"]));
    assert!(said.contains("d/new (a folder)"), "{said}");
    sender.signal(Signal::INT);
    assert_eq!(sender.code(), Some(0), "it was fetched");
}

#[test]
fn a_ticket_is_of_one_device_and_strangers_learn_nothing() {
    let s = Scene::new();
    write(&s.from.join("f"), "f");
    let (mut sender, ticket) = s.send(&["f"], &[]);
    // A letter of the secret changed is another ticket, and does not read as one.
    let out = left(&s.homes[2])
        .args(["get", &ticket.replace("left1a", "left1b")])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    let out = left(&s.homes[2])
        .args(["join", &ticket, s.to.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("left get"), "{said}");
    assert_eq!(s.here(), Vec::<String>::new());
    // Held up before it is done, so that the ticket is used and not spent.
    fs::create_dir_all(s.to.join("f")).unwrap();
    error(&s.get(&ticket, &[]));
    sender.expect("connected", |_| true);
    let other = left(&s.homes[2])
        .args(["get", &ticket, s.to.to_str().unwrap()])
        .output()
        .unwrap();
    let said = error(&other);
    assert!(said.contains("another device has used it"), "{said}");
    sender.expect("refused", |e| {
        e["why"].as_str().unwrap().contains("another device")
    });
    fs::remove_dir(s.to.join("f")).unwrap();
    s.got(&ticket, &[]);
    assert_eq!(sender.code(), Some(0));
    // A share's ticket is none of these, and one that is over is over.
    let said = error(&s.get(&ticket, &[]));
    assert!(said.contains("cannot reach the sender"), "{said}");
}

#[test]
fn a_ticket_expires() {
    let s = Scene::new();
    write(&s.from.join("f"), "f");
    let (mut sender, ticket) = s.send(&["f"], &["--expires", "1s"]);
    let said = sender.expect("error", |_| true);
    assert!(said["why"].as_str().unwrap().contains("expired"), "{said}");
    assert_eq!(sender.code(), Some(1));
    let said = error(&s.get(&ticket, &[]));
    assert!(said.contains("expired"), "{said}");
    assert_eq!(s.here(), Vec::<String>::new());
}

#[test]
fn names_that_programs_obey_are_not_taken_unasked() {
    let s = Scene::new();
    write(&s.from.join(".ssh/authorized_keys"), "key");
    let (_sender, ticket) = s.send(&[".ssh"], &["--keep"]);
    let said = error(&s.get(&ticket, &[]));
    assert!(said.contains("--dotfiles"), "{said}");
    assert_eq!(s.here(), Vec::<String>::new());
    s.got(&ticket, &["--dotfiles"]);
    assert_eq!(s.here(), [".ssh"]);
}

#[test]
fn a_file_that_changes_while_it_is_sent_arrives_whole() {
    // More than is under way at a time.
    const SIZE: u64 = 20_000_000;
    let s = Scene::new();
    fill(&s.from.join("a"), "old", SIZE);
    fill(&s.from.join("b"), "b", 100);
    fs::create_dir_all(&s.homes[1]).unwrap();
    let config = s.homes[1].join("config.toml");
    fs::write(&config, "[bandwidth]\ndown = \"8MB\"\n").unwrap();
    let (mut sender, ticket) = s.send(&["a", "b"], &[]);
    sender.expect("listed", |_| true);
    let mut getter = Proc::start(&s.homes[1], &s.get_args(&ticket, &[]));
    getter.expect("progress", |e| e["done"].as_u64().unwrap() > 0);
    overwrite(&s.from.join("a"), "new", [(SIZE - 1_000_000, 500_000)]);
    getter.expect("got", |_| true);
    assert_eq!((getter.code(), sender.code()), (Some(0), Some(0)));
    let (sent, here) = (fs::read(s.from.join("a")), fs::read(s.to.join("a")));
    assert!(sent.unwrap() == here.unwrap());
}

#[test]
fn it_works_beside_a_running_left_and_into_a_share() {
    let world = World::new();
    let (mut a, mut b) = (world.device("a"), world.device("b"));
    let ticket = a.share();
    b.join(&ticket);
    let from = world.path().join("report");
    fill(&from, "report", 2_000_000);
    // The device's own port is taken by its left, so another one is found.
    let mut sender = Proc::start(&a.home, &["send", from.to_str().unwrap()]);
    let ticket = sender.expect("ticket", |_| true);
    let ticket = ticket["ticket"].as_str().unwrap().to_owned();
    b.ok(&["get".as_ref(), ticket.as_ref(), b.share.as_os_str()]);
    assert_eq!(sender.code(), Some(0));
    // Nothing of the transfer is synchronised but its result.
    until("it is with a", || {
        fs::read(a.share.join("report")).is_ok_and(|r| r.len() == 2_000_000)
    });
    crate::common::settle(&[&a, &b]);
    let names: Vec<_> = fs::read_dir(&a.share)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(
        !b.share
            .join(".left")
            .read_dir()
            .unwrap()
            .any(|e| { e.unwrap().file_name().to_string_lossy().starts_with("get-") })
    );
    a.stop();
    b.stop();
}
