//! Settings that change while left runs.

use std::sync::PoisonError;

use super::super::handle::{Options, Reloaded, UserError};
use super::address::advertised;
use super::past::history_limits;
use super::{Device, lock};

impl Device {
    /// See [`Daemon::reload`](super::super::handle::Daemon::reload).
    pub(super) fn take_settings(&self, options: &Options) -> Result<Reloaded, UserError> {
        // All that can fail comes first.
        let config = self.home.config()?;
        let mut reloaded = Reloaded::default();
        let mut changed = |name: &str, yes: bool| {
            if yes {
                reloaded.changed.push(name.to_owned());
            }
        };
        let limits = history_limits(&config);
        let mut kept = self.keep.lock().unwrap_or_else(PoisonError::into_inner);
        changed("history", std::mem::replace(&mut *kept, limits) != limits);
        drop(kept);
        changed("bandwidth", self.follow_hours());
        if let Some(net) = &self.net {
            let addresses = advertised(options, net.local_addrs());
            let mut me = lock(&self.door.me);
            changed("name", me.name != options.name);
            changed("advertise", me.addresses != addresses);
            me.name.clone_from(&options.name);
            me.addresses = addresses;
        }
        let roamer = lock(&self.roamer).clone();
        changed(
            "discovery",
            roamer.is_some_and(|r| r.set_discovery(options.discovery)),
        );
        lock(&self.door.advertise).clone_from(&options.advertise);
        if options.listen != self.options.listen {
            reloaded.restart.push("listen".to_owned());
        }
        Ok(reloaded)
    }
}
