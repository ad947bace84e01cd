//! [`Durable`]: until when everything in the share's folder is known to be on the disk, and whether the
//! power was cut since.
//!
//! What we put in place is synced before it is announced. What users and their programs write is not:
//! a sync of each edit would cost them far more than it saves. So a power cut may take back an edit that
//! others have heard of already. It shows as a file that went back in time, and must not be taken for
//! an edit (DESIGN promises 2 and 5). This file says when to look for such files, and among which.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use left_core::entry::Mtime;
use rustix::fs::{self, Mode, OFlags};

use super::root::Root;
use super::sys;

const NAME: &[u8] = b"durable";
/// Longest file that is read.
const MAX: usize = 512;
/// File times come from a clock that ticks slowly, some milliseconds behind the other.
const MARGIN_SECS: i64 = 1;

/// Since when things may have been lost, if the power was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// What changed before that (by its ctime) was on the disk.
    pub since: Mtime,
    /// When this program began to look: what changed later is no loss.
    pub found: Mtime,
}

/// The file `.left/durable` of one share.
#[derive(Debug)]
pub struct Durable {
    file: File,
    /// This mount of the file system, in this run of the system.
    mount: String,
    state: Mutex<State>,
    /// A sync failed in this run.
    failed: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct State {
    since: Mtime,
    cut: bool,
}

/// What a sync that failed leaves to say.
const DOUBTED: &str = "the disk could not take all that was written to it; when left is started again it looks \
                       through what changed since";

impl Durable {
    /// Reads or makes the file. If the file system was mounted anew since it was written, the power may
    /// have been cut; that is noted durably until [`healed`](Self::healed).
    pub fn open(root: &Root) -> io::Result<(Durable, Option<Cut>)> {
        let inner = root.inner()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(fs::openat(&inner, NAME, flags, Mode::from_raw_mode(0o600))?);
        let mount = mount_of(&inner);
        let now = before_now();
        let state = match read(&file)? {
            Read::Nothing => State {
                since: now,
                cut: false,
            },
            Read::Damaged(written) => State {
                since: earlier(written, 60),
                cut: true,
            },
            Read::Good(then, state) if then == mount => state,
            Read::Good(_, state) => State { cut: true, ..state },
        };
        let durable = Durable {
            file,
            mount,
            state: Mutex::new(state),
            failed: AtomicBool::new(false),
        };
        durable.write(state)?;
        durable.file.sync_all()?;
        let found = sys::now();
        let since = unsure_since(state.since, found);
        Ok((durable, state.cut.then_some(Cut { since, found })))
    }

    /// Waits until all that stands in the folder's file system now is on the disk, and takes note.
    /// While a cut is not healed, only the former holds; whether that is not so.
    ///
    /// # Errors
    /// When the disk could not take it, now or earlier in this run: the system tells that once and then
    /// forgets what it could not write, so a later success proves nothing. It is as after a power cut,
    /// and so the next start will see it.
    pub fn checkpoint(&self) -> io::Result<bool> {
        let now = before_now();
        if self.failed.load(Ordering::Relaxed) {
            return Err(io::Error::other(DOUBTED));
        }
        if let Err(error) = fs::syncfs(&self.file) {
            self.doubt();
            return Err(error.into());
        }
        let mut state = self.lock();
        if state.cut {
            return Ok(false);
        }
        state.since = now;
        // Not synced itself: an older mark only means more to look at.
        self.write(*state)?;
        Ok(true)
    }

    /// Takes note that not all is on the disk that should be.
    fn doubt(&self) {
        self.failed.store(true, Ordering::Relaxed);
        let mut state = self.lock();
        state.cut = true;
        let noted = self.write(*state).and_then(|()| self.file.sync_all());
        if let Err(error) = noted {
            tracing::warn!(%error, "cannot note that the disk failed");
        }
    }

    /// What the power cut took back is there again, or was given up.
    pub fn healed(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut state = self.lock();
        state.cut = false;
        self.write(*state)
    }

