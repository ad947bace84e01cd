//! Completions and manual pages, made from the command line's own description.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use serde::Serialize;

use super::args::RawArgs;
use super::output::Output;
use crate::home::UserError;

/// With `--json`.
#[derive(Serialize)]
struct Text {
    text: String,
}

fn print(bytes: &[u8], out: Output) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    match out.json() {
        true => out.object(&Text { text }),
        false => out.text(&text),
    }
}

pub(super) fn completions(shell: Shell, out: Output) {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut RawArgs::command(), "left", &mut text);
    print(&text, out);
}

/// One page on stdout, or all pages into a folder.
pub(super) fn man(dir: Option<&Path>, out: Output) -> Result<(), UserError> {
    let error = |e: std::io::Error| {
        let dir = dir.unwrap_or(Path::new("stdout"));
        UserError::io("cannot write manual pages to", dir, &e)
    };
    if let Some(dir) = dir {
        clap_mangen::generate_to(RawArgs::command(), dir).map_err(error)?;
        if out.json() {
            out.object(&crate::api::Done {});
        }
        return Ok(());
    }
    let mut text = Vec::new();
    Man::new(RawArgs::command())
        .render(&mut text)
        .map_err(error)?;
    print(&text, out);
    Ok(())
}
