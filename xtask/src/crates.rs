//! The crates that LEFT is made of, as cargo tells.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::workspace;

/// What LEFT is built for.
const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// Part of what `cargo metadata` prints.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

/// One crate.
#[derive(Deserialize, Clone)]
pub struct Package {
    /// Cargo's name for exactly this one.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SPDX expression, where it says one.
    pub license: Option<String>,
    /// Where it comes from; `None`: from this repository.
    pub source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dep>,
}

#[derive(Deserialize)]
struct Dep {
    pkg: String,
    dep_kinds: Vec<DepKind>,
}

#[derive(Deserialize)]
struct DepKind {
    /// `None` for ordinary ones, else `dev` or `build`.
    kind: Option<String>,
}

/// All crates of the workspace and what they need, on every target.
pub struct Crates {
    packages: BTreeMap<String, Package>,
    /// Which need which to run.
    needs: BTreeMap<String, BTreeSet<String>>,
}

impl Crates {
    /// Asks cargo; the lock file must be up to date.
    pub fn read() -> Result<Self> {
        let mut crates = Self {
            packages: BTreeMap::new(),
            needs: BTreeMap::new(),
        };
        for target in TARGETS {
            let platform = ["--filter-platform", target];
            let json = cargo(
                &["metadata", "--format-version", "1", "--locked"],
                &platform,
            )?;
            let tree = ["tree", "--workspace", "--locked", "--prefix", "none"];
            let used = cargo(&tree, &["--format", "{p}", "--target", target])?;
            let metadata = serde_json::from_str(&json).context("cargo metadata")?;
            crates.add(metadata, &used);
        }
        Ok(crates)
    }

    /// `used`: lines that begin `NAME vVERSION`. The metadata alone also have crates that only a
    /// feature which is not on would need.
    fn add(&mut self, metadata: Metadata, used: &str) {
        let used: BTreeSet<(&str, &str)> = used
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?, words.next()?.strip_prefix('v')?))
            })
            .collect();
        for package in &metadata.packages {
            if used.contains(&(package.name.as_str(), package.version.as_str())) {
                self.packages.insert(package.id.clone(), package.clone());
            }
        }
        for node in &metadata.resolve.nodes {
            let ordinary = |d: &&Dep| d.dep_kinds.iter().any(|k| k.kind.is_none());
            let needs = node.deps.iter().filter(ordinary).map(|d| d.pkg.clone());
            self.needs.entry(node.id.clone()).or_default().extend(needs);
        }
    }

    /// All of them, sorted.
    pub fn all(&self) -> impl Iterator<Item = &Package> {
        self.packages.values()
    }

    /// What this crate needs to run.
    pub fn needs(&self, package: &Package) -> impl Iterator<Item = &Package> {
        let needs = self.needs.get(&package.id).into_iter().flatten();
        needs.filter_map(|id| self.packages.get(id))
    }

    /// A crate of the workspace and everything that gets into it.
    pub fn closure(&self, name: &str) -> Result<Vec<&Package>> {
        let own = |p: &&Package| p.name == name && p.source.is_none();
        let root = self.all().find(own);
        let root = root.with_context(|| format!("there is no crate {name}"))?;
        let (mut found, mut open) = (BTreeMap::new(), vec![root]);
        while let Some(package) = open.pop() {
            if found.insert(&package.id, package).is_none() {
                open.extend(self.needs(package));
            }
        }
        Ok(found.into_values().collect())
    }
}

fn cargo(command: &[&str], more: &[&str]) -> Result<String> {
    let out = Command::new(env!("CARGO"))
        .args(command)
        .args(more)
        .current_dir(workspace::root())
        .output()
        .context("cannot run cargo")?;
    if !out.status.success() {
        let why = String::from_utf8_lossy(&out.stderr);
        bail!("cargo {}: {why}", command[0]);
    }
    String::from_utf8(out.stdout).context("cargo's output")
}

#[derive(Deserialize)]
struct LockFile {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// SHA-256 of each crate from the registry, by name and version, as the lock file has it.
pub fn checksums() -> Result<BTreeMap<(String, String), String>> {
    let path = workspace::root().join("Cargo.lock");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let lock: LockFile = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let known = lock.package.into_iter();
    Ok(known
        .filter_map(|p| Some(((p.name, p.version), p.checksum?)))
        .collect())
}
