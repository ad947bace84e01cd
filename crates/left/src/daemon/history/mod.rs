//! The past of a share: what changed, which versions are kept, bringing them back, comparing, and ending
//! conflicts. [`Past`] does it all on the thread of who asks, with what a running share lends, or alone
//! where none runs. What it writes is to the rest of left an edit like a user's.

mod compare;
mod conflicts;
mod keep;
mod log;
mod restore;
mod tree;
pub mod types;
pub mod when;

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::Sender;
use jiff::Zoned;
use left_core::path::RelPath;
use left_core::version::DeviceId;

use super::ask::Msg;
use crate::disk::{Found, History, Kept, Root, Stage};
use crate::home::{Lock, UserError, clean};
use crate::store::Filter;

pub(super) use keep::{Scribe, SharedLimits, Thinner};
pub use types::{
    Bring, ConflictInfo, DiffReport, Happened, Keep, LogEntry, MAX_LISTED, Resolved, RestoreReport,
    Thing, VersionInfo,
};
pub use when::At;

/// What a share's past is worked with.
pub(super) struct Lent {
    pub(super) root: Arc<Root>,
    pub(super) stage: Arc<Stage>,
    pub(super) history: Arc<History>,
    pub(super) scribe: Scribe,
}

/// Who is who.
pub(super) struct Who {
    /// This device.
    pub(super) me: DeviceId,
    /// Names of all devices that are known.
    pub(super) names: HashMap<DeviceId, String>,
    /// This device only receives.
    pub(super) read_only: bool,
}

/// The past of one share. Paths may be of things that are gone.
pub struct Past {
    /// The share's folder.
    dir: PathBuf,
    lent: Lent,
    who: Who,
    /// The running share, which is told what was put back.
    tx: Option<Sender<Msg>>,
    /// Held where no left runs the share.
    _lock: Option<Lock>,
}

/// A path of a share and the version that its name asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where, below the share's folder; `None`: the share itself.
    pub path: Option<RelPath>,
    /// Which version; `None`: none was named.
    pub at: Option<At>,
}

impl Past {
    pub(super) fn new(
        dir: PathBuf,
        lent: Lent,
        who: Who,
        tx: Option<Sender<Msg>>,
        lock: Option<Lock>,
    ) -> Past {
        Past {
            dir,
            lent,
            who,
            tx,
            _lock: lock,
        }
    }

    /// The share's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `PATH` or `PATH@VERSION` names. A name that holds an `@` and is known goes before a version
    /// of a shorter name.
    pub fn place(&self, path: &Path) -> Result<Place, UserError> {
        let now = Zoned::now();
        if let Some((front, at)) = when::split(path, &now)
            && !self.is_known(path)
        {
            let path = self.below(&front)?;
            return Ok(Place { path, at: Some(at) });
        }
        let path = self.below(path)?;
        Ok(Place { path, at: None })
    }

    /// A path taken as it is, whatever it ends in; `None`: the share itself.
    pub fn exactly(&self, path: &Path) -> Result<Option<RelPath>, UserError> {
        self.below(path)
    }

    fn is_known(&self, path: &Path) -> bool {
        let Ok(Some(path)) = self.below(path) else {
            return false;
        };
        let Lent {
            root,
            history,
            scribe,
            ..
        } = &self.lent;
        root.look(&path).is_ok_and(|found| found.is_some())
            || scribe.journal.knows(&path).unwrap_or(false)
            || history.versions(root, &path).is_ok_and(|v| !v.is_empty())
    }

    /// A path as it stands below the share's folder.
    fn below(&self, path: &Path) -> Result<Option<RelPath>, UserError> {
        let Ok(rest) = path.strip_prefix(&self.dir) else {
            return Err(UserError::usage(
                format!("cannot find {}", clean(path)),
                format!("it does not lie in the share {}", clean(&self.dir)),
                "name a path in a share of this device (`left status` lists them)",
            ));
        };
        let bytes = rest.as_os_str().as_bytes();
        if bytes.is_empty() {
            return Ok(None);
        }
        RelPath::new(bytes).map(Some).map_err(|e| {
            UserError::usage(
                format!("cannot find {}", clean(path)),
                e,
                "name another path",
            )
        })
    }

