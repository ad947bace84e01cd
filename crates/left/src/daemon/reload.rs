//! What reading the settings anew has led to.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The answer of [`Daemon::reload`](super::handle::Daemon::reload). Names of settings, as in `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// What holds now.
    pub changed: Vec<String>,
    /// What has changed too, and holds when left is started anew.
    pub restart: Vec<String>,
}

impl Reloaded {
    /// In words.
    pub fn text(&self) -> String {
        let now = match self.changed.is_empty() {
            true => "the settings were read anew, nothing changed".to_owned(),
            false => format!("the settings were read anew: {}", self.changed.join(", ")),
        };
        match self.restart.is_empty() {
            true => now,
            false => format!("{now}; only a restart changes {}", self.restart.join(", ")),
        }
    }
}
