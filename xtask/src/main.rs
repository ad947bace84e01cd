//! Developer tasks of LEFT, run as `cargo xtask TASK`.
//!
//! - `bench` runs LEFT beside rsync, unison and syncthing on the same work and prints a table;
//! - `lab` does the same over a long, narrow, lossy link of our own;
//! - `chunks` tells what chunks of other sizes would cost and save;
//! - `deb` builds a Debian package;
//! - `tidy` checks the rules of the house that no compiler checks;
//! - `deny` checks licences, sources and names of all crates that are used;
//! - `sbom` prints what the program is made of;
//! - `sim` runs the simulator.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod chunks;
mod crates;
mod deb;
mod deny;
mod link;
mod sbom;
mod sim;
mod tidy;
mod workspace;

/// Developer tasks of LEFT.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure LEFT beside rsync, unison and syncthing (needs root, for network namespaces).
    Bench(bench::Args),
    /// The same over a long, narrow, lossy link (needs root and /dev/net/tun).
    Lab(bench::lab::Args),
    /// Print what chunks of other sizes would cost and save, on files before and after an edit.
    Chunks(chunks::Args),
    /// Check sizes, layers and forbidden words in the sources.
    Tidy,
    /// Check licences, sources and names of all crates that are used, by deny.toml.
    Deny,
    /// Build a Debian package (needs cargo-deb: `cargo install cargo-deb`).
    Deb,
    /// Print what the program is made of, as a CycloneDX 1.5 list in JSON.
    Sbom,
    /// Run the simulator; everything given is passed on to it.
    Sim(sim::Args),
}

fn main() -> ExitCode {
    let done = match Args::parse().task {
        Task::Bench(args) => bench::run(&args),
        Task::Lab(args) => bench::lab::run(&args),
        Task::Chunks(args) => chunks::run(&args),
        Task::Tidy => tidy::run(),
        Task::Deb => deb::run(),
        Task::Deny => deny::run(),
        Task::Sbom => sbom::run(),
        Task::Sim(args) => sim::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
