//! The demo's live progress on stdout: a bar on a terminal, else now and then a line.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::table::Row;
use crate::cli::format;
use crate::cli::live::needed;
use crate::cli::output::Output;
use crate::daemon::handle::{Exit, Status, UserError};

/// How often a line says how far it is, where there is no terminal.
const EVERY: Duration = Duration::from_secs(5);

pub(super) struct Progress {
    out: Output,
    bar: Option<ProgressBar>,
    asked: Arc<AtomicBool>,
    most: u64,
    told: Instant,
}

impl Progress {
    /// `asked` is set once the demo shall end early.
    pub(super) fn new(json: bool, asked: Arc<AtomicBool>) -> Self {
        let bar = (!json && std::io::stdout().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            let style = ProgressStyle::with_template("{spinner} {bar:40} {elapsed} {msg}");
            bar.set_style(
                style
                    .unwrap_or_else(|_| ProgressStyle::default_bar())
                    .progress_chars("=> "),
            );
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            out: Output::new(json, 0),
            bar,
            asked,
            most: 0,
            told: Instant::now(),
        }
    }

    /// An error once the user wants the demo to end.
    pub(super) fn check(&self) -> Result<(), UserError> {
        if self.asked.load(Ordering::Relaxed) {
            return Err(UserError::new("the demo was stopped", "", "").exit(Exit::Failure));
        }
        Ok(())
    }

    /// What begins now.
    pub(super) fn step(&mut self, text: &str) {
        self.most = 0;
        if let Some(bar) = &self.bar {
            bar.reset();
            bar.set_message("");
        }
        self.line(text);
    }

    /// How far the two are.
    pub(super) fn draw(&mut self, a: &Option<Status>, b: &Option<Status>) {
        let shares = [a, b].into_iter().flatten().flat_map(|s| &s.shares);
        let rates = shares.clone().flat_map(|s| &s.peers).map(|p| p.rate_in);
        let rate: u64 = rates.sum();
        let need = shares.map(needed).max().unwrap_or(0);
        self.most = self.most.max(need);
        let done = self.most - need;
        let text = format!(
            "{} of {}, {}/s",
            format::bytes(done),
            format::bytes(self.most),
            format::bytes(rate)
        );
        if let Some(bar) = &self.bar {
            bar.set_length(self.most);
            bar.set_position(done);
            bar.set_message(text);
        } else if self.told.elapsed() > EVERY && self.most > 0 {
            self.line(&format!("  {text}"));
            self.told = Instant::now();
        }
    }

    /// A result, as it comes.
    pub(super) fn row(&self, row: &Row) {
        let equal = if row.equal() { "equal" } else { "DIFFERENT" };
        let time = row.seconds.map(|s| format!(" after {s:.1} s"));
        self.line(&format!(
            "  {} is {equal}{}",
            row.file,
            time.unwrap_or_default()
        ));
    }

    pub(super) fn close(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            _ if self.out.json() => {}
            Some(bar) => bar.suspend(|| self.out.line(text)),
            None => self.out.line(text),
        }
    }
}
