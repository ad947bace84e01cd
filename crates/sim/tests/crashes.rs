//! A crash, and a power failure, at every effect and after every operation of one history that has
//! all that may happen to a path.

use left_sim::check;
use left_sim::disk::Thing;
use left_sim::scenario::{Scenario, bytes, path};

/// New, replaced, deleted, renamed, in conflict, a folder in a file's place, while both are apart.
fn history(s: &mut Scenario) {
    s.mkdir(0, "d");
    s.mkdir(0, "gone");
    for (name, n) in [
        ("d/a", 1),
        ("d/b", 2),
        ("d/c", 3),
        ("gone/x", 4),
        ("kind", 5),
    ] {
        s.write(0, name, n);
    }
    s.world.run(20_000, "the first files");
    s.apart();
    s.write(0, "d/a", 10);
    s.write(1, "d/a", 11);
    s.remove(0, "gone");
    s.write(1, "gone/y", 12);
    s.edit(0, |user| {
        let wall = user.wall_ms;
        user.hints.extend([path("d/b"), path("e")]);
        user.disk.rename(&path("d/b"), &path("e"), wall);
    });
    s.edit(1, |user| {
        let wall = user.wall_ms;
        user.hints.push(path("d/c"));
        user.disk.set_meta(&path("d/c"), Some(0o600), None, wall);
    });
    s.remove(1, "kind");
    s.mkdir(1, "kind");
    s.write(1, "kind/in", 13);
    s.edit(0, |user| {
        user.make(&path("link"), Thing::Symlink(b"d".to_vec()));
    });
    s.together();
}

/// Crashes at the `at`-th moment on a device; whether the history is that long.
fn crash_at(device: usize, at: u32, power: bool) -> bool {
    let mut s = Scenario::new(2);
    let d = &mut s.world.devices[device];
    d.moments_left = Some(at);
    d.power_fails = power;
    d.disk.journaled = power;
    history(&mut s);
    check::bytes_kept(&mut s.world);
    if let Some(failure) = &s.world.failure {
        panic!("device {device}, moment {at}, power failure {power}: {failure}");
    }
    if !power {
        // All that both wrote is there: the conflict's loser too.
        let tree = s.world.devices[0].disk.tree();
        for n in [2, 3, 10, 11, 12, 13] {
            let there = tree.values().any(|o| o.bytes() == Some(bytes(n)));
            assert!(
                there,
                "device {device}, moment {at}: bytes {n} are in no file"
            );
        }
    }
    s.world.devices[device].moments_left.is_none()
}

fn crash_everywhere(power: bool) {
    for device in 0..2 {
        let moments = (1..).take_while(|at| crash_at(device, *at, power)).count();
        assert!(moments > 50, "only {moments} moments");
    }
}

#[test]
fn crash_at_every_effect() {
    crash_everywhere(false);
}

#[test]
fn power_failure_at_every_effect() {
    crash_everywhere(true);
}
