//! `cargo xtask deb`: the program, its manual pages and completions, and a systemd user unit, as a Debian
//! package in `target/debian`. What goes where stands in `crates/left/Cargo.toml`.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::workspace;

pub fn run() -> Result<ExitCode> {
    let root = workspace::root();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run_in(
        &root,
        Command::new(&cargo).args(["build", "--release", "--locked", "-p", "left"]),
    )?;
    let left = root.join("target/release/left");
    let made = root.join("target/deb");
    let man = made.join("man");
    fs::create_dir_all(&man).with_context(|| format!("cannot make {}", man.display()))?;
    run_in(&root, Command::new(&left).arg("man").arg(&man))?;
    for (shell, name) in [
        ("bash", "left.bash"),
        ("zsh", "_left"),
        ("fish", "left.fish"),
    ] {
        let file = made.join(name);
        let out =
            File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
        run_in(
            &root,
            Command::new(&left).args(["completions", shell]).stdout(out),
        )?;
    }
    run_in(
        &root,
        // Without the names of functions, as packages are.
        Command::new(&cargo).args(["deb", "--no-build", "--strip", "-p", "left"]),
    )
    .context("is cargo-deb there? `cargo install cargo-deb`")?;
    Ok(ExitCode::SUCCESS)
}

fn run_in(root: &Path, command: &mut Command) -> Result<()> {
    let text = format!("{command:?}");
    let status = command.current_dir(root).status();
    let status = status.with_context(|| format!("cannot run {text}"))?;
    ensure!(status.success(), "{text} failed");
    Ok(())
}
