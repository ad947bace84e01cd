//! `cargo xtask deny`: what may come in from outside, by the rules in `deny.toml`: licences, crates
//! that are not wanted, sources. Needs no other tool and no network, so CI runs it everywhere. It
//! does not know of advisories: `cargo deny check` does, with the same file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::crates::Crates;
use crate::workspace;

/// The part of `deny.toml` that is looked at here.
#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

pub fn run() -> Result<ExitCode> {
    let path = workspace::root().join("deny.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let rules: Rules = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let crates = Crates::read()?;
    let mut faults = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in crates.all() {
        let (name, version) = (&package.name, &package.version);
        versions.entry(name).or_default().insert(version);
        if let Some(banned) = rules.bans.deny.iter().find(|b| b.name == *name) {
            faults.push(format!("{name} {version} is banned: {}", banned.reason));
        }
        let Some(source) = &package.source else {
            continue;
        };
        let registry = source.strip_prefix("registry+").unwrap_or(source);
        if !rules.sources.allow_registry.iter().any(|r| r == registry) {
            faults.push(format!("{name} {version} comes from {source}"));
        }
        let license = package.license.as_deref().unwrap_or_default();
        if !allowed(license, &rules.licenses.allow) {
            faults.push(format!("{name} {version} has the licence `{license}`"));
        }
    }
    for (name, versions) in versions.iter().filter(|(_, v)| v.len() > 1) {
        let versions: Vec<&str> = versions.iter().copied().collect();
        println!("note: {name} is here in {}", versions.join(" and "));
    }
    for fault in &faults {
        println!("{fault}");
    }
    println!("{} crates, {} faults", versions.len(), faults.len());
    Ok(match faults.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Whether an SPDX expression can be met by these licences.
fn allowed(expression: &str, allow: &BTreeSet<String>) -> bool {
    // The older form `MIT/Apache-2.0` is an OR.
    let text = expression.replace('/', " OR ");
    let text = text.replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut rest = words.as_slice();
    let met = either(&mut rest, allow);
    met == Some(true) && rest.is_empty()
}

/// `None`: this is no expression.
fn either(rest: &mut &[&str], allow: &BTreeSet<String>) -> Option<bool> {
    let mut met = both(rest, allow)?;
    while let Some(after) = rest.strip_prefix(&["OR"]) {
        *rest = after;
        met |= both(rest, allow)?;
    }
    Some(met)
}

fn both(rest: &mut &[&str], allow: &BTreeSet<String>) -> Option<bool> {
    let mut met = one(rest, allow)?;
    while let Some(after) = rest.strip_prefix(&["AND"]) {
        *rest = after;
        met &= one(rest, allow)?;
    }
    Some(met)
}

fn one(rest: &mut &[&str], allow: &BTreeSet<String>) -> Option<bool> {
    let (word, after) = rest.split_first()?;
    *rest = after;
    if *word == "(" {
        let met = either(rest, allow)?;
        *rest = rest.strip_prefix(&[")"])?;
        return Some(met);
    }
    // An exception only ever allows more.
    if let [with, _, after @ ..] = rest
        && *with == "WITH"
    {
        *rest = after;
    }
    Some(allow.contains(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_met_or_not() {
        let allow = ["MIT", "Apache-2.0", "ISC"].map(str::to_owned).into();
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0 OR MIT",
            "GPL-3.0/MIT",
            "MIT AND ISC",
            "ISC AND (GPL-3.0 OR Apache-2.0)",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
            "(MIT)",
        ] {
            assert!(allowed(good, &allow), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "GPL-3.0 OR LGPL-3.0",
            "ISC AND (GPL-3.0 OR LGPL-3.0)",
            "MIT MIT",
            "MIT OR",
            "(MIT",
            "MIT)",
        ] {
            assert!(!allowed(bad, &allow), "{bad}");
        }
    }
}
