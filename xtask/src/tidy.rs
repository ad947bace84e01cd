//! `cargo xtask tidy`: the rules of the house that no compiler checks. Tidiness is a test.
//!
//! The tables come first; they are what changes.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace;
use source::Source;

mod source;
#[cfg(test)]
mod tests;

/// A file longer than this is noted, a file longer than [`HARD_LIMIT`] is a violation.
const SOFT_LIMIT: usize = 500;
const HARD_LIMIT: usize = 700;

/// One floor of a crate: its modules may import those of lower floors.
struct Floor {
    modules: &'static [&'static str],
    /// Whether they may also import each other.
    together: bool,
}

const fn floor(modules: &'static [&'static str]) -> Floor {
    Floor {
        modules,
        together: false,
    }
}

const fn together(modules: &'static [&'static str]) -> Floor {
    Floor {
        modules,
        together: true,
    }
}

/// Crate folder → its floors, lowest first. `lib.rs` names all modules and has no floor.
const HOUSE: &[(&str, &[Floor])] = &[
    (
        "crates/core",
        &[
            floor(&["probe"]),
            floor(&["path"]),
            floor(&["select"]),
            floor(&["content"]),
            floor(&["chunker"]),
            floor(&["foresight"]),
            floor(&["version"]),
            floor(&["entry"]),
            floor(&["ignore"]),
            floor(&["index"]),
            floor(&["membership"]),
            floor(&["message"]),
            floor(&["ticket"]),
            floor(&["diff"]),
            floor(&["conflict"]),
            floor(&["reconcile"]),
            floor(&["safety"]),
            floor(&["plan"]),
            floor(&["sources"]),
            floor(&["session"]),
            floor(&["engine"]),
        ],
    ),
    (
        "crates/left",
        &[
            together(&["counters", "crash", "error", "home", "util"]),
            floor(&["store", "disk", "net"]),
            floor(&["transfer"]),
            floor(&["daemon"]),
            floor(&["once"]),
            floor(&["api"]),
            floor(&["cli"]),
            floor(&["main"]),
        ],
    ),
];

/// A path that may be named only in some places.
struct Ban {
    /// Under this folder …
    within: &'static str,
    /// … but not under these.
    except: &'static [&'static str],
    path: &'static str,
    why: &'static str,
}

const fn core(path: &'static str) -> Ban {
    Ban {
        within: "crates/core",
        except: &[],
        path,
        why: "core is pure: do it at the edge",
    }
}

const BANS: &[Ban] = &[
    core("std::fs"),
    core("std::net"),
    core("std::thread"),
    core("std::time::SystemTime"),
    core("std::time::Instant::now"),
    core("Instant::now"),
    core("SystemTime::now"),
    core("tokio"),
    core("rusqlite"),
    Ban {
        within: "",
        except: &[
            "crates/left/src/store",
            // What the database gives without us.
            "crates/left/examples/limits",
        ],
        path: "rusqlite",
        why: "the only SQL is in crates/left/src/store/",
    },
];

/// Macros that belong to unfinished work.
const UNFINISHED: &[&str] = &["todo", "unimplemented", "dbg"];

