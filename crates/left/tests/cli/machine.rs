use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::process::left;

fn run(command: &mut Command) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn a_supervisor_is_told_when_left_is_ready_and_when_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let said = || {
        let mut text = [0; 100];
        let n = socket.recv(&mut text).unwrap();
        String::from_utf8(text[..n].to_vec()).unwrap()
    };
    let mut command = left(&dir.path().join("home"), &["up"]);
    let mut child = command.env("NOTIFY_SOCKET", &path).spawn().unwrap();
    assert_eq!(said().trim(), "READY=1");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(said().trim(), "STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A folder with a `systemctl` that writes down how it was called, and ends so.
fn systemctl(dir: &Path, code: i32) -> String {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$*\" >> '{}'\ncase $2 in is-active) echo active;; is-enabled) echo enabled;; esac\n\
         [ {code} = 0 ] || echo 'no session' >&2\nexit {code}\n",
        dir.join("calls").display()
    );
    let file = bin.join("systemctl");
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

#[test]
fn the_service_is_installed_shown_and_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("a home");
    let path = systemctl(dir.path(), 0);
    let service = |what: &str| {
        let mut command = left(&home, &["service", what]);
        run(command
            .env("PATH", &path)
            .env("XDG_CONFIG_HOME", dir.path().join("config")))
    };
    let (code, _, err) = service("uninstall");
    assert!(code == 1 && err.contains("there is none"), "{err}");
    let (code, out, err) = service("install");
    assert!(code == 0 && out.contains("active, enabled"), "{out}{err}");
    let file = dir.path().join("config/systemd/user/left.service");
    let unit = fs::read_to_string(&file).unwrap();
    let home_line = format!("Environment=\"LEFT_HOME={}\"", home.display());
    for line in ["Type=notify", &home_line] {
        assert!(unit.lines().any(|l| l == line), "no {line} in {unit}");
    }
    let calls = fs::read_to_string(dir.path().join("calls")).unwrap();
    assert!(
        calls.starts_with("--user daemon-reload\n--user enable --now left.service\n"),
        "{calls}"
    );
    assert_eq!(service("status").0, 0);
    let (code, out, _) = service("uninstall");
    assert!(code == 0 && out.contains("settings stay") && !file.exists());

    // The same as text, and for another supervisor.
    let (code, out, _) = service("print");
    assert!(code == 0 && out.contains(&unit), "{out}");
    assert!(unit.contains(" reload\n"), "{unit}");
    let (code, out, _) = run(&mut left(&home, &["service", "print", "--launchd"]));
    assert!(code == 0 && out.contains("<string>up</string>"), "{out}");

    // Where systemd does not help, it says what to do.
    systemctl(dir.path(), 1);
    let (code, _, err) = service("install");
    assert!(
        code == 1 && err.contains("no session") && err.contains("left up"),
        "{err}"
    );
    assert!(!file.exists(), "half a service");
}

#[test]
fn the_doctor_names_what_is_wrong_and_the_cure() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    fs::write(
        home.join("config.toml"),
        format!("listen = \"127.0.0.1:{port}\"\n"),
    )
    .unwrap();
    let (code, out, err) = run(&mut left(&home, &["doctor"]));
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        out.contains("BAD port: cannot listen") && out.contains("another `listen`"),
        "{out}"
    );
    drop(taken);
    let (code, out, err) = run(&mut left(&home, &["doctor", "--json"]));
    assert_eq!(code, 0, "{out}{err}");
    for line in out.lines().filter(|l| l.starts_with('{')) {
        let found: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(found["ok"], true, "{found}");
    }
}

#[test]
fn shells_and_man_get_what_they_read() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = run(&mut left(&home, &["completions", shell]));
        assert!(code == 0 && out.contains("remove-peer"), "{shell}");
    }
    let (code, out, _) = run(&mut left(&home, &["man"]));
    assert!(code == 0 && out.contains(".TH left 1"), "{out}");
    let pages = dir.path().to_str().unwrap();
    assert_eq!(run(&mut left(&home, &["man", pages])).0, 0);
    assert!(dir.path().join("left-remove-peer.1").exists());
    let (code, _, err) = run(&mut left(&home, &["man", "/no/such"]));
    assert!(code == 1 && err.contains("does not exist"), "{err}");
}
