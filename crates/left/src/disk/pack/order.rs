//! What a file system keeps of names that were changed and not synced when the power is cut.

use std::os::fd::AsFd;

use rustix::fs;

use crate::disk::sys;

/// How much may be left unsynced until the next checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// A network or unknown file system: nobody knows what it forgets, nor whether `syncfs` reaches it.
    Unknown,
    /// A local one where each change of a name may be lost without those before it: what is new may
    /// wait, since nothing of a user's can go with it.
    Local,
    /// One that writes changes of names to a journal, each as a whole and in the order in which they
    /// were made: also a swap may wait, since the old file has a name at every moment.
    Journaled,
}

const EXT: u64 = 0xEF53;
const XFS: u64 = 0x5846_5342;
const BTRFS: u64 = 0x9123_683E;
const F2FS: u64 = 0xF2F5_2010;
const TMPFS: u64 = 0x0102_1994;

impl Order {
    pub(crate) fn of(dir: impl AsFd) -> Order {
        let Ok(found) = fs::fstatfs(&dir) else {
            return Order::Unknown;
        };
        // Nothing of it is there after a cut.
        if found.f_type as u64 & 0xFFFF_FFFF == TMPFS {
            return Order::Journaled;
        }
        // A repair needs to know that there was a cut (and `syncfs` says since the same Linux what it
        // could not write), and which file is ours: by its number and its birth.
        let told = sys::mount_id(&dir).is_some();
        let born = sys::stat_fd(&dir).is_ok_and(|stat| stat.born.is_some());
        if !told || !born {
            return Order::Unknown;
        }
        // The type's width differs from one architecture to the next; all these fit in 32 bits.
        match found.f_type as u64 & 0xFFFF_FFFF {
            XFS | BTRFS => Order::Journaled,
            EXT if has_journal(dir) => Order::Journaled,
            EXT | F2FS => Order::Local,
            _ => Order::Unknown,
        }
    }
}

/// Whether an ext file system has a journal, which it may be made without.
fn has_journal(dir: impl AsFd) -> bool {
    let Ok(stat) = sys::stat_fd(dir) else {
        return false;
    };
    let (major, minor) = stat.dev;
    let Ok(device) = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")) else {
        return false;
    };
    let Some(device) = device.file_name().and_then(|n| n.to_str()) else {
        return false;
    };
    // The journal's own inode, so named by the kernel.
    std::path::Path::new(&format!("/proc/fs/jbd2/{device}-8")).exists()
}
