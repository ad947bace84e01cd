//! What failed is tried again, and not for ever in the same way.

use left_sim::scenario::{Scenario, path};

/// A power cut took a folder with a file in it, which a peer renamed meanwhile: the file can not be
/// moved to its new name, so its bytes are brought.
#[test]
fn a_rename_of_what_a_power_cut_took() {
    for keep in [true, false] {
        let mut s = Scenario::new(2);
        s.unsynced(1);
        s.mkdir(1, "dir");
        s.write(1, "dir/old", 1);
        s.settle();
        s.power_cut(1, "dir");
        s.edit(0, |user| {
            let wall = user.wall_ms;
            user.hints.extend([path("dir/old"), path("new")]);
            user.disk.rename(&path("dir/old"), &path("new"), wall);
        });
        if !keep {
            s.remove(0, "dir");
        }
        s.world.start(1);
        s.settle();
        assert_eq!(s.tree().get("new"), Some(&"file 1".to_owned()));
        assert_eq!(s.tree().len(), if keep { 2 } else { 1 });
        assert!(
            s.world.stats.ops.get("move: no parent").is_none(),
            "{:?}",
            s.world.stats.ops
        );
    }
}