    /// The kept version that is meant, and its path's other versions: the latest first.
    fn version(&self, path: &RelPath, at: &At) -> Result<Kept, UserError> {
        let what = format!("cannot find that version of {path}");
        let log = format!("see `left log {}`", clean(&self.dir.join(path.to_string())));
        let todo = self.elsewhere(path).unwrap_or(log);
        let fail = |why: String| UserError::new(&what, why, &todo);
        let Lent { root, history, .. } = &self.lent;
        let read = |e: std::io::Error| fail(e.to_string());
        match at {
            At::Id(id) => history
                .find(root, id, path)
                .map_err(read)?
                .ok_or_else(|| fail("it is not kept here (any more)".into())),
            At::Nth(n) => {
                let all = history.versions(root, path).map_err(read)?;
                let count = all.len();
                let nth = usize::try_from(*n).unwrap_or(usize::MAX) - 1;
                all.into_iter().nth(nth).ok_or_else(|| {
                    fail(match count {
                        0 => "no version of it is kept on this device".into(),
                        1 => "one version of it is kept on this device".into(),
                        count => format!("{count} versions of it are kept on this device"),
                    })
                })
            }
            At::Time(ms) => {
                let all = history.versions(root, path).map_err(read)?;
                let kept = all.into_iter().rev().find(|v| v.until_ms > *ms);
                self.lent.scribe.flush();
                match self.verdict(path, kept.as_ref(), *ms).map_err(fail)? {
                    tree::Verdict::Kept => kept.ok_or_else(|| fail("it is not kept".into())),
                    tree::Verdict::Unchanged => Err(fail(
                        "it has not changed since then, as far as is known here".into(),
                    )),
                    tree::Verdict::NotThere => Err(fail("it did not exist then".into())),
                    tree::Verdict::Lost(why) => Err(fail(why)),
                }
            }
        }
    }

    /// Where an older version of a path may be that is not kept here: what a device changes itself is
    /// kept by those that took the change in.
    fn elsewhere(&self, path: &RelPath) -> Option<String> {
        let filter = Filter {
            at: Some(path),
            before: None,
            after_ms: None,
        };
        let last = self.lent.scribe.journal.latest(filter, 1).ok()?.pop()?;
        let of_this_device = last.note.path == *path && last.note.device == self.who.me;
        let others = self.others();
        (of_this_device && !others.is_empty()).then(|| {
            format!(
                "it was changed on this device, so what was there is kept where that change arrived: \
                 run the same on {others}"
            )
        })
    }

    /// The names of the other devices: `attic or tower`; empty where there are none.
    fn others(&self) -> String {
        let names = self.who.names.keys().filter(|d| **d != self.who.me);
        let mut names: Vec<String> = names.map(|d| self.name_of(*d)).collect();
        names.sort();
        names.truncate(5);
        names.join(" or ")
    }

    /// Whether the share's folder is the one it was, before anything is written into it.
    fn check(&self) -> Result<(), UserError> {
        self.lent.root.check().map_err(|e| {
            let what = format!("cannot work in {}", clean(&self.dir));
            UserError::new(
                what,
                e,
                "put the folder back (or mount its disk) and try again",
            )
        })
    }

    /// Has the running share look at what was put back.
    fn tell(&self, paths: Vec<RelPath>) {
        if let Some(tx) = &self.tx {
            // A share that stops now looks when it starts.
            let _ = tx.send(Msg::Restored(paths));
        }
    }

    fn name_of(&self, device: DeviceId) -> String {
        let name = self.who.names.get(&device).cloned().unwrap_or_default();
        match name.is_empty() {
            true => device.short(),
            false => name,
        }
    }

    /// What stands at a path that is a file or link now; an error in words for all else.
    fn look(&self, path: &RelPath) -> Result<Option<Found>, UserError> {
        self.lent.root.look(path).map_err(|e| {
            UserError::new(
                format!("cannot look at {path}"),
                e,
                "see that its folder can be read by your user",
            )
        })
    }
}

/// A moment for people, in this machine's time.
fn moment(ms: u64) -> String {
    let time = jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(i64::MAX));
    match time {
        Ok(time) => {
            let zoned = time.to_zoned(jiff::tz::TimeZone::system());
            zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        Err(_) => "an unknown time".into(),
    }
}
