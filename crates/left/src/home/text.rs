//! Core types as text in TOML and JSON: `#[serde(with = "text")]` for ids, roles, secrets and paths.
//!
//! Core knows no serde, and its types have one text form each, used in files and in the API alike.
//! `PathBuf` has a form too, since serde's own cannot carry names that are not UTF-8: such a path
//! is written as a `file://` URL (RFC 8089) with `%XX` for bytes.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use data_encoding::{BASE64_NOPAD, HEXLOWER};
use left_core::membership::{Founding, Signed, Statement, StatementId};
use left_core::message::{Role, ShareId};
use left_core::version::DeviceId;
use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// A type with exactly one text form.
pub trait Text: Sized {
    /// What it is, with its article, for error messages.
    const WHAT: &'static str;
    /// Its text.
    fn to_text(&self) -> String;
    /// The inverse; `None` when the text is something else.
    fn from_text(text: &str) -> Option<Self>;
}

/// For `#[serde(with = "text")]`.
pub fn serialize<T: Text, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&value.to_text())
}

/// For `#[serde(with = "text")]`.
pub fn deserialize<'de, T: Text, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    let text = String::deserialize(from)?;
    // The text is not repeated: it may be a secret.
    T::from_text(&text).ok_or_else(|| D::Error::custom(format!("expected {}", T::WHAT)))
}

/// For `#[serde(with = "text::option", default)]`.
pub mod option {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Text;

    /// Writes the text or nothing.
    pub fn serialize<T: Text, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.serialize_some(&value.to_text()),
            None => to.serialize_none(),
        }
    }

    /// Reads the text or nothing.
    pub fn deserialize<'de, T: Text, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        let value = T::from_text(&text);
        value
            .map(Some)
            .ok_or_else(|| D::Error::custom(format!("expected {}", T::WHAT)))
    }
}

/// For `#[serde(with = "text::list", default)]`.
pub mod list {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Text;

    /// Writes all texts.
    pub fn serialize<T: Text, S: Serializer>(values: &[T], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(Text::to_text))
    }

    /// Reads all texts.
    pub fn deserialize<'de, T: Text, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let values = texts.iter().map(|text| T::from_text(text));
        values
            .collect::<Option<_>>()
            .ok_or_else(|| D::Error::custom(format!("expected {}", T::WHAT)))
    }
}

impl Text for DeviceId {
    const WHAT: &'static str = "a device id (52 characters)";
    fn to_text(&self) -> String {
        self.to_string()
    }
    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

impl Text for ShareId {
    const WHAT: &'static str = "a share id (52 characters)";
    fn to_text(&self) -> String {
        self.to_string()
    }
    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

impl Text for Role {
    const WHAT: &'static str = "`read-write` or `read-only`";
    fn to_text(&self) -> String {
        match self {
            Role::ReadWrite => "read-write".into(),
            Role::ReadOnly => "read-only".into(),
        }
    }
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "read-write" => Some(Role::ReadWrite),
            "read-only" => Some(Role::ReadOnly),
            _ => None,
        }
    }
}

impl Text for Founding {
    const WHAT: &'static str = "a founder's id, a blank and 64 hexadecimal digits";
    fn to_text(&self) -> String {
        format!("{} {}", self.founder, self.nonce.to_text())
    }
    fn from_text(text: &str) -> Option<Self> {
        let (founder, nonce) = text.split_once(' ')?;
        Some(Self {
            founder: DeviceId::parse(founder)?,
            nonce: Text::from_text(nonce)?,
        })
    }
}

impl Text for StatementId {
    const WHAT: &'static str = "64 hexadecimal digits";
    fn to_text(&self) -> String {
        self.0.to_text()
    }
    fn from_text(text: &str) -> Option<Self> {
        Text::from_text(text).map(Self)
    }
}

/// The signature, then the body.
impl Text for Signed {
    const WHAT: &'static str = "a signed statement in base64";
    fn to_text(&self) -> String {
        let body = self.statement.encode();
        BASE64_NOPAD.encode(&[&self.signature[..], &body].concat())
    }
    fn from_text(text: &str) -> Option<Self> {
        let bytes = BASE64_NOPAD.decode(text.as_bytes()).ok()?;
        let (signature, body) = bytes.split_first_chunk()?;
        Some(Self {
            statement: Statement::decode(body)?,
            signature: *signature,
        })
    }
}

impl<const N: usize> Text for [u8; N] {
    const WHAT: &'static str = "hexadecimal digits of the right length";
    fn to_text(&self) -> String {
        HEXLOWER.encode(self)
    }
    fn from_text(text: &str) -> Option<Self> {
        HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
    }
}

const URL: &str = "file://";

impl Text for PathBuf {
    const WHAT: &'static str = "a path";
    fn to_text(&self) -> String {
        path_text(self)
    }
    fn from_text(text: &str) -> Option<Self> {
        let Some(encoded) = text.strip_prefix(URL) else {
            return (!text.contains('\0')).then(|| PathBuf::from(text));
        };
        let mut bytes = Vec::with_capacity(encoded.len());
        let mut rest = encoded.as_bytes();
        while let Some((first, tail)) = rest.split_first() {
            if *first != b'%' {
                bytes.push(*first);
                rest = tail;
                continue;
            }
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &tail[2..];
        }
        (!bytes.contains(&0)).then(|| PathBuf::from(OsString::from_vec(bytes)))
    }
}

fn path_text(path: &Path) -> String {
    match path.to_str() {
        Some(text) if !text.starts_with(URL) => text.to_string(),
        _ => {
            let mut text = URL.to_string();
            for b in path.as_os_str().as_bytes() {
                if b.is_ascii_alphanumeric() || b"/-._~".contains(b) {
                    text.push(*b as char);
                } else {
                    text.push_str(&format!("%{b:02X}"));
                }
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_survives_as_text() {
        for bytes in [
            &b"/home/a b/\xc3\xa4"[..],
            b"/x/\xff\xfe%41/\n",
            b"file:///strange",
            b"relative",
        ] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            assert_eq!(PathBuf::from_text(&path.to_text()), Some(path));
        }
        assert_eq!(PathBuf::from_text("file:///a%2"), None);
        assert_eq!(PathBuf::from_text("file:///a%00"), None);
    }

    #[test]
    fn ids_and_roles_survive_as_text() {
        let id = ShareId([7; 32]);
        assert_eq!(ShareId::from_text(&id.to_text()), Some(id));
        for role in [Role::ReadWrite, Role::ReadOnly] {
            assert_eq!(Role::from_text(&role.to_text()), Some(role));
        }
        assert_eq!(<[u8; 2]>::from_text("0aff"), Some([10, 255]));
        assert_eq!(<[u8; 2]>::from_text("0aff00"), None);
    }
}
