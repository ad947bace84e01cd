//! What only the process that left runs in can do: who serves the API hands it over.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::daemon::handle::Reloaded;
use crate::home::UserError;

/// See the module's text.
pub struct Hooks {
    /// Reads the settings anew.
    pub reload: Box<dyn Fn() -> Result<Reloaded, UserError> + Send + Sync>,
    /// Sets the log's filter, if one is given; returns what holds then.
    pub log_level: LogLevelHook,
}

/// See [`Hooks::log_level`].
pub type LogLevelHook = Box<dyn Fn(Option<&str>) -> Result<LogLevel, UserError> + Send + Sync>;

/// What the log says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct LogLevel {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`), or a filter such as `warn,left::net=trace`.
    pub filter: String,
}
