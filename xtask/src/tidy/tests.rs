//! A small made-up house with every fault in it, and one without any.

use std::fs;
use std::path::Path;

use super::source::Source;
use super::{Findings, check};

fn house(files: &[(&str, &str)]) -> Findings {
    let dir = tempfile::tempdir().expect("folder");
    fs::create_dir_all(dir.path().join("crates")).expect("folder");
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("folder");
        fs::write(path, text).expect("file");
    }
    check(dir.path()).expect("readable")
}

/// The one violation that `text` in the file `name` makes.
fn only(name: &str, text: &str) -> String {
    let found = house(&[(name, text)]).violations;
    assert_eq!(found.len(), 1, "in {name}: {found:?}");
    found[0].to_string()
}

#[track_caller]
fn clean(name: &str, text: &str) {
    let found = house(&[(name, text)]).violations;
    assert!(found.is_empty(), "in {name}: {found:?}");
}

#[test]
fn long_files() {
    assert!(only("crates/sim/src/lib.rs", &"//\n".repeat(701)).contains("701 lines"));
    assert!(only("xtask/src/a/b.rs", &"//\n".repeat(701)).contains("701 lines"));
    let findings = house(&[("crates/sim/src/lib.rs", &"//\n".repeat(501))]);
    assert!(findings.violations.is_empty() && findings.notes.len() == 1);
}

#[test]
fn core_stays_pure() {
    let file = "crates/core/src/plan.rs";
    for text in [
        "use std::fs;",
        "use std::{collections::BTreeMap, fs::File};",
        "use std::{self, net};",
        "fn f() { std::thread::spawn(g); }",
        "use std::time::{Duration, SystemTime};",
        "fn f() { let now = Instant::now(); }",
        "use tokio::sync::mpsc;",
        "#[cfg(test)] mod tests { use std::fs; }",
    ] {
        assert!(only(file, text).contains("not allowed"), "{text}");
    }
    clean(
        file,
        "use std::{collections::BTreeMap, fmt}; use std::time::Duration;",
    );
    clean(
        file,
        "// std::fs\nconst A: &str = \"std::fs\"; /* tokio::x */ fn f() -> my::fs::X {}",
    );
    clean("crates/left/src/disk/mod.rs", "use std::fs;");
}

#[test]
fn sql_stays_in_the_store() {
    let file = "crates/left/src/daemon/mod.rs";
    assert!(only(file, "use rusqlite::Connection;").starts_with(&format!("{file}:1: rusqlite")));
    assert!(only("crates/sim/src/lib.rs", "\n\nuse rusqlite as db;").contains("lib.rs:3:"));
    clean("crates/left/src/store/mod.rs", "use rusqlite::Connection;");
}

#[test]
fn globs_only_in_tests() {
    let file = "crates/sim/src/world.rs";
    assert!(only(file, "use super::*;").contains("glob import"));
    assert!(only(file, "use crate::{a, b::*};").contains("`crate::b::*`"));
    clean(file, "#[cfg(test)]\nmod tests { use super::*; }");
    clean(file, "#[cfg(test)]\nuse crate::a::*;");
    clean(file, "use clap::builder::*;");
    // What follows a test item is no test any more.
    assert!(only(file, "#[cfg(test)]\nmod tests { fn f() {} }\nuse super::*;").contains(":3:"));
}

#[test]
fn tests_in_files_of_their_own_are_tests() {
    let found = house(&[
        ("crates/left/src/net/mod.rs", "#[cfg(test)]\nmod tests;"),
        (
            "crates/left/src/net/tests.rs",
            "use super::*;\nuse crate::daemon;",
        ),
        ("crates/left/src/net/tests/deep.rs", "use super::*;"),
        (
            "crates/left/src/home.rs",
            "#[cfg(test)]\n#[path = \"home_tests.rs\"]\nmod tests;",
        ),
        ("crates/left/src/home_tests.rs", "use super::*;"),
        ("crates/left/src/api.rs", "#[cfg(test)]\nmod fakes;"),
        ("crates/left/src/api/fakes.rs", "use super::*;"),
        ("crates/left/src/api/other.rs", "use super::*;"),
    ]);
    let files: Vec<&str> = found
        .violations
        .iter()
        .map(|found| found.file.as_str())
        .collect();
    assert_eq!(
        files,
        ["crates/left/src/api/other.rs"],
        "{:?}",
        found.violations
    );
}

#[test]
fn unfinished_work() {
    for name in ["todo", "unimplemented", "dbg"] {
        let text = format!("fn f() {{\n    {name}!(\"later\")\n}}");
        assert!(
            only("crates/left/src/home.rs", &text).contains(":2:"),
            "{name}"
        );
    }
    clean(
        "crates/left/src/home.rs",
        "// todo!()\nfn f() { if todo != 1 {} }",
    );
}

#[test]
fn floors() {
    let up = only("crates/core/src/path.rs", "use crate::engine::Engine;");
    assert!(up.contains("`path` uses `engine`, which is on a higher floor"));
    assert!(only("crates/core/src/path.rs", "use super::plan;").contains("higher floor"));
    assert!(
        only(
            "crates/left/src/net/tls.rs",
            "fn f() { crate::daemon::run() }"
        )
        .contains("`net` uses `daemon`")
    );
    assert!(only("crates/left/src/net/tls.rs", "use super::super::api;").contains("`api`"));
    assert!(only("crates/left/src/net/mod.rs", "use crate::disk::Disk;").contains("same floor"));
    assert!(only("crates/left/src/gadget.rs", "").contains("has no floor"));
    clean("crates/left/src/util.rs", "use crate::error::Error;");
    clean(
        "crates/left/src/net/tls.rs",
        "use super::listen; use crate::net::x; use crate::home;",
    );
    clean(
        "crates/left/src/cli/mod.rs",
        "use crate::{api, daemon::{self, Daemon}};",
    );
    clean(
        "crates/core/src/path.rs",
        "#[cfg(test)] mod tests { use crate::engine::Engine; }",
    );
    clean("crates/core/src/lib.rs", "pub use crate::engine::Engine;");
}

#[test]
fn imports_are_spread_out() {
    let source = Source::parse("pub use a::{self, b as c, d::{e, f::{g, *}}, h};\nuse i;");
    let paths: Vec<String> = source
        .paths
        .iter()
        .map(|path| path.parts.join("::"))
        .collect();
    assert_eq!(
        paths,
        [
            "a",
            "a::b",
            "a::d::e",
            "a::d::f::g",
            "a::d::f::*",
            "a::h",
            "i"
        ]
    );
    assert_eq!(source.paths.last().map(|path| path.line), Some(2));
}

#[test]
fn texts_are_no_code() {
    let source = Source::parse(
        "const A: &str = r#\"x::y \" \"#; const B: char = '\"'; const C: &[u8] = b\"x::y\\\"\";\n\
         fn f<'a>(_: &'a str) { g::h('\\'', 'x') } /* x /* x::y */ x::y */ // x::y\n\
         const D: &str = \"a\n b\"; use last;",
    );
    let paths: Vec<String> = source
        .paths
        .iter()
        .map(|path| path.parts.join("::"))
        .collect();
    assert_eq!(paths, ["g::h", "last"]);
    assert_eq!(source.paths.last().map(|path| path.line), Some(4));
}
