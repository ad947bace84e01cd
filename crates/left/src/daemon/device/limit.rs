//! How fast shares may be: one by command, all together by `config.toml` and the time of day.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Zoned;

use super::super::handle::Change;
use super::super::limits::{LOOK_EVERY, rate_at};
use super::{Device, failed, lock};
use crate::home::{Rate, UserError};

impl Device {
    /// Sets what a share may carry, at once and for good; returns what holds then.
    pub(super) fn set_limit(
        &self,
        dir: &Path,
        up: Change,
        down: Change,
    ) -> Result<Rate, UserError> {
        let members = self.record_of(dir)?;
        let mut rate = members.record().limit;
        rate.up = up.unwrap_or(rate.up);
        rate.down = down.unwrap_or(rate.down);
        if up.is_some() || down.is_some() {
            members.update(|r| r.limit = rate)?;
            if let Some(running) = lock(&self.shares).get(&members.id()) {
                running.limiter.set(rate);
            }
        }
        Ok(rate)
    }

    /// Sets what all shares together may carry now. Settings that can not be read change nothing.
    /// Whether that is something else than before.
    pub(super) fn follow_hours(&self) -> bool {
        match self.home.config() {
            Ok(config) => {
                let rate = rate_at(&config.bandwidth, &Zoned::now());
                self.door.limiter.set(rate)
            }
            Err(error) => {
                tracing::debug!("the limits stay as they are: {error}");
                false
            }
        }
    }
}

/// Looks at the settings and the hours from time to time, for as long as the device runs.
pub(super) fn keep(device: &Arc<Device>) -> Result<(), UserError> {
    device.follow_hours();
    if device.net.is_none() {
        return Ok(());
    }
    let weak = Arc::downgrade(device);
    let thread = std::thread::Builder::new().name("left-limits".into());
    let spawned = thread.spawn(move || {
        loop {
            std::thread::sleep(LOOK_EVERY);
            match weak.upgrade() {
                Some(device) if !device.stopped.load(Ordering::Relaxed) => {
                    device.follow_hours();
                }
                _ => return,
            }
        }
    });
    spawned.map(drop).map_err(|e| failed("cannot start", e))
}
