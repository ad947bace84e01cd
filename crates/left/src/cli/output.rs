//! Stdout and stderr. A reader that went away (`left status | head`) never ends a running left.

use std::io::Write;

use serde::Serialize;

use crate::home::UserError;

/// How to talk to who started the program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
    verbose: u8,
}

impl Output {
    pub(super) fn new(json: bool, verbose: u8) -> Self {
        Self { json, verbose }
    }

    /// JSON lines are wanted, and nothing else on stdout.
    pub(super) fn json(self) -> bool {
        self.json
    }

    pub(super) fn verbose(self) -> bool {
        self.verbose > 0
    }

    /// A line on stdout.
    pub(super) fn line(self, line: &str) {
        let mut stdout = std::io::stdout().lock();
        let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    }

    /// A text on stdout that has its own line ends.
    pub(super) fn text(self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
    }

    /// A JSON line on stdout.
    pub(super) fn object(self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(line) => self.line(&line),
            Err(e) => tracing::error!("cannot write an answer as JSON: {e}"),
        }
    }

    /// A JSON line for each, all written at once.
    pub(super) fn objects(self, values: &[impl Serialize]) {
        let mut text = String::new();
        for value in values {
            match serde_json::to_string(value) {
                Ok(line) => text.extend([&line, "\n"]),
                Err(e) => tracing::error!("cannot write an answer as JSON: {e}"),
            }
        }
        self.text(&text);
    }

    /// A remark on stderr.
    pub(super) fn note(self, line: &str) {
        let _ = writeln!(std::io::stderr().lock(), "left: {line}");
    }

    pub(super) fn error(self, error: &UserError) {
        #[derive(Serialize)]
        struct Failed<'a> {
            event: &'static str,
            #[serde(flatten)]
            error: &'a UserError,
        }
        self.note(&error.to_string());
        if self.json {
            self.object(&Failed {
                event: "error",
                error,
            });
        }
    }
}
