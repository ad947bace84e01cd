//! What the user may set for this device.

use std::path::Path;

use serde::Deserialize;

use super::error::UserError;
use super::files;
use super::record::bad_toml;

/// `config.toml`: written by the user, only read by left (so comments survive). The command line
/// goes before it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
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
    /// The page's port on loopback; default any free one.
    pub web_port: Option<u16>,
}

pub(super) fn load(path: &Path) -> Result<Config, UserError> {
    let what = "cannot read the settings";
    let bytes = files::read(path).map_err(|e| UserError::io(what, path, &e))?;
    let Some(bytes) = bytes else {
        return Ok(Config::default());
    };
    let text = String::from_utf8_lossy(&bytes);
    toml::from_str(&text)
        .map_err(|e| bad_toml(what, path, &text, &e, "correct it, or move the file away"))
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
