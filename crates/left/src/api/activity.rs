//! What happened lately, kept for those who look later.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use utoipa::ToSchema;

use crate::daemon::handle::DaemonEvent;

/// How much is kept.
const MAX_KEPT: usize = 400;
/// Files received one after the other within so many seconds are one entry.
const TOGETHER: u64 = 60;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Activity {
    /// Unix seconds.
    pub time: u64,
    /// How many files, when several were received one after the other; the event is the last of them.
    pub count: u64,
    /// Bytes of all these.
    pub bytes_in_all: u64,
    /// What.
    #[serde(flatten)]
    pub event: DaemonEvent,
}

#[derive(Default)]
pub(super) struct Log(Mutex<(VecDeque<Activity>, u64)>);

impl Log {
    pub(super) fn read(&self) -> Vec<Activity> {
        self.lock().0.iter().cloned().collect()
    }

    /// How many events there were; changes whenever there is more to read.
    pub(super) fn count(&self) -> u64 {
        self.lock().1
    }

    /// Keeps what happens until the daemon is gone.
    pub(super) async fn follow(&self, mut events: Receiver<DaemonEvent>) {
        loop {
            let event = match events.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(n)) => DaemonEvent::Notice {
                    text: format!("{n} events came too fast to be kept"),
                },
                Err(RecvError::Closed) => return,
            };
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            self.add(event, now.map_or(0, |t| t.as_secs()));
        }
    }

    fn add(&self, event: DaemonEvent, time: u64) {
        let bytes = match &event {
            DaemonEvent::State { .. } | DaemonEvent::Progress { .. } => return,
            // Whoever made it was told; here it would be a key lying about.
            DaemonEvent::Ticket(_) | DaemonEvent::Pairing(_) => return,
            DaemonEvent::FileReceived { bytes, .. } => *bytes,
            _ => 0,
        };
        let (kept, count) = &mut *self.lock();
        *count += 1;
        if let Some(last) = kept.back_mut()
            && share_of_received(&last.event).is_some()
            && share_of_received(&last.event) == share_of_received(&event)
            && time.saturating_sub(last.time) <= TOGETHER
        {
            last.time = time;
            last.count += 1;
            last.bytes_in_all = last.bytes_in_all.saturating_add(bytes);
            last.event = event;
            return;
        }
        if kept.len() == MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back(Activity {
            time,
            count: 1,
            bytes_in_all: bytes,
            event,
        });
    }

    fn lock(&self) -> MutexGuard<'_, (VecDeque<Activity>, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn share_of_received(event: &DaemonEvent) -> Option<&std::path::Path> {
    match event {
        DaemonEvent::FileReceived { share, .. } => Some(share),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(path: &str) -> DaemonEvent {
        DaemonEvent::FileReceived {
            share: "/s".into(),
            path: path.into(),
            bytes: 5,
        }
    }

    #[test]
    fn many_files_are_one_entry_and_old_ones_give_way() {
        let log = Log::default();
        for n in 0..1000 {
            log.add(received(&n.to_string()), 100 + n / 100);
        }
        let kept = log.read();
        assert_eq!((kept.len(), kept[0].count), (1, 1000));
        // The event's own fields stand beside it in JSON.
        let json = serde_json::to_value(&kept[0]).unwrap();
        assert_eq!(
            (&json["bytes_in_all"], &json["bytes"], &json["path"]),
            (&5000.into(), &5.into(), &"999".into())
        );
        log.add(received("later"), 1000);
        assert_eq!(log.read().len(), 2);
        for n in 0..MAX_KEPT {
            let text = n.to_string();
            log.add(DaemonEvent::Notice { text }, 2000);
        }
        let kept = log.read();
        assert_eq!(kept.len(), MAX_KEPT);
        assert_eq!(kept[0].event, DaemonEvent::Notice { text: "0".into() });
        assert_eq!(log.count(), 1001 + MAX_KEPT as u64);
    }
}
