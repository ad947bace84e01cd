//! The device's private key file.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::error::UserError;
use super::files;
use super::folder::clean;

pub(super) fn load_or_make(
    path: &Path,
    make: impl FnOnce() -> Result<Vec<u8>, UserError>,
    valid: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, UserError> {
    if let Some(bytes) = load(path, &valid)? {
        return Ok(bytes);
    }
    let bytes = make()?;
    match create(path, &bytes) {
        Ok(()) => Ok(bytes),
        // Another process was faster: both must be the same device.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => load(path, &valid)?
            .ok_or_else(|| UserError::io("cannot read the device's key", path, &e)),
        Err(e) => Err(UserError::io("cannot write the device's key", path, &e)),
    }
}

fn load(path: &Path, valid: &impl Fn(&[u8]) -> bool) -> Result<Option<Vec<u8>>, UserError> {
    let what = "cannot read the device's key";
    let Some(bytes) = files::read(path).map_err(|e| UserError::io(what, path, &e))? else {
        return Ok(None);
    };
    let meta = std::fs::metadata(path).map_err(|e| UserError::io(what, path, &e))?;
    if meta.mode() & 0o077 != 0 {
        return Err(UserError::new(
            format!("{what} {}", clean(path)),
            "other users can read it",
            format!("run `chmod 600 {}`", clean(path)),
        ));
    }
    if !valid(&bytes) {
        return Err(UserError::new(
            format!("{what} {}", clean(path)),
            "the file is damaged",
            "restore it from a backup; or move it away to become a new device, and join your shares anew",
        ));
    }
    Ok(Some(bytes))
}

/// The whole key appears at once under its name, and never in place of another.
fn create(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let aside = files::write_aside(path, bytes, 0o600)?;
    match renameat_with(CWD, &aside, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            // A file system without that call: created exclusively, though not all at once; a
            // kill in between leaves a damaged file, which is reported and not used.
            let _ = files::remove(&aside);
            files::write_new(path, bytes, 0o600)?;
        }
        Err(e) => {
            let _ = files::remove(&aside);
            return Err(e.into());
        }
    }
    files::sync_parent(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(path: &Path, new: &[u8]) -> Result<Vec<u8>, UserError> {
        load_or_make(path, || Ok(new.to_vec()), |b| b.starts_with(b"key"))
    }

    #[test]
    fn made_once_then_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.key");
        assert_eq!(key(&path, b"key one").unwrap(), b"key one");
        assert_eq!(key(&path, b"key two").unwrap(), b"key one");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_existing_key_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.key");
        create(&path, b"key one").unwrap();
        assert_eq!(
            create(&path, b"key two").unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&path).unwrap(), b"key one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_key_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.key");
        for damage in [&b""[..], b"rubbish"] {
            fs::write(&path, damage).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let e = key(&path, b"key two").unwrap_err().to_string();
            assert!(e.contains("damaged") && e.contains("backup"), "{e}");
            assert_eq!(fs::read(&path).unwrap(), damage);
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.key");
        key(&path, b"key one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let e = key(&path, b"key two").unwrap_err().to_string();
        assert!(e.contains("chmod 600"), "{e}");
    }
}
