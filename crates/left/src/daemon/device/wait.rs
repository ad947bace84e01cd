//! Waiting until all are identical.

use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use left_core::message::ShareId;

use super::super::ask::Msg;
use super::super::handle::{Exit, Missing, State, UserError};
use super::{Device, lock};

/// How often the state is looked at while waiting for a peer to come.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Device {
    /// Waits until a share runs, if this device has any: a left that just starts answers before.
    pub(super) fn wait_for_start(&self, deadline: Instant) -> Result<(), UserError> {
        while lock(&self.shares).is_empty() && !self.home.shares()?.is_empty() {
            if Instant::now() >= deadline {
                let error = UserError::new("not in sync", "no share runs", "see `left status`");
                return Err(error.exit(Exit::NotInSync));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    pub(super) fn wait_one(
        &self,
        id: ShareId,
        deadline: Instant,
    ) -> Result<Option<Missing>, UserError> {
        let shares = lock(&self.shares);
        let Some(running) = shares.get(&id) else {
            return Ok(None);
        };
        let (tx, board, path) = (
            running.tx.clone(),
            running.board.clone(),
            running.path.clone(),
        );
        drop(shares);
        let missing = |why: &str| {
            let status = board.read();
            let peers = status.iter().flat_map(|s| &s.peers);
            let most = peers
                .map(|p| (p.need_files, p.need_bytes))
                .max()
                .unwrap_or_default();
            let ours = status
                .as_ref()
                .map(|s| (s.need_files, s.need_bytes))
                .unwrap_or_default();
            Some(Missing {
                share: path.clone(),
                state: status.map_or(State::Syncing, |s| s.state),
                need_files: ours.0.max(most.0),
                need_bytes: ours.1.max(most.1),
                why: why.to_owned(),
            })
        };
        // Without a peer there is nothing to be identical with: wait for one to come.
        loop {
            match board.read() {
                Some(s) if s.state == State::Alarm => {
                    return Ok(missing("the share is in alarm: see `left status`"));
                }
                Some(s) if s.peers.iter().any(|p| p.connected) => break,
                _ if Instant::now() >= deadline => return Ok(missing("no peer is connected")),
                _ => std::thread::sleep(LOOK_EVERY),
            }
        }
        let (reply, done) = bounded(1);
        if tx.send(Msg::Wait(reply)).is_err() {
            return Ok(missing("the share is stopping"));
        }
        match done.recv_deadline(deadline) {
            Ok(()) => Ok(None),
            Err(_) => Ok(missing("not everything is on both sides yet")),
        }
    }
}
