//! A running left is asked for its numbers, told to read its settings anew, and every command speaks
//! JSON.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{Device, World, fill, left, settle, until, write};

/// `GET /metrics` with this header; status line and body.
fn metrics(port: u16, header: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let host = format!("127.0.0.1:{port}");
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{header}\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

#[test]
fn prometheus_gets_its_numbers_and_nobody_else_does() {
    let world = World::new();
    let (mut a, mut b) = (world.device("a"), world.device("b"));
    let port = free_port();
    fs::create_dir_all(&b.home).unwrap();
    let config = format!("[metrics]\nport = {port}\ntoken = \"0123456789abcdef\"\n");
    fs::write(b.home.join("config.toml"), config).unwrap();
    write(&a.share.join("f"), "f");
    let ticket = a.share();
    b.join(&ticket);
    settle(&[&a, &b]);
    for wrong in [
        "X-Nothing: 1",
        "Authorization: Bearer 0123456789abcdeg",
        "Authorization: Basic 0123456789abcdef",
    ] {
        let (status, body) = metrics(port, wrong);
        assert!(
            status.contains("401") && body.is_empty(),
            "{wrong}: {status}{body}"
        );
    }
    let (status, body) = metrics(port, "Authorization: Bearer 0123456789abcdef");
    assert!(status.contains("200"), "{status}");
    for wanted in [
        "left_share_files{",
        "left_share_queue_bytes{",
        "left_share_errors{",
        "left_peer_lag_bytes{",
        "left_share_apply_seconds_bucket{le=\"+Inf\"",
        "left_share_apply_seconds_sum{",
    ] {
        assert!(body.contains(wanted), "no {wanted} in {body}");
    }
    let counted = body
        .lines()
        .find(|l| l.starts_with("left_share_apply_seconds_count"))
        .unwrap();
    let counted: u64 = counted.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(counted >= 1, "{body}");
    assert!(body.trim_end().ends_with("# EOF"));
    a.stop();
    b.stop();
}

#[test]
fn settings_are_read_anew_and_bad_ones_change_nothing() {
    let world = World::new();
    let mut a = world.device("a");
    a.share();
    let config = a.home.join("config.toml");
    let reloaded =
        |a: &Device| -> Value { serde_json::from_str(&a.ok(&["reload", "--json"])).unwrap() };
    assert_eq!(reloaded(&a)["changed"], serde_json::json!([]));
    fs::write(
        &config,
        "web_port = 1234\n[bandwidth]\nup = \"2MB\"\n[history]\ndays = 3\n",
    )
    .unwrap();
    let done = reloaded(&a);
    assert_eq!(done["changed"], serde_json::json!(["history", "bandwidth"]));
    assert_eq!(done["restart"], serde_json::json!(["web_port"]));
    fs::write(&config, "[bandwidth]\nup = \"quick\"\n").unwrap();
    let out = a.run(&["reload"]);
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        out.status.code() == Some(1)
            && err.contains("stay as they are")
            && err.contains("config.toml"),
        "{err}"
    );
    // By signal it is said in the log and to who follows the events.
    let pid = Pid::from_raw(i32::try_from(a.pid()).unwrap()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    a.expect("notice", |e| {
        e["text"].as_str().unwrap().contains("stay as they are")
    });
    fs::write(&config, "").unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    a.expect("notice", |e| {
        e["text"]
            .as_str()
            .unwrap()
            .contains("read anew: history, bandwidth")
    });

    let level = |args: &[&str]| a.ok(&[&["log-level"], args].concat());
    assert!(level(&[]).contains("info"), "it was started with -v");
    assert!(level(&["debug"]).contains("left=debug"));
    assert!(level(&["warn,left::net=trace"]).contains("left::net=trace"));
    let out = a.run(&["log-level", "warn,=,"]);
    assert_eq!(
        out.status.code(),
        Some(2),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(
        level(&[]).contains("left::net=trace"),
        "a bad filter changes nothing"
    );
    // A limit of the share is seen where its state is.
    let dir = a.share.to_str().unwrap();
    a.ok(&["limit", dir, "--up", "1MB"]);
    assert_eq!(a.status()["limit"]["up"], 1_000_000);
    assert!(
        a.ok(&["status"])
            .contains("limited: up 1.0 MB/s, down unlimited")
    );
    a.stop();
}

#[test]
fn it_stops_within_two_seconds_under_load() {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    for n in 0..400 {
        write(&a.share.join(format!("small/{n}")), n.to_string());
    }
    fill(&a.share.join("big"), "big", 60_000_000);
    b.expect("state", |e| e["state"] == "syncing");
    for device in [&mut b, &mut a] {
        let began = Instant::now();
        device.stop();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "{}: {took:?}", device.name);
    }
}

#[test]
fn the_doctor_looks_at_file_systems_and_at_who_may_read_the_key() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let mut a = world.device("a");
    a.share();
    let out = a.ok(&["doctor"]);
    let ok = |what: &str| {
        let mut lines = out.lines();
        lines.any(|l| l.starts_with("ok") && l.contains(what))
    };
    for what in [
        "watch queues:",
        "permissions of the settings:",
        "file system of",
    ] {
        assert!(ok(what), "{what}: {out}");
    }
    let left_over = fs::read_dir(a.share.join(".left")).unwrap();
    let mut left_over = left_over.map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(!left_over.any(|n| n.starts_with("doctor")));
    let key = fs::Permissions::from_mode(0o644);
    fs::set_permissions(a.home.join("device.key"), key).unwrap();
    let out = a.run(&["doctor"]);
    let said = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(
        said.contains("BAD permissions") && said.contains("chmod 600"),
        "{said}"
    );
    a.stop();
}