/// One broken rule.
#[derive(PartialEq, Eq, Debug)]
struct Violation {
    file: String,
    line: usize,
    message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// What was found: notes do not fail.
#[derive(Default)]
struct Findings {
    violations: Vec<Violation>,
    notes: Vec<String>,
    files: usize,
}

/// Checks the workspace; the exit code says whether it is tidy.
pub fn run() -> Result<ExitCode> {
    let findings = check(&workspace::root())?;
    for note in &findings.notes {
        println!("note: {note}");
    }
    for violation in &findings.violations {
        println!("{violation}");
    }
    let count = findings.violations.len();
    println!(
        "{} files, {count} violation{}",
        findings.files,
        if count == 1 { "" } else { "s" }
    );
    Ok(if count == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Checks the workspace at `root`.
fn check(root: &Path) -> Result<Findings> {
    let mut crates: Vec<_> = fs::read_dir(root.join("crates"))
        .with_context(|| format!("{} has no crates", root.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    crates.push(root.join("xtask"));
    crates.sort();
    let mut files = Vec::new();
    for path in crates
        .iter()
        .flat_map(|folder| workspace::sources(&folder.join("src")))
    {
        let name = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
        files.push((name, Source::parse(&text), text));
    }
    let tests: Vec<String> = files
        .iter()
        .flat_map(|(name, source, _)| test_places(name, source))
        .collect();
    let mut findings = Findings {
        files: files.len(),
        ..Findings::default()
    };
    for (name, mut source, text) in files {
        let test = tests.iter().any(|place| name.starts_with(place));
        if test {
            source.paths.iter_mut().for_each(|path| path.test = true);
        }
        check_size(&name, &text, &mut findings);
        let mut report = |line: usize, message: String| {
            findings.violations.push(Violation {
                file: name.clone(),
                line,
                message,
            });
        };
        check_bans(&name, &source, &mut report);
        check_globs(&source, &mut report);
        check_macros(&source, &mut report);
        if !test {
            check_floors(&name, &source, &mut report);
        }
    }
    findings.violations.dedup();
    Ok(findings)
}

/// Where the test modules of the file `name` lie: files, and folders with a slash at the end.
fn test_places(name: &str, source: &Source) -> Vec<String> {
    let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
    let own = match file.strip_suffix(".rs") {
        None | Some("lib" | "main" | "mod") => folder.to_owned(),
        Some(stem) => format!("{folder}/{stem}"),
    };
    let places = |module: &source::Module| match &module.path {
        Some(path) => vec![format!("{folder}/{path}")],
        None => vec![
            format!("{own}/{}.rs", module.name),
            format!("{own}/{}/", module.name),
        ],
    };
    source.test_modules.iter().flat_map(places).collect()
}

fn check_size(name: &str, text: &str, findings: &mut Findings) {
    let lines = text.lines().count();
    if lines > HARD_LIMIT {
        findings.violations.push(Violation {
            file: name.to_owned(),
            line: lines,
            message: format!("{lines} lines, the limit is {HARD_LIMIT}: make two files of it"),
        });
    } else if lines > SOFT_LIMIT {
        findings.notes.push(format!(
            "{name} has {lines} lines and wants to be two files"
        ));
    }
}

/// Tests are held to this too: what a test of core reads from disk or clock, core depends on.
fn check_bans(name: &str, source: &Source, report: &mut impl FnMut(usize, String)) {
    for ban in BANS {
        let inside = |folder: &&str| name.starts_with(&format!("{folder}/"));
        if !(ban.within.is_empty() || inside(&ban.within)) || ban.except.iter().any(inside) {
            continue;
        }
        for path in source.paths.iter().filter(|path| path.is_within(ban.path)) {
            report(
                path.line,
                format!("{} is not allowed here: {}", ban.path, ban.why),
            );
        }
    }
}

fn check_globs(source: &Source, report: &mut impl FnMut(usize, String)) {
    let own = ["crate", "super", "self"];
    for path in source.paths.iter().filter(|path| path.import && !path.test) {
        let glob = path.parts.last().is_some_and(|last| last == "*");
        if glob && own.contains(&path.parts[0].as_str()) {
            let text = path.parts.join("::");
            report(
                path.line,
                format!("glob import `{text}`: name what is used"),
            );
        }
    }
}

fn check_macros(source: &Source, report: &mut impl FnMut(usize, String)) {
    for (line, name) in &source.macros {
        if UNFINISHED.contains(&name.as_str()) {
            report(*line, format!("`{name}!` must not stay"));
        }
    }
}

/// Each module of a crate in [`HOUSE`] names only modules of lower floors; its tests may look up.
fn check_floors(name: &str, source: &Source, report: &mut impl FnMut(usize, String)) {
    let Some((house, floors)) = HOUSE.iter().find(|(house, _)| name.starts_with(house)) else {
        return;
    };
    let Some(file) = name
        .strip_prefix(house)
        .and_then(|rest| rest.strip_prefix("/src/"))
    else {
        return;
    };
    let module = module_of(file);
    let Some(own) = module.first().copied().filter(|own| *own != "lib") else {
        return;
    };
    let height = |module: &str| {
        floors
            .iter()
            .position(|floor| floor.modules.contains(&module))
    };
    let Some(from) = height(own) else {
        report(
            1,
            format!("module `{own}` has no floor: add it to HOUSE in xtask/src/tidy.rs"),
        );
        return;
    };
    for path in source.paths.iter().filter(|path| !path.test) {
        let Some(target) = target_of(&module, &path.parts) else {
            continue;
        };
        let Some(to) = height(&target) else { continue };
        let sideways = to == from && target != own && !floors[from].together;
        if to > from || sideways {
            let how = if sideways {
                "the same floor"
            } else {
                "a higher floor"
            };
            report(
                path.line,
                format!("`{own}` uses `{target}`, which is on {how}"),
            );
        }
    }
}

/// The module path of a file below `src`: `net/tls.rs` → net, tls.
fn module_of(file: &str) -> Vec<&str> {
    let file = file.strip_suffix(".rs").unwrap_or(file);
    file.strip_suffix("/mod")
        .unwrap_or(file)
        .split('/')
        .collect()
}

/// The top-level module of its own crate that `path`, named in `module`, leads to.
fn target_of(module: &[&str], path: &[String]) -> Option<String> {
    if path[0] == "crate" {
        return path.get(1).cloned();
    }
    let ups = path.iter().take_while(|part| *part == "super").count();
    // `super` from a module of depth 1 is the crate; from a deeper one it stays in its own floor.
    (ups > 0 && ups == module.len())
        .then(|| path.get(ups).cloned())
        .flatten()
}