    fn write(&self, state: State) -> io::Result<()> {
        let text = format!(
            "{}\n{} {}\n{}\n",
            self.mount,
            state.since.secs,
            state.since.nanos,
            if state.cut { "cut" } else { "whole" }
        );
        let text = format!("{text}{}\n", sum(&text));
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

enum Read {
    Nothing,
    /// Not what we write; when it was written.
    Damaged(Mtime),
    /// The mount it was written in, and what it says.
    Good(String, State),
}

fn read(file: &File) -> io::Result<Read> {
    let mut bytes = [0; MAX];
    let n = file.read_at(&mut bytes, 0)?;
    if n == 0 {
        return Ok(Read::Nothing);
    }
    let good = std::str::from_utf8(&bytes[..n]).ok().and_then(parse);
    Ok(match good {
        Some((mount, state)) => Read::Good(mount, state),
        None => Read::Damaged(sys::stat_fd(file)?.file.mtime),
    })
}

fn parse(text: &str) -> Option<(String, State)> {
    let (body, said) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    if said != sum(&format!("{body}\n")) {
        return None;
    }
    let mut lines = body.lines();
    let mount = lines.next()?.to_owned();
    let (secs, nanos) = lines.next()?.split_once(' ')?;
    let since = Mtime {
        secs: secs.parse().ok()?,
        nanos: nanos.parse().ok()?,
    };
    let cut = match lines.next()? {
        "cut" => true,
        "whole" => false,
        _ => return None,
    };
    Some((mount, State { since, cut }))
}

fn sum(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

fn before_now() -> Mtime {
    earlier(sys::now(), MARGIN_SECS)
}

/// From when on a file's time says that it may not have reached the disk; `found`: the time at which the cut
/// was noticed. Under a clock that was set back since the mark, times say nothing of what came after it.
fn unsure_since(mark: Mtime, found: Mtime) -> Mtime {
    match (found.secs, found.nanos) < (mark.secs, mark.nanos) {
        true => Mtime {
            secs: i64::MIN,
            nanos: 0,
        },
        false => mark,
    }
}

fn earlier(t: Mtime, secs: i64) -> Mtime {
    Mtime {
        secs: t.secs.saturating_sub(secs),
        ..t
    }
}

/// Names the run of the system and the mount within it: a disk that was pulled out loses as much as one
/// whose machine lost power. Where no run can be told from the next, each start is taken for one after
/// a cut: that costs a look, and a cut that nobody notices costs files.
fn mount_of(dir: &OwnedFd) -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    name_of(boot.as_deref(), sys::mount_id(dir))
}

fn name_of(boot: Option<&str>, mount: Option<u64>) -> String {
    let mount = mount.unwrap_or_default();
    match boot.map(str::trim).filter(|boot| !boot.is_empty()) {
        Some(boot) => format!("{boot} {mount}"),
        None => {
            let now = sys::now();
            format!("unknown-{}.{:09} {mount}", now.secs, now.nanos)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        super::super::root::init_share(dir.path(), b"marker").unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn same_mount_is_no_cut() {
        let (_dir, root) = share();
        assert!(Durable::open(&root).unwrap().1.is_none());
        let (durable, cut) = Durable::open(&root).unwrap();
        assert!(cut.is_none());
        let before = durable.lock().since;
        durable.checkpoint().unwrap();
        assert!(durable.lock().since >= before);
    }

    #[test]
    fn another_mount_is_a_cut_until_healed() {
        let (dir, root) = share();
        let (durable, _) = Durable::open(&root).unwrap();
        let other = State {
            since: Mtime { secs: 5, nanos: 6 },
            cut: false,
        };
        let durable = Durable {
            mount: "another 1".into(),
            ..durable
        };
        durable.write(other).unwrap();
        for _ in 0..2 {
            let (again, cut) = Durable::open(&root).unwrap();
            assert_eq!(cut.unwrap().since, other.since);
            // Not before it is healed.
            again.checkpoint().unwrap();
        }
        Durable::open(&root).unwrap().0.healed().unwrap();
        assert!(Durable::open(&root).unwrap().1.is_none());
        drop(dir);
    }

    #[test]
    fn a_run_without_a_name_is_like_no_other() {
        let boot = Some("c0ffee\n");
        assert_eq!(name_of(boot, Some(7)), name_of(boot, Some(7)));
        assert_ne!(name_of(boot, Some(7)), name_of(boot, Some(8)));
        for none in [None, Some("\n")] {
            let first = name_of(none, Some(7));
            // Else the clock may not have gone on.
            std::thread::sleep(std::time::Duration::from_millis(1));
            assert_ne!(first, name_of(none, Some(7)));
        }
    }

    #[test]
    fn after_a_clock_was_set_back_everything_is_unsure() {
        let at = |secs| Mtime { secs, nanos: 7 };
        assert_eq!(unsure_since(at(5), at(5)), at(5));
        assert_eq!(unsure_since(at(5), at(6)), at(5));
        assert!(unsure_since(at(5), at(4)).secs < -1_000_000_000);
    }

    /// The system tells of it once only.
    #[test]
    fn a_failed_sync_is_a_cut_at_the_next_start() {
        let (_dir, root) = share();
        let (durable, _) = Durable::open(&root).unwrap();
        let since = durable.lock().since;
        durable.doubt();
        durable.checkpoint().unwrap_err();
        // What was to be healed in this run may be; that is not.
        durable.healed().unwrap();
        assert_eq!(Durable::open(&root).unwrap().1.unwrap().since, since);
    }

    #[test]
    fn damage_is_taken_for_a_cut() {
        let (dir, root) = share();
        drop(Durable::open(&root).unwrap());
        let path = dir.path().join(".left/durable");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[40] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(Durable::open(&root).unwrap().1.is_some());
    }
}
