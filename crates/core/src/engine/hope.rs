//! Half a rename: a new file with bytes that we have at another path, while the deletion of that
//! path is not told yet. It is left alone for a moment, so that nothing is copied or fetched.

use super::Engine;
use super::Now;
use super::work::Retry;
use crate::content::ContentId;
use crate::entry::Record;
use crate::path::RelPath;

/// How long to wait for the other half.
const HOPE_MS: u64 = 100;
/// Files that wait for it at once.
const MAX_HOPES: usize = 5000;

impl Engine {
    /// Whether a new file with bytes that we have elsewhere is to wait; once for each.
    pub(super) fn hope_for_rename(&mut self, now: Now, path: &RelPath, content: ContentId) -> bool {
        if self.retries.contains_key(path) || self.retries.len() >= MAX_HOPES {
            // Waited already, or something went wrong here.
            if let Some(paths) = self.hopes.get_mut(&content) {
                paths.retain(|p| p != path);
                if paths.is_empty() {
                    self.hopes.remove(&content);
                }
            }
            return false;
        }
        let at = Some(now.mono_ms + HOPE_MS);
        self.retries.insert(path.clone(), Retry { at, attempts: 0 });
        self.hopes.entry(content).or_default().push(path.clone());
        true
    }

    /// A peer deleted a file of ours: new files with its bytes need not wait any longer.
    pub(super) fn hope_fulfilled(&mut self, ours: Option<&Record>) {
        let content = ours.and_then(|r| r.entry.node.content());
        for path in content
            .and_then(|c| self.hopes.remove(&c))
            .unwrap_or_default()
        {
            self.retries.remove(&path);
            self.fresh.push(path);
        }
    }
}
