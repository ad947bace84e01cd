//! Opening the page.

use std::io::IsTerminal;
use std::process::{Command, Stdio};

use super::output::Output;
use crate::api::PageLink;

/// Shows the link and, where there is a screen and a person, has the desktop open it.
pub(super) fn open(url: &str, print: bool, out: Output) {
    if out.json() {
        let url = url.to_string();
        return out.object(&PageLink { url });
    }
    out.line(url);
    let screen = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()));
    if print || !screen || !std::io::stdout().is_terminal() {
        return;
    }
    let started = Command::new("xdg-open")
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if started.is_err() {
        out.note("no program to open it was found (xdg-open): follow the link yourself");
    }
}
