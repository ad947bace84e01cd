//! What this device knows of each of its shares, outside of the share's folder.

use std::path::{Path, PathBuf};

use left_core::membership::{Founding, Signed, StatementId};
use left_core::message::{Nonce, Role, ShareId};
use left_core::version::DeviceId;
use serde::{Deserialize, Serialize};

use super::bandwidth::Rate;
use super::choice::ChoiceRecord;
use super::error::UserError;
use super::files;
use super::folder::clean;
use super::mode::Mode;
use super::text;

/// One share of this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareRecord {
    /// Which share.
    #[serde(with = "text")]
    pub id: ShareId,
    /// Its folder here, absolute.
    #[serde(with = "text")]
    pub path: PathBuf,
    /// What this device may do.
    #[serde(with = "text")]
    pub role: Role,
    /// The user holds it still.
    #[serde(default)]
    pub paused: bool,
    /// Which way it goes here, by the user's choice.
    #[serde(with = "text", default, skip_serializing_if = "Mode::is_two_way")]
    pub mode: Mode,
    /// How fast it may be here.
    #[serde(default, skip_serializing_if = "Rate::is_unlimited")]
    pub limit: Rate,
    /// What of the share this device holds; none: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<ChoiceRecord>,
    /// How far the index was when something was dropped last, `epoch:number`: an older copy of it would
    /// take that for deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<String>,
    /// The ticket this device still has to show to get in; gone once it is a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invitation: Option<String>,
    /// A pairing by code that is not done yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairing: Option<PairingRecord>,
    /// Who let this device in, whose word counts until the membership list shows this device.
    #[serde(
        with = "text::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub sponsor: Option<DeviceId>,
    /// As what this device last worked on the folder.
    #[serde(
        with = "text::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub worked_as: Option<Role>,
    /// How the share was founded, once that is known.
    #[serde(
        with = "text::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub founding: Option<Founding>,
    /// The signed membership list.
    #[serde(with = "text::list", default, skip_serializing_if = "Vec::is_empty")]
    pub statements: Vec<Signed>,
    /// How other devices are called and where they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberRecord>,
    /// Tickets this device gave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tickets: Vec<TicketRecord>,
}

/// Another device of a share, as one meets it. Whether it is a member the statements tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its key.
    #[serde(with = "text")]
    pub device: DeviceId,
    /// Its name, for people.
    #[serde(default)]
    pub name: String,
    /// Where it may be dialed, `host:port`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// The user holds it still.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// A ticket this device gave out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketRecord {
    /// Names it on the wire.
    #[serde(with = "text")]
    pub id: Nonce,
    /// Its one-time secret.
    #[serde(with = "text")]
    pub secret: [u8; 16],
    /// What who uses it may do.
    #[serde(with = "text")]
    pub role: Role,
    /// Unix seconds after which it is void.
    pub expires: u64,
    /// What its maker knew of the membership list: a device that was removed since is not let in.
    #[serde(with = "text::list", default, skip_serializing_if = "Vec::is_empty")]
    pub knew: Vec<StatementId>,
    /// Who used it.
    #[serde(
        with = "text::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub used_by: Option<DeviceId>,
}

/// A pairing by code that is not done yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairingRecord {
    /// The key made from the code (the code itself is not kept).
    #[serde(with = "text")]
    pub key: [u8; 32],
    /// The other machine, `host:port`.
    pub peer: String,
}

impl ShareRecord {
    /// The record of a folder that just became the share `id`, read-write and alone.
    pub fn new(id: ShareId, path: PathBuf) -> Self {
        Self {
            id,
            path,
            role: Role::ReadWrite,
            paused: false,
            mode: Mode::TwoWay,
            limit: Rate::default(),
            choice: None,
            dropped: None,
            invitation: None,
            pairing: None,
            sponsor: None,
            worked_as: None,
            founding: None,
            statements: Vec::new(),
            members: Vec::new(),
            tickets: Vec::new(),
        }
    }
}

/// All records in `dir`, sorted by folder.
pub(super) fn list(dir: &Path) -> Result<Vec<ShareRecord>, UserError> {
    let entries = std::fs::read_dir(dir)
        .map_err(|e| UserError::io("cannot read the list of shares", dir, &e))?;
    let mut records = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "toml") {
            records.extend(load(&path)?);
        }
    }
    records.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(records)
}

/// A record begins and ends with these lines: without the end a part of it is missing, which would
/// else be taken for members and tickets that were never there.
const BEGIN: &str = "# The last line of this file is `# end`.\n";
const END: &str = "# end\n";

pub(super) fn load(path: &Path) -> Result<Option<ShareRecord>, UserError> {
    let what = "cannot read the record of a share";
    let todo =
        "correct it, or move the file away and join the share anew (its folder is untouched)";
    let bytes = files::read(path).map_err(|e| UserError::io(what, path, &e))?;
    let Some(bytes) = bytes else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&bytes);
    let record = toml::from_str(&text).map_err(|e| bad_toml(what, path, &text, &e, todo))?;
    if text.starts_with(BEGIN) && !text.ends_with(END) {
        let what = format!("{what} {}", clean(path));
        return Err(UserError::new(what, "its end is missing", todo));
    }
    Ok(Some(record))
}

