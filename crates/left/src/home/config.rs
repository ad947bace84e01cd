//! What the user may set for this device.

use std::path::Path;

use serde::Deserialize;

use super::bandwidth::BandwidthConfig;
use super::error::UserError;
use super::files;
use super::folder::clean;
use super::record::bad_toml;

/// `config.toml`: the user's. Left changes single values in it when its user asks for that on the page
/// (comments survive). The command line goes before it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The device's name as peers see it; default the host name.
    pub name: Option<String>,
    /// Where to listen: `PORT`, `:PORT`, `HOST` or `HOST:PORT`; default port 20201 on all
    /// addresses.
    pub listen: Option<String>,
    /// Addresses under which peers reach this device, `HOST` or `HOST:PORT`; default the
    /// machine's own.
    pub advertise: Vec<String>,
    /// Find members on the local network and be found there; default true.
    pub discovery: bool,
    /// The page's port on loopback; default any free one.
    pub web_port: Option<u16>,
    /// Which old versions are kept.
    pub history: HistoryConfig,
    /// Where Prometheus finds its numbers.
    pub metrics: Option<MetricsConfig>,
    /// How fast all shares together may be.
    pub bandwidth: BandwidthConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: None,
            listen: None,
            advertise: Vec::new(),
            discovery: true,
            web_port: None,
            history: HistoryConfig::default(),
            bandwidth: BandwidthConfig::default(),
            metrics: None,
        }
    }
}

/// `[history]`: which versions of replaced and deleted files are kept. They thin out with age all the
/// same: all of the last day, one an hour of the last week, then one a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HistoryConfig {
    /// For how many days; 1 to 36500, default 30.
    pub days: u32,
    /// Percent of the disk's size that they may take; 1 to 90, default 10. What was replaced or
    /// deleted during the last day is kept beyond that as long as the disk has room.
    pub max_percent: u32,
    /// Most versions of one file; default 0: no limit.
    pub keep: u32,
}

/// `[metrics]`: a port on loopback where `GET /metrics` answers to whoever shows the token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MetricsConfig {
    /// The port.
    pub port: u16,
    /// What Prometheus has to show, as `Authorization: Bearer TOKEN`; at least 16 characters.
    pub token: String,
}

impl MetricsConfig {
    const SHORTEST: usize = 16;

    fn check(&self) -> Result<(), &'static str> {
        let plain = self.token.bytes().all(|b| b.is_ascii_graphic());
        if self.token.len() < Self::SHORTEST || !plain {
            return Err("`token` of [metrics] is 16 characters or more, without spaces");
        }
        Ok(())
    }
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            days: 30,
            max_percent: 10,
            keep: 0,
        }
    }
}

impl HistoryConfig {
    fn check(self) -> Result<(), &'static str> {
        if !(1..=36_500).contains(&self.days) {
            return Err("`days` of [history] is 1 to 36500");
        }
        if !(1..=90).contains(&self.max_percent) {
            return Err("`max_percent` of [history] is 1 to 90");
        }
        Ok(())
    }
}

pub(super) fn load(path: &Path) -> Result<Config, UserError> {
    let what = "cannot read the settings";
    let bytes = files::read(path).map_err(|e| UserError::io(what, path, &e))?;
    let Some(bytes) = bytes else {
        return Ok(Config::default());
    };
    let todo = "correct it, or move the file away";
    parse(what, path, &String::from_utf8_lossy(&bytes), todo)
}

/// Names in a text that are no settings, such as `history.dasy`: they count for nothing, which who
/// mistyped one wants to know.
pub(super) fn unknown(text: &str) -> Vec<String> {
    const KNOWN: [(&str, &[&str]); 8] = [
        ("name", &[]),
        ("listen", &[]),
        ("advertise", &[]),
        ("discovery", &[]),
        ("web_port", &[]),
        ("history", &["days", "max_percent", "keep"]),
        ("metrics", &["port", "token"]),
        ("bandwidth", &["up", "down", "schedule"]),
    ];
    let table: toml::Table = toml::from_str(text).unwrap_or_default();
    let mut found = Vec::new();
    for (name, value) in &table {
        match (KNOWN.iter().find(|(known, _)| known == name), value) {
            (None, _) => found.push(name.clone()),
            (Some((_, inner)), toml::Value::Table(table)) if !inner.is_empty() => {
                let others = table.keys().filter(|key| !inner.contains(&key.as_str()));
                found.extend(others.map(|key| format!("{name}.{key}")));
            }
            _ => {}
        }
    }
    found
}

/// The settings that a text holds; all but it is for messages.
pub(super) fn parse(what: &str, path: &Path, text: &str, todo: &str) -> Result<Config, UserError> {
    let config: Config = toml::from_str(text).map_err(|e| bad_toml(what, path, text, &e, todo))?;
    let wrong = |why| UserError::new(format!("{what} {}", clean(path)), why, todo);
    config.history.check().map_err(wrong)?;
    if let Some(metrics) = &config.metrics {
        metrics.check().map_err(wrong)?;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_defaults_and_tolerate_unknown_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        assert_eq!(load(&path).unwrap(), Config::default());
        std::fs::write(&path, "# mine\nname = \"attic\"\nfuture = 1\n").unwrap();
        assert_eq!(load(&path).unwrap().name.as_deref(), Some("attic"));
        let text =
            "name = \"a\"\nnmae = 1\n[history]\ndays = 1\ndasy = 2\n[bandwidth]\nup = \"1MB\"\n";
        assert_eq!(unknown(text), ["history.dasy", "nmae"]);
    }

    #[test]
    fn history_has_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "[history]\ndays = 7\n").unwrap();
        let history = load(&path).unwrap().history;
        assert_eq!(
            (history.days, history.max_percent, history.keep),
            (7, 10, 0)
        );
        for bad in [
            "days = 0",
            "max_percent = 0",
            "max_percent = 91",
            "days = -1",
            "keep = \"x\"",
        ] {
            std::fs::write(&path, format!("[history]\n{bad}\n")).unwrap();
            let e = load(&path).unwrap_err().to_string();
            assert!(e.contains("config.toml"), "{bad}: {e}");
        }
    }

    #[test]
    fn metrics_need_a_token_that_nobody_guesses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        for bad in [
            "port = 9",
            "port = 9\ntoken = \"short\"",
            "port = 9\ntoken = \"with a space in it\"",
        ] {
            std::fs::write(&path, format!("[metrics]\n{bad}\n")).unwrap();
            let e = load(&path).unwrap_err().to_string();
            assert!(e.contains("token"), "{bad}: {e}");
        }
        std::fs::write(&path, "[metrics]\nport = 9\ntoken = \"0123456789abcdef\"\n").unwrap();
        assert_eq!(load(&path).unwrap().metrics.unwrap().port, 9);
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "name = \"attic\"\nlisten = 7\n").unwrap();
        let e = load(&path).unwrap_err().to_string();
        assert!(e.contains("config.toml") && e.contains("line 2"), "{e}");
    }
}
