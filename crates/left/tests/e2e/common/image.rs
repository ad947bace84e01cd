//! A file system of its own whose power can be cut.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::until;

/// An ext4 on a loop device. The image lies on another ext4, on memory: freezing that one stops all
/// writes to the image at one instant, so that a copy made meanwhile is what a disk holds when its power
/// is cut then: all that the file system has given to it, and nothing of what is in memory only.
pub struct Image {
    dir: PathBuf,
}

impl Image {
    /// Mounts both below `dir`, if this test may. `mib`: the size of the inner one.
    pub fn mount(dir: &Path, mib: u64) -> Option<Self> {
        let image = Self {
            dir: dir.to_path_buf(),
        };
        for sub in ["memory", "outer", "disk"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        // The outer one also holds its own tables of inodes, a tenth of it and more.
        let outer = mib + mib / 5 + 128;
        let room = format!("size={}m", outer + mib + 64);
        let memory = dir.join("memory");
        run(
            "mount",
            &["-t", "tmpfs", "-o", &room, "left-e2e"],
            &[&memory],
        )
        .then_some(())?;
        make(&memory.join("outer.img"), outer)?;
        let outer = [memory.join("outer.img"), dir.join("outer")];
        run("mount", &["-o", "loop"], &[&outer[0], &outer[1]]).then_some(())?;
        make(&image.file(), mib)?;
        image.attach("ordered").then_some(())?;
        Some(image)
    }

    /// Where the inner file system is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.join("disk")
    }

    /// What a cut of the power at this instant leaves. `meanwhile` runs before anything can be written
    /// again: what it kills writes no more.
    pub fn cut(&self, meanwhile: impl FnOnce()) {
        let outer = self.dir.join("outer");
        assert!(run("fsfreeze", &["-f"], &[&outer]));
        let copied = fs::copy(self.file(), self.copy());
        meanwhile();
        assert!(run("fsfreeze", &["-u"], &[&outer]));
        copied.unwrap();
    }

    /// The machine starts again after the [`cut`](Self::cut): nobody may use the disk now. `data`: the
    /// mode of ext4 with which it goes on.
    pub fn restart(&self, data: &str) {
        assert!(
            run("umount", &[], &[&self.path()]),
            "somebody uses the disk"
        );
        until("the disk is let go", || !self.is_attached());
        fs::copy(self.copy(), self.file()).unwrap();
        assert!(self.attach(data), "the journal could not be recovered");
    }

    /// The file system meets an error, and lets nobody write any more until it is mounted again.
    pub fn become_read_only(&self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let here = self.path();
        let device = mounts
            .lines()
            .filter_map(|l| l.split_once(' '))
            .find(|(_, rest)| rest.split(' ').next() == here.to_str())
            .map(|(device, _)| device.trim_start_matches("/dev/"));
        let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", device.unwrap());
        fs::write(trigger, "for a test").unwrap();
    }

    /// Changes the bytes of the image itself; the file system is not mounted meanwhile.
    pub fn below(&self, change: impl FnOnce(&File)) {
        assert!(
            run("umount", &[], &[&self.path()]),
            "somebody uses the disk"
        );
        let file = File::options().read(true).write(true).open(self.file());
        change(&file.unwrap());
        assert!(self.attach("ordered"));
    }

    fn is_attached(&self) -> bool {
        let mut losetup = Command::new("losetup");
        let out = losetup.arg("-j").arg(self.file()).output();
        !out.unwrap().stdout.is_empty()
    }

    fn attach(&self, data: &str) -> bool {
        let options = format!("loop,noatime,errors=remount-ro,data={data}");
        run("mount", &["-o", &options], &[&self.file(), &self.path()])
    }

    fn file(&self) -> PathBuf {
        self.dir.join("outer/inner.img")
    }

    fn copy(&self) -> PathBuf {
        self.dir.join("memory/copy.img")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        for sub in ["disk", "outer", "memory"] {
            run("umount", &["-l"], &[&self.dir.join(sub)]);
        }
    }
}

fn make(image: &Path, mib: u64) -> Option<()> {
    File::create(image).unwrap().set_len(mib << 20).unwrap();
    // Lazy work would go on in the background and be part of what is cut.
    let options = "lazy_itable_init=0,lazy_journal_init=0";
    // An inode a block: many small files.
    let args = ["-q", "-F", "-i", "4096", "-E", options];
    run("mkfs.ext4", &args, &[image]).then_some(())
}

fn run(program: &str, args: &[&str], paths: &[&Path]) -> bool {
    let mut command = Command::new(program);
    command.args(args).args(paths);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|s| s.success())
}
