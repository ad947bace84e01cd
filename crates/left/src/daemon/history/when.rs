//! Which version is meant: `PATH@2026-11-24T10:00`, `PATH@10m`, `PATH@3`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::disk::history::until_ms;

/// Which version of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// The n-th kept version, counted from 1, the latest.
    Nth(u32),
    /// As it was then: milliseconds since 1970.
    Time(u64),
    /// The kept version with this id.
    Id(String),
}

impl At {
    /// Reads what stands after the `@`; times without a zone are of this machine's. `None` for a text
    /// that names no version.
    pub fn parse(text: &str, now: &Zoned) -> Option<At> {
        let text = text.trim();
        if !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().ok().filter(|n| *n > 0).map(At::Nth);
        }
        if until_ms(text).is_some()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        {
            return Some(At::Id(text.to_owned()));
        }
        time(text, now).map(At::Time)
    }
}

/// A moment in milliseconds since 1970: so long ago (`10m`, `1h30m`, `3d`, `2w`), a date, a date and
/// time, or a time of today (of yesterday where it is still to come). `None` for anything else, and
/// for what is before 1970.
pub fn time(text: &str, now: &Zoned) -> Option<u64> {
    let millis = |t: Timestamp| u64::try_from(t.as_millisecond()).ok();
    if let Some(ago) = ago(text) {
        return Some(millis(now.timestamp())?.saturating_sub(ago));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return millis(time);
    }
    let zone = now.time_zone().clone();
    let zoned = |t: DateTime, zone: TimeZone| Some(t.to_zoned(zone).ok()?.timestamp());
    if let Ok(time) = text.parse::<Time>()
        && text.contains(':')
    {
        let today = zoned(now.date().to_datetime(time), zone.clone())?;
        if today <= now.timestamp() {
            return millis(today);
        }
        return millis(zoned(now.date().yesterday().ok()?.to_datetime(time), zone)?);
    }
    if !text.as_bytes().first()?.is_ascii_digit() || !text.contains('-') {
        return None;
    }
    millis(zoned(text.parse::<DateTime>().ok()?, zone)?)
}

/// `1h30m` in milliseconds; each number needs its unit.
fn ago(text: &str) -> Option<u64> {
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            _ => return None,
        };
        rest = &rest[letters..];
        total = total.checked_add(number.checked_mul(unit)?)?;
    }
    (!text.is_empty()).then_some(total)
}

/// Splits `PATH@VERSION` at the last `@`, if a version stands after it. Whether the whole is not a
/// path itself must be seen to by the caller: names may hold an `@`.
pub fn split(path: &Path, now: &Zoned) -> Option<(PathBuf, At)> {
    let bytes = path.as_os_str().as_bytes();
    let at = bytes.iter().rposition(|b| *b == b'@')?;
    let version = std::str::from_utf8(&bytes[at + 1..]).ok()?;
    let front = &bytes[..at];
    if front.is_empty() || front.ends_with(b"/") {
        return None;
    }
    Some((
        PathBuf::from(OsStr::from_bytes(front)),
        At::parse(version, now)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Zoned {
        "2026-11-24T12:00:00+01:00[Europe/Berlin]".parse().unwrap()
    }

    #[test]
    fn versions_are_numbers_ids_and_times() {
        let now = now();
        let noon = now.timestamp().as_millisecond() as u64;
        let ms = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond() as u64;
        let minute = 60_000;
        for (text, wanted) in [
            ("3", Some(At::Nth(3))),
            ("0", None),
            ("10m", Some(At::Time(noon - 10 * minute))),
            ("1h30m", Some(At::Time(noon - 90 * minute))),
            ("2w", Some(At::Time(noon - 14 * 24 * 60 * minute))),
            (
                "2026-11-24T10:00",
                Some(At::Time(ms("2026-11-24T09:00:00Z"))),
            ),
            (
                "2026-11-24 10:00",
                Some(At::Time(ms("2026-11-24T09:00:00Z"))),
            ),
            (
                "2026-11-24T10:00Z",
                Some(At::Time(ms("2026-11-24T10:00:00Z"))),
            ),
            ("2026-07-01", Some(At::Time(ms("2026-06-30T22:00:00Z")))),
            ("11:30", Some(At::Time(noon - 30 * minute))),
            (
                "12:30",
                Some(At::Time(noon + 30 * minute - 24 * 60 * minute)),
            ),
            (
                "20261124T100000.123Z-000001",
                Some(At::Id("20261124T100000.123Z-000001".into())),
            ),
            ("20261124T100000.123Z-/../x", None),
            ("10", Some(At::Nth(10))),
            ("m", None),
            ("10x", None),
            ("", None),
            ("example.org", None),
            ("2026-13-24", None),
            ("99999999999999999999m", None),
            ("1969-01-01T00:00Z", None),
        ] {
            assert_eq!(At::parse(text, &now), wanted, "{text}");
        }
    }

    #[test]
    fn the_last_at_sign_counts_where_a_version_follows() {
        let now = now();
        let cut = |text: &str| split(Path::new(text), &now);
        assert_eq!(cut("/a/b@3"), Some(("/a/b".into(), At::Nth(3))));
        assert_eq!(
            cut("/a/me@home.txt@3"),
            Some(("/a/me@home.txt".into(), At::Nth(3)))
        );
        assert_eq!(cut("/a/b@2@3"), Some(("/a/b@2".into(), At::Nth(3))));
        for whole in ["/a/me@home.txt", "/a/b@", "/a/@3", "@3", "/a/b", "/a@3/b"] {
            assert_eq!(cut(whole), None, "{whole}");
        }
        let odd = Path::new(OsStr::from_bytes(b"/a/\xff@2"));
        let (path, at) = split(odd, &now).unwrap();
        assert_eq!(
            (path.as_os_str().as_bytes(), at),
            (&b"/a/\xff"[..], At::Nth(2))
        );
    }
}
