//! `left doctor`: looks for what may keep left from working here, and says how to mend it.

use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::output::Output;
use super::run::running;
use super::settings::{self, RunSettings};
use super::{ask, format};
use crate::daemon::handle::{Discovery, ShareStatus, State, Status};
use crate::disk::Root;
use crate::home::{Exit, Home, UserError, clean};
use crate::net::nearby;

/// How long a peer may take to answer.
const REACH: Duration = Duration::from_secs(3);
/// Peers that are tried.
const MAX_PEERS: usize = 32;
/// With less room than this a transfer may soon stop.
const ROOM: u64 = 1_000_000_000;
/// Open files that are comfortable: databases, lanes, files under way.
const OPEN_FILES: u64 = 1024;
/// When this was written (2026-11-01); a clock before it is wrong.
const WRITTEN: u64 = 1_793_491_200;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    /// What.
    check: String,
    /// It is as it should be.
    ok: bool,
    /// What was found.
    found: String,
    /// How to mend it; empty when it is well.
    todo: String,
}

fn good(check: impl Into<String>, found: impl Into<String>) -> Finding {
    Finding {
        check: check.into(),
        ok: true,
        found: found.into(),
        todo: String::new(),
    }
}

fn bad(check: impl Into<String>, found: impl Into<String>, todo: impl Into<String>) -> Finding {
    Finding {
        ok: false,
        todo: todo.into(),
        ..good(check, found)
    }
}

pub(super) fn run(out: Output) -> Result<Exit, UserError> {
    // That this works says that the settings and their folder are as they should be.
    let home = Home::open(None)?;
    home.config()?;
    let status = ask::current_status(&home)?;
    let mut found = vec![good("settings", clean(home.path()))];
    found.push(port(&home, &status)?);
    found.push(discovery(&home, &status)?);
    found.push(clock());
    found.push(watches(&status));
    found.push(open_files());
    for share in &status.shares {
        found.extend(share_findings(share, status.pid.is_some()));
    }
    found.extend(peers(&status));
    for finding in &found {
        match out.json() {
            true => out.object(finding),
            false => line(finding, out),
        }
    }
    Ok(match found.iter().all(|f| f.ok) {
        true => Exit::Ok,
        false => Exit::Failure,
    })
}

fn line(f: &Finding, out: Output) {
    let mark = if f.ok { "ok " } else { "BAD" };
    out.line(&format!("{mark} {}: {}", f.check, f.found));
    if !f.todo.is_empty() {
        out.line(&format!("    {}", f.todo));
    }
}

fn port(home: &Home, status: &Status) -> Result<Finding, UserError> {
    let check = "port";
    if running(home)?.is_some() {
        return Ok(match status.listen.is_empty() {
            true => good(check, "left runs and does not listen"),
            false => good(
                check,
                format!("left listens on {}", status.listen.join(", ")),
            ),
        });
    }
    let listen = settings::options(&RunSettings::default(), &home.config()?)?.listen;
    let host = listen.host.as_deref().unwrap_or("0.0.0.0");
    let at = (host, listen.port);
    Ok(match TcpListener::bind(at) {
        Ok(_) => good(check, format!("{host}:{} is free", listen.port)),
        Err(e) => bad(
            check,
            format!("cannot listen on {host}:{}: {e}", listen.port),
            "end the program that has it, or set another `listen` in config.toml",
        ),
    })
}

/// Whether members on the local network can be found without an address.
fn discovery(home: &Home, status: &Status) -> Result<Finding, UserError> {
    let check = "discovery";
    let reach = match (&status.discovery, status.pid) {
        (Some(found), _) => found.clone(),
        (None, Some(_)) => return Ok(good(check, "members are not looked for (it is off)")),
        (None, None) if !home.config()?.discovery => {
            return Ok(good(check, "off, as config.toml says"));
        }
        (None, None) => {
            let reach = nearby::probe();
            Discovery {
                interfaces: reach.interfaces,
                problems: reach.problems,
            }
        }
    };
    let todo = "let UDP port 5353 and multicast through, or set `discovery = false` in config.toml; \
                addresses that members tell work without it";
    Ok(
        match (reach.interfaces.is_empty(), reach.problems.is_empty()) {
            (false, _) => good(
                check,
                format!("members are looked for on {}", reach.interfaces.join(", ")),
            ),
            (true, true) => good(check, "this machine is on no network"),
            (true, false) => bad(check, reach.problems.join("; "), todo),
        },
    )
}