pub(super) fn save(path: &Path, record: &ShareRecord) -> Result<(), UserError> {
    let what = "cannot write the record of the share";
    let text = toml::to_string(record)
        .map_err(|e| UserError::new(what, e, "please report it: it is a bug"))?;
    let text = format!("{BEGIN}{text}{END}");
    files::write_atomic(path, text.as_bytes(), 0o600).map_err(|e| UserError::io(what, path, &e))
}

/// A file of ours that is no TOML, or not what it should be: names the file and the line.
pub(super) fn bad_toml(
    what: &str,
    path: &Path,
    text: &str,
    error: &toml::de::Error,
    todo: &str,
) -> UserError {
    let line = error
        .span()
        .map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let place = match line {
        Some(line) => format!("{what} {} (line {line})", clean(path)),
        None => format!("{what} {}", clean(path)),
    };
    let message = error.message().trim();
    let message = [
        (
            "expected a sequence",
            "expected a list, like [\"a\", \"b\"]",
        ),
        ("expected a boolean", "expected true or false"),
        ("expected a string", "expected a text in quotes"),
        ("expected u16", "expected a number up to 65535"),
        ("expected u32", "expected a number from 0 on"),
        ("missing field", "it lacks"),
    ]
    .iter()
    .fold(message.to_owned(), |text, (from, to)| {
        text.replace(from, to)
    });
    UserError::new(place, message, todo)
}

#[cfg(test)]
mod tests {
    use left_core::membership::{Act, Statement};
    use left_core::select::Selection;

    use super::*;

    pub(crate) fn sample() -> ShareRecord {
        ShareRecord {
            id: ShareId([3; 32]),
            path: "/data/photos".into(),
            role: Role::ReadWrite,
            paused: true,
            mode: Mode::SendOnly,
            limit: Rate {
                up: Some(64_000),
                down: None,
            },
            choice: ChoiceRecord::new(&Selection::nothing()).unwrap(),
            dropped: Some("1a:7".into()),
            invitation: Some("left1abc".into()),
            pairing: Some(PairingRecord {
                key: [4; 32],
                peer: "b:20201".into(),
            }),
            sponsor: Some(DeviceId([1; 32])),
            worked_as: Some(Role::ReadOnly),
            founding: Some(Founding {
                founder: DeviceId([8; 32]),
                nonce: [9; 32],
            }),
            statements: vec![Signed {
                statement: Statement {
                    share: ShareId([3; 32]),
                    issuer: DeviceId([8; 32]),
                    subject: DeviceId([1; 32]),
                    act: Act::Admit(Role::ReadOnly),
                    under: None,
                    after: vec![StatementId([7; 32])],
                    time: 1_700_000_000,
                },
                signature: [5; 64],
            }],
            members: vec![MemberRecord {
                device: DeviceId([1; 32]),
                name: "attic \"x\"".into(),
                addresses: vec!["10.0.0.2:20201".into(), "[::1]:20201".into()],
                paused: true,
            }],
            tickets: vec![TicketRecord {
                id: [5; 16],
                secret: [6; 16],
                role: Role::ReadOnly,
                expires: 1_800_000_000,
                knew: vec![StatementId([7; 32])],
                used_by: Some(DeviceId([2; 32])),
            }],
        }
    }

    #[test]
    fn a_record_survives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        assert_eq!(load(&path).unwrap(), None);
        save(&path, &sample()).unwrap();
        assert_eq!(load(&path).unwrap(), Some(sample()));
        assert_eq!(list(dir.path()).unwrap(), vec![sample()]);
        let bare = ShareRecord::new(ShareId([3; 32]), "/data/photos".into());
        save(&path, &bare).unwrap();
        assert_eq!(load(&path).unwrap(), Some(bare));
    }

    #[test]
    fn unknown_fields_are_tolerated_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        save(&path, &sample()).unwrap();
        let good = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("future = true\n{good}")).unwrap();
        assert_eq!(load(&path).unwrap(), Some(sample()));

        for (from, to) in [
            ("role = \"read-write\"", "role = \"king\""),
            ("expires", "expires?"),
        ] {
            std::fs::write(&path, good.replacen(from, to, 1)).unwrap();
            let e = load(&path).unwrap_err().to_string();
            assert!(e.contains("a.toml (line "), "{e}");
        }
        // Wherever it is cut off, also between two lines.
        for end in BEGIN.len()..good.len() {
            std::fs::write(&path, &good[..end]).unwrap();
            assert!(load(&path).is_err(), "{}", &good[..end]);
        }
        std::fs::write(&path, [0xff, 0xfe, b'\n', b'=', 0]).unwrap();
        assert!(load(&path).is_err());
    }
}
