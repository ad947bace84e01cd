//! What all of these tests are made of: devices, trees, and bytes that are the same every time.

mod browser;
mod device;
mod files;
mod image;
mod net;
mod small;
mod tree;

pub use browser::Browser;
pub use device::{Device, LEFT, World, left, until};
pub use files::{bytes, fill, overwrite, write};
pub use image::Image;
pub use net::Net;
pub use small::Small;
pub use tree::{Node, assert_same, assert_tree, compare, snapshot};

/// Waits on every device, twice around, so that what one passes on to the next has arrived too;
/// then all folders must be equal.
pub fn settle(devices: &[&Device]) {
    for _ in 0..2 {
        for device in devices {
            device.wait();
        }
    }
    for pair in devices.windows(2) {
        let (one, two) = (&pair[0].share, &pair[1].share);
        if let Err(why) = compare(one, two) {
            // Whether it is wrong for good, or only said too early, is worth knowing.
            std::thread::sleep(std::time::Duration::from_secs(3));
            let later = compare(one, two).err().unwrap_or("equal".into());
            panic!(
                "{why}\n3 s later: {later}\n{}\n{}",
                pair[0].status(),
                pair[1].status()
            );
        }
    }
}
