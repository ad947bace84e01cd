//! Completions and manual pages, made from the command line's own description.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::RawArgs;
use crate::home::UserError;

pub(super) fn completions(shell: Shell) {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut RawArgs::command(), "left", &mut text);
    // A closed pipe is nobody's fault.
    let _ = std::io::stdout().write_all(&text);
}

/// One page on stdout, or all pages into a folder.
pub(super) fn man(dir: Option<&Path>) -> Result<(), UserError> {
    let error = |e: std::io::Error| {
        let dir = dir.unwrap_or(Path::new("stdout"));
        UserError::io("cannot write manual pages to", dir, &e)
    };
    if let Some(dir) = dir {
        return clap_mangen::generate_to(RawArgs::command(), dir).map_err(error);
    }
    let mut text = Vec::new();
    Man::new(RawArgs::command())
        .render(&mut text)
        .map_err(error)?;
    let _ = std::io::stdout().write_all(&text);
    Ok(())
}
