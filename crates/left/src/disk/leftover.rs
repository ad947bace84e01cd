//! What lies in the stage and nobody goes on with: parts of contents that are wanted no more, since the
//! file changed meanwhile, its peer never came back, or it is not to be held here.

use std::io;
use std::time::Duration;

use super::Stage;
use super::sys::{nanos_between, now, stat_at};

/// A part that was not touched for so long is not worth resuming any more.
pub const KEEP_PARTS: Duration = Duration::from_secs(30 * 24 * 3600);

/// Removes staged parts that were not touched for `age`; returns how many. One that is taken up again at
/// this very moment is begun anew.
pub fn clean_leftovers(stage: &Stage, age: Duration) -> io::Result<usize> {
    let (now, age) = (now(), age.as_nanos());
    let dir = stage.dir();
    stage.clean(|name| {
        let stat = stat_at(&dir, name.as_bytes()).ok().flatten();
        // The time of the last change of the inode: a part may carry its file's own times already. One
        // from the future says nothing.
        let rested = stat.map_or(0, |s| nanos_between(s.file.ctime, now));
        // Other names belong to work in progress.
        name.len() != 64 || u128::try_from(rested).unwrap_or(0) < age
    })
}

#[cfg(test)]
mod tests {
    use left_core::plan::StageName;

    use super::*;
    use crate::disk::{Root, init_share};

    #[test]
    fn parts_that_nobody_goes_on_with_are_removed_in_time() {
        let dir = tempfile::tempdir().unwrap();
        init_share(dir.path(), b"x").unwrap();
        let stage = Stage::open(&Root::open(dir.path()).unwrap()).unwrap();
        let part = StageName("a".repeat(64));
        stage.create(&part).unwrap();
        stage.create(&stage.unique_name()).unwrap();
        assert_eq!(clean_leftovers(&stage, Duration::from_secs(60)).unwrap(), 0);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(
            clean_leftovers(&stage, Duration::from_millis(1)).unwrap(),
            1
        );
        assert!(!stage.exists(&part).unwrap());
        assert_eq!(stage.names().unwrap().len(), 1);
    }
}
