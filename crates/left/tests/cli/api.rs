use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use left::api::{self, Client};
use left::daemon::handle::{Daemon, DaemonEvent, Listen, Options};
use left::home::Home;
use left_core::message::Role;

use crate::fake;

struct World {
    dir: tempfile::TempDir,
    home: Home,
    daemon: Arc<dyn Daemon>,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(Some(&dir.path().join("home"))).unwrap();
    let options = Options {
        listen: Listen {
            host: None,
            port: 0,
        },
        advertise: Vec::new(),
        name: "test".into(),
        discovery: false,
        offline: true,
    };
    let daemon = fake::start(home.clone(), options).unwrap();
    World { dir, home, daemon }
}

#[test]
fn every_request_and_its_answer() {
    let w = world();
    assert!(Client::connect(&w.home).unwrap().is_none());
    let server = api::serve(&w.home, w.daemon.clone(), || {}).unwrap();
    let client = Client::connect(&w.home).unwrap().unwrap();
    let mode = std::fs::metadata(w.home.socket())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let share = client.share(&w.dir.path().join("a")).unwrap();
    assert!(share.new);
    let other = w.dir.path().join("b");
    let ticket = client
        .ticket(&share.path, Role::ReadOnly, Duration::from_secs(60))
        .unwrap();
    assert_eq!((ticket.role, ticket.expires), (Role::ReadOnly, 60));
    assert!(ticket.join_line.contains(&ticket.ticket));
    client.join(&ticket.ticket, &other, &[]).unwrap();
    std::fs::write(other.join("f"), "x").unwrap();
    assert!(
        client
            .wait(Some(&share.path), Duration::from_secs(10))
            .unwrap()
            .in_sync
    );
    assert_eq!(std::fs::read(share.path.join("f")).unwrap(), b"x");
    assert_eq!(client.status().unwrap(), w.daemon.status());
    assert_eq!(client.run_all().unwrap().len(), 1);
    let pairing = client.sync(&w.dir.path().join("c"), "h:1", None).unwrap();
    assert!(pairing.code.is_some());
    assert_eq!(client.verify(None).unwrap().files, 2);
    client.pause(&share.path).unwrap();
    client.resume(&share.path, true).unwrap();
    let removed = client.remove_peer(&share.path, "attic").unwrap();
    assert_eq!(removed.name, "attic");
    let e = client.remove_peer(&share.path, "nobody").unwrap_err();
    assert!(e.to_string().contains("no member"), "{e}");
    assert_eq!(client.revert(&share.path, None).unwrap().edits, 3);
    let one = client.revert(&share.path, Some("a".as_ref())).unwrap();
    assert_eq!(one.edits, 1);
    client.leave(&share.path).unwrap();
    let e = client.leave(&share.path).unwrap_err();
    assert!(e.to_string().contains("is not a share"), "{e}");
    drop(server);
    assert!(!w.home.socket().exists());
    assert!(Client::connect(&w.home).unwrap().is_none());
}

#[test]
fn events_come_as_they_happen_and_end_with_the_server() {
    let w = world();
    let server = api::serve(&w.home, w.daemon.clone(), || {}).unwrap();
    let client = Client::connect(&w.home).unwrap().unwrap();
    let mut events = client.events().unwrap();
    let share = client.share(&w.dir.path().join("a")).unwrap();
    assert_eq!(events.next(), Some(DaemonEvent::ShareStarted(share)));
    w.daemon.stop();
    assert_eq!(events.next(), Some(DaemonEvent::Stopping));
    let begin = Instant::now();
    drop(server);
    assert_eq!(events.next(), None);
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "an open event stream held the server"
    );
}

#[test]
fn a_long_wait_does_not_hold_the_server() {
    let w = world();
    let server = api::serve(&w.home, w.daemon.clone(), || {}).unwrap();
    let client = Client::connect(&w.home).unwrap().unwrap();
    client.share(&w.dir.path().join("a")).unwrap();
    let waiting = std::thread::spawn(move || client.wait(None, Duration::from_secs(3600)));
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    drop(server);
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert!(!waiting.join().unwrap().is_ok_and(|r| r.in_sync));
}

#[test]
fn stop_stops_the_daemon_and_tells_its_process() {
    let w = world();
    let told = Arc::new(AtomicBool::new(false));
    let tell = told.clone();
    let on_stop = move || tell.store(true, Ordering::Relaxed);
    let _server = api::serve(&w.home, w.daemon.clone(), on_stop).unwrap();
    let mut events = w.daemon.events();
    Client::connect(&w.home).unwrap().unwrap().stop().unwrap();
    assert_eq!(events.blocking_recv().unwrap(), DaemonEvent::Stopping);
    assert!(told.load(Ordering::Relaxed));
}