/// Each command and arguments that make it do something; `DIR` is a share, `F` a file in it.
/// Those that run on are not in here: their events are read by all other tests.
const COMMANDS: &[&str] = &[
    "status",
    "ticket DIR",
    "wait DIR",
    "verify DIR",
    "pause DIR",
    "resume DIR",
    "revert DIR",
    "remove-peer DIR nobody",
    "limit DIR",
    "log DIR",
    "diff F@1",
    "restore F@1",
    "conflicts DIR",
    "resolve F --keep ours",
    "choose DIR",
    "fetch DIR/f",
    "drop DIR/none",
    "web --print",
    "reload",
    "log-level",
    "id",
    "doctor",
    "completions bash",
    "man",
    "service status",
    "service print",
    "service print --launchd",
    "service install",
    "service uninstall",
    "send /no/such",
    "get left1nothing",
    "leave DIR",
    "stop",
];

#[test]
fn every_command_speaks_json() {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    write(&a.share.join("f"), "one");
    settle(&[&a, &b]);
    write(&a.share.join("f"), "two");
    settle(&[&a, &b]);
    let (dir, file) = (b.share.to_str().unwrap().to_owned(), b.share.join("f"));
    let file = file.to_str().unwrap().to_owned();
    let mut had = BTreeSet::new();
    for line in COMMANDS {
        let line = line
            .replace("DIR", &dir)
            .replacen("F@", &format!("{file}@"), 1)
            .replacen("F ", &format!("{file} "), 1);
        let args: Vec<&str> = line.split(' ').collect();
        had.insert(args[0].to_owned());
        let mut command = left(&b.home);
        // No session of systemd is touched.
        command
            .env("PATH", "/nowhere")
            .env("XDG_CONFIG_HOME", world.path().join("config"));
        let out = command.args(&args).arg("--json").output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let objects: Vec<Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{line}: {e}: {l}")))
            .collect();
        assert!(objects.iter().all(Value::is_object), "{line}: {text}");
        let error = objects.iter().find(|o| o["event"] == "error");
        match (out.status.code(), error) {
            (Some(0), None) => {}
            (Some(code), Some(error)) => assert_eq!(error["exit_code"], code, "{line}"),
            // What a check found is its answer.
            (Some(1), None) if ["doctor", "service"].contains(&args[0]) => {}
            (code, error) => panic!("{line}: {code:?} {error:?} {text}"),
        }
        assert!(
            !objects.is_empty() || args[0] == "conflicts" || args[0] == "resolve",
            "{line} says nothing"
        );
    }
    let pages = world.path().join("man");
    fs::create_dir(&pages).unwrap();
    b.ok(&["man", pages.to_str().unwrap()]);
    let runs_on = ["share", "join", "sync", "up", "demo", "help"];
    for page in fs::read_dir(&pages).unwrap() {
        let name = page.unwrap().file_name().into_string().unwrap();
        let name = name.trim_end_matches(".1").to_owned();
        let Some(command) = name.strip_prefix("left-") else {
            continue;
        };
        let known = had.iter().any(|c| {
            command == c
                || command
                    .strip_prefix(c.as_str())
                    .is_some_and(|r| r.starts_with('-'))
        });
        assert!(
            known || runs_on.contains(&command),
            "`left {command}` is in no table of this test"
        );
    }
    until("b has stopped", || b.ended().is_some());
    a.stop();
}
