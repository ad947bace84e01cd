//! `.leftignore` as any member may write it, and paths held against it.
#![no_main]

use left_core::ignore::Ignore;
use left_core::path::RelPath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The rules, a line of NUL, then paths.
    let mut parts = data.splitn(2, |b| *b == 0);
    let rules = parts.next().unwrap_or_default();
    let (ignore, _) = Ignore::parse(rules);
    for path in parts.next().unwrap_or_default().split(|b| *b == b'\n') {
        let Ok(path) = RelPath::new(path) else {
            continue;
        };
        for is_dir in [false, true] {
            // What is ignored by a rule of its own is ignored.
            if ignore.is_ignored_itself(&path, is_dir) {
                assert!(ignore.is_ignored(&path, is_dir));
            }
        }
    }
});
