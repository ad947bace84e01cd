//! `left doctor`: looks for what may keep left from working here, and says how to mend it.

use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::output::Output;
use super::run::running;
use super::settings::{self, RunSettings};
use super::{ask, format};
use crate::daemon::handle::{Discovery, ShareStatus, State, Status};
use crate::disk::Root;
use crate::home::{Exit, Home, MARKER_DIR, UserError, clean};
use crate::net::nearby;

/// How long a peer may take to answer.
const REACH: Duration = Duration::from_secs(3);
/// Peers that are tried.
const MAX_PEERS: usize = 32;
/// With less room than this a transfer may soon stop.
const ROOM: u64 = 1_000_000_000;
/// With fewer new files than this the same.
const INODES: u64 = 10_000;
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
    let mut found = vec![settings_found(&home)];
    found.push(port(&home, &status)?);
    found.push(discovery(&home, &status)?);
    found.push(clock());
    found.push(watches(&status));
    found.push(instances());
    found.push(open_files());
    found.push(home_folder(&home));
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

fn settings_found(home: &Home) -> Finding {
    match home.unknown_settings().as_slice() {
        [] => good("settings", clean(home.path())),
        unknown => bad(
            "settings",
            format!(
                "config.toml sets what is no setting: {}",
                unknown.join(", ")
            ),
            "check the spelling; it counts for nothing",
        ),
    }
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

/// Each share needs one queue of the kernel's for its watches.
fn instances() -> Finding {
    let check = "watch queues";
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances");
    let Some(limit) = limit.ok().and_then(|t| t.trim().parse::<u64>().ok()) else {
        return good(check, "the limit cannot be read");
    };
    // What is in use is not told; that one more can be had is.
    match rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC) {
        Ok(_) => good(check, format!("at most {limit}, and there is a free one")),
        Err(e) => bad(
            check,
            format!("none of {limit} is free: {e}"),
            "write `fs.inotify.max_user_instances=1024` to /etc/sysctl.d/40-left.conf, then `sudo sysctl --system`",
        ),
    }
}

/// The key lies there: nobody else may read it.
fn home_folder(home: &Home) -> Finding {
    let check = "permissions of the settings";
    let key = home.path().join("device.key");
    let mode = |path: &Path| std::fs::metadata(path).map(|m| m.mode() & 0o777).ok();
    match (mode(home.path()), mode(&key)) {
        (_, Some(key_mode)) if key_mode & 0o077 != 0 => bad(
            check,
            format!("others may read {} (mode {key_mode:o})", clean(&key)),
            format!(
                "run `chmod 600 {}`; if others have been on this machine, make a new key: see docs/security.md",
                clean(&key)
            ),
        ),
        (Some(dir), _) if dir & 0o022 != 0 => bad(
            check,
            format!("others may write to {} (mode {dir:o})", clean(home.path())),
            format!("run `chmod 700 {}`", clean(home.path())),
        ),
        _ => good(check, "only you can read the key"),
    }
}

/// What LEFT needs of a file system, tried out in `.left`.
fn file_system(path: &Path, name: &str) -> Vec<Finding> {
    let check = format!("file system of {name}");
    let kind = rustix::fs::statfs(path).ok();
    if let Some((kind, todo)) = kind.and_then(|s| peculiar(s.f_type as u64)) {
        return vec![bad(check, kind, todo)];
    }
    let inner = path.join(MARKER_DIR);
    match tried_out(&inner) {
        Ok(None) => vec![good(check, "can exchange names, keeps times and modes")],
        Ok(Some(lack)) => vec![bad(
            check,
            lack,
            "LEFT works there more slowly and a little less safely; a folder on ext4, btrfs, xfs or zfs is better",
        )],
        // Said by another check.
        Err(_) => Vec::new(),
    }
}

/// File systems on which something is known to be amiss, by their `f_type` (statfs(2)).
fn peculiar(kind: u64) -> Option<(&'static str, &'static str)> {
    let local = "use a folder on a disk of this machine, such as ext4, btrfs or xfs";
    match kind & 0xffff_ffff {
        0x4d44 => Some(("FAT keeps no modes and links, and times only to 2 s", local)),
        0x2011_bab0 => Some(("exFAT keeps no modes and no links", local)),
        0x6969 | 0xff53_4d42 | 0xfe53_4d42 | 0x517b => Some((
            "a network file system does not tell of changes that other machines make",
            "run left on the machine that has the disk; here changes are found only when the tree is looked through",
        )),
        _ => None,
    }
}

/// What a file system lacks, if anything.
fn tried_out(inner: &Path) -> std::io::Result<Option<&'static str>> {
    let dir = inner.join(format!("doctor-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let result = try_in(&dir);
    let _ = std::fs::remove_dir_all(&dir);
    result
}

fn try_in(dir: &Path) -> std::io::Result<Option<&'static str>> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let (a, b) = (dir.join("a"), dir.join("b"));
    std::fs::write(&a, "a")?;
    std::fs::write(&b, "b")?;
    let before = std::fs::metadata(&a)?.ino();
    if renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).is_err() {
        return Ok(Some("it cannot exchange two names at once"));
    }
    if std::fs::metadata(&b)?.ino() != before {
        return Ok(Some("a file gets another inode number when it is renamed"));
    }
    if renameat_with(CWD, &a, CWD, &b, RenameFlags::NOREPLACE).is_ok() {
        return Ok(Some("it replaces a name though it was told not to"));
    }
    std::fs::set_permissions(&b, std::fs::Permissions::from_mode(0o640))?;
    let time = UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    std::fs::File::options()
        .write(true)
        .open(&b)?
        .set_modified(time)?;
    let now = std::fs::metadata(&b)?;
    if now.mode() & 0o777 != 0o640 {
        return Ok(Some("it does not keep permissions"));
    }
    if now.modified()? != time {
        return Ok(Some("it does not keep times to the nanosecond"));
    }
    if std::os::unix::fs::symlink("b", dir.join("link")).is_err() {
        return Ok(Some("it knows no symbolic links"));
    }
    Ok(None)
}

/// Files that can still be made. Some file systems make inodes as they need them, and tell no number.
fn inodes(path: &Path, name: &str) -> Option<Finding> {
    let fs = rustix::fs::statvfs(path).ok().filter(|fs| fs.f_files > 0)?;
    let check = format!("inodes in {name}");
    let free = format::count(fs.f_favail, "inode");
    let found = format!("{free} free");
    Some(match fs.f_favail < INODES {
        true => bad(
            check,
            found,
            "delete files that are not needed, or make a new file system with more inodes (`mkfs.ext4 -N`)",
        ),
        false => good(check, found),
    })
}

fn open_files() -> Finding {
    // A left that runs raises its own limit so far.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let check = "open files";
    match limit {
        Some(n) if n < OPEN_FILES => bad(
            check,
            format!("at most {n}"),
            "have root raise it, such as by `nofile` in /etc/security/limits.conf",
        ),
        Some(n) => good(check, format!("at most {n}")),
        None => good(check, "no limit"),
    }
}

fn share_findings(share: &ShareStatus, runs: bool) -> Vec<Finding> {
    let name = clean(&share.path);
    let mut found = vec![folder(&share.path, &name)];
    if found.iter().any(|f| !f.ok) {
        // Nothing else can be told of it, and an alarm says the same.
        return found;
    }
    found.extend(file_system(&share.path, &name));
    found.push(room(&share.path, &name));
    found.extend(inodes(&share.path, &name));
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