fn clock() -> Finding {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    match now.map(|t| t.as_secs()) {
        Ok(secs) if secs >= WRITTEN => good("clock", "is plausible"),
        _ => bad(
            "clock",
            "is before this version of left was made",
            "set it: later edits would look older than earlier ones (`timedatectl set-ntp true`)",
        ),
    }
}

/// A watch a folder; without one, changes are found only when the tree is looked through.
fn watches(status: &Status) -> Finding {
    let check = "watches";
    let folders: u64 = status.shares.iter().map(|s| s.dirs + 1).sum();
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches");
    let Some(limit) = limit.ok().and_then(|t| t.trim().parse::<u64>().ok()) else {
        return good(check, "the limit cannot be read");
    };
    let found = format!(
        "{} in shares, {limit} may be watched",
        format::count(folders, "folder")
    );
    // Other programs of this user watch too.
    if folders.saturating_mul(5) / 4 < limit {
        return good(check, found);
    }
    let want = (folders * 2).next_power_of_two();
    let todo = format!(
        "write `fs.inotify.max_user_watches={want}` to /etc/sysctl.d/40-left.conf, then `sudo sysctl --system`"
    );
    bad(check, found, todo)
}

fn open_files() -> Finding {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let check = "open files";
    match limit {
        Some(n) if n < OPEN_FILES => bad(
            check,
            format!("at most {n}"),
            format!("raise it, such as by `ulimit -n {OPEN_FILES}` before `left up`"),
        ),
        Some(n) => good(check, format!("at most {n}")),
        None => good(check, "no limit"),
    }
}

fn share_findings(share: &ShareStatus, runs: bool) -> Vec<Finding> {
    let name = clean(&share.path);
    let mut found = vec![folder(&share.path, &name), room(&share.path, &name)];
    if let Some(alarm) = &share.alarm {
        found.push(bad(&name, &alarm.reason, &alarm.todo));
    } else if runs && share.state == State::Paused {
        found.push(good(&name, "is paused"));
    }
    for notice in &share.notices {
        found.push(good(&name, notice));
    }
    for problem in &share.problems {
        let path = format!("{name}/{}", problem.path);
        found.push(bad(path, &problem.reason, "see `left status`"));
    }
    found
}

fn folder(path: &Path, name: &str) -> Finding {
    let todo = "put the folder back, or mount its disk; or give up the share with `left leave`";
    if let Err(e) = Root::open(path) {
        return bad(name, e.to_string(), todo);
    }
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    if let Err(e) = rustix::fs::access(path, access) {
        return bad(
            name,
            format!("cannot be written: {e}"),
            "give your user access to it",
        );
    }
    good(name, "can be read and written")
}

fn room(path: &Path, name: &str) -> Finding {
    let check = format!("room in {name}");
    match rustix::fs::statvfs(path) {
        Ok(fs) => {
            let free = fs.f_bavail.saturating_mul(fs.f_frsize);
            let found = format!("{} free", format::bytes(free));
            match free < ROOM {
                true => bad(
                    check,
                    found,
                    "make room: receiving needs a file's size twice",
                ),
                false => good(check, found),
            }
        }
        Err(e) => bad(
            check,
            format!("cannot be told: {e}"),
            "see that the folder is there",
        ),
    }
}

fn peers(status: &Status) -> Vec<Finding> {
    let all = status.shares.iter().flat_map(|s| &s.peers);
    let mut known: Vec<_> = all.collect();
    known.sort_by_key(|p| (p.device, !p.connected));
    known.dedup_by_key(|p| p.device);
    let known = known.into_iter().take(MAX_PEERS);
    known
        .map(|p| {
            let check = format!("peer {}", format::device(&p.name, p.device));
            if p.connected {
                return good(check, format!("connected, {}", format::text(&p.address)));
            }
            if p.address.is_empty() {
                let todo = "it has to dial this machine: run `left up` there";
                return bad(check, "not connected, and no address is known", todo);
            }
            let at = format::text(&p.address);
            match reach(&p.address) {
                Ok(()) => good(check, format!("not connected, but {at} answers")),
                Err(why) => bad(
                    check,
                    format!("{at} does not answer: {why}"),
                    "run `left up` there, and let its port through the firewall",
                ),
            }
        })
        .collect()
}

fn reach(address: &str) -> Result<(), String> {
    let mut all = address.to_socket_addrs().map_err(|e| e.to_string())?;
    let at = all.next().ok_or("it has no address")?;
    TcpStream::connect_timeout(&at, REACH)
        .map(drop)
        .map_err(|e| e.to_string())
}
