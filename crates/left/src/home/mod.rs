//! Everything this device remembers outside of its shares: key, settings, members, tickets, locks.
//!
//! `$LEFT_HOME` (or the platform's config folder) holds, readable by its owner only:
//!
//! | file | what |
//! | --- | --- |
//! | `device.key` | the device's private key, PKCS#8; made once, never silently replaced |
//! | `config.toml` | what the user may set: [`Config`]; never written by left |
//! | `shares/<id>.toml` | one [`ShareRecord`] a share: its folder, role, members, tickets |
//! | `home.lock` | held by the one running left of this device, contains its process id |
//! | `control.sock` | the running left's control socket |
//!
//! Every file is replaced atomically (write aside, fsync, rename, fsync the folder), so a kill
//! leaves the old or the new one.

mod bandwidth;
mod change;
mod choice;
mod config;
mod error;
mod files;
mod folder;
mod key;
mod lock;
mod mode;
mod record;
pub mod text;

use std::fs::{DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

pub use bandwidth::{BandwidthConfig, MIN_RATE, Rate, parse_rate};
pub use change::Setting;
pub use choice::{ChoiceRecord, selection_of};
pub use config::{Config, HistoryConfig, MetricsConfig};
pub use error::{Exit, UserError};
pub use files::write_atomic;
pub use folder::{MARKER_DIR, Marker, clean, enclosing_share, init_share, read_share};
pub use lock::{Lock, lock_share};
pub use mode::Mode;
pub use record::{MemberRecord, PairingRecord, ShareRecord, TicketRecord};

/// The folder of this device's key, settings and control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    dir: PathBuf,
}

impl Home {
    /// Opens `dir`, or else `$LEFT_HOME`, or else `left` in the platform's config folder. Made
    /// with mode 0700 when it does not exist.
    pub fn open(dir: Option<&Path>) -> Result<Home, UserError> {
        let dir = match dir {
            Some(dir) => dir.to_path_buf(),
            None => default_dir()?,
        };
        let dir = std::path::absolute(&dir)
            .map_err(|e| UserError::io("cannot find the settings folder", &dir, &e))?;
        make_private_dir(&dir)?;
        make_private_dir(&dir.join("shares"))?;
        // One spelling of the folder, so that comparing paths with it is safe.
        let dir = dir
            .canonicalize()
            .map_err(|e| UserError::io("cannot open the settings folder", &dir, &e))?;
        Ok(Home { dir })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Where the running left of this device listens for commands.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// The device's private key. `make` makes a new one when there is none; `valid` says whether
    /// bytes are a key. A damaged key is an error: a new one would be another device.
    pub fn device_key(
        &self,
        make: impl FnOnce() -> Result<Vec<u8>, UserError>,
        valid: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, UserError> {
        key::load_or_make(&self.dir.join("device.key"), make, valid)
    }

    /// The user's settings; defaults where there are none.
    pub fn config(&self) -> Result<Config, UserError> {
        config::load(&self.dir.join("config.toml"))
    }

    /// Names in the user's settings that are none, so that they count for nothing.
    pub fn unknown_settings(&self) -> Vec<String> {
        let bytes = files::read(&self.dir.join("config.toml")).ok().flatten();
        config::unknown(&String::from_utf8_lossy(&bytes.unwrap_or_default()))
    }

    /// Changes the user's settings, durably, and nothing else in their file; returns them. See
    /// [`Setting`] for values; `None` takes one out.
    pub fn change_config(
        &self,
        changes: &std::collections::BTreeMap<String, Option<Setting>>,
    ) -> Result<Config, UserError> {
        change::change(&self.dir.join("config.toml"), changes)
    }

    /// All shares of this device, sorted by folder.
    pub fn shares(&self) -> Result<Vec<ShareRecord>, UserError> {
        record::list(&self.dir.join("shares"))
    }

    /// One share's record, if this device has it.
    pub fn share(&self, id: left_core::message::ShareId) -> Result<Option<ShareRecord>, UserError> {
        record::load(&self.record_path(id))
    }

    /// Writes a share's record; durable when this returns.
    pub fn save_share(&self, record: &ShareRecord) -> Result<(), UserError> {
        record::save(&self.record_path(record.id), record)
    }

    /// Forgets a share (its folder is not touched). Forgetting an unknown one is fine.
    pub fn forget_share(&self, id: left_core::message::ShareId) -> Result<(), UserError> {
        let path = self.record_path(id);
        files::remove(&path).map_err(|e| UserError::io("cannot forget the share", &path, &e))
    }

    /// Makes this process the one left of this device, until the lock is dropped.
    pub fn lock(&self) -> Result<Lock, UserError> {
        let lock = lock::lock_home(&self.dir)?;
        // Nobody else writes here now: what killed processes left half written can go.
        files::remove_leftovers(&self.dir);
        files::remove_leftovers(&self.dir.join("shares"));
        Ok(lock)
    }

    /// Whether a left of this device runs or just starts.
    pub fn is_locked(&self) -> bool {
        lock::is_home_locked(&self.dir)
    }

    /// Checks that `dir` may become (or is) a share of this device and makes it when it is
    /// missing (its parent must exist). Returns its one absolute spelling.
    pub fn prepare_folder(&self, dir: &Path) -> Result<PathBuf, UserError> {
        let dir = folder::prepare(dir)?;
        if self.dir.starts_with(&dir) {
            return Err(UserError::new(
                format!("cannot share {}", clean(&dir)),
                format!(
                    "it contains left's own key and settings ({})",
                    clean(&self.dir)
                ),
                "share a folder inside it instead",
            ));
        }
        Ok(dir)
    }

    fn record_path(&self, id: left_core::message::ShareId) -> PathBuf {
        self.dir
            .join("shares")
            .join(format!("{}.toml", id.to_string().to_ascii_lowercase()))
    }
}

fn default_dir() -> Result<PathBuf, UserError> {
    if let Some(dir) = std::env::var_os("LEFT_HOME").filter(|v| !v.is_empty()) {
        return Ok(PathBuf::from(dir));
    }
    match etcetera::choose_base_strategy() {
        Ok(base) => Ok(base.config_dir().join("left")),
        Err(e) => Err(UserError::new(
            "cannot find the settings folder",
            e,
            "set LEFT_HOME to a folder of yours",
        )),
    }
}

/// Makes `dir` (0700), or takes one that exists: others must not be able to replace files in it.
fn make_private_dir(dir: &Path) -> Result<(), UserError> {
    let what = "cannot use the settings folder";
    match DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            return Err(UserError::io(what, dir, &e));
        }
        _ => {}
    }
    let meta = std::fs::metadata(dir).map_err(|e| UserError::io(what, dir, &e))?;
    if !meta.is_dir() {
        return Err(UserError::new(
            format!("{what} {}", clean(dir)),
            "it is not a folder",
            "set LEFT_HOME to a folder of yours",
        ));
    }
    if meta.mode() & 0o022 == 0 {
        return Ok(());
    }
    // Somebody else's settings are never changed; our own (or empty) folder is closed for others.
    let ours = dir.join("device.key").exists()
        || std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    if ours && std::fs::set_permissions(dir, Permissions::from_mode(0o700)).is_ok() {
        return Ok(());
    }
    Err(UserError::new(
        format!("cannot use the settings folder {}", clean(dir)),
        "other users can write to it",
        format!(
            "run `chmod 700 {}`, or set LEFT_HOME to another folder",
            clean(dir)
        ),
    ))
}
