//! A small disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system of its own, if this test may mount one.
pub struct Small(PathBuf);

impl Small {
    /// `size` as the system's mount takes it.
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "left-e2e"])
            .arg(at);
        mount.stderr(std::process::Stdio::null());
        mount
            .status()
            .is_ok_and(|s| s.success())
            .then(|| Self(at.to_path_buf()))
    }

    /// Nothing can be written to it from now on.
    pub fn read_only(&self) {
        let mut mount = Command::new("mount");
        mount.args(["-o", "remount,ro"]).arg(&self.0);
        assert!(mount.status().unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
