//! Unix sockets at paths of any length, mode 0600, replacing what a killed process left.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A socket's path has at most 108 bytes with its NUL on Linux, 104 on BSD and macOS.
const MAX_PATH: usize = 103;

/// Listens at `path`, in place of whatever is there: the caller holds the lock that says that
/// nobody listens. Others never see the socket with a wider mode.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    let aside = path.with_extension("new");
    match fs::remove_file(&aside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = short(&aside, |short| UnixListener::bind(short))?;
    fs::set_permissions(&aside, Permissions::from_mode(0o600))?;
    fs::rename(&aside, path)?;
    Ok(listener)
}

/// Connects to `path`; `None` when nobody listens there.
pub(super) fn connect(path: &Path) -> io::Result<Option<UnixStream>> {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    match short(path, |short| UnixStream::connect(short)) {
        Ok(stream) => Ok(Some(stream)),
        Err(e) if matches!(e.kind(), NotFound | ConnectionRefused) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Runs `call` with a path that is short enough and means the same: a long one is reached
/// through its open folder.
fn short<T>(path: &Path, call: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().as_bytes().len() <= MAX_PATH {
        return call(path);
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = File::open(dir)?;
    let through = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    if !through.exists() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("its path has more than {MAX_PATH} bytes; set LEFT_HOME to a shorter one"),
        ));
    }
    call(&through.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_socket_is_replaced_and_long_paths_work() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(120));
        fs::create_dir(&long).unwrap();
        for dir in [dir.path(), &long] {
            let path = dir.join("control.sock");
            assert!(connect(&path).unwrap().is_none());
            drop(listen(&path).unwrap());
            assert!(path.exists() && connect(&path).unwrap().is_none());
            let _alive = listen(&path).unwrap();
            assert!(connect(&path).unwrap().is_some());
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
