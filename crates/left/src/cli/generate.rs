//! Completions and manual pages, made from the command line's own description.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
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

fn print(text: String, out: Output) {
    match out.json() {
        true => out.object(&Text { text }),
        false => out.text(&text),
    }
}

pub(super) fn completions(shell: Shell, out: Output) {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut RawArgs::command(), "left", &mut text);
    print(String::from_utf8_lossy(&text).into_owned(), out);
}

/// One page on stdout, or all pages into a folder.
pub(super) fn man(dir: Option<&Path>, out: Output) -> Result<(), UserError> {
    let error = |e: io::Error| {
        let dir = dir.unwrap_or(Path::new("stdout"));
        UserError::io("cannot write manual pages to", dir, &e)
    };
    let mut all = RawArgs::command().disable_help_subcommand(true);
    all.build();
    match dir {
        Some(dir) => {
            pages(&all, dir).map_err(error)?;
            if out.json() {
                out.object(&crate::api::Done {});
            }
        }
        None => print(page(&all).map_err(error)?.1, out),
    }
    Ok(())
}

/// Those of a command and all below it.
fn pages(command: &Command, dir: &Path) -> io::Result<()> {
    let (name, text) = page(command)?;
    fs::write(dir.join(name), text)?;
    let below = command.get_subcommands().filter(|c| !c.is_hide_set());
    below.into_iter().try_for_each(|c| pages(c, dir))
}

/// A page's file name and text.
fn page(command: &Command) -> io::Result<(String, String)> {
    let page = Man::new(command.clone()).source(concat!("left ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    page.render(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut text = laid_out(&text);
    let name = page.get_filename();
    if name != "left.1" {
        // Exit codes and the environment stand there.
        text.push_str(".SH \"SEE ALSO\"\nleft(1)\n");
    }
    Ok((name, text))
}

/// What follows the options has the generator's one section, and its examples would be filled as if they
/// were prose. Here each `Title:` begins a section, and what is indented below it stays as it is.
fn laid_out(page: &str) -> String {
    let (mut extra, mut as_it_is) = (false, false);
    let mut text = String::new();
    for line in page.lines() {
        let heading = line.strip_suffix(':').filter(|l| !l.starts_with(' '));
        if line.starts_with(".SH ") {
            text.extend(as_it_is.then_some(".fi\n"));
            as_it_is = false;
            extra = line == ".SH EXTRA";
            if extra {
                continue;
            }
        } else if let (true, Some(heading)) = (extra, heading) {
            text.extend(as_it_is.then_some(".fi\n"));
            let heading = heading.to_uppercase().replace("EXIT CODES", "EXIT STATUS");
            text.push_str(&format!(".SH \"{heading}\"\n.nf\n"));
            as_it_is = true;
            continue;
        } else if as_it_is && !line.is_empty() && !line.starts_with(' ') {
            text.push_str(".fi\n.PP\n");
            as_it_is = false;
        }
        let line = if as_it_is { line.trim_start() } else { line };
        text.push_str(line);
        text.push('\n');
    }
    text.extend(as_it_is.then_some(".fi\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_in_a_manual_page_stay_as_they_are() {
        let page = ".TH left 1\n.SH OPTIONS\nSee:\n.SH EXTRA\nExamples:\n  left a   b\n  left c\n\n\
                    Exit codes:\n  0 done\nAnd more.\n.SH VERSION\nv1\n";
        assert_eq!(
            laid_out(page),
            ".TH left 1\n.SH OPTIONS\nSee:\n.SH \"EXAMPLES\"\n.nf\nleft a   b\nleft c\n\n.fi\n\
             .SH \"EXIT STATUS\"\n.nf\n0 done\n.fi\n.PP\nAnd more.\n.SH VERSION\nv1\n"
        );
        let (name, text) = page_of("restore");
        assert_eq!(name, "left-restore.1");
        assert!(
            text.contains("\"left 0.") && !text.contains("EXTRA"),
            "{text}"
        );
    }

    fn page_of(name: &str) -> (String, String) {
        let mut all = RawArgs::command();
        all.build();
        super::page(all.find_subcommand(name).unwrap()).unwrap()
    }
}