/// Sends raw HTTP and returns the whole answer.
fn raw(home: &Home, request: &str) -> String {
    let mut stream = UnixStream::connect(home.socket()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn bad_requests_get_a_clear_error_as_json() {
    let w = world();
    let _server = api::serve(&w.home, w.daemon.clone(), || {}).unwrap();
    let get = |path: &str| {
        raw(
            &w.home,
            &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        )
    };
    let post = |path: &str, body: &str| {
        let len = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        raw(
            &w.home,
            &format!("{head}Content-Length: {len}\r\n\r\n{body}"),
        )
    };
    let answer = get("/v1/fly");
    assert!(
        answer.starts_with("HTTP/1.1 404") && answer.contains("\"exit_code\":2"),
        "{answer}"
    );
    let answer = post("/v1/share", "rubbish");
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("\"what\""),
        "{answer}"
    );
    let answer = post(
        "/v1/ticket",
        "{\"dir\":\"/x\",\"role\":\"king\",\"expires_in\":1}",
    );
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("read-only"),
        "{answer}"
    );
    let answer = post("/v1/pause", "{\"dir\":\"/no/such\"}");
    assert!(
        answer.starts_with("HTTP/1.1 422") && answer.contains("does not exist"),
        "{answer}"
    );
    let long = "x".repeat(100_000);
    let answer = post("/v1/pause", &format!("{{\"dir\":\"{long}\"}}"));
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("longer than"),
        "{answer}"
    );
    let answer = get("/v1/pause");
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    let answer = get("/v1/status");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"shares\":[]"),
        "{answer}"
    );
}

/// The description as it is kept for readers.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");

#[test]
fn the_kept_description_is_the_one_that_is_served() {
    let document = api::document();
    if std::env::var_os("LEFT_WRITE_OPENAPI").is_some() {
        std::fs::write(KEPT, &document).unwrap();
    }
    let w = world();
    let _server = api::serve(&w.home, w.daemon.clone(), || {}).unwrap();
    let answer = raw(
        &w.home,
        "GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.ends_with(&document), "{answer}");
    assert!(
        std::fs::read_to_string(KEPT).unwrap() == document,
        "docs/openapi.json is old; make it anew with \
         `LEFT_WRITE_OPENAPI=1 cargo test -p left --test cli description`"
    );
}

#[test]
fn every_route_is_described_answers_and_stands_in_the_docs() {
    let w = world();
    let _server = api::serve(&w.home, w.daemon.clone(), || {}).unwrap();
    let document: serde_json::Value = serde_json::from_str(&api::document()).unwrap();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.md");
    let page = std::fs::read_to_string(page).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 15);
    for (path, methods) in paths {
        assert!(
            page.contains(&format!("{path}`")),
            "{path} is not in docs/api.md"
        );
        for (method, about) in methods.as_object().unwrap() {
            assert!(about["summary"].is_string(), "{path} is not described");
            // Streams do not end, and nobody answers after the stop.
            if ["/v1/events", "/v1/live", "/v1/stop"].contains(&path.as_str()) {
                continue;
            }
            let method = method.to_uppercase();
            let body = "Content-Length: 4\r\nConnection: close\r\n\r\nnull";
            let answer = raw(
                &w.home,
                &format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{body}"),
            );
            let status: u16 = answer[9..12].parse().unwrap();
            // There is no page here to have a link to, and no program to reload.
            let without = ["/v1/web", "/v1/reload"].contains(&path.as_str());
            let fine = if without { 422 } else { 200 };
            assert!([fine, 400].contains(&status), "{method} {path}: {answer}");
        }
    }
}

#[test]
fn numbers_for_prometheus() {
    let w = world();
    let _server = api::serve(&w.home, w.daemon.clone(), || {}).unwrap();
    let client = Client::connect(&w.home).unwrap().unwrap();
    let share = client.share(&w.dir.path().join("a")).unwrap();
    let get = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = raw(&w.home, get);
    let dir = share.path.to_str().unwrap();
    for line in [
        format!("left_share_files{{share=\"{dir}\"}} "),
        format!("left_share_state{{share=\"{dir}\",state=\"offline\"}} 1"),
        "left_work_index_commits_total ".to_string(),
        "# EOF".to_string(),
    ] {
        assert!(answer.contains(&line), "no {line} in {answer}");
    }
}
