//! `cargo xtask bench --limits`: what the machine itself gives. Measured by an example of the program,
//! which is built as the program is.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::figures::Gauge;
use crate::workspace;

/// Measures everything, in a minute; `work` is a folder on the file system that counts.
pub fn measure(work: &Path) -> Result<Vec<Gauge>> {
    let output = Command::new(workspace::cargo())
        .args(["run", "--quiet", "--release", "--package", "left"])
        .args(["--example", "limits", "--"])
        .arg(work)
        .current_dir(workspace::root())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "the limits were not measured");
    serde_json::from_slice(&output.stdout).context("cannot read the limits")
}
