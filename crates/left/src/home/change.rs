//! Changing `config.toml` for its user: only the values that are meant, so that comments and the rest
//! stay as they were written.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use toml_edit::{Array, DocumentMut, Item, Table, value};

use super::config::{self, Config};
use super::error::UserError;
use super::files;
use super::folder::clean;

/// What can be changed so: nothing that could keep left from being reached, or from starting.
const KEYS: [&str; 8] = [
    "name",
    "discovery",
    "bandwidth.up",
    "bandwidth.down",
    "bandwidth.schedule",
    "history.days",
    "history.max_percent",
    "history.keep",
];
/// Longest text, and most lines.
const MAX_TEXT: usize = 200;
const MAX_LINES: usize = 50;

/// A value of `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// Yes or no.
    Flag(bool),
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
    /// Lines.
    Lines(Vec<String>),
}

/// Sets values by their names (`history.days`), or takes them out (`None`: the default holds), durably
/// and all together, or none where the result would not be valid.
pub(super) fn change(
    path: &Path,
    changes: &BTreeMap<String, Option<Setting>>,
) -> Result<Config, UserError> {
    let what = "cannot change the settings";
    // Where it is a link, the file that it leads to is the user's; a link stays one.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let bytes = files::read(path).map_err(|e| UserError::io(what, path, &e))?;
    let text = String::from_utf8(bytes.unwrap_or_default())
        .map_err(|e| UserError::new(format!("{what} {}", clean(path)), e, "correct the file"))?;
    let mut document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| {
        let first = e.message().to_owned();
        UserError::new(
            format!("{what} {}", clean(path)),
            first,
            "correct the file first",
        )
    })?;
    for (key, setting) in changes {
        set(&mut document, key, setting.as_ref())
            .map_err(|why| UserError::usage(format!("cannot change `{key}`"), why, ""))?;
    }
    let text = document.to_string();
    let config = config::parse(what, path, &text, "nothing was changed")
        .map_err(|e| e.exit(super::Exit::Usage))?;
    let mode = std::fs::metadata(path).map_or(0o600, |m| m.permissions().mode() & 0o777);
    files::write_atomic(path, text.as_bytes(), mode).map_err(|e| UserError::io(what, path, &e))?;
    Ok(config)
}

fn set(document: &mut DocumentMut, key: &str, setting: Option<&Setting>) -> Result<(), String> {
    if !KEYS.contains(&key) {
        return Err(format!("only these can be: {}", KEYS.join(", ")));
    }
    let (table, name) = match key.split_once('.') {
        Some((table, name)) => {
            let item = document
                .entry(table)
                .or_insert_with(|| Item::Table(Table::new()));
            let table = item.as_table_like_mut();
            (
                table.ok_or_else(|| format!("`{key}` is no table in the file"))?,
                name,
            )
        }
        None => (
            document.as_table_mut() as &mut dyn toml_edit::TableLike,
            key,
        ),
    };
    let new = match setting {
        None => {
            table.remove(name);
            return Ok(());
        }
        Some(Setting::Flag(flag)) => value(*flag),
        Some(Setting::Number(number)) => value(*number),
        Some(Setting::Text(text)) => value(checked(text)?),
        Some(Setting::Lines(lines)) if lines.len() > MAX_LINES => {
            return Err(format!("it has more than {MAX_LINES} lines"));
        }
        Some(Setting::Lines(lines)) => {
            let mut array = Array::new();
            for line in lines {
                array.push(checked(line)?);
            }
            value(array)
        }
    };
    match table.get_mut(name) {
        // What stands around the value (a comment behind it) stays.
        Some(Item::Value(old)) => {
            let around = old.decor().clone();
            if let Ok(mut new) = new.into_value() {
                *new.decor_mut() = around;
                *old = new;
            }
        }
        _ => {
            table.insert(name, new);
        }
    }
    Ok(())
}

fn checked(text: &str) -> Result<&str, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
        return Err("it is too long, or not plain text".into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(all: &[(&str, Option<Setting>)]) -> BTreeMap<String, Option<Setting>> {
        let own = |(k, v): &(&str, Option<Setting>)| ((*k).to_owned(), v.clone());
        all.iter().map(own).collect()
    }

    #[test]
    fn comments_and_the_rest_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let before = "# mine\nname = \"attic\" # upstairs\nfuture = [1,\n  2] # kept\n\n[history]\n# few\ndays = 7\n";
        std::fs::write(&path, before).unwrap();
        let config = change(
            &path,
            &changes(&[
                ("name", Some(Setting::Text("cellar".into()))),
                ("history.days", Some(Setting::Number(9))),
                ("discovery", Some(Setting::Flag(false))),
                ("bandwidth.up", Some(Setting::Text("5MB".into()))),
            ]),
        )
        .unwrap();
        assert_eq!(config.name.as_deref(), Some("cellar"));
        assert_eq!((config.history.days, config.discovery), (9, false));
        assert_eq!(config.bandwidth.rate.up, Some(5_000_000));
        let after = std::fs::read_to_string(&path).unwrap();
        for line in [
            "# mine",
            "name = \"cellar\" # upstairs",
            "future = [1,\n  2] # kept",
            "# few",
            "days = 9",
        ] {
            assert!(after.contains(line), "{line}: {after}");
        }
        change(&path, &changes(&[("name", None), ("bandwidth.up", None)])).unwrap();
        let config = config::load(&path).unwrap();
        assert_eq!((config.name, config.bandwidth.rate.up), (None, None));
    }

    #[test]
    fn what_would_not_be_valid_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "# mine\n").unwrap();
        for (key, setting) in [
            ("history.days", Setting::Number(0)),
            ("history.days", Setting::Text("many".into())),
            ("bandwidth.up", Setting::Text("1".into())),
            ("bandwidth.schedule", Setting::Lines(vec!["always".into()])),
            ("name", Setting::Text("a\nb".into())),
            ("name", Setting::Text(" ".into())),
            ("listen", Setting::Text("1.2.3.4".into())),
            ("discovery", Setting::Text("perhaps".into())),
        ] {
            assert!(
                change(&path, &changes(&[(key, Some(setting))])).is_err(),
                "{key}"
            );
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "# mine\n");
        // Nor is a file that is not understood replaced.
        std::fs::write(&path, "name = \n").unwrap();
        let flag = changes(&[("discovery", Some(Setting::Flag(true)))]);
        let e = change(&path, &flag).unwrap_err().to_string();
        assert!(e.contains("config.toml"), "{e}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "name = \n");
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("real.toml"), dir.path().join("config.toml"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        change(
            &link,
            &changes(&[("discovery", Some(Setting::Flag(false)))]),
        )
        .unwrap();
        assert!(link.is_symlink());
        assert!(!config::load(&file).unwrap().discovery);
        // There is none yet.
        let new = dir.path().join("new.toml");
        change(
            &new,
            &changes(&[("history.keep", Some(Setting::Number(5)))]),
        )
        .unwrap();
        assert_eq!(config::load(&new).unwrap().history.keep, 5);
    }
}
