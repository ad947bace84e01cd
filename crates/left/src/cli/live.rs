//! Progress bars on a terminal: one line a share, one a long transfer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::format;
use crate::daemon::handle::{ShareStatus, State, Status};
use crate::home::clean;

/// Most transfers drawn for one share.
const MAX_TRANSFERS: usize = 4;

/// The bars that are drawn now: lines printed meanwhile must not tear them.
static DRAWN: Mutex<Option<MultiProgress>> = Mutex::new(None);

/// Runs `print` while no bar is on the screen.
pub(super) fn suspend<T>(print: impl FnOnce() -> T) -> T {
    let drawn = DRAWN.lock().ok().and_then(|d| d.clone());
    match drawn {
        Some(bars) => bars.suspend(print),
        None => print(),
    }
}

/// Bars that [`suspend`] knows of.
fn drawn() -> MultiProgress {
    let bars = MultiProgress::new();
    if let Ok(mut drawn) = DRAWN.lock() {
        *drawn = Some(bars.clone());
    }
    bars
}

/// Draws one bar until [`hide`].
pub(super) fn show(bar: &ProgressBar) -> ProgressBar {
    drawn().add(bar.clone())
}

/// No bar is drawn any more.
pub(super) fn hide() {
    if let Ok(mut drawn) = DRAWN.lock() {
        *drawn = None;
    }
}

/// Live bars, gone when dropped.
pub(super) struct Live {
    bars: MultiProgress,
    shares: BTreeMap<PathBuf, ShareBars>,
}

struct ShareBars {
    main: ProgressBar,
    transfers: BTreeMap<String, ProgressBar>,
    /// The most bytes needed since the share was in sync: the length of the bar.
    most: u64,
}

impl Live {
    pub(super) fn new() -> Self {
        let bars = drawn();
        Self {
            bars,
            shares: BTreeMap::new(),
        }
    }

    pub(super) fn draw(&mut self, status: &Status) {
        self.shares.retain(|path, bars| {
            let stays = status.shares.iter().any(|s| s.path == *path);
            if !stays {
                bars.clear();
            }
            stays
        });
        for share in &status.shares {
            let bars = self
                .shares
                .entry(share.path.clone())
                .or_insert_with(|| ShareBars {
                    main: self.bars.add(ProgressBar::no_length()),
                    transfers: BTreeMap::new(),
                    most: 0,
                });
            bars.draw(&self.bars, share);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.shares.values_mut().for_each(ShareBars::clear);
        hide();
    }
}

impl ShareBars {
    fn draw(&mut self, all: &MultiProgress, share: &ShareStatus) {
        let need = needed(share);
        let text = share_text(share);
        if share.state == State::Syncing && need > 0 {
            self.most = self.most.max(need);
            self.main.set_style(style("{prefix} {bar:30} {msg}"));
            self.main.set_length(self.most);
            self.main.set_position(self.most - need);
        } else {
            self.most = 0;
            self.main.set_style(style("{prefix} {msg}"));
        }
        self.main.set_prefix(clean(&share.path));
        self.main.set_message(text);
        self.main.tick();
        self.draw_transfers(all, share);
    }

    fn draw_transfers(&mut self, all: &MultiProgress, share: &ShareStatus) {
        self.transfers.retain(|path, bar| {
            let stays = share.transfers.iter().any(|t| t.path == *path);
            if !stays {
                bar.finish_and_clear();
                all.remove(bar);
            }
            stays
        });
        for t in &share.transfers {
            if !self.transfers.contains_key(&t.path) && self.transfers.len() >= MAX_TRANSFERS {
                continue;
            }
            let bar = self.transfers.entry(t.path.clone()).or_insert_with(|| {
                let bar = all.insert_after(&self.main, ProgressBar::new(t.total));
                bar.set_style(style("  {bar:30} {msg}"));
                bar
            });
            let (done, total) = (format::bytes(t.done), format::bytes(t.total));
            bar.set_length(t.total);
            bar.set_position(t.done);
            bar.set_message(format!("{done} of {total} {}", format::text(&t.path)));
        }
    }

    fn clear(&mut self) {
        for bar in self.transfers.values() {
            bar.finish_and_clear();
        }
        self.main.finish_and_clear();
    }
}

/// Bytes still to move, here or at the peer that needs most.
pub(super) fn needed(share: &ShareStatus) -> u64 {
    let peers = share.peers.iter().filter(|p| p.connected);
    share.need_bytes + peers.map(|p| p.need_bytes).max().unwrap_or(0)
}

fn share_text(share: &ShareStatus) -> String {
    let connected = share.peers.iter().filter(|p| p.connected);
    let peers = format::count(connected.clone().count() as u64, "peer");
    let state = share.state.name();
    if share.state != State::Syncing {
        return format!("{state}, {peers}, {}", format::count(share.files, "file"));
    }
    let rate: u64 = connected.map(|p| p.rate_in + p.rate_out).sum();
    let need = needed(share);
    let mut text = format!(
        "{state}, {peers}, {} left, {}/s",
        format::bytes(need),
        format::bytes(rate)
    );
    if let Some(secs) = need.checked_div(rate)
        && secs > 0
    {
        text.push_str(&format!(", {}", format::time(Duration::from_secs(secs))));
    }
    text
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
